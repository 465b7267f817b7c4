/*
 * notice - one event in hand: published to each gateway that it is for, and settled when all of them have answered.
 *
 *   notice_new -> in its chat's line (notifier.c) -> notice_send -> published to each gateway -> notice_end: settled
 *
 * A record none of whose gateways has its queue counts as none: the event then goes to all.
 */
#include "role/notifier/impl.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "role/common/story.h"
#include "role/notifier/lonely.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define NOBODY_PAUSE_MS 200

static struct metric metric_sent =
    METRIC(METRIC_COUNTER, "troupe_notify_sent_total", NULL, "Events published to gateways.");
static struct metric metric_failed =
    METRIC(METRIC_COUNTER, "troupe_notify_failed_total", NULL, "Events that could not be published and came again.");

struct notice *notice_new(struct notifier *r, const struct queue_incoming *msg, const struct envelope *env)
{
    struct notice *const e = calloc(1, sizeof *e);
    uint8_t *const copy = msg->delivery == NULL ? malloc(msg->body.len) : NULL;

    if (e == NULL || (msg->delivery == NULL && copy == NULL)) {
        free(copy);
        free(e);
        return NULL;
    }
    *e = (struct notice){.r = r,
                         .chat = env->chat,
                         .delivery = msg->delivery,
                         .attempts = msg->attempts,
                         .marked = env->kind != ENVELOPE_DELTA && env->kind != ENVELOPE_STATUS && env->reach == 0,
                         .all = env->reach == REACH_ALL,
                         .body = copy,
                         .len = msg->body.len};
    if (msg->delivery == NULL)
        memcpy(e->body, msg->body.data, msg->body.len);
    else
        memcpy(&e->body, &msg->body.data, sizeof e->body); /* borrowed until settled; only ever read */
    if (env->kind == ENVELOPE_REPLY) {
        e->turn = env->turn;
        e->variant = env->variant;
        memcpy(e->trace, env->trace, sizeof e->trace);
    }
    return e;
}

void notice_free(struct notice *e)
{
    if (e == NULL)
        return;
    if (e->delivery == NULL)
        free(e->body);
    free(e);
}

static void log_notified(const struct notice *e)
{
    struct envelope about = {.chat = e->chat, .turn = e->turn, .variant = e->variant};

    if (uuid_is_nil(&e->turn))
        return;
    memcpy(about.trace, e->trace, sizeof about.trace);
    story_log(LOG_INFO, "turn.notified", &about, "gateways=%u", e->gateways);
}

static void notice_end(struct notice *e);

struct parcel { /* one durable event to one gateway */
    struct notice *notice;
    struct tr_op *op;
    char gateway[QUEUE_NAME_MAX + 1];
};

static void published(struct notice *e, const char *gateway, enum tr_rc rc, const struct tr_err *err)
{
    if (e->r != NULL && rc == TR_NOT_FOUND && log_on(LOG_DEBUG)) {
        char chat[UUID_TEXT];

        uuid_format(&e->chat, chat);
        log_event(LOG_DEBUG, "notify.gateway_gone", "chat=%s gateway=%s", chat, gateway);
    } else if (rc == TR_OK) {
        metric_add(&metric_sent, 1);
    } else if (rc != TR_NOT_FOUND) {
        e->failed = err != NULL ? *err : (struct tr_err){.rc = rc};
        e->failed.rc = rc;
    }
    e->gateways += rc == TR_OK;
    if (--e->pending == 0)
        notice_end(e);
}

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct parcel *parcel = ctx;

    published(parcel->notice, parcel->gateway, rc, err);
    free(parcel);
}

static void publish(struct notice *e, const char *gateway, struct slice body)
{
    struct notifier *r = e->r;
    struct queue *q = r->env.queue;
    const struct queue_message msg = {.queue = gateway, .body = body, .transient = true};
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
        parcel->notice = e;
        strcpy(parcel->gateway, gateway);
        rc = q->ops->publish(q, &msg, on_published, parcel, &parcel->op, &err);
    }
    if (rc != TR_OK) {
        free(parcel);
        published(e, gateway, rc, &err);
    }
}

/*
 * To all living gateways, and to those of the record, which may be younger than the book.  It does not wait: the book was
 * read, or could not be read, just before the record was.
 */
static void send_all(struct notice *e, const char *const *names, size_t n)
{
    const struct book *b = &e->r->book;
    const struct slice body = {e->body, e->len};

    e->recorded = false;
    e->pending++;
    for (size_t i = 0; i < b->n; i++)
        publish(e, b->names[i], body);
    for (size_t i = 0; i < n; i++)
        if (!book_has(b, names[i]))
            publish(e, names[i], body);
    if (--e->pending == 0)
        notice_end(e);
}

static void send_recorded(struct notice *e, const char *const *names, size_t n)
{
    struct slice body = {e->body, e->len};
    struct buf marked = {0};

    if (e->marked && envelope_with_reach(body, REACH_RECORDED, &marked) == TR_OK)
        body = (struct slice){marked.data, marked.len}; /* without memory it goes as it is */
    e->recorded = true;
    e->pending++;
    for (size_t i = 0; i < n; i++)
        publish(e, names[i], body);
    buf_release(&marked);
    if (--e->pending == 0)
        notice_end(e);
}

/* All its publishes have ended: settle it. */
static void notice_end(struct notice *e)
{
    struct notifier *r = e->r;
    struct queue *q;

    if (r == NULL) { /* the role is gone, and the delivery is settled */
        free(e);
        return;
    }
    if (e->recorded && e->gateways == 0 && e->failed.rc == TR_OK) { /* none of them is there any more */
        send_all(e, NULL, 0);
        return;
    }
    q = r->env.queue;
    e->nobody = e->gateways == 0 && e->failed.rc == TR_OK;
    DL_DELETE(r->sending, e);
    if (e->delivery == NULL) {
        notice_free(e);
    } else if (e->nobody && !uuid_is_nil(&e->turn) &&
               lonely_waits(&r->lonely, &e->turn, e->variant, loop_now_ms(r->env.loop))) {
        /* a registry that lost its records, more likely than that there is none: they register again */
        q->ops->retry(q, e->delivery, false, NOBODY_PAUSE_MS, NULL);
        free(e);
    } else if (e->failed.rc == TR_OK) {
        lonely_forget(&r->lonely, &e->turn, e->variant);
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
    notifier_ended_one(r);
}

void notice_send(struct notice *e, const char *const *names, size_t n, bool recorded)
{
    DL_APPEND(e->r->sending, e);
    if (recorded && !e->all)
        send_recorded(e, names, n);
    else
        send_all(e, names, n);
}
