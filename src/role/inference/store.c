/*
 * store - the reply into the history (first write wins, contract 11.3), then on its way: stored before it is sent.
 * ttft_ms of a row is the time from the turn's acceptance to the first text of that variant's reply.
 */
#include "role/inference/impl.h"

#include "base/fault.h"
#include "base/metrics.h"

#include <string.h>

#define CHECK_MS 250 /* a generation shorter than this needs no second look at the stop mark */
#define AGAIN_FIRST_MS 100
#define AGAIN_LAST_MS 500
#define AGAIN_FOR_MS 30000 /* the same write again for so long */
#define LATER_MS 1000
#define CONTEXT_TTL_MS (24 * 3600 * 1000ull)

static struct metric metric_turns[] = {
    [FINISH_STOP] = METRIC(METRIC_COUNTER, "troupe_turns_total", "finish=\"stop\"", "Replies stored."),
    [FINISH_LENGTH] = METRIC(METRIC_COUNTER, "troupe_turns_total", "finish=\"length\"", "Replies stored."),
    [FINISH_STOPPED] = METRIC(METRIC_COUNTER, "troupe_turns_total", "finish=\"stopped\"", "Replies stored."),
    [FINISH_ERROR] = METRIC(METRIC_COUNTER, "troupe_turns_total", "finish=\"error\"", "Replies stored."),
};
static struct metric metric_tokens[] = {
    METRIC(METRIC_COUNTER, "troupe_tokens_total", "kind=\"prompt\"", "Tokens of stored replies."),
    METRIC(METRIC_COUNTER, "troupe_tokens_total", "kind=\"cached\"", "Tokens of stored replies."),
    METRIC(METRIC_COUNTER, "troupe_tokens_total", "kind=\"completion\"", "Tokens of stored replies."),
};
static const char *const error_codes[] = {"engine_failed", "internal", "not_found"};
#define ERRORS(code)                                                                                                   \
    METRIC(METRIC_COUNTER, "troupe_turn_errors_total", "code=\"" code "\"", "Replies that are an error.")
static struct metric metric_errors[] = {ERRORS("engine_failed"), ERRORS("internal"), ERRORS("not_found"),
                                        ERRORS("other")};
static struct metric metric_adopted = METRIC(METRIC_COUNTER, "troupe_turns_adopted_total", NULL,
                                             "Replies that another attempt had stored first, sent again.");
static struct metric metric_turn_time =
    METRIC(METRIC_HISTOGRAM, "troupe_turn_seconds", NULL, "From a turn's acceptance to its stored reply.");

/* The same again after a pause; false: that has been going on for too long. */
static bool again_later(struct turn *t)
{
    const uint64_t now = loop_now_ms(t->r->env.loop);
    uint64_t pause = (uint64_t)AGAIN_FIRST_MS << (t->tries < 8 ? t->tries : 8);

    if (t->tries++ == 0)
        t->tries_ms = now;
    if (pause > AGAIN_LAST_MS)
        pause = AGAIN_LAST_MS;
    if (now - t->tries_ms >= AGAIN_FOR_MS || (t->r->draining && now + pause >= t->r->drain_until_ms))
        return false;
    inference_wake_at(t, now + pause);
    return true;
}

/* --- a last look at the stop mark --- */

static void on_checked(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct turn *t = ctx;
    struct turn_view view;

    (void)more;
    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc == TR_OK) {
        turn_fold(rows, n, &view);
        if (view.stop && view.variants == t->key.variant)
            t->finish = FINISH_STOPPED;
    } else if (rc != TR_NOT_FOUND) { /* storing will tell */
        turn_log(t, LOG_DEBUG, "turn.check", rc, tr_err_text(err));
    }
    turn_enter(t, TURN_STORING);
}

/* The broadcast that should have ended it may be lost: the mark is in the history (contract 11.6). */
void store_check(struct turn *t)
{
    struct history *h = t->r->env.history;

    if (t->finish == FINISH_STOPPED || loop_now_ms(t->r->env.loop) - t->begun_ms < CHECK_MS ||
        h->ops->turn_get(h, &t->work.chat, &t->key.turn, on_checked, t, &t->op, NULL) != TR_OK) {
        t->op = NULL;
        turn_enter(t, TURN_STORING);
    }
}

