/*
 * prompt - see prompt.h.  The system part is the same bytes for the same card and user; what changes from turn to turn
 * (lore found by its keys, post_history) stands at the last user message only.
 */
#include "domain/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

static const char default_system[] = "You are {{char}}, a character in a conversation with {{user}}. "
                                     "Always stay in character: think, feel and speak as {{char}}. "
                                     "Write only {{char}}'s next reply. Never write, act or decide for {{user}}. "
                                     "Answer in the language that {{user}} writes in.";

/* `text` with {{original}} replaced, then the names. */
static void add_expanded(const char *text, const char *original, const char *character, const char *user,
                         struct buf *out)
{
    static const char macro[] = "{{original}}";
    struct buf whole = {0};

    while (*text != '\0') {
        if (strncasecmp(text, macro, sizeof macro - 1) == 0) {
            buf_add_str(&whole, original);
            text += sizeof macro - 1;
        } else {
            buf_add_u8(&whole, (uint8_t)*text++);
        }
    }
    card_expand(buf_str(&whole), character, user, out);
    out->failed = out->failed || whole.failed;
    buf_release(&whole);
}

static bool empty(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '\0';
}

static void add_section(const char *title, const char *text, const char *character, const char *user, struct buf *out)
{
    if (empty(text))
        return;
    buf_add_str(out, "\n\n");
    card_expand(title, character, user, out);
    card_expand(text, character, user, out);
}

/* One message of the example dialogue; points into the expanded text. */
struct example {
    enum speaker speaker;
    const char *text;
    size_t len;
};
#define EXAMPLES_MAX 64

static const char start_mark[] = "<START>";

/* Behind "NAME:" at the line's beginning; NULL: the line is not NAME's. */
static const char *behind_name(const char *line, const char *name)
{
    size_t len = strlen(name);

    return strncmp(line, name, len) == 0 && line[len] == ':' ? line + len + 1 : NULL;
}

/* The last one is whole: white space off its ends; out with it if nothing is left, or if nobody answers the user. */
static size_t end_example(struct example *v, size_t n, bool answered)
{
    struct example *e = n > 0 ? &v[n - 1] : NULL;

    if (e == NULL)
        return 0;
    while (e->len > 0 && strchr(" \t\r\n", *e->text) != NULL) {
        e->text++;
        e->len--;
    }
    while (e->len > 0 && strchr(" \t\r\n", e->text[e->len - 1]) != NULL)
        e->len--;
    return e->len == 0 || (e->speaker == SPEAKER_USER && !answered) ? n - 1 : n;
}

/*
 * The example dialogue (its names replaced) as messages: a line that begins with a name and a colon begins one, <START>
 * begins anew.  0: it is no dialogue of the two.
 */
static size_t split_examples(const char *text, const char *character, const char *user, struct example *v)
{
    bool open = false;
    size_t n = 0;

    for (const char *line = text, *next; *line != '\0'; line = next) {
        const char *end = strchrnul(line, '\n'), *said;
        enum speaker speaker = SPEAKER_CHARACTER;

        next = *end == '\n' ? end + 1 : end;
        line += strspn(line, " \t");
        said = behind_name(line, character);
        if (said == NULL && (said = behind_name(line, user)) != NULL)
            speaker = SPEAKER_USER;
        if (strncasecmp(line, start_mark, sizeof start_mark - 1) == 0) {
            n = end_example(v, n, false);
            open = false;
        } else if (said != NULL) {
            n = end_example(v, n, speaker == SPEAKER_CHARACTER);
            if (n == EXAMPLES_MAX)
                return end_example(v, n, false);
            v[n++] = (struct example){speaker, said, (size_t)(end - said)};
            open = true;
        } else if (open) {
            v[n - 1].len = (size_t)(end - v[n - 1].text);
        } else if (line < end && *line != '\r') {
            return 0;
        }
    }
    return end_example(v, n, false);
}

/* An example that is no dialogue, without its marks. */
static void add_prose(const char *text, struct buf *out)
{
    while (*text != '\0') {
        if (strncasecmp(text, start_mark, sizeof start_mark - 1) == 0)
            text += sizeof start_mark - 1;
        else
            buf_add_u8(out, (uint8_t)*text++);
    }
}

/* The entries for which chosen[] says so, by their order, then as they stand. */
static void add_lore(const struct card *card, const bool *chosen, const char *user, struct buf *out)
{
    bool first = true;
    long long after = -(1LL << 62);

    for (;;) { /* one round for each order that occurs, from the lowest */
        long long order = 1LL << 62;

        for (size_t i = 0; i < card->lore_n; i++)
            if (chosen[i] && card->lore[i].order > after && card->lore[i].order < order)
                order = card->lore[i].order;
        if (order == 1LL << 62)
            return;
        for (size_t i = 0; i < card->lore_n; i++) {
            if (!chosen[i] || card->lore[i].order != order || empty(card->lore[i].content))
                continue;
            if (!first)
                buf_add_u8(out, '\n');
            card_expand(card->lore[i].content, card->name, user, out);
            first = false;
        }
        after = order;
    }
}

