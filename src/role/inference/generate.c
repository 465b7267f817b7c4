/*
 * generate - one reply from the engines, in order of fallback, and what is told of it meanwhile: deltas, statuses,
 * snapshots.  All of that is transient; the reply is not.
 *
 * The first delta leaves at once, later ones at least DELTA_MS apart with what came meanwhile.  What is unsent when the
 * reply is complete is not sent: the reply follows.  A status is sent where nothing else would show for a while.
 */
#include "role/inference/impl.h"

#include "base/fault.h"
#include "base/metrics.h"

#include <string.h>

#define DELTA_MS 6
#define THINKING_MS 20
#define POSITION_MS 250

static struct metric metric_ttft = METRIC(METRIC_HISTOGRAM, "troupe_turn_ttft_seconds", NULL,
                                          "From a turn's acceptance to the first text of its reply.");
static struct metric metric_queue = METRIC(METRIC_HISTOGRAM, "troupe_turn_queue_seconds", NULL,
                                           "From a turn's acceptance to the beginning of its generation.");
static struct metric metric_generation = METRIC(METRIC_HISTOGRAM, "troupe_turn_generation_seconds", NULL,
                                                "From the beginning of a reply's generation to its end.");
static struct metric metric_fallback =
    METRIC(METRIC_COUNTER, "troupe_engine_fallback_total", NULL, "Generations that went on to the next engine.");

static const struct engine_callbacks callbacks;

static struct envelope about(const struct turn *t, enum envelope_kind kind)
{
    struct envelope env = {.kind = kind,
                           .chat = t->work.chat,
                           .turn = t->key.turn,
                           .predecessor = t->predecessor,
                           .user = t->work.user,
                           .variant = t->key.variant,
                           .index = t->index};

    memcpy(env.character, t->work.character, sizeof env.character);
    memcpy(env.trace, t->work.trace, sizeof env.trace);
    return env;
}

void generate_status(struct turn *t, enum turn_state state, uint32_t position)
{
    struct envelope env = about(t, ENVELOPE_STATUS);

    env.state = state;
    env.position = position;
    t->status_shown = true;
    t->last_status_ms = loop_now_ms(t->r->env.loop);
    (void)role_publish(&t->r->env, topic_notify(&env.chat), &env, true, NULL, NULL, NULL, NULL);
}

/* Publish text[offset..offset+len) as a delta to `topic`. */
static void publish_delta(struct turn *t, const char *topic, size_t offset, size_t len, bool snapshot)
{
    const struct seal_bind bind = {.kind = SEAL_DELTA,
                                   .chat = t->work.chat,
                                   .turn = t->key.turn,
                                   .part = t->key.variant + PART_FIRST_VARIANT,
                                   .role = SPEAKER_CHARACTER};
    struct envelope env = about(t, ENVELOPE_DELTA);
    struct buf sealed = {0};

    env.attempt = t->attempt;
    env.offset = offset;
    env.snapshot = snapshot;
    if (seal_data(&t->seal, &bind, len > 0 ? (const void *)(t->text.data + offset) : "", len, &sealed) == TR_OK) {
        env.sealed = (struct slice){sealed.data, sealed.len};
        (void)role_publish(&t->r->env, topic, &env, true, NULL, NULL, NULL, NULL);
    }
    buf_release(&sealed);
}

void generate_snapshot(struct turn *t, const char *gateway)
{
    if (t->has_seal &&
        (!t->again || t->numbered)) /* without its number it may seem to be newer than the one before it */
        publish_delta(t, gateway, 0, t->text.len, true);
}

static void send_delta(struct turn *t)
{
    if (t->status_shown) {
        generate_status(t, STATE_WRITING, 0);
        t->status_shown = false;
    }
    publish_delta(t, topic_notify(&t->work.chat), t->sent, t->text.len - t->sent, false);
    t->sent = t->text.len;
    t->last_sent_ms = loop_now_ms(t->r->env.loop);
}

/* A held delta, or a status that is due. */
void generate_due(struct turn *t)
{
    if (t->text.len > t->sent)
        send_delta(t);
    else if (t->text.len == 0)
        generate_status(t, STATE_THINKING, 0);
}

static void on_start(void *ctx)
{
    struct turn *t = ctx;
    if (t->r == NULL)
        return;
    if (t->key.variant == 0)
        metric_observe_us(&metric_queue, wall_since_ms(t->accepted_ms) * 1000);
    story_log(LOG_DEBUG, "turn.begun", &t->work, "engine=%s", t->engine->ops->info(t->engine)->engine);
    inference_wake_at(t, loop_now_ms(t->r->env.loop) + (t->status_shown ? 0 : THINKING_MS));
}

