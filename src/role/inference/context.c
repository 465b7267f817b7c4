/*
 * context - see context.h.
 * Bytes: version, flags (1: from the start), change, number of turns; each turn: id, index, length and bytes of the
 * user's text, of the reply.  Numbers are big endian, 64 bits; lengths 32.
 */
#include "role/inference/context.h"

#include "domain/field.h"
#include "domain/message.h"
#include "domain/text.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 1
#define HEAD (1 + 1 + 8 + 4)
#define TURN_HEAD (16 + 8)
#define TURNS_MAX 10000

static void wipe_text(char **text, size_t *len)
{
    struct buf b = {.data = (uint8_t *)*text, .len = *len, .cap = *len};

    if (*text != NULL)
        buf_wipe(&b);
    *text = NULL;
    *len = 0;
}

static void turn_wipe(struct context_turn *t)
{
    wipe_text(&t->user, &t->user_len);
    wipe_text(&t->reply, &t->reply_len);
}

void context_release(struct context *c)
{
    for (size_t i = 0; i < c->n; i++)
        turn_wipe(&c->turns[i]);
    free(c->turns);
    memset(c, 0, sizeof *c);
}

static bool copy_text(const void *data, size_t len, char **ret_text, size_t *ret_len)
{
    char *text;

    if (len == 0)
        return true;
    text = malloc(len);
    if (text == NULL)
        return false;
    memcpy(text, data, len);
    *ret_text = text;
    *ret_len = len;
    return true;
}

/* Room for one at `at`; NULL: no memory. */
static struct context_turn *insert(struct context *c, size_t at)
{
    if (c->n == c->cap) {
        size_t cap = c->cap == 0 ? 32 : c->cap * 2;
        struct context_turn *turns = realloc(c->turns, cap * sizeof *turns);

        if (turns == NULL)
            return NULL;
        c->turns = turns;
        c->cap = cap;
    }
    memmove(&c->turns[at + 1], &c->turns[at], (c->n - at) * sizeof *c->turns);
    memset(&c->turns[at], 0, sizeof *c->turns);
    c->n++;
    return &c->turns[at];
}

enum tr_rc context_encode(const struct context *c, struct buf *out)
{
    buf_add_u8(out, VERSION);
    buf_add_u8(out, c->from_start ? 1 : 0);
    buf_add_be64(out, c->change);
    buf_add_be32(out, (uint32_t)c->n);
    for (size_t i = 0; i < c->n; i++) {
        const struct context_turn *t = &c->turns[i];

        buf_add(out, t->turn.b, sizeof t->turn.b);
        buf_add_be64(out, t->index);
        buf_add_be32(out, (uint32_t)t->user_len);
        if (t->user_len > 0)
            buf_add(out, t->user, t->user_len);
        buf_add_be32(out, (uint32_t)t->reply_len);
        if (t->reply_len > 0)
            buf_add(out, t->reply, t->reply_len);
    }
    return out->failed ? TR_NOMEM : TR_OK;
}

static bool read_text(struct field_reader *r, char **ret_text, size_t *ret_len, bool *nomem)
{
    size_t len;

    if (r->left < 4)
        return false;
    len = (size_t)field_uint(r->p, 4);
    if (len > r->left - 4)
        return false;
    if (!copy_text(r->p + 4, len, ret_text, ret_len)) {
        *nomem = true;
        return false;
    }
    r->p += 4 + len;
    r->left -= 4 + len;
    return true;
}

static bool read_turn(struct field_reader *r, struct context *c, bool *nomem)
{
    struct context_turn *t;

    if (r->left < TURN_HEAD)
        return false;
    t = insert(c, c->n);
    if (t == NULL) {
        *nomem = true;
        return false;
    }
    memcpy(t->turn.b, r->p, sizeof t->turn.b);
    t->index = field_uint(r->p + 16, 8);
    r->p += TURN_HEAD;
    r->left -= TURN_HEAD;
    if (c->n > 1 && uuid_cmp(&c->turns[c->n - 2].turn, &t->turn) >= 0)
        return false;
    return read_text(r, &t->user, &t->user_len, nomem) && read_text(r, &t->reply, &t->reply_len, nomem);
}

enum tr_rc context_decode(const void *data, size_t len, struct context *ret_context, struct tr_err *err)
{
    struct field_reader r = {.p = data, .left = len};
    struct context c = {0};
    bool good, nomem = false;
    size_t n;

    if (len < HEAD || r.p[0] != VERSION)
        return tr_fail(err, TR_INVALID, "context: cut or of an unknown version");
    c.from_start = (r.p[1] & 1) != 0;
    c.change = field_uint(r.p + 2, 8);
    n = (size_t)field_uint(r.p + 10, 4);
    r.p += HEAD;
    r.left -= HEAD;
    good = n <= TURNS_MAX;
    for (size_t i = 0; good && i < n; i++)
        good = read_turn(&r, &c, &nomem);
    if (!good || r.left > 0) {
        context_release(&c);
        return tr_fail(err, nomem ? TR_NOMEM : TR_INVALID, nomem ? "context" : "context: malformed");
    }
    *ret_context = c;
    return TR_OK;
}

bool context_settled(const struct turn_view *view)
{
    return view->deleted || view->variants > 0;
}

