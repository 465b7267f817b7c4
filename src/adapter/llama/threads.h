/*
 * threads - how many threads compute just now.  libllama's threads meet hundreds of times a token and spin while they
 * wait: where another program takes one of their cores away, two threads are ten times slower than one.  So the number
 * follows the cores that are free, up to `most`.
 */
#ifndef ADAPTER_LLAMA_THREADS_H
#define ADAPTER_LLAMA_THREADS_H

#include "adapter/llama/loader.h"

#define THREADS_SEEN 4

struct threads {
    struct llama_context *ctx; /* borrowed; NULL: the number is fixed */
    uint32_t most, now;
    uint32_t seen[THREADS_SEEN]; /* the last looks: cores that were free */
    size_t looks;
    uint64_t last_ns;
};

void threads_init(struct threads *t, const struct loaded *l);
/* Before a prompt is read: several looks within a millisecond. */
void threads_begin(struct threads *t);
/* Before a token is computed. */
void threads_step(struct threads *t);

#endif