static void on_position(void *ctx, uint32_t position)
{
    struct turn *t = ctx;

    if (t->r != NULL && (!t->status_shown || loop_now_ms(t->r->env.loop) - t->last_status_ms >= POSITION_MS))
        generate_status(t, STATE_QUEUED, position);
}

static void first_text(struct turn *t)
{
    const uint64_t wait = wall_since_ms(t->accepted_ms);

    t->ttft_ms = wait < UINT32_MAX ? (uint32_t)wait : UINT32_MAX;
    if (t->key.variant == 0) /* a regeneration's would tell the turn's age */
        metric_observe_us(&metric_ttft, wait * 1000);
    t->due_ms = 0;
    story_log(LOG_DEBUG, "turn.first_text", &t->work, "ttft_ms=%u", (unsigned)t->ttft_ms);
}

static void on_text(void *ctx, const char *text, size_t len)
{
    struct turn *t = ctx;
    uint64_t now;

    if (t->r == NULL || t->phase != TURN_GENERATING)
        return;
    now = loop_now_ms(t->r->env.loop);
    if (t->text.len == 0)
        first_text(t);
    buf_add(&t->text, text, len);
    if (t->sent == 0 || now - t->last_sent_ms >= DELTA_MS)
        send_delta(t);
    else if (t->due_ms == 0)
        inference_wake_at(t, t->last_sent_ms + DELTA_MS);
}

/* The engine failed.  Before any text the next one is tried. */
static void engine_failed(struct turn *t, enum tr_rc rc, const struct tr_err *err)
{
    if (t->text.len == 0 && !t->stop && t->engine_n + 1 < t->r->engines_n) {
        t->engine_n++;
        metric_add(&metric_fallback, 1);
        turn_log(t, LOG_WARN, "turn.fallback", rc, tr_err_text(err));
        generate_start(t);
        return;
    }
    if (rc == TR_BUSY && t->text.len == 0) {
        turn_finish(t, SETTLE_LATER, 1000, NULL);
        return;
    }
    if (rc != TR_INVALID && ++t->r->errors == t->r->errors_max)
        inference_trouble(t->r, "the engine failed too often in a row (TROUPE_WORKER_ERRORS_MAX)");
    turn_fail(t, "engine_failed", rc == TR_INVALID, rc, err);
}

static void on_done(void *ctx, enum tr_rc rc, const struct engine_result *result, const struct tr_err *err)
{
    struct turn *t = ctx;

    t->job = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    t->due_ms = 0;
    if (rc == TR_OK && t->text.failed)
        rc = TR_NOMEM;
    if (rc == TR_CANCELLED && !t->stop) { /* ours, or the engine is closing: as if it had never begun */
        turn_finish(t, SETTLE_LATER, 0, NULL);
    } else if (rc != TR_OK && rc != TR_CANCELLED) {
        engine_failed(t, rc, err);
    } else {
        if (result != NULL)
            t->usage = *result;
        metric_observe_us(&metric_generation, (loop_now_ms(t->r->env.loop) - t->begun_ms) * 1000);
        t->r->errors = 0;
        fault_point("inference.generated");
        t->finish = t->stop || result == NULL ? FINISH_STOPPED : result->finish;
        turn_enter(t, TURN_CHECKING);
    }
}

static const struct engine_callbacks callbacks = {
    .on_start = on_start, .on_position = on_position, .on_text = on_text, .on_done = on_done};

void generate_start(struct turn *t)
{
    struct inference *r = t->r;
    struct engine_request req = {.chat = t->work.chat,
                                 .character_name = t->name,
                                 .prompt = &t->prompt,
                                 .said = {t->said.data, t->said.len},
                                 .max_tokens = (uint32_t)r->max_tokens,
                                 .temperature = r->temperature,
                                 .top_p = 0.95f,
                                 .min_p = 0.05f,
                                 .timeout_ms = r->generate_ms};
    struct tr_err err = {0};
    enum tr_rc rc;

    if (t->stop) { /* stopped while its prompt was being made */
        t->finish = FINISH_STOPPED;
        turn_enter(t, TURN_STORING);
        return;
    }
    seal_random(&req.seed, sizeof req.seed);
    t->begun_ms = loop_now_ms(r->env.loop);
    t->engine = r->engines[t->engine_n];
    rc = t->engine->ops->generate(t->engine, &req, &callbacks, t, &t->job, &err);
    if (rc != TR_OK) {
        t->job = NULL;
        engine_failed(t, rc, &err);
    }
}
