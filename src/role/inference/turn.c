/*
 * turn - one call to work: from a message on the inference queue to its reply at the notifier.
 * At most one operation is under way in every phase; in WAITING, and between two tries of the same write, none.
 *
 *   KEY         -> CONTEXT      with_key
 *   CONTEXT     -> LOADING      on_context
 *   LOADING     -> CARD         loaded          every turn that the prompt reaches is in the context
 *   LOADING     -> REBUILDING   loaded          the context is read anew from the history
 *   LOADING     -> WAITING      loaded          a turn before it is unsettled (contract 11.2)
 *   LOADING     -> PUBLISHING   take_turn       redelivered; the reply is stored already
 *   REBUILDING  -> CARD         on_before
 *   REBUILDING  -> WAITING      on_before
 *   WAITING     -> CONTEXT      wait_due   woken by that turn, or time to look again
 *   CARD        -> NUMBERING    with_card
 *   NUMBERING   -> GENERATING   attempt_number  the first attempt takes 0 and writes nothing
 *   NUMBERING   -> GENERATING   on_written      a later one has its place in the history now
 *   NUMBERING   -> CONTEXT      on_written      an event of the turn was first
 *   GENERATING  -> STORING      generate_start  marked to stop before it began: an empty reply
 *   GENERATING  -> CHECKING     on_done         before any text, a failed engine is followed by the next one
 *   CHECKING    -> STORING      on_checked      the stop mark is looked at once more
 *   STORING     -> PUBLISHING   on_stored       mine, or another attempt's that was first
 *   PUBLISHING  -> FINISHED     on_published    acknowledged
 *   any         -> STORING      turn_fail       the last attempt, in its turn already: the error is the reply
 *   any         -> FAILING      turn_fail       the last attempt, and the turns before it were not looked at
 *   FAILING     -> STORING      on_looked       they are settled
 *   FAILING     -> WAITING      on_looked       one is not; from there it comes to FAILING again
 *   any         -> FINISHED     turn_finish     acknowledged, put back or dead-lettered
 *
 * Stored before published: no user sees a reply that the history can lose.  Whatever a variant 0 is (a reply, an error, an
 * empty one that was stopped), it is stored after those of the turns before it.
 */
#include "role/inference/impl.h"

#include "base/fault.h"
#include "base/metrics.h"
#include "role/common/keyring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_FIRST_MS 500
#define TROUBLE_MS 1000

static struct metric metric_failed =
    METRIC(METRIC_COUNTER, "troupe_turn_attempts_failed_total", NULL, "Attempts at a reply that failed.");
static struct metric metric_redelivered = METRIC(METRIC_COUNTER, "troupe_turns_in_hand_again_total", NULL,
                                                 "Calls to work for a turn that was in hand already.");
static struct metric metric_in_hand =
    METRIC(METRIC_GAUGE, "troupe_turns_in_hand", NULL, "Turns that this process works on.");

static const char *const phase_names[] = {
    [TURN_KEY] = "key",           [TURN_CONTEXT] = "context",       [TURN_LOADING] = "loading",
    [TURN_WAITING] = "waiting",   [TURN_REBUILDING] = "rebuilding", [TURN_CARD] = "card",
    [TURN_FAILING] = "failing",   [TURN_NUMBERING] = "numbering",   [TURN_GENERATING] = "generating",
    [TURN_CHECKING] = "checking", [TURN_STORING] = "storing",       [TURN_PUBLISHING] = "publishing",
    [TURN_FINISHED] = "finished",
};

static void (*const phase_entry[])(struct turn *t) = {
    [TURN_KEY] = load_key,         [TURN_CONTEXT] = load_context,     [TURN_LOADING] = load_turn,
    [TURN_WAITING] = wait_begin,   [TURN_REBUILDING] = load_rebuild,  [TURN_CARD] = load_card,
    [TURN_FAILING] = wait_failing, [TURN_NUMBERING] = attempt_number, [TURN_GENERATING] = generate_start,
    [TURN_CHECKING] = store_check, [TURN_STORING] = store_append,     [TURN_PUBLISHING] = store_publish,
};

void turn_log(const struct turn *t, enum log_level level, const char *ev, enum tr_rc rc, const char *cause)
{
    char chat[UUID_TEXT], turn[UUID_TEXT];

    if (!log_on(level))
        return;
    uuid_format(&t->work.chat, chat);
    uuid_format(&t->key.turn, turn);
    log_event(level, ev, "chat=%s turn=%s variant=%d trace=%s state=%s rc=%s attempt=%u cause=%Q", chat, turn,
              (int)t->key.variant, t->work.trace, phase_names[t->phase], tr_rc_name(rc), t->attempts + 1, cause);
}

void turn_enter(struct turn *t, enum turn_phase phase)
{
    assert(t->op == NULL && t->job == NULL && phase < TURN_FINISHED);
    t->phase = phase;
    t->due_ms = 0;
    phase_entry[phase](t); /* it may be gone when this returns */
}

void turn_free(struct turn *t)
{
    seal_key_wipe(&t->seal);
    buf_wipe(&t->user_text);
    buf_wipe(&t->said);
    buf_wipe(&t->text);
    buf_release(&t->notes_sealed);
    buf_release(&t->sealed);
    buf_release(&t->body);
    context_release(&t->context);
    prompt_release(&t->prompt);
    free(t->name);
    free(t);
}

