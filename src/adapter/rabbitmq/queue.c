/*
 * queue (rabbitmq) - the port's side, on the loop.
 *
 * An operation: start -> inbox -> thread -> outbox -> callback.  Past its deadline, or cancelled, it is answered here at once and freed
 * when the thread lets go of it; whether it was sent by then says its stage, which both threads move by compare-and-swap.
 * Consumers and deliveries are deliver.c's.
 */
#include "adapter/rabbitmq/impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 100
#define PORT 5672

static struct rabbitmq_queue *self(struct queue *q)
{
    return (struct rabbitmq_queue *)q;
}

/* ---- operations ---- */

static void wake(struct rabbitmq_queue *q)
{
    const uint64_t one = 1;
    const ssize_t n = write(q->wake_fd, &one, sizeof one);

    (void)n; /* full: it is awake */
}

static void submit(struct rabbitmq_queue *q, struct rmq_op *op)
{
    bool was_empty;

    op->next = NULL;
    pthread_mutex_lock(&q->lock);
    was_empty = q->inbox == NULL;
    *q->inbox_end = op;
    q->inbox_end = &op->next;
    pthread_mutex_unlock(&q->lock);
    if (was_empty)
        wake(q);
}

static void op_answer(struct rmq_op *op, enum tr_rc rc, const struct tr_err *err)
{
    pending_end(&op->base);
    op->answered = true;
    if (op->kind == RMQ_LENGTH)
        op->done.length(op->ctx, rc, rc == TR_OK ? op->length : 0, rc == TR_OK ? NULL : err);
    else if (op->kind == RMQ_CHECK)
        op->done.check(op->ctx, rc, rc == TR_OK ? &op->report : NULL, rc == TR_OK ? NULL : err);
    else
        op->done.plain(op->ctx, rc, rc == TR_OK ? NULL : err);
}

static void give_up(struct pending *p, bool cancelled)
{
    struct rmq_op *const op = (struct rmq_op *)p;
    int queued = RMQ_QUEUED;
    const bool unsent = atomic_compare_exchange_strong(&op->stage, &queued, RMQ_GIVEN_UP);
    const bool write = op->kind == RMQ_PUBLISH || op->kind == RMQ_DECLARE || op->kind == RMQ_REMOVE;
    struct tr_err err = {0};
    enum tr_rc rc = cancelled ? TR_CANCELLED : write && !unsent ? TR_UNCERTAIN : TR_TRANSIENT;

    if (cancelled)
        tr_fail(&err, rc, "given up by the caller");
    else
        tr_fail(&err, rc, "RabbitMQ at %s:%u: no %s within %llu ms", op->q->url.host[0].name,
                (unsigned)op->q->url.host[0].port, unsent ? "connection" : "answer",
                (unsigned long long)op->q->timeout_ms);
    op_answer(op, rc, &err);
}

static void on_tick(void *ctx)
{
    struct rabbitmq_queue *const q = ctx;

    pending_expire(&q->ops);
}

/* A new operation; with `waited` it is in the list of those that somebody waits for. */
enum tr_rc rmq_op_new(struct rabbitmq_queue *q, enum rmq_kind kind, const char *name, bool waited,
                      struct rmq_op **ret_op, struct tr_err *err)
{
    const size_t len = strlen(name);
    struct rmq_op *op;

    if (q->closing)
        return tr_fail(err, TR_CANCELLED, "broker: closing");
    if (len > QUEUE_NAME_MAX)
        return tr_fail(err, TR_INVALID, "a queue's name has 1 to %d bytes, not %zu", QUEUE_NAME_MAX, len);
    if (waited && q->ops.n >= RMQ_OPS_MAX)
        return tr_fail(err, TR_BUSY, "broker: %d operations are under way", RMQ_OPS_MAX);
    op = calloc(1, sizeof *op);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "broker: operation");
    op->q = q;
    op->kind = kind;
    op->waited = waited;
    memcpy(op->name, name, len + 1);
    *ret_op = op;
    return TR_OK;
}

void rmq_op_start(struct rmq_op *op, void *ctx, struct tr_op **ret_op)
{
    struct rabbitmq_queue *const q = op->q;

    op->ctx = ctx;
    if (op->waited)
        pending_add(&q->ops, &op->base, q->timeout_ms);
    if (ret_op != NULL)
        *ret_op = op->waited ? &op->base.op : NULL;
    submit(q, op);
}

