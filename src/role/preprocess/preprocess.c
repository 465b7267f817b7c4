/*
 * preprocess - cleans a user's text, finds its language and personal data, and chooses the worker.
 * comes from: role/chat, [incoming]
 * goes to:    inference, [inference:<character>.<n>]
 *
 * One job:
 *   OPENING -> ROUTING     on_key         WORK with text: its notes are made; without: at once
 *   ROUTING -> PLACING     job_route      one of several workers: the registry knows the chat's place
 *   ROUTING -> PUBLISHING  job_route      parked meanwhile, if the router does not know the workers yet
 *   PLACING -> PUBLISHING  on_chosen
 *   PUBLISHING -> ROUTING  on_published   the worker's queue refused or did not answer: again after a pause
 *   PUBLISHING -> (end)    on_published   confirmed: acknowledged
 *   any -> (end)           job_end
 *
 * A text that can't be read is dead-lettered, but its turn goes on without notes: inference reads the history itself
 * and settles it, so no turn stays without an answer (contract 11.4).  Messages of a chat overtake each other only
 * where one had to be published again; inference keeps the order in any case (contract 11.2).
 */
#include "role/preprocess/preprocess.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "domain/notes.h"
#include "role/common/keyring.h"
#include "role/common/story.h"
#include "role/preprocess/drainer.h"
#include "role/preprocess/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define PREFETCH 1024 /* one is in hand until the worker's queue has it for good, or the reply is out */
#define TRIES_MAX 6   /* publishing; then the message is put back */
#define PAUSE_FIRST_MS 20
#define NO_WORKER_MS 300 /* put back for so long */
#define NO_WORKER_LOG_MS 10000
#define TROUBLE_MS 500
#define REFUSED_MAX 4

enum state { OPENING, ROUTING, PLACING, PUBLISHING };

struct job {
    struct preprocess *r; /* NULL: the role is gone, free at the callback */
    struct queue_delivery *delivery;
    struct envelope env;
    struct buf sealed; /* what env.sealed points to, once notes are made */
    enum state state;
    struct tr_op *op;
    unsigned tries, refused;       /* refused: it was drained, and the choice is the queue that it came from */
    uint64_t due_ms;               /* ROUTING: not before; 0: at once */
    char from[QUEUE_NAME_MAX + 1]; /* drained out of this worker's queue; "": it is new */
    bool parked;                   /* ROUTING: waits for the router, or for due_ms */
    struct tr_err unread;          /* rc set: dead-letter it with this cause once its turn has gone on */
    struct job *prev, *next;
};

struct preprocess {
    struct role_env env;
    struct router *router;
    struct drainer *drainer;
    struct queue_consumer *consumer;
    struct job *jobs;
    size_t in_hand;
    struct start *starting;
    struct loop_timer *tick; /* runs while jobs wait for their time */
    bool ticking;
    uint64_t no_worker_logged_ms;
    struct loop_timer *drain_timer;
    bool draining;
    void (*drained)(void *ctx);
    void *drained_ctx;
};

struct start {
    struct preprocess *r; /* NULL: the role is gone */
    struct tr_op *op;
    preprocess_started *started;
    void *ctx;
};

#define TICK_MS 20

static struct metric metric_done =
    METRIC(METRIC_COUNTER, "troupe_preprocess_total", NULL, "Messages sent on to a worker.");
static struct metric metric_unread = METRIC(METRIC_COUNTER, "troupe_preprocess_unread_total", NULL,
                                            "Messages that could not be read and were dead-lettered.");
static struct metric metric_drained =
    METRIC(METRIC_COUNTER, "troupe_drained_total", NULL, "Messages taken out of the queues of workers that are gone.");
static struct metric metric_no_worker =
    METRIC(METRIC_COUNTER, "troupe_preprocess_no_worker_total", NULL, "Messages put back because no worker was alive.");

static void job_free(struct job *job)
{
    buf_release(&job->sealed);
    free(job);
}

enum settle { SETTLE_ACK, SETTLE_LATER };

