/*
 * drainer - the queues of workers that are gone: their messages go by the same choice to those that live (contract 3.5).
 *
 * Every third of a worker's TTL it compares the names of workers' queues that are known (the catalogue keeps them as
 * settings "queue:<name>", so that losing the registry does not lose them) with the workers that live.  A queue whose
 * worker was gone at two looks in a row, or leaves, or was seen to go, is consumed: it is of one consumer at a time (queue_spec.single_active), so
 * the broker hands it to exactly one drainer, in order, and to none while the worker itself still holds it.  When the
 * worker is back the drainer lets go.  A queue that has been nobody's and empty for DRAINER_FORGET_MS is removed, then its
 * name: a queue that is there is named, but for a moment if a worker comes back just then.  Who removed the name looks
 * once more and writes it again, and a worker that serves writes its own now and then (role/inference/worker.c).
 * Threads: the loop's.
 */
#ifndef ROLE_PREPROCESS_DRAINER_H
#define ROLE_PREPROCESS_DRAINER_H

#include "role/common/role.h"

/*
 * Longer than a worker without a record can hold a message unsettled, which a broker does not show to others: RabbitMQ ends
 * that after its consumer_timeout, 30 minutes.
 */
#define DRAINER_FORGET_MS (45 * 60 * 1000)

struct drainer;

/* on_message: what comes out of such a queue, to be routed anew and settled.  ttl_ms: the workers'. */
enum tr_rc drainer_new(const struct role_env *env, uint64_t ttl_ms, uint64_t forget_ms, queue_on_message *on_message,
                       void *ctx, struct drainer **ret_drainer, struct tr_err *err) TR_MUST_CHECK;
/* A worker leaves, or has left: look now, and take over at once what is nobody's. */
void drainer_hurry(struct drainer *d);
/* Stop consuming; what is in hand may still be settled.  NULL is fine. */
void drainer_free(struct drainer *d);

#endif