/* --- storing --- */

enum tr_rc store_adopt(struct turn *t, const struct turn_row *row, struct tr_err *err)
{
    const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                   .chat = row->chat,
                                   .turn = row->turn,
                                   .part = row->part,
                                   .rev = row->rev,
                                   .role = (uint8_t)row->speaker};
    struct buf text = {0};
    enum tr_rc rc = TR_OK;

    metric_add(&metric_adopted, 1);
    buf_wipe(&t->text);
    t->attempt = row->attempt;
    t->change = row->change;
    t->created_ms = row->created_ms;
    if (row->sealed_len > 0)
        rc = seal_open(&t->seal, &bind, row->sealed, row->sealed_len, &text, err);
    if (rc != TR_OK)
        return rc;
    t->text = text;
    t->finish = row->finish;
    memcpy(t->code, row->code, sizeof t->code);
    t->usage.prompt_tokens = row->prompt_tokens;
    t->usage.cached_tokens = row->cached_tokens;
    t->usage.completion_tokens = row->completion_tokens;
    t->ttft_ms = row->ttft_ms;
    return TR_OK;
}

static void ignore_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err; /* the context can be built again */
}

/* Keep what the next reply is written from.  Nobody waits for it. */
static void keep_context(struct turn *t)
{
    struct registry *reg = t->r->env.registry;
    struct context *c = &t->context;
    const struct seal_bind bind = {.kind = SEAL_CONTEXT, .chat = t->work.chat, .turn = t->key.turn};
    struct registry_context kept = {.last_turn = t->key.turn};
    struct buf plain = {0}, sealed = {0};
    struct tr_op *op = NULL;

    if (context_add(c, &t->key.turn, t->index, (struct slice){t->user_text.data, t->user_text.len},
                    (struct slice){t->text.data, t->text.len}) != TR_OK)
        return;
    context_cut(c, context_start(t->index + 1, t->r->keep));
    /* If storing was the very next change, nothing else happened meanwhile. */
    c->change = t->change == t->seen_change + 1 ? t->change : t->seen_change;
    kept.change = c->change;
    if (context_encode(c, &plain) == TR_OK && seal_data(&t->seal, &bind, plain.data, plain.len, &sealed) == TR_OK) {
        kept.sealed = (struct slice){sealed.data, sealed.len};
        (void)reg->ops->context_put(reg, &t->work.chat, &kept, CONTEXT_TTL_MS, ignore_done, NULL, &op, NULL);
    }
    buf_wipe(&plain);
    buf_release(&sealed);
}

void store_show_metrics(void)
{
    for (enum finish f = FINISH_STOP; f <= FINISH_ERROR; f++)
        metric_show(&metric_turns[f]);
    for (size_t i = 0; i < sizeof metric_errors / sizeof metric_errors[0]; i++)
        metric_show(&metric_errors[i]);
    for (size_t i = 0; i < sizeof metric_tokens / sizeof metric_tokens[0]; i++)
        metric_show(&metric_tokens[i]);
    metric_show(&metric_adopted);
    metric_show(&metric_turn_time);
}

static void count_error(const char *code)
{
    size_t i = 0;

    while (i < sizeof error_codes / sizeof error_codes[0] && strcmp(error_codes[i], code) != 0)
        i++;
    metric_add(&metric_errors[i], 1);
}

static void count_stored(const struct turn *t)
{
    metric_add(&metric_turns[t->finish], 1);
    if (t->finish == FINISH_ERROR)
        count_error(t->code);
    metric_add(&metric_tokens[0], t->usage.prompt_tokens);
    metric_add(&metric_tokens[1], t->usage.cached_tokens);
    metric_add(&metric_tokens[2], t->usage.completion_tokens);
    if (t->key.variant == 0)
        metric_observe_us(&metric_turn_time, wall_since_ms(t->accepted_ms) * 1000);
}

