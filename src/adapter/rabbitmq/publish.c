/*
 * publish - publishing and confirmations.
 *
 * Attempts, a delay and the cause of a dead letter travel in headers of ours.  Publishing is `mandatory`: what no queue
 * takes comes back before its confirmation, with the tag that it was sent under as its correlation id.
 *
 * Trap: a channel that publishes to a quorum queue for the first time while the queue's leader is away remembers that dead
 * leader, and refuses (basic.nack) whatever is published to it, until that node is back; a new channel asks anew
 * (RabbitMQ 3.10.8: of 14 such pairs of channel and queue 14 were stuck, and 14 mended).  A refusal for lack of room looks the
 * same.  So the publishing channel is made anew after a refusal, with growing pauses while there are more of them.
 */
#include "adapter/rabbitmq/impl.h"
#include "base/log.h"
#include "base/metrics.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED_MS 1000 /* until a delivery whose copy the broker refused is tried again */
#define MS_NS UINT64_C(1000000)
#define RENEW_FIRST_MS 100
#define RENEW_PAUSE_MAX_MS 5000
#define RENEW_CALM_MS 10000 /* without a refusal: the pauses begin anew */
#define RENEW_WAIT_MS 200   /* for confirmations under way */

static struct metric renewed = METRIC(METRIC_COUNTER, "troupe_broker_renewed_total", NULL,
                                      "Publishing channels made anew after the broker had refused a message.");

amqp_table_entry_t rmq_entry_text(const char *key, const char *value)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)}};
}

amqp_table_entry_t rmq_entry_i64(const char *key, int64_t value)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value}};
}

static bool confirms_grow(struct rabbitmq_queue *q)
{
    const size_t cap = q->confirms_cap == 0 ? 1024 : q->confirms_cap * 2;
    struct rmq_op **ring;

    if (q->confirm_next - q->confirm_first < q->confirms_cap)
        return true;
    ring = calloc(cap, sizeof *ring);
    if (ring == NULL)
        return false;
    for (uint64_t tag = q->confirm_first; tag < q->confirm_next; tag++)
        ring[tag % cap] = q->confirms[tag % q->confirms_cap];
    free(q->confirms);
    q->confirms = ring;
    q->confirms_cap = cap;
    return true;
}

void rmq_publish(struct rabbitmq_queue *q, struct rmq_op *op)
{
    const bool wanted = op->waited || op->tag != 0;
    amqp_table_entry_t headers[5];
    amqp_basic_properties_t props = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG};
    char name[RMQ_NAME_MAX + 1], correlation[24];
    struct rmq_spec *spec;
    bool fanout, transient;
    int n = 0, sent;

    if (!confirms_grow(q)) {
        rmq_finish_as(q, op, TR_NOMEM, "broker: out of memory");
        return;
    }
    HASH_FIND_STR(q->specs, op->name, spec);
    fanout = spec != NULL && spec->kind == QUEUE_FANOUT && op->cause == NULL;
    transient = op->cause == NULL && (op->transient || (spec != NULL && spec->kind == QUEUE_TRANSIENT));
    if (op->attempts > 0)
        headers[n++] = rmq_entry_i64(H_ATTEMPTS, op->attempts);
    if (op->not_before_ms != 0) {
        headers[n++] = rmq_entry_i64(H_NOT_BEFORE, (int64_t)op->not_before_ms);
        headers[n++] = rmq_entry_i64(H_DELAY, (int64_t)op->delay_ms);
    }
    if (op->cause != NULL) {
        headers[n++] = rmq_entry_text(H_CAUSE, op->cause);
        headers[n++] = rmq_entry_text(H_QUEUE, op->name);
    }
    props.headers = (amqp_table_t){.num_entries = n, .entries = headers};
    props.delivery_mode = transient || fanout ? 1 : 2;
    if (wanted) {
        snprintf(correlation, sizeof correlation, "%llu", (unsigned long long)q->confirm_next);
        props._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
        props.correlation_id = amqp_cstring_bytes(correlation);
    }
    rmq_name(q, op->cause != NULL ? RMQ_DEAD : op->name, transient && !fanout, name);
    sent = amqp_basic_publish(q->conn, q->publish_channel, fanout ? amqp_cstring_bytes(name) : amqp_empty_bytes,
                              fanout ? amqp_empty_bytes : amqp_cstring_bytes(name), wanted && !fanout, false, &props,
                              (amqp_bytes_t){.len = op->len, .bytes = op->body});
    q->confirms[q->confirm_next++ % q->confirms_cap] = wanted ? op : NULL;
    if (!wanted)
        rmq_op_free(op);
    if (sent != AMQP_STATUS_OK)
        rmq_lost(q, amqp_error_string2(sent));
}

/*
 * The broker did not take the copy (its queue is full, the dead-letter queue is gone): the delivery stays in our hands, is
 * given to its consumer again after a pause, and keeps its attempts.  Put back, it would come at once, and be counted by
 * the broker each time.
 */
static bool give_again(struct rabbitmq_queue *q, struct rmq_op *op)
{
    struct queue_delivery *const d = calloc(1, sizeof *d);

    if (d == NULL)
        return false;
    d->epoch = op->epoch;
    d->tag = op->tag;
    d->consumer = op->consumer;
    d->again = true;
    d->attempts = op->attempts < QUEUE_ATTEMPTS_MAX ? op->attempts : QUEUE_ATTEMPTS_MAX - 1;
    d->due_ms = wall_ms() + REFUSED_MS;
    memcpy(d->name, op->name, sizeof d->name);
    d->body = op->body;
    d->len = op->len;
    op->body = NULL;
    rmq_deliver(q, d);
    return true;
}

