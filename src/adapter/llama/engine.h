/*
 * llama engine - libllama in this process.  One thread of its own is the only user of libllama's handles; it works on
 * one generation at a time, the others wait in line.
 * Every chat has a sequence of the KV cache that is kept between its turns, so that only what is new must be read.
 */
#ifndef ADAPTER_LLAMA_ENGINE_H
#define ADAPTER_LLAMA_ENGINE_H

#include "base/loop.h"
#include "port/engine.h"

/* Zero means the default in each. */
struct llama_engine_options {
    uint32_t threads;        /* as many as cores are free at the moment, at most 16 */
    uint32_t context_tokens; /* of one chat: 4096, at most what the model was trained for */
    uint32_t kv_mib;         /* memory for the chats' kept state: 512 */
    uint32_t sequences;      /* chats kept at once: as many as fit into kv_mib, at least 1 */
};

/*
 * Load the model (98 MB in a fraction of a second) and start the thread.  opt may be NULL.
 *   TR_INVALID    no such file, not a GGUF, cut, or not a model for chat: err says what and how to mend it
 *   TR_NOMEM, TR_TRANSIENT
 */
enum tr_rc llama_engine_open(struct loop *loop, const char *path, const struct llama_engine_options *opt,
                             struct engine **ret_engine, struct tr_err *err) TR_MUST_CHECK;

#endif
