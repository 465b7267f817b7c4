/*
 * notifier - finds who holds a chat's connections.
 * comes from: inference and gateways, [notify.0-7] (partitioned by chat)
 * goes to:    [gateway:<id>] of the gateways that have the chat open; of all where none is known (contract 11.5)
 *
 * Events of one chat wait in its line while the registry is asked, so that they leave in the order they came.  One
 * look-up serves those that stood in the line when it began: a later one may be of a connection that it did not see.
 *
 *   line's head -> looked up -> published to each gateway -> all confirmed -> acknowledged
 */
#include "role/notifier/impl.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "role/common/story.h"
#include "role/notifier/share.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#define PREFETCH 256
#define BACKOFF_FIRST_MS 500
#define NOBODY_MS 15000 /* a reply waits so long for a gateway to be there */
#define NOBODY_PAUSE_MS 200

struct event { /* one message in hand */
    struct notifier *r;
    struct uuid chat;
    struct uuid turn; /* of a reply, with variant and trace: for the log; nil: it is something else */
    int32_t variant;
    char trace[ENVELOPE_TRACE_MAX + 1];
    unsigned gateways;               /* that have it */
    struct queue_delivery *delivery; /* NULL: transient */
    uint32_t attempts;
    uint64_t created_ms; /* of a reply; else 0 */
    bool nobody;         /* no gateway is known at all */
    uint8_t *body;       /* owned: of a transient one; else borrowed from the delivery */
    size_t len;
    size_t pending; /* publishes that are not confirmed, and 1 while they are being started */
    struct tr_err failed;
    struct event *prev, *next;
};

struct line { /* the events of one chat */
    struct uuid chat;
    struct event *events;
    struct event *last_asked; /* the look-up under way is for those up to this one */
    struct notifier *r;       /* NULL: the role is gone, free at the callback */
    struct tr_op *op;
    bool all; /* no record: to every gateway, as soon as the book is read */
    UT_hash_handle hh;
};

struct notifier {
    struct role_env env;
    struct queue_consumer *consumers[NOTIFY_PARTITIONS];
    struct line *lines;
    struct event *sending; /* published, not confirmed */
    size_t in_hand;
    struct book book;
    struct share *share;
    struct start *starting;
    struct loop_timer *timer; /* runs while draining: until its end */
    bool draining;
    void (*drained)(void *ctx);
    void *drained_ctx;
};

struct start {          /* declaring one partition after the other */
    struct notifier *r; /* NULL: the role is gone */
    unsigned next;
    struct tr_op *op;
    notifier_started *started;
    void *ctx;
};

static struct metric metric_sent =
    METRIC(METRIC_COUNTER, "troupe_notify_sent_total", NULL, "Events published to gateways.");
static struct metric metric_unknown = METRIC(METRIC_COUNTER, "troupe_notify_unknown_total", NULL,
                                             "Events of chats without a connection record, sent to all gateways.");
static struct metric metric_failed =
    METRIC(METRIC_COUNTER, "troupe_notify_failed_total", NULL, "Events that could not be published and came again.");

static void line_go_on(struct line *line);

static void check_drained(struct notifier *r)
{
    if (r->draining && r->in_hand == 0)
        timer_again(r->timer, 0);
}

static void event_free(struct event *e)
{
    if (e->delivery == NULL)
        free(e->body);
    free(e);
}

static void log_notified(const struct event *e)
{
    struct envelope about = {.chat = e->chat, .turn = e->turn, .variant = e->variant};

    if (uuid_is_nil(&e->turn))
        return;
    memcpy(about.trace, e->trace, sizeof about.trace);
    story_log(LOG_INFO, "turn.notified", &about, "gateways=%u", e->gateways);
}

