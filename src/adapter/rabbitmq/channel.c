/*
 * channel - what goes over an open connection.
 *
 * A name of the port is two queues of the broker: "<name>", a quorum queue, for what must not be lost, and "<name>.t", a
 * classic queue in memory, for what may (a quorum queue writes everything to its log, whatever the message says).
 * QUEUE_DURABLE has both, QUEUE_TRANSIENT the second alone; QUEUE_FANOUT is an exchange.  So a publisher need not know the
 * kind of a queue that another process declared.
 *
 * A delayed message is delivered at once and held by the receiving adapter, unsettled: no other queue, nothing to lose, and
 * a broker's restart only means that it is delivered and held again.
 */
#include "adapter/rabbitmq/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELIVERY_LIMIT 1000 /* the broker's own, a backstop (contract 11.4) */
#define UNUSED_MS 300000    /* a transient queue that nobody consumes goes after so long */

const char *rmq_name(const struct rabbitmq_queue *q, const char *name, bool transient, char out[RMQ_NAME_MAX + 1])
{
    snprintf(out, RMQ_NAME_MAX + 1, "%s%s%s", q->prefix, name, transient ? ".t" : "");
    return out;
}

struct rmq_sub *rmq_find_sub(struct rabbitmq_queue *q, uint32_t id)
{
    struct rmq_sub *sub = q->subs;

    while (sub != NULL && sub->id != id)
        sub = sub->next;
    return sub;
}

/* ---- the control channel: calls that are waited for ---- */

enum tr_rc rmq_reply(struct rabbitmq_queue *q, amqp_rpc_reply_t reply, int *ret_code, struct tr_err *err)
{
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return TR_OK;
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *const m = reply.reply.decoded;
        amqp_channel_close_ok_t ok = {0};
        const int code = m->reply_code;

        tr_fail(err, TR_TRANSIENT, "RabbitMQ: %d %.*s", code, (int)(m->reply_text.len < 160 ? m->reply_text.len : 160),
                (const char *)m->reply_text.bytes);
        if (ret_code != NULL)
            *ret_code = code;
        if (amqp_send_method(q->conn, CH_CONTROL, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok) != AMQP_STATUS_OK) {
            rmq_lost(q, "the control channel");
            return TR_TRANSIENT;
        }
        amqp_maybe_release_buffers_on_channel(q->conn, CH_CONTROL);
        amqp_channel_open(q->conn, CH_CONTROL);
        if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL)
            rmq_lost(q, "the control channel could not be opened again");
        return code == 404 ? TR_NOT_FOUND : code == 403 || code == 406 ? TR_INVALID : TR_TRANSIENT;
    }
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        tr_fail(err, TR_UNCERTAIN, "RabbitMQ: %s", amqp_error_string2(reply.library_error));
    else
        tr_fail(err, TR_UNCERTAIN, "RabbitMQ closed the connection");
    rmq_lost(q, err != NULL ? err->msg : "a call failed");
    return TR_UNCERTAIN;
}

static amqp_table_entry_t entry_true(const char *key)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
}

/*
 * There with another limit, or made by a version that set other details: it is of the same sort, and what it was made
 * with holds.  The broker names the first argument that differs.
 */
static bool only_details_differ(const char *text)
{
    static const char *const details[] = {"x-max-length", "x-overflow", "x-dead-letter-", "x-delivery-limit"};

    for (size_t i = 0; i < sizeof details / sizeof details[0]; i++)
        if (strstr(text, details[i]) != NULL)
            return true;
    return false;
}

static enum tr_rc declare_part(struct rabbitmq_queue *q, const struct rmq_spec *spec, bool transient,
                               struct tr_err *err)
{
    char name[RMQ_NAME_MAX + 1], dead[RMQ_NAME_MAX + 1];
    amqp_table_entry_t args[8];
    int n = 0, code = 0;
    enum tr_rc rc;

