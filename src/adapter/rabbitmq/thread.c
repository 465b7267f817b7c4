/*
 * thread - the one user of librabbitmq's connection.
 *
 * librabbitmq blocks where a broker stalls (a send, a declaration), so it has this thread to itself; deadlines are the
 * loop's affair, and a caller is answered while this thread is stuck.  A round: take the inbox; connect where there is no
 * connection and it is time; carry out the line of commands; read what has come; hand everything over to the loop with
 * one wake-up; sleep until the socket or the inbox has something.
 *
 * Commands are carried out in order, so what a caller publishes after it has subscribed comes after the subscription.
 * Without a connection they wait in the line, where the loop may give them up.
 */
#include "adapter/rabbitmq/impl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAST_WORD_MS 1000 /* at the end, for confirmations */
#define ROUND_MAX 256     /* commands of a round, then frames are read */

void rmq_op_free(struct rmq_op *op)
{
    if (op == NULL)
        return;
    if (op->loose)
        atomic_fetch_sub(&op->q->loose, 1);
    if (op->body != NULL)
        explicit_bzero(op->body, op->len);
    free(op->body);
    free(op->cause);
    free(op);
}

void rmq_delivery_free(struct queue_delivery *d)
{
    if (d == NULL)
        return;
    free(d->body);
    free(d);
}

void rmq_finish(struct rabbitmq_queue *q, struct rmq_op *op)
{
    if (!op->waited) {
        rmq_op_free(op);
        return;
    }
    op->next = NULL;
    *q->ready_ops_end = op;
    q->ready_ops_end = &op->next;
}

void rmq_finish_as(struct rabbitmq_queue *q, struct rmq_op *op, enum tr_rc rc, const char *fmt, ...)
{
    va_list ap;

    op->rc = rc;
    op->err.rc = rc;
    va_start(ap, fmt);
    vsnprintf(op->err.msg, sizeof op->err.msg, fmt, ap);
    va_end(ap);
    rmq_finish(q, op);
}

void rmq_deliver(struct rabbitmq_queue *q, struct queue_delivery *d)
{
    d->next = NULL;
    if (q->ready_last != NULL)
        q->ready_last->next = d;
    else
        q->ready_first = d;
    q->ready_last = d;
}

static void post_mail(struct rabbitmq_queue *q) /* under the lock */
{
    if (q->out_posted)
        return;
    q->out_posted = true;
    loop_post(q->loop, &q->mail);
}

void rmq_tell_epoch(struct rabbitmq_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->out_epoch = q->conn_epoch;
    post_mail(q);
    pthread_mutex_unlock(&q->lock);
}

void rmq_tell_gap(struct rabbitmq_queue *q, uint32_t consumer)
{
    pthread_mutex_lock(&q->lock);
    if (q->gaps_n == q->gaps_cap) {
        const size_t cap = q->gaps_cap == 0 ? 16 : q->gaps_cap * 2;
        uint32_t *more = realloc(q->gaps, cap * sizeof *more);

        if (more != NULL) {
            q->gaps = more;
            q->gaps_cap = cap;
        }
    }
    if (q->gaps_n < q->gaps_cap)
        q->gaps[q->gaps_n++] = consumer;
    post_mail(q);
    pthread_mutex_unlock(&q->lock);
}

static void hand_over(struct rabbitmq_queue *q)
{
    if (q->ready_ops == NULL && q->ready_first == NULL)
        return;
    pthread_mutex_lock(&q->lock);
    if (q->ready_ops != NULL) {
        *q->out_ops_end = q->ready_ops;
        q->out_ops_end = q->ready_ops_end;
    }
    if (q->ready_first != NULL) {
        if (q->out_last != NULL)
            q->out_last->next = q->ready_first;
        else
            q->out_first = q->ready_first;
        q->out_last = q->ready_last;
    }
    post_mail(q);
    pthread_mutex_unlock(&q->lock);
    q->ready_ops = NULL;
    q->ready_ops_end = &q->ready_ops;
    q->ready_first = q->ready_last = NULL;
}

/* True: stop. */
static bool take_inbox(struct rabbitmq_queue *q)
{
    bool stop;

    pthread_mutex_lock(&q->lock);
    if (q->inbox != NULL) {
        *q->line_end = q->inbox;
        q->line_end = q->inbox_end;
        q->inbox = NULL;
        q->inbox_end = &q->inbox;
    }
    stop = q->stop;
    pthread_mutex_unlock(&q->lock);
    return stop;
}

/* ---- commands ---- */

static void note_sub(struct rabbitmq_queue *q, struct rmq_op *op)
{
    struct rmq_sub *sub = calloc(1, sizeof *sub);

    if (sub != NULL) {
        sub->id = op->consumer;
        sub->prefetch = op->prefetch;
        memcpy(sub->name, op->name, sizeof sub->name);
        sub->next = q->subs;
        q->subs = sub;
        q->resubscribe = true;
        q->resubscribe_ns = 0;
    }
    rmq_finish(q, op);
}

