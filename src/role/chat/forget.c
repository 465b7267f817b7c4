/*
 * forget - a whole chat is deleted: in the history (port/history.h, rules 8 and 9), then everybody is told.
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

/* Nothing of it is left in the history.  Everybody is told: who deleted it may have been killed before that. */
static void forget_tell(struct forgetting *f)
{
    struct desk *d = f->base.d;
    struct registry *reg = d->env.registry;
    struct envelope env = {.kind = ENVELOPE_DELETED, .chat = f->chat};
    struct tr_op *op = NULL;

    keyring_forget(d->env.keyring, &f->chat);
    if (reg->ops->context_drop(reg, &f->chat, desk_ignore, NULL, &op, NULL) != TR_OK)
        op = NULL;                     /* without its key nobody can read it, and it has a TTL */
    desk_tell(d, TOPIC_CONTROL, &env); /* the workers forget the key */
    memcpy(env.origin, d->queue, strnlen(d->queue, ENVELOPE_ORIGIN_MAX));
    desk_tell(d, topic_notify(&f->chat), &env);
    desk_media_chat_deleted(d, &f->user, &f->chat);
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

/* It is deleted already, or never was. */
static void forget_left(struct forgetting *f)
{
    struct desk *d = f->base.d;
    const struct uuid chat = f->chat;

    forget_tell(f);
    desk_request_broke(&f->base, "delete", TR_NOT_FOUND, NULL);
    desk_chat_gone(d, &chat);
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
    if (f->base.viewer != NULL)
        f->done(f->ctx, NULL, -1);
    desk_chat_gone(f->base.d, &f->chat);
    desk_request_end(&f->base);
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
    if (rc == TR_OK && uuid_eq(&chat->user, &f->user))
        forget_delete(&f->base);
    else if (rc == TR_OK)
        desk_request_broke(&f->base, "delete", TR_NOT_FOUND, NULL); /* somebody else's */
    else if (rc == TR_NOT_FOUND)
        forget_left(f);
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
