/*
 * admission - is there room for another turn (contract 11.14)?  The lengths of the queues that turns wait in are asked
 * now and then while there is traffic; what was let in since the asking began is added.  The same round tells whether
 * there are other gateways.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>

#define POLL_MS 200
#define IDLE_POLL_MS 2000
#define WORKERS_MS 2000
#define QUEUES_MAX 256

static struct metric metric_incoming =
    METRIC(METRIC_GAUGE, "troupe_queue_length", "queue=\"incoming\"", "Messages that wait or are in hand.");
static struct metric metric_inference =
    METRIC(METRIC_GAUGE, "troupe_queue_length", "queue=\"inference\"", "Messages that wait or are in hand.");
static struct metric metric_workers =
    METRIC(METRIC_GAUGE, "troupe_workers", NULL, "Living inference workers of the characters asked for, and the pool.");
static struct metric metric_gateways = METRIC(METRIC_GAUGE, "troupe_gateways", NULL, "Living gateways.");

/* One round; outlives the desk until its last answer. */
struct poll {
    struct desk *d; /* NULL: the desk is gone */
    unsigned under_way;
    uint64_t lengths, before; /* before: accepted_since when it began */
    uint64_t incoming;        /* of lengths */
    bool workers;             /* the list of queues is read too */
    bool failed;
    char (*queues)[QUEUE_NAME_MAX + 1];
    size_t queues_n;
};

static void poll_end(struct poll *p)
{
    struct desk *d = p->d;

    if (d != NULL) {
        d->poll = NULL;
        if (p->failed != d->poll_failed)
            log_event(p->failed ? LOG_WARN : LOG_INFO, p->failed ? "desk.lengths_unknown" : "desk.lengths_known",
                      "chats=%zu", d->chats_n);
        d->poll_failed = p->failed;
        if (!p->failed) {
            metric_set(&metric_incoming, p->incoming);
            metric_set(&metric_inference, p->lengths - p->incoming);
            d->lengths = p->lengths;
            d->accepted_since -= p->before;
        }
        if (p->workers && !p->failed) {
            metric_set(&metric_workers, p->queues_n);
            free(d->worker_queues);
            d->worker_queues = p->queues;
            d->worker_queues_n = p->queues_n;
            p->queues = NULL;
        }
    }
    free(p->queues);
    free(p);
}

static void answered(struct poll *p, enum tr_rc rc)
{
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        p->failed = true;
    p->under_way--;
    if (p->under_way == 0)
        poll_end(p);
}

static void on_length(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    struct poll *p = ctx;

    (void)err;
    if (rc == TR_OK)
        p->lengths += length;
    answered(p, rc);
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct poll *p = ctx;

    (void)err;
    for (size_t i = 0; rc == TR_OK && i < n && p->queues_n < QUEUES_MAX; i++) {
        if (p->queues == NULL)
            p->queues = calloc(QUEUES_MAX, sizeof *p->queues);
        if (p->queues == NULL) {
            rc = TR_NOMEM;
            break;
        }
        memcpy(p->queues[p->queues_n++], list[i].queue, strnlen(list[i].queue, QUEUE_NAME_MAX));
    }
    answered(p, rc == TR_OK ? TR_OK : TR_NOT_FOUND); /* the registry must not refuse anybody */
}

static void on_gateways(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct poll *p = ctx;

    (void)err;
    if (rc == TR_OK)
        metric_set(&metric_gateways, n);
    if (p->d != NULL)
        p->d->alone = rc == TR_OK && n == 1 && strcmp(names[0], p->d->queue) == 0; /* none at all: records were lost */
    answered(p, TR_OK);
}

static void on_incoming_length(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    struct poll *p = ctx;

    if (rc == TR_OK)
        p->incoming = length;
    on_length(ctx, rc, length, err);
}

static void ask_length(struct poll *p, const char *queue, queue_length_done *done)
{
    struct queue *q = p->d->env.queue;
    struct tr_op *op = NULL;

    p->under_way++;
    if (q->ops->length(q, queue, done, p, &op, NULL) != TR_OK)
        answered(p, TR_TRANSIENT);
}

static void ask_workers(struct poll *p, const char *character)
{
    struct registry *r = p->d->env.registry;
    struct tr_op *op = NULL;

    p->under_way++;
    if (r->ops->workers(r, character, on_workers, p, &op, NULL) != TR_OK)
        answered(p, TR_NOT_FOUND);
}

static void ask_gateways(struct poll *p)
{
    struct registry *r = p->d->env.registry;
    struct tr_op *op = NULL;

    p->under_way++;
    if (r->ops->gateways(r, on_gateways, p, &op, NULL) != TR_OK)
        answered(p, TR_NOT_FOUND);
}

static void poll_start(struct desk *d, uint64_t now)
{
    struct poll *p = calloc(1, sizeof *p);
    size_t asked = 0;

    if (p == NULL)
        return;
    d->poll = p;
    d->polled_ms = now;
    p->d = d;
    p->before = d->accepted_since;
    p->under_way = 1; /* held until all is asked */
    ask_length(p, TOPIC_INCOMING, on_incoming_length);
    for (size_t i = 0; i < d->worker_queues_n; i++)
        ask_length(p, d->worker_queues[i], on_length);
    if (d->workers_ms == 0 || now - d->workers_ms >= WORKERS_MS) {
        d->workers_ms = now + 1;
        p->workers = true;
        ask_gateways(p);
        ask_workers(p, "any");
        for (const struct character_name *c = d->characters; c != NULL && asked < QUEUES_MAX; c = c->next, asked++)
            ask_workers(p, c->id);
    }
    answered(p, TR_OK);
}

void desk_admission_tick(struct desk *d)
{
    const uint64_t now = loop_now_ms(d->env.loop);
    const bool busy =
        d->lengths > 0 || d->accepted_since > 0 || (d->traffic_ms != 0 && now - d->traffic_ms < IDLE_POLL_MS);

    if (d->poll == NULL && now - d->polled_ms >= (busy ? POLL_MS : IDLE_POLL_MS))
        poll_start(d, now);
}

bool desk_has_room(struct desk *d)
{
    d->traffic_ms = loop_now_ms(d->env.loop);
    if (d->lengths + d->accepted_since >= d->queue_max)
        return false;
    d->accepted_since++;
    return true;
}

void desk_admission_free(struct desk *d)
{
    if (d->poll != NULL)
        d->poll->d = NULL;
    d->poll = NULL;
    free(d->worker_queues);
    d->worker_queues = NULL;
    d->worker_queues_n = 0;
}