static enum tr_rc queue_declare(struct queue *base, const struct queue_spec *spec, queue_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct rmq_op *op = NULL;
    enum tr_rc rc;

    if (spec->name[0] == '\0')
        return tr_fail(err, TR_INVALID, "a queue's name has 1 to %d bytes, not 0", QUEUE_NAME_MAX);
    rc = rmq_op_new(self(base), RMQ_DECLARE, spec->name, true, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    op->queue_kind = spec->kind;
    op->single_active = spec->single_active;
    op->max_length = spec->max_length;
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

static enum tr_rc queue_publish(struct queue *base, const struct queue_message *msg, queue_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct rmq_op *op = NULL;
    enum tr_rc rc = rmq_op_new(self(base), RMQ_PUBLISH, msg->queue, done != NULL, &op, err);

    if (rc != TR_OK)
        return rc;
    if (done == NULL && atomic_load(&self(base)->loose) >= RMQ_OPS_MAX) {
        free(op);
        return tr_fail(err, TR_BUSY, "broker: %d publishes that nobody waits for are under way", RMQ_OPS_MAX);
    }
    op->body = malloc(msg->body.len > 0 ? msg->body.len : 1);
    if (op->body == NULL) {
        free(op);
        return tr_fail(err, TR_NOMEM, "broker: message");
    }
    if (msg->body.len > 0)
        memcpy(op->body, msg->body.data, msg->body.len);
    op->len = msg->body.len;
    if (done == NULL) {
        op->loose = true;
        atomic_fetch_add(&self(base)->loose, 1);
        op->late_ms = mono_ns() / 1000000 + self(base)->timeout_ms;
    }
    op->done.plain = done;
    op->transient = msg->transient;
    if (msg->delay_ms != 0) {
        op->delay_ms = msg->delay_ms;
        op->not_before_ms = wall_ms() + msg->delay_ms;
    }
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

static enum tr_rc queue_length(struct queue *base, const char *name, queue_length_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    struct rmq_op *op = NULL;
    const enum tr_rc rc = rmq_op_new(self(base), RMQ_LENGTH, name, true, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.length = done;
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

static enum tr_rc queue_remove(struct queue *base, const char *name, queue_done *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    struct rmq_op *op = NULL;
    const enum tr_rc rc = rmq_op_new(self(base), RMQ_REMOVE, name, true, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    op->in_hand = rmq_in_hand_of(self(base), name);
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

/* The dead-letter queue is declared with every connection; here it is only seen to. */
static enum tr_rc queue_init(struct queue *base, service_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct rmq_op *op = NULL;
    const enum tr_rc rc = rmq_op_new(self(base), RMQ_DECLARE, RMQ_DEAD, true, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    op->queue_kind = QUEUE_DURABLE;
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

static enum tr_rc queue_check(struct queue *base, service_checked *done, void *ctx, struct tr_op **ret_op,
                              struct tr_err *err)
{
    struct rmq_op *op = NULL;
    const enum tr_rc rc = rmq_op_new(self(base), RMQ_CHECK, "", true, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.check = done;
    rmq_op_start(op, ctx, ret_op);
    return TR_OK;
}

/* ---- what the thread hands over ---- */

static void on_mail(struct loop_call *call)
{
    struct rabbitmq_queue *const q = (struct rabbitmq_queue *)((char *)call - offsetof(struct rabbitmq_queue, mail));
    struct rmq_op *op;
    struct queue_delivery *d;
    uint32_t *gaps;
    size_t gaps_n;
    uint64_t epoch;

    pthread_mutex_lock(&q->lock);
    op = q->out_ops;
    q->out_ops = NULL;
    q->out_ops_end = &q->out_ops;
    d = q->out_first;
    q->out_first = q->out_last = NULL;
    gaps = q->gaps;
    gaps_n = q->gaps_n;
    q->gaps = NULL;
    q->gaps_n = q->gaps_cap = 0;
    epoch = q->out_epoch;
    q->out_posted = false;
    pthread_mutex_unlock(&q->lock);

    if (epoch != q->epoch)
        rmq_new_epoch(q, epoch);
    while (op != NULL) {
        struct rmq_op *const one = op;

        op = op->next;
        if (!one->answered) {
            if (one->kind == RMQ_LENGTH && one->rc == TR_OK)
                one->length += rmq_in_hand_of(q, one->name);
            op_answer(one, one->rc, &one->err);
        }
        rmq_op_free(one);
    }
    while (d != NULL) {
        struct queue_delivery *const one = d;

        d = d->next;
        one->next = NULL;
        if (one->tag != 0 && one->epoch != q->epoch)
            rmq_delivery_free(one);
        else
            rmq_hand_out(q, one);
    }
    for (size_t i = 0; i < gaps_n; i++)
        rmq_gap(q, gaps[i]);
    free(gaps);
}

/* ---- open, close ---- */

static void stop_thread(struct rabbitmq_queue *q)
{
    struct timespec until;

    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_mutex_unlock(&q->lock);
    wake(q);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2;
    if (pthread_timedjoin_np(q->thread, NULL, &until) != 0) { /* stuck in a send or a call to a broker that stalls */
        pthread_mutex_lock(&q->lock);                         /* the socket is not closed meanwhile */
        if (q->socket_fd >= 0)
            (void)shutdown(q->socket_fd, SHUT_RDWR);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->thread, NULL);
    }
    q->thread_runs = false;
}

static void rabbitmq_queue_free(struct rabbitmq_queue *q)
{
    if (q == NULL)
        return;
    if (q->thread_runs)
        stop_thread(q);
    q->closing = true;
    pending_cancel_all(&q->ops); /* whatever the thread brought: the callers are told that we close */
    if (q->out_posted || q->ops.cancels_posted)
        loop_drain(q->loop);
    rmq_release_deliveries(q);
    timer_stop(q->tick);
    timer_stop(q->hold);
    for (struct rmq_op *op = q->inbox, *next; op != NULL; op = next) {
        next = op->next;
        rmq_op_free(op);
    }
    if (q->wake_fd >= 0)
        close(q->wake_fd);
    pthread_mutex_destroy(&q->lock);
    url_release(&q->url);
    free(q);
}

static void queue_close(struct queue *base)
{
    rabbitmq_queue_free(self(base));
}

static const struct queue_ops rabbitmq_queue_ops = {
    .scheme = "amqp",
    .declare = queue_declare,
    .publish = queue_publish,
    .consume = rmq_consume,
    .consumer_stop = rmq_consumer_stop,
    .ack = rmq_ack,
    .retry = rmq_retry,
    .dead_letter = rmq_dead_letter,
    .length = queue_length,
    .remove = queue_remove,
    .init = queue_init,
    .check = queue_check,
    .close = queue_close,
};

static enum tr_rc read_url(struct rabbitmq_queue *q, const char *text, struct tr_err *err)
{
    const char *prefix;
    enum tr_rc rc = url_parse(text, PORT, &q->url, err);

    if (rc != TR_OK)
        return rc;
    prefix = url_query(&q->url, "prefix");
    if (strcmp(q->url.scheme, "amqp") != 0)
        return tr_fail(err, TR_INVALID, "not amqp://");
    if (q->url.hosts == 0)
        return tr_fail(err, TR_INVALID, "a host is missing: amqp://user:password@host:5672/vhost");
    if (prefix != NULL && strlen(prefix) >= sizeof q->prefix)
        return tr_fail(err, TR_INVALID, "?prefix= is longer than %zu bytes", sizeof q->prefix - 1);
    snprintf(q->prefix, sizeof q->prefix, "%s", prefix != NULL ? prefix : "troupe.");
    return TR_OK;
}

enum tr_rc rabbitmq_queue_open(struct loop *loop, const char *url, const struct rabbitmq_options *opt,
                               struct queue **ret_queue, struct tr_err *err)
{
    static const struct rabbitmq_options none = {0};
    struct rabbitmq_queue *q = calloc(1, sizeof *q);
    enum tr_rc rc;

    if (q == NULL)
        return tr_fail(err, TR_NOMEM, "broker");
    opt = opt != NULL ? opt : &none;
    q->base.ops = &rabbitmq_queue_ops;
    q->loop = loop;
    q->ops = (struct pending_list){.loop = loop, .give_up = give_up};
    q->wake_fd = -1;
    q->socket_fd = -1;
    atomic_init(&q->loose, 0);
    pthread_mutex_init(&q->lock, NULL);
    q->mail.fn = on_mail;
    q->inbox_end = &q->inbox;
    q->out_ops_end = &q->out_ops;
    q->line_end = &q->line;
    q->ready_ops_end = &q->ready_ops;
    q->timeout_ms = opt->timeout_ms != 0 ? opt->timeout_ms : 10000;
    q->heartbeat_s = (int)((opt->heartbeat_ms != 0 ? opt->heartbeat_ms : 3000) / 1000);
    if (q->heartbeat_s < 1)
        q->heartbeat_s = 1;
    rc = read_url(q, url, err);
    if (rc != TR_OK)
        goto out;
    q->host = (unsigned)q->url.hosts - 1; /* the first try is the first host */
    q->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (q->wake_fd < 0 || timer_start(loop, TICK_MS, TICK_MS, on_tick, q, &q->tick) != TR_OK ||
        timer_start(loop, UINT32_MAX, 0, rmq_on_hold, q, &q->hold) != TR_OK) {
        rc = tr_fail(err, TR_NOMEM, "broker: %s", strerror(errno));
        goto out;
    }
    if (pthread_create(&q->thread, NULL, rmq_thread, q) != 0) {
        rc = tr_fail(err, TR_NOMEM, "broker: thread");
        goto out;
    }
    q->thread_runs = true;
    *ret_queue = &q->base;
    q = NULL; /* the caller owns it now */
out:
    rabbitmq_queue_free(q);
    return rc;
}
