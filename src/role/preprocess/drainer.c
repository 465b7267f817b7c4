/*
 * drainer - see drainer.h.  A look is one chain of operations:
 *
 *   IDLE     -> NAMES     on_tick       the names known, from the catalogue
 *   NAMES    -> LIVING    on_names      one reading of the registry for each character among them
 *   LIVING   -> LIVING    on_living     the next character; its lanes are told who lives
 *   LIVING   -> IDLE      on_living     the last one
 *   any      -> IDLE      look_failed   a store does not answer: all lanes stay as they are
 */
#include "role/preprocess/drainer.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#define NAMES_PREFIX "queue:"
#define QUEUES_PREFIX "inference."
#define PREFETCH 256

enum lane_state {
    LANE_ALIVE,     /* its worker serves it, or was not missed yet */
    LANE_MISSED,    /* at one look */
    LANE_DECLARING, /* to be consumed */
    LANE_DRAINING,
    LANE_REMOVING, /* nobody's and empty for long: its queue goes, then its name, then it is looked whether that was right */
};

struct lane { /* one worker's queue */
    char name[QUEUE_NAME_MAX + 1], character[CHARACTER_ID_MAX + 1];
    struct drainer *d; /* NULL: gone, free at the callback */
    enum lane_state state;
    struct queue_consumer *consumer;
    struct tr_op *op;
    uint64_t since_ms; /* DRAINING: nothing has come out of it since, nor was its worker there */
    bool known, asked;
    bool living, leaving; /* its worker serves it; finishes what it holds and serves it no more */
    UT_hash_handle hh;
};

struct drainer {
    struct role_env env;
    uint64_t ttl_ms, forget_ms;
    queue_on_message *on_message;
    void *ctx;
    struct loop_timer *tick;
    struct lane *lanes;
    struct look *look; /* NULL: idle */
    bool hurry;        /* look once more when this look ends, and miss nobody twice */
};

struct look {
    struct drainer *d; /* NULL: gone, free at the callback */
    struct tr_op *op;
    char character[CHARACTER_ID_MAX + 1]; /* whose workers are being read */
    size_t pool;                          /* how many of the shared pool serve */
    bool hurry;                           /* nobody need be missed twice */
};

static struct metric metric_lanes =
    METRIC(METRIC_GAUGE, "troupe_drained_queues", NULL, "Queues of workers that are gone, being drained.");
static struct metric metric_drained = METRIC(METRIC_COUNTER, "troupe_drain_begun_total", NULL,
                                             "Times that the queue of a worker that is gone was taken over.");

/* ---- lanes ---- */

static void lane_stop(struct lane *lane)
{
    struct queue *const q = lane->d->env.queue;

    if (lane->consumer != NULL) {
        q->ops->consumer_stop(q, lane->consumer);
        log_event(LOG_INFO, "drain.ended", "queue=%s", lane->name);
    }
    lane->consumer = NULL;
}

static void lane_free(struct lane *lane)
{
    struct tr_op *const op = lane->op;

    lane_stop(lane);
    HASH_DEL(lane->d->lanes, lane);
    lane->d = NULL;
    if (op != NULL)
        tr_op_cancel(op); /* its callback frees it */
    else
        free(lane);
}

/* The first lines of a lane's callback: false: nobody is there any more. */
static bool lane_called(struct lane *lane)
{
    lane->op = NULL;
    if (lane->d != NULL)
        return true;
    free(lane);
    return false;
}

/* One that is put back comes again and again: as long as that goes on, the queue is not empty. */
static void on_drained(void *ctx, const struct queue_incoming *msg)
{
    struct lane *const lane = ctx;
    struct drainer *const d = lane->d;

    lane->since_ms = loop_now_ms(d->env.loop);
    d->on_message(d->ctx, msg);
}

static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct lane *const lane = ctx;
    struct queue *q;

    if (!lane_called(lane) || lane->state != LANE_DECLARING)
        return;
    q = lane->d->env.queue;
    if (rc == TR_OK)
        rc = q->ops->consume(q, lane->name, PREFETCH, on_drained, NULL, lane, &lane->consumer, NULL);
    if (rc != TR_OK) {
        log_event(LOG_WARN, "drain.failed", "queue=%s rc=%s cause=%Q", lane->name, tr_rc_name(rc), tr_err_text(err));
        lane->state = LANE_MISSED; /* again at the next look */
        return;
    }
    lane->state = LANE_DRAINING;
    lane->since_ms = loop_now_ms(lane->d->env.loop);
    metric_add(&metric_drained, 1);
    log_event(LOG_INFO, "drain.begun", "queue=%s", lane->name);
}

static void lane_declare(struct lane *lane)
{
    struct queue *const q = lane->d->env.queue;
    const struct queue_spec spec = {.name = lane->name, .kind = QUEUE_DURABLE, .single_active = true};

    lane->state = LANE_DECLARING;
    if (q->ops->declare(q, &spec, on_declared, lane, &lane->op, NULL) != TR_OK) {
        lane->op = NULL;
        lane->state = LANE_MISSED;
    }
}

