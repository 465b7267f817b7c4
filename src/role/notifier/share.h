/*
 * share - so that all notifiers work.  The broker makes one consumer of a partition active: the first that came, so a
 * notifier that starts first would have them all.  The living notifiers register themselves; partition p belongs to the
 * one at place p modulo their number.  Who gets events of another's partition lets go of it: it steps to the end of the
 * broker's line.  Only the load hangs on it: every event is handled by whoever is active, and where the registry does not answer
 * all stays as it is.  Threads: the loop's.
 */
#ifndef ROLE_NOTIFIER_SHARE_H
#define ROLE_NOTIFIER_SHARE_H

#include "role/common/role.h"

struct share;

/* yield is called for a partition that is to be let go of. */
enum tr_rc share_new(const struct role_env *env, void (*yield)(void *ctx, unsigned partition), void *ctx,
                     struct share **ret_share, struct tr_err *err) TR_MUST_CHECK;
/* An event of that partition came to us: we are its active one. */
void share_got(struct share *s, unsigned partition);
/* Takes the record out of the registry, unwaited; NULL is fine. */
void share_free(struct share *s);

#endif
