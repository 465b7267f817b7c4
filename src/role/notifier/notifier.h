/*
 * notifier - see DESIGN.md, "A message's way".
 */
#ifndef ROLE_NOTIFIER_H
#define ROLE_NOTIFIER_H

#include "role/common/role.h"

struct notifier;

/* Start; everything it needs is declared and consumed when `started` is called (once, later). */
typedef void notifier_started(void *ctx, enum tr_rc rc, const struct tr_err *err);
enum tr_rc notifier_start(const struct role_env *env, notifier_started *started, void *ctx,
                          struct notifier **ret_notifier, struct tr_err *err) TR_MUST_CHECK;
/* Take no new work, finish or hand back what is held within the drain time, then call back once. */
void notifier_drain(struct notifier *r, void (*drained)(void *ctx), void *ctx);
/* Stop at once; what is in hand comes again.  NULL is fine. */
void notifier_free(struct notifier *r);

#endif
