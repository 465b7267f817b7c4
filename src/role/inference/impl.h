/* impl - what the files of role/inference share; for nobody else.  Threads: all on the loop's. */
#ifndef ROLE_INFERENCE_IMPL_H
#define ROLE_INFERENCE_IMPL_H

#include "base/log.h"
#include "role/common/story.h"
#include "role/inference/context.h"
#include "role/inference/inference.h"

#include <uthash.h>

#define INFERENCE_ENGINES_MAX 8

struct turn_key {
    struct uuid turn;
    int32_t variant;
};

/* What a turn is doing; turn.c has the diagram. */
enum turn_phase {
    TURN_KEY,
    TURN_CONTEXT,
    TURN_LOADING,
    TURN_WAITING,
    TURN_REBUILDING,
    TURN_CARD,
    TURN_FAILING,
    TURN_NUMBERING,
    TURN_GENERATING,
    TURN_CHECKING,
    TURN_STORING,
    TURN_PUBLISHING,
    TURN_FINISHED,
};

/* One call to work that is in hand. */
struct turn {
    struct inference *r; /* NULL: given up; whoever is called back frees it */
    struct turn_key key;
    enum turn_phase phase;
    struct tr_op *op; /* the one operation under way, but for GENERATING: job */
    struct engine *engine;
    struct engine_job *job;
    size_t engine_n; /* which of the engines it is at */
    struct queue_delivery *delivery;
    uint32_t attempts;
    struct envelope work; /* sealed: borrowed from the delivery */
    struct seal_key seal;
    bool has_seal;

    /* as loaded */
    uint64_t index, accepted_ms, seen_change; /* everything up to that change was seen */
    struct uuid predecessor;
    int32_t user_rev, next_rev;
    int attempt_rows, last_attempt; /* see struct turn_view */
    struct buf user_text;           /* normalised; plain */
    struct buf said;                /* the same as sent */
    struct buf notes_sealed;        /* the PART_NOTES row's, where notes of this revision came along */
    char language[8];
    struct context context;
    bool context_exact; /* every turn before this one, as far as the prompt reaches, is in it */
    bool stop;          /* marked to stop */
    bool in_turn;       /* every turn before this one is settled: its variant 0 may be stored */

    /* WAITING */
    struct envelope before; /* a call to work for the unsettled turn that it waits for */
    uint64_t waiting_ms, asked_ms, looked_ms;

    /* GENERATING */
    struct prompt prompt;
    char *name;
    struct buf text;
    uint64_t attempt, begun_ms, last_sent_ms, last_status_ms;
    bool again;        /* it may not be the first attempt at this variant */
    bool numbered;     /* the history knows this attempt's place among them */
    size_t sent;       /* bytes of text that went out as deltas */
    bool status_shown; /* a status went out: the next state is told, too */
    uint32_t ttft_ms;

    /* the reply, from STORING on */
    enum finish finish;
    char code[24];
    struct engine_result usage;
    uint64_t change, created_ms;
    struct buf sealed; /* of the history's row */
    struct buf body;   /* the REPLY's bytes */
    bool dead;         /* dead-letter it in the end, with `cause` */
    struct tr_err cause;
    unsigned tries;
    uint64_t tries_ms;

    uint64_t due_ms; /* turn_on_due() then; 0: never */
    UT_hash_handle hh;
};

struct card_kept {
    char id[CHARACTER_ID_MAX + 1];
    struct card *card; /* owned */
    uint64_t updated_ms, asked_ms;
    UT_hash_handle hh;
};

struct worker;

struct inference {
    struct role_env env;
    struct engine *engines[INFERENCE_ENGINES_MAX];
    size_t engines_n;
    char character[CHARACTER_ID_MAX + 1];
    uint32_t prefetch;
    /* configuration */
    uint64_t keep, max_tokens, generate_ms, ttl_ms, drain_ms;
    float temperature;

    struct worker *worker;
    struct queue_consumer *consumer, *control;
    struct turn *turns; /* in hand */
    struct card_kept *cards;
    struct loop_timer *tick;
    uint64_t tick_due_ms; /* 0: not armed */
    bool draining;
    uint64_t drain_until_ms;
    void (*drained)(void *ctx);
    void *drained_ctx;
    uint64_t errors_max, rss_max_mib; /* 0: no limit */
    uint64_t errors;                  /* of the engines, in a row */
    void (*trouble)(void *ctx, const char *why);
    void *trouble_ctx;
};