static void cancel_sub(struct rabbitmq_queue *q, struct rmq_op *op)
{
    for (struct rmq_sub **at = &q->subs; *at != NULL; at = &(*at)->next) {
        struct rmq_sub *const sub = *at;
        char tag[16];

        if (sub->id != op->consumer)
            continue;
        *at = sub->next;
        for (int i = 0; q->conn != NULL && i < 2; i++)
            if (i == 0 ? sub->durable_on : sub->transient_on) {
                snprintf(tag, sizeof tag, "%c%u", i == 0 ? 'd' : 't', (unsigned)sub->id);
                amqp_basic_cancel(q->conn, CH_CONSUME, amqp_cstring_bytes(tag));
                if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL)
                    rmq_lost(q, "cancelling a subscription failed");
            }
        free(sub);
        break;
    }
    rmq_finish(q, op);
}

static void note_spec(struct rabbitmq_queue *q, const struct rmq_spec *spec)
{
    struct rmq_spec *known;

    HASH_FIND_STR(q->specs, spec->name, known);
    if (known == NULL && (known = calloc(1, sizeof *known)) != NULL) {
        memcpy(known->name, spec->name, sizeof known->name);
        known->born_ns = spec->born_ns;
        HASH_ADD_STR(q->specs, name, known);
    }
    if (known != NULL) {
        known->kind = spec->kind;
        known->single_active = spec->single_active;
        known->max_length = spec->max_length;
    }
}

static void do_declare(struct rabbitmq_queue *q, struct rmq_op *op)
{
    struct rmq_spec spec = {.kind = op->queue_kind, .single_active = op->single_active, .max_length = op->max_length};
    struct rmq_spec *known;
    uint64_t ready = 0;

    memcpy(spec.name, op->name, sizeof spec.name);
    HASH_FIND_STR(q->specs, spec.name, known);
    if (known == NULL && spec.kind == QUEUE_DURABLE && rmq_look_durable(q, spec.name, &ready, &op->err) == TR_NOT_FOUND)
        spec.born_ns = mono_ns();
    if (q->conn == NULL) {
        rmq_finish_as(q, op, TR_UNCERTAIN, "the broker's connection was lost while declaring");
        return;
    }
    op->rc = rmq_declare(q, &spec, &op->err);
    if (op->rc == TR_OK)
        note_spec(q, &spec);
    rmq_finish(q, op);
}

static void do_length(struct rabbitmq_queue *q, struct rmq_op *op)
{
    uint64_t consumers = 0;
    bool durable, transient;

    op->rc = rmq_look(q, op->name, &op->length, &consumers, &durable, &transient, &op->err);
    rmq_finish(q, op);
}

static void do_remove(struct rabbitmq_queue *q, struct rmq_op *op)
{
    struct rmq_spec *known;

    op->rc = op->in_hand == 0 ? rmq_remove(q, op->name, &op->err)
                              : tr_fail(&op->err, TR_BUSY, "queue '%s' has unsettled deliveries", op->name);
    HASH_FIND_STR(q->specs, op->name, known);
    if ((op->rc == TR_OK || op->rc == TR_NOT_FOUND) && known != NULL) {
        HASH_DEL(q->specs, known);
        free(known);
    }
    rmq_finish(q, op);
}

static void do_settle(struct rabbitmq_queue *q, struct rmq_op *op)
{
    int sent = AMQP_STATUS_OK;

    if (op->epoch == q->conn_epoch)
        sent = op->kind == RMQ_ACK ? amqp_basic_ack(q->conn, CH_CONSUME, op->tag, false)
                                   : amqp_basic_nack(q->conn, CH_CONSUME, op->tag, false, true);
    rmq_finish(q, op);
    if (sent != AMQP_STATUS_OK)
        rmq_lost(q, "settling a message failed");
}

static void carry_out(struct rabbitmq_queue *q, struct rmq_op *op)
{
    int queued = RMQ_QUEUED;

    if (!atomic_compare_exchange_strong(&op->stage, &queued, RMQ_SENT)) {
        rmq_finish_as(q, op, TR_CANCELLED, "given up"); /* it was answered already */
        return;
    }
    switch (op->kind) {
    case RMQ_DECLARE:
        do_declare(q, op);
        break;
    case RMQ_PUBLISH:
        if (op->tag != 0 && op->epoch != q->conn_epoch)
            rmq_finish(q, op); /* its original comes again: a copy would be one too many */
        else
            rmq_publish(q, op);
        break;
    case RMQ_LENGTH:
        do_length(q, op);
        break;
    case RMQ_REMOVE:
        do_remove(q, op);
        break;
    case RMQ_CHECK:
        snprintf(op->report.server, sizeof op->report.server, "%s", q->server);
        rmq_finish(q, op);
        break;
    case RMQ_CONSUME:
        note_sub(q, op);
        if (q->conn != NULL)
            rmq_subscribe_all(q);
        break;
    case RMQ_CANCEL:
        cancel_sub(q, op);
        break;
    case RMQ_ACK:
    case RMQ_REQUEUE:
        do_settle(q, op);
        break;
    }
}

