/*
 * arrive - comes from: notifier, over [gateway:<instance>].  Goes to: the viewers that have the chat open.
 *
 * An envelope is looked at twice: here for the chat (held back while its key is read or `accepted` is still owed;
 * running texts; what was delivered), then in follow.c for each follower.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static void take(struct desk *d, struct chat *c, const struct envelope *env);

/* ---- the chat's own hold */

static void chat_hold(struct desk *d, struct chat *c, const struct envelope *env)
{
    struct work *w = desk_work(c);

    if (w == NULL || (env->kind <= ENVELOPE_DELTA && w->held.n >= HELD_DELTAS_MAX))
        return; /* deltas and states may be lost */
    if (!desk_hold(&w->held, env, env->sealed.data, env->sealed.len))
        desk_gap(d);
}

/* Events of the turn whose `accepted` is still owed, and of those behind it. */
static bool owed(const struct chat *c, const struct envelope *env)
{
    const struct work *w = c->work;

    return w != NULL && !uuid_is_nil(&w->accepting) && uuid_cmp(&env->turn, &w->accepting) >= 0;
}

void desk_replay(struct desk *d, struct chat *c)
{
    struct held_list held;
    struct held *h;

    if (c->work == NULL)
        return;
    held = c->work->held;
    c->work->held = (struct held_list){0};
    c->refs++;
    while ((h = desk_held_take(&held)) != NULL) {
        take(d, c, &h->env);
        free(h);
    }
    desk_work_tidy(c);
    desk_chat_unref(d, c);
}

struct key_fetch {
    struct desk_request base; /* first */
};

static void key_fetch_fail(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* never called: no viewer */
    (void)e;
}

static void follow_unread(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    desk_unread(d, f);
}

static void key_fetch_release(struct desk_request *r)
{
    if (r->chat->work == NULL || r->chat->work->key_fetch != r)
        return;
    r->chat->work->key_fetch = NULL;
    desk_held_release(&r->chat->work->held); /* there is no key: forgotten, or it could not be read */
    if (r->unread && !r->d->dead)
        desk_follow_each(r->d, r->chat, follow_unread, NULL);
    desk_work_tidy(r->chat);
}

static void key_fetch_step(struct desk_request *r)
{
    if (desk_request_key(r, &r->chat->id, key_fetch_step) == NULL)
        return;
    r->chat->work->key_fetch = NULL;
    desk_replay(r->d, r->chat);
    desk_request_end(r);
}

/* The chat's key, or NULL: the envelope waits for it. */
static const struct seal_key *key_or_hold(struct desk *d, struct chat *c, const struct envelope *env)
{
    static const struct desk_request_ops ops = {.fail = key_fetch_fail, .release = key_fetch_release};
    const struct seal_key *key = keyring_peek(d->env.keyring, &c->id);
    struct key_fetch *r;

    if (key != NULL)
        return key;
    if (desk_work(c) == NULL)
        return NULL;
    chat_hold(d, c, env);
    if (c->work->key_fetch != NULL)
        return NULL;
    r = desk_request_new(d, NULL, sizeof *r, &ops);
    if (r == NULL) {
        desk_gap(d);
        return NULL;
    }
    r->base.chat = c;
    c->refs++;
    c->work->key_fetch = &r->base;
    desk_request_later(&r->base, key_fetch_step);
    return NULL;
}

/* ---- the chat */

bool desk_is_settled(const struct chat *c, const struct uuid *turn, int32_t variant)
{
    const struct work *w = c->work;

    if (variant == 0 && uuid_cmp(turn, &c->answered) <= 0)
        return true;
    for (size_t i = 0; w != NULL && i < DELIVERED_MAX && i < w->delivered_n; i++)
        if ((w->delivered[i].variant == variant || w->delivered[i].variant < 0) && uuid_eq(&w->delivered[i].turn, turn))
            return true;
    return false;
}

void desk_note_settled(struct chat *c, const struct uuid *turn, int32_t variant)
{
    struct work *w = desk_work(c);

    if (w == NULL)
        return; /* then it may come twice */
    w->delivered[w->delivered_n % DELIVERED_MAX].turn = *turn;
    w->delivered[w->delivered_n % DELIVERED_MAX].variant = variant;
    w->delivered_n++;
}

/* Take a delta into the running text.  true: *ret holds what is new of it. */
static bool running_add(struct desk *d, struct chat *c, const struct arrival *a, struct arrival *ret,
                        struct envelope *env)
{
    const struct envelope *e = a->env;
    struct running *r;

