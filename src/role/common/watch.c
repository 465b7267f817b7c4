/*
 * watch - see watch.h.  One question to a store is under way at a time:
 *
 *   UNKNOWN, DOWN -> UP     on_checked   it answered
 *   UNKNOWN, UP   -> DOWN   on_checked   it did not, or on_tick: for too long
 */
#include "role/common/watch.h"

#include "base/log.h"
#include "base/metrics.h"
#include "port/media.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 500
#define UP_EVERY_MS 5000
#define MEDIA_UP_EVERY_MS 15000 /* an S3 may charge for each question */
#define DOWN_EVERY_MS 1000
#define SILENT_MS 3000 /* under way for so long: it does not answer */
#define LENGTHS_EVERY_MS 5000

enum store_id { BROKER, CATALOGUE, HISTORY, REGISTRY, MEDIA, STORES };
enum state { UNKNOWN, UP, DOWN };

struct ask {         /* outlives the watch until its answer */
    struct watch *w; /* NULL: the watch is gone */
    enum store_id id;
    struct tr_op *op;
};

struct store {
    bool there, outside;
    enum state state;
    struct ask *asking;
    uint64_t asked_ms; /* 0: never */
    char cause[sizeof((struct tr_err *)NULL)->msg];
    char warning[sizeof((struct service_report *)NULL)->warning]; /* logged; "": it had none */
};

struct round { /* of the notify queues' lengths; outlives the watch too */
    struct watch *w;
    unsigned under_way;
    uint64_t sum;
    bool failed;
};

struct watch {
    struct role_env env;
    struct loop_timer *tick;
    struct store stores[STORES];
    bool lengths;
    struct round *round;
    uint64_t round_ms;
};

static const char *const names[STORES] = {"broker", "catalogue", "history", "registry", "media"};
static const char *const store_keys[STORES] = {"TROUPE_BROKER", "TROUPE_CATALOGUE", "TROUPE_HISTORY", "TROUPE_REGISTRY",
                                               "TROUPE_MEDIA"};

#define STORE_UP(name) METRIC(METRIC_GAUGE, "troupe_store_up", "store=\"" name "\"", "1: the store answers.")
static struct metric metric_up[STORES] = {STORE_UP("broker"), STORE_UP("catalogue"), STORE_UP("history"),
                                          STORE_UP("registry"), STORE_UP("media")};
static struct metric metric_notify =
    METRIC(METRIC_GAUGE, "troupe_queue_length", "queue=\"notify\"", "Messages that wait or are in hand.");

static void set_state(struct watch *w, enum store_id id, enum state state, const char *cause)
{
    struct store *const s = &w->stores[id];

    if (state == DOWN)
        snprintf(s->cause, sizeof s->cause, "%s", cause);
    if (state == s->state)
        return;
    if (state == DOWN)
        log_event(LOG_WARN, "store.lost", "store=%s cause=%Q", names[id], cause);
    else
        log_event(s->state == UNKNOWN ? LOG_DEBUG : LOG_INFO, "store.reached", "store=%s server=%Q", names[id], cause);
    s->state = state;
    metric_set(&metric_up[id], state == UP);
}

/* It serves: what is wrong with it all the same is told once. */
static void set_warning(struct watch *w, enum store_id id, const char *warning)
{
    struct store *const s = &w->stores[id];

    if (strcmp(s->warning, warning) == 0)
        return;
    snprintf(s->warning, sizeof s->warning, "%s", warning);
    if (*warning != '\0')
        log_event(LOG_WARN, "store.warning", "store=%s cause=%Q", names[id], warning);
    else
        log_event(LOG_INFO, "store.mended", "store=%s", names[id]);
}

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct ask *ask = ctx;
    struct watch *w = ask->w;

    ask->op = NULL;
    if (w != NULL) {
        w->stores[ask->id].asking = NULL;
        if (rc == TR_OK) {
            set_state(w, ask->id, UP, report->server);
            set_warning(w, ask->id, report->warning);
        } else if (rc != TR_CANCELLED) {
            set_state(w, ask->id, DOWN, tr_err_text(err));
        }
    }
    free(ask);
}

static enum tr_rc check(const struct role_env *e, enum store_id id, struct ask *ask, struct tr_err *err)
{
    switch (id) {
    case BROKER:
        return e->queue->ops->check(e->queue, on_checked, ask, &ask->op, err);
    case CATALOGUE:
        return e->catalogue->ops->check(e->catalogue, on_checked, ask, &ask->op, err);
    case HISTORY:
        return e->history->ops->check(e->history, on_checked, ask, &ask->op, err);
    case REGISTRY:
        return e->registry->ops->check(e->registry, on_checked, ask, &ask->op, err);
    case MEDIA:
        return e->media->ops->check(e->media, on_checked, ask, &ask->op, err);
    case STORES:
        break;
    }
    return TR_INVALID;
}

