/* page - rows of the history become turns with their texts.  See desk_impl.h. */
#include "role/chat/desk_impl.h"

#include <stdlib.h>
#include <string.h>

size_t desk_turn_rows(const struct turn_row *rows, size_t n)
{
    size_t i = 0;

    while (i < n && uuid_eq(&rows[i].turn, &rows[0].turn))
        i++;
    return i;
}

enum tr_rc desk_row_open(const struct seal_key *key, const struct turn_row *row, struct buf *out, struct tr_err *err)
{
    const struct seal_bind bind = {.kind = SEAL_HISTORY,
                                   .chat = row->chat,
                                   .turn = row->turn,
                                   .part = row->part,
                                   .rev = row->rev,
                                   .role = (uint8_t)row->speaker};

    return seal_open(key, &bind, row->sealed, row->sealed_len, out, err);
}

enum tr_rc desk_row_message(const struct seal_key *key, const struct turn_row *row, struct buf *out,
                            struct message *ret_message, struct tr_err *err)
{
    const size_t at = out->len;
    const enum tr_rc rc = desk_row_open(key, row, out, err);

    return rc == TR_OK ? message_decode(out->data + at, out->len - at, ret_message, err) : rc;
}

const char *desk_code(const char *code)
{
    static const char *const codes[] = {"engine_failed", "internal",  "overloaded",
                                        "not_found",     "too_large", "bad_request"};

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i], code) == 0)
            return codes[i];
    return codes[0];
}

/* Memory for all that the rows can amount to, so that nothing moves while it is filled. */
static enum tr_rc page_reserve(struct desk_page *p, const struct turn_row *rows, size_t n, struct tr_err *err)
{
    size_t turns = 0, variants = 0, bytes = 1;

    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !uuid_eq(&rows[i].turn, &rows[i - 1].turn))
            turns++;
        if (rows[i].part >= PART_FIRST_VARIANT)
            variants++;
        bytes += rows[i].sealed_len + 1;
        if (rows[i].change > p->change)
            p->change = rows[i].change;
    }
    if (turns == 0)
        return TR_OK;
    p->turns = calloc(turns, sizeof *p->turns);
    p->deleted = calloc(turns, sizeof *p->deleted);
    p->variants = calloc(turns + variants, sizeof *p->variants);
    if (p->turns == NULL || p->deleted == NULL || p->variants == NULL || buf_reserve(&p->text, bytes) == NULL)
        return tr_fail(err, TR_NOMEM, "turns");
    return TR_OK;
}

/* Open a row's text behind the others. */
static enum tr_rc page_text(struct desk_page *p, const struct seal_key *key, const struct turn_row *row,
                            const char **ret_text, size_t *ret_len, struct tr_err *err)
{
    const size_t at = p->text.len;
    const enum tr_rc rc = desk_row_open(key, row, &p->text, err);

    if (rc != TR_OK)
        return rc;
    *ret_text = (const char *)p->text.data + at;
    *ret_len = p->text.len - at;
    return TR_OK;
}

static enum tr_rc page_turn(struct desk_page *p, const struct seal_key *key, const struct turn_view *v,
                            size_t *variants_n, struct tr_err *err)
{
    struct desk_turn *t = &p->turns[p->n];
    struct desk_variant *list = &p->variants[*variants_n];
    enum tr_rc rc = TR_OK;

    *t = (struct desk_turn){.chat = v->chat, .turn = v->turn, .created_ms = v->created_ms, .chosen = v->chosen};
    t->variants = list;
    if (v->user != NULL) {
        struct message m = {0};

        rc = desk_row_message(key, v->user, &p->text, &m, err);
        t->text = m.text;
        t->len = m.len;
        t->media = m.media;
        t->media_n = m.media_n;
    }
    for (int i = 0; rc == TR_OK && i < v->variants; i++) {
        const struct turn_row *row = v->variant[i];
        struct desk_variant *to = &list[t->variants_n++];

        *to = (struct desk_variant){.variant = i,
                                    .finish = row->finish,
                                    .code = row->finish == FINISH_ERROR ? desk_code(row->code) : NULL,
                                    .created_ms = row->created_ms,
                                    .attempt = row->attempt};
        rc = page_text(p, key, row, &to->text, &to->len, err);
    }
    if (rc != TR_OK)
        return rc;
    if (turn_running(v))
        list[t->variants_n++] = (struct desk_variant){.variant = v->variants, .text = "", .created_ms = v->created_ms};
    *variants_n += t->variants_n;
    p->n++;
    return TR_OK;
}

enum tr_rc desk_page_build(const struct seal_key *key, const struct turn_row *rows, size_t n,
                           struct desk_page *ret_page, struct tr_err *err)
{
    struct desk_page p = {0};
    size_t variants_n = 0;
    bool settled = true;
    enum tr_rc rc = page_reserve(&p, rows, n, err);

    for (size_t i = 0, len; rc == TR_OK && i < n; i += len) {
        struct turn_view v;

        len = desk_turn_rows(rows + i, n - i);
        turn_fold(rows + i, len, &v);
        if (v.deleted)
            p.deleted[p.deleted_n++] = v.turn;
        else
            rc = page_turn(&p, key, &v, &variants_n, err);
        if (i == 0 && v.user != NULL)
            p.answered = p.before = v.user->predecessor;
        p.last = v.turn;
        settled = settled && (v.deleted || v.user == NULL || v.variants > 0);
        if (settled)
            p.answered = v.turn;
    }
    if (rc != TR_OK) {
        desk_page_release(&p);
        return rc;
    }
    *ret_page = p;
    return TR_OK;
}

void desk_page_running(struct desk_page *p, const struct chat *c)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct desk_turn *t = &p->turns[i];
        const struct running *r;
        struct desk_variant *v;

        if (t->variants_n == 0 || t->variants[t->variants_n - 1].finish != FINISH_NONE)
            continue;
        v = &p->variants[(t->variants - p->variants) + (ptrdiff_t)t->variants_n - 1];
        r = desk_running_find(c, &t->turn, v->variant);
        if (r == NULL || r->text.len == 0)
            continue;
        v->text = (const char *)r->text.data;
        v->len = r->text.len;
        v->attempt = r->attempt;
    }
}

void desk_page_release(struct desk_page *p)
{
    free(p->turns);
    free(p->variants);
    free(p->deleted);
    buf_wipe(&p->text);
    *p = (struct desk_page){0};
}
