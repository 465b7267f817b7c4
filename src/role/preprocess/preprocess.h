/*
 * preprocess - see DESIGN.md, "A message's way".
 */
#ifndef ROLE_PREPROCESS_H
#define ROLE_PREPROCESS_H

#include "role/common/role.h"

struct preprocess;

/* Start; everything it needs is declared and consumed when `started` is called (once, later). */
typedef void preprocess_started(void *ctx, enum tr_rc rc, const struct tr_err *err);
enum tr_rc preprocess_start(const struct role_env *env, preprocess_started *started, void *ctx,
                            struct preprocess **ret_preprocess, struct tr_err *err) TR_MUST_CHECK;
/* Take no new work, finish or hand back what is held within the drain time, then call back once. */
void preprocess_drain(struct preprocess *r, void (*drained)(void *ctx), void *ctx);
/* Stop at once; what is in hand comes again.  NULL is fine. */
void preprocess_free(struct preprocess *r);

#endif