static void job_end(struct job *job, enum settle settle, uint64_t delay_ms)
{
    struct preprocess *r = job->r;
    struct queue *q = r->env.queue;

    if (settle == SETTLE_LATER)
        q->ops->retry(q, job->delivery, false, delay_ms, NULL);
    else if (job->unread.rc != TR_OK)
        q->ops->dead_letter(q, job->delivery, tr_err_text(&job->unread));
    else
        q->ops->ack(q, job->delivery);
    DL_DELETE(r->jobs, job);
    job_free(job);
    if (--r->in_hand == 0 && r->draining)
        timer_again(r->drain_timer, 0);
}

static void log_job(enum log_level level, const char *ev, const struct job *job, enum tr_rc rc, const char *cause)
{
    char chat[UUID_TEXT], turn[UUID_TEXT];

    if (!log_on(level))
        return;
    uuid_format(&job->env.chat, chat);
    uuid_format(&job->env.turn, turn);
    log_event(level, ev, "chat=%s turn=%s trace=%s rc=%s cause=%Q", chat, turn, job->env.trace, tr_rc_name(rc), cause);
}

static void park(struct job *job, uint64_t due_ms)
{
    struct preprocess *r = job->r;

    job->parked = true;
    job->due_ms = due_ms;
    if (due_ms != 0 && !r->ticking) {
        r->ticking = true;
        timer_again(r->tick, TICK_MS);
    }
}

static void job_route(struct job *job);

static void publish_failed(struct job *job, enum tr_rc rc, const struct tr_err *err)
{
    struct preprocess *r = job->r;

    if (rc == TR_INVALID && job->env.sealed.len > 0) { /* too large for an envelope: inference reads the history */
        job->env.sealed = (struct slice){0};
        job_route(job);
        return;
    }
    log_job(LOG_DEBUG, "preprocess.again", job, rc, tr_err_text(err));
    job->env.again = job->env.again || rc == TR_UNCERTAIN; /* it may be on its way */
    if (rc == TR_NOT_FOUND)
        router_doubt(r->router, job->env.character);
    if (++job->tries >= TRIES_MAX || r->draining) {
        log_job(LOG_WARN, "preprocess.put_back", job, rc, tr_err_text(err));
        job_end(job, SETTLE_LATER, TROUBLE_MS);
        return;
    }
    job->state = ROUTING;
    park(job, loop_now_ms(r->env.loop) + ((uint64_t)PAUSE_FIRST_MS << job->tries));
}

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct job *job = ctx;

    job->op = NULL;
    if (job->r == NULL) {
        job_free(job);
        return;
    }
    if (rc != TR_OK) {
        publish_failed(job, rc, err);
        return;
    }
    metric_add(&metric_done, 1);
    fault_point("preprocess.published");
    job_end(job, SETTLE_ACK, 0);
}

/* One line for all that wait, now and then. */
static void log_no_worker(const struct job *job, enum tr_rc rc)
{
    struct preprocess *r = job->r;
    const uint64_t now = loop_now_ms(r->env.loop);

    if (r->no_worker_logged_ms != 0 && now - r->no_worker_logged_ms < NO_WORKER_LOG_MS)
        return;
    r->no_worker_logged_ms = now;
    log_job(LOG_WARN, "preprocess.no_worker", job, rc,
            rc == TR_NOT_FOUND ? "no worker is alive" : "the registry does not answer");
}

static void job_publish(struct job *job, const char *queue)
{
    struct preprocess *r = job->r;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (strcmp(queue, job->from) == 0 && job->refused++ >= REFUSED_MAX) {
        job_end(job, SETTLE_LATER, ROUTER_FRESH_MS); /* its worker is back: the message belongs to it, where it was */
    } else if (strcmp(queue, job->from) == 0) {      /* the list is older than that worker's end */
        job->state = ROUTING;
        router_doubt(r->router, job->env.character);
        park(job, loop_now_ms(r->env.loop) + ROUTER_FRESH_MS); /* or until a list is read */
    } else {
        job->state = PUBLISHING;
        rc = role_pass_on(&r->env, queue, &job->env, on_published, job, &job->op, &err);
        if (rc == TR_OK) {
            story_log(LOG_INFO, "turn.routed", &job->env, "queue=%s", queue);
        } else {
            job->op = NULL;
            publish_failed(job, rc, &err);
        }
    }
}