    if (desk_is_settled(c, &e->turn, e->variant))
        return false;
    r = desk_running_get(c, &e->turn, e->variant);
    if (r == NULL || e->attempt < r->attempt)
        return false;
    if (e->attempt > r->attempt) {
        r->attempt = e->attempt;
        buf_clear(&r->text);
        r->known = false;
    }
    if (e->offset > r->text.len) {
        desk_running_ask(d, c, r);
        return false;
    }
    r->known = true;
    if (e->offset + a->len <= r->text.len || e->offset + a->len > ENVELOPE_SEALED_MAX)
        return false;
    *env = *e;
    env->offset = r->text.len;
    ret->text = a->text + (r->text.len - e->offset);
    ret->len = a->len - (r->text.len - e->offset);
    ret->env = env;
    buf_add(&r->text, ret->text, ret->len);
    if (r->text.failed) {
        buf_clear(&r->text);
        r->known = false;
        return false;
    }
    return true;
}

static void take_delta(struct desk *d, struct chat *c, const struct arrival *a)
{
    struct envelope env;
    struct arrival fresh = {0};

    if (running_add(d, c, a, &fresh, &env))
        desk_follow_each(d, c, desk_follow_take, &fresh);
    desk_open_poke(d, c);
}

/* Are all replies before this one past, as far as anybody here knows? */
static bool in_turn(const struct chat *c, const struct envelope *e)
{
    bool past = uuid_cmp(&e->predecessor, &c->answered) <= 0;

    for (const struct desk_follow *f = c->follows; f != NULL && !past; f = f->c_next)
        past = uuid_cmp(&e->predecessor, &f->answered) <= 0;
    return past;
}

/* One that was found is not for those who were told of it when it was new. */
static void follow_reply(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct arrival *a = arg;

    if (!a->found || !desk_was_told(f, a->env->change))
        desk_follow_take(d, f, arg);
}

static void take_reply(struct desk *d, struct chat *c, const struct arrival *a)
{
    const struct envelope *e = a->env;

    if (e->variant > 0) {
        if (desk_is_settled(c, &e->turn, e->variant))
            return;
        desk_note_settled(c, &e->turn, e->variant);
    }
    if (e->variant == 0 && uuid_cmp(&e->turn, &c->answered) > 0) {
        if (in_turn(c, e))
            c->answered = e->turn;
        else
            desk_note_settled(c, &e->turn, 0); /* not those before it */
    }
    desk_running_drop(c, &e->turn, e->variant);
    desk_follow_each(d, c, follow_reply, (void *)(uintptr_t)a);
    desk_open_poke(d, c);
    if (e->variant > 0)
        desk_refresh(d, c, &e->turn, NULL, e->change); /* it is the chosen one now */
}

void desk_reply_found(struct desk *d, struct chat *c, const struct envelope *env, const char *text, size_t len)
{
    const struct arrival a = {.env = env, .text = text, .len = len, .found = true};

    take_reply(d, c, &a);
}

void desk_follow_gone(struct desk *d, struct desk_follow *f)
{
    struct desk_viewer *v = f->viewer;
    const struct uuid chat = f->chat->id;

    desk_follow_free(d, f);
    d->events.deleted(v, &chat, &uuid_nil);
}

static void follow_close(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    if (f->busy == NULL) /* else when the opening or reading has ended */
        desk_follow_gone(d, f);
}

struct deleted_turn {
    struct arrival a;
    const struct desk_viewer *except;
};

static void follow_deleted(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct deleted_turn *t = arg;

    if (f->viewer != t->except) {
        desk_follow_take(d, f, (void *)(uintptr_t)&t->a);
    } else if (f->busy == NULL) { /* it knows of the deletion */
        desk_told(d, f, t->a.env->change);
        desk_follow_settled(d, f);
    }
}

/* A deletion that is asked for again is told again, by whoever is asked. */
static bool is_told_deleted(const struct chat *c, const struct uuid *turn)
{
    const struct work *w = c->work;

    for (size_t i = 0; w != NULL && i < DELIVERED_MAX && i < w->delivered_n; i++)
        if (w->delivered[i].variant < 0 && uuid_eq(&w->delivered[i].turn, turn))
            return true;
    return false;
}

void desk_follow_deleted(struct desk *d, struct chat *c, const struct uuid *turn, uint64_t change,
                         const struct desk_viewer *except)
{
    const struct envelope env = {.kind = ENVELOPE_DELETED, .chat = c->id, .turn = *turn, .change = change};
    struct deleted_turn t = {.a = {.env = &env}, .except = except};

    if (uuid_is_nil(turn)) {
        c->gone = true;
        desk_follow_each(d, c, follow_close, NULL);
        return;
    }
    if (is_told_deleted(c, turn))
        return;
    desk_running_drop(c, turn, -1);
    desk_note_settled(c, turn, -1);
    desk_follow_each(d, c, follow_deleted, &t);
}

/* The sealed text of a delta or a reply, opened. */
static enum tr_rc open_text(const struct seal_key *key, const struct envelope *e, struct buf *out, struct tr_err *err)
{
    const struct seal_bind bind = {.kind = e->kind == ENVELOPE_DELTA ? SEAL_DELTA : SEAL_QUEUE,
                                   .chat = e->chat,
                                   .turn = e->turn,
                                   .part = e->variant + PART_FIRST_VARIANT,
                                   .role = SPEAKER_CHARACTER};

