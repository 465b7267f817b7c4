/*
 * catchup - comes from: history.  Goes to: a follower that lacks something, as the events that it has not had.
 *
 *   TURNS    the turns behind its `answered`: `turn`, `reply` or `error`, in order
 *   CHANGES  first, where anything may have been missed (the follower is behind, mend.c): the turns that have changed since its `told`.
 *            Of those up to `answered` it gets `changed`, `deleted`, and a regeneration's `reply`; the others are TURNS
 *
 * A deletion is told of a turn that it does not know, too: its sender knows it by `accepted`.
 * Meanwhile what comes for it is held back.  Only a reading that succeeded says what is not there: else it stays behind.
 */
#include "role/chat/desk_impl.h"

#include <stdlib.h>
#include <string.h>

struct catchup {
    struct desk_request base; /* first */
    struct uuid own, after;
    bool answered; /* every turn up to `after` is */
    bool read;     /* to the end */
    bool cut;      /* before a turn that is being accepted */

    bool mends;                               /* it begins with CHANGES */
    bool lacks;                               /* there is something for TURNS behind them */
    uint64_t since, up_to;                    /* they are read from / all are told up to */
    struct uuid changed;                      /* the newest of them that was looked at */
    void (*key_step)(struct desk_request *r); /* what goes on with the key */
};

static void no_answer(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* nobody waits for these */
    (void)e;
}

/* It could not be read: it is held back, so that the next reading knows it as the follower's own. */
static void keep_own(const struct catchup *c, struct desk_follow *f)
{
    const struct desk_turn turn = {.chat = f->chat->id, .turn = c->own};

    desk_follow_turn(c->base.d, f, &turn, &uuid_nil, 0, true);
}

