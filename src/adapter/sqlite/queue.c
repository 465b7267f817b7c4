/*
 * queue (sqlite) - the embedded broker.  Comes from: every role, by port/queue.h.  Goes to: every role, and one file.
 *
 * All queues live in memory, on the loop's thread; the file is what a restart reads back.  A message's life:
 *
 *   publish -> READY     a delay: DELAYED, until its timer (sq_on_delay_timer)
 *   READY   -> IN_HAND   the pump gives it to a consumer that has room, without waiting for the disk (port rule 2)
 *   IN_HAND -> READY     retry without a delay: its old place in the order
 *   IN_HAND -> DELAYED   retry with one
 *   IN_HAND -> GONE      ack, dead_letter, the last counted retry; memory goes when the disk knows of it
 *   any     -> GONE      its insert failed (queue_store.c); IN_HAND it is only not put back
 *
 * The disk follows behind (queue_store.c): publishes at once, a batch a commit, and `done` comes after that; acks,
 * attempts and dead letters go along with the next batch or some milliseconds later, patient publishes too.  What is acked
 * before its insert was handed to the writer never touches the disk, and the ack confirms it.  Nobody waits for an ack:
 * one that is lost means a redelivery.
 *
 * A consumer's deliveries stay in hand when it stops and may still be settled; those unsettled at close, or when the
 * process dies, are read back by the next open.
 *
 * Limits: messages a queue (TR_BUSY; transient ones are dropped and counted), bytes of all, bytes a message.
 * Threads: the loop's; the offload sees batches only.  close() is not for the inside of a callback of this queue.
 */
#include "adapter/sqlite/queue.h"
#include "adapter/sqlite/queue_impl.h"
#include "base/metrics.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS 500
#define POOL_MAX 1024
#define CAUSE_MAX 200

static struct metric dropped_total = METRIC(METRIC_COUNTER, "troupe_queue_transient_dropped_total", NULL,
                                            "Transient messages dropped because their queue was full");

static struct sqlite_queue *self(struct queue *q)
{
    return (struct sqlite_queue *)q;
}

static void op_unlink(struct sqlite_queue *s, struct sq_op *op)
{
    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        s->ops_first = op->next;
    if (op->next != NULL)
        op->next->prev = op->prev;
    else
        s->ops_last = op->prev;
}

static void op_detach(struct sq_op *op)
{
    if (op->message != NULL)
        op->message->op = NULL;
    op->message = NULL;
    if (op->batch != 0)
        op->s->waiting_n--;
    op->batch = 0;
}

static void op_cancel(struct tr_op *handle)
{
    struct sq_op *op = (struct sq_op *)handle;

    if (!op->deferred)
        sq_op_later(op, TR_CANCELLED, "given up by the caller");
}

struct sq_op *sq_op_new(struct sqlite_queue *s, queue_done *done, void *ctx)
{
    struct sq_op *op = s->ops_pool;

    if (op != NULL) {
        s->ops_pool = op->later;
        s->pool_n--;
    } else {
        op = malloc(sizeof *op);
        if (op == NULL)
            return NULL;
    }
    *op = (struct sq_op){.op = {.cancel = op_cancel}, .s = s, .done = done, .ctx = ctx, .prev = s->ops_last};
    op->deadline_ms = loop_now_ms(s->loop) + SQ_DEADLINE_MS;
    if (s->ops_last != NULL)
        s->ops_last->next = op;
    else
        s->ops_first = op;
    s->ops_last = op;
    return op;
}

void sq_op_answer(struct sq_op *op, enum tr_rc rc, const struct tr_err *err)
{
    struct sqlite_queue *s = op->s;
    const struct sq_op was = *op;

    op_detach(op);
    op_unlink(s, op);
    if (s->pool_n < POOL_MAX) {
        op->later = s->ops_pool;
        s->ops_pool = op;
        s->pool_n++;
    } else {
        free(op);
    }
    if (rc == TR_OK)
        err = NULL;
    if (was.length_done != NULL)
        was.length_done(was.ctx, rc, rc == TR_OK ? was.length : 0, err);
    else if (was.done != NULL)
        was.done(was.ctx, rc, err);
}

