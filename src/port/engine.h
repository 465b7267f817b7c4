/*
 * engine - what writes the replies.
 * Adapters: llama (libllama, in this process), stub (no model); later openai (an HTTP API, hundreds at once).
 * tests/contract/engine.c holds each of them to these rules:
 *  1. Operations follow base/op.h; on_text and on_done come on the loop's thread, never before `generate` has returned.
 *  2. on_text's pieces put together are the reply; a piece never ends inside a UTF-8 character, and is never empty.
 *  3. stop: within one token generation ends, and on_done comes with TR_OK and FINISH_STOPPED; cancel: with TR_CANCELLED.
 *  4. More generations may be started than there are slots: they wait their turn, in order; on_start says when one begins.
 *  5. The engine renders the messages with its model's own chat template and drops the oldest by prompt_trim().
 *  6. State kept of a chat between generations is the engine's own affair; forget() drops it.
 */
#ifndef PORT_ENGINE_H
#define PORT_ENGINE_H

#include "base/op.h"
#include "domain/prompt.h"

struct engine;
struct engine_job; /* one generation */

struct engine_info {
    const char *engine;      /* "llama", "stub" */
    const char *model;       /* a name for people */
    const char *device;      /* "CPU, 2 threads" */
    uint32_t slots;          /* how many it works on at once */
    uint32_t context_tokens; /* of one generation: prompt and reply together */
};

struct engine_request {
    struct uuid chat;
    const char *character_name;  /* borrowed until on_done */
    const struct prompt *prompt; /* borrowed until on_done */
    struct slice said;   /* the user's words as sent, for engines without a model; borrowed until generate returns */
    uint32_t max_tokens; /* of the reply */
    float temperature, top_p, min_p; /* temperature 0: greedy */
    uint64_t seed;
    uint64_t timeout_ms; /* without a sign of life: TR_TRANSIENT */
};

struct engine_result {
    enum finish finish; /* FINISH_STOP, FINISH_LENGTH, FINISH_STOPPED */
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
};

struct engine_callbacks {
    void (*on_start)(void *ctx);                       /* left the line; may be NULL */
    void (*on_position)(void *ctx, uint32_t position); /* place in the line, from 1; may be NULL */
    void (*on_text)(void *ctx, const char *text, size_t len);
    /* Exactly once.  The job is gone.  TR_INVALID: the prompt can't fit; TR_TRANSIENT: the engine failed. */
    void (*on_done)(void *ctx, enum tr_rc rc, const struct engine_result *result, const struct tr_err *err);
};

struct engine_ops {
    const char *scheme;
    const struct engine_info *(*info)(const struct engine *e); /* borrowed: until close */
    enum tr_rc (*generate)(struct engine *e, const struct engine_request *req, const struct engine_callbacks *cb,
                           void *ctx, struct engine_job **ret_job, struct tr_err *err);
    void (*stop)(struct engine *e, struct engine_job *job);   /* the user's wish: see rule 3 */
    void (*cancel)(struct engine *e, struct engine_job *job); /* ours */
    void (*forget)(struct engine *e, const struct uuid *chat);
    void (*close)(struct engine *e); /* generations under way end with TR_CANCELLED before it returns */
};

struct engine { /* first member of every adapter's own struct */
    const struct engine_ops *ops;
};

#endif