static void store_failed(struct turn *t, enum tr_rc rc, const struct tr_err *err)
{
    const bool passes = rc == TR_TRANSIENT || rc == TR_UNCERTAIN || rc == TR_BUSY || rc == TR_NOMEM;

    if (passes && again_later(t))
        return;
    turn_log(t, LOG_WARN, "turn.store", rc, tr_err_text(err));
    /* Past the last attempt the queue would bury it without an answer: so it is not counted then. */
    if (rc == TR_CANCELLED || t->r->draining || t->attempts + 1 >= QUEUE_ATTEMPTS_MAX)
        turn_finish(t, SETTLE_LATER, LATER_MS, NULL);
    else
        turn_finish(t, SETTLE_FAILED, 0, tr_err_text(err));
}

static void on_stored(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                      const struct tr_err *err)
{
    struct turn *t = ctx;
    struct tr_err broken = {0};

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc == TR_NOT_FOUND) { /* deleted meanwhile: late stores are dropped */
        turn_forgotten(t);
        return;
    }
    if (rc != TR_OK) {
        store_failed(t, rc, err);
        return;
    }
    t->tries = 0;
    fault_point("inference.stored");
    if (mine) {
        t->change = change;
        story_log(LOG_DEBUG, "turn.stored", &t->work, "finish=%s", finish_name(t->finish));
        count_stored(t);
        if (t->context_exact && t->key.variant == 0 && t->has_seal)
            keep_context(t);
    } else if (store_adopt(t, standing, &broken) != TR_OK) {
        turn_log(t, LOG_ERROR, "turn.unread", TR_INVALID, tr_err_text(&broken));
        t->finish = FINISH_ERROR;
        strcpy(t->code, "internal");
    }
    turn_enter(t, TURN_PUBLISHING);
}

/* Seal the reply once, so that a repeated write is the same one. */
static enum tr_rc seal_reply(struct turn *t)
{
    const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                   .chat = t->work.chat,
                                   .turn = t->key.turn,
                                   .part = t->key.variant + PART_FIRST_VARIANT,
                                   .role = SPEAKER_CHARACTER};

    if (t->sealed.len > 0 || !t->has_seal)
        return TR_OK; /* without a key there are no words, only the error */
    t->created_ms = wall_ms();
    return seal_data(&t->seal, &bind, t->text.len > 0 ? (const void *)t->text.data : "", t->text.len, &t->sealed);
}

void store_append(struct turn *t)
{
    struct history *h = t->r->env.history;
    struct turn_row rows[2] = {{.chat = t->work.chat,
                                .turn = t->key.turn,
                                .part = t->key.variant + PART_FIRST_VARIANT,
                                .speaker = SPEAKER_CHARACTER,
                                .user = t->work.user,
                                .attempt = t->attempt,
                                .finish = t->finish,
                                .prompt_tokens = t->usage.prompt_tokens,
                                .cached_tokens = t->usage.cached_tokens,
                                .completion_tokens = t->usage.completion_tokens,
                                .ttft_ms = t->ttft_ms}};
    size_t n = 1;
    struct tr_err err = {0};
    enum tr_rc rc = seal_reply(t);

    if (t->created_ms == 0)
        t->created_ms = wall_ms();
    memcpy(rows[0].character, t->work.character, sizeof rows[0].character);
    memcpy(rows[0].code, t->code, sizeof rows[0].code);
    memcpy(rows[0].language, t->language, sizeof rows[0].language);
    rows[0].created_ms = t->created_ms;
    rows[0].sealed = t->sealed.data;
    rows[0].sealed_len = t->sealed.len;
    if (t->notes_sealed.len > 0) {
        rows[1] = (struct turn_row){.chat = t->work.chat,
                                    .turn = t->key.turn,
                                    .part = PART_NOTES,
                                    .rev = t->user_rev,
                                    .speaker = SPEAKER_USER,
                                    .user = t->work.user,
                                    .created_ms = t->created_ms,
                                    .sealed = t->notes_sealed.data,
                                    .sealed_len = t->notes_sealed.len};
        memcpy(rows[1].character, t->work.character, sizeof rows[1].character);
        memcpy(rows[1].language, t->language, sizeof rows[1].language);
        n = 2;
    }
    if (rc == TR_OK)
        rc = h->ops->append(h, rows, n, on_stored, t, &t->op, &err);
    if (rc != TR_OK)
        store_failed(t, rc, &err);
}

