/*
 * open - a viewer opens a chat: a new one with a character, or one that it has.
 *
 *   new:   character -> key -> chat with its greeting -> as below
 *   all:   REGISTERED (the follower holds back what comes, the notifier knows the connection) -> chat, turns, changes
 *          and character READ -> WAITING for the running texts, at most 300 ms -> `opened`, changes, what was held back
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <string.h>

#define CHANGES_MAX                                                                                                    \
    200 /* older turns told of with `opened`; where there are more, all of them come after it (mend.c) */
#define BUSY_WAIT_MS 20

struct opening {
    struct desk_request base; /* first */
    desk_opened_done *done;
    void *ctx;
    char character[CHARACTER_ID_MAX + 1];
    uint8_t client_hash[16];
    struct uuid user, chat, after, head;
    uint64_t since, change;
    bool has_id, has_since;
    bool make;    /* a new chat */
    bool is_new;  /* the follower is: it goes again if this fails */
    bool waiting; /* for running texts */
    bool more;
    bool many; /* changes */
    struct card *card;
    bool has_avatar;
    uint64_t updated_ms;
    struct history_chat created;
    struct desk_greeting greeting;
    struct desk_page page, changed;
};

static void open_register(struct desk_request *r);
static void open_character(struct desk_request *r);

static void open_fail(struct desk_request *r, const struct desk_error *e)
{
    struct opening *o = (struct opening *)r;

    o->done(o->ctx, e, NULL);
}

static void open_release(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct desk_follow *f = r->follow;

    r->follow = NULL;
    card_free(o->card);
    desk_greeting_release(&o->greeting);
    desk_page_release(&o->page);
    desk_page_release(&o->changed);
    if (f == NULL)
        return;
    f->busy = NULL;
    if (o->is_new)
        desk_follow_free(r->d, f);
    else if (!r->d->dead && r->chat->gone) /* the news found it busy */
        desk_follow_gone(r->d, f);
    else if (!r->d->dead)
        desk_follow_resume(r->d, f, true);
}

static const struct desk_request_ops open_ops = {.fail = open_fail, .release = open_release};

/* The end of a read: true: go on.  Else r is being tried again, or has ended. */
static bool is_read(struct opening *o, const char *what, enum tr_rc rc, const struct tr_err *err,
                    void (*step)(struct desk_request *r))
{
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&o->base, step))
            desk_request_broke(&o->base, what, rc, err);
        return false;
    }
    return true;
}

/* ---- opened */

static void send_changes(struct opening *o)
{
    const struct desk_events *events = &o->base.d->events;

    if (o->many)
        return;
    for (size_t i = 0; i < o->changed.deleted_n && o->base.follow != NULL; i++)
        events->deleted(o->base.follow->viewer, &o->chat, &o->changed.deleted[i]);
    for (size_t i = 0; i < o->changed.n && o->base.follow != NULL; i++) {
        const struct desk_turn *t = &o->changed.turns[i];
        bool shown = false;

        for (size_t k = 0; k < o->page.n && !shown; k++)
            shown = uuid_eq(&o->page.turns[k].turn, &t->turn);
        /* turns that are yet to be fetched come whole with the next `open` */
        if (!shown && (!o->more || uuid_cmp(&t->turn, &o->page.last) <= 0))
            events->changed(o->base.follow->viewer, t);
    }
}

static void raise_mark(struct uuid *mark, const struct uuid *to)
{
    if (uuid_cmp(to, mark) > 0)
        *mark = *to;
}