static void ask_store(struct watch *w, enum store_id id, uint64_t now)
{
    struct ask *ask = calloc(1, sizeof *ask);
    struct tr_err err = {0};
    enum tr_rc rc;

    w->stores[id].asked_ms = now;
    if (ask == NULL)
        return;
    *ask = (struct ask){.w = w, .id = id};
    rc = check(&w->env, id, ask, &err);
    if (rc == TR_OK) {
        w->stores[id].asking = ask;
    } else {
        set_state(w, id, DOWN, tr_err_text(&err));
        free(ask);
    }
}

/* ---- lengths ---- */

static void round_answered(struct round *r)
{
    if (--r->under_way > 0)
        return;
    if (r->w != NULL) {
        r->w->round = NULL;
        if (!r->failed)
            metric_set(&metric_notify, r->sum);
    }
    free(r);
}

static void on_length(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    struct round *r = ctx;

    (void)err;
    if (rc == TR_OK)
        r->sum += length;
    else if (rc != TR_NOT_FOUND)
        r->failed = true;
    round_answered(r);
}

static void ask_lengths(struct watch *w, uint64_t now)
{
    struct queue *const q = w->env.queue;
    struct round *r = calloc(1, sizeof *r);

    w->round_ms = now;
    if (r == NULL)
        return;
    *r = (struct round){.w = w, .under_way = 1}; /* held until all is asked */
    w->round = r;
    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++) {
        struct tr_op *op = NULL;

        r->under_way++;
        if (q->ops->length(q, topic_notify_number(i), on_length, r, &op, NULL) != TR_OK) {
            r->failed = true;
            r->under_way--;
        }
    }
    round_answered(r);
}

/* ---- the watch ---- */

static void on_tick(void *ctx)
{
    struct watch *w = ctx;
    const uint64_t now = loop_now_ms(w->env.loop);

    for (enum store_id id = 0; id < STORES; id++) {
        struct store *const s = &w->stores[id];
        const uint64_t up_every = id == MEDIA ? MEDIA_UP_EVERY_MS : UP_EVERY_MS;

        if (!s->outside)
            continue;
        if (s->asking != NULL && now - s->asked_ms >= SILENT_MS)
            set_state(w, id, DOWN, "no answer within 3 seconds");
        else if (s->asking == NULL &&
                 (s->asked_ms == 0 || now - s->asked_ms >= (s->state == UP ? up_every : DOWN_EVERY_MS)))
            ask_store(w, id, now);
    }
    if (w->lengths && w->round == NULL && (w->round_ms == 0 || now - w->round_ms >= LENGTHS_EVERY_MS))
        ask_lengths(w, now);
}

static void note(struct watch *w, enum store_id id, bool there, bool outside)
{
    w->stores[id].there = there;
    w->stores[id].outside = outside;
    w->stores[id].state = outside ? UNKNOWN : UP;
    if (there)
        metric_set(&metric_up[id], !outside);
}

enum tr_rc watch_start(const struct role_env *env, bool notify_lengths, struct watch **ret_watch, struct tr_err *err)
{
    struct watch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return tr_fail(err, TR_NOMEM, "watch");
    w->env = *env;
    w->lengths = notify_lengths && env->queue != NULL;
    note(w, BROKER, env->queue != NULL, env->queue != NULL && env->queue->ops->check != NULL);
    note(w, CATALOGUE, env->catalogue != NULL, env->catalogue != NULL && env->catalogue->ops->check != NULL);
    note(w, HISTORY, env->history != NULL, env->history != NULL && env->history->ops->check != NULL);
    note(w, REGISTRY, env->registry != NULL, env->registry != NULL && env->registry->ops->check != NULL);
    note(w, MEDIA, env->media != NULL, env->media != NULL && env->media->ops->check != NULL);
    if (timer_start(env->loop, 0, TICK_MS, on_tick, w, &w->tick) != TR_OK) {
        free(w);
        return tr_fail(err, TR_NOMEM, "watch");
    }
    if (w->lengths)
        metric_show(&metric_notify);
    *ret_watch = w;
    return TR_OK;
}

void watch_free(struct watch *w)
{
    if (w == NULL)
        return;
    timer_stop(w->tick);
    for (enum store_id id = 0; id < STORES; id++) {
        struct ask *const ask = w->stores[id].asking;

        if (ask == NULL)
            continue;
        ask->w = NULL;
        tr_op_cancel(ask->op); /* its callback frees it */
    }
    if (w->round != NULL)
        w->round->w = NULL;
    free(w);
}

bool watch_reached(const struct watch *w, bool causes, const char **ret_key, struct buf *why)
{
    bool reached = true, all = true;

    for (enum store_id id = 0; id < STORES; id++) {
        const struct store *const s = &w->stores[id];

        if (!s->there || s->state == UP)
            continue;
        buf_printf(why, "%s%s", all ? "" : ", ", names[id]);
        if (causes)
            buf_printf(why, " (%s)", s->state == UNKNOWN ? "not asked yet" : s->cause);
        all = false;
        if (id == REGISTRY || id == MEDIA)
            continue;
        if (reached)
            *ret_key = store_keys[id];
        reached = false;
    }
    return reached;
}
