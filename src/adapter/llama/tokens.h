/*
 * tokens - a growable list of tokens.  They stand for a user's words, so they are wiped.  A zeroed one is empty.
 */
#ifndef ADAPTER_LLAMA_TOKENS_H
#define ADAPTER_LLAMA_TOKENS_H

#include "base/result.h"

#include <llama.h>

struct tokens {
    llama_token *v;
    size_t n, cap;
};

/* Room for `more`; false: no memory, the list is as it was. */
bool tokens_reserve(struct tokens *t, size_t more);
bool tokens_add(struct tokens *t, llama_token token);
/* Append those of `text`; `special`: the model's special tokens are known in it (for a template, never for a user). */
enum tr_rc tokens_add_text(struct tokens *t, const struct llama_vocab *vocab, const char *text, size_t len,
                           bool special) TR_MUST_CHECK;
/* How many of the first tokens are the same in both. */
size_t tokens_common(const struct tokens *a, const struct tokens *b);
/* Keep the first n. */
void tokens_cut(struct tokens *t, size_t n);
void tokens_wipe(struct tokens *t);

#endif
