/*
 * attempt - which of two attempts at one variant is the newer one.  Gateways follow the newest (contract 11.7), so the order
 * comes out of the history, never out of a clock: machines' clocks differ.
 *
 * An attempt is a number and 32 random bits.  The first processing of a call to work takes 0 and writes nothing.  Whoever
 * may be a second one (the broker has handed the call out before, somebody has published it again, an attempt has failed)
 * writes a row of the turn's state first, by a conditional insert, and takes that row's place among them as its number:
 * revisions only grow, and one of two writers at the same place reads the turn again.
 *
 * Attempts of the version before this one are times in microseconds; ATTEMPT_BASE is above them.  All stay below 2^53, the
 * largest number that a client in JavaScript compares exactly.
 */
#include "role/inference/impl.h"

#include <string.h>

#define ATTEMPT_BASE (UINT64_C(1) << 52)
#define NUMBER_MAX ((1 << 20) - 1)
#define ROWS_MAX 32 /* of one variant; later attempts share the last one's number */

static void take_number(struct turn *t, int32_t number)
{
    uint32_t random;

    if (number > NUMBER_MAX)
        number = NUMBER_MAX;
    seal_random(&random, sizeof random);
    t->attempt = ATTEMPT_BASE | (uint64_t)number << 32 | random;
}

void attempt_first(struct turn *t)
{
    take_number(t, 0);
}

static void on_written(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                       const struct tr_err *err)
{
    struct turn *t = ctx;

    (void)standing;
    t->op = NULL;
    if (t->r == NULL) {
        turn_free(t);
    } else if (rc == TR_NOT_FOUND) { /* deleted meanwhile */
        inference_settled(t->r, &t->key.turn);
        turn_finish(t, SETTLE_ACK, 0, NULL);
    } else if (rc != TR_OK) {
        turn_trouble(t, "turn.attempt", rc, err);
    } else if (!mine) { /* an event of the turn was first: it may be a stop, or the deletion */
        turn_enter(t, TURN_CONTEXT);
    } else {
        take_number(t, t->next_rev + 1);
        t->numbered = true;
        if (change == t->seen_change + 1)
            t->seen_change = change;
        turn_log(t, LOG_DEBUG, "turn.numbered", TR_OK, "");
        turn_enter(t, TURN_GENERATING);
    }
}

void attempt_number(struct turn *t)
{
    struct history *h = t->r->env.history;
    struct turn_row row = {.chat = t->work.chat,
                           .turn = t->key.turn,
                           .part = PART_STATE,
                           .rev = t->next_rev,
                           .speaker = SPEAKER_SYSTEM,
                           .user = t->work.user,
                           .created_ms = wall_ms(),
                           .event = TURN_EVENT_ATTEMPT,
                           .variant = t->key.variant,
                           .known = (int32_t)(t->attempt & INT32_MAX)}; /* whose it is */
    struct tr_err err = {0};
    enum tr_rc rc;

    if (!t->again || t->numbered || t->stop) { /* what is stopped before it began has no deltas */
        turn_enter(t, TURN_GENERATING);
        return;
    }
    if (t->attempt_rows >= ROWS_MAX) {
        take_number(t, t->last_attempt + 1);
        t->numbered = true;
        turn_enter(t, TURN_GENERATING);
        return;
    }
    memcpy(row.character, t->work.character, sizeof row.character);
    rc = h->ops->append(h, &row, 1, on_written, t, &t->op, &err);
    if (rc != TR_OK)
        turn_trouble(t, "turn.attempt", rc, &err);
}
