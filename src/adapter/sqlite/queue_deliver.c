/*
 * queue_deliver - the broker's memory: ready lists, consumers and their turns, delayed messages, and the pump, one
 * deferred call in which everything is handed out, so that no callback ever comes from inside a caller's own call.
 */
#include "adapter/sqlite/queue_impl.h"

#include <stdlib.h>
#include <string.h>

#define PUMP_MAX 128 /* deliveries a round of the loop */

static void list_remove(struct sq_list *l, struct queue_delivery *m)
{
    if (m->prev != NULL)
        m->prev->next = m->next;
    else
        l->first = m->next;
    if (m->next != NULL)
        m->next->prev = m->prev;
    else
        l->last = m->prev;
    m->prev = m->next = NULL;
    l->n--;
}

/* Before `at`; NULL: at the end. */
static void list_insert(struct sq_list *l, struct queue_delivery *at, struct queue_delivery *m)
{
    m->next = at;
    m->prev = at != NULL ? at->prev : l->last;
    if (m->prev != NULL)
        m->prev->next = m;
    else
        l->first = m;
    if (at != NULL)
        at->prev = m;
    else
        l->last = m;
    l->n++;
}

void sq_pump_post(struct sqlite_queue *s)
{
    if (s->pump_posted || s->closing)
        return;
    s->pump_posted = true;
    loop_defer(s->loop, &s->pump);
}

void sq_schedule(struct sqlite_queue *s, struct sq_queue *queue)
{
    if (queue->scheduled || queue->removed || queue->consumers == NULL || queue->ready.first == NULL)
        return;
    queue->scheduled = true;
    queue->next = NULL;
    if (s->todo_first == NULL)
        s->todo_first = queue;
    else
        s->todo_last->next = queue;
    s->todo_last = queue;
    sq_pump_post(s);
}

void sq_append(struct sqlite_queue *s, struct queue_delivery *m)
{
    m->place = SQ_READY;
    list_insert(&m->queue->ready, NULL, m);
    sq_schedule(s, m->queue);
}

void sq_put_back(struct sqlite_queue *s, struct queue_delivery *m)
{
    struct queue_delivery *at = m->queue->ready.first;

    while (at != NULL && at->id < m->id)
        at = at->next;
    m->place = SQ_READY;
    list_insert(&m->queue->ready, at, m);
    sq_schedule(s, m->queue);
}

/* The heap of delayed messages: the earliest at 0. */
static void heap_set(struct sqlite_queue *s, size_t at, struct queue_delivery *m)
{
    s->heap[at] = m;
    m->heap_at = at;
}

static void heap_sift(struct sqlite_queue *s, size_t at)
{
    struct queue_delivery *m = s->heap[at];

    while (at > 0 && s->heap[(at - 1) / 2]->due_ms > m->due_ms) {
        heap_set(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < s->heap_n && s->heap[child + 1]->due_ms < s->heap[child]->due_ms)
            child++;
        if (child >= s->heap_n || s->heap[child]->due_ms >= m->due_ms)
            break;
        heap_set(s, at, s->heap[child]);
        at = child;
    }
    heap_set(s, at, m);
}

static void heap_remove(struct sqlite_queue *s, struct queue_delivery *m)
{
    const size_t at = m->heap_at;

    s->heap_n--;
    if (at < s->heap_n) {
        heap_set(s, at, s->heap[s->heap_n]);
        heap_sift(s, at);
    }
}

enum tr_rc sq_delay(struct sqlite_queue *s, struct queue_delivery *m, uint64_t delay_ms)
{
    if (s->heap_n == s->heap_cap) {
        const size_t cap = s->heap_cap != 0 ? 2 * s->heap_cap : 64;
        struct queue_delivery **heap = realloc(s->heap, cap * sizeof *heap);

        if (heap == NULL)
            return TR_NOMEM;
        s->heap = heap;
        s->heap_cap = cap;
    }
    m->place = SQ_DELAYED;
    m->due_ms = loop_now_ms(s->loop) + delay_ms;
    m->queue->delayed++;
    s->heap[s->heap_n] = m;
    m->heap_at = s->heap_n++;
    heap_sift(s, m->heap_at);
    if (s->heap[0] == m && s->delay_timer != NULL)
        timer_again(s->delay_timer, delay_ms);
    return TR_OK;
}

void sq_on_delay_timer(void *ctx)
{
    struct sqlite_queue *s = ctx;
    const uint64_t now = loop_now_ms(s->loop);

    while (s->heap_n > 0 && s->heap[0]->due_ms <= now) {
        struct queue_delivery *m = s->heap[0];

        sq_unlink(s, m);
        sq_append(s, m);
    }
    if (s->heap_n > 0)
        timer_again(s->delay_timer, s->heap[0]->due_ms - now);
}

void sq_unlink(struct sqlite_queue *s, struct queue_delivery *m)
{
    switch (m->place) {
    case SQ_READY:
        list_remove(&m->queue->ready, m);
        break;
    case SQ_DELAYED:
        m->queue->delayed--;
        heap_remove(s, m);
        break;
    case SQ_IN_HAND:
        list_remove(&m->queue->in_hand, m);
        if (m->consumer != NULL) {
            m->consumer->in_hand--;
            m->consumer = NULL;
            sq_schedule(s, m->queue); /* there is room for another one */
        }
        break;
    case SQ_GONE:
        break;
    }
}