/* --- publishing --- */

static void publish_failed(struct turn *t, enum tr_rc rc, const struct tr_err *err)
{
    if (rc != TR_INVALID && rc != TR_CANCELLED && again_later(t))
        return;
    turn_log(t, LOG_WARN, "turn.publish", rc, tr_err_text(err));
    if (rc == TR_INVALID) /* it will never fit */
        turn_finish(t, SETTLE_DEAD_LETTER, 0, tr_err_text(err));
    else
        turn_finish(t, SETTLE_LATER, LATER_MS, NULL); /* the stored reply is found then */
}

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct turn *t = ctx;

    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
    } else if (rc != TR_OK) {
        publish_failed(t, rc, err);
    } else if (t->dead) {
        turn_finish(t, SETTLE_DEAD_LETTER, 0, tr_err_text(&t->cause));
    } else {
        fault_point("inference.published");
        story_log(LOG_INFO, "turn.done", &t->work, "finish=%s%s%s ttft_ms=%u prompt=%u cached=%u completion=%u",
                  finish_name(t->finish), t->code[0] != '\0' ? " code=" : "", t->code, (unsigned)t->ttft_ms,
                  (unsigned)t->usage.prompt_tokens, (unsigned)t->usage.cached_tokens,
                  (unsigned)t->usage.completion_tokens);
        turn_finish(t, SETTLE_ACK, 0, NULL);
    }
}

static enum tr_rc make_body(struct turn *t)
{
    const struct seal_bind bind = {.kind = SEAL_QUEUE,
                                   .chat = t->work.chat,
                                   .turn = t->key.turn,
                                   .part = t->key.variant + PART_FIRST_VARIANT,
                                   .role = SPEAKER_CHARACTER};
    struct envelope env = {.kind = ENVELOPE_REPLY,
                           .chat = t->work.chat,
                           .turn = t->key.turn,
                           .predecessor = t->predecessor,
                           .user = t->work.user,
                           .variant = t->key.variant,
                           .attempt = t->attempt,
                           .index = t->index,
                           .change = t->change,
                           .created_ms = t->created_ms,
                           .finish = t->finish,
                           .prompt_tokens = t->usage.prompt_tokens,
                           .cached_tokens = t->usage.cached_tokens,
                           .completion_tokens = t->usage.completion_tokens,
                           .ttft_ms = t->ttft_ms};
    struct buf sealed = {0};
    enum tr_rc rc = TR_OK;

    memcpy(env.character, t->work.character, sizeof env.character);
    memcpy(env.trace, t->work.trace, sizeof env.trace);
    memcpy(env.code, t->code, sizeof env.code);
    if (t->has_seal)
        rc = seal_data(&t->seal, &bind, t->text.len > 0 ? (const void *)t->text.data : "", t->text.len, &sealed);
    env.sealed = (struct slice){sealed.data, sealed.len};
    if (rc == TR_OK)
        rc = envelope_encode(&env, &t->body);
    buf_release(&sealed);
    return rc;
}

void store_publish(struct turn *t)
{
    struct queue *q = t->r->env.queue;
    struct queue_message msg = {.queue = topic_notify(&t->work.chat), .patient = true};
    struct tr_err err = {0};
    enum tr_rc rc = t->body.len > 0 ? TR_OK : make_body(t);

    msg.body = (struct slice){t->body.data, t->body.len};
    if (rc == TR_OK)
        rc = q->ops->publish(q, &msg, on_published, t, &t->op, &err);
    inference_settled(t->r, &t->key.turn); /* the reply is in the history, and before its successor's in the queue */
    if (rc != TR_OK) {
        t->op = NULL;
        publish_failed(t, rc, &err);
    }
}
