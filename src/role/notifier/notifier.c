/*
 * notifier - finds who holds a chat's connections.
 * comes from: inference and gateways, [notify.0-7] (partitioned by chat)
 * goes to:    [gateway:<id>] of the gateways that have the chat open; of all where none is known (contract 11.5)
 *
 * Events of one chat wait in its line while the registry is asked, so that they leave in the order they came.  One
 * look-up serves those that stood in the line when it began: a later one may be of a connection that it did not see.
 *
 *   line's head -> the living gateways are known -> looked up -> published to each gateway and settled (notice.c)
 *
 * A record may be older than what is so: a registry that came back as it was a moment ago.  One all of whose gateways are
 * dead (none is among the living, or none has its queue) counts as none.  A gateway that gets an event by a record and does
 * not have the chat open sends it back, once, for all (REACH_RECORDED, REACH_ALL).  The notifier removes no record: its
 * removal could arrive after a newer put.
 */
#include "role/notifier/impl.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "role/common/story.h"
#include "role/notifier/lonely.h"
#include "role/notifier/share.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#define PREFETCH 256

struct line { /* the events of one chat */
    struct uuid chat;
    struct notice *events;
    struct notice *last_asked; /* the look-up under way is for those up to this one */
    struct notifier *r;        /* NULL: the role is gone, free at the callback */
    struct tr_op *op;
    bool waits; /* until the book is read */
    UT_hash_handle hh;
};

struct start {          /* declaring one partition after the other */
    struct notifier *r; /* NULL: the role is gone */
    unsigned next;
    struct tr_op *op;
    notifier_started *started;
    void *ctx;
};

static struct metric metric_unknown =
    METRIC(METRIC_COUNTER, "troupe_notify_unknown_total", NULL,
           "Looks at chats without a living connection record; their events went to all gateways.");

static void line_go_on(struct line *line);

static void check_drained(struct notifier *r)
{
    if (r->draining && r->in_hand == 0)
        timer_again(r->timer, 0);
}

void notifier_ended_one(struct notifier *r)
{
    r->in_hand--;
    check_drained(r);
}

/* Publish the events up to the last one asked for: to these gateways, or (recorded: false) to all. */
static void line_send(struct line *line, const char *const *names, size_t n, bool recorded)
{
    const struct notice *last = line->last_asked;
    bool done = false;

    line->last_asked = NULL;
    while (!done && line->events != NULL) {
        struct notice *e = line->events;

        done = e == last;
        DL_DELETE(line->events, e);
        notice_send(e, names, n, recorded);
    }
}

/* After this the line may be gone. */
static void line_end_or_go_on(struct line *line)
{
    if (line->events != NULL) {
        line_go_on(line);
        return;
    }
    HASH_DEL(line->r->lines, line);
    free(line);
}

static void line_ask(struct line *line);

static void on_book_read(void *ctx)
{
    struct notifier *r = ctx;
    struct line *line, *next;

    HASH_ITER (hh, r->lines, line, next) {
        if (line->waits) {
            line->waits = false;
            line_ask(line);
        }
    }
}

/* Is one of these alive?  Where no gateway is known to be, the registry has lost their records, and nobody can say. */
static bool is_alive(const struct book *b, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (book_has(b, names[i]))
            return true;
    return n > 0 && b->n == 0;
}

