/*
 * inference - see DESIGN.md, "A message's way".
 */
#ifndef ROLE_INFERENCE_H
#define ROLE_INFERENCE_H

#include "role/common/role.h"

struct inference;

/* Start; everything it needs is declared and consumed when `started` is called (once, later). */
typedef void inference_started(void *ctx, enum tr_rc rc, const struct tr_err *err);
/* engines: in order of fallback; borrowed.  character: "any" for the shared pool. */
enum tr_rc inference_start(const struct role_env *env, struct engine *const *engines, size_t engines_n,
                           const char *character, inference_started *started, void *ctx,
                           struct inference **ret_inference, struct tr_err *err) TR_MUST_CHECK;
/*
 * Be told once when this worker is in trouble (engine errors in a row, too much memory): it should drain, leave and be
 * started anew by whoever supervises it.  It goes on until then.
 */
void inference_on_trouble(struct inference *r, void (*trouble)(void *ctx, const char *why), void *ctx);
/* Take no new work, finish or hand back what is held within the drain time, then call back once. */
void inference_drain(struct inference *r, void (*drained)(void *ctx), void *ctx);
/* Stop at once; what is in hand comes again.  NULL is fine. */
void inference_free(struct inference *r);

#endif
