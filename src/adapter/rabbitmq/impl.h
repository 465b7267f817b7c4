/*
 * impl - what the files of the RabbitMQ adapter share; nobody else includes it.
 *   queue.c     the port's side, on the loop: operations and their deadlines
 *   deliver.c   the same for consumers and deliveries in hand
 *   thread.c    the thread that alone uses librabbitmq: commands in, results and deliveries out
 *   connect.c   connecting, and declaring and subscribing again what was there before
 *   channel.c   what goes over an open connection: declarations, and the frames that come in
 *   publish.c   publishing and confirmations
 */
#ifndef ADAPTER_RABBITMQ_IMPL_H
#define ADAPTER_RABBITMQ_IMPL_H

#include "adapter/rabbitmq/queue.h"
#include "base/pending.h"
#include "base/url.h"

#include <amqp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

#define RMQ_NAME_MAX 255
#define RMQ_OPS_MAX 65536 /* operations under way; past it a start says TR_BUSY */
#define RMQ_CAUSE_MAX 200
#define RMQ_LENGTH_MAX 1000000 /* transient messages that wait in a queue without a limit of its own */

enum rmq_kind {
    RMQ_DECLARE,
    RMQ_PUBLISH,
    RMQ_LENGTH,
    RMQ_REMOVE,
    RMQ_CHECK,
    RMQ_CONSUME,
    RMQ_CANCEL,
    RMQ_ACK,
    RMQ_REQUEUE
};
/* An operation between two threads: whoever moves it out of QUEUED first decides whether it is ever sent. */
enum rmq_stage { RMQ_QUEUED, RMQ_SENT, RMQ_GIVEN_UP };

/* One command to the thread, and what became of it. */
struct rmq_op {
    struct pending base; /* first; of those that are waited for */
    struct rabbitmq_queue *q;
    enum rmq_kind kind;
    struct rmq_op *next; /* in the inbox, the thread's line, the outbox */
    /* the loop's */
    union {
        queue_done *plain;
        queue_length_done *length;
        service_checked *check;
    } done;
    void *ctx;
    bool waited, answered;
    bool loose;       /* a publish that nobody waits for: counted in q->loose */
    uint64_t late_ms; /* of a loose one, by the monotonic clock: not sent by then, it is dropped */
    atomic_int stage;
    /* what to do: */
    char name[QUEUE_NAME_MAX + 1];
    enum queue_kind queue_kind; /* declare */
    bool single_active;
    uint64_t max_length;
    uint32_t consumer, prefetch; /* consume, cancel */
    bool transient;              /* publish */
    uint8_t *body;               /* publish: owned */
    size_t len;
    uint32_t attempts;
    uint64_t not_before_ms, delay_ms;
    char *cause;         /* publish to the dead-letter queue: owned; NULL: another */
    uint64_t epoch, tag; /* ack, requeue, and publish: the delivery that it takes the place of (tag 0: none) */
    uint64_t in_hand;    /* remove: deliveries of the queue that are unsettled here */
    /* what became of it: */
    enum tr_rc rc;
    struct tr_err err;
    uint64_t length;
    struct service_report report;
    bool returned; /* the broker knows no such queue */
};

struct queue_delivery {
    struct queue_delivery *next, *prev; /* outbox; then the consumer's list of held ones */
    uint64_t epoch, tag;                /* tag 0: nothing to settle */
    uint32_t consumer;
    uint32_t attempts;
    uint64_t due_ms; /* of the wall clock; 0: now.  Held: of the loop's clock */
    bool in_hand;
    bool again;                   /* a consumer may have had it */
    struct queue_consumer *owner; /* the loop's; NULL: it has stopped */
    char name[QUEUE_NAME_MAX + 1];
    uint8_t *body; /* owned */
    size_t len;
};

/* The thread's own notes. */
struct rmq_spec { /* what this process declared */
    char name[QUEUE_NAME_MAX + 1];
    enum queue_kind kind;
    bool single_active;
    uint64_t max_length;
    uint64_t born_ns; /* when this process made it; 0: it was there */
    bool young;       /* the connection was lost soon after that: see connect.c */
    UT_hash_handle hh;
};
struct rmq_sub { /* a consumer */
    uint32_t id;
    char name[QUEUE_NAME_MAX + 1];
    uint32_t prefetch;
    bool durable_on, transient_on; /* subscribed on this connection */
    bool gap;                      /* it was subscribed before: tell it when it is again */
    unsigned stuck;                /* subscriptions in a row that the broker did not answer */
    uint64_t next_ns;              /* not tried again before */
    struct rmq_sub *next;
};
struct rmq_content {          /* a message that is coming in, frame by frame */
    struct queue_delivery *d; /* NULL: a returned one */
    bool open, body_known;
    uint64_t correlation;
    size_t want, have;
};
struct rmq_host_error {
    enum tr_rc rc;
    char text[200];
};

