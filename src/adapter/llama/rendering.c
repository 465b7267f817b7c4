/*
 * rendering - see rendering.h.
 * The template is applied to placeholders, one a message, and the result is cut at them: the pieces between are the
 * template's, tokenised with special tokens, and each message's text is tokenised once, without.
 */
#include "adapter/llama/rendering.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK_FIRST '\x02' /* placeholder of message 7: \x02 7 \x03 */
#define MARK_LAST '\x03'
#define MARK_MAX 16
#define TRIES_MAX 4

/* One message on its way into the prompt. */
struct item {
    struct tokens tokens; /* of its text */
    enum speaker speaker;
    bool fixed, dropped;
    uint32_t around; /* tokens of the template's piece behind it (and, for the first, before it) */
};

struct items {
    struct item *v;
    size_t n;
};

static void items_release(struct items *items)
{
    for (size_t i = 0; i < items->n; i++)
        tokens_wipe(&items->v[i].tokens);
    free(items->v);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static enum tr_rc items_fill(const struct loaded *l, const struct prompt *prompt, struct items *items)
{
    items->v = calloc(prompt->n > 0 ? prompt->n : 1, sizeof *items->v);
    if (items->v == NULL)
        return TR_NOMEM;
    items->n = prompt->n;
    for (size_t i = 0; i < prompt->n; i++) {
        const struct prompt_message *m = &prompt->messages[i];
        const char *text = m->text;
        size_t len = m->len;
        enum tr_rc rc;

        while (len > 0 && is_space(text[len - 1])) /* as templates do; white space at an edge would change the tokens */
            len--;
        while (len > 0 && is_space(text[0])) {
            text++;
            len--;
        }
        items->v[i].speaker = m->speaker;
        items->v[i].fixed = m->fixed;
        rc = tokens_add_text(&items->v[i].tokens, l->vocab, text, len, false);
        if (rc != TR_OK)
            return rc;
    }
    return TR_OK;
}

static const char *role_of(enum speaker speaker)
{
    return speaker == SPEAKER_SYSTEM ? "system" : speaker == SPEAKER_USER ? "user" : "assistant";
}

/* Apply the template to the placeholders of what is not dropped; *ret_text is owned by the caller. */
static enum tr_rc apply(const struct loaded *l, const struct items *items, char **ret_text, size_t *ret_len)
{
    struct llama_chat_message *chat = calloc(items->n > 0 ? items->n : 1, sizeof *chat);
    char(*marks)[MARK_MAX] = calloc(items->n > 0 ? items->n : 1, sizeof *marks);
    char *text = NULL;
    size_t n = 0;
    int32_t len;
    enum tr_rc rc = TR_NOMEM;

    if (chat == NULL || marks == NULL)
        goto out;
    for (size_t i = 0; i < items->n; i++) {
        if (items->v[i].dropped)
            continue;
        snprintf(marks[i], MARK_MAX, "%c%u%c", MARK_FIRST, (unsigned)i, MARK_LAST);
        chat[n++] = (struct llama_chat_message){.role = role_of(items->v[i].speaker), .content = marks[i]};
    }
    len = llama_chat_apply_template(l->template, chat, n, true, NULL, 0);
    if (len < 0) {
        rc = TR_INVALID;
        goto out;
    }
    text = malloc((size_t)len + 1);
    if (text == NULL)
        goto out;
    if (llama_chat_apply_template(l->template, chat, n, true, text, len + 1) != len) {
        rc = TR_INVALID;
        goto out;
    }
    text[len] = 0;
    *ret_text = text;
    *ret_len = (size_t)len;
    text = NULL;
    rc = TR_OK;
out:
    free(text);
    free(marks);
    free(chat);
    return rc;
}

/* The template's piece from `piece` on; a message follows it or the prompt's end. */
static enum tr_rc add_piece(const struct loaded *l, struct tokens *out, const char *piece, size_t len,
                            bool message_next)
{
    /* this kind of tokeniser puts a space before every text by itself */
    if (message_next && len > 0 && piece[len - 1] == ' ' && llama_vocab_type(l->vocab) == LLAMA_VOCAB_TYPE_SPM)
        len--;
    return tokens_add_text(out, l->vocab, piece, len, true);
}

/* Put the whole together; each item's `around` is what the template spent on it. */
static enum tr_rc compose(const struct loaded *l, struct items *items, const char *text, struct tokens *out)
{
    llama_token bos = llama_vocab_bos(l->vocab);
    bool add_bos = llama_vocab_get_add_bos(l->vocab) && bos != LLAMA_TOKEN_NULL;
    struct item *before = NULL;
    const char *at = text;
    enum tr_rc rc;

    if (add_bos && !tokens_add(out, bos))
        return TR_NOMEM;
    for (;;) {
        const char *mark = strchr(at, MARK_FIRST);
        size_t had = out->n, i;
        struct item *item;

        rc = add_piece(l, out, at, mark != NULL ? (size_t)(mark - at) : strlen(at), mark != NULL);
        if (rc != TR_OK)
            return rc;
        if (add_bos && had == 1 && before == NULL && out->n > 1 && out->v[1] == bos) { /* the template has one, too */
            memmove(out->v, out->v + 1, (out->n - 1) * sizeof *out->v);
            out->n--;
        }
        if (before != NULL)
            before->around += (uint32_t)(out->n - had);
        if (mark == NULL)
            return TR_OK;
        i = strtoul(mark + 1, NULL, 10);
        item = &items->v[i < items->n ? i : 0];
        item->around = before == NULL ? (uint32_t)out->n : 0;
        if (!tokens_reserve(out, item->tokens.n))
            return TR_NOMEM;
        if (item->tokens.n > 0)
            memcpy(out->v + out->n, item->tokens.v, item->tokens.n * sizeof *out->v);
        out->n += item->tokens.n;
        before = item;
        at = strchr(mark, MARK_LAST) + 1;
    }
}

static enum tr_rc render(const struct loaded *l, struct items *items, struct tokens *out, struct tr_err *err)
{
    char *text = NULL;
    size_t len = 0;
    enum tr_rc rc = apply(l, items, &text, &len);

    if (rc == TR_OK) {
        tokens_cut(out, 0);
        rc = compose(l, items, text, out);
    }
    free(text);
    if (rc == TR_INVALID)
        return tr_fail(err, rc, "the model's chat template does not take these messages");
    return rc == TR_OK ? rc : tr_fail(err, rc, "rendering a prompt");
}

/* Mark the oldest messages as dropped so that the rest should fit. */
static enum tr_rc trim(struct items *items, uint32_t budget, struct tr_err *err)
{
    uint32_t *cost = calloc(items->n, sizeof *cost);
    enum speaker *speakers = calloc(items->n, sizeof *speakers);
    bool *fixed = calloc(items->n, sizeof *fixed);
    size_t drop = 0;
    enum tr_rc rc;

    if (cost == NULL || speakers == NULL || fixed == NULL) {
        rc = tr_fail(err, TR_NOMEM, "trimming a prompt");
        goto out;
    }
    for (size_t i = 0; i < items->n; i++) {
        cost[i] = (uint32_t)items->v[i].tokens.n + items->v[i].around;
        speakers[i] = items->v[i].speaker;
        fixed[i] = items->v[i].fixed;
    }
    rc = prompt_trim(cost, fixed, speakers, items->n, budget, &drop, err);
    if (rc != TR_OK)
        goto out;
    for (size_t i = 0; i < items->n; i++) {
        items->v[i].dropped = drop > 0 && !fixed[i];
        drop -= items->v[i].dropped;
    }
out:
    free(fixed);
    free(speakers);
    free(cost);
    return rc;
}

enum tr_rc rendering_build(const struct loaded *l, const struct prompt *prompt, uint32_t budget, struct tokens *out,
                           struct tr_err *err)
{
    struct items items = {0};
    uint32_t room = budget;
    enum tr_rc rc;

    if (prompt->n == 0)
        return tr_fail(err, TR_INVALID, "the prompt has no message");
    rc = items_fill(l, prompt, &items);
    if (rc != TR_OK) {
        rc = tr_fail(err, rc, "tokenising a prompt");
        goto out;
    }
    rc = render(l, &items, out, err);
    /* the costs are those of the whole; a template may spend more once messages are gone, so it is measured again */
    for (int i = 0; rc == TR_OK && out->n > budget; i++) {
        size_t over = out->n - budget;

        if (i == TRIES_MAX || (i > 0 && over >= room)) {
            rc = tr_fail(err, TR_INVALID, "the prompt has %zu tokens, %u fit", out->n, budget);
            break;
        }
        if (i > 0)
            room -= (uint32_t)over;
        for (size_t k = 0; k < items.n; k++)
            items.v[k].dropped = false;
        rc = trim(&items, room, err);
        if (rc == TR_OK)
            rc = render(l, &items, out, err);
    }
    if (rc == TR_OK && out->n == 0)
        rc = tr_fail(err, TR_INVALID, "the prompt is empty");
out:
    items_release(&items);
    return rc;
}

void rendering_stops(const struct loaded *l, struct pieces_stops *ret_stops)
{
    const struct llama_chat_message chat[] = {{.role = "user",
                                               .content = "\x02"
                                                          "0\x03"},
                                              {.role = "assistant",
                                               .content = "\x02"
                                                          "1\x03"},
                                              {.role = "user",
                                               .content = "\x02"
                                                          "2\x03"}};
    char text[1024];
    int32_t len = llama_chat_apply_template(l->template, chat, 3, false, text, sizeof text - 1);
    char *from, *to, *line, *rest;

    ret_stops->n = 0;
    if (len <= 0 || (size_t)len >= sizeof text)
        return;
    text[len] = 0;
    from = strstr(text, "\x02"
                        "1\x03");
    to = strstr(text, "\x02"
                      "2\x03");
    if (from == NULL || to == NULL || to < from)
        return;
    *to = 0;
    rest = from + 3;
    while ((line = strsep(&rest, "\n")) != NULL && ret_stops->n < PIECES_STOPS_MAX) {
        size_t n;

        while (is_space(*line))
            line++;
        n = strlen(line);
        while (n > 0 && is_space(line[n - 1]))
            line[--n] = 0;
        /* "<|im_end|>", "### Instruction:", "[INST]": marks; not a bare word, which a reply may hold */
        if (n < 4 || n >= PIECES_STOP_LEN || strchr("<[#|", line[0]) == NULL)
            continue;
        memcpy(ret_stops->text[ret_stops->n++], line, n + 1);
    }
}