/* All its publishes have ended: settle it. */
static void event_end(struct event *e)
{
    struct notifier *r = e->r;
    struct queue *q;

    if (r == NULL) { /* the role is gone, and the delivery is settled */
        free(e);
        return;
    }
    q = r->env.queue;
    DL_DELETE(r->sending, e);
    if (e->delivery == NULL) {
        event_free(e);
    } else if (e->nobody && wall_ms() - e->created_ms < NOBODY_MS) {
        /* a registry that lost its records, more likely than that there is none: they register again */
        q->ops->retry(q, e->delivery, false, NOBODY_PAUSE_MS, NULL);
        free(e);
    } else if (e->failed.rc == TR_OK) {
        log_notified(e);
        fault_point("notifier.published");
        q->ops->ack(q, e->delivery);
        free(e);
    } else {
        char chat[UUID_TEXT];

        metric_add(&metric_failed, 1);
        uuid_format(&e->chat, chat);
        log_event(LOG_WARN, "notify.failed", "chat=%s attempt=%u cause=%Q", chat, e->attempts + 1,
                  tr_err_text(&e->failed));
        q->ops->retry(q, e->delivery, true, (uint64_t)BACKOFF_FIRST_MS << (e->attempts < 8 ? e->attempts : 8),
                      tr_err_text(&e->failed));
        free(e);
    }
    r->in_hand--;
    check_drained(r);
}

static void ignore_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err; /* nobody waits for it */
}

struct parcel { /* one durable event to one gateway */
    struct event *event;
    struct tr_op *op;
    char gateway[QUEUE_NAME_MAX + 1];
};

/* That gateway is gone: its record too.  Nobody waits for it. */
static void gateway_gone(struct notifier *r, const struct uuid *chat, const char *gateway)
{
    struct tr_op *op = NULL;
    char text[UUID_TEXT];

    uuid_format(chat, text);
    log_event(LOG_DEBUG, "notify.gateway_gone", "chat=%s gateway=%s", text, gateway);
    (void)r->env.registry->ops->conn_remove(r->env.registry, chat, gateway, ignore_done, NULL, &op, NULL);
}

static void published(struct event *e, const char *gateway, enum tr_rc rc, const struct tr_err *err)
{
    if (e->r != NULL && rc == TR_NOT_FOUND)
        gateway_gone(e->r, &e->chat, gateway);
    else if (rc == TR_OK)
        metric_add(&metric_sent, 1);
    else
        e->failed = err != NULL ? *err : (struct tr_err){.rc = rc};
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        e->failed.rc = rc;
    e->gateways += rc == TR_OK;
    if (--e->pending == 0)
        event_end(e);
}

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct parcel *parcel = ctx;

    published(parcel->event, parcel->gateway, rc, err);
    free(parcel);
}

static void publish(struct event *e, const char *gateway)
{
    struct notifier *r = e->r;
    struct queue *q = r->env.queue;
    const struct queue_message msg = {.queue = gateway, .body = {e->body, e->len}, .transient = true};
    struct parcel *parcel;
    struct tr_err err = {0};
    enum tr_rc rc;

    e->pending++;
    if (e->delivery == NULL) { /* nobody waits */
        rc = q->ops->publish(q, &msg, NULL, NULL, NULL, &err);
        published(e, gateway, rc, &err);
        return;
    }
    parcel = calloc(1, sizeof *parcel);
    if (parcel == NULL || strlen(gateway) > QUEUE_NAME_MAX) {
        rc = tr_fail(&err, parcel == NULL ? TR_NOMEM : TR_INVALID, "publish to a gateway");
    } else {
        parcel->event = e;
        strcpy(parcel->gateway, gateway);
        rc = q->ops->publish(q, &msg, on_published, parcel, &parcel->op, &err);
    }
    if (rc != TR_OK) {
        free(parcel);
        published(e, gateway, rc, &err);
    }
}

/* Publish the events up to `last` of the line to these gateways. */
static void line_send(struct line *line, const struct event *last, const char *const *names, size_t n)
{
    struct notifier *r = line->r;
    bool done = false;

    while (!done && line->events != NULL) {
        struct event *e = line->events;

        done = e == last;
        DL_DELETE(line->events, e);
        DL_APPEND(r->sending, e);
        e->pending = 1;
        e->nobody = n == 0;
        for (size_t i = 0; i < n; i++)
            publish(e, names[i]);
        if (--e->pending == 0)
            event_end(e);
    }
}

