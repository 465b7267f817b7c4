/*
 * inference - writes the replies.
 * comes from: preprocess, [inference:<character>.<n>]; gateways, [control] (stop, text)
 * goes to:    notifier, [notify.0-7]
 *
 * This file holds the turns in hand and their clock, and listens to [control]; one turn's way is turn.c, being a worker
 * among others is worker.c.
 */
#include "role/inference/impl.h"

#include "role/common/keyring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PREFETCH_MIN 64
#define PREFETCH_MAX 512

struct turn *inference_find(struct inference *r, const struct uuid *turn, int32_t variant)
{
    const struct turn_key key = {*turn, variant};
    struct turn *t;

    HASH_FIND(hh, r->turns, &key, sizeof key, t);
    return t;
}

void inference_settled(struct inference *r, const struct uuid *turn)
{
    struct turn *t, *next;

    HASH_ITER (hh, r->turns, t, next) {
        if (t->phase == TURN_WAITING && uuid_eq(&t->before.turn, turn)) {
            t->looked_ms = 0; /* woken, see wait_due() */
            inference_wake_at(t, loop_now_ms(r->env.loop));
        }
    }
}

void inference_wake_at(struct turn *t, uint64_t due_ms)
{
    struct inference *r = t->r;
    const uint64_t now = loop_now_ms(r->env.loop);

    t->due_ms = due_ms > 0 ? due_ms : 1;
    if (r->tick_due_ms != 0 && r->tick_due_ms <= t->due_ms)
        return;
    r->tick_due_ms = t->due_ms;
    timer_again(r->tick, t->due_ms > now ? t->due_ms - now : 0);
}

static void end_if_drained(struct inference *r)
{
    if (r->draining && r->turns == NULL && r->worker != NULL)
        worker_leave(r->worker);
}

/* The time of some turn has come.  A turn that is called may end, but no other does with it. */
static void on_tick(void *ctx)
{
    struct inference *r = ctx;
    const uint64_t now = loop_now_ms(r->env.loop);
    struct turn *t, *next;
    uint64_t due = 0;

    r->tick_due_ms = UINT64_MAX; /* whoever sets a time meanwhile is looked at below */
    if (r->draining && now >= r->drain_until_ms)
        inference_hand_back(r, true);
    HASH_ITER (hh, r->turns, t, next)
        if (t->due_ms != 0 && t->due_ms <= now)
            turn_on_due(t);
    HASH_ITER (hh, r->turns, t, next)
        if (t->due_ms != 0 && (due == 0 || t->due_ms < due))
            due = t->due_ms;
    if (r->draining && r->turns != NULL && (due == 0 || r->drain_until_ms < due))
        due = r->drain_until_ms;
    r->tick_due_ms = due;
    if (due != 0)
        timer_again(r->tick, due > now ? due - now : 0);
    end_if_drained(r);
}

void inference_turn_gone(struct inference *r)
{
    if (r->draining && r->turns == NULL && r->tick_due_ms != UINT64_MAX)
        timer_again(r->tick, 0); /* not from within whoever let it go */
}

void inference_hand_back(struct inference *r, bool all)
{
    struct turn *t, *next;

    HASH_ITER (hh, r->turns, t, next)
        if (all || t->phase < TURN_GENERATING)
            turn_hand_back(t);
}

static void refuse(struct inference *r, const struct queue_incoming *msg, const char *cause)
{
    log_event(LOG_WARN, "inference.undecodable", "queue=%s cause=%Q", msg->queue, cause);
    r->env.queue->ops->dead_letter(r->env.queue, msg->delivery, cause);
}

void inference_on_work(void *ctx, const struct queue_incoming *msg)
{
    struct inference *r = ctx;
    struct envelope work;
    struct tr_err err = {0};

    if (msg->delivery == NULL)
        return; /* calls to work are durable */
    if (!worker_may_take(r->worker)) {
        r->env.queue->ops->retry(r->env.queue, msg->delivery, false, 0, NULL);
        return;
    }
    if (envelope_decode(msg->body.data, msg->body.len, &work, &err) != TR_OK)
        refuse(r, msg, tr_err_text(&err));
    else if (work.kind != ENVELOPE_WORK || work.variant < 0 || work.variant >= TURN_VARIANTS_MAX ||
             !character_id_valid(work.character, strlen(work.character)))
        refuse(r, msg, "not a call to work");
    else
        turn_begin(r, msg, &work);
}

/* Lost is fine: the history decides (contract 11.6). */
static void on_control(void *ctx, const struct queue_incoming *msg)
{
    struct inference *r = ctx;
    struct envelope env;
    struct turn *t = NULL;

    if (envelope_decode(msg->body.data, msg->body.len, &env, NULL) != TR_OK)
        return;
    if (env.kind == ENVELOPE_DELETED && uuid_is_nil(&env.turn))
        keyring_forget(r->env.keyring, &env.chat);
    t = inference_find(r, &env.turn, env.variant);
    if (t == NULL || !uuid_eq(&t->work.chat, &env.chat))
        return;
    if (env.kind == ENVELOPE_STOP)
        turn_stop(t);
    else if (env.kind == ENVELOPE_TEXT && env.origin[0] != '\0')
        generate_snapshot(t, env.origin);
}

