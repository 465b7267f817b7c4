/*
 * sequences - which chat's state each sequence of the KV cache holds: the tokens in it, oldest use first out.
 * Invariant: a sequence's token list is what stands in the cache, position by position.
 */
#ifndef ADAPTER_LLAMA_SEQUENCES_H
#define ADAPTER_LLAMA_SEQUENCES_H

#include "adapter/llama/loader.h"
#include "adapter/llama/tokens.h"
#include "domain/uuid.h"

struct sequence {
    llama_seq_id id;
    struct uuid chat; /* nil: free */
    struct tokens tokens;
    uint64_t used; /* grows with every use */
};

struct sequences {
    llama_memory_t memory; /* the context's */
    struct sequence *v;
    uint32_t n;
    uint64_t uses;
};

enum tr_rc sequences_init(struct sequences *s, const struct loaded *l, struct tr_err *err) TR_MUST_CHECK;
void sequences_release(struct sequences *s); /* wipes; a zeroed one is fine */

/*
 * The chat's sequence (else a free one, else the one not used for longest).  It holds as long a beginning of `prompt`
 * as is kept (of this chat or, for a new one, of any), and nothing else; never all of it: the last token must be read
 * for the next one to be told.
 */
struct sequence *sequences_take(struct sequences *s, const struct uuid *chat, const struct tokens *prompt);
/* After a decode that ended early: cut the list to what is really in the cache. */
void sequences_settle(struct sequences *s, struct sequence *seq);
void sequences_clear(struct sequences *s, struct sequence *seq);     /* empty, still the chat's */
void sequences_forget(struct sequences *s, const struct uuid *chat); /* NULL: every chat */

#endif