    return seal_open(key, &bind, e->sealed.data, e->sealed.len, out, err);
}

static void take_sealed(struct desk *d, struct chat *c, const struct envelope *env)
{
    const bool bare =
        env->kind == ENVELOPE_REPLY && env->sealed.len == 0; /* an error that has no words, and needs no key */
    const struct seal_key *key = bare ? NULL : key_or_hold(d, c, env);
    struct arrival a = {.env = env, .text = ""};
    struct buf text = {0};
    struct tr_err err = {0};

    if (bare)
        take_reply(d, c, &a);
    if (key == NULL)
        return;
    if (open_text(key, env, &text, &err) != TR_OK) {
        desk_damaged(d, &env->chat, &env->turn, &err);
        if (env->kind == ENVELOPE_REPLY)
            desk_mend_all(d, c); /* the history has it too */
    } else {
        a.text = (const char *)text.data;
        a.len = text.len;
        if (env->kind == ENVELOPE_DELTA)
            take_delta(d, c, &a);
        else
            take_reply(d, c, &a);
    }
    buf_wipe(&text);
}

static void take(struct desk *d, struct chat *c, const struct envelope *env)
{
    const struct arrival a = {.env = env};

    if (owed(c, env) || (c->work != NULL && c->work->key_fetch != NULL)) {
        chat_hold(d, c, env);
        return;
    }
    switch (env->kind) {
    case ENVELOPE_DELTA:
        if (!desk_is_settled(c, &env->turn, env->variant))
            take_sealed(d, c, env);
        break;
    case ENVELOPE_REPLY:
        take_sealed(d, c, env);
        break;
    case ENVELOPE_TURN:
        desk_chat_moved(c, &env->turn, env->index);
        desk_follow_each(d, c, desk_follow_take, (void *)(uintptr_t)&a);
        break;
    case ENVELOPE_STATUS:
        desk_follow_each(d, c, desk_follow_take, (void *)(uintptr_t)&a);
        break;
    case ENVELOPE_CHANGED:
        desk_refresh(d, c, &env->turn, NULL, env->change);
        break;
    case ENVELOPE_DELETED:
        desk_follow_deleted(d, c, &env->turn, env->change, NULL);
        break;
    default:
        break;
    }
}

/* Our own news, back from the notifier: it was told here at once. */
static bool is_echo(const struct desk *d, const struct envelope *env)
{
    return (env->kind == ENVELOPE_TURN || env->kind == ENVELOPE_CHANGED || env->kind == ENVELOPE_DELETED) &&
           strcmp(env->origin, d->queue) == 0;
}

/*
 * Its connection has gone meanwhile.  The chat's record names us all the same, and maybe nobody else: it goes to all, once, and
 * our name is taken out of the record.
 */
static void not_open(struct desk *d, const struct envelope *env)
{
    struct registry *r = d->env.registry;
    struct envelope all = *env;
    struct tr_op *op = NULL;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (env->reach != REACH_RECORDED)
        return;
    all.reach = REACH_ALL;
    if (r->ops->conn_remove(r, &env->chat, d->queue, desk_ignore, NULL, &op, NULL) != TR_OK)
        op = NULL; /* it ends by its TTL */
    rc =
        role_publish(&d->env, topic_notify(&env->chat), &all, env->kind == ENVELOPE_TURN, desk_ignore, NULL, &op, &err);
    if (rc != TR_OK)
        log_event(LOG_WARN, "desk.not_passed_on", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(&err));
}

static void arrive(struct desk *d, const struct envelope *env)
{
    struct chat *c = desk_chat_find(d, &env->chat);

    if (env->kind == ENVELOPE_DELETED && uuid_is_nil(&env->turn))
        keyring_forget(d->env.keyring, &env->chat);
    if (c == NULL || c->follows == NULL)
        not_open(d, env);
    if (c == NULL)
        return;
    c->refs++;
    desk_chat_changed(c, env->change);
    if (c->follows != NULL || (env->kind == ENVELOPE_TURN && c->loaded))
        take(d, c, env);
    desk_chat_unref(d, c);
}

void desk_on_message(void *ctx, const struct queue_incoming *msg)
{
    struct desk *d = ctx;
    struct envelope env;
    struct tr_err err = {0};

    if (envelope_decode(msg->body.data, msg->body.len, &env, &err) != TR_OK)
        log_event(LOG_WARN, "desk.unreadable", "bytes=%zu cause=%Q", msg->body.len, tr_err_text(&err));
    else if (!is_echo(d, &env))
        arrive(d, &env);
    if (err.rc == TR_OK && env.kind == ENVELOPE_REPLY)
        story_taken(STORY_GATEWAY, &env);
    if (msg->delivery != NULL)
        d->env.queue->ops->ack(d->env.queue, msg->delivery);
}