/* --- trouble --- */

void inference_on_trouble(struct inference *r, void (*trouble)(void *ctx, const char *why), void *ctx)
{
    r->trouble = trouble;
    r->trouble_ctx = ctx;
}

void inference_trouble(struct inference *r, const char *why)
{
    void (*trouble)(void *ctx, const char *why) = r->trouble;

    if (trouble == NULL || r->draining)
        return;
    log_event(LOG_ERROR, "worker.trouble", "character=%s cause=%Q", r->character, why);
    r->trouble = NULL;
    trouble(r->trouble_ctx, why);
}

/* --- starting --- */

static enum tr_rc read_temperature(const struct config *config, float *ret_value, struct tr_err *err)
{
    const char *text = config_str(config, "TROUPE_TEMPERATURE");
    char *end;
    float value;

    errno = 0;
    value = strtof(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !(value >= 0.0f && value <= 2.0f))
        return tr_fail(err, TR_INVALID, "TROUPE_TEMPERATURE: '%s' is not a number from 0 to 2", text);
    *ret_value = value;
    return TR_OK;
}

static enum tr_rc read_config(struct inference *r, struct tr_err *err)
{
    const struct config *c = r->env.config;
    uint64_t generate_s = 0, drain_s = 0;
    enum tr_rc rc = config_u64(c, "TROUPE_CONTEXT_MESSAGES", &r->keep, err);

    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_MAX_TOKENS", &r->max_tokens, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_GENERATE_SECONDS", &generate_s, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_WORKER_TTL_MS", &r->ttl_ms, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_DRAIN_SECONDS", &drain_s, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_WORKER_ERRORS_MAX", &r->errors_max, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_WORKER_RSS_MAX_MIB", &r->rss_max_mib, err);
    if (rc == TR_OK)
        rc = read_temperature(c, &r->temperature, err);
    r->generate_ms = generate_s * 1000;
    r->drain_ms = drain_s * 900; /* a tenth is left for closing */
    return rc;
}

enum tr_rc inference_start(const struct role_env *env, struct engine *const *engines, size_t engines_n,
                           const char *character, inference_started *started, void *ctx,
                           struct inference **ret_inference, struct tr_err *err)
{
    struct inference *r;
    uint32_t slots;
    enum tr_rc rc;

    if (engines_n == 0 || engines_n > INFERENCE_ENGINES_MAX)
        return tr_fail(err, TR_INVALID, "TROUPE_ENGINE: 1 to %d engines, not %zu", INFERENCE_ENGINES_MAX, engines_n);
    if (strlen(character) > CHARACTER_ID_MAX)
        return tr_fail(err, TR_INVALID, "character: too long");
    r = calloc(1, sizeof *r);
    if (r == NULL)
        return tr_fail(err, TR_NOMEM, "inference");
    store_show_metrics();
    r->env = *env;
    memcpy(r->engines, engines, engines_n * sizeof *engines);
    r->engines_n = engines_n;
    strcpy(r->character, character);
    slots = engines[0]->ops->info(engines[0])->slots;
    r->prefetch = slots >= PREFETCH_MAX / 8 ? PREFETCH_MAX : slots * 8;
    if (r->prefetch < PREFETCH_MIN)
        r->prefetch = PREFETCH_MIN;
    rc = read_config(r, err);
    if (rc == TR_OK && timer_start(env->loop, 0, 0, on_tick, r, &r->tick) != TR_OK)
        rc = tr_fail(err, TR_NOMEM, "inference");
    if (rc == TR_OK)
        rc = worker_start(r, on_control, started, ctx, err);
    if (rc != TR_OK) {
        inference_free(r);
        return rc;
    }
    *ret_inference = r;
    return TR_OK;
}

/* --- ending --- */

static void stop_consuming(struct inference *r, bool control_too)
{
    struct queue *q = r->env.queue;

    if (r->consumer != NULL)
        q->ops->consumer_stop(q, r->consumer);
    r->consumer = NULL;
    if (!control_too)
        return;
    if (r->control != NULL)
        q->ops->consumer_stop(q, r->control);
    r->control = NULL;
}

void inference_drain(struct inference *r, void (*drained)(void *ctx), void *ctx)
{
    r->draining = true;
    r->drain_until_ms = loop_now_ms(r->env.loop) + r->drain_ms;
    r->drained = drained;
    r->drained_ctx = ctx;
    if (r->worker != NULL)
        worker_drain(r->worker);
    stop_consuming(r, false); /* a stop may still come */
    inference_hand_back(r, false);
    r->tick_due_ms = 0;
    timer_again(r->tick, 0);
}

void inference_left(struct inference *r)
{
    void (*drained)(void *ctx) = r->drained;

    r->drained = NULL;
    if (drained != NULL)
        drained(r->drained_ctx);
}

void inference_free(struct inference *r)
{
    if (r == NULL)
        return;
    stop_consuming(r, true);
    inference_hand_back(r, true);
    worker_free(r->worker);
    cards_release(r);
    timer_stop(r->tick);
    free(r);
}