static void on_name_back(void *ctx, enum tr_rc rc, bool first, const char *value, const struct tr_err *err)
{
    struct lane *const lane = ctx;

    (void)rc, (void)first, (void)value, (void)err; /* its worker writes it again, too */
    if (lane_called(lane))
        lane_free(lane); /* known again by the next look */
}

/* A worker that came under this number between the two removals has declared it anew: then the name stands. */
static void on_looked(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    struct lane *const lane = ctx;
    struct catalogue *c;
    char key[QUEUE_NAME_MAX + 16];

    (void)length, (void)err;
    if (!lane_called(lane))
        return;
    c = lane->d->env.catalogue;
    snprintf(key, sizeof key, NAMES_PREFIX "%s", lane->name);
    if (rc == TR_NOT_FOUND || c->ops->setting_put(c, key, "", on_name_back, lane, &lane->op, NULL) != TR_OK) {
        lane->op = NULL;
        lane_free(lane);
    }
}

static void on_name_removed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct lane *const lane = ctx;
    struct queue *q;

    (void)rc, (void)err; /* a name that stays is looked at again */
    if (!lane_called(lane))
        return;
    q = lane->d->env.queue;
    rc = q->ops->length(q, lane->name, on_looked, lane, &lane->op, NULL);
    if (rc != TR_OK) {
        lane->op = NULL;
        on_looked(lane, rc, 0, NULL);
    }
}

static void on_removed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct lane *const lane = ctx;
    struct catalogue *c;
    char key[QUEUE_NAME_MAX + 16];

    (void)err;
    if (!lane_called(lane))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) { /* not empty, or somebody consumes it: it goes on */
        lane_declare(lane);
        return;
    }
    log_event(LOG_INFO, "drain.forgotten", "queue=%s", lane->name);
    c = lane->d->env.catalogue;
    snprintf(key, sizeof key, NAMES_PREFIX "%s", lane->name);
    if (c->ops->setting_remove(c, key, on_name_removed, lane, &lane->op, NULL) != TR_OK) {
        lane->op = NULL;
        lane_free(lane);
    }
}

static void lane_forget(struct lane *lane)
{
    struct queue *const q = lane->d->env.queue;
    enum tr_rc rc;

    lane_stop(lane);
    lane->state = LANE_REMOVING;
    rc = q->ops->remove(q, lane->name, on_removed, lane, &lane->op, NULL);
    if (rc != TR_OK) {
        lane->op = NULL;
        on_removed(lane, rc, NULL);
    }
}

/* Its worker serves it, leaves, or is gone; `others`: somebody is there to drain to; `hurry`: it need not be missed twice. */
static void lane_told(struct lane *lane, bool others, bool hurry)
{
    struct drainer *const d = lane->d;

    if (lane->living) {
        if (lane->state == LANE_DRAINING)
            lane_stop(lane);
        if (lane->op == NULL || lane->state == LANE_DECLARING)
            lane->state = LANE_ALIVE; /* a declaration under way ends for nobody */
    } else if (lane->state == LANE_ALIVE && !((lane->leaving || hurry) && others)) {
        lane->state = LANE_MISSED;
    } else if (lane->state <= LANE_MISSED && others && lane->op == NULL) {
        lane_declare(lane);
    } else if (lane->state == LANE_DRAINING && lane->leaving) {
        lane->since_ms = loop_now_ms(d->env.loop); /* it still holds some of its messages */
    } else if (lane->state == LANE_DRAINING && loop_now_ms(d->env.loop) - lane->since_ms >= d->forget_ms) {
        lane_forget(lane);
    }
}

/* ---- a look ---- */

static void look_start(struct drainer *d);

static void look_end(struct look *look)
{
    struct drainer *const d = look->d;
    size_t draining = 0;

    for (const struct lane *lane = d->lanes; lane != NULL; lane = lane->hh.next)
        draining += lane->state == LANE_DRAINING;
    metric_set(&metric_lanes, draining);
    d->look = NULL;
    free(look);
    if (d->hurry)
        look_start(d);
}

static void look_failed(struct look *look, const char *what, enum tr_rc rc, const struct tr_err *err)
{
    log_event(LOG_DEBUG, "drain.look", "what=%s rc=%s cause=%Q", what, tr_rc_name(rc), tr_err_text(err));
    look_end(look);
}

static void look_next(struct look *look);

static void on_living(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct look *const look = ctx;
    struct lane *lane, *next;
    size_t serving = 0;

    look->op = NULL;
    if (look->d == NULL) {
        free(look);
        return;
    }
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        look_failed(look, "registry", rc, err);
        return;
    }
    n = rc == TR_OK ? n : 0;
    for (size_t i = 0; i < n; i++)
        serving += !list[i].draining;
    if (strcmp(look->character, "any") == 0)
        look->pool = serving;
    HASH_ITER (hh, look->d->lanes, lane, next) {
        if (strcmp(lane->character, look->character) != 0)
            continue;
        lane->asked = true;
        lane->living = lane->leaving = false;
        for (size_t i = 0; i < n; i++) {
            const bool here = strcmp(list[i].queue, lane->name) == 0;

            lane->living |= here && !list[i].draining;
            lane->leaving |= here && list[i].draining;
        }
        lane_told(lane, serving > 0 || look->pool > 0, look->hurry);
    }
    look_next(look);
}

