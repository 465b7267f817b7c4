/*
 * context - the recent messages of a chat: its newest settled turns, each with the user's normalised text and the
 * chosen reply.  Built from the history, kept sealed in the registry, and mended with the turns that changed since
 * (contract 11.11).  Pure but for sealing.
 *
 * `change`: every turn in it is as it was at that change of the chat, or newer; asking the history for what changed
 * after it gives all that can be missing.
 */
#ifndef ROLE_INFERENCE_CONTEXT_H
#define ROLE_INFERENCE_CONTEXT_H

#include "domain/prompt.h"
#include "domain/seal.h"
#include "domain/turn.h"

struct context_turn {
    struct uuid turn;
    uint64_t index;
    char *user, *reply; /* owned; NULL: none (the greeting, an empty reply, a deleted turn) */
    size_t user_len, reply_len;
};

struct context {
    struct context_turn *turns; /* oldest first */
    size_t n, cap;
    uint64_t change;
    bool from_start; /* the chat's first turn is in it */
};

void context_release(struct context *c); /* wipes; c is empty again */

/* Append the bytes / read them.  TR_INVALID: not a context of a version we know. */
enum tr_rc context_encode(const struct context *c, struct buf *out) TR_MUST_CHECK;
enum tr_rc context_decode(const void *data, size_t len, struct context *ret_context, struct tr_err *err) TR_MUST_CHECK;

/*
 * Take a settled turn in, in its place, or anew where it stands already; one older than the oldest in it is left out.
 *   TR_INVALID  a text of it does not open
 */
enum tr_rc context_take(struct context *c, const struct seal_key *key, const struct turn_view *view,
                        struct tr_err *err) TR_MUST_CHECK;
/* The same with plain texts (copied), for the newest turn. */
enum tr_rc context_add(struct context *c, const struct uuid *turn, uint64_t index, struct slice user,
                       struct slice reply) TR_MUST_CHECK;
/* A reply is there, or the turn is deleted. */
bool context_settled(const struct turn_view *view);

/* Index of the oldest turn that the prompt of the reply to turn `index` is written from, for N = keep messages. */
uint64_t context_start(uint64_t index, uint64_t keep);
/* All the turns from context_start() to the one before `turn` (of `index`) are in it. */
bool context_covers(const struct context *c, const struct uuid *turn, uint64_t index, uint64_t keep);
/* Forget the turns before `index`. */
void context_cut(struct context *c, uint64_t index);

/*
 * The messages before `turn` from context_start() on, and `user` (may be empty) as the last one.  *ret_list is owned:
 * free() it; the texts are borrowed from the context and `user`.
 */
enum tr_rc context_messages(const struct context *c, const struct uuid *turn, uint64_t index, uint64_t keep,
                            struct slice user, struct prompt_recent **ret_list, size_t *ret_n) TR_MUST_CHECK;

#endif
