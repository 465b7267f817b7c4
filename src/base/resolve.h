/* resolve - a host's name -> its addresses as text, without blocking the loop (a thread of libuv's pool looks it up). */
#ifndef BASE_RESOLVE_H
#define BASE_RESOLVE_H

#include "base/loop.h"

struct resolve;

/* Exactly once, later, on the loop: the first address ("127.0.0.1", "::1"), or NULL and why not.  Not after resolve_stop(). */
typedef void resolve_done(void *ctx, const char *address, const char *why);

enum tr_rc resolve_start(struct loop *loop, const char *host, resolve_done *done, void *ctx,
                         struct resolve **ret_resolve, struct tr_err *err) TR_MUST_CHECK;
void resolve_stop(struct resolve *r); /* nobody waits any more; NULL is fine; not after done */

#endif