static void ask_for(struct look *look, const char *character)
{
    struct registry *const reg = look->d->env.registry;
    struct tr_err err = {0};
    enum tr_rc rc;

    snprintf(look->character, sizeof look->character, "%s", character);
    rc = reg->ops->workers(reg, look->character, on_living, look, &look->op, &err);
    if (rc != TR_OK) {
        look->op = NULL;
        look_failed(look, "registry", rc, &err);
    }
}

/* The workers of a character that was not asked for yet. */
static void look_next(struct look *look)
{
    for (const struct lane *lane = look->d->lanes; lane != NULL; lane = lane->hh.next)
        if (!lane->asked) {
            ask_for(look, lane->character);
            return;
        }
    look_end(look);
}

/* "inference.<character>.<number>" */
static void know(struct drainer *d, const char *name)
{
    const char *const character = name + strlen(QUEUES_PREFIX), *const dot = strrchr(name, '.');
    struct lane *lane;

    if (strncmp(name, QUEUES_PREFIX, strlen(QUEUES_PREFIX)) != 0 || strlen(name) > QUEUE_NAME_MAX || dot < character ||
        (size_t)(dot - character) > CHARACTER_ID_MAX)
        return;
    HASH_FIND_STR(d->lanes, name, lane);
    if (lane == NULL) {
        lane = calloc(1, sizeof *lane);
        if (lane == NULL)
            return;
        lane->d = d;
        strcpy(lane->name, name);
        memcpy(lane->character, character, (size_t)(dot - character));
        HASH_ADD_STR(d->lanes, name, lane);
    }
    lane->known = true;
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *keys, size_t n, const struct tr_err *err)
{
    struct look *const look = ctx;
    struct drainer *const d = look->d;
    struct lane *lane, *next;

    look->op = NULL;
    if (d == NULL) {
        free(look);
        return;
    }
    if (rc != TR_OK) {
        look_failed(look, "catalogue", rc, err);
        return;
    }
    HASH_ITER (hh, d->lanes, lane, next)
        lane->known = lane->asked = false;
    for (size_t i = 0; i < n; i++)
        know(d, keys[i] + strlen(NAMES_PREFIX));
    HASH_ITER (hh, d->lanes, lane, next)
        if (!lane->known && lane->op == NULL) /* another preprocess has removed it */
            lane_free(lane);
    if (d->lanes == NULL)
        look_end(look);
    else
        ask_for(look, "any"); /* the pool first: it takes over for all */
}

static void look_start(struct drainer *d)
{
    struct catalogue *const c = d->env.catalogue;
    struct look *const look = calloc(1, sizeof *look);

    if (look == NULL)
        return;
    look->hurry = d->hurry;
    d->hurry = false;
    look->d = d;
    d->look = look;
    if (c->ops->settings(c, NAMES_PREFIX, on_names, look, &look->op, NULL) != TR_OK) {
        look->op = NULL;
        look_end(look);
    }
}

static void on_tick(void *ctx)
{
    struct drainer *const d = ctx;

    if (d->look == NULL)
        look_start(d);
}

void drainer_hurry(struct drainer *d)
{
    d->hurry = true;
    if (d->look == NULL)
        look_start(d);
}

enum tr_rc drainer_new(const struct role_env *env, uint64_t ttl_ms, uint64_t forget_ms, queue_on_message *on_message,
                       void *ctx, struct drainer **ret_drainer, struct tr_err *err)
{
    struct drainer *const d = calloc(1, sizeof *d);
    const uint64_t every = ttl_ms / 3 > 0 ? ttl_ms / 3 : 1;

    if (d == NULL)
        return tr_fail(err, TR_NOMEM, "drainer");
    *d = (struct drainer){.env = *env, .ttl_ms = ttl_ms, .forget_ms = forget_ms, .on_message = on_message, .ctx = ctx};
    if (timer_start(env->loop, every, every, on_tick, d, &d->tick) != TR_OK) {
        free(d);
        return tr_fail(err, TR_NOMEM, "drainer");
    }
    *ret_drainer = d;
    return TR_OK;
}

void drainer_free(struct drainer *d)
{
    struct lane *lane, *next;

    if (d == NULL)
        return;
    timer_stop(d->tick);
    if (d->look != NULL) {
        struct tr_op *const op = d->look->op;

        d->look->d = NULL;
        tr_op_cancel(op); /* its callback frees it */
    }
    HASH_ITER (hh, d->lanes, lane, next)
        lane_free(lane);
    free(d);
}
