/*
 * queue (rabbitmq) - the broker outgrown: port/queue.h on RabbitMQ, by librabbitmq.
 * URL: amqp://user:password@host1:5672,host2/vhost?prefix=troupe.  (AMQP 0-9-1; hosts of one cluster, tried in turn.)
 */
#ifndef ADAPTER_RABBITMQ_QUEUE_H
#define ADAPTER_RABBITMQ_QUEUE_H

#include "base/loop.h"
#include "port/queue.h"

struct rabbitmq_options {
    uint64_t heartbeat_ms; /* whole seconds, at least one: a third of the workers' TTL; 0: 3000 */
    uint64_t timeout_ms;   /* an operation's deadline; 0: 10000 */
};

/* TR_INVALID: the URL; no server is needed.  opt may be NULL.  The caller owns *ret_queue: ops->close(). */
enum tr_rc rabbitmq_queue_open(struct loop *loop, const char *url, const struct rabbitmq_options *opt,
                               struct queue **ret_queue, struct tr_err *err) TR_MUST_CHECK;

#endif
