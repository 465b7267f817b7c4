/*
 * engine_fixture - an engine under test, and generations that check on the way the rules that hold for each of them.
 */
#ifndef CONTRACT_ENGINE_FIXTURE_H
#define CONTRACT_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "port/engine.h"
#include "support.h"

struct engine_adapter {
    const char *name;
    enum tr_rc (*open)(struct loop *loop, bool slow, struct engine **ret_engine, struct tr_err *err);
    bool has_line;  /* one generation at a time */
    bool has_model; /* a context that can be full, state that is kept */
};

struct engine_fixture {
    const struct engine_adapter *adapter;
    struct loop *loop;
    struct engine *engine;
};

/* One generation and what came of it. */
struct engine_gen {
    struct engine_fixture *f;
    struct engine_job *job;
    struct prompt_message messages[128];
    struct prompt prompt;
    struct buf text;
    struct engine_result result;
    struct tr_err err;
    enum tr_rc rc;
    bool started; /* generate() has returned */
    size_t starts, pieces, done, positions;
    uint32_t position;               /* the last one told */
    size_t stop_after, cancel_after; /* pieces; 0: never */
    size_t order;                    /* when it was done, of all */
    uint32_t max_tokens;
    float temperature;
    uint64_t seed;
    struct uuid chat;
};

extern size_t gen_done_all; /* generations that are done; to be set to 0 by a test that looks at their order */

/* Open the engine of the adapter that *state is; `slow`: so that there is time to stop it. */
void engine_setup(struct engine_fixture *f, void **state, bool slow);
void engine_teardown(struct engine_fixture *f);

/* A generation for chat number `chat`, with a system part and, unless `text` is NULL, one message of the user's. */
void gen_init(struct engine_gen *g, struct engine_fixture *f, uint8_t chat, const char *text);
void gen_say(struct engine_gen *g, enum speaker speaker, const char *text, bool fixed);
enum tr_rc gen_start(struct engine_gen *g);
void gen_wait(struct engine_gen *g);
void gen_run(struct engine_gen *g); /* start and wait */
void gen_ok(struct engine_gen *g);  /* the same, and it must end with TR_OK */

#ifdef TROUPE_WITH_LLAMA
enum tr_rc engine_llama_open(struct loop *loop, bool slow, struct engine **ret_engine, struct tr_err *err);
int engine_llama_run(struct engine_adapter *llama); /* what only this engine can be held to; the number of failures */
#endif

#endif