void turn_begin(struct inference *r, const struct queue_incoming *msg, const struct envelope *work)
{
    struct queue *q = r->env.queue;
    struct turn *t;

    fault_point("inference.claimed");
    if (inference_find(r, &work->turn, work->variant) != NULL) {
        /* Either delivery may be the one that was confirmed to a gateway: this one is looked at again when that is done. */
        metric_add(&metric_redelivered, 1);
        q->ops->retry(q, msg->delivery, false, TROUBLE_MS, NULL);
        return;
    }
    t = calloc(1, sizeof *t);
    if (t == NULL) {
        q->ops->retry(q, msg->delivery, false, TROUBLE_MS, NULL);
        return;
    }
    t->r = r;
    t->key = (struct turn_key){work->turn, work->variant};
    t->delivery = msg->delivery;
    t->attempts = msg->attempts;
    t->work = *work;
    t->predecessor = work->predecessor;
    t->index = work->index;
    t->accepted_ms = work->created_ms;
    t->again = msg->again || work->again;
    attempt_first(t);
    HASH_ADD(hh, r->turns, key, sizeof t->key, t);
    metric_set(&metric_in_hand, HASH_COUNT(r->turns));
    story_taken(STORY_INFERENCE, &t->work);
    story_log(LOG_DEBUG, "turn.claimed", &t->work, "attempt=%u", (unsigned)t->attempts + 1);
    turn_enter(t, TURN_KEY);
}

/* Out of the role's hands; what is under way calls back once more, and then it is freed. */
static void let_go(struct turn *t)
{
    struct inference *r = t->r;

    HASH_DEL(r->turns, t);
    metric_set(&metric_in_hand, HASH_COUNT(r->turns));
    t->r = NULL;
    t->phase = TURN_FINISHED;
    if (t->op != NULL)
        tr_op_cancel(t->op);
    else if (t->job != NULL)
        t->engine->ops->cancel(t->engine, t->job);
    else
        turn_free(t);
    inference_turn_gone(r);
}

void turn_finish(struct turn *t, enum settle settle, uint64_t delay_ms, const char *cause)
{
    struct queue *q = t->r->env.queue;

    switch (settle) {
    case SETTLE_ACK:
        q->ops->ack(q, t->delivery);
        break;
    case SETTLE_LATER:
        q->ops->retry(q, t->delivery, false, delay_ms, NULL);
        break;
    case SETTLE_FAILED:
        q->ops->retry(q, t->delivery, true, (uint64_t)BACKOFF_FIRST_MS << (t->attempts < 8 ? t->attempts : 8), cause);
        break;
    case SETTLE_DEAD_LETTER:
        q->ops->dead_letter(q, t->delivery, cause);
        break;
    }
    let_go(t);
}

void turn_forgotten(struct turn *t)
{
    turn_log(t, LOG_DEBUG, "turn.forgotten", TR_NOT_FOUND, "");
    keyring_forget(t->r->env.keyring, &t->work.chat); /* if the turn alone is gone, the next one reads the key again */
    inference_settled(t->r, &t->key.turn);
    turn_finish(t, SETTLE_ACK, 0, NULL);
}

void turn_hand_back(struct turn *t)
{
    turn_finish(t, SETTLE_LATER, 0, NULL);
}

void turn_trouble(struct turn *t, const char *ev, enum tr_rc rc, const struct tr_err *err)
{
    if (rc != TR_CANCELLED)
        turn_log(t, LOG_WARN, ev, rc, tr_err_text(err));
    turn_finish(t, SETTLE_LATER, TROUBLE_MS, NULL);
}

void turn_fail(struct turn *t, const char *code, bool for_good, enum tr_rc rc, const struct tr_err *err)
{
    metric_add(&metric_failed, 1);
    turn_log(t, LOG_WARN, "turn.failed", rc, err != NULL ? tr_err_text(err) : tr_rc_name(rc));
    if (!for_good && t->attempts + 1 < QUEUE_ATTEMPTS_MAX) {
        turn_finish(t, SETTLE_FAILED, 0, err != NULL ? tr_err_text(err) : tr_rc_name(rc));
        return;
    }
    t->dead = true;
    if (err != NULL)
        t->cause = *err;
    t->cause.rc = rc;
    t->finish = FINISH_ERROR;
    memset(t->code, 0, sizeof t->code);
    memcpy(t->code, code, strlen(code) < sizeof t->code ? strlen(code) : sizeof t->code - 1);
    t->context_exact = false; /* the next turn reads what stands */
    turn_enter(t, t->key.variant == 0 && !t->in_turn ? TURN_FAILING : TURN_STORING);
}

void turn_stop(struct turn *t)
{
    t->stop = true;
    if (t->phase == TURN_GENERATING && t->job != NULL)
        t->engine->ops->stop(t->engine, t->job);
    else if (t->phase == TURN_WAITING)
        inference_wake_at(t, loop_now_ms(t->r->env.loop));
    /* before: seen when it gets there; after: it is written already, the mark changes nothing */
}

void turn_on_due(struct turn *t)
{
    t->due_ms = 0;
    switch (t->phase) {
    case TURN_WAITING:
        wait_due(t);
        break;
    case TURN_GENERATING:
        generate_due(t);
        break;
    case TURN_STORING:
        if (t->op == NULL)
            store_append(t);
        break;
    case TURN_PUBLISHING:
        if (t->op == NULL)
            store_publish(t);
        break;
    default:
        break;
    }
}
