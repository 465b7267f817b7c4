/* sequences - see sequences.h. */
#include "adapter/llama/sequences.h"

#include <stdlib.h>
#include <string.h>

#define SHARE_MIN 32 /* tokens; copying a whole sequence costs about as much as reading some ten */

enum tr_rc sequences_init(struct sequences *s, const struct loaded *l, struct tr_err *err)
{
    struct sequence *v = calloc(l->sequences, sizeof *v);

    if (v == NULL)
        return tr_fail(err, TR_NOMEM, "llama engine: sequences");
    for (uint32_t i = 0; i < l->sequences; i++)
        v[i].id = (llama_seq_id)i;
    *s = (struct sequences){.memory = llama_get_memory(l->ctx), .v = v, .n = l->sequences};
    return TR_OK;
}

void sequences_release(struct sequences *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        tokens_wipe(&s->v[i].tokens);
    free(s->v);
    *s = (struct sequences){0};
}

void sequences_clear(struct sequences *s, struct sequence *seq)
{
    llama_memory_seq_rm(s->memory, seq->id, -1, -1);
    tokens_wipe(&seq->tokens);
}

/* Another chat begins the same (a character's card): take that over instead of reading it again. */
static void share(struct sequences *s, struct sequence *seq, const struct tokens *prompt)
{
    const struct sequence *best = NULL;
    size_t most = SHARE_MIN - 1;

    for (uint32_t i = 0; i < s->n; i++) {
        size_t n = &s->v[i] == seq ? 0 : tokens_common(&s->v[i].tokens, prompt);

        if (n > most) {
            most = n;
            best = &s->v[i];
        }
    }
    if (best == NULL || !tokens_reserve(&seq->tokens, most))
        return;
    llama_memory_seq_cp(s->memory, best->id, seq->id, -1, -1); /* a part can't be copied: cut it afterwards */
    if (!llama_memory_seq_rm(s->memory, seq->id, (llama_pos)most, -1)) {
        sequences_clear(s, seq);
        return;
    }
    memcpy(seq->tokens.v, best->tokens.v, most * sizeof *seq->tokens.v);
    seq->tokens.n = most;
}

static struct sequence *find(struct sequences *s, const struct uuid *chat, const struct tokens *prompt)
{
    struct sequence *oldest = &s->v[0];

    for (uint32_t i = 0; i < s->n; i++) {
        if (uuid_eq(&s->v[i].chat, chat))
            return &s->v[i];
        if (s->v[i].used < oldest->used)
            oldest = &s->v[i];
    }
    sequences_clear(s, oldest);
    oldest->chat = *chat;
    share(s, oldest, prompt);
    return oldest;
}

struct sequence *sequences_take(struct sequences *s, const struct uuid *chat, const struct tokens *prompt)
{
    struct sequence *seq = find(s, chat, prompt);
    size_t keep = tokens_common(&seq->tokens, prompt);

    seq->used = ++s->uses;
    if (keep == prompt->n)
        keep--;
    /* some kinds of cache can't take a part back, or hold only the last stretch: then all of it is read again */
    if (keep == 0 || llama_memory_seq_pos_min(s->memory, seq->id) > 0 ||
        !llama_memory_seq_rm(s->memory, seq->id, (llama_pos)keep, -1)) {
        sequences_clear(s, seq);
        return seq;
    }
    tokens_cut(&seq->tokens, keep);
    return seq;
}

void sequences_settle(struct sequences *s, struct sequence *seq)
{
    llama_pos last = llama_memory_seq_pos_max(s->memory, seq->id);

    tokens_cut(&seq->tokens, last < 0 ? 0 : (size_t)last + 1);
    llama_memory_seq_rm(s->memory, seq->id, (llama_pos)seq->tokens.n, -1);
}

void sequences_forget(struct sequences *s, const struct uuid *chat)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (chat != NULL && !uuid_eq(&s->v[i].chat, chat))
            continue;
        sequences_clear(s, &s->v[i]);
        s->v[i].chat = uuid_nil;
        s->v[i].used = 0;
    }
}