    args[n++] = rmq_entry_text("x-queue-type", transient ? "classic" : "quorum");
    if (transient) {
        args[n++] = rmq_entry_i64("x-max-length", spec->max_length != 0 ? (int64_t)spec->max_length : RMQ_LENGTH_MAX);
        args[n++] = rmq_entry_i64("x-expires", UNUSED_MS);
    } else {
        args[n++] = rmq_entry_i64("x-delivery-limit", DELIVERY_LIMIT);
        if (spec->max_length != 0)
            args[n++] = rmq_entry_i64("x-max-length", (int64_t)spec->max_length);
        if (strcmp(spec->name, RMQ_DEAD) != 0) { /* past the backstop a message is a dead letter, not lost */
            args[n++] = rmq_entry_text("x-overflow", "reject-publish");
            args[n++] = rmq_entry_text("x-dead-letter-exchange", "");
            args[n++] = rmq_entry_text("x-dead-letter-routing-key", rmq_name(q, RMQ_DEAD, false, dead));
            args[n++] = rmq_entry_text("x-dead-letter-strategy", "at-least-once");
        }
    }
    if (spec->single_active)
        args[n++] = entry_true("x-single-active-consumer");
    amqp_queue_declare(q->conn, CH_CONTROL, amqp_cstring_bytes(rmq_name(q, spec->name, transient, name)), false,
                       !transient, false, transient && spec->kind == QUEUE_TRANSIENT,
                       (amqp_table_t){.num_entries = n, .entries = args});
    rc = rmq_reply(q, amqp_get_rpc_reply(q->conn), &code, err);
    return rc == TR_INVALID && code == 406 && err != NULL && only_details_differ(err->msg) ? TR_OK : rc;
}

/* The other sort of a name must not be there: a queue where an exchange is wanted, and the other way round. */
static enum tr_rc declare_exchange(struct rabbitmq_queue *q, const struct rmq_spec *spec, struct tr_err *err)
{
    char name[RMQ_NAME_MAX + 1];

    amqp_exchange_declare(q->conn, CH_CONTROL, amqp_cstring_bytes(rmq_name(q, spec->name, false, name)),
                          amqp_cstring_bytes("fanout"), false, false, false, false, amqp_empty_table);
    return rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err);
}

enum tr_rc rmq_declare(struct rabbitmq_queue *q, const struct rmq_spec *spec, struct tr_err *err)
{
    struct rmq_spec *known;
    struct tr_err mine = {0};
    enum tr_rc rc = TR_OK;

    if (err == NULL)
        err = &mine;
    HASH_FIND_STR(q->specs, spec->name, known);
    if (known != NULL && known->kind != spec->kind)
        return tr_fail(err, TR_INVALID, "queue '%s' is of another kind", spec->name);
    if (spec->kind == QUEUE_FANOUT)
        return declare_exchange(q, spec, err);
    if (spec->kind == QUEUE_DURABLE)
        rc = declare_part(q, spec, false, err);
    if (rc == TR_OK)
        rc = declare_part(q, spec, true, err);
    return rc;
}

static enum tr_rc look_at_part(struct rabbitmq_queue *q, const char *name, bool transient, uint64_t *ready,
                               uint64_t *consumers, struct tr_err *err)
{
    char full[RMQ_NAME_MAX + 1];
    const amqp_queue_declare_ok_t *const there =
        amqp_queue_declare(q->conn, CH_CONTROL, amqp_cstring_bytes(rmq_name(q, name, transient, full)), true, false,
                           false, false, amqp_empty_table);
    const enum tr_rc rc = rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err);

    if (rc == TR_OK) {
        *ready += there->message_count;
        *consumers += there->consumer_count;
    }
    return rc;
}

enum tr_rc rmq_look(struct rabbitmq_queue *q, const char *name, uint64_t *ret_ready, uint64_t *ret_consumers,
                    bool *ret_durable, bool *ret_transient, struct tr_err *err)
{
    enum tr_rc rc = look_at_part(q, name, false, ret_ready, ret_consumers, err), other;

    *ret_durable = rc == TR_OK;
    *ret_transient = false;
    if (q->conn == NULL || (rc != TR_OK && rc != TR_NOT_FOUND))
        return rc;
    other = look_at_part(q, name, true, ret_ready, ret_consumers, rc == TR_OK ? NULL : err);
    *ret_transient = other == TR_OK;
    return rc == TR_OK ? rc : other;
}

enum tr_rc rmq_look_durable(struct rabbitmq_queue *q, const char *name, uint64_t *ret_ready, struct tr_err *err)
{
    uint64_t ready = 0, consumers = 0;
    const enum tr_rc rc = look_at_part(q, name, false, &ready, &consumers, err);

    if (rc == TR_OK)
        *ret_ready = ready;
    return rc;
}

enum tr_rc rmq_delete_durable(struct rabbitmq_queue *q, const char *name, struct tr_err *err)
{
    char full[RMQ_NAME_MAX + 1];

    amqp_queue_delete(q->conn, CH_CONTROL, amqp_cstring_bytes(rmq_name(q, name, false, full)), false, false);
    return rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err);
}