struct rabbitmq_queue {
    struct queue base;
    struct loop *loop;
    struct url url;
    char prefix[64];
    uint64_t timeout_ms;
    int heartbeat_s;
    /* the loop's */
    struct pending_list ops;
    struct queue_consumer *consumers;
    struct queue_delivery *in_hand; /* with the roles, unsettled */
    uint32_t last_consumer;
    struct loop_timer *tick; /* deadlines */
    struct loop_timer *hold; /* held deliveries */
    uint64_t hold_due_ms;    /* 0: it does not run */
    bool closing;
    uint64_t epoch; /* of the newest connection that the loop knows of */

    /* between the threads, under the lock */
    pthread_mutex_t lock;
    struct rmq_op *inbox, **inbox_end;
    struct rmq_op *out_ops, **out_ops_end;
    struct queue_delivery *out_first, *out_last;
    uint32_t *gaps; /* ids of consumers that are subscribed again; owned */
    size_t gaps_n, gaps_cap;
    uint64_t out_epoch;
    bool out_posted, stop;
    struct loop_call mail;
    int wake_fd;
    int socket_fd;       /* -1: none; for ending a send that is stuck */
    atomic_size_t loose; /* publishes that nobody waits for */
    pthread_t thread;
    bool thread_runs;

    /* the thread's */
    amqp_connection_state_t conn; /* NULL: none */
    struct rmq_op *line, **line_end;
    struct rmq_op **confirms; /* ring: the operation of each tag from confirm_first on; NULL: nobody waits */
    size_t confirms_cap;
    uint64_t confirm_first, confirm_next;
    amqp_channel_t publish_channel; /* CH_PUBLISH or CH_PUBLISH_OTHER */
    bool refused;                   /* a message, on this channel */
    uint64_t renew_ns, renew_pause_ms;
    struct rmq_spec *specs;
    struct rmq_sub *subs;
    struct rmq_content in, back; /* deliveries; returned messages */
    uint64_t conn_epoch;
    unsigned host;
    uint64_t retry_ns, pause_ms, resubscribe_ns;
    bool resubscribe, ever;
    struct rmq_host_error trouble;
    char server[120];
    struct rmq_op *ready_ops, **ready_ops_end; /* to be posted at the end of the round */
    struct queue_delivery *ready_first, *ready_last;
};

enum { CH_PUBLISH = 1, CH_CONSUME = 2, CH_CONTROL = 3, CH_PUBLISH_OTHER = 4 }; /* the two take turns */
#define H_ATTEMPTS "x-troupe-attempts"
#define H_NOT_BEFORE "x-troupe-not-before"
#define H_DELAY "x-troupe-delay"
#define H_CAUSE "x-troupe-cause"
#define H_QUEUE "x-troupe-queue"
#define RMQ_DEAD "dead"

