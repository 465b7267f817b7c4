/*
 * refresh - one turn for all: it is read from the history, and every follower gets `changed` (or `deleted`).
 * Comes from: arrive.c (an edit, a choice, a regeneration, here or elsewhere).  Goes to: the followers.
 */
#include "role/chat/desk_impl.h"

#include <stdlib.h>
#include <string.h>

static void no_answer(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* nobody waits for these */
    (void)e;
}

struct refresh {
    struct desk_request base; /* first; viewer: the one that is left out */
    struct uuid turn;
    uint64_t change;               /* that it is for; 0: unknown */
    const struct desk_turn *shown; /* while it is handed out */
};

static void follow_changed(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct refresh *r = arg;
    const struct envelope env = {
        .kind = ENVELOPE_CHANGED, .chat = r->base.chat->id, .turn = r->turn, .change = r->change};

    if (f->viewer == r->base.viewer) {
        desk_told(d, f, r->change); /* by the answer to its request */
        return;
    }
    if (f->busy != NULL) {
        if (f->held == NULL)
            f->held = calloc(1, sizeof *f->held);
        if (f->held == NULL || !desk_hold(f->held, &env, NULL, 0))
            desk_gap(d);
    } else if (uuid_cmp(&r->turn, &f->seen) <= 0 && (r->change == 0 || !desk_was_told(f, r->change))) {
        desk_told(d, f, r->change);
        d->events.changed(f->viewer, r->shown);
    }
}

/* Did its reply not come by, though it was under way here, or is after what some follower was told, be it with `opened`? */
static bool is_missing(struct chat *c, const struct turn_row *row)
{
    const int32_t variant = row->part - PART_FIRST_VARIANT;
    bool missing = desk_running_find(c, &row->turn, variant) != NULL;

    for (const struct desk_follow *f = c->follows; f != NULL && !missing; f = f->c_next)
        missing = f->told != 0 && !desk_was_replied(f, &row->turn, row->change); /* 0: being opened */
    return missing && !desk_is_settled(c, &row->turn, variant);
}

bool desk_replies_found(struct desk *d, struct chat *c, const struct turn_view *v, const struct seal_key *key)
{
    bool found = false;

    for (int i = 1; i < v->variants; i++) {
        const struct turn_row *row = v->variant[i];
        struct envelope env = {.kind = ENVELOPE_REPLY,
                               .chat = v->chat,
                               .turn = v->turn,
                               .variant = i,
                               .attempt = row->attempt,
                               .finish = row->finish,
                               .change = row->change,
                               .prompt_tokens = row->prompt_tokens,
                               .cached_tokens = row->cached_tokens,
                               .completion_tokens = row->completion_tokens,
                               .ttft_ms = row->ttft_ms};
        struct buf text = {0};
        struct tr_err err = {0};

        if (!is_missing(c, row))
            continue;
        memcpy(env.code, row->code, sizeof env.code);
        if (desk_row_open(key, row, &text, &err) == TR_OK) {
            desk_reply_found(d, c, &env, (const char *)text.data, text.len);
            found = true;
        } else {
            desk_damaged(d, &v->chat, &v->turn, &err);
        }
        buf_wipe(&text);
    }
    return found;
}

/* The change that it was. */
static uint64_t deletion(const struct turn_row *rows, size_t n)
{
    uint64_t change = 0;

    for (size_t i = 0; i < n; i++)
        if (rows[i].part == PART_STATE && rows[i].event == TURN_EVENT_DELETE)
            change = rows[i].change;
    return change;
}

static void refresh_rows(struct refresh *r, const struct turn_row *rows, size_t n, const struct seal_key *key)
{
    struct desk *d = r->base.d;
    struct chat *c = r->base.chat;
    struct desk_page page = {0};
    struct turn_view v;
    struct tr_err err = {0};
    enum tr_rc rc;

    turn_fold(rows, n, &v);
    if (v.deleted) {
        desk_follow_deleted(d, c, &r->turn, deletion(rows, n), r->base.viewer);
        return;
    }
    if (desk_replies_found(d, c, &v, key))
        return; /* they refresh again */
    if (turn_running(&v) && v.variants > 0)
        (void)desk_running_get(c, &v.turn, v.variants); /* so that a gap is mended; else nothing is lost */
    rc = desk_page_build(key, rows, n, &page, &err);
    if (rc != TR_OK) {
        desk_damaged(d, &v.chat, &v.turn, &err);
        return;
    }
    desk_page_running(&page, c);
    r->shown = &page.turns[0];
    if (page.n == 1)
        desk_follow_each(d, c, follow_changed, r);
    desk_page_release(&page);
}

static void refresh_step(struct desk_request *base);

static void on_refresh(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct refresh *r = ctx;
    const struct seal_key *key;

    (void)more;
    if (desk_request_over(&r->base))
        return;
    if (desk_rc_again(rc) && desk_request_again(&r->base, refresh_step))
        return;
    if (rc == TR_OK) {
        key = keyring_peek(r->base.d->env.keyring, &r->base.chat->id);
        if (key == NULL) {
            refresh_step(&r->base);
            return;
        }
        refresh_rows(r, rows, n, key);
    } else if (rc != TR_NOT_FOUND) {
        desk_request_broke(&r->base, "refresh", rc, err);
        return;
    }
    desk_request_end(&r->base);
}

static void refresh_step(struct desk_request *base)
{
    struct refresh *r = (struct refresh *)base;
    struct history *h = base->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (desk_request_key(base, &base->chat->id, refresh_step) == NULL)
        return;
    rc = h->ops->turn_get(h, &base->chat->id, &r->turn, on_refresh, r, &base->op, &err);
    if (rc != TR_OK)
        desk_request_broke(base, "refresh", rc, &err);
}

/* The change is not told, and so it is found. */
static void follow_unread(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    desk_unread(d, f);
}

static void refresh_release(struct desk_request *r)
{
    if (r->unread && !r->d->dead)
        desk_follow_each(r->d, r->chat, follow_unread, NULL);
}

void desk_refresh(struct desk *d, struct chat *c, const struct uuid *turn, struct desk_viewer *except, uint64_t change)
{
    static const struct desk_request_ops ops = {.fail = no_answer, .release = refresh_release};
    struct refresh *r;

    if (c->follows == NULL)
        return;
    r = desk_request_new(d, except, sizeof *r, &ops);
    if (r == NULL) {
        desk_gap(d);
        return;
    }
    r->turn = *turn;
    r->change = change;
    r->base.chat = c;
    c->refs++;
    desk_request_later(&r->base, refresh_step);
}
