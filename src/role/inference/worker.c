/*
 * worker - one inference role as a worker among others: its number, its queue, its record, the fence.
 *
 *   CONTROL     -> REGISTERING  on_control_declared
 *   REGISTERING -> NAMING       on_registered    the queue's name goes into the catalogue
 *   REGISTERING -> DECLARING    on_registered    it has written this name before: nobody waits for the catalogue
 *   NAMING      -> DECLARING    on_named
 *   DECLARING   -> SERVING      on_declared      consuming; not where it drains by now: only its record says so
 *   SERVING     -> SERVING      on_rejoined      the record was lost (FLUSHALL) while its time ran: the same number again
 *   SERVING     -> FENCED       fence            the record was not renewed before its time ended, or is gone
 *   FENCED      -> REGISTERING  on_beat          until it works
 *   any         -> LEAVING      worker_leave     the record is removed, once what is under way has ended
 *
 * A worker without a valid record must not consume: another may have taken its number and queue (contract 3.5).  What
 * it generates is finished: the first write wins.
 *
 * While a worker drains it stays in SERVING, and its record says `draining`: nobody sends it anything, its queue is drained,
 * and its number is nobody else's until it has left.
 */
#include "role/inference/impl.h"

#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A queue that nobody has served for so long may have been removed (role/preprocess/drainer.c), and would be a new one. */
#define FORGOTTEN_MS 30000

/* The name is written again so often: a removal that was under way when this worker came, or a catalogue that lags, lost it. */
#define NAME_TTLS 3

enum stage { CONTROL, REGISTERING, NAMING, DECLARING, SERVING, FENCED, LEAVING };

struct worker {
    struct inference *r; /* NULL: the role is gone, free at the callback */
    enum stage stage;
    struct tr_op *op;
    struct registry_worker record;
    struct loop_timer *beat;
    struct registry_gap gap;
    uint32_t named;    /* the number whose queue's name was written; 0: none was */
    uint64_t named_ms; /* when it was asked for last */
    uint64_t asked_ms, valid_until_ms;
    uint64_t since_ms; /* its queue has been served since then; 0: never */
    bool refreshed;    /* the last renewal succeeded */
    bool registering;  /* the operation under way may end with a number */
    bool again;        /* the record is to be renewed as soon as the operation under way has ended */
    queue_on_message *on_control;
    inference_started *started; /* NULL once called */
    void *ctx;
};

static struct metric metric_fenced = METRIC(METRIC_COUNTER, "troupe_worker_fenced_total", NULL,
                                            "Times that a worker stopped consuming because its record had ended.");

static void on_registered(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err);
static void on_named(void *ctx, enum tr_rc rc, bool first, const char *value, const struct tr_err *err);
static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err);
static void step_remove(struct worker *w);
static void refresh(struct worker *w);

/* The first of the callback's lines: false: nobody is there any more. */
static bool called(struct worker *w)
{
    w->op = NULL;
    if (w->r != NULL)
        return true;
    free(w);
    return false;
}

/* In every callback but the removal's; false: it is over. */
static bool going_on(struct worker *w)
{
    if (!called(w))
        return false;
    if (w->stage == LEAVING)
        step_remove(w);
    return w->stage != LEAVING;
}

/* What the registry is told with each registration and renewal. */
static void report(struct worker *w)
{
    w->asked_ms = loop_now_ms(w->r->env.loop);
    w->record.load = HASH_COUNT(w->r->turns);
    w->record.age_ms = w->since_ms != 0 ? w->asked_ms - w->since_ms : 0;
}

static void take_number(struct worker *w, uint32_t number)
{
    if (number != w->record.number)
        w->since_ms = 0; /* another queue */
    w->record.number = number;
}

/* A step failed: at the start that is the end, later it is tried again at the next beat. */
static void step_failed(struct worker *w, enum tr_rc rc, const struct tr_err *err)
{
    inference_started *started = w->started;

    w->stage = FENCED;
    log_event(LOG_WARN, "worker.register", "character=%s rc=%s cause=%Q", w->r->character, tr_rc_name(rc),
              tr_err_text(err));
    w->started = NULL;
    if (started != NULL)
        started(w->ctx, rc, err);
}