/* What a copy of a delivery stands for is settled once the copy is safe. */
static void settle_original(struct rabbitmq_queue *q, struct rmq_op *op)
{
    if (op->tag == 0 || op->epoch != q->conn_epoch)
        return;
    if (op->rc == TR_OK)
        (void)amqp_basic_ack(q->conn, CH_CONSUME, op->tag, false);
    else if (!give_again(q, op))
        (void)amqp_basic_nack(q->conn, CH_CONSUME, op->tag, false, true);
}

static void confirm_one(struct rabbitmq_queue *q, uint64_t tag, bool taken)
{
    struct rmq_op **const slot = &q->confirms[tag % q->confirms_cap];
    struct rmq_op *const op = *slot;

    *slot = NULL;
    q->refused = q->refused || !taken;
    if (op == NULL)
        return;
    if (op->returned)
        op->rc = tr_fail(&op->err, TR_NOT_FOUND, "no queue '%s'", op->name);
    else if (!taken)
        op->rc = tr_fail(&op->err, TR_BUSY, "queue '%s' is full, or has no leader at the moment", op->name);
    settle_original(q, op);
    rmq_finish(q, op);
}

void rmq_confirmed(struct rabbitmq_queue *q, uint64_t tag, bool multiple, bool taken)
{
    if (tag < q->confirm_first || tag >= q->confirm_next)
        return;
    if (multiple)
        for (uint64_t t = q->confirm_first; t <= tag; t++)
            confirm_one(q, t, taken);
    else
        confirm_one(q, tag, taken);
    while (q->confirm_first < q->confirm_next && (q->confirm_first <= tag && multiple))
        q->confirm_first++;
    /* single ones may come out of order: move on over what nobody waits for */
    while (q->confirm_first <= tag && q->confirms[q->confirm_first % q->confirms_cap] == NULL)
        q->confirm_first++;
}

/* ---- another channel ---- */

static bool all_confirmed(const struct rabbitmq_queue *q)
{
    for (uint64_t tag = q->confirm_first; tag < q->confirm_next; tag++)
        if (q->confirms[tag % q->confirms_cap] != NULL)
            return false;
    return true;
}

void rmq_unconfirmed(struct rabbitmq_queue *q, enum tr_rc rc, const char *why)
{
    for (; q->confirm_first < q->confirm_next; q->confirm_first++) {
        struct rmq_op *const op = q->confirms[q->confirm_first % q->confirms_cap];

        if (op == NULL)
            continue;
        op->rc = rc;
        if (q->conn != NULL)
            settle_original(q, op); /* the delivery that it was a copy of would be in nobody's hands; twice is better */
        rmq_finish_as(q, op, rc, "%s", why);
    }
}

/* What is under way is waited for, so that it is not left uncertain. */
static void await_confirms(struct rabbitmq_queue *q)
{
    const uint64_t until = mono_ns() + RENEW_WAIT_MS * MS_NS;

    while (q->conn != NULL && !all_confirmed(q) && mono_ns() < until) {
        struct pollfd fd = {.fd = amqp_get_sockfd(q->conn), .events = POLLIN};

        (void)poll(&fd, 1, 10);
        (void)rmq_read_frames(q);
    }
}

bool rmq_open_publisher(struct rabbitmq_queue *q)
{
    amqp_channel_open(q->conn, q->publish_channel);
    if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL)
        return false;
    amqp_confirm_select(q->conn, q->publish_channel);
    if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL)
        return false;
    q->confirm_first = q->confirm_next = 1; /* tags begin anew */
    q->back = (struct rmq_content){0};
    q->refused = false;
    return true;
}

void rmq_renew_publisher(struct rabbitmq_queue *q)
{
    const uint64_t now = mono_ns();
    const amqp_channel_t old = q->publish_channel;

    if (!q->refused || now < q->renew_ns)
        return;
    if (now - q->renew_ns > RENEW_CALM_MS * MS_NS)
        q->renew_pause_ms = 0;
    q->renew_pause_ms = q->renew_pause_ms == 0                       ? RENEW_FIRST_MS
                        : q->renew_pause_ms * 2 < RENEW_PAUSE_MAX_MS ? q->renew_pause_ms * 2
                                                                     : RENEW_PAUSE_MAX_MS;
    await_confirms(q);
    if (q->conn == NULL)
        return;
    rmq_unconfirmed(q, TR_UNCERTAIN, "the broker did not confirm it before its channel was given up");
    q->publish_channel = old == CH_PUBLISH ? CH_PUBLISH_OTHER : CH_PUBLISH;
    if (!rmq_open_publisher(q) ||
        amqp_channel_close(q->conn, old, AMQP_REPLY_SUCCESS).reply_type != AMQP_RESPONSE_NORMAL) {
        rmq_lost(q, "another channel could not be opened");
        return;
    }
    q->renew_ns = mono_ns() + q->renew_pause_ms * MS_NS;
    metric_add(&renewed, 1);
    log_event(LOG_DEBUG, "rabbitmq.renewed", "pause_ms=%llu", (unsigned long long)q->renew_pause_ms);
}