static void on_chosen(void *ctx, enum tr_rc rc, const char *queue)
{
    struct job *job = ctx;

    job->op = NULL;
    if (job->r == NULL)
        job_free(job);
    else if (rc != TR_OK)
        job_end(job, SETTLE_LATER, TROUBLE_MS);
    else
        job_publish(job, queue);
}

static void job_route(struct job *job)
{
    struct preprocess *r = job->r;
    char queue[QUEUE_NAME_MAX + 1];
    enum tr_rc rc = router_choose(r->router, &job->env.chat, job->env.character, queue, on_chosen, job, &job->op);

    job->state = ROUTING;
    job->parked = false;
    if (rc == TR_BUSY) {
        park(job, 0);
    } else if (rc != TR_OK) {
        metric_add(&metric_no_worker, 1);
        log_no_worker(job, rc);
        job_end(job, SETTLE_LATER, NO_WORKER_MS);
    } else if (job->op != NULL) {
        job->state = PLACING;
    } else {
        job_publish(job, queue);
    }
}

static void on_workers_read(void *ctx, bool leaving)
{
    struct preprocess *r = ctx;
    struct job *job, *next;

    if (leaving && r->drainer != NULL)
        drainer_hurry(r->drainer);
    DL_FOREACH_SAFE (r->jobs, job, next)
        if (job->parked && (job->due_ms == 0 || job->refused > 0))
            job_route(job);
}

static void on_tick(void *ctx)
{
    struct preprocess *r = ctx;
    const uint64_t now = loop_now_ms(r->env.loop);
    struct job *job, *next;

    r->ticking = false;
    DL_FOREACH_SAFE (r->jobs, job, next)
        if (job->parked && job->due_ms != 0 && now >= job->due_ms)
            job_route(job);
    DL_FOREACH (r->jobs, job)
        if (job->parked && job->due_ms != 0)
            r->ticking = true;
    if (r->ticking)
        timer_again(r->tick, TICK_MS);
}

/* What is in the text: notes, sealed again into job->sealed. */
static enum tr_rc make_notes(struct job *job, const struct seal_key *key, struct tr_err *err)
{
    const struct seal_bind bind = {.kind = SEAL_QUEUE,
                                   .chat = job->env.chat,
                                   .turn = job->env.turn,
                                   .part = PART_USER,
                                   .rev = job->env.rev,
                                   .role = SPEAKER_USER};
    struct buf plain = {0}, normalised = {0}, encoded = {0};
    struct notes notes;
    enum tr_rc rc;

    rc = seal_open(key, &bind, job->env.sealed.data, job->env.sealed.len, &plain, err);
    if (rc == TR_OK)
        rc = notes_decode(plain.data, plain.len, &notes, err);
    if (rc == TR_OK)
        rc = text_normalise((const char *)notes.raw.data, notes.raw.len, &normalised, err);
    if (rc == TR_OK) {
        const char *text = buf_str(&normalised);

        notes.rev = job->env.rev;
        notes.normalised = (struct slice){normalised.data, normalised.len};
        text_language(text, normalised.len, notes.language);
        notes.spans_n = text_personal(text, normalised.len, notes.spans, NOTES_SPANS_MAX);
        rc = notes_encode(&notes, &encoded);
    }
    if (rc == TR_OK)
        rc = seal_data(key, &bind, encoded.data, encoded.len, &job->sealed);
    buf_wipe(&plain);
    buf_wipe(&normalised);
    buf_wipe(&encoded);
    return rc;
}

static void job_unread(struct job *job, enum tr_rc rc, const struct tr_err *err)
{
    metric_add(&metric_unread, 1);
    log_job(LOG_WARN, "preprocess.unread", job, rc, tr_err_text(err));
    if (err != NULL)
        job->unread = *err;
    job->unread.rc = rc;
    job->env.sealed = (struct slice){0};
    job_route(job);
}

