/*
 * mend - what may have been missed is read again, once the chat's record is there: what comes after the reading comes here.
 *
 *   a gap (desk_gap)         the broker's or the registry's connection is a new one, the registry lost our record, or we
 *                            slept: of every open chat the record is put, then its followers are behind
 *   a record that was lost   a renewal found none: the same for that chat
 *   a hole (desk_hole)       a change was told and one before it was not, and did not come by itself: whoever wrote it was killed
 *                            before it told of it, or the notifier was
 *   a key that is gone       desk_mend_all(): its chat was deleted, and nobody came to tell
 *   what could not be read   desk_unread()
 *
 * A follower that is `behind` is read (catchup.c) as soon as nothing else is under way for it, and its client is not about to ask for
 * the rest of what it opened (desk_awaits_page).  While the history does not answer, that is tried again every UNREAD_PAUSE_MS, a few
 * at a time: only the fact is kept, no event.
 */
#include "role/chat/desk_impl.h"

#define GAP_ROUNDS 100       /* ticks that reading all open chats again is spread over */
#define UNREAD_PAUSE_MS 1000 /* after a reading that failed */
#define BEHIND_ROUNDS 5      /* ticks in which all chats are looked at for followers that are behind */
#define HOLE_WAIT_MS 1000    /* events overtake each other */
#define CATCHUPS_MAX 64      /* under way at once, of those that were behind */

/* ---- who is behind */

void desk_behind(struct desk *d, struct desk_follow *f)
{
    if (!f->behind)
        d->behind_n++;
    f->behind = true;
}

void desk_not_behind(struct desk *d, struct desk_follow *f)
{
    if (f->behind)
        d->behind_n--;
    f->behind = false;
}

static bool may_read(const struct desk *d)
{
    return loop_now_ms(d->env.loop) >= d->behind_at_ms;
}

bool desk_awaits_page(const struct desk *d, const struct desk_follow *f)
{
    return f->page_ms != 0 && loop_now_ms(d->env.loop) - (f->page_ms - 1) < PAGE_WAIT_MS;
}

void desk_mend(struct desk *d, struct desk_follow *f)
{
    desk_behind(d, f);
    if (f->busy == NULL && may_read(d))
        desk_catchup(d, f, &uuid_nil);
}

void desk_unread(struct desk *d, struct desk_follow *f)
{
    desk_behind(d, f);
    d->behind_at_ms = loop_now_ms(d->env.loop) + UNREAD_PAUSE_MS;
}

static void follow_mend(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    desk_mend(d, f);
}

void desk_mend_all(struct desk *d, struct chat *c)
{
    desk_follow_each(d, c, follow_mend, NULL);
}

static void follow_if_behind(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    if (f->behind && f->busy == NULL && d->catchups_n < CATCHUPS_MAX && may_read(d) && !desk_awaits_page(d, f))
        desk_catchup(d, f, &uuid_nil);
}

static void chat_if_behind(struct desk *d, struct chat *c)
{
    desk_follow_each(d, c, follow_if_behind, NULL);
}

/* ---- a hole */

struct hole {
    struct desk_request base; /* first */
};

static void no_answer(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* nobody waits for these */
    (void)e;
}

static void hole_release(struct desk_request *r)
{
    r->chat->hole = false;
}

static void follow_hole(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    if (f->heard != 0 || f->far)
        desk_mend(d, f);
}

static void hole_step(struct desk_request *r)
{
    desk_follow_each(r->d, r->chat, follow_hole, NULL);
    desk_request_end(r);
}

void desk_hole(struct desk *d, struct chat *c)
{
    static const struct desk_request_ops ops = {.fail = no_answer, .release = hole_release};
    struct hole *r = c->hole || d->draining ? NULL : desk_request_new(d, NULL, sizeof *r, &ops);

    if (r == NULL)
        return; /* the next event shows it again */
    c->hole = true;
    c->refs++;
    r->base.chat = c;
    if (!desk_request_after(&r->base, HOLE_WAIT_MS, hole_step))
        desk_request_end(&r->base);
}

/* ---- the chat's record */

struct record {
    struct desk_request base; /* first */
    bool renews;              /* it is read again only where the record was lost */
};

static void on_put(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct record *r = ctx;

    (void)err; /* failed: the registry's coming back is a gap again */
    if (desk_request_over(&r->base))
        return;
    if (!r->renews || rc == TR_NOT_FOUND)
        desk_mend_all(r->base.d, r->base.chat);
    desk_request_end(&r->base);
}

static void record_step(struct desk_request *base)
{
    struct record *r = (struct record *)base;
    struct registry *reg = base->d->env.registry;
    const struct uuid *chat = &base->chat->id;
    enum tr_rc rc = TR_OK;

    if (base->chat->follows != NULL && r->renews)
        rc = reg->ops->conn_renew(reg, chat, base->d->queue, CONN_TTL_MS, on_put, r, &base->op, NULL);
    else if (base->chat->follows != NULL)
        rc = reg->ops->conn_put(reg, chat, base->d->queue, CONN_TTL_MS, on_put, r, &base->op, NULL);
    if (base->chat->follows != NULL && rc == TR_OK)
        return;
    base->op = NULL;
    if (!r->renews)
        desk_mend_all(base->d, base->chat);
    desk_request_end(base);
}

static void record_put(struct desk *d, struct chat *c, bool renews)
{
    static const struct desk_request_ops ops = {.fail = no_answer};
    struct record *r = desk_request_new(d, NULL, sizeof *r, &ops);

    if (r == NULL) {
        if (!renews)
            desk_mend_all(d, c);
        return; /* the next round puts it, before its TTL ends */
    }
    r->renews = renews;
    r->base.chat = c;
    c->refs++;
    desk_request_later(&r->base, record_step);
}

void desk_conn_renew(struct desk *d, struct chat *c)
{
    if (c->follows != NULL && !d->draining)
        record_put(d, c, true);
}

/* ---- all chats */

void desk_gap(struct desk *d)
{
    d->gap_left =
        d->table_n; /* from where the walk is: gaps that follow each other must not keep it from the table's end */
}

static void chat_mend(struct desk *d, struct chat *c)
{
    if (c->follows == NULL)
        return;
    record_put(d, c, false);
    if (d->registry_failed) /* it would not answer in time */
        desk_mend_all(d, c);
}

void desk_mend_step(struct desk *d)
{
    const size_t chats = d->chats_n / GAP_ROUNDS + 16; /* at a time; the table's empty slots cost nothing */
    size_t slots = d->chats_n > 0 ? d->table_n * chats / d->chats_n + 1 : d->table_n;

    if (d->behind_n > 0 && may_read(d))
        desk_chats_walk(d, d->table_n / BEHIND_ROUNDS + 1, &d->behind_walk, chat_if_behind);
    if (d->gap_left == 0)
        return;
    if (slots > d->gap_left)
        slots = d->gap_left;
    d->gap_left -= slots;
    desk_chats_walk(d, slots, &d->gap_walk, chat_mend);
}