/* turn.c: the state machine. */
void turn_begin(struct inference *r, const struct queue_incoming *msg, const struct envelope *work);
void turn_enter(struct turn *t, enum turn_phase phase);
void turn_on_due(struct turn *t);
void turn_stop(struct turn *t);      /* the user's wish */
void turn_hand_back(struct turn *t); /* give it up uncounted: somebody else's, or later */
/* The history knows no such turn, or its chat is gone: nobody is left to answer. */
void turn_forgotten(struct turn *t);
void turn_free(struct turn *t);
/* Settle and forget.  cause: with SETTLE_FAILED and SETTLE_DEAD_LETTER. */
enum settle { SETTLE_ACK, SETTLE_LATER, SETTLE_FAILED, SETTLE_DEAD_LETTER };
void turn_finish(struct turn *t, enum settle settle, uint64_t delay_ms, const char *cause);
/* An attempt failed: again later, or the error is the reply (`for_good`, or it was the last attempt). */
void turn_fail(struct turn *t, const char *code, bool for_good, enum tr_rc rc, const struct tr_err *err);
/* A store does not answer: put back for a while, uncounted. */
void turn_trouble(struct turn *t, const char *ev, enum tr_rc rc, const struct tr_err *err);
void turn_log(const struct turn *t, enum log_level level, const char *ev, enum tr_rc rc, const char *cause);

/* load.c: KEY, CONTEXT, LOADING, REBUILDING, CARD. */
void load_key(struct turn *t);
void load_context(struct turn *t);
void load_turn(struct turn *t);
void load_rebuild(struct turn *t);
void load_card(struct turn *t);

/* wait.c: WAITING, FAILING. */
void wait_begin(struct turn *t);
void wait_due(struct turn *t);
void wait_failing(struct turn *t);
void wait_over(struct turn *t, enum turn_phase phase); /* every turn before it that the prompt reaches is settled */
void wait_note(struct turn *t, const struct turn_view *view); /* t->before: an unsettled turn, with words of a user */
void wait_read_before(struct turn *t, uint64_t turns, history_rows_done *done); /* so many turns before it */

/* attempt.c: NUMBERING. */
void attempt_first(struct turn *t);
void attempt_number(struct turn *t);

/* generate.c: GENERATING, and what is told of it meanwhile. */
void generate_start(struct turn *t);
void generate_due(struct turn *t);
void generate_status(struct turn *t, enum turn_state state, uint32_t position);
void generate_snapshot(struct turn *t, const char *gateway);

/* store.c: CHECKING, STORING, PUBLISHING. */
void store_check(struct turn *t);
void store_append(struct turn *t);
void store_publish(struct turn *t);
void store_show_metrics(void); /* also while nothing is stored */
/* The stored variant is the reply.  TR_INVALID: it does not open. */
enum tr_rc store_adopt(struct turn *t, const struct turn_row *row, struct tr_err *err) TR_MUST_CHECK;

/* cards.c */
/* The card if it is at hand and fresh enough, else NULL: read it and cards_put() it. */
const struct card *cards_find(struct inference *r, const char *id);
/* The card as it was read last, however long ago; NULL: never. */
const struct card *cards_stale(struct inference *r, const char *id);
enum tr_rc cards_put(struct inference *r, const struct catalogue_character *c, const struct card **ret_card,
                     struct tr_err *err) TR_MUST_CHECK;
void cards_release(struct inference *r);

/* worker.c: registration, its renewal, the fence. */
enum tr_rc worker_start(struct inference *r, queue_on_message *on_control, inference_started *started, void *ctx,
                        struct tr_err *err) TR_MUST_CHECK;
/* May a message that has come be taken?  No: its time is over (it is fenced by this call, if it was not). */
bool worker_may_take(struct worker *w);
void worker_drain(struct worker *w); /* its record says so from now on */
void worker_leave(struct worker *w); /* drained: removes the record, then inference_left() */
void worker_free(struct worker *w);  /* NULL is fine */

/* inference.c */
void inference_on_work(void *ctx, const struct queue_incoming *msg);
void inference_left(struct inference *r);
void inference_hand_back(struct inference *r, bool all); /* !all: those that do not generate yet */
void inference_trouble(struct inference *r, const char *why);
struct turn *inference_find(struct inference *r, const struct uuid *turn, int32_t variant);
void inference_settled(struct inference *r, const struct uuid *turn); /* wakes those that wait for it */
void inference_wake_at(struct turn *t, uint64_t due_ms);
void inference_turn_gone(struct inference *r);

#endif