/* The key is there, or not. */
static void job_open(struct job *job, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct tr_err mine = {0};

    if (rc == TR_NOT_FOUND) { /* forgotten, or lost: inference, which reads the history, tells which */
        job->env.sealed = (struct slice){0};
        job_route(job);
        return;
    }
    if (rc == TR_OK) {
        rc = make_notes(job, key, &mine);
        err = &mine;
    }
    if (rc == TR_INVALID) {
        job_unread(job, rc, err);
    } else if (rc != TR_OK) {
        log_job(LOG_WARN, "preprocess.put_back", job, rc, tr_err_text(err));
        job_end(job, SETTLE_LATER, TROUBLE_MS);
    } else {
        job->env.sealed = (struct slice){job->sealed.data, job->sealed.len};
        job_route(job);
    }
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct job *job = ctx;

    job->op = NULL;
    if (job->r == NULL)
        job_free(job);
    else
        job_open(job, rc, key, err);
}

static void job_begin(struct job *job)
{
    struct keyring *keyring = job->r->env.keyring;
    const struct seal_key *key;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (job->env.sealed.len == 0 || job->from[0] != '\0') { /* nothing to read, or it was read before */
        job_route(job);
        return;
    }
    key = keyring_peek(keyring, &job->env.chat);
    if (key != NULL) {
        job_open(job, TR_OK, key, NULL);
        return;
    }
    rc = keyring_get(keyring, &job->env.chat, on_key, job, &job->op, &err);
    if (rc != TR_OK) {
        job->op = NULL;
        job_open(job, rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, NULL, &err);
    }
}

static void take(struct preprocess *r, const struct queue_incoming *msg, bool drained)
{
    struct queue *q = r->env.queue;
    struct job *job = calloc(1, sizeof *job);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (msg->delivery == NULL) { /* calls to work are durable */
        free(job);
        return;
    }
    if (job == NULL) {
        q->ops->retry(q, msg->delivery, false, TROUBLE_MS, NULL);
        return;
    }
    fault_point("preprocess.claimed");
    rc = envelope_decode(msg->body.data, msg->body.len, &job->env, &err);
    if (rc == TR_OK && job->env.kind != ENVELOPE_WORK)
        rc = tr_fail(&err, TR_INVALID, "not a call to work");
    if (rc == TR_OK && job->env.character[0] != '\0' &&
        !character_id_valid(job->env.character, strlen(job->env.character)))
        rc = tr_fail(&err, TR_INVALID, "character: not an id");
    if (rc != TR_OK) {
        metric_add(&metric_unread, 1);
        log_event(LOG_WARN, "preprocess.undecodable", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(&err));
        q->ops->dead_letter(q, msg->delivery, tr_err_text(&err));
        free(job);
        return;
    }
    if (!drained)
        story_taken(STORY_INCOMING, &job->env);
    job->r = r;
    job->delivery = msg->delivery;
    job->env.again = job->env.again || msg->again;
    if (drained)
        snprintf(job->from, sizeof job->from, "%s", msg->queue);
    DL_APPEND(r->jobs, job);
    r->in_hand++;
    job_begin(job);
}

static void on_message(void *ctx, const struct queue_incoming *msg)
{
    take(ctx, msg, false);
}

/* Out of the queue of a worker that is gone or leaves. */
static void on_drained(void *ctx, const struct queue_incoming *msg)
{
    metric_add(&metric_drained, 1);
    take(ctx, msg, true);
}

static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct start *s = ctx;
    struct preprocess *r = s->r;
    preprocess_started *started = s->started;
    void *started_ctx = s->ctx;
    struct tr_err mine = {0};

    s->op = NULL;
    free(s);
    if (r == NULL)
        return;
    r->starting = NULL;
    if (rc == TR_OK) {
        rc = r->env.queue->ops->consume(r->env.queue, TOPIC_INCOMING, PREFETCH, on_message, NULL, r, &r->consumer,
                                        &mine);
        err = &mine;
    }
    started(started_ctx, rc, err);
}

