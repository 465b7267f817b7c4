/* tokens - see tokens.h. */
#include "adapter/llama/tokens.h"

#include <stdlib.h>
#include <string.h>

bool tokens_reserve(struct tokens *t, size_t more)
{
    size_t cap = t->cap == 0 ? 256 : t->cap;
    llama_token *v;

    while (cap < t->n + more)
        cap *= 2;
    if (cap == t->cap)
        return true;
    v = malloc(cap * sizeof *v); /* not realloc(): the old place is to be wiped */
    if (v == NULL)
        return false;
    if (t->n > 0)
        memcpy(v, t->v, t->n * sizeof *v);
    if (t->v != NULL)
        explicit_bzero(t->v, t->cap * sizeof *v);
    free(t->v);
    t->v = v;
    t->cap = cap;
    return true;
}

bool tokens_add(struct tokens *t, llama_token token)
{
    if (!tokens_reserve(t, 1))
        return false;
    t->v[t->n++] = token;
    return true;
}

enum tr_rc tokens_add_text(struct tokens *t, const struct llama_vocab *vocab, const char *text, size_t len,
                           bool special)
{
    size_t room = len / 2 + 16;

    if (len == 0)
        return TR_OK;
    if (len > INT32_MAX / 4)
        return TR_INVALID;
    for (;;) {
        int32_t n;

        if (!tokens_reserve(t, room))
            return TR_NOMEM;
        n = llama_tokenize(vocab, text, (int32_t)len, t->v + t->n, (int32_t)room, false, special);
        if (n >= 0) {
            t->n += (size_t)n;
            return TR_OK;
        }
        if (n == INT32_MIN || (size_t)-n <= room)
            return TR_INVALID;
        room = (size_t)-n;
    }
}

size_t tokens_common(const struct tokens *a, const struct tokens *b)
{
    size_t n = a->n < b->n ? a->n : b->n, i = 0;

    while (i < n && a->v[i] == b->v[i])
        i++;
    return i;
}

void tokens_cut(struct tokens *t, size_t n)
{
    if (n >= t->n)
        return;
    explicit_bzero(t->v + n, (t->n - n) * sizeof *t->v);
    t->n = n;
}

void tokens_wipe(struct tokens *t)
{
    if (t->v != NULL)
        explicit_bzero(t->v, t->cap * sizeof *t->v);
    free(t->v);
    *t = (struct tokens){0};
}