/* The follower goes on, with what was read or without it. */
static void catchup_release(struct desk_request *r)
{
    const struct catchup *c = (struct catchup *)r;
    struct desk_follow *f = r->follow;

    r->follow = NULL;
    r->d->catchups_n--;
    if (f == NULL)
        return;
    if (r->unread && !uuid_is_nil(&c->own) && !r->d->dead)
        keep_own(c, f);
    f->busy = NULL;
    if (r->d->dead)
        return;
    if (r->unread ||
        c->cut) /* the turns are still to be read: a change may be told of already, so that CHANGES would pass it over */
        f->early = f->early || c->lacks || !c->mends;
    if (r->unread)
        desk_unread(r->d, f);
    else if (c->cut)
        desk_behind(r->d, f); /* what it is waited for may be missed, too */
    if (c->read && c->mends) {
        f->far = false;
        desk_told_up_to(f, c->up_to);
    }
    if (r->chat->gone)
        desk_follow_gone(r->d, f);
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

/* ---- CHANGES */

/* Which of a turn's changes the follower was not told of. */
struct fresh {
    bool changed;
    uint64_t deleted; /* the change; 0: it is not */
};

static struct fresh fresh_of(const struct catchup *r, const struct turn_row *rows, size_t n)
{
    struct fresh fresh = {0};

    for (size_t i = 0; i < n; i++) {
        const struct turn_row *row = &rows[i];

        if (desk_was_told(r->base.follow, row->change))
            continue;
        if (row->part == PART_STATE && row->event == TURN_EVENT_DELETE)
            fresh.deleted = row->change;
        else if (row->part == PART_STATE)
            fresh.changed = fresh.changed || row->event == TURN_EVENT_CHOOSE || row->event == TURN_EVENT_REGENERATE;
        else if (row->part == PART_USER)
            fresh.changed = fresh.changed || row->rev > 0;
        else
            fresh.changed = fresh.changed || row->part > PART_FIRST_VARIANT;
    }
    return fresh;
}

/* All of a turn was handed out as it stands, but for a first reply that is still to come in its order. */
static void rows_told(struct catchup *r, const struct turn_row *rows, size_t n)
{
    for (size_t i = 0; i < n && r->base.follow != NULL; i++)
        if (rows[i].part != PART_FIRST_VARIANT || uuid_cmp(&rows[i].turn, &r->base.follow->answered) <= 0)
            desk_told(r->base.d, r->base.follow, rows[i].change);
}

/* The replies of its regenerations, each once. */
static void send_replies(struct catchup *r, const struct turn_view *v, const struct seal_key *key)
{
    struct tr_err err = {0};

    for (int i = 1; i < v->variants && r->base.follow != NULL; i++) {
        struct desk_follow *f = r->base.follow;
        const struct turn_row *row = v->variant[i];

        if (row->change == 0 || desk_was_replied(f, &v->turn, row->change))
            continue;
        desk_replied(f, row->change);
        if (!send_stored(r->base.d, f, row, key, &err))
            desk_damaged(r->base.d, &v->chat, &v->turn, &err);
    }
}

static bool send_changed(struct catchup *r, const struct turn_row *rows, size_t n, const struct seal_key *key)
{
    struct desk *d = r->base.d;
    struct desk_page page = {0};
    struct tr_err err = {0};

    if (desk_page_build(key, rows, n, &page, &err) != TR_OK) {
        desk_damaged(d, &rows[0].chat, &rows[0].turn, &err);
        return false;
    }
    desk_page_running(&page, r->base.chat);
    if (page.n == 1)
        d->events.changed(r->base.follow->viewer, &page.turns[0]);
    desk_page_release(&page);
    return true;
}

/*
 * What the follower was not told of a turn, at once; of one that it did not know, all behind the first reply.  What the others lack,
 * too, goes their way.  An event's callback may close the follower.
 */
static void send_changes(struct catchup *r, const struct turn_view *v, const struct turn_row *rows, size_t n,
                         const struct seal_key *key, bool known)
{
    const struct fresh fresh = fresh_of(r, rows, n);
    struct desk_follow *f = r->base.follow;
    struct desk *d = r->base.d;
    struct chat *c = r->base.chat;

    if (v->deleted) {
        if (fresh.deleted == 0)
            return;
        d->events.deleted(f->viewer, &c->id, &v->turn);
        rows_told(r, rows, n);
        desk_follow_deleted(d, c, &v->turn, fresh.deleted, r->base.follow != NULL ? f->viewer : NULL);
        return;
    }
    if (turn_running(v) && v->variants > 0)
        (void)desk_running_get(c, &v->turn, v->variants); /* so that its text passes */
    (void)desk_replies_found(d, c, v, key);
    if (!fresh.changed && known)
        return;
    send_replies(r, v, key);
    if (r->base.follow != NULL && send_changed(r, rows, n, key))
        rows_told(r, rows, n);
}

/* ---- TURNS */

/* It sent it itself: before this was begun, or meanwhile, and that is held back. */
static bool is_own(const struct catchup *r, const struct uuid *turn)
{
    const struct held_list *held = r->base.follow->held;
    bool own = uuid_eq(turn, &r->own);

    for (const struct held *h = held != NULL ? held->first : NULL; h != NULL && !own; h = h->next)
        own = h->env.kind == ENVELOPE_TURN && h->env.origin[0] == '.' && uuid_eq(turn, &h->env.turn);
    return own;
}

/* A turn that the follower does not know.  False: its text can't be read, which was told. */
static bool introduce(struct catchup *r, const struct turn_view *v, const struct seal_key *key)
{
    struct desk_follow *f = r->base.follow;
    struct tr_err err = {0};

    f->seen = v->turn;
    if (v->deleted) /* it may have sent it, and know it by `accepted` */
        r->base.d->events.deleted(f->viewer, &v->chat, &v->turn);
    if (v->deleted || v->user == NULL || is_own(r, &v->turn) || send_turn(r->base.d, f, v, key, &err))
        return true;
    send_failed(r->base.d, f, v, &err);
    return false;
}

/* Its first reply, in order. */
static void settle(struct catchup *r, const struct turn_view *v, const struct seal_key *key)
{
    const bool settled = v->deleted || v->user == NULL || v->variants > 0;
    struct desk *d = r->base.d;
    struct desk_follow *f = r->base.follow;
    struct chat *c = r->base.chat;
    struct tr_err err = {0};

    r->answered = r->answered && settled;
    if (!r->answered && settled)
        f->early = true; /* told when those before it are settled */
    if (!r->answered || uuid_cmp(&v->turn, &f->answered) <= 0)
        return;
    f->answered = v->turn;
    if (uuid_cmp(&v->turn, &c->answered) > 0)
        c->answered = v->turn;
    desk_running_drop(c, &v->turn, v->deleted ? -1 : 0);
    if (v->deleted || v->user == NULL)
        return;
    desk_told(d, f, v->variant[0]->change);
    if (!send_stored(d, f, v->variant[0], key, &err))
        send_failed(d, f, v, &err);
}

/* Is there more to be told of it than the turn and its first reply? */
static bool may_have_changed(const struct catchup *r, const struct turn_view *v, bool known)
{
    if (v->deleted)
        return known; /* else that was told */
    return v->variants > 1 || (known && r->mends);
}

/* One turn, in order.  An event's callback may close the follower: then r->base.follow is NULL. */
static void catchup_turn(struct catchup *r, const struct turn_view *v, const struct turn_row *rows, size_t n,
                         const struct seal_key *key)
{
    const bool known = uuid_cmp(&v->turn, &r->base.follow->seen) <= 0;

    if (v->user != NULL)
        desk_chat_moved(r->base.chat, &v->turn, v->user->index);
    if (!known && !introduce(r, v, key))
        return;
    if (r->base.follow != NULL)
        settle(r, v, key);
    if (r->base.follow != NULL && may_have_changed(r, v, known))
        send_changes(r, v, rows, n, key, known); /* of a new one: what came after its first reply */
    if (!known)
        rows_told(r, rows, n); /* it is told as it stands */
}

/* `accepted` comes first.  What follows is told later: each of its changes is later than the turn's own. */
static void catchup_cut(struct catchup *r, const struct turn_row *rows, size_t n)
{
    r->cut = true;
    for (size_t i = 0; i < n; i++)
        if (rows[i].change <= r->up_to)
            r->up_to = rows[i].change - 1;
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
        if (c->work != NULL && !uuid_is_nil(&c->work->accepting) && uuid_cmp(&v.turn, &c->work->accepting) >= 0) {
            catchup_cut(r, rows + i, len);
            return false;
        }
        if (key == NULL)
            return true; /* pushed out of the keyring */
        catchup_turn(r, &v, rows + i, len, key);
        r->after = v.turn;
    }
    return more && r->base.follow != NULL;
}