static void open_finish(struct opening *o)
{
    struct desk *d = o->base.d;
    struct chat *c = o->base.chat;
    struct desk_follow *f = o->base.follow;
    struct desk_character character = {.name = c->character->id, .tagline = ""};
    /* Too many changes to be told at once come later: the client, should it be cut off, asks for them again. */
    struct desk_opened opened = {
        .chat = o->chat, .character = &character, .more = o->more, .change = o->many ? o->since : o->change};
    const bool empty = uuid_is_nil(&o->page.last);

    if (c->gone) {
        desk_request_broke(&o->base, "open", TR_NOT_FOUND, NULL);
        return;
    }
    memcpy(character.id, c->character->id, strlen(c->character->id));
    if (o->card != NULL) {
        character.name = o->card->name;
        character.tagline = o->card->tagline;
        character.has_avatar = o->has_avatar;
        character.updated_ms = o->updated_ms;
        character.card = o->card;
    }
    desk_page_running(&o->page, c);
    desk_page_running(&o->changed, c);
    opened.turns = o->page.turns;
    opened.n = o->page.n;
    raise_mark(&f->seen, empty ? &o->after : &o->page.last);
    raise_mark(&f->answered, empty ? &o->after : &o->page.answered);
    if (uuid_cmp(&o->page.answered, &o->page.before) > 0) /* read here, not said by the client */
        raise_mark(&c->answered, &o->page.answered);
    f->covered = o->page.change > o->change ? o->page.change : o->change;
    f->listed = empty ? o->after : o->page.before;
    f->page_ms = o->more ? loop_now_ms(d->env.loop) + 1 : 0;
    if (o->more) { /* what is behind the page is listed with the next one; else it is read */
        f->early = true;
        desk_behind(d, f);
    }
    if (o->is_new)
        f->began = o->change;
    if (o->is_new)
        f->told = o->many ? o->since : o->change; /* as read first: older turns may have changed since */
    if (o->many) {
        f->told = o->since < f->told ? o->since : f->told;
        f->heard = 0;
        desk_behind(d, f);
    }
    o->is_new = false;
    o->done(o->ctx, NULL, &opened);
    send_changes(o);
    /* What runs in turns that are not listed, a regeneration of an old one: its deltas will go on from here. */
    if (o->base.follow != NULL)
        desk_follow_texts(d, o->base.follow, o->page.n > 0 ? &o->page.turns[0].turn : NULL);
    f = o->base.follow;
    o->base.follow = NULL;
    if (f != NULL) {
        f->busy = NULL;
        desk_follow_resume(d, f, false);
    }
    desk_request_end(&o->base);
}

/* The viewer went away: nobody waits. */
static bool is_left(struct opening *o)
{
    if (o->base.viewer != NULL)
        return false;
    desk_request_end(&o->base);
    return true;
}

/* The variant of a turn that is still to come and whose text is not known here, or NULL. */
static struct running *unknown_running(const struct opening *o, const struct desk_turn *t)
{
    struct running *r;

    if (t->variants_n == 0 || t->variants[t->variants_n - 1].finish != FINISH_NONE)
        return NULL;
    r = desk_running_find(o->base.chat, &t->turn, t->variants[t->variants_n - 1].variant);
    return r != NULL && !r->known ? r : NULL;
}

/* No worker is at them: they wait in a queue, or a kill came between the write and the call. */
static void call_unknown(struct opening *o)
{
    for (size_t i = 0; i < o->page.n; i++) {
        const struct running *r = unknown_running(o, &o->page.turns[i]);

        if (r != NULL)
            desk_call_again(o->base.d, o->base.chat, &o->page.turns[i].turn, r->variant);
    }
}

static void open_waited(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;

    o->waiting = false;
    if (is_left(o))
        return;
    call_unknown(o);
    open_finish(o);
}

static bool is_awaited(const struct opening *o)
{
    for (size_t i = 0; i < o->page.n; i++)
        if (unknown_running(o, &o->page.turns[i]) != NULL)
            return true;
    return false;
}

static void follow_poke(struct desk *d, struct desk_follow *f, void *arg)
{
    struct opening *o = (struct opening *)f->busy;

    (void)d;
    (void)arg;
    if (o == NULL || o->base.ops != &open_ops || !o->waiting || is_awaited(o))
        return;
    timer_stop(o->base.timer);
    o->base.timer = NULL;
    open_waited(&o->base);
}

void desk_open_poke(struct desk *d, struct chat *c)
{
    desk_follow_each(d, c, follow_poke, NULL);
}

static void open_wait(struct opening *o)
{
    struct chat *c = o->base.chat;

    for (size_t i = 0; i < o->page.n; i++) {
        const struct desk_turn *t = &o->page.turns[i];
        struct running *r;

        if (t->variants_n == 0 || t->variants[t->variants_n - 1].finish != FINISH_NONE)
            continue;
        r = desk_running_get(c, &t->turn, t->variants[t->variants_n - 1].variant);
        if (r != NULL && !r->known)
            desk_running_ask(o->base.d, c, r);
    }
    if (is_awaited(o) && desk_request_after(&o->base, TEXT_WAIT_MS, open_waited))
        o->waiting = true;
    else
        open_finish(o);
}

/* ---- reading */

static void on_character(void *ctx, enum tr_rc rc, const struct catalogue_character *ch, const struct tr_err *err)
{
    struct opening *o = ctx;
    struct tr_err own = {0};

    if (desk_request_over(&o->base) || is_left(o))
        return;
    if (rc == TR_OK && card_parse(ch->card.data, ch->card.len, &o->card, &own) == TR_OK) {
        o->has_avatar = ch->avatar.len > 0;
        o->updated_ms = ch->updated_ms;
    } else if (rc != TR_NOT_FOUND) { /* a chat can be read without its character */
        log_event(LOG_WARN, "desk.character_unread", "character=%s rc=%s cause=%Q", o->base.chat->character->id,
                  tr_rc_name(rc), tr_err_text(rc == TR_OK ? &own : err));
    }
    open_wait(o);
}

