/*
 * prompt - what the engine is asked: the card and the recent messages as a list of messages, and the rule by which the
 * oldest are dropped.  Pure.  Contract 11.11: the list's beginning stays the same for many turns, so that kept state is of use.
 */
#ifndef DOMAIN_PROMPT_H
#define DOMAIN_PROMPT_H

#include "base/buf.h"
#include "domain/card.h"
#include "domain/turn.h"

struct prompt_message {
    enum speaker speaker;
    const char *text; /* owned by the prompt */
    size_t len;
    bool fixed; /* never dropped: the system part, the example dialogue, the last user message */
};

struct prompt {
    struct prompt_message *messages;
    size_t n;
};

/* One message of the chat, oldest first; borrowed. */
struct prompt_recent {
    enum speaker speaker;
    const char *text;
    size_t len;
};

/*
 * System part: system_prompt or a default, name, description, personality, scenario, constant lore.  The example
 * dialogue follows as messages of its own, fixed too; one that is no dialogue of the two stands in the system part.
 * Lore whose keys stand in the last `lore_scan_depth` messages goes into the last user message's front (not into the
 * beginning, which must stay the same), post_history to its end.
 */
enum tr_rc prompt_build(const struct card *card, const char *user_name, const struct prompt_recent *recent, size_t n,
                        struct prompt *ret_prompt) TR_MUST_CHECK;
void prompt_release(struct prompt *prompt);

/*
 * Which of the messages to drop so that the rest fits: given each one's cost in tokens and whether it is fixed, the
 * number of oldest non-fixed messages to leave out.  The number moves in steps of at least half the room (the budget
 * less the fixed messages at the beginning), so it stays
 * the same for many turns.  A user message is dropped together with the reply to it (speakers may be NULL: no pairing).
 *   TR_INVALID  the fixed ones alone are over the budget
 */
enum tr_rc prompt_trim(const uint32_t *cost, const bool *fixed, const enum speaker *speakers, size_t n, uint32_t budget,
                       size_t *ret_drop, struct tr_err *err) TR_MUST_CHECK;

/*
 * Contract 11.11: of a chat with `total` messages, from which index on the recent ones are kept, for N = keep: at least
 * keep of them, growing to 2*keep, then cut to keep; a rule on the history alone.
 */
uint64_t prompt_recent_start(uint64_t total, uint64_t keep);

#endif