void sq_op_later(struct sq_op *op, enum tr_rc rc, const char *text)
{
    struct sqlite_queue *s = op->s;

    op_detach(op);
    op->deferred = true;
    op->rc = rc;
    op->text = text != NULL ? text : tr_rc_name(rc);
    op->later = NULL;
    if (s->later_first == NULL)
        s->later_first = op;
    else
        s->later_last->later = op;
    s->later_last = op;
    sq_pump_post(s);
}

static void on_sweep(void *ctx)
{
    struct sqlite_queue *s = ctx;
    const uint64_t now = loop_now_ms(s->loop);

    for (struct sq_op *op = s->ops_first; op != NULL && op->deadline_ms <= now; op = op->next)
        if (!op->deferred)
            sq_op_later(op, TR_UNCERTAIN, "queue: no answer from the disk within 10 s");
}

/* An op for the caller, or TR_OK without one where nobody wants to know. */
static enum tr_rc op_start(struct sqlite_queue *s, queue_done *done, void *ctx, struct tr_op **ret_op,
                           struct sq_op **ret_own, struct tr_err *err)
{
    struct sq_op *op;

    if (done == NULL) {
        if (ret_op != NULL)
            *ret_op = NULL;
        return TR_OK;
    }
    op = sq_op_new(s, done, ctx);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    *ret_own = op;
    if (ret_op != NULL)
        *ret_op = &op->op;
    return TR_OK;
}

static enum tr_rc find(struct sqlite_queue *s, const char *name, struct sq_queue **ret_queue, struct tr_err *err)
{
    struct sq_queue *queue;

    if (s->closing)
        return tr_fail(err, TR_CANCELLED, "queue: closing");
    HASH_FIND_STR(s->queues, name, queue);
    if (queue == NULL)
        return tr_fail(err, TR_NOT_FOUND, "no queue '%.127s'", name);
    *ret_queue = queue;
    return TR_OK;
}

/* Let op wait for the batch with this number. */
static void op_wait(struct sq_op *op, uint64_t batch)
{
    if (op == NULL)
        return;
    op->batch = batch;
    op->s->waiting_n++;
}

static enum tr_rc queue_declare(struct queue *q, const struct queue_spec *spec, queue_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct sqlite_queue *s = self(q);
    const uint64_t max_length = spec->max_length != 0 ? spec->max_length : SQ_LENGTH_DEFAULT;
    const size_t len = strlen(spec->name);
    struct sq_queue *queue = NULL;
    struct sq_op *op = NULL;
    enum tr_rc rc;

    if (len == 0 || len > QUEUE_NAME_MAX)
        return tr_fail(err, TR_INVALID, "a queue's name has 1 to %d bytes, not %zu", QUEUE_NAME_MAX, len);
    rc = find(s, spec->name, &queue, err);
    if (rc == TR_OK && queue->kind != spec->kind)
        return tr_fail(err, TR_INVALID, "queue '%s' is of another kind", spec->name);
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        return rc;
    rc = op_start(s, done, ctx, ret_op, &op, err);
    if (rc != TR_OK)
        return rc;
    if (queue == NULL) {
        queue = calloc(1, sizeof *queue);
        if (queue == NULL) {
            if (op != NULL)
                sq_op_later(op, TR_NOMEM, "queue: out of memory");
            return TR_OK;
        }
        memcpy(queue->name, spec->name, len + 1);
        queue->kind = spec->kind;
        queue->id = ++s->queue_id_last;
        queue->unsaved = spec->kind == QUEUE_DURABLE;
        HASH_ADD_STR(s->queues, name, queue);
    } else if (queue->max_length != max_length || queue->single_active != spec->single_active) {
        queue->unsaved = spec->kind == QUEUE_DURABLE;
    }
    queue->max_length = max_length;
    queue->single_active = spec->single_active;
    if (queue->unsaved) {
        s->admin = true;
        sq_pump_post(s);
        op_wait(op, s->batch_last + 1);
    } else if (spec->kind == QUEUE_DURABLE && s->running != NULL) {
        op_wait(op, s->batch_last); /* maybe the batch that declares it */
    } else if (op != NULL) {
        sq_op_later(op, TR_OK, NULL);
    }
    return TR_OK;
}