static void step_register(struct worker *w)
{
    struct registry *reg = w->r->env.registry;
    struct tr_err err = {0};
    enum tr_rc rc;

    w->stage = REGISTERING;
    if (loop_now_ms(w->r->env.loop) >= w->valid_until_ms + FORGOTTEN_MS)
        w->since_ms = 0;
    report(w);
    w->registering = true;
    rc = reg->ops->worker_register(reg, &w->record, w->r->ttl_ms, on_registered, w, &w->op, &err);
    if (rc != TR_OK) {
        w->op = NULL;
        w->registering = false;
        step_failed(w, rc, &err);
    }
}

/* Whether the worker is still there or not. */
static void on_named_again(void *ctx, enum tr_rc rc, bool first, const char *value, const struct tr_err *err)
{
    (void)ctx, (void)value, (void)err;
    if (rc == TR_OK && first)
        log_event(LOG_WARN, "worker.named_again", "cause=%Q", "the name of its queue was lost");
}

/* First write wins, so a name that stands costs one statement. */
static void name_again(struct worker *w, uint64_t now)
{
    struct catalogue *c = w->r->env.catalogue;
    struct tr_op *op;
    char key[QUEUE_NAME_MAX + 16];

    w->named_ms = now;
    snprintf(key, sizeof key, "queue:%s", w->record.queue);
    (void)!c->ops->setting_put(c, key, "", on_named_again, NULL, &op, NULL);
}

static void step_declare(struct worker *w)
{
    /* one consumer at a time: the broker is the lease between this worker and who drains after it */
    const struct queue_spec spec = {.name = w->record.queue, .kind = QUEUE_DURABLE, .single_active = true};
    struct queue *q = w->r->env.queue;
    struct tr_err err = {0};
    enum tr_rc rc;

    w->stage = DECLARING;
    rc = q->ops->declare(q, &spec, on_declared, w, &w->op, &err);
    if (rc != TR_OK) {
        w->op = NULL;
        step_failed(w, rc, &err);
    }
}

static void step_name(struct worker *w)
{
    struct catalogue *c = w->r->env.catalogue;
    struct tr_err err = {0};
    char key[QUEUE_NAME_MAX + 16];
    enum tr_rc rc;

    w->stage = NAMING;
    w->named_ms = loop_now_ms(w->r->env.loop);
    snprintf(key, sizeof key, "queue:%s", w->record.queue);
    rc = c->ops->setting_put(c, key, "", on_named, w, &w->op, &err);
    if (rc != TR_OK) {
        w->op = NULL;
        step_failed(w, rc, &err);
    }
}

/*
 * The queue's name is known outside the registry before there is a queue (contract 11.13).  One that it wrote before is written
 * again without waiting: with a record, and nobody consuming until the catalogue answers, its chats would stand still.
 */
static void on_registered(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    struct worker *w = ctx;

    w->registering = false;
    if (rc == TR_OK)
        take_number(w, number); /* also one that is leaving: it removes this record */
    if (!going_on(w))
        return;
    if (rc != TR_OK) {
        step_failed(w, rc, err);
        return;
    }
    w->valid_until_ms = w->asked_ms + w->r->ttl_ms;
    topic_inference(w->r->character, number, w->record.queue);
    if (number != w->named) {
        step_name(w);
        return;
    }
    name_again(w, loop_now_ms(w->r->env.loop));
    step_declare(w);
}

static void on_named(void *ctx, enum tr_rc rc, bool first, const char *value, const struct tr_err *err)
{
    struct worker *w = ctx;

    (void)first, (void)value;
    if (!going_on(w))
        return;
    if (rc == TR_OK) {
        w->named = w->record.number;
        step_declare(w);
    } else {
        step_failed(w, rc, err);
    }
}

static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct worker *w = ctx;
    struct queue *q;
    inference_started *started;
    struct tr_err mine = {0};

    if (!going_on(w))
        return;
    q = w->r->env.queue;
    if (rc == TR_OK && !w->record.draining) {
        err = &mine;
        rc = q->ops->consume(q, w->record.queue, w->r->prefetch, inference_on_work, NULL, w->r, &w->r->consumer, &mine);
    }
    if (rc != TR_OK) {
        step_failed(w, rc, err);
        return;
    }
    w->stage = SERVING;
    w->refreshed = true;
    if (w->record.draining) { /* the record was written before */
        refresh(w);
        return;
    }
    if (w->since_ms == 0)
        w->since_ms = loop_now_ms(w->r->env.loop);
    log_event(LOG_INFO, "worker.serving", "character=%s number=%u engine=%s model=%Q slots=%u", w->r->character,
              w->record.number, w->record.engine, w->record.model, w->record.slots);
    started = w->started;
    w->started = NULL;
    if (started != NULL)
        started(w->ctx, TR_OK, NULL);
}