/* `examples`: the example dialogue, names replaced; `examples_n` messages of it follow the system part, 0: none. */
static void add_system(const struct card *card, const char *user, const char *examples, size_t examples_n,
                       struct buf *out)
{
    bool constant[CARD_LORE_MAX];
    struct buf lore = {0}, prose = {0};

    if (empty(card->system_prompt))
        card_expand(default_system, card->name, user, out);
    else
        add_expanded(card->system_prompt, default_system, card->name, user, out);
    add_section("About {{char}}:\n", card->description, card->name, user, out);
    add_section("{{char}}'s personality:\n", card->personality, card->name, user, out);
    add_section("The scene:\n", card->scenario, card->name, user, out);
    for (size_t i = 0; i < card->lore_n; i++)
        constant[i] = card->lore[i].enabled && card->lore[i].constant;
    add_lore(card, constant, user, &lore);
    if (lore.len > 0) {
        buf_add_str(out, "\n\nGood to know:\n");
        buf_add(out, lore.data, lore.len);
    }
    out->failed = out->failed || lore.failed;
    buf_release(&lore);
    if (examples_n > 0) {
        add_section("The first messages are an example of how {{char}} talks. ", "The conversation begins after them.",
                    card->name, user, out);
    } else {
        add_prose(examples, &prose);
        add_section("How {{char}} talks, as an example:\n", buf_str(&prose), card->name, user, out);
    }
    out->failed = out->failed || prose.failed;
    buf_release(&prose);
}

/* Small letters: ASCII by hand, the rest by Unicode's case folding. */
static void add_folded(const char *s, size_t len, struct buf *out)
{
    utf8proc_uint8_t *folded = NULL;
    bool ascii = true;

    for (size_t i = 0; i < len && ascii; i++)
        ascii = (uint8_t)s[i] < 0x80;
    if (!ascii) {
        utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &folded,
                                          UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);

        if (n >= 0) {
            buf_add(out, folded, (size_t)n);
            free(folded);
            return;
        }
        out->failed = out->failed || n == UTF8PROC_ERROR_NOMEM;
    }
    for (size_t i = 0; i < len; i++)
        buf_add_u8(out, (uint8_t)(s[i] >= 'A' && s[i] <= 'Z' ? s[i] - 'A' + 'a' : s[i]));
}

static bool stands_in(const struct buf *text, const struct buf *key)
{
    return key->len > 0 && text->len >= key->len && memmem(text->data, text->len, key->data, key->len) != NULL;
}

static bool matches(const struct card_entry *e, const struct buf *plain, const struct buf *folded, struct buf *spare)
{
    for (size_t i = 0; i < e->keys_n; i++) {
        buf_clear(spare);
        if (e->case_sensitive)
            buf_add_str(spare, e->keys[i]);
        else
            add_folded(e->keys[i], strlen(e->keys[i]), spare);
        if (stands_in(e->case_sensitive ? plain : folded, spare))
            return true;
    }
    return false;
}

/* The lore whose keys stand in the last messages, as one bracketed paragraph before the user's words. */
static void add_found_lore(const struct card *card, const char *user, const struct prompt_recent *recent, size_t n,
                           struct buf *out)
{
    size_t depth = (size_t)card->lore_scan_depth;
    struct buf plain = {0}, folded = {0}, spare = {0}, lore = {0};
    bool found[CARD_LORE_MAX];

    for (size_t i = n > depth ? n - depth : 0; i < n; i++) {
        buf_add(&plain, recent[i].text, recent[i].len);
        buf_add_u8(&plain, '\n');
        add_folded(recent[i].text, recent[i].len, &folded);
        buf_add_u8(&folded, '\n');
    }
    for (size_t i = 0; i < card->lore_n; i++) {
        const struct card_entry *e = &card->lore[i];

        found[i] = e->enabled && !e->constant && matches(e, &plain, &folded, &spare);
    }
    add_lore(card, found, user, &lore);
    if (lore.len > 0) {
        buf_add_str(out, "[Good to know: ");
        buf_add(out, lore.data, lore.len);
        buf_add_str(out, "]\n\n");
    }
    out->failed = out->failed || plain.failed || folded.failed || spare.failed || lore.failed;
    buf_release(&plain);
    buf_release(&folded);
    buf_release(&spare);
    buf_release(&lore);
}