static void open_character(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct catalogue *c = r->d->env.catalogue;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (o->card != NULL) {
        open_wait(o);
        return;
    }
    rc = c->ops->character_get(c, r->chat->character->id, on_character, o, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "character", rc, &err);
}

/* Rows -> page; false: r has been answered, or step is on its way. */
static bool open_page(struct opening *o, const struct turn_row *rows, size_t n, struct desk_page *page,
                      void (*step)(struct desk_request *r))
{
    const struct seal_key *key = keyring_peek(o->base.d->env.keyring, &o->chat);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (key == NULL) { /* pushed out of the keyring since */
        step(&o->base);
        return false;
    }
    rc = desk_page_build(key, rows, n, page, &err);
    if (rc != TR_OK)
        desk_request_broke(&o->base, "open", rc, &err);
    return rc == TR_OK;
}

static void open_changed(struct desk_request *r);

static void on_changed(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                       const struct tr_err *err)
{
    struct opening *o = ctx;

    if (desk_request_over(&o->base) || is_left(o) || !is_read(o, "changes", rc, err, open_changed))
        return;
    o->many = more;
    if (open_page(o, rows, n, &o->changed, open_changed))
        open_character(&o->base);
}

static void open_changed(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (desk_request_key(r, &o->chat, open_changed) == NULL)
        return;
    rc = h->ops->changed(h, &o->chat, o->since, CHANGES_MAX, on_changed, o, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "changes", rc, &err);
}

static void open_turns(struct desk_request *r);

static void on_turns(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                     const struct tr_err *err)
{
    struct opening *o = ctx;

    if (desk_request_over(&o->base) || is_left(o) || !is_read(o, "turns", rc, err, open_turns))
        return;
    if (!open_page(o, rows, n, &o->page, open_turns))
        return;
    o->more = more && !uuid_is_nil(&o->after);
    if (o->has_since)
        open_changed(&o->base);
    else
        open_character(&o->base);
}

static void open_turns(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct history *h = r->d->env.history;
    const struct history_range range = {.after = o->after, .limit = OPEN_TURNS, .newest = uuid_is_nil(&o->after)};
    struct tr_err err = {0};
    enum tr_rc rc;

    if (desk_request_key(r, &o->chat, open_turns) == NULL)
        return;
    rc = h->ops->turns(h, &o->chat, &range, on_turns, o, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "turns", rc, &err);
}

static void open_chat(struct desk_request *r);

static void on_chat(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct opening *o = ctx;

    (void)mine;
    if (desk_request_over(&o->base) || is_left(o) || !is_read(o, "chat", rc, err, open_chat))
        return;
    if (!uuid_eq(&chat->user, &o->user)) {
        desk_request_broke(&o->base, "open", TR_NOT_FOUND, NULL);
        return;
    }
    if (!desk_chat_apply(o->base.d, o->base.chat, chat)) {
        desk_request_broke(&o->base, "open", TR_NOMEM, NULL);
        return;
    }
    o->change = chat->change;
    if (uuid_cmp(&o->after, &chat->head) > 0)
        o->after = chat->head; /* nothing stands behind the newest turn */
    open_turns(&o->base);
}

static void open_chat(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chat_get(h, &o->chat, on_chat, o, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "chat", rc, &err);
}

