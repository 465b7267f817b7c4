/*
 * watch - does each store of this process answer?  Asked every few seconds (port/service.h's `check`; embedded stores
 * always do), told by /readyz and in troupe_store_up; a change is logged once.  With the notifier it also shows how long
 * its queues are.  Threads: the loop's.
 */
#ifndef ROLE_COMMON_WATCH_H
#define ROLE_COMMON_WATCH_H

#include "role/common/role.h"

struct watch;

/* Start to look, at the stores of env that are not NULL.  env is copied. */
enum tr_rc watch_start(const struct role_env *env, bool notify_lengths, struct watch **ret_watch,
                       struct tr_err *err) TR_MUST_CHECK;
void watch_free(struct watch *w); /* before the stores are closed; NULL is fine */

/*
 * True: every store that a role can't do without has answered when it was asked last; the registry is none of them
 * (contract 3.7: messages are accepted without it, and a balancer must not be left with no gateway at all), nor are the
 * media (chats go on without pictures).
 * False: *ret_key is the key of the first that has not ("TROUPE_BROKER").
 * Either way `why` says which have not: by name alone ("broker, registry"), or with causes, which name hosts and so are
 * for those who run this, not for clients.
 */
bool watch_reached(const struct watch *w, bool causes, const char **ret_key, struct buf *why);

#endif