static void fence(struct worker *w, const char *cause)
{
    struct queue *q = w->r->env.queue;

    metric_add(&metric_fenced, 1);
    log_event(LOG_WARN, "worker.fenced", "character=%s number=%u cause=%Q", w->r->character, w->record.number, cause);
    if (w->r->consumer != NULL)
        q->ops->consumer_stop(q, w->r->consumer);
    w->r->consumer = NULL;
    w->stage = FENCED;
    inference_hand_back(w->r, false);
}

/* The record has changed while it was being written. */
static void refresh_again(struct worker *w)
{
    if (w->again)
        refresh(w);
}

/* The record was lost before its time: others can't have taken the queue yet.  The same number again, and nothing happened. */
static void on_rejoined(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    struct worker *w = ctx;

    (void)err;
    w->registering = false;
    if (rc == TR_OK && w->stage == LEAVING)
        take_number(w, number); /* this record is removed */
    if (!going_on(w) || w->stage != SERVING)
        return;
    w->refreshed = rc == TR_OK;
    if (rc != TR_OK)
        return; /* again at the next beat, until the time ends */
    if (number != w->record.number) {
        take_number(w, number); /* the next registration finds it */
        fence(w, "the record is another's");
        return;
    }
    w->valid_until_ms = w->asked_ms + w->r->ttl_ms;
    log_event(LOG_INFO, "worker.rejoined", "character=%s number=%u", w->r->character, number);
    refresh_again(w);
}

static void rejoin(struct worker *w)
{
    struct registry *reg = w->r->env.registry;

    report(w);
    w->registering = true;
    if (reg->ops->worker_register(reg, &w->record, w->r->ttl_ms, on_rejoined, w, &w->op, NULL) != TR_OK) {
        w->op = NULL;
        w->registering = w->refreshed = false;
    }
}

static void on_refreshed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct worker *w = ctx;

    if (!going_on(w) || w->stage != SERVING)
        return;
    w->refreshed = rc == TR_OK;
    if (rc == TR_OK)
        w->valid_until_ms = w->asked_ms + w->r->ttl_ms;
    else if (rc != TR_NOT_FOUND)
        log_event(LOG_WARN, "worker.refresh", "character=%s number=%u rc=%s cause=%Q", w->r->character,
                  w->record.number, tr_rc_name(rc), tr_err_text(err));
    if (rc == TR_NOT_FOUND)
        rejoin(w);
    else
        refresh_again(w);
}

static void refresh(struct worker *w)
{
    struct registry *reg = w->r->env.registry;

    w->again = false;
    report(w);
    if (reg->ops->worker_refresh(reg, &w->record, w->r->ttl_ms, on_refreshed, w, &w->op, NULL) != TR_OK) {
        w->op = NULL;
        w->refreshed = false;
    }
}

bool worker_may_take(struct worker *w)
{
    if (w->stage == SERVING && loop_now_ms(w->r->env.loop) >= w->valid_until_ms)
        fence(w, "its time was over when a message came: this process was stopped, or the loop stood still");
    return w->stage == SERVING;
}

/* Memory in use, in MiB; 0: not known. */
static uint64_t rss_mib(void)
{
    FILE *const f = fopen("/proc/self/statm", "re");
    unsigned long total = 0, resident = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
}

/* A ninth of the record's time has passed: renewed every third of it, or at the next beat where that failed. */
static void on_beat(void *ctx)
{
    struct worker *w = ctx;
    const uint64_t now = loop_now_ms(w->r->env.loop), third = w->r->ttl_ms / 3;

    if (w->stage == SERVING && now - w->named_ms >= NAME_TTLS * w->r->ttl_ms)
        name_again(w, now);
    if (w->r->rss_max_mib != 0 && rss_mib() > w->r->rss_max_mib)
        inference_trouble(w->r, "this process takes more memory than TROUPE_WORKER_RSS_MAX_MIB");
    if (w->stage == SERVING && now >= w->valid_until_ms) {
        fence(w, "the record could not be renewed in time");
        tr_op_cancel(w->op);
    } else if (w->stage == SERVING && w->op == NULL && (!w->refreshed || now - w->asked_ms + third / 6 >= third)) {
        refresh(w);
    } else if (w->stage == FENCED && w->op == NULL && w->started == NULL && !w->r->draining) {
        step_register(w);
    }
}