static void on_put(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct opening *o = ctx;

    if (desk_request_over(&o->base) || is_left(o))
        return;
    if (rc != TR_OK) /* the notifier tells all gateways of a chat that it does not know */
        log_event(LOG_DEBUG, "desk.unregistered", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    open_chat(&o->base);
}

static void open_register(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct desk *d = r->d;
    struct registry *reg = d->env.registry;
    struct desk_follow *f;

    if (is_left(o))
        return;
    if (r->chat == NULL)
        r->chat = desk_chat_get(d, &o->chat);
    if (r->chat == NULL) {
        desk_request_broke(r, "open", TR_NOMEM, NULL);
        return;
    }
    f = desk_follow_find(r->viewer, r->chat);
    if (f != NULL && f->busy != NULL) { /* opening or catching up already: one thing after the other */
        if (!desk_request_after(r, BUSY_WAIT_MS, open_register))
            desk_request_broke(r, "open", TR_NOMEM, NULL);
        return;
    }
    if (f == NULL) {
        f = desk_follow_new(r->viewer, r->chat);
        o->is_new = true;
    }
    if (f == NULL) {
        desk_request_broke(r, "open", TR_NOMEM, NULL);
        return;
    }
    f->busy = r;
    r->follow = f;
    if (reg->ops->conn_put(reg, &o->chat, d->queue, CONN_TTL_MS, on_put, o, &r->op, NULL) != TR_OK)
        open_chat(r);
}

/* ---- a new chat */

static void open_create(struct desk_request *r);

static void on_created(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct opening *o = ctx;

    if (desk_request_over(&o->base) || !is_read(o, "create", rc, err, open_create))
        return;
    if (!mine) { /* this id has a chat already: that one */
        keyring_forget(o->base.d->env.keyring, &o->chat);
        o->chat = chat->chat;
        card_free(o->card); /* it may be with another character */
        o->card = NULL;
    }
    open_register(&o->base);
}

static void open_create(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chat_create(h, &o->created, o->has_id ? o->client_hash : NULL, o->greeting.rows,
                                              o->greeting.n, on_created, o, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "create", rc, &err);
}

static void open_make(struct desk_request *r);

static void on_made(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct opening *o = ctx;

    if (desk_request_over(&o->base) || !is_read(o, "key", rc, err, open_make))
        return;
    o->created = (struct history_chat){.chat = o->chat, .user = o->user, .created_ms = wall_ms()};
    o->created.updated_ms = o->created.created_ms;
    memcpy(o->created.character, o->character, sizeof o->created.character);
    rc = desk_greeting_make(o->card, key, &o->created, &o->greeting);
    if (rc != TR_OK)
        desk_request_broke(&o->base, "greeting", rc, NULL);
    else
        open_create(&o->base);
}

static void open_make(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct tr_err err = {0};
    const enum tr_rc rc = keyring_make(r->d->env.keyring, &o->chat, on_made, o, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "key", rc, &err);
}

static void open_new(struct desk_request *r);

static void on_card(void *ctx, enum tr_rc rc, const struct catalogue_character *ch, const struct tr_err *err)
{
    struct opening *o = ctx;
    struct tr_err own = {0};
    uint8_t random[10];

    if (desk_request_over(&o->base) || is_left(o))
        return;
    if (rc == TR_NOT_FOUND) {
        desk_request_fail(&o->base, "not_found", "character", 0, "There is no such character.");
        return;
    }
    if (!is_read(o, "character", rc, err, open_new))
        return;
    rc = card_parse(ch->card.data, ch->card.len, &o->card, &own);
    if (rc != TR_OK) {
        desk_request_broke(&o->base, "card", rc, &own);
        return;
    }
    o->has_avatar = ch->avatar.len > 0;
    o->updated_ms = ch->updated_ms;
    seal_random(random, sizeof random);
    o->chat = uuid_v7(wall_ms(), random);
    open_make(&o->base);
}

static void open_new(struct desk_request *r)
{
    struct opening *o = (struct opening *)r;
    struct catalogue *c = r->d->env.catalogue;
    struct tr_err err = {0};
    const enum tr_rc rc = c->ops->character_get(c, o->character, on_card, o, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "character", rc, &err);
}

static void open_refuse_id(struct desk_request *r)
{
    desk_request_fail(r, "bad_request", "id", 0, "The id must have 1 to %d characters.", DESK_ID_MAX);
}

static void open_refuse_character(struct desk_request *r)
{
    desk_request_fail(r, "bad_request", "character", 0, "A character's id has 1 to 64 of a-z, 0-9 and '-'.");
}

static void open_refuse_drain(struct desk_request *r)
{
    desk_request_fail(r, "overloaded", NULL, 1000, "This server is going down. Try again in a moment.");
}

bool desk_open(struct desk *d, struct desk_viewer *v, const struct desk_open_request *req, desk_opened_done *done,
               void *ctx)
{
    struct opening *o = desk_request_new(d, v, sizeof *o, &open_ops);
    void (*step)(struct desk_request * r) = open_register;

    if (o == NULL)
        return false;
    o->done = done;
    o->ctx = ctx;
    o->user = v->user;
    o->chat = req->chat;
    o->make = req->character != NULL;
    if (o->make && !character_id_valid(req->character, strlen(req->character))) {
        step = open_refuse_character;
    } else if (o->make) {
        step = open_new;
        memcpy(o->character, req->character, strlen(req->character));
        o->has_id = req->id != NULL;
        if (o->has_id && !desk_id_check(req->id, req->id_len))
            step = open_refuse_id;
        else if (o->has_id)
            seal_client_id(d->env.master, &v->user, req->id, req->id_len, o->client_hash);
    } else {
        o->after = req->after;
        o->since = req->since;
        o->has_since = req->has_since;
    }
    desk_request_later(&o->base, d->draining ? open_refuse_drain : step);
    return true;
}
