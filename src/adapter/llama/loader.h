/* loader - a model file and a context of libllama for it, with errors that a person can act on. */
#ifndef ADAPTER_LLAMA_LOADER_H
#define ADAPTER_LLAMA_LOADER_H

#include "adapter/llama/engine.h"

#include <llama.h>

#define LOADER_BATCH 256 /* tokens read in one go: a wish to stop is looked at in between */

struct loaded {
    struct llama_model *model;
    struct llama_context *ctx;
    const struct llama_vocab *vocab; /* the model's */
    const char *template;            /* the model's own or "chatml"; borrowed from the model, or static */
    uint32_t context_tokens;         /* of one sequence */
    uint32_t sequences;
    uint32_t threads;   /* at most */
    bool threads_fixed; /* exactly so many, whatever else runs */
    char name[96];
    char device[96];
};

/* Errors as llama_engine_open().  *ret is untouched on failure. */
enum tr_rc loader_open(const char *path, const struct llama_engine_options *opt, struct loaded *ret,
                       struct tr_err *err) TR_MUST_CHECK;
/* Overwrites the kept state of the chats first; a zeroed one is fine. */
void loader_release(struct loaded *l);

#endif
