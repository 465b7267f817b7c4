/*
 * arrive - comes from: notifier, over [gateway:<instance>].  Goes to: the viewers that have the chat open.
 *
 * An envelope is looked at twice: once for the chat (held back while its key is read or `accepted` is still owed;
 * running texts; what was delivered), then once for each follower (held back while it is opening or catching up).
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

/* ---- one follower */

void desk_send_reply(struct desk *d, struct desk_follow *f, const struct desk_reply *reply, const char *code)
{
    static const char message[] = "The reply could not be written. You can ask for another one.";
    struct envelope about = {.chat = reply->chat, .turn = reply->turn, .variant = reply->variant};

    story_trace(&about.turn, about.trace);
    story_log(LOG_DEBUG, "turn.delivered", &about, "finish=%s", finish_name(reply->finish));

    if (reply->finish == FINISH_ERROR && reply->len == 0)
        d->events.failed(f->viewer, &reply->chat, &reply->turn, desk_code(code), message);
    else
        d->events.reply(f->viewer, reply);
}

struct arrival {
    const struct envelope *env;
    const char *text; /* opened */
    size_t len;
    bool caught_up; /* the history was read since: no reading it again for the same */
};

static void follow_hold(struct desk *d, struct desk_follow *f, const struct arrival *a)
{
    if (a->env->kind == ENVELOPE_DELTA || a->env->kind == ENVELOPE_STATUS)
        return; /* the text so far is sent afterwards */
    if (f->held == NULL)
        f->held = calloc(1, sizeof *f->held);
    if (f->held != NULL && desk_hold(f->held, a->env, a->text, a->len))
        f->held->last->caught_up = a->caught_up;
    else
        desk_gap(d);
}

/* Read what is missing.  false: that was done a moment ago, and it is still missing: it is not there. */
static bool follow_lost(struct desk *d, struct desk_follow *f, const struct arrival *a)
{
    struct work *w = desk_work(f->chat);
    const uint64_t now = loop_now_ms(d->env.loop);
    struct arrival again;

    if (w == NULL)
        desk_mend(d, f);
    if (w == NULL || f->behind)
        return true; /* it is read with all the rest */
    if (a->caught_up)
        return false;
    if (a->env->kind == ENVELOPE_DELTA || a->env->kind == ENVELOPE_STATUS) {
        if (w->lost_ms != 0 && now - w->lost_ms < TEXT_WAIT_MS)
            return true;
        w->lost_ms = now + 1;
    }
    desk_catchup(d, f, &uuid_nil);
    again = *a;
    again.caught_up = true;
    follow_hold(d, f, &again);
    return true;
}

/* Is this the reply that comes next?  An envelope without a predecessor can't tell, but for the chat's very first. */
static bool follows_on(const struct desk_follow *f, const struct envelope *e)
{
    if (uuid_is_nil(&e->predecessor))
        return uuid_is_nil(&f->answered);
    return uuid_cmp(&e->predecessor, &f->answered) <= 0;
}

/* A turn is settled: what waited for it is read. */
static void follow_settled(struct desk *d, struct desk_follow *f)
{
    if (f->early)
        desk_catchup(d, f, &uuid_nil);
}

static void follow_reply(struct desk *d, struct desk_follow *f, const struct arrival *a)
{
    const struct envelope *e = a->env;
    const bool first = e->variant == 0;
    const struct desk_reply reply = {.chat = e->chat,
                                     .turn = e->turn,
                                     .variant = e->variant,
                                     .text = a->text,
                                     .len = a->len,
                                     .finish = e->finish,
                                     .prompt_tokens = e->prompt_tokens,
                                     .cached_tokens = e->cached_tokens,
                                     .completion_tokens = e->completion_tokens,
                                     .ttft_ms = e->ttft_ms};

    if (first ? uuid_cmp(&e->turn, &f->answered) <= 0 : e->change != 0 && e->change <= f->covered)
        return; /* seen */
    if (uuid_cmp(&e->turn, &f->seen) > 0) {
        (void)follow_lost(d, f, a); /* once read and still unknown: it is gone */
        return;
    }
    if (first && !follows_on(f, e)) { /* the replies before it come first */
        if (!follow_lost(d, f, a))
            f->early = true; /* and are not stored yet: it is in the history when they are */
        return;
    }
    if (first)
        f->answered = e->turn;
    follow_settled(d, f);
    desk_send_reply(d, f, &reply, e->code);
}