static struct queue_delivery *message_new(struct sqlite_queue *s, struct sq_queue *queue,
                                          const struct queue_message *msg, bool transient)
{
    struct queue_delivery *m = malloc(sizeof *m + msg->body.len);

    if (m == NULL)
        return NULL;
    *m = (struct queue_delivery){.id = ++s->id_last, .queue = queue, .queue_id = queue->id, .transient = transient};
    m->len = msg->body.len;
    if (m->len > 0)
        memcpy(m->body, msg->body.data, m->len);
    if (transient)
        s->transient_bytes += m->len;
    else
        s->bytes += m->len;
    return m;
}

static void place(struct sqlite_queue *s, struct queue_delivery *m, uint64_t delay_ms)
{
    if (delay_ms > 0) {
        m->not_before = wall_ms() + delay_ms;
        if (sq_delay(s, m, delay_ms) == TR_OK)
            return;
    }
    sq_append(s, m);
}

static enum tr_rc publish_transient(struct sqlite_queue *s, struct sq_queue *queue, const struct queue_message *msg,
                                    struct sq_op *op)
{
    struct queue_delivery *m = NULL;

    if (queue->kind == QUEUE_FANOUT && queue->consumers == NULL)
        goto out; /* gone */
    if (sq_length(queue) < queue->max_length && s->transient_bytes + msg->body.len <= SQ_TRANSIENT_MAX)
        m = message_new(s, queue, msg, true);
    if (m != NULL)
        place(s, m, msg->delay_ms);
    else
        metric_add(&dropped_total, 1);
out:
    if (op != NULL)
        sq_op_later(op, TR_OK, NULL);
    return TR_OK;
}

static enum tr_rc queue_publish(struct queue *q, const struct queue_message *msg, queue_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct sqlite_queue *s = self(q);
    struct sq_queue *queue;
    struct queue_delivery *m;
    struct sq_op *op = NULL;
    bool transient;
    enum tr_rc rc = find(s, msg->queue, &queue, err);

    if (rc != TR_OK)
        return rc;
    if (msg->body.len > SQ_BODY_MAX)
        return tr_fail(err, TR_INVALID, "a message of %zu bytes: the limit is %zu", msg->body.len, SQ_BODY_MAX);
    transient = msg->transient || queue->kind != QUEUE_DURABLE;
    if (!transient && sq_length(queue) >= queue->max_length)
        return tr_fail(err, TR_BUSY, "queue '%s' is full: %llu messages", queue->name,
                       (unsigned long long)queue->max_length);
    if (!transient && s->bytes + msg->body.len > SQ_BYTES_MAX)
        return tr_fail(err, TR_BUSY, "the queues are full: %zu bytes", s->bytes);
    rc = op_start(s, done, ctx, ret_op, &op, err);
    if (rc != TR_OK)
        return rc;
    if (transient)
        return publish_transient(s, queue, msg, op);

    m = message_new(s, queue, msg, false);
    if (m == NULL) {
        if (op == NULL)
            return tr_fail(err, TR_NOMEM, "queue: out of memory");
        sq_op_later(op, TR_NOMEM, "queue: out of memory");
        return TR_OK;
    }
    m->op = op;
    if (op != NULL)
        op->message = m;
    if (msg->patient)
        m->unhurried_ms = loop_now_ms(s->loop) + SQ_PATIENCE_MS;
    place(s, m, msg->delay_ms);
    sq_changed(s, m, !msg->patient);
    return TR_OK;
}

static enum tr_rc queue_consume(struct queue *q, const char *name, uint32_t prefetch, queue_on_message *on_message,
                                queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer,
                                struct tr_err *err)
{
    struct sqlite_queue *s = self(q);
    struct queue_consumer *c, *last;
    struct sq_queue *queue;
    enum tr_rc rc = find(s, name, &queue, err);

    (void)on_gap; /* no connection that could be lost */
    if (rc != TR_OK)
        return rc;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    c->queue = queue;
    c->prefetch = prefetch;
    c->on_message = on_message;
    c->ctx = ctx;
    for (last = queue->consumers; last != NULL && last->next != NULL;)
        last = last->next;
    c->prev = last;
    if (last != NULL)
        last->next = c;
    else
        queue->consumers = c;
    sq_schedule(s, queue);
    *ret_consumer = c;
    return TR_OK;
}