/* The registry may be another one, or one that was emptied. */
static void on_gap(void *ctx)
{
    struct worker *w = ctx;

    if (w->stage == SERVING && w->op == NULL)
        refresh(w);
    else if (w->stage == SERVING)
        w->again = true;
    else if (w->stage == FENCED && w->op == NULL && w->started == NULL && !w->r->draining)
        step_register(w);
}

static void on_control_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct worker *w = ctx;
    struct queue *q;
    struct tr_err mine = {0};

    if (!going_on(w))
        return;
    q = w->r->env.queue;
    if (rc == TR_OK) {
        err = &mine;
        rc = q->ops->consume(q, TOPIC_CONTROL, 0, w->on_control, NULL, w->r, &w->r->control, &mine);
    }
    if (rc == TR_OK)
        step_register(w);
    else
        step_failed(w, rc, err);
}

static void describe(struct worker *w)
{
    const struct engine_info *info = w->r->engines[0]->ops->info(w->r->engines[0]);
    struct registry_worker *rec = &w->record;
    uint32_t weight = 1;

    while (weight <= info->slots / 2)
        weight *= 2; /* a power of two, fixed at registration (contract 11.12) */
    strcpy(rec->character, w->r->character);
    strncpy(rec->id, w->r->env.instance, sizeof rec->id - 1);
    strncpy(rec->engine, info->engine, sizeof rec->engine - 1);
    strncpy(rec->model, info->model, sizeof rec->model - 1);
    strncpy(rec->device, info->device, sizeof rec->device - 1);
    rec->slots = info->slots;
    rec->context_tokens = info->context_tokens;
    rec->weight = weight;
}

enum tr_rc worker_start(struct inference *r, queue_on_message *on_control, inference_started *started, void *ctx,
                        struct tr_err *err)
{
    const struct queue_spec spec = {.name = TOPIC_CONTROL, .kind = QUEUE_FANOUT};
    struct worker *w = calloc(1, sizeof *w);
    const uint64_t beat = r->ttl_ms / 9;
    enum tr_rc rc;

    if (w == NULL)
        return tr_fail(err, TR_NOMEM, "worker");
    w->r = r;
    w->on_control = on_control;
    w->started = started;
    w->ctx = ctx;
    describe(w);
    rc = timer_start(r->env.loop, beat, beat, on_beat, w, &w->beat);
    if (rc == TR_OK)
        rc = r->env.queue->ops->declare(r->env.queue, &spec, on_control_declared, w, &w->op, err);
    if (rc != TR_OK) {
        timer_stop(w->beat);
        free(w);
        return rc;
    }
    w->gap = (struct registry_gap){.fn = on_gap, .ctx = w};
    registry_gap_add(r->env.registry, &w->gap);
    r->worker = w;
    return TR_OK;
}

void worker_drain(struct worker *w)
{
    w->record.draining = true;
    if (w->stage != SERVING)
        return;
    if (w->op == NULL)
        refresh(w);
    else
        w->again = true;
}

static void on_removed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct worker *w = ctx;

    if (!called(w))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) /* it ends by itself */
        log_event(LOG_WARN, "worker.remove", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    inference_left(w->r);
}

static void step_remove(struct worker *w)
{
    struct registry *reg = w->r->env.registry;

    if (w->record.number == 0 || reg->ops->worker_remove(reg, &w->record, on_removed, w, &w->op, NULL) != TR_OK) {
        w->op = NULL;
        inference_left(w->r);
    }
}

void worker_leave(struct worker *w)
{
    if (w->stage == LEAVING)
        return;
    w->stage = LEAVING;
    timer_stop(w->beat);
    w->beat = NULL;
    if (w->op == NULL)
        step_remove(w);
    else if (!w->registering) /* that one's end says what there is to remove */
        tr_op_cancel(w->op);
}

void worker_free(struct worker *w)
{
    struct tr_op *op;

    if (w == NULL)
        return;
    timer_stop(w->beat);
    w->beat = NULL;
    registry_gap_remove(w->r->env.registry, &w->gap);
    w->r->worker = NULL;
    w->r = NULL;
    op = w->op;
    if (op != NULL)
        tr_op_cancel(op); /* its callback frees it */
    else
        free(w);
}