static void follow_take(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct arrival *a = arg;
    const struct envelope *e = a->env;
    const bool unknown = uuid_cmp(&e->turn, &f->seen) > 0;

    if (f->busy != NULL) {
        follow_hold(d, f, a);
        return;
    }
    switch (e->kind) {
    case ENVELOPE_STATUS:
        if (unknown)
            (void)follow_lost(d, f, a);
        else if (e->variant > 0 || uuid_cmp(&e->turn, &f->answered) > 0)
            d->events.status(f->viewer, &e->chat, &e->turn, e->state, e->position);
        break;
    case ENVELOPE_DELTA:
        if (unknown)
            (void)follow_lost(d, f, a);
        else if (e->variant > 0 || uuid_cmp(&e->turn, &f->answered) > 0)
            d->events.delta(f->viewer, &e->chat, &e->turn, e->variant, e->attempt, e->offset, a->text, a->len);
        break;
    case ENVELOPE_REPLY:
        follow_reply(d, f, a);
        break;
    case ENVELOPE_TURN:
        if (unknown && !a->caught_up && e->origin[0] == '.') /* held back by desk_follow_turn() */
            desk_catchup(d, f, &e->turn);
        else if (unknown)
            (void)follow_lost(d, f, a);
        break;
    case ENVELOPE_CHANGED: /* held back by a refresh */
        if (unknown)
            (void)follow_lost(d, f, a);
        else
            desk_refresh(d, f->chat, &e->turn, NULL);
        break;
    case ENVELOPE_DELETED:
        follow_settled(d, f);
        if (!unknown)
            d->events.deleted(f->viewer, &e->chat, &e->turn);
        break;
    default:
        break;
    }
}

void desk_follow_turn(struct desk *d, struct desk_follow *f, const struct desk_turn *turn,
                      const struct uuid *predecessor, bool own)
{
    if (f->busy != NULL) {
        const struct envelope env = {
            .kind = ENVELOPE_TURN, .chat = turn->chat, .turn = turn->turn, .origin = {own ? '.' : '\0'}};
        const struct arrival a = {.env = &env};

        follow_hold(d, f, &a);
        return;
    }
    if (uuid_cmp(&turn->turn, &f->seen) <= 0)
        return;
    if (uuid_cmp(predecessor, &f->seen) <= 0 && (own || turn->text != NULL)) {
        f->seen = turn->turn;
        if (!own)
            d->events.turn(f->viewer, turn);
        return;
    }
    desk_catchup(d, f, own ? &turn->turn : &uuid_nil);
}

/* An event's callback may have closed it. */
static bool is_alive(const struct chat *c, const struct desk_follow *f)
{
    const struct desk_follow *at = c->follows;

    while (at != NULL && at != f)
        at = at->c_next;
    return at != NULL;
}

/* The text so far of everything that runs: what came meanwhile was not passed on. */
static void follow_texts(struct desk *d, struct desk_follow *f)
{
    struct chat *c = f->chat;
    const struct running *r = c->work != NULL ? c->work->running : NULL;

    for (; r != NULL; r = c->work != NULL ? r->next : NULL) {
        if (r->text.len == 0 || uuid_cmp(&r->turn, &f->seen) > 0)
            continue;
        d->events.delta(f->viewer, &c->id, &r->turn, r->variant, r->attempt, 0, (const char *)r->text.data,
                        r->text.len);
        if (!is_alive(c, f))
            return;
    }
}

void desk_follow_resume(struct desk *d, struct desk_follow *f, bool texts)
{
    struct chat *c = f->chat;
    struct held_list *held = f->held;
    struct held *h;

    c->refs++;
    f->held = NULL;
    if (texts)
        follow_texts(d, f);
    while (held != NULL && (h = desk_held_take(held)) != NULL) {
        const struct arrival a = {
            .env = &h->env, .text = (const char *)h->bytes, .len = h->len, .caught_up = h->caught_up};

        if (is_alive(c, f))
            follow_take(d, f, (void *)(uintptr_t)&a);
        free(h);
    }
    free(held);
    desk_chat_unref(d, c);
}

/* ---- the chat */