static void queue_consumer_stop(struct queue *q, struct queue_consumer *c)
{
    struct sqlite_queue *s = self(q);
    struct sq_queue *queue;

    if (c == NULL)
        return;
    queue = c->queue;
    for (struct queue_delivery *m = queue->in_hand.first; m != NULL; m = m->next)
        if (m->consumer == c)
            m->consumer = NULL;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        queue->consumers = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    if (queue->turn == c)
        queue->turn = c->next;
    c->stopped = true;
    c->prev = s->stopped; /* c->next stays: the pump may be at this one */
    s->stopped = c;
    if (queue->consumers == NULL && queue->kind == QUEUE_TRANSIENT)
        sq_queue_drop(s, queue);
    else
        sq_schedule(s, queue);
    if (!s->delivering)
        sq_bury(s);
}

/* The end of a delivery: out of its queue; the disk is told, where it knows of the message or is about to. */
static void settle(struct sqlite_queue *s, struct queue_delivery *m)
{
    sq_unlink(s, m);
    m->queue = NULL;
    m->place = SQ_GONE;
    if (m->saved || m->writing || m->changed || m->dead_note != NULL)
        sq_changed(s, m, false);
    else
        sq_message_free(s, m); /* its insert failed */
}

static void queue_ack(struct queue *q, struct queue_delivery *d)
{
    assert(d->place == SQ_IN_HAND);
    if (d->op != NULL && !d->saved && !d->writing)
        sq_op_later(d->op, TR_OK, NULL); /* it has done its work before it came to be written */
    settle(self(q), d);
}

static void queue_dead_letter(struct queue *q, struct queue_delivery *d, const char *cause)
{
    const size_t name = strlen(d->queue->name) + 1, len = strnlen(cause != NULL ? cause : "", CAUSE_MAX);

    assert(d->place == SQ_IN_HAND);
    d->dead_note = calloc(1, name + len + 1);
    if (d->dead_note == NULL) { /* no memory to bury it: it comes again later */
        q->ops->retry(q, d, false, 1000, NULL);
        return;
    }
    memcpy(d->dead_note, d->queue->name, name);
    if (len > 0)
        memcpy(d->dead_note + name, cause, len);
    settle(self(q), d);
}

static void queue_retry(struct queue *q, struct queue_delivery *d, bool counted, uint64_t delay_ms, const char *cause)
{
    struct sqlite_queue *s = self(q);

    assert(d->place == SQ_IN_HAND);
    if (counted && ++d->attempts >= QUEUE_ATTEMPTS_MAX) {
        queue_dead_letter(q, d, cause);
        return;
    }
    if (d->unwanted) {
        settle(s, d);
        return;
    }
    sq_unlink(s, d);
    d->not_before = d->unhurried_ms = 0;
    if (delay_ms > 0)
        place(s, d, delay_ms);
    else
        sq_put_back(s, d);
    if (counted || delay_ms > 0) {
        d->rewrite = true;
        sq_changed(s, d, false);
    }
}

static enum tr_rc queue_length(struct queue *q, const char *name, queue_length_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    struct sqlite_queue *s = self(q);
    struct sq_queue *queue;
    struct sq_op *op;
    enum tr_rc rc = find(s, name, &queue, err);

    if (rc != TR_OK)
        return rc;
    op = sq_op_new(s, NULL, ctx);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    op->length_done = done;
    op->length = sq_length(queue);
    if (ret_op != NULL)
        *ret_op = &op->op;
    sq_op_later(op, TR_OK, NULL);
    return TR_OK;
}