static struct rmq_op *line_pop(struct rabbitmq_queue *q)
{
    struct rmq_op *const op = q->line;

    if (op != NULL && (q->line = op->next) == NULL)
        q->line_end = &q->line;
    return op;
}

static void work_line(struct rabbitmq_queue *q)
{
    for (int n = 0; n < ROUND_MAX && q->conn != NULL && q->line != NULL; n++)
        carry_out(q, line_pop(q));
}

/* No connection: what needs none is done, what was given up goes, a check is told why. */
static void sweep_line(struct rabbitmq_queue *q)
{
    struct rmq_op **at = &q->line;

    while (*at != NULL) {
        struct rmq_op *const op = *at;
        const bool gone = atomic_load(&op->stage) == RMQ_GIVEN_UP;
        const bool told = op->kind == RMQ_CHECK && q->trouble.rc != TR_OK;
        const bool late = op->loose && op->late_ms <= mono_ns() / 1000000;
        const bool here = op->kind == RMQ_CONSUME || op->kind == RMQ_CANCEL || op->kind == RMQ_ACK ||
                          op->kind == RMQ_REQUEUE || op->tag != 0;

        if (!gone && !told && !here && !late) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        if (op->kind == RMQ_CONSUME)
            note_sub(q, op);
        else if (op->kind == RMQ_CANCEL)
            cancel_sub(q, op);
        else if (told && !gone)
            rmq_finish_as(q, op, q->trouble.rc, "%s", q->trouble.text);
        else
            rmq_finish(q, op); /* the deliveries of a connection that is gone come again */
    }
    q->line_end = at;
}

static void sleep_until_something(struct rabbitmq_queue *q)
{
    struct pollfd fds[2] = {{.fd = q->wake_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    int ms = q->heartbeat_s * 1000 / 3;
    uint64_t count;

    if (q->conn != NULL) {
        if (amqp_frames_enqueued(q->conn) || amqp_data_in_buffer(q->conn) || q->line != NULL)
            ms = 0;
        else if (q->resubscribe || q->refused)
            ms = 100;
        fds[1].fd = amqp_get_sockfd(q->conn);
    } else {
        const uint64_t now = mono_ns();

        ms = q->retry_ns > now ? (int)((q->retry_ns - now) / 1000000 + 1) : 0;
    }
    if (poll(fds, 2, ms) > 0 && (fds[0].revents & POLLIN) != 0 && read(q->wake_fd, &count, sizeof count) < 0 &&
        errno != EAGAIN)
        return;
}

static void give_all_back(struct rabbitmq_queue *q)
{
    struct rmq_op *op;

    while ((op = line_pop(q)) != NULL)
        rmq_finish_as(q, op, TR_CANCELLED, "broker: closing");
    while (q->subs != NULL) {
        struct rmq_sub *const sub = q->subs;

        q->subs = sub->next;
        free(sub);
    }
    for (struct rmq_spec *spec = q->specs, *next; spec != NULL; spec = next) {
        next = spec->hh.next;
        HASH_DEL(q->specs, spec);
        free(spec);
    }
}

/* Copies that take the place of deliveries: their originals are acknowledged when they are confirmed. */
static void await_copies(struct rabbitmq_queue *q)
{
    const uint64_t until = mono_ns() + LAST_WORD_MS * UINT64_C(1000000);

    while (q->conn != NULL && mono_ns() < until) {
        struct pollfd fd = {.fd = amqp_get_sockfd(q->conn), .events = POLLIN};
        bool copies = false;

        for (uint64_t tag = q->confirm_first; tag < q->confirm_next && !copies; tag++)
            copies = q->confirms[tag % q->confirms_cap] != NULL && q->confirms[tag % q->confirms_cap]->tag != 0;
        if (!copies)
            return;
        (void)poll(&fd, 1, 20);
        (void)rmq_read_frames(q);
    }
}

void *rmq_thread(void *arg)
{
    struct rabbitmq_queue *const q = arg;

    while (!take_inbox(q)) {
        if (q->conn == NULL && mono_ns() >= q->retry_ns)
            (void)rmq_connect(q);
        if (q->conn == NULL) {
            sweep_line(q);
        } else {
            work_line(q);
            if (q->conn != NULL && rmq_read_frames(q) && q->resubscribe && mono_ns() >= q->resubscribe_ns)
                rmq_subscribe_all(q);
            if (q->conn != NULL)
                rmq_renew_publisher(q);
        }
        hand_over(q);
        sleep_until_something(q);
    }
    while (q->conn != NULL && q->line != NULL) /* the last acknowledgements */
        work_line(q);
    await_copies(q);
    rmq_say_goodbye(q);
    give_all_back(q);
    hand_over(q);
    return NULL;
}