static enum tr_rc open_row(const struct seal_key *key, const struct turn_row *row, struct buf *out, struct tr_err *err)
{
    const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                   .chat = row->chat,
                                   .turn = row->turn,
                                   .part = row->part,
                                   .rev = row->rev,
                                   .role = (uint8_t)row->speaker};

    if (row->sealed_len == 0)
        return TR_OK; /* stored without words */
    return seal_open(key, &bind, row->sealed, row->sealed_len, out, err);
}

/* Find where the turn stands or belongs. */
static size_t place(const struct context *c, const struct uuid *turn, bool *ret_found)
{
    size_t at = c->n;

    while (at > 0 && uuid_cmp(&c->turns[at - 1].turn, turn) >= 0)
        at--;
    *ret_found = at < c->n && uuid_eq(&c->turns[at].turn, turn);
    return at;
}

static enum tr_rc put(struct context *c, const struct uuid *turn, uint64_t index, struct slice user, struct slice reply)
{
    struct context_turn fresh = {.turn = *turn, .index = index}, *t;
    bool found;
    size_t at = place(c, turn, &found);

    if (!copy_text(user.data, user.len, &fresh.user, &fresh.user_len) ||
        !copy_text(reply.data, reply.len, &fresh.reply, &fresh.reply_len)) {
        turn_wipe(&fresh);
        return TR_NOMEM;
    }
    t = found ? &c->turns[at] : insert(c, at);
    if (t == NULL) {
        turn_wipe(&fresh);
        return TR_NOMEM;
    }
    turn_wipe(t);
    *t = fresh;
    return TR_OK;
}

enum tr_rc context_add(struct context *c, const struct uuid *turn, uint64_t index, struct slice user,
                       struct slice reply)
{
    return put(c, turn, index, user, reply);
}

enum tr_rc context_take(struct context *c, const struct seal_key *key, const struct turn_view *view, struct tr_err *err)
{
    struct buf raw = {0}, words = {0}, user = {0}, reply = {0};
    struct message m = {0};
    enum tr_rc rc = TR_OK;

    if (c->n > 0 && uuid_cmp(&view->turn, &c->turns[0].turn) < 0)
        return TR_OK;
    if (!view->deleted && view->user != NULL) {
        rc = open_row(key, view->user, &raw, err);
        if (rc == TR_OK)
            rc = message_decode(raw.data, raw.len, &m, err);
        if (rc == TR_OK)
            rc = text_normalise(m.text, m.len, &words, err);
        if (rc == TR_OK)
            message_tell(m.media, m.media_n, (const char *)words.data, words.len, &user);
        if (user.failed)
            rc = TR_NOMEM;
    }
    if (rc == TR_OK && !view->deleted && view->chosen >= 0)
        rc = open_row(key, view->variant[view->chosen], &reply, err);
    if (rc == TR_OK)
        rc = put(c, &view->turn, view->user != NULL ? view->user->index : 0, (struct slice){user.data, user.len},
                 (struct slice){reply.data, reply.len});
    buf_wipe(&raw);
    buf_wipe(&words);
    buf_wipe(&user);
    buf_wipe(&reply);
    return rc;
}

/*
 * Messages of a chat: the greeting is number 0, those of turn i are 2i - 1 and 2i.  A turn is kept whole or not at
 * all.
 */
uint64_t context_start(uint64_t index, uint64_t keep)
{
    return (prompt_recent_start(2 * index, keep) + 1) / 2;
}

bool context_covers(const struct context *c, const struct uuid *turn, uint64_t index, uint64_t keep)
{
    const uint64_t start = context_start(index, keep);
    uint64_t want = index;
    bool found;
    size_t at = place(c, turn, &found);

    while (at > 0 && want > start) {
        if (c->turns[at - 1].index + 1 != want)
            return false;
        at--;
        want--;
    }
    return want <= start || (at == 0 && c->from_start && c->n > 0);
}

void context_cut(struct context *c, uint64_t index)
{
    size_t n = 0;

    while (n < c->n && c->turns[n].index < index)
        turn_wipe(&c->turns[n++]);
    if (n == 0)
        return;
    memmove(c->turns, c->turns + n, (c->n - n) * sizeof *c->turns);
    c->n -= n;
    c->from_start = false;
}

static void add(struct prompt_recent *list, size_t *n, enum speaker speaker, const char *text, size_t len)
{
    if (len > 0)
        list[(*n)++] = (struct prompt_recent){.speaker = speaker, .text = text, .len = len};
}

enum tr_rc context_messages(const struct context *c, const struct uuid *turn, uint64_t index, uint64_t keep,
                            struct slice user, struct prompt_recent **ret_list, size_t *ret_n)
{
    const uint64_t start = context_start(index, keep);
    struct prompt_recent *list = calloc(2 * c->n + 1, sizeof *list);
    size_t n = 0;

    if (list == NULL)
        return TR_NOMEM;
    for (size_t i = 0; i < c->n && uuid_cmp(&c->turns[i].turn, turn) < 0; i++) {
        const struct context_turn *t = &c->turns[i];

        if (t->index < start)
            continue;
        add(list, &n, SPEAKER_USER, t->user, t->user_len);
        add(list, &n, SPEAKER_CHARACTER, t->reply, t->reply_len);
    }
    add(list, &n, SPEAKER_USER, (const char *)user.data, user.len);
    *ret_list = list;
    *ret_n = n;
    return TR_OK;
}