static void on_conns(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct line *line = ctx;
    bool recorded;

    line->op = NULL;
    if (line->r == NULL) {
        free(line);
        return;
    }
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        log_event(LOG_DEBUG, "notify.registry", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    if (rc != TR_OK)
        n = 0;
    recorded = is_alive(&line->r->book, names, n);
    if (!recorded)
        metric_add(&metric_unknown, 1);
    line_send(line, names, n, recorded);
    line_end_or_go_on(line);
}

static void line_ask(struct line *line)
{
    struct registry *reg = line->r->env.registry;

    line->last_asked = line->events->prev; /* utlist: the head's prev is the tail */
    if (reg->ops->conns(reg, &line->chat, on_conns, line, &line->op, NULL) == TR_OK)
        return;
    line->op = NULL;
    metric_add(&metric_unknown, 1);
    line_send(line, NULL, 0, false);
    line_end_or_go_on(line);
}

static void line_go_on(struct line *line)
{
    assert(line->events != NULL && line->op == NULL && !line->waits);
    line->waits = !book_ask(&line->r->book);
    if (!line->waits)
        line_ask(line);
}

static unsigned partition_of(const char *queue)
{
    unsigned p = 0;

    while (p < NOTIFY_PARTITIONS - 1 && strcmp(topic_notify_number(p), queue) != 0)
        p++;
    return p;
}

static void on_message(void *ctx, const struct queue_incoming *msg)
{
    struct notifier *r = ctx;
    struct queue *q = r->env.queue;
    struct envelope env;
    struct notice *e;
    struct line *line;
    struct tr_err err = {0};

    fault_point("notifier.claimed");
    share_got(r->share, partition_of(msg->queue));
    if (envelope_decode(msg->body.data, msg->body.len, &env, &err) != TR_OK) {
        log_event(LOG_WARN, "notify.undecodable", "queue=%s cause=%Q", msg->queue, tr_err_text(&err));
        if (msg->delivery != NULL)
            q->ops->dead_letter(q, msg->delivery, tr_err_text(&err));
        return;
    }
    HASH_FIND(hh, r->lines, &env.chat, sizeof env.chat, line);
    e = notice_new(r, msg, &env);
    if (e == NULL || (line == NULL && (line = calloc(1, sizeof *line)) == NULL)) {
        notice_free(e);
        if (msg->delivery != NULL)
            q->ops->retry(q, msg->delivery, false, BACKOFF_FIRST_MS, NULL);
        return;
    }
    if (env.kind == ENVELOPE_REPLY)
        story_taken(STORY_NOTIFY, &env);
    r->in_hand++;
    DL_APPEND(line->events, e);
    if (line->r == NULL) { /* new */
        line->r = r;
        line->chat = env.chat;
        HASH_ADD(hh, r->lines, chat, sizeof line->chat, line);
        line_go_on(line);
    }
}

/* Another notifier's: to the end of the line of those who would have it. */
static void yield(void *ctx, unsigned partition)
{
    struct notifier *r = ctx;
    struct queue *q = r->env.queue;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (r->consumers[partition] == NULL)
        return;
    q->ops->consumer_stop(q, r->consumers[partition]);
    r->consumers[partition] = NULL;
    rc = q->ops->consume(q, topic_notify_number(partition), PREFETCH, on_message, NULL, r, &r->consumers[partition],
                         &err);
    if (rc != TR_OK)
        log_event(LOG_WARN, "notify.consume", "partition=%u rc=%s cause=%Q", partition, tr_rc_name(rc),
                  tr_err_text(&err));
}

/* Everything is declared: consume. */
static enum tr_rc consume_all(struct notifier *r, struct tr_err *err)
{
    struct queue *q = r->env.queue;
    enum tr_rc rc = TR_OK;

    for (unsigned i = 0; rc == TR_OK && i < NOTIFY_PARTITIONS; i++)
        rc = q->ops->consume(q, topic_notify_number(i), PREFETCH, on_message, NULL, r, &r->consumers[i], err);
    return rc;
}

static enum tr_rc declare_next(struct start *s, struct tr_err *err);
static void on_timer(void *ctx);

static void start_end(struct start *s, enum tr_rc rc, const struct tr_err *err)
{
    notifier_started *started = s->started;
    void *ctx = s->ctx;

    s->r->starting = NULL;
    free(s);
    started(ctx, rc, err);
}

static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct start *s = ctx;
    struct tr_err mine = {0};

    s->op = NULL;
    if (s->r == NULL) {
        free(s);
        return;
    }
    if (rc != TR_OK) {
        start_end(s, rc, err);
        return;
    }
    s->next++;
    rc = s->next < NOTIFY_PARTITIONS ? declare_next(s, &mine) : consume_all(s->r, &mine);
    if (rc != TR_OK || s->next == NOTIFY_PARTITIONS)
        start_end(s, rc, &mine);
}