/* ---- reading */

static void turns_step(struct desk_request *base);
static void chat_step(struct desk_request *base);

/* The end of a reading: true: go on.  Else r is tried again, or has ended. */
static bool is_read(struct catchup *r, enum tr_rc rc, const struct tr_err *err, void (*step)(struct desk_request *r))
{
    if (r->base.follow == NULL) {
        desk_request_end(&r->base);
        return false;
    }
    if (rc == TR_NOT_FOUND)
        r->base.chat->gone = true;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&r->base, step))
            desk_request_broke(&r->base, "catch-up", rc, err);
        return false;
    }
    r->base.began_ms = loop_now_ms(r->base.d->env.loop);
    r->base.tries = 0;
    return true;
}

/* ---- the key */

static void on_chat(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct catchup *r = ctx;

    (void)chat;
    (void)mine;
    if (desk_request_over(&r->base) || !is_read(r, rc, err, chat_step))
        return;
    r->base.lives = true;
    r->key_step(&r->base);
}

static void chat_step(struct desk_request *base)
{
    struct history *h = base->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (base->follow == NULL) {
        desk_request_end(base);
        return;
    }
    rc = h->ops->chat_get(h, &base->chat->id, on_chat, base, &base->op, &err);
    if (rc != TR_OK)
        desk_request_broke(base, "catch-up", rc, &err);
}

/* The key, or NULL: r goes on with step.  A key that is not at hand may be gone with its chat: the history is asked for that first. */
static const struct seal_key *catchup_key(struct catchup *r, void (*step)(struct desk_request *r))
{
    if (r->base.lives || keyring_peek(r->base.d->env.keyring, &r->base.chat->id) != NULL)
        return desk_request_key(&r->base, &r->base.chat->id, step);
    r->key_step = step;
    chat_step(&r->base);
    return NULL;
}

/* ---- pages */

