/*
 * turn - what a turn is: the rows that the history keeps of it, and the view that folding them gives.
 * Contract 9, 11.3, 11.8, 11.9.  Pure.
 *
 * Parts of a turn: 0 the user's message (rev 0, an edit is the next rev), 1… the variants (variant + 1, rev 0 only),
 * PART_STATE the turn's state: each rev is one event (stop, choose, delete, regenerate, another attempt; unknown ones count
 * for nothing), PART_NOTES what preprocess found.
 */
#ifndef DOMAIN_TURN_H
#define DOMAIN_TURN_H

#include "base/buf.h"
#include "domain/uuid.h"

enum { PART_NOTES = -2, PART_STATE = -1, PART_USER = 0, PART_FIRST_VARIANT = 1 };
#define TURN_VARIANTS_MAX 64 /* a regenerate past it is refused */

enum speaker { SPEAKER_SYSTEM = 0, SPEAKER_USER = 1, SPEAKER_CHARACTER = 2 };
enum finish { FINISH_NONE = 0, FINISH_STOP, FINISH_LENGTH, FINISH_STOPPED, FINISH_ERROR };
enum turn_event {
    TURN_EVENT_NONE = 0,
    TURN_EVENT_STOP,   /* variant: the one that is to stop; stops only that one */
    TURN_EVENT_CHOOSE, /* variant: the chosen one; known: how many variants were stored when it was chosen */
    TURN_EVENT_DELETE,
    TURN_EVENT_REGENERATE, /* variant: the number of the new one, that is to be generated */
    TURN_EVENT_ATTEMPT,    /* variant: the one that another attempt begins at; known: random, whose attempt it is */
};

/* One row.  Text is sealed; the rest is plain, for metrics and datasets. */
struct turn_row {
    struct uuid chat, turn;
    int32_t part, rev;
    enum speaker speaker;
    char character[CHARACTER_ID_MAX + 1];
    struct uuid user;
    uint64_t created_ms;
    uint64_t change;         /* set by the store: grows with every change of the chat */
    struct uuid predecessor; /* part 0: the turn before it, nil for the first */
    uint64_t index;          /* part 0: how many turns the chat had before (the greeting is turn 0) */
    char language[8];        /* PART_NOTES and variants: of the user's text, "" unknown */
    uint64_t attempt;        /* variants: which attempt wrote it */
    enum finish finish;      /* variants */
    char code[24];           /* variants with FINISH_ERROR: the error's code, else "" */
    uint32_t prompt_tokens, cached_tokens, completion_tokens, ttft_ms; /* variants */
    enum turn_event event;                                             /* PART_STATE */
    int32_t variant, known;                                            /* PART_STATE */
    const uint8_t *sealed; /* borrowed from whoever handed the row out; NULL and 0 for PART_STATE */
    size_t sealed_len;
};

/* What the rows of ONE turn amount to. */
struct turn_view {
    struct uuid chat, turn;
    bool exists; /* any row at all */
    bool deleted;
    const struct turn_row *user;                       /* newest revision of part 0; NULL: the greeting */
    const struct turn_row *variant[TURN_VARIANTS_MAX]; /* [n] stored variant n or NULL */
    int variants;                                      /* stored ones: they stand at 0 … variants-1 */
    int wanted;                 /* how many there are to be: 1 + the regenerations (greeting: what is stored) */
    int chosen;                 /* -1: none stored yet; a greeting's is the first, until one is chosen or regenerated */
    bool stop;                  /* the running variant is marked to stop */
    int32_t next_rev;           /* the rev for the next state event */
    int32_t user_rev;           /* rev of `user`, -1 without one */
    int attempts, last_attempt; /* later attempts at the running variant: how many, and the last one's rev (-1: none) */
    uint64_t change;            /* the greatest of the rows */
    uint64_t created_ms;
    const struct turn_row *notes;
};

/* Fold rows[0..n), all of one turn, in any order.  The view borrows the rows. */
void turn_fold(const struct turn_row *rows, size_t n, struct turn_view *ret_view);

/* A variant is still to come: stored < wanted, and it is not deleted. */
static inline bool turn_running(const struct turn_view *v)
{
    return v->exists && !v->deleted && v->variants < v->wanted;
}

/* "stop", "length", "stopped", "error"; NULL for FINISH_NONE. */
const char *finish_name(enum finish finish);
bool finish_parse(const char *name, enum finish *ret_finish);

#endif