/*
 * Delete if empty and unused.  Quorum queues know no such flags (540 not_implemented), so it is looked first; what is
 * published in between, or held unsettled by another connection, is lost with it: the port's callers remove the queues of
 * workers long dead, whose messages are calls to work.  Who subscribes in between is told by the broker, declares and
 * subscribes anew.  The classic part knows the flag for consumers.
 */
enum tr_rc rmq_remove(struct rabbitmq_queue *q, const char *name, struct tr_err *err)
{
    uint64_t ready = 0, consumers = 0;
    bool durable = false, transient = false;
    char full[RMQ_NAME_MAX + 1];
    enum tr_rc rc = rmq_look(q, name, &ready, &consumers, &durable, &transient, err);

    if (rc != TR_OK)
        return rc;
    if (ready > 0 || consumers > 0)
        return tr_fail(err, TR_BUSY, "queue '%s' has %llu messages and %llu consumers", name, (unsigned long long)ready,
                       (unsigned long long)consumers);
    for (int part = 0; part < 2 && q->conn != NULL && rc == TR_OK; part++) {
        if (!(part == 0 ? durable : transient))
            continue;
        amqp_queue_delete(q->conn, CH_CONTROL, amqp_cstring_bytes(rmq_name(q, name, part == 1, full)), part == 1,
                          false);
        rc = rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err);
    }
    return rc;
}

/* ---- frames ---- */

static int64_t header_i64(const amqp_table_entry_t *e)
{
    switch (e->value.kind) {
    case AMQP_FIELD_KIND_I64:
    case AMQP_FIELD_KIND_TIMESTAMP:
        return e->value.value.i64;
    case AMQP_FIELD_KIND_I32:
        return e->value.value.i32;
    case AMQP_FIELD_KIND_I16:
        return e->value.value.i16;
    case AMQP_FIELD_KIND_I8:
        return e->value.value.i8;
    default:
        return 0;
    }
}

static bool is_key(const amqp_table_entry_t *e, const char *key)
{
    return e->key.len == strlen(key) && memcmp(e->key.bytes, key, e->key.len) == 0;
}

static void take_headers(struct queue_delivery *d, const amqp_basic_properties_t *props)
{
    int64_t not_before = 0, delay = 0, attempts = 0;

    if ((props->_flags & AMQP_BASIC_HEADERS_FLAG) == 0)
        return;
    for (int i = 0; i < props->headers.num_entries; i++) {
        const amqp_table_entry_t *const e = &props->headers.entries[i];

        if (is_key(e, H_ATTEMPTS))
            attempts = header_i64(e);
        else if (is_key(e, H_NOT_BEFORE))
            not_before = header_i64(e);
        else if (is_key(e, H_DELAY))
            delay = header_i64(e);
    }
    d->attempts = attempts > 0 && attempts < 1000 ? (uint32_t)attempts : 0;
    if (not_before > 0 && delay > 0) { /* another machine's clock never makes it longer than it was meant */
        const uint64_t now = wall_ms();

        d->due_ms = (uint64_t)not_before;
        if (d->due_ms > now + (uint64_t)delay)
            d->due_ms = now + (uint64_t)delay;
    }
}

static bool begin_delivery(struct rabbitmq_queue *q, const amqp_basic_deliver_t *m)
{
    struct queue_delivery *const d = calloc(1, sizeof *d);
    const struct rmq_sub *sub;
    char tag[16] = "";

    if (d == NULL)
        return false;
    if (m->consumer_tag.len > 1 && m->consumer_tag.len < sizeof tag)
        memcpy(tag, m->consumer_tag.bytes, m->consumer_tag.len);
    d->consumer = (uint32_t)strtoul(tag[0] != '\0' ? tag + 1 : "0", NULL, 10);
    d->tag = tag[0] == 'd' ? m->delivery_tag : 0;
    d->epoch = q->conn_epoch;
    d->again = m->redelivered != 0;
    sub = rmq_find_sub(q, d->consumer);
    if (sub != NULL)
        memcpy(d->name, sub->name, sizeof d->name);
    q->in = (struct rmq_content){.open = true, .d = d};
    return true;
}

static void end_content(struct rabbitmq_queue *q, struct rmq_content *c)
{
    struct queue_delivery *const d = c->d;

    if (c == &q->in && d != NULL)
        rmq_deliver(q, d); /* of a consumer that has stopped meanwhile: the loop gives it back */
    else if (c == &q->back && c->correlation >= q->confirm_first && c->correlation < q->confirm_next &&
             q->confirms[c->correlation % q->confirms_cap] != NULL)
        q->confirms[c->correlation % q->confirms_cap]->returned = true;
    *c = (struct rmq_content){0};
}