static void add_last(const struct card *card, const char *user, const struct prompt_recent *recent, size_t n,
                     size_t last, struct buf *out)
{
    add_found_lore(card, user, recent, n, out);
    buf_add(out, recent[last].text, recent[last].len);
    if (!empty(card->post_history)) {
        buf_add_str(out, "\n\n[");
        add_expanded(card->post_history, "", card->name, user, out);
        buf_add_str(out, "]");
    }
}

/* Move the text over into the message. */
static enum tr_rc put(struct prompt_message *m, enum speaker speaker, bool fixed, struct buf *text)
{
    uint8_t *end = buf_reserve(text, 1);

    if (end == NULL) {
        buf_release(text);
        return TR_NOMEM;
    }
    *end = '\0'; /* uncounted, for readers that like one; so the text is never NULL */
    *m = (struct prompt_message){speaker, (const char *)text->data, text->len, fixed};
    *text = (struct buf){0};
    return TR_OK;
}

/* The system part and the example dialogue: what every prompt of this card begins with. */
static enum tr_rc put_beginning(const struct card *card, const char *user, const struct example *v, size_t n,
                                const char *examples, struct prompt *p)
{
    struct buf text = {0};
    enum tr_rc rc;

    add_system(card, user, examples, n, &text);
    rc = put(&p->messages[p->n++], SPEAKER_SYSTEM, true, &text);
    for (size_t i = 0; i < n && rc == TR_OK; i++) {
        buf_add(&text, v[i].text, v[i].len);
        rc = put(&p->messages[p->n++], v[i].speaker, true, &text);
    }
    return rc;
}

enum tr_rc prompt_build(const struct card *card, const char *user_name, const struct prompt_recent *recent, size_t n,
                        struct prompt *ret_prompt)
{
    struct prompt p = {calloc(n + 1 + EXAMPLES_MAX, sizeof p.messages[0]), 0};
    struct example v[EXAMPLES_MAX];
    struct buf examples = {0}, text = {0};
    size_t last = n; /* the last message of the user; n: none */
    enum tr_rc rc = TR_NOMEM;

    if (p.messages == NULL)
        return TR_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (recent[i].speaker == SPEAKER_USER)
            last = i;
    card_expand(card->example_dialogue, card->name, user_name, &examples);
    if (!examples.failed)
        rc = put_beginning(card, user_name, v, split_examples(buf_str(&examples), card->name, user_name, v),
                           buf_str(&examples), &p);
    for (size_t i = 0; i < n && rc == TR_OK; i++) {
        if (i == last)
            add_last(card, user_name, recent, n, last, &text);
        else
            buf_add(&text, recent[i].text, recent[i].len);
        rc = put(&p.messages[p.n++], recent[i].speaker, i == last, &text);
    }
    buf_release(&examples);
    if (rc != TR_OK) {
        prompt_release(&p);
        return rc;
    }
    *ret_prompt = p;
    return TR_OK;
}

void prompt_release(struct prompt *prompt)
{
    for (size_t i = 0; i < prompt->n; i++)
        free((char *)(uintptr_t)prompt->messages[i].text);
    free(prompt->messages);
    *prompt = (struct prompt){0};
}

/*
 * What comes before the first message that may go (the system part) is a constant of the chat: base is the room behind
 * it, and everything from there on is the total that grows.  Steps of half the base, counted from the total alone: the
 * same beginning for as long as the total stays within one step.
 */
enum tr_rc prompt_trim(const uint32_t *cost, const bool *fixed, const enum speaker *speakers, size_t n, uint32_t budget,
                       size_t *ret_drop, struct tr_err *err)
{
    uint64_t lead = 0, fixed_cost = 0, total = 0, base, step, target, gone = 0;
    size_t first = 0, drop = 0;

    while (first < n && fixed[first])
        lead += cost[first++];
    for (size_t i = 0; i < n; i++)
        fixed_cost += fixed[i] ? cost[i] : 0;
    for (size_t i = first; i < n; i++)
        total += cost[i];
    if (fixed_cost > budget)
        return tr_fail(err, TR_INVALID, "prompt: the fixed part takes %llu of %u tokens",
                       (unsigned long long)fixed_cost, budget);
    base = budget - lead;
    if (total <= base) {
        *ret_drop = 0;
        return TR_OK;
    }
    step = base / 2 > 0 ? base / 2 : 1;
    target = (total - base + step - 1) / step * step;
    for (size_t i = first; i < n; i++) {
        if (fixed[i])
            continue;
        if (gone >= target && (speakers == NULL || speakers[i] != SPEAKER_CHARACTER))
            break; /* enough, and the next one is no reply to what is gone */
        gone += cost[i];
        drop++;
    }
    *ret_drop = drop;
    return TR_OK;
}

uint64_t prompt_recent_start(uint64_t total, uint64_t keep)
{
    if (keep == 0)
        return total;
    if (total / 2 < keep || total == 2 * keep) /* total <= 2 * keep, without overflow */
        return 0;
    return (total - keep) / keep * keep;
}
