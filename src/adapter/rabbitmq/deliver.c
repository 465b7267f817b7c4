/*
 * deliver - the port's side of consuming, on the loop: consumers, deliveries in hand and held, settling them.
 *
 * A delivery: outbox -> on_message -> settled.  ack goes straight to the thread.  An uncounted retry is held here and given to the same
 * consumer again (the broker would count it, and 1000 of its counts are the end of a message); a consumer that has stopped
 * gives it back to the broker.  A counted one, or a dead letter, is a copy with a new header, published and confirmed before
 * the original is acknowledged: at least once.  What belongs to a connection that is gone is settled without effect.
 */
#include "adapter/rabbitmq/impl.h"

#include <stdlib.h>
#include <string.h>

struct queue_consumer {
    struct queue_consumer *next, *prev;
    struct rabbitmq_queue *q;
    uint32_t id;
    char name[QUEUE_NAME_MAX + 1];
    queue_on_message *on_message;
    queue_on_gap *on_gap;
    void *ctx;
    struct queue_delivery *held; /* by due_ms, then in the order of the broker */
    uint64_t in_hand;            /* held or with the role */
};

static struct rabbitmq_queue *self(struct queue *q)
{
    return (struct rabbitmq_queue *)q;
}

/* ---- consumers ---- */

static struct queue_consumer *find_consumer(struct rabbitmq_queue *q, uint32_t id)
{
    struct queue_consumer *c = q->consumers;

    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

enum tr_rc rmq_consume(struct queue *base, const char *name, uint32_t prefetch, queue_on_message *on_message,
                       queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer, struct tr_err *err)
{
    struct rabbitmq_queue *const q = self(base);
    struct queue_consumer *const c = calloc(1, sizeof *c);
    struct rmq_op *op = NULL;
    enum tr_rc rc;

    if (c == NULL)
        return tr_fail(err, TR_NOMEM, "broker: consumer");
    rc = rmq_op_new(q, RMQ_CONSUME, name, false, &op, err);
    if (rc != TR_OK) {
        free(c);
        return rc;
    }
    c->q = q;
    c->id = op->consumer = ++q->last_consumer;
    memcpy(c->name, op->name, sizeof c->name);
    c->on_message = on_message;
    c->on_gap = on_gap;
    c->ctx = ctx;
    c->next = q->consumers;
    if (c->next != NULL)
        c->next->prev = c;
    q->consumers = c;
    op->prefetch = prefetch;
    *ret_consumer = c;
    rmq_op_start(op, NULL, NULL);
    return TR_OK;
}

static void settle(struct rabbitmq_queue *q, enum rmq_kind kind, uint64_t epoch, uint64_t tag)
{
    struct rmq_op *op = NULL;

    if (tag == 0 || epoch != q->epoch || rmq_op_new(q, kind, "", false, &op, NULL) != TR_OK)
        return; /* it comes again by itself: rule 5 */
    op->epoch = epoch;
    op->tag = tag;
    rmq_op_start(op, NULL, NULL);
}

/* Out of the list of those with the roles, or of its consumer's held ones. */
static void delivery_unlink(struct rabbitmq_queue *q, struct queue_delivery *d)
{
    if (d->prev != NULL)
        d->prev->next = d->next;
    else
        *(d->in_hand ? &q->in_hand : &d->owner->held) = d->next;
    if (d->next != NULL)
        d->next->prev = d->prev;
    d->next = d->prev = NULL;
    if (d->owner != NULL)
        d->owner->in_hand--;
}

void rmq_consumer_stop(struct queue *base, struct queue_consumer *c)
{
    struct rabbitmq_queue *const q = self(base);
    struct rmq_op *op = NULL;

    if (c == NULL)
        return;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        q->consumers = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    /* first the subscription ends, then what is held here goes back: not to us again */
    if (rmq_op_new(q, RMQ_CANCEL, c->name, false, &op, NULL) == TR_OK) {
        op->consumer = c->id;
        rmq_op_start(op, NULL, NULL);
    }
    while (c->held != NULL) {
        struct queue_delivery *const d = c->held;

        delivery_unlink(q, d);
        settle(q, RMQ_REQUEUE, d->epoch, d->tag);
        rmq_delivery_free(d);
    }
    for (struct queue_delivery *d = q->in_hand; d != NULL; d = d->next)
        if (d->owner == c) /* with the role: it may still settle them */
            d->owner = NULL;
    free(c);
}

/* ---- deliveries ---- */

static void to_role(struct queue_consumer *c, struct queue_delivery *d)
{
    const struct queue_incoming msg = {.delivery = d->tag != 0 ? d : NULL,
                                       .queue = d->name,
                                       .body = {d->body, d->len},
                                       .attempts = d->attempts,
                                       .again = d->again || d->attempts > 0};

    if (d->tag == 0) {
        c->on_message(c->ctx, &msg);
        rmq_delivery_free(d);
        return;
    }
    d->in_hand = true;
    d->owner = c;
    d->prev = NULL;
    d->next = c->q->in_hand;
    if (d->next != NULL)
        d->next->prev = d;
    c->q->in_hand = d;
    c->in_hand++;
    c->on_message(c->ctx, &msg); /* d may be settled, c may have stopped when it returns */
}

static void hold_until(struct rabbitmq_queue *q, uint64_t due_ms)
{
    const uint64_t now = loop_now_ms(q->loop);

    if (q->hold_due_ms != 0 && q->hold_due_ms <= due_ms)
        return;
    q->hold_due_ms = due_ms;
    timer_again(q->hold, due_ms > now ? due_ms - now : 0);
}

/* Into its place: by time, then by the broker's order. */
static void hold(struct queue_consumer *c, struct queue_delivery *d, uint64_t due_ms)
{
    struct queue_delivery *after = NULL, *at = c->held;

    d->in_hand = false;
    d->owner = c;
    d->due_ms = due_ms;
    while (at != NULL && (at->due_ms < due_ms || (at->due_ms == due_ms && at->tag < d->tag))) {
        after = at;
        at = at->next;
    }
    d->prev = after;
    d->next = at;
    if (after != NULL)
        after->next = d;
    else
        c->held = d;
    if (at != NULL)
        at->prev = d;
    c->in_hand++;
    hold_until(c->q, due_ms);
}

void rmq_on_hold(void *ctx)
{
    struct rabbitmq_queue *const q = ctx;
    const uint64_t now = loop_now_ms(q->loop);
    struct queue_consumer *c = q->consumers;
    uint64_t due = 0;

    q->hold_due_ms = UINT64_MAX; /* whoever holds meanwhile is looked at below */
    while (c != NULL) {
        struct queue_delivery *const d = c->held;
        const uint32_t id = c->id;

        if (d == NULL || d->due_ms > now) {
            c = c->next;
            continue;
        }
        delivery_unlink(q, d);
        if (d->tag != 0 && d->epoch != q->epoch)
            rmq_delivery_free(d);
        else
            to_role(c, d);
        c = find_consumer(q, id); /* it may have stopped itself, and others */
        if (c == NULL)
            c = q->consumers;
    }
    for (c = q->consumers; c != NULL; c = c->next)
        if (c->held != NULL && (due == 0 || c->held->due_ms < due))
            due = c->held->due_ms;
    q->hold_due_ms = 0;
    if (due != 0)
        hold_until(q, due);
}

void rmq_hand_out(struct rabbitmq_queue *q, struct queue_delivery *d)
{
    struct queue_consumer *const c = find_consumer(q, d->consumer);
    const uint64_t now = wall_ms();

    if (q->closing) { /* it comes again, to somebody else */
        rmq_delivery_free(d);
    } else if (c == NULL) {
        settle(q, RMQ_REQUEUE, d->epoch, d->tag);
        rmq_delivery_free(d);
    } else if (d->due_ms > now) {
        hold(c, d, loop_now_ms(q->loop) + (d->due_ms - now));
    } else {
        to_role(c, d);
    }
}

void rmq_ack(struct queue *base, struct queue_delivery *d)
{
    struct rabbitmq_queue *const q = self(base);

    delivery_unlink(q, d);
    settle(q, RMQ_ACK, d->epoch, d->tag);
    rmq_delivery_free(d);
}

/* A copy takes its place: with one attempt more, or as a dead letter. */
static void replace(struct rabbitmq_queue *q, struct queue_delivery *d, uint32_t attempts, uint64_t delay_ms,
                    const char *dead_cause)
{
    struct rmq_op *op = NULL;

    delivery_unlink(q, d);
    if (d->epoch == q->epoch && rmq_op_new(q, RMQ_PUBLISH, d->name, false, &op, NULL) == TR_OK) {
        op->body = d->body;
        op->len = d->len;
        d->body = NULL;
        op->attempts = attempts;
        op->epoch = d->epoch;
        op->tag = d->tag;
        op->consumer = d->consumer;
        op->cause = dead_cause != NULL ? strndup(dead_cause, RMQ_CAUSE_MAX) : NULL;
        if (delay_ms != 0) {
            op->delay_ms = delay_ms;
            op->not_before_ms = wall_ms() + delay_ms;
        }
        if (dead_cause != NULL && op->cause == NULL) {
            rmq_op_free(op); /* no memory: unsettled, it comes again */
        } else {
            rmq_op_start(op, NULL, NULL);
        }
    }
    rmq_delivery_free(d);
}

void rmq_dead_letter(struct queue *base, struct queue_delivery *d, const char *cause)
{
    replace(self(base), d, d->attempts, 0, cause != NULL ? cause : "");
}

void rmq_retry(struct queue *base, struct queue_delivery *d, bool counted, uint64_t delay_ms, const char *cause)
{
    struct rabbitmq_queue *const q = self(base);
    struct queue_consumer *const c = d->owner;

    if (counted) {
        if (d->attempts + 1 >= QUEUE_ATTEMPTS_MAX)
            replace(q, d, d->attempts + 1, 0, cause != NULL ? cause : "");
        else
            replace(q, d, d->attempts + 1, delay_ms, NULL);
        return;
    }
    delivery_unlink(q, d);
    if (c == NULL || d->epoch != q->epoch) {
        settle(q, RMQ_REQUEUE, d->epoch, d->tag);
        rmq_delivery_free(d);
    } else {
        d->again = true;
        hold(c, d, loop_now_ms(q->loop) + (delay_ms > 0 ? delay_ms : 1)); /* never within this round of the loop */
    }
}

/* ---- what the thread hands over ---- */

uint64_t rmq_in_hand_of(const struct rabbitmq_queue *q, const char *name)
{
    uint64_t n = 0;

    for (const struct queue_consumer *c = q->consumers; c != NULL; c = c->next)
        if (strcmp(c->name, name) == 0)
            n += c->in_hand;
    for (const struct queue_delivery *d = q->in_hand; d != NULL; d = d->next) /* of consumers that have stopped */
        n += d->owner == NULL && d->epoch == q->epoch && strcmp(d->name, name) == 0;
    return n;
}

/* A new connection: what was held of the old one comes again by itself. */
void rmq_new_epoch(struct rabbitmq_queue *q, uint64_t epoch)
{
    q->epoch = epoch;
    for (struct queue_consumer *c = q->consumers; c != NULL; c = c->next)
        for (struct queue_delivery *d = c->held, *next; d != NULL; d = next) {
            next = d->next;
            if (d->tag != 0 && d->epoch != epoch) {
                delivery_unlink(q, d);
                rmq_delivery_free(d);
            }
        }
}

void rmq_gap(struct rabbitmq_queue *q, uint32_t consumer)
{
    struct queue_consumer *const c = find_consumer(q, consumer);

    if (c != NULL && c->on_gap != NULL && !q->closing)
        c->on_gap(c->ctx);
}

void rmq_release_deliveries(struct rabbitmq_queue *q)
{
    while (q->consumers != NULL)
        rmq_consumer_stop(&q->base, q->consumers);
    while (q->in_hand != NULL) {
        struct queue_delivery *const d = q->in_hand;

        delivery_unlink(q, d);
        rmq_delivery_free(d);
    }
}