static enum tr_rc queue_remove(struct queue *q, const char *name, queue_done *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    struct sqlite_queue *s = self(q);
    struct sq_queue *queue;
    struct sq_op *op = NULL;
    uint32_t *drops;
    enum tr_rc rc = find(s, name, &queue, err);

    if (rc != TR_OK)
        return rc;
    if (sq_length(queue) > 0 || queue->consumers != NULL)
        return tr_fail(err, TR_BUSY, "queue '%s' is in use: %zu messages%s", queue->name, sq_length(queue),
                       queue->consumers != NULL ? ", and a consumer" : "");
    drops = realloc(s->drops, (s->drops_n + 1) * sizeof *drops);
    if (drops == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    s->drops = drops;
    rc = op_start(s, done, ctx, ret_op, &op, err);
    if (rc != TR_OK)
        return rc;
    if (queue->kind == QUEUE_DURABLE) {
        drops[s->drops_n++] = queue->id;
        s->admin = true;
        op_wait(op, s->batch_last + 1);
        sq_pump_post(s);
    } else if (op != NULL) {
        sq_op_later(op, TR_OK, NULL);
    }
    sq_queue_drop(s, queue);
    return TR_OK;
}

static void queues_free(struct sqlite_queue *s)
{
    struct sq_queue *queue, *tmp;

    while (s->heap_n > 0) {
        struct queue_delivery *m = s->heap[0];

        sq_unlink(s, m);
        sq_message_free(s, m);
    }
    HASH_ITER (hh, s->queues, queue, tmp) {
        struct queue_delivery *m;

        while ((m = queue->in_hand.first) != NULL || (m = queue->ready.first) != NULL) {
            m->consumer = NULL;
            sq_unlink(s, m);
            sq_message_free(s, m);
        }
        while (queue->consumers != NULL) {
            struct queue_consumer *c = queue->consumers;

            queue->consumers = c->next;
            free(c);
        }
        HASH_DEL(s->queues, queue);
        free(queue);
    }
}

static void queue_close(struct queue *q)
{
    struct sqlite_queue *s = self(q);

    assert(!s->delivering);
    s->closing = true;
    timer_stop(s->delay_timer);
    timer_stop(s->sweep_timer);
    timer_stop(s->flush_timer);
    while (s->ops_first != NULL) {
        const struct tr_err err = {.rc = TR_CANCELLED, .msg = "queue: closed"};

        sq_op_answer(s->ops_first, TR_CANCELLED, &err);
    }
    sq_store_close(s);
    if (s->pump_posted)
        loop_drain(s->loop); /* the pump's call is in the loop's list */
    sq_bury(s);
    queues_free(s);
    while (s->ops_pool != NULL) {
        struct sq_op *op = s->ops_pool;

        s->ops_pool = op->later;
        free(op);
    }
    free(s->drops);
    free(s->heap);
    free(s);
}

static const struct queue_ops sqlite_queue_ops = {
    .scheme = "sqlite",
    .declare = queue_declare,
    .publish = queue_publish,
    .consume = queue_consume,
    .consumer_stop = queue_consumer_stop,
    .ack = queue_ack,
    .retry = queue_retry,
    .dead_letter = queue_dead_letter,
    .length = queue_length,
    .remove = queue_remove,
    .close = queue_close,
};

enum tr_rc sqlite_queue_open(struct loop *loop, const char *path, struct queue **ret_queue, struct tr_err *err)
{
    /* Publishes have deadlines of their own; a batch ends when the disk is done with it. */
    const struct offload_hooks hooks = {.timeout_ms = (uint64_t)1 << 40};
    struct sqlite_queue *s = calloc(1, sizeof *s);
    enum tr_rc rc;

    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    s->base.ops = &sqlite_queue_ops;
    s->loop = loop;
    s->pump.fn = sq_on_pump;
    rc = sq_store_open(s, path, err);
    if (rc == TR_OK && (timer_start(loop, 0, 0, sq_on_delay_timer, s, &s->delay_timer) != TR_OK ||
                        timer_start(loop, SWEEP_MS, SWEEP_MS, on_sweep, s, &s->sweep_timer) != TR_OK ||
                        timer_start(loop, 0, 0, sq_on_flush_timer, s, &s->flush_timer) != TR_OK))
        rc = tr_fail(err, TR_NOMEM, "queue: out of memory");
    if (rc == TR_OK)
        rc = offload_start(loop, "sqlite-queue", &hooks, &s->offload, err);
    if (rc != TR_OK) {
        queue_close(&s->base);
        return rc;
    }
    *ret_queue = &s->base;
    return TR_OK;
}
