/*
 * catchup - comes from: history.  Goes to: the followers that lack something.
 *
 * A catch-up is of one follower: the turns behind its `answered` are read, and it gets the `turn`, `reply` or `error`
 * events that it has not had.  A refresh is of one turn: all followers get `changed`.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

struct catchup {
    struct desk_request base; /* first */
    struct uuid own, after;
    bool answered; /* every turn up to `after` is */
};

static void no_answer(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* nobody waits for these */
    (void)e;
}

/* The chat is deleted. */
static void follow_gone(struct desk *d, struct desk_follow *f)
{
    struct desk_viewer *v = f->viewer;
    const struct uuid chat = f->chat->id;

    desk_follow_free(d, f);
    d->events.deleted(v, &chat, &uuid_nil);
}

/* The follower goes on, with what was read or without it. */
static void catchup_release(struct desk_request *r)
{
    struct desk_follow *f = r->follow;

    r->follow = NULL;
    r->d->catchups_n--;
    if (f == NULL)
        return;
    f->busy = NULL;
    if (r->d->dead)
        return;
    if (r->unread)
        desk_unread(r->d, f);
    if (r->chat->gone)
        follow_gone(r->d, f);
    else
        desk_follow_resume(r->d, f, true);
}

static void send_failed(struct desk *d, struct desk_follow *f, const struct turn_view *v, const struct tr_err *err)
{
    desk_damaged(d, &v->chat, &v->turn, err);
    d->events.failed(f->viewer, &v->chat, &v->turn, "internal", "A stored message can't be read.");
}

static bool send_turn(struct desk *d, struct desk_follow *f, const struct turn_view *v, const struct seal_key *key,
                      struct tr_err *err)
{
    struct desk_turn turn = {.chat = v->chat, .turn = v->turn, .created_ms = v->created_ms, .chosen = -1};
    struct buf text = {0};
    struct message m = {0};
    const bool ok = desk_row_message(key, v->user, &text, &m, err) == TR_OK;

    if (ok) {
        turn.text = m.text;
        turn.len = m.len;
        turn.media = m.media;
        turn.media_n = m.media_n;
        d->events.turn(f->viewer, &turn);
    }
    buf_wipe(&text);
    return ok;
}

static bool send_stored(struct desk *d, struct desk_follow *f, const struct turn_row *row, const struct seal_key *key,
                        struct tr_err *err)
{
    struct buf text = {0};
    const bool ok = desk_row_open(key, row, &text, err) == TR_OK;

    if (ok) {
        const struct desk_reply reply = {.chat = row->chat,
                                         .turn = row->turn,
                                         .variant = row->part - PART_FIRST_VARIANT,
                                         .text = (const char *)text.data,
                                         .len = text.len,
                                         .finish = row->finish,
                                         .prompt_tokens = row->prompt_tokens,
                                         .cached_tokens = row->cached_tokens,
                                         .completion_tokens = row->completion_tokens,
                                         .ttft_ms = row->ttft_ms};

        desk_send_reply(d, f, &reply, row->code);
    }
    buf_wipe(&text);
    return ok;
}

/* One turn, in order.  An event's callback may close the follower: then r->base.follow is NULL. */
static void catchup_turn(struct catchup *r, const struct turn_view *v, const struct seal_key *key)
{
    struct desk *d = r->base.d;
    struct desk_follow *f = r->base.follow;
    struct chat *c = r->base.chat;
    const bool settled = v->deleted || v->user == NULL || v->variants > 0;
    const bool words = !v->deleted && v->user != NULL;
    struct tr_err err = {0};

    if (v->user != NULL)
        desk_chat_moved(c, &v->turn, v->user->index);
    if (uuid_cmp(&v->turn, &f->seen) > 0) {
        f->seen = v->turn;
        if (words && !uuid_eq(&v->turn, &r->own) && !send_turn(d, f, v, key, &err)) {
            send_failed(d, f, v, &err);
            return;
        }
    }
    r->answered = r->answered && settled;
    if (r->base.follow != NULL && !r->answered && settled)
        f->early = true; /* told when those before it are settled */
    if (r->base.follow == NULL || !r->answered || uuid_cmp(&v->turn, &f->answered) <= 0)
        return;
    f->answered = v->turn;
    if (uuid_cmp(&v->turn, &c->answered) > 0)
        c->answered = v->turn;
    desk_running_drop(c, &v->turn, v->deleted ? -1 : 0);
    if (!words)
        return;
    if (v->variants > 1)
        desk_refresh(d, c, &v->turn, NULL); /* what came after the first reply, as `changed` */
    if (!send_stored(d, f, v->variant[0], key, &err))
        send_failed(d, f, v, &err);
}