/* Is this variant's reply past already? */
static bool is_settled(const struct chat *c, const struct uuid *turn, int32_t variant)
{
    const struct work *w = c->work;

    if (variant == 0 && uuid_cmp(turn, &c->answered) <= 0)
        return true;
    for (size_t i = 0; w != NULL && i < DELIVERED_MAX && i < w->delivered_n; i++)
        if ((w->delivered[i].variant == variant || w->delivered[i].variant < 0) && uuid_eq(&w->delivered[i].turn, turn))
            return true;
    return false;
}

static void note_settled(struct chat *c, const struct uuid *turn, int32_t variant)
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

    if (is_settled(c, &e->turn, e->variant))
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
        desk_follow_each(d, c, follow_take, &fresh);
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

static void take_reply(struct desk *d, struct chat *c, const struct arrival *a)
{
    const struct envelope *e = a->env;

    if (e->variant > 0) {
        if (is_settled(c, &e->turn, e->variant))
            return;
        note_settled(c, &e->turn, e->variant);
    }
    if (e->variant == 0 && uuid_cmp(&e->turn, &c->answered) > 0) {
        if (in_turn(c, e))
            c->answered = e->turn;
        else
            note_settled(c, &e->turn, 0); /* not those before it */
    }
    desk_running_drop(c, &e->turn, e->variant);
    desk_follow_each(d, c, follow_take, (void *)(uintptr_t)a);
    desk_open_poke(d, c);
    if (e->variant > 0)
        desk_refresh(d, c, &e->turn, NULL); /* it is the chosen one now */
}

void desk_reply_found(struct desk *d, struct chat *c, const struct envelope *env, const char *text, size_t len)
{
    const struct arrival a = {.env = env, .text = text, .len = len};

    take_reply(d, c, &a);
}

static void follow_close(struct desk *d, struct desk_follow *f, void *arg)
{
    struct desk_viewer *v = f->viewer;
    const struct uuid chat = f->chat->id;

    (void)arg;
    if (f->busy != NULL)
        return; /* the opening or reading ends with not_found */
    desk_follow_free(d, f);
    d->events.deleted(v, &chat, &uuid_nil);
}

struct deleted_turn {
    struct arrival a;
    const struct desk_viewer *except;
};

static void follow_deleted(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct deleted_turn *t = arg;

    if (f->viewer != t->except)
        follow_take(d, f, (void *)(uintptr_t)&t->a);
    else if (f->busy == NULL)
        follow_settled(d, f); /* it knows of the deletion */
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

void desk_follow_deleted(struct desk *d, struct chat *c, const struct uuid *turn, const struct desk_viewer *except)
{
    const struct envelope env = {.kind = ENVELOPE_DELETED, .chat = c->id, .turn = *turn};
    struct deleted_turn t = {.a = {.env = &env}, .except = except};

    if (uuid_is_nil(turn)) {
        c->gone = true;
        desk_follow_each(d, c, follow_close, NULL);
        return;
    }
    if (is_told_deleted(c, turn))
        return;
    desk_running_drop(c, turn, -1);
    note_settled(c, turn, -1);
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

static void follow_catchup(struct desk *d, struct desk_follow *f, void *arg)
{
    (void)arg;
    desk_mend(d, f);
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
            desk_follow_each(d, c, follow_catchup, NULL); /* the history has it too */
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
        if (!is_settled(c, &env->turn, env->variant))
            take_sealed(d, c, env);
        break;
    case ENVELOPE_REPLY:
        take_sealed(d, c, env);
        break;
    case ENVELOPE_TURN:
        desk_chat_moved(c, &env->turn, env->index);
        desk_follow_each(d, c, follow_take, (void *)(uintptr_t)&a);
        break;
    case ENVELOPE_STATUS:
        desk_follow_each(d, c, follow_take, (void *)(uintptr_t)&a);
        break;
    case ENVELOPE_CHANGED:
        desk_refresh(d, c, &env->turn, NULL);
        break;
    case ENVELOPE_DELETED:
        desk_follow_deleted(d, c, &env->turn, NULL);
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
    rc = role_publish(&d->env, topic_notify(&env->chat), &all, env->kind != ENVELOPE_REPLY, desk_ignore, NULL, &op,
                      &err);
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
    if (env->kind == ENVELOPE_REPLY)
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