static enum tr_rc declare_next(struct start *s, struct tr_err *err)
{
    struct queue *q = s->r->env.queue;
    const struct queue_spec spec = {.name = topic_notify_number(s->next), .kind = QUEUE_DURABLE, .single_active = true};

    return q->ops->declare(q, &spec, on_declared, s, &s->op, err);
}

enum tr_rc notifier_start(const struct role_env *env, notifier_started *started, void *ctx,
                          struct notifier **ret_notifier, struct tr_err *err)
{
    struct notifier *r = calloc(1, sizeof *r);
    struct start *s = calloc(1, sizeof *s);
    enum tr_rc rc;

    if (r == NULL || s == NULL) {
        free(r);
        free(s);
        return tr_fail(err, TR_NOMEM, "notifier");
    }
    r->env = *env;
    r->book = (struct book){.registry = env->registry, .loop = env->loop, .on_read = on_book_read, .ctx = r};
    *s = (struct start){.r = r, .started = started, .ctx = ctx};
    rc = timer_start(env->loop, 0, 0, on_timer, r, &r->timer);
    if (rc == TR_OK)
        rc = share_new(env, yield, r, &r->share, err);
    if (rc == TR_OK)
        rc = declare_next(s, err);
    if (rc != TR_OK) {
        share_free(r->share);
        timer_stop(r->timer);
        free(s);
        free(r);
        return rc;
    }
    r->starting = s;
    *ret_notifier = r;
    return TR_OK;
}

static void stop_consuming(struct notifier *r)
{
    share_free(r->share);
    r->share = NULL;
    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++) {
        r->env.queue->ops->consumer_stop(r->env.queue, r->consumers[i]);
        r->consumers[i] = NULL;
    }
}

/* Give back what is in hand; what is on its way to a gateway may arrive twice, which is dropped there. */
static void hand_back(struct notifier *r)
{
    struct queue *q = r->env.queue;
    struct line *line, *next_line;
    struct notice *e, *next;

    HASH_ITER (hh, r->lines, line, next_line) {
        struct tr_op *op = line->op;

        HASH_DEL(r->lines, line);
        DL_FOREACH_SAFE (line->events, e, next) {
            if (e->delivery != NULL)
                q->ops->retry(q, e->delivery, false, 0, NULL);
            notice_free(e);
        }
        line->r = NULL;
        line->events = NULL;
        if (op != NULL)
            tr_op_cancel(op); /* its callback frees the line */
        else
            free(line);
    }
    DL_FOREACH_SAFE (r->sending, e, next) {
        DL_DELETE(r->sending, e);
        q->ops->retry(q, e->delivery, false, 0, NULL); /* only durable ones wait for a confirmation */
        e->r = NULL;                                   /* the last confirmation frees it */
    }
    r->in_hand = 0;
}

/* Nothing is in hand any more, or the time is over. */
static void on_timer(void *ctx)
{
    struct notifier *r = ctx;
    void (*drained)(void *ctx) = r->drained;

    if (!r->draining || drained == NULL)
        return;
    hand_back(r);
    r->drained = NULL;
    drained(r->drained_ctx);
}

void notifier_drain(struct notifier *r, void (*drained)(void *ctx), void *ctx)
{
    uint64_t seconds = 20;
    struct tr_err err;

    r->draining = true;
    r->drained = drained;
    r->drained_ctx = ctx;
    stop_consuming(r);
    if (config_u64(r->env.config, "TROUPE_DRAIN_SECONDS", &seconds, &err) != TR_OK)
        log_event(LOG_WARN, "notifier.config", "cause=%Q", tr_err_text(&err));
    timer_again(r->timer, seconds * 900); /* a tenth is left for closing */
    check_drained(r);
}

void notifier_free(struct notifier *r)
{
    if (r == NULL)
        return;
    if (r->starting != NULL) {
        struct tr_op *op = r->starting->op;

        r->starting->r = NULL;
        tr_op_cancel(op);
    }
    stop_consuming(r);
    hand_back(r);
    book_release(&r->book);
    lonely_release(&r->lonely);
    timer_stop(r->timer);
    free(r);
}