/* true: read on from r->after. */
static bool catchup_rows(struct catchup *r, const struct turn_row *rows, size_t n, bool more)
{
    const struct chat *c = r->base.chat;

    for (size_t i = 0, len; i < n && r->base.follow != NULL; i += len) {
        const struct seal_key *key = keyring_peek(r->base.d->env.keyring, &c->id);
        struct turn_view v;

        len = desk_turn_rows(rows + i, n - i);
        turn_fold(rows + i, len, &v);
        if (c->work != NULL && !uuid_is_nil(&c->work->accepting) && uuid_cmp(&v.turn, &c->work->accepting) >= 0)
            return false; /* `accepted` comes first */
        if (key == NULL)
            return true; /* pushed out of the keyring */
        catchup_turn(r, &v, key);
        r->after = v.turn;
    }
    return more && r->base.follow != NULL;
}

static void catchup_step(struct desk_request *base);

static void on_catchup(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct catchup *r = ctx;

    if (desk_request_over(&r->base))
        return;
    if (r->base.follow == NULL) {
        desk_request_end(&r->base);
        return;
    }
    if (rc == TR_NOT_FOUND)
        r->base.chat->gone = true;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&r->base, catchup_step))
            desk_request_broke(&r->base, "catch-up", rc, err);
        return;
    }
    if (catchup_rows(r, rows, n, more))
        catchup_step(&r->base);
    else
        desk_request_end(&r->base);
}

static void catchup_step(struct desk_request *base)
{
    struct catchup *r = (struct catchup *)base;
    struct history *h = base->d->env.history;
    const struct history_range range = {.after = r->after, .limit = OPEN_TURNS};
    struct tr_err err = {0};
    enum tr_rc rc;

    if (base->follow == NULL) {
        desk_request_end(base);
        return;
    }
    if (desk_request_key(base, &base->chat->id, catchup_step) == NULL)
        return;
    rc = h->ops->turns(h, &base->chat->id, &range, on_catchup, r, &base->op, &err);
    if (rc != TR_OK)
        desk_request_broke(base, "catch-up", rc, &err);
}

void desk_catchup(struct desk *d, struct desk_follow *f, const struct uuid *own)
{
    static const struct desk_request_ops ops = {.fail = no_answer, .release = catchup_release};
    struct catchup *r = desk_request_new(d, NULL, sizeof *r, &ops);

    if (r == NULL) {
        desk_unread(d, f);
        return;
    }
    d->catchups_n++;
    r->own = *own;
    r->after = f->answered;
    r->answered = true;
    r->base.chat = f->chat;
    f->chat->refs++;
    r->base.follow = f;
    f->busy = &r->base;
    f->early = false;
    desk_not_behind(d, f); /* but for what is missed from here on */
    desk_request_later(&r->base, catchup_step);
}

/* ---- one turn for all */

struct refresh {
    struct desk_request base; /* first; viewer: the one that is left out */
    struct uuid turn;
    const struct desk_turn *shown; /* while it is handed out */
};

static void follow_changed(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct refresh *r = arg;
    const struct envelope env = {.kind = ENVELOPE_CHANGED, .chat = r->base.chat->id, .turn = r->turn};

    if (f->viewer == r->base.viewer)
        return;
    if (f->busy != NULL) {
        if (f->held == NULL)
            f->held = calloc(1, sizeof *f->held);
        if (f->held == NULL || !desk_hold(f->held, &env, NULL, 0))
            desk_gap(d);
    } else if (uuid_cmp(&r->turn, &f->seen) <= 0) {
        d->events.changed(f->viewer, r->shown);
    }
}

/* A regeneration that was under way here and is stored by now, though its reply never came: it comes from here. */
static bool refresh_replies(struct refresh *r, const struct turn_view *v, const struct seal_key *key)
{
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

        if (desk_running_find(r->base.chat, &v->turn, i) == NULL)
            continue;
        memcpy(env.code, row->code, sizeof env.code);
        if (desk_row_open(key, row, &text, &err) != TR_OK) {
            desk_damaged(r->base.d, &v->chat, &v->turn, &err);
            continue;
        }
        desk_reply_found(r->base.d, r->base.chat, &env, (const char *)text.data, text.len);
        buf_wipe(&text);
        return true; /* that refreshes again */
    }
    return false;
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
        desk_follow_deleted(d, c, &r->turn, r->base.viewer);
        return;
    }
    if (refresh_replies(r, &v, key))
        return;
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

void desk_refresh(struct desk *d, struct chat *c, const struct uuid *turn, struct desk_viewer *except)
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
    r->base.chat = c;
    c->refs++;
    desk_request_later(&r->base, refresh_step);
}