static bool on_header(struct rabbitmq_queue *q, struct rmq_content *c, const amqp_frame_t *f)
{
    const amqp_basic_properties_t *const props = f->payload.properties.decoded;

    if (!c->open || c->body_known)
        return false;
    c->body_known = true;
    c->want = (size_t)f->payload.properties.body_size;
    if (c->d != NULL) {
        if (c->want > 64u * 1024 * 1024 || (c->d->body = malloc(c->want > 0 ? c->want : 1)) == NULL)
            return false;
        c->d->len = c->want;
        take_headers(c->d, props);
    } else if ((props->_flags & AMQP_BASIC_CORRELATION_ID_FLAG) != 0 && props->correlation_id.len < 24) {
        char text[24] = "";

        memcpy(text, props->correlation_id.bytes, props->correlation_id.len);
        c->correlation = strtoull(text, NULL, 10);
    }
    if (c->want == 0)
        end_content(q, c);
    return true;
}

static bool on_body(struct rabbitmq_queue *q, struct rmq_content *c, const amqp_frame_t *f)
{
    const amqp_bytes_t piece = f->payload.body_fragment;

    if (!c->open || !c->body_known || piece.len > c->want - c->have)
        return false;
    if (c->d != NULL)
        memcpy(c->d->body + c->have, piece.bytes, piece.len);
    c->have += piece.len;
    if (c->have == c->want)
        end_content(q, c);
    return true;
}

/* The broker has ended a subscription: its queue went, or moved. */
static void on_cancelled(struct rabbitmq_queue *q, const amqp_basic_cancel_t *m)
{
    char tag[16] = "";
    struct rmq_sub *sub;

    if (m->consumer_tag.len > 1 && m->consumer_tag.len < sizeof tag)
        memcpy(tag, m->consumer_tag.bytes, m->consumer_tag.len);
    sub = rmq_find_sub(q, (uint32_t)strtoul(tag[0] != '\0' ? tag + 1 : "0", NULL, 10));
    if (sub == NULL)
        return;
    if (tag[0] == 'd')
        sub->durable_on = false;
    else
        sub->transient_on = false;
    sub->gap = true;
    q->resubscribe = true;
}

static bool on_method(struct rabbitmq_queue *q, const amqp_frame_t *f)
{
    const amqp_method_t *const m = &f->payload.method;

    switch (m->id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *const ack = m->decoded;

        rmq_confirmed(q, ack->delivery_tag, ack->multiple, true);
        return true;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *const nack = m->decoded;

        rmq_confirmed(q, nack->delivery_tag, nack->multiple, false);
        return true;
    }
    case AMQP_BASIC_RETURN_METHOD:
        q->back = (struct rmq_content){.open = true};
        return true;
    case AMQP_BASIC_DELIVER_METHOD:
        return begin_delivery(q, m->decoded);
    case AMQP_BASIC_CANCEL_METHOD:
        on_cancelled(q, m->decoded);
        return true;
    case AMQP_BASIC_CANCEL_OK_METHOD:
    case AMQP_BASIC_CONSUME_OK_METHOD:
        return true;
    default: /* a channel or the connection is closed under us */
        return false;
    }
}

static bool on_frame(struct rabbitmq_queue *q, const amqp_frame_t *f)
{
    struct rmq_content *const c = f->channel == CH_CONSUME ? &q->in : &q->back;

    if ((f->channel == CH_PUBLISH || f->channel == CH_PUBLISH_OTHER) && f->channel != q->publish_channel)
        return true; /* late, of a channel that was given up */
    switch (f->frame_type) {
    case AMQP_FRAME_METHOD:
        return on_method(q, f);
    case AMQP_FRAME_HEADER:
        return on_header(q, c, f);
    case AMQP_FRAME_BODY:
        return on_body(q, c, f);
    default:
        return true; /* heartbeats */
    }
}

bool rmq_read_frames(struct rabbitmq_queue *q)
{
    for (int n = 0; q->conn != NULL && n < 4096; n++) {
        struct timeval now = {0};
        amqp_frame_t frame;
        const int got = amqp_simple_wait_frame_noblock(q->conn, &frame, &now);

        if (got == AMQP_STATUS_TIMEOUT)
            break;
        if (got != AMQP_STATUS_OK)
            rmq_lost(q, amqp_error_string2(got));
        else if (!on_frame(q, &frame))
            rmq_lost(q, "the broker closed a channel");
    }
    if (q->conn != NULL)
        amqp_maybe_release_buffers(q->conn);
    return q->conn != NULL;
}
