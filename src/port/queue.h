/*
 * queue - the broker: named queues between the roles.
 * Adapters: sqlite (embedded, durable, in this process); later RabbitMQ, NATS, Kafka.  tests/contract/queue.c holds each
 * of them to these rules:
 *  1. Operations follow base/op.h: a callback once, later, on the loop's thread; deadline; cancellation.
 *  2. A durable publish is confirmed (`done` with TR_OK) only once it outlives a SIGKILL.  It may be delivered before.
 *     TR_UNCERTAIN: it may have landed; publish again, the receiver drops what it has seen.
 *  3. A transient message (or any message of a transient queue) never touches the disk, may be lost, and is confirmed at
 *     once; publish it with done == NULL, ret_op == NULL if nobody waits.
 *  4. A delivery is held by its consumer until it is settled; what was not settled when the consumer stopped, its process
 *     died or the connection broke, is delivered again, maybe to another consumer, with the same number of attempts.  Every
 *     delivery but the first says so (`again`); the first may say it, too.
 *  5. Settling is the end of the delivery, whatever becomes of the wish: an ack that is lost means a redelivery.
 *  6. Messages of a queue are delivered in the order of publishing as far as nothing was put back.
 *  7. `publish` to a queue at its length limit says TR_BUSY, and nothing is written; to one never declared, TR_NOT_FOUND.
 *  8. retry(counted) adds 1 to the message's attempts; at QUEUE_ATTEMPTS_MAX it is dead-lettered with its last cause.
 *  9. A fan-out queue gives each of its consumers a copy; without a consumer a message is gone.
 */
#ifndef PORT_QUEUE_H
#define PORT_QUEUE_H

#include "base/buf.h"
#include "base/op.h"
#include "port/service.h"

struct queue;
struct queue_consumer;
struct queue_delivery;

#define QUEUE_NAME_MAX 127
#define QUEUE_ATTEMPTS_MAX 5

enum queue_kind {
    QUEUE_DURABLE,   /* outlives the broker; its messages are durable unless published as transient */
    QUEUE_TRANSIENT, /* a gateway's own: goes with its last consumer */
    QUEUE_FANOUT,    /* [control]: every consumer gets every message; transient */
};

struct queue_spec {
    const char *name;
    enum queue_kind kind;
    uint64_t max_length; /* messages; 0: the adapter's default */
    bool
        single_active; /* one consumer at a time gets messages, the next takes over when it goes ([notify] partitions) */
};

struct queue_message {
    const char *queue;
    struct slice body; /* copied */
    bool transient;
    uint64_t delay_ms; /* not delivered before (0: at once) */
    /*
     * Nobody outside waits for the confirmation: it may come some ten milliseconds later.  An adapter that delivers before
     * it writes may leave a message unwritten that is acknowledged in that time; the ack is its confirmation then.
     */
    bool patient;
};

/* What a consumer is handed.  Borrowed: message and body until settled. */
struct queue_incoming {
    struct queue_delivery *delivery; /* NULL for transient and fan-out messages: nothing to settle */
    const char *queue;
    struct slice body; /* of a transient message: until the callback returns */
    uint32_t attempts; /* counted failures so far: 0 at first */
    bool again;        /* a consumer may have had it before */
};

typedef void queue_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
typedef void queue_length_done(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err);
typedef void queue_on_message(void *ctx, const struct queue_incoming *msg);
/* The broker's connection is back (or the subscription was renewed): what was transient meanwhile may be lost. */
typedef void queue_on_gap(void *ctx);

struct queue_ops {
    const char *scheme;
    /* Idempotent; another kind or limit under a known name: TR_INVALID (kind), or the limit is changed. */
    enum tr_rc (*declare)(struct queue *q, const struct queue_spec *spec, queue_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*publish)(struct queue *q, const struct queue_message *msg, queue_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err);
    /*
     * Deliver up to `prefetch` unsettled messages at a time (0: no bound) to on_message, from now until consumer_stop.
     * Re-subscribes by itself after a lost connection, then calls on_gap (may be NULL).
     */
    enum tr_rc (*consume)(struct queue *q, const char *name, uint32_t prefetch, queue_on_message *on_message,
                          queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer, struct tr_err *err);
    /* No on_message after this returns (nor once close began); deliveries in hand may still be settled.  Frees the consumer; NULL is fine. */
    void (*consumer_stop)(struct queue *q, struct queue_consumer *consumer);

    /* Settle, each exactly once a delivery; no callback, see rule 5. */
    void (*ack)(struct queue *q, struct queue_delivery *d);
    /* Put back, to be delivered after delay_ms; counted: a failed attempt with its cause (rule 8), else as if never taken. */
    void (*retry)(struct queue *q, struct queue_delivery *d, bool counted, uint64_t delay_ms, const char *cause);
    void (*dead_letter)(struct queue *q, struct queue_delivery *d, const char *cause);

    /* Ready and unsettled messages (an estimate where the broker is remote). */
    enum tr_rc (*length)(struct queue *q, const char *name, queue_length_done *done, void *ctx, struct tr_op **ret_op,
                         struct tr_err *err);
    /*
     * Delete if empty and unused; else TR_BUSY.  What another process holds unsettled, and what is published at that moment,
     * may not be seen where the broker is remote: for queues that have been nobody's for long.
     */
    enum tr_rc (*remove)(struct queue *q, const char *name, queue_done *done, void *ctx, struct tr_op **ret_op,
                         struct tr_err *err);
    /* Of a service outside, else NULL: see port/service.h. */
    enum tr_rc (*init)(struct queue *q, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*check)(struct queue *q, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* Settles nothing: what is in hand comes again.  Outstanding operations end with TR_CANCELLED before it returns. */
    void (*close)(struct queue *q);
};

struct queue { /* first member of every adapter's own struct */
    const struct queue_ops *ops;
};

#endif