void sq_message_free(struct sqlite_queue *s, struct queue_delivery *m)
{
    if (m->transient)
        s->transient_bytes -= m->len;
    else
        s->bytes -= m->len;
    free(m->dead_note);
    free(m);
}

/* Who gets the queue's next message; NULL: nobody has room. */
static struct queue_consumer *next_consumer(struct sq_queue *queue)
{
    struct queue_consumer *c, *start;

    if (queue->single_active)
        queue->turn = queue->consumers;
    c = start = queue->turn != NULL ? queue->turn : queue->consumers;
    while (c != NULL) {
        if (c->prefetch == 0 || c->in_hand < c->prefetch) {
            queue->turn = c->next;
            return c;
        }
        if (queue->single_active)
            return NULL;
        c = c->next != NULL ? c->next : queue->consumers;
        if (c == start)
            return NULL;
    }
    return NULL;
}

static void deliver_fanout(struct sqlite_queue *s, struct sq_queue *queue, struct queue_delivery *m)
{
    const struct queue_incoming msg = {.queue = queue->name, .body = {m->body, m->len}};
    struct queue_consumer *next;

    list_remove(&queue->ready, m);
    for (struct queue_consumer *c = queue->consumers; c != NULL; c = next) {
        c->on_message(c->ctx, &msg);
        for (next = c->next; next != NULL && next->stopped; next = next->next)
            continue; /* a stopped one keeps its link until the pump is through */
    }
    sq_message_free(s, m);
}

static void deliver_one(struct sqlite_queue *s, struct sq_queue *queue, struct queue_consumer *c)
{
    struct queue_delivery *m = queue->ready.first;
    struct queue_incoming msg = {
        .queue = queue->name, .body = {m->body, m->len}, .attempts = m->attempts, .again = m->again || m->attempts > 0};

    list_remove(&queue->ready, m);
    if (m->transient) {
        c->on_message(c->ctx, &msg);
        sq_message_free(s, m);
        return;
    }
    m->place = SQ_IN_HAND;
    m->again = true;
    m->consumer = c;
    c->in_hand++;
    list_insert(&queue->in_hand, NULL, m);
    msg.delivery = m;
    c->on_message(c->ctx, &msg);
}

/* Hand out what the queue has, at most *left. */
static void deliver(struct sqlite_queue *s, struct sq_queue *queue, size_t *left)
{
    while (*left > 0 && !queue->removed && queue->ready.first != NULL) {
        struct queue_consumer *c;

        if (queue->kind == QUEUE_FANOUT) {
            deliver_fanout(s, queue, queue->ready.first);
            --*left;
            continue;
        }
        c = next_consumer(queue);
        if (c == NULL)
            return; /* settling schedules it again */
        deliver_one(s, queue, c);
        --*left;
    }
}

void sq_bury(struct sqlite_queue *s)
{
    while (s->stopped != NULL) {
        struct queue_consumer *c = s->stopped;

        s->stopped = c->prev;
        free(c);
    }
    while (s->removed != NULL) {
        struct sq_queue *queue = s->removed;

        s->removed = queue->next;
        free(queue);
    }
}

static void answer_later(struct sqlite_queue *s)
{
    struct sq_op *op = s->later_first;

    s->later_first = s->later_last = NULL; /* what the callbacks add is for the next round */
    while (op != NULL) {
        struct sq_op *next = op->later;
        struct tr_err err = {0};

        if (op->rc != TR_OK)
            tr_fail(&err, op->rc, "%s", op->text);
        sq_op_answer(op, op->rc, &err);
        op = next;
    }
}

/*
 * The pump: answers, then deliveries, then a batch of what both brought.  A batch goes first where somebody waits for
 * one: the disk works while we do.
 */
void sq_on_pump(struct loop_call *call)
{
    struct sqlite_queue *s = (struct sqlite_queue *)((char *)call - offsetof(struct sqlite_queue, pump));
    size_t left = PUMP_MAX;

    s->pump_posted = false;
    if (s->closing)
        return;
    sq_flush(s);
    s->delivering = true;
    answer_later(s);
    while (left > 0 && s->todo_first != NULL && !s->closing) {
        struct sq_queue *queue = s->todo_first;
        size_t share = left < PUMP_MAX / 4 ? left : PUMP_MAX / 4; /* so that no queue holds up the others */
        const size_t given = share;

        s->todo_first = queue->next;
        queue->scheduled = false;
        deliver(s, queue, &share);
        left -= given - share;
        if (share == 0)
            sq_schedule(s, queue); /* behind the others */
    }
    s->delivering = false;
    if (s->closing)
        return;
    sq_bury(s);
    if (s->todo_first != NULL || s->later_first != NULL)
        sq_pump_post(s);
    sq_flush(s);
}

void sq_queue_drop(struct sqlite_queue *s, struct sq_queue *queue)
{
    struct sq_queue **at = &s->todo_first, *before = NULL;

    while (queue->ready.first != NULL) {
        struct queue_delivery *m = queue->ready.first;

        list_remove(&queue->ready, m);
        sq_message_free(s, m);
    }
    for (; queue->scheduled && *at != NULL; before = *at, at = &(*at)->next) {
        if (*at == queue) {
            *at = queue->next;
            if (s->todo_last == queue)
                s->todo_last = before;
            break;
        }
    }
    HASH_DEL(s->queues, queue);
    queue->removed = true;
    queue->next = s->removed;
    s->removed = queue;
    if (!s->delivering)
        sq_bury(s);
}