static void on_turns(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                     const struct tr_err *err)
{
    struct catchup *r = ctx;

    if (desk_request_over(&r->base) || !is_read(r, rc, err, turns_step))
        return;
    if (catchup_rows(r, rows, n, more)) {
        turns_step(&r->base);
        return;
    }
    r->read = true;
    desk_request_end(&r->base);
}

static void turns_step(struct desk_request *base)
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
    if (catchup_key(r, turns_step) == NULL)
        return;
    rc = h->ops->turns(h, &base->chat->id, &range, on_turns, r, &base->op, &err);
    if (rc != TR_OK)
        desk_request_broke(base, "catch-up", rc, &err);
}

/*
 * The turns of one page that have changed.  What the chat is known to have come to, or the first page if it shows more, tells up to
 * which change the follower has been told of all when the last page is read: those after it are read later.  True: there may be more.
 */
static bool changes_rows(struct catchup *r, const struct turn_row *rows, size_t n, bool more,
                         const struct seal_key *key)
{
    const bool first = uuid_is_nil(&r->changed);

    for (size_t i = 0; i < n && first; i++)
        if (rows[i].change > r->up_to)
            r->up_to = rows[i].change;
    for (size_t i = 0, len; i < n && r->base.follow != NULL; i += len) {
        struct turn_view v;

        len = desk_turn_rows(rows + i, n - i);
        turn_fold(rows + i, len, &v);
        if (uuid_cmp(&v.turn, &r->after) > 0) { /* and so are all that follow */
            r->lacks = true;
            return false;
        }
        send_changes(r, &v, rows + i, len, key, true);
        r->changed = v.turn;
    }
    return more && r->base.follow != NULL;
}

static void changes_step(struct desk_request *base);

static void on_changes(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct catchup *r = ctx;
    const struct seal_key *peek;
    struct seal_key key;

    if (desk_request_over(&r->base) || !is_read(r, rc, err, changes_step))
        return;
    peek = keyring_peek(r->base.d->env.keyring, &r->base.chat->id);
    if (peek == NULL) { /* pushed out of the keyring */
        changes_step(&r->base);
        return;
    }
    key = *peek;
    more = changes_rows(r, rows, n, more, &key);
    seal_key_wipe(&key);
    r->read = !more && !r->lacks;
    if (more)
        changes_step(&r->base);
    else if (r->lacks)
        turns_step(&r->base);
    else
        desk_request_end(&r->base);
}

/* The first page is of what has changed; behind it all turns are looked at. */
static void changes_step(struct desk_request *base)
{
    struct catchup *r = (struct catchup *)base;
    struct history *h = base->d->env.history;
    const struct history_range range = {.after = r->changed, .limit = OPEN_TURNS};
    struct tr_err err = {0};
    enum tr_rc rc;

    if (base->follow == NULL) {
        desk_request_end(base);
        return;
    }
    if (catchup_key(r, changes_step) == NULL)
        return;
    if (uuid_is_nil(&r->changed))
        rc = h->ops->changed(h, &base->chat->id, r->since, OPEN_TURNS, on_changes, r, &base->op, &err);
    else
        rc = h->ops->turns(h, &base->chat->id, &range, on_changes, r, &base->op, &err);
    if (rc != TR_OK)
        desk_request_broke(base, "catch-up", rc, &err);
}

void desk_catchup(struct desk *d, struct desk_follow *f, const struct uuid *own)
{
    static const struct desk_request_ops ops = {.fail = no_answer, .release = catchup_release};
    struct catchup *r;

    if (desk_awaits_page(d, f)) {
        desk_behind(d, f);
        return;
    }
    r = desk_request_new(d, NULL, sizeof *r, &ops);
    if (r == NULL) {
        desk_unread(d, f);
        return;
    }
    d->catchups_n++;
    r->own = *own;
    r->after = f->answered;
    r->answered = true;
    r->mends = f->behind;
    r->lacks = f->early;
    r->since = f->told;
    r->up_to = f->chat->change > f->told ? f->chat->change : f->told; /* heard of, so it is there to be read */
    r->base.chat = f->chat;
    f->chat->refs++;
    r->base.follow = f;
    f->busy = &r->base;
    f->early = false;
    desk_not_behind(d, f); /* but for what is missed from here on */
    desk_request_later(&r->base, r->mends ? changes_step : turns_step);
}