/* Give back what is in hand. */
static void hand_back(struct preprocess *r)
{
    struct queue *q = r->env.queue;
    struct job *job, *next;

    DL_FOREACH_SAFE (r->jobs, job, next) {
        struct tr_op *op = job->op;

        DL_DELETE(r->jobs, job);
        q->ops->retry(q, job->delivery, false, 0, NULL);
        job->r = NULL;
        if (op != NULL)
            tr_op_cancel(op); /* its callback frees the job */
        else
            job_free(job);
    }
    r->in_hand = 0;
}

/* Nothing is in hand any more, or the time is over. */
static void on_drain_timer(void *ctx)
{
    struct preprocess *r = ctx;
    void (*drained)(void *ctx) = r->drained;

    if (!r->draining || drained == NULL)
        return;
    hand_back(r);
    r->drained = NULL;
    drained(r->drained_ctx);
}

enum tr_rc preprocess_start(const struct role_env *env, preprocess_started *started, void *ctx,
                            struct preprocess **ret_preprocess, struct tr_err *err)
{
    const struct queue_spec spec = {.name = TOPIC_INCOMING, .kind = QUEUE_DURABLE};
    struct preprocess *r = calloc(1, sizeof *r);
    struct start *s = calloc(1, sizeof *s);
    uint64_t ttl_ms = 0;
    enum tr_rc rc;

    if (r == NULL || s == NULL) {
        rc = tr_fail(err, TR_NOMEM, "preprocess");
        goto out;
    }
    r->env = *env;
    *s = (struct start){.r = r, .started = started, .ctx = ctx};
    rc = config_u64(env->config, "TROUPE_WORKER_TTL_MS", &ttl_ms, err);
    if (rc == TR_OK)
        rc = router_new(env, on_workers_read, r, &r->router, err);
    if (rc == TR_OK)
        rc = drainer_new(env, ttl_ms, DRAINER_FORGET_MS, on_drained, r, &r->drainer, err);
    if (rc == TR_OK && (timer_start(env->loop, 0, 0, on_drain_timer, r, &r->drain_timer) != TR_OK ||
                        timer_start(env->loop, 0, 0, on_tick, r, &r->tick) != TR_OK))
        rc = tr_fail(err, TR_NOMEM, "preprocess");
    if (rc == TR_OK)
        rc = env->queue->ops->declare(env->queue, &spec, on_declared, s, &s->op, err);
    if (rc != TR_OK)
        goto out;
    r->starting = s;
    *ret_preprocess = r;
    r = NULL; /* the caller owns it now */
    s = NULL;
out:
    free(s);
    preprocess_free(r);
    return rc;
}

void preprocess_drain(struct preprocess *r, void (*drained)(void *ctx), void *ctx)
{
    uint64_t seconds = 20;
    struct tr_err err;

    r->draining = true;
    r->drained = drained;
    r->drained_ctx = ctx;
    r->env.queue->ops->consumer_stop(r->env.queue, r->consumer);
    r->consumer = NULL;
    drainer_free(r->drainer);
    r->drainer = NULL;
    if (config_u64(r->env.config, "TROUPE_DRAIN_SECONDS", &seconds, &err) != TR_OK)
        log_event(LOG_WARN, "preprocess.config", "cause=%Q", tr_err_text(&err));
    timer_again(r->drain_timer, r->in_hand == 0 ? 0 : seconds * 900); /* a tenth is left for closing */
}

void preprocess_free(struct preprocess *r)
{
    if (r == NULL)
        return;
    if (r->starting != NULL) {
        struct tr_op *op = r->starting->op;

        r->starting->r = NULL;
        tr_op_cancel(op);
    }
    if (r->consumer != NULL)
        r->env.queue->ops->consumer_stop(r->env.queue, r->consumer);
    drainer_free(r->drainer);
    hand_back(r);
    router_free(r->router);
    timer_stop(r->tick);
    timer_stop(r->drain_timer);
    free(r);
}