static void line_send_all(struct line *line)
{
    struct notifier *r = line->r;
    const struct event *last = line->last_asked;
    const char *names[REGISTRY_GATEWAYS_MAX];
    size_t n = 0;

    line->all = false;
    line->last_asked = NULL;
    metric_add(&metric_unknown, 1);
    for (; n < r->book.n && n < REGISTRY_GATEWAYS_MAX; n++)
        names[n] = r->book.names[n];
    line_send(line, last, names, n);
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

static void on_book_read(void *ctx)
{
    struct notifier *r = ctx;
    struct line *line, *next;

    HASH_ITER (hh, r->lines, line, next) {
        if (line->all) {
            line_send_all(line);
            line_end_or_go_on(line);
        }
    }
}

/* Nobody is known, or the registry does not answer. */
static void line_to_all(struct line *line)
{
    line->all = true;
    if (book_ask(&line->r->book)) {
        line_send_all(line);
        line_end_or_go_on(line);
    }
}

static void on_conns(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct line *line = ctx;
    const struct event *last = line->last_asked;

    line->op = NULL;
    if (line->r == NULL) {
        free(line);
        return;
    }
    if (rc != TR_OK || n == 0) {
        if (rc != TR_OK && rc != TR_NOT_FOUND)
            log_event(LOG_DEBUG, "notify.registry", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
        line_to_all(line);
        return;
    }
    line->last_asked = NULL;
    line_send(line, last, names, n);
    line_end_or_go_on(line);
}

static void line_go_on(struct line *line)
{
    struct registry *reg = line->r->env.registry;

    assert(line->events != NULL && line->op == NULL && !line->all);
    line->last_asked = line->events->prev; /* utlist: the head's prev is the tail */
    if (reg->ops->conns(reg, &line->chat, on_conns, line, &line->op, NULL) != TR_OK) {
        line->op = NULL;
        line_to_all(line);
    }
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
    struct event *e;
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
    e = calloc(1, sizeof *e);
    if (e != NULL && msg->delivery == NULL && (e->body = malloc(msg->body.len)) == NULL) {
        free(e);
        e = NULL;
    }
    if (e == NULL || (line == NULL && (line = calloc(1, sizeof *line)) == NULL)) {
        if (e != NULL && msg->delivery == NULL)
            free(e->body);
        free(e);
        if (msg->delivery != NULL)
            q->ops->retry(q, msg->delivery, false, BACKOFF_FIRST_MS, NULL);
        return;
    }
    *e = (struct event){.r = r,
                        .chat = env.chat,
                        .delivery = msg->delivery,
                        .attempts = msg->attempts,
                        .created_ms = env.kind == ENVELOPE_REPLY ? env.created_ms : 0,
                        .body = e->body,
                        .len = msg->body.len};
    if (msg->delivery == NULL)
        memcpy(e->body, msg->body.data, msg->body.len);
    else
        memcpy(&e->body, &msg->body.data, sizeof e->body); /* borrowed until settled; only ever read */
    if (env.kind == ENVELOPE_REPLY) {
        e->turn = env.turn;
        e->variant = env.variant;
        memcpy(e->trace, env.trace, sizeof e->trace);
        story_taken(STORY_NOTIFY, &env);
    }
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
    struct event *e, *next;

    HASH_ITER (hh, r->lines, line, next_line) {
        struct tr_op *op = line->op;

        HASH_DEL(r->lines, line);
        DL_FOREACH_SAFE (line->events, e, next) {
            if (e->delivery != NULL)
                q->ops->retry(q, e->delivery, false, 0, NULL);
            event_free(e);
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
    timer_stop(r->timer);
    free(r);
}
