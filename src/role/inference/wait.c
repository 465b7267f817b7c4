/*
 * wait - a turn's variant 0 (a reply, an error, an empty one that was stopped) is stored after those of the turns before it
 * (contract 11.2).  Whoever sees a reply takes those before it for seen.
 *
 * A turn that waits is woken when the other one is settled in this process, and looks into the history now and then.  The
 * other's call to work may be lost: it is published again.  A turn that waits for long is put back, uncounted.
 */
#include "role/inference/impl.h"

#include <string.h>

#define LOOK_FIRST_MS 50  /* into the history, after as long again as it has waited, */
#define LOOK_MS 500       /* and at least so often */
#define ASK_FIRST_MS 2000 /* then the predecessor's work is published again, */
#define ASK_MS 5000       /* and again */
#define WAIT_MAX_MS 10000 /* then it is put back */
#define WAIT_PUT_BACK_MS 1000

/* Its call to work, from its own row. */
void wait_note(struct turn *t, const struct turn_view *view)
{
    const struct turn_row *row = view->user;

    t->before = (struct envelope){.kind = ENVELOPE_WORK,
                                  .chat = t->work.chat,
                                  .turn = row->turn,
                                  .predecessor = row->predecessor,
                                  .user = row->user,
                                  .index = row->index,
                                  .rev = row->rev,
                                  .again = true,
                                  .created_ms = row->created_ms};
    memcpy(t->before.character, t->work.character, sizeof t->before.character);
    story_trace(&row->turn, t->before.trace);
}

void wait_over(struct turn *t, enum turn_phase phase)
{
    t->in_turn = true;
    turn_enter(t, phase);
}

static uint64_t look_pause(uint64_t waited_ms)
{
    if (waited_ms < LOOK_FIRST_MS)
        return LOOK_FIRST_MS;
    return waited_ms < LOOK_MS ? waited_ms : LOOK_MS;
}

void wait_begin(struct turn *t)
{
    const uint64_t now = loop_now_ms(t->r->env.loop);

    if (t->waiting_ms == 0) {
        t->waiting_ms = t->asked_ms = now;
        generate_status(t, STATE_QUEUED, 1);
        turn_log(t, LOG_DEBUG, "turn.waits", TR_OK, "for its predecessor");
    }
    t->looked_ms = now;
    inference_wake_at(t, now + look_pause(now - t->waiting_ms));
}

static void ignore_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err; /* it will be asked again */
}

/* Woken because the predecessor is settled here (looked_ms is 0 then), or the time has come to look. */
void wait_due(struct turn *t)
{
    const uint64_t now = loop_now_ms(t->r->env.loop);
    const enum turn_phase again = t->dead ? TURN_FAILING : TURN_CONTEXT;
    struct tr_op *op = NULL;

    if (t->looked_ms == 0) {
        turn_enter(t, again);
    } else if (inference_find(t->r, &t->before.turn, 0) != NULL) {
        t->waiting_ms = t->asked_ms = now; /* under way here: it will wake us */
        inference_wake_at(t, now + LOOK_MS);
    } else if (now - t->waiting_ms >= WAIT_MAX_MS) {
        turn_finish(t, SETTLE_LATER, WAIT_PUT_BACK_MS, NULL);
    } else {
        if (now - t->asked_ms >= (t->asked_ms == t->waiting_ms ? ASK_FIRST_MS : ASK_MS)) {
            t->asked_ms = now;
            turn_log(t, LOG_INFO, "turn.predecessor_again", TR_OK, "its work is published again");
            (void)role_publish(&t->r->env, TOPIC_INCOMING, &t->before, false, ignore_done, NULL, &op, NULL);
        }
        turn_enter(t, again);
    }
}

void wait_read_before(struct turn *t, uint64_t turns, history_rows_done *done)
{
    struct history *h = t->r->env.history;
    const struct history_range range = {
        .before = t->key.turn, .newest = true, .limit = turns < UINT32_MAX ? (uint32_t)turns : UINT32_MAX};
    struct tr_err err = {0};
    enum tr_rc rc = h->ops->turns(h, &t->work.chat, &range, done, t, &t->op, &err);

    if (rc != TR_OK)
        turn_trouble(t, "turn.load", rc, &err);
}

/* --- the error is the reply --- */

/* The newest turn of rows[0..n) before this one that is not settled is noted in t->before (nil: none). */
static void find_unsettled(struct turn *t, const struct turn_row *rows, size_t n)
{
    t->before.turn = uuid_nil;
    for (size_t from = 0, to; from < n; from = to) {
        struct turn_view view;

        for (to = from + 1; to < n && uuid_eq(&rows[to].turn, &rows[from].turn); to++)
            continue;
        if (uuid_cmp(&rows[from].turn, &t->key.turn) >= 0)
            continue;
        turn_fold(&rows[from], to - from, &view);
        if (!context_settled(&view) && view.user != NULL)
            wait_note(t, &view);
    }
}

static void on_looked(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                      const struct tr_err *err)
{
    struct turn *t = ctx;

    (void)more;
    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
        return;
    }
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        turn_trouble(t, "turn.load", rc, err);
        return;
    }
    find_unsettled(t, rows, rc == TR_OK ? n : 0);
    if (uuid_is_nil(&t->before.turn))
        wait_over(t, TURN_STORING);
    else
        turn_enter(t, TURN_WAITING);
}

/*
 * As many turns as a prompt may reach: this one's own row, with its index, may not have been read.  Their words need not be
 * read: what does not open there is those turns' own error.
 */
void wait_failing(struct turn *t)
{
    wait_read_before(t, t->r->keep + 1, on_looked);
}
