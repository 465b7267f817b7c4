/*
 * generation - one reply: the prompt is read in pieces, then a token after the other is sampled and read.
 * Threads: all of it on the engine's own thread; what it asks and tells goes through generation_io.
 */
#ifndef ADAPTER_LLAMA_GENERATION_H
#define ADAPTER_LLAMA_GENERATION_H

#include "adapter/llama/pieces.h"
#include "adapter/llama/sequences.h"
#include "adapter/llama/threads.h"
#include "port/engine.h"

enum generation_wish { GENERATION_GO_ON = 0, GENERATION_STOP, GENERATION_CANCEL };

struct generation_io {
    enum generation_wish (*wish)(void *ctx);         /* asked often: before every token, and while reading */
    void (*text)(void *ctx, const struct buf *text); /* whole characters, not empty; borrowed */
    void *ctx;
};

/* What the thread works with from one generation to the next. */
struct generator {
    struct loaded loaded;
    struct sequences sequences;
    struct pieces_stops stops;
    struct llama_batch batch;
    struct threads threads;
    /* of the generation under way */
    const struct generation_io *io;
    uint64_t timeout_ns, deadline_ns; /* 0: none */
};

/* Takes *loaded over in any case. */
enum tr_rc generator_init(struct generator *g, struct loaded *loaded, struct tr_err *err) TR_MUST_CHECK;
void generator_release(struct generator *g);
/* Touch the weights once, so that the first reply does not pay for it. */
void generator_warm_up(struct generator *g);

/*
 *   TR_OK        *result is filled: stop, length or stopped
 *   TR_CANCELLED the wish
 *   TR_INVALID   the prompt can't fit;  TR_TRANSIENT: libllama failed, or no sign of life for the request's timeout
 */
enum tr_rc generation_run(struct generator *g, const struct engine_request *req, const struct generation_io *io,
                          struct engine_result *result, struct tr_err *err) TR_MUST_CHECK;

#endif