/* ---- queue.c ---- */
/* A new operation, *ret_op owned until rmq_op_start() takes it; with `waited` it has a deadline and a caller. */
enum tr_rc rmq_op_new(struct rabbitmq_queue *q, enum rmq_kind kind, const char *name, bool waited,
                      struct rmq_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
void rmq_op_start(struct rmq_op *op, void *ctx, struct tr_op **ret_op);

/* ---- deliver.c: on the loop ---- */
/* The port's own; see port/queue.h. */
enum tr_rc rmq_consume(struct queue *base, const char *name, uint32_t prefetch, queue_on_message *on_message,
                       queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer, struct tr_err *err);
void rmq_consumer_stop(struct queue *base, struct queue_consumer *c);
void rmq_ack(struct queue *base, struct queue_delivery *d);
void rmq_retry(struct queue *base, struct queue_delivery *d, bool counted, uint64_t delay_ms, const char *cause);
void rmq_dead_letter(struct queue *base, struct queue_delivery *d, const char *cause);
/* A delivery that the thread brought, taken: to its consumer, now or when it is due. */
void rmq_hand_out(struct rabbitmq_queue *q, struct queue_delivery *d);
void rmq_gap(struct rabbitmq_queue *q, uint32_t consumer);
/* A new connection: what was held of the old one comes again by itself. */
void rmq_new_epoch(struct rabbitmq_queue *q, uint64_t epoch);
/* Deliveries of this queue that are unsettled here. */
uint64_t rmq_in_hand_of(const struct rabbitmq_queue *q, const char *name);
void rmq_on_hold(void *ctx); /* the timer of held deliveries; ctx: the queue */
/* Consumers stop; what is in hand comes again.  For closing. */
void rmq_release_deliveries(struct rabbitmq_queue *q);

/* ---- thread.c ---- */
void *rmq_thread(void *arg);
/* The operation has ended, as op->rc and op->err say: hand it back to the loop (or free it where nobody waits). */
void rmq_finish(struct rabbitmq_queue *q, struct rmq_op *op);
void rmq_finish_as(struct rabbitmq_queue *q, struct rmq_op *op, enum tr_rc rc, const char *fmt, ...) TR_PRINTF(4, 5);
void rmq_op_free(struct rmq_op *op);
void rmq_deliver(struct rabbitmq_queue *q, struct queue_delivery *d);
void rmq_delivery_free(struct queue_delivery *d);
void rmq_tell_gap(struct rabbitmq_queue *q, uint32_t consumer);
void rmq_tell_epoch(struct rabbitmq_queue *q);

/* ---- connect.c ---- */
/* One try at the next host.  On failure q->trouble says why. */
bool rmq_connect(struct rabbitmq_queue *q);
/* The connection is gone, or is given up: what was sent is UNCERTAIN. */
void rmq_lost(struct rabbitmq_queue *q, const char *why);
void rmq_say_goodbye(struct rabbitmq_queue *q);
/* Subscribe what is not; false: the connection was lost over it. */
bool rmq_subscribe_all(struct rabbitmq_queue *q);

/* ---- channel.c ---- */
/* "<prefix><name>", or of its transient part "<prefix><name>.t"; within one statement only. */
const char *rmq_name(const struct rabbitmq_queue *q, const char *name, bool transient, char out[RMQ_NAME_MAX + 1]);
/* What the last synchronous call brought.  A closed control channel is opened again; else the connection is lost. */
enum tr_rc rmq_reply(struct rabbitmq_queue *q, amqp_rpc_reply_t reply, int *ret_code, struct tr_err *err);
enum tr_rc rmq_declare(struct rabbitmq_queue *q, const struct rmq_spec *spec, struct tr_err *err);
/* The durable part of a queue: TR_OK: it is there, with so many ready messages; TR_NOT_FOUND. */
enum tr_rc rmq_look_durable(struct rabbitmq_queue *q, const char *name, uint64_t *ret_ready, struct tr_err *err);
/* Delete it, whatever is in it. */
enum tr_rc rmq_delete_durable(struct rabbitmq_queue *q, const char *name, struct tr_err *err);
/* Messages ready in the queue (both parts) and its consumers.  TR_NOT_FOUND: neither part is there. */
enum tr_rc rmq_look(struct rabbitmq_queue *q, const char *name, uint64_t *ret_ready, uint64_t *ret_consumers,
                    bool *ret_durable, bool *ret_transient, struct tr_err *err);
enum tr_rc rmq_remove(struct rabbitmq_queue *q, const char *name, struct tr_err *err);
/* Take in all that has come.  False: the connection was lost. */
bool rmq_read_frames(struct rabbitmq_queue *q);
struct rmq_sub *rmq_find_sub(struct rabbitmq_queue *q, uint32_t id);

/* ---- publish.c ---- */
/* Send it, and note it for its confirmation; the operation is taken. */
void rmq_publish(struct rabbitmq_queue *q, struct rmq_op *op);
void rmq_confirmed(struct rabbitmq_queue *q, uint64_t tag, bool multiple, bool taken);
/* What is not confirmed yet ends so; on a living connection the deliveries that it was to replace are given again. */
void rmq_unconfirmed(struct rabbitmq_queue *q, enum tr_rc rc, const char *why);
/* Open q->publish_channel.  False: the last reply says why. */
bool rmq_open_publisher(struct rabbitmq_queue *q);
/* Where the broker has refused a message, and it is time: another publishing channel.  May lose the connection. */
void rmq_renew_publisher(struct rabbitmq_queue *q);
amqp_table_entry_t rmq_entry_text(const char *key, const char *value);
amqp_table_entry_t rmq_entry_i64(const char *key, int64_t value);

#endif
