/*
 * forget - a whole chat is deleted: in the history (port/history.h, rules 8 and 9), then everybody is told, and then it is answered:
 * the news for the other gateways is confirmed by the broker and outlives a node of it, as that of a turn's deletion (change.c).
 * A deletion that was begun and cut off is finished by the history; whoever asks again, of a chat that is gone, has it told again.
 */
#include "role/chat/desk_impl.h"

#include "base/fault.h"

#include <string.h>

struct forgetting {
    struct desk_request base; /* first */
    desk_ok_done *done;
    void *ctx;
    struct uuid chat, user;
    bool left; /* there was nothing to delete, any more or at all */
};

static void forget_fail(struct desk_request *r, const struct desk_error *e)
{
    struct forgetting *f = (struct forgetting *)r;

    f->done(f->ctx, e, -1);
}

static void forget_delete(struct desk_request *r);

/* What runs for the chat, as far as is known here, ends at once. */
static void stop_running(struct desk *d, const struct chat *c)
{
    const struct running *r = c->work != NULL ? c->work->running : NULL;

    for (; r != NULL; r = r->next) {
        const struct envelope env = {.kind = ENVELOPE_STOP, .chat = c->id, .turn = r->turn, .variant = r->variant};

        desk_tell(d, TOPIC_CONTROL, &env);
    }
}

void desk_chat_gone(struct desk *d, const struct uuid *chat)
{
    struct chat *c = desk_chat_find(d, chat);

    keyring_forget(d->env.keyring, chat);
    if (c == NULL)
        return;
    c->refs++;
    stop_running(d, c);
    desk_follow_deleted(d, c, &uuid_nil, 0, NULL);
    desk_chat_unref(d, c);
}

/* Everybody else is told, or could not be (rc): the answer, then those here. */
static void forget_end(struct forgetting *f, enum tr_rc rc, const struct tr_err *err)
{
    struct desk *d = f->base.d;
    const struct uuid chat = f->chat;

    if (rc == TR_OK && f->left)
        rc = TR_NOT_FOUND;
    if (rc != TR_OK) {
        desk_request_broke(&f->base, "delete", rc, err);
        desk_chat_gone(d, &chat);
        return;
    }
    if (f->base.viewer != NULL)
        f->done(f->ctx, NULL, -1);
    desk_chat_gone(d, &chat);
    desk_request_end(&f->base);
}

static void forget_news(struct desk_request *r);

static void news_failed(struct forgetting *f, enum tr_rc rc, const struct tr_err *err)
{
    if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(&f->base, forget_news))
        forget_end(f, rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
}

static void on_news(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct forgetting *f = ctx;

    if (desk_request_over(&f->base))
        return;
    if (rc == TR_OK)
        forget_end(f, TR_OK, NULL);
    else
        news_failed(f, rc, err);
}

/* To the other gateways. */
static void forget_news(struct desk_request *r)
{
    struct forgetting *f = (struct forgetting *)r;
    struct desk *d = r->d;
    struct envelope env = {.kind = ENVELOPE_DELETED, .chat = f->chat};
    struct tr_err err = {0};
    enum tr_rc rc;

    memcpy(env.origin, d->queue, strnlen(d->queue, ENVELOPE_ORIGIN_MAX));
    rc = role_publish(&d->env, topic_notify(&f->chat), &env, false, on_news, f, &r->op, &err);
    if (rc != TR_OK)
        news_failed(f, rc, &err);
}

/* Nothing of it is left in the history.  Everybody is told: who deleted it may have been killed before that. */
static void forget_tell(struct forgetting *f)
{
    struct desk *d = f->base.d;
    struct registry *reg = d->env.registry;
    const struct envelope env = {.kind = ENVELOPE_DELETED, .chat = f->chat};
    struct tr_op *op = NULL;

    keyring_forget(d->env.keyring, &f->chat);
    if (reg->ops->context_drop(reg, &f->chat, desk_ignore, NULL, &op, NULL) != TR_OK)
        op = NULL;                     /* without its key nobody can read it, and it has a TTL */
    desk_tell(d, TOPIC_CONTROL, &env); /* the workers forget the key */
    desk_media_chat_deleted(d, &f->user, &f->chat);
    f->base.began_ms = loop_now_ms(d->env.loop);
    f->base.tries = 0;
    forget_news(&f->base);
}

/* TR_NOT_FOUND: it was there a moment ago, and is gone by now: our own deletion, issued again, or somebody else's. */
static void on_deleted(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct forgetting *f = ctx;

    if (desk_request_over(&f->base))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        if (!desk_rc_again(rc) || !desk_request_again(&f->base, forget_delete))
            desk_request_broke(&f->base, "delete", rc, err);
        return;
    }
    fault_point("forget.deleted");
    forget_tell(f);
}

static void forget_delete(struct desk_request *r)
{
    struct forgetting *f = (struct forgetting *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chat_delete(h, &f->chat, on_deleted, f, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "delete", rc, &err);
}

static void forget_begin(struct desk_request *r);

static void on_chat(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct forgetting *f = ctx;

    (void)mine;
    if (desk_request_over(&f->base))
        return;
    f->left = rc == TR_NOT_FOUND;
    if (rc == TR_OK && uuid_eq(&chat->user, &f->user))
        forget_delete(&f->base);
    else if (rc == TR_OK)
        desk_request_broke(&f->base, "delete", TR_NOT_FOUND, NULL); /* somebody else's */
    else if (f->left)
        forget_tell(f);
    else if (!desk_rc_again(rc) || !desk_request_again(&f->base, forget_begin))
        desk_request_broke(&f->base, "chat", rc, err);
}

static void forget_begin(struct desk_request *r)
{
    struct forgetting *f = (struct forgetting *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->chat_get(h, &f->chat, on_chat, f, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "chat", rc, &err);
}

bool desk_chat_delete(struct desk *d, struct desk_viewer *v, const struct uuid *chat, desk_ok_done *done, void *ctx)
{
    static const struct desk_request_ops ops = {.fail = forget_fail};
    struct forgetting *f = desk_request_new(d, v, sizeof *f, &ops);

    if (f == NULL)
        return false;
    f->done = done;
    f->ctx = ctx;
    f->chat = *chat;
    f->user = v->user;
    desk_request_later(&f->base, forget_begin);
    return true;
}
