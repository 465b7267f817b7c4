/*
 * change - stop, regenerate, choose, edit, delete: one event (or revision) of a turn, written where it is not there.
 *
 *   FINDING -> DECIDING   the turn is read from the chats that the viewer has open
 *   DECIDING -> WRITING   (decide.c) the row is appended at the next revision; taken by somebody else: read and decide again
 *   WRITING -> PUBLISHED  regenerate: WORK is confirmed by the broker
 *   WRITING -> TELLING    choose, edit, delete: the news for the other gateways is confirmed by the broker, and only then it is
 *                         answered: whoever is not answered asks again, and all are told again
 *   any     -> answered, then told: [control] to the worker, `changed` to the others here; what a regeneration comes to is
 *              told by its reply, as a stop is
 */
#include "role/chat/change_impl.h"

#include "base/fault.h"

#include <stdlib.h>
#include <string.h>

#define RACES_MAX 16

static void change_fail(struct desk_request *r, const struct desk_error *e)
{
    struct change *ch = (struct change *)r;

    ch->done(ch->ctx, e, -1);
}

static void change_release(struct desk_request *r)
{
    struct change *ch = (struct change *)r;

    free(ch->chats);
    if (ch->text != NULL)
        memset(ch->text, 0, ch->len);
    free(ch->text);
    buf_wipe(&ch->plain);
    buf_release(&ch->sealed);
}

static void tell_worker(struct change *ch, int32_t variant)
{
    const struct envelope env = {
        .kind = ENVELOPE_STOP, .chat = ch->base.chat->id, .turn = ch->turn, .variant = variant};

    desk_tell(ch->base.d, TOPIC_CONTROL, &env);
}

/* What the other gateways are told. */
static struct envelope change_news(const struct change *ch)
{
    struct envelope env = {.kind = ch->kind == CHANGE_DELETE ? ENVELOPE_DELETED : ENVELOPE_CHANGED,
                           .chat = ch->base.chat->id,
                           .turn = ch->turn,
                           .change = ch->change};

    memcpy(env.origin, ch->base.d->queue, strnlen(ch->base.d->queue, ENVELOPE_ORIGIN_MAX));
    return env;
}

/* A mark to stop is nothing to be told of. */
static void follow_stopped(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct change *ch = arg;

    if (f->busy == NULL)
        desk_told(d, f, ch->change);
}

void change_done(struct change *ch)
{
    struct desk *d = ch->base.d;
    struct desk_viewer *v = ch->base.viewer;
    const int32_t variant = ch->kind == CHANGE_REGENERATE ? ch->variant : -1;

    if (v != NULL && ch->gone)
        ch->done(ch->ctx, &(struct desk_error){.code = "not_found", .message = "There is no such chat or turn."}, -1);
    else if (v != NULL)
        ch->done(ch->ctx, NULL, variant);
    v = ch->base.viewer; /* it may have gone */
    if (ch->kind == CHANGE_STOP) {
        if (ch->running)
            tell_worker(ch, ch->row.variant);
        desk_follow_each(d, ch->base.chat, follow_stopped, ch);
    } else if (ch->kind == CHANGE_DELETE) {
        if (ch->running)
            tell_worker(ch, ch->work.variant);
        /* Who heard that there is no such turn was not told that it is deleted. */
        desk_follow_deleted(d, ch->base.chat, &ch->turn, ch->change, ch->gone ? NULL : v);
        desk_media_turn_deleted(d, &ch->base.chat->user, &ch->base.chat->id, &ch->message);
    } else if (ch->told) {
        desk_refresh(d, ch->base.chat, &ch->turn, v, ch->change);
    }
    if (ch->told && ch->kind == CHANGE_REGENERATE) { /* may be lost: its reply tells too */
        const struct envelope env = change_news(ch);

        desk_tell(d, topic_notify(&env.chat), &env);
    }
    desk_request_end(&ch->base);
}

/* ---- the WORK of regenerate and stop */

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct change *ch = ctx;

    if (desk_request_over(&ch->base))
        return;
    ch->work.again = true; /* should it be published once more */
    if (rc == TR_OK)
        story_log(LOG_INFO, "turn.accepted", &ch->work, "known=0");
    if (rc == TR_OK)
        change_done(ch);
    else if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(&ch->base, change_publish))
        desk_request_broke(&ch->base, "publish", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
}

void change_publish(struct desk_request *r)
{
    struct change *ch = (struct change *)r;
    struct tr_err err = {0};
    const enum tr_rc rc = role_publish(&r->d->env, TOPIC_INCOMING, &ch->work, false, on_published, ch, &r->op, &err);

    if (rc == TR_OK)
        return;
    if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(r, change_publish))
        desk_request_broke(r, "publish", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, &err);
}

/* ---- the news of choose, edit and delete: confirmed before the answer, and not transient, so that it outlives a node of the broker */

static void on_told(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct change *ch = ctx;

    if (desk_request_over(&ch->base))
        return;
    if (rc == TR_OK)
        change_done(ch);
    else if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(&ch->base, change_tell))
        desk_request_broke(&ch->base, "tell", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
}

void change_tell(struct desk_request *r)
{
    struct change *ch = (struct change *)r;
    const struct envelope env = change_news(ch);
    struct tr_err err = {0};
    const enum tr_rc rc = role_publish(&r->d->env, topic_notify(&env.chat), &env, false, on_told, ch, &r->op, &err);

    if (rc == TR_OK)
        return;
    if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(r, change_tell))
        desk_request_broke(r, "tell", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, &err);
}

static void change_written(struct change *ch)
{
    fault_point("change.stored");
    desk_chat_changed(ch->base.chat, ch->change);
    ch->told = true;
    ch->base.began_ms = loop_now_ms(ch->base.d->env.loop);
    if (ch->kind == CHANGE_REGENERATE || ch->kind == CHANGE_STOP) {
        /* A stop calls too: the turn may have been written and never published, and its empty reply is owed now. */
        ch->work.again = ch->kind == CHANGE_STOP;
        if (ch->kind == CHANGE_REGENERATE)
            ch->variant = ch->work.variant;
        change_publish(&ch->base);
    } else {
        change_tell(&ch->base);
    }
}

/* ---- the write */

static void on_written(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                       const struct tr_err *err)
{
    struct change *ch = ctx;

    (void)standing;
    if (desk_request_over(&ch->base))
        return;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&ch->base, change_write))
            desk_request_broke(&ch->base, "append", rc, err);
    } else if (mine) {
        ch->change = change;
        change_written(ch);
    } else if (++ch->races > RACES_MAX) {
        desk_request_broke(&ch->base, "append", TR_BUSY, NULL);
    } else {
        change_read(&ch->base);
    }
}

void change_write(struct desk_request *r)
{
    struct change *ch = (struct change *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    ch->row.sealed = ch->sealed.len > 0 ? ch->sealed.data : NULL;
    ch->row.sealed_len = ch->sealed.len;
    rc = h->ops->append(h, &ch->row, 1, on_written, ch, &r->op, &err);
    if (rc != TR_OK && (!desk_rc_again(rc) || !desk_request_again(r, change_write)))
        desk_request_broke(r, "append", rc, &err);
}

/* ---- finding */

static void change_find(struct desk_request *r);

static void on_turn(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct change *ch = ctx;
    struct turn_view v;

    (void)more;
    if (desk_request_over(&ch->base))
        return;
    if (rc == TR_NOT_FOUND) {
        ch->at++;
        change_find(&ch->base);
        return;
    }
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&ch->base, change_read))
            desk_request_broke(&ch->base, "read", rc, err);
        return;
    }
    turn_fold(rows, n, &v);
    if (v.deleted && ch->kind == CHANGE_DELETE)
        decide_deleted(ch, &v, rows, n);
    else if (v.deleted)
        desk_request_broke(&ch->base, "read", TR_NOT_FOUND, NULL);
    else
        decide_change(ch, &v);
}

void change_read(struct desk_request *r)
{
    struct change *ch = (struct change *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if ((ch->kind == CHANGE_EDIT || ch->kind == CHANGE_DELETE) &&
        desk_request_key(r, &r->chat->id, change_read) == NULL)
        return;
    rc = h->ops->turn_get(h, &r->chat->id, &ch->turn, on_turn, ch, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "read", rc, &err);
}

/* In the next of the chats that the viewer has open. */
static void change_find(struct desk_request *r)
{
    struct change *ch = (struct change *)r;

    desk_chat_unref(r->d, r->chat);
    r->chat = NULL;
    while (ch->at < ch->chats_n && r->chat == NULL) {
        struct chat *c = desk_chat_find(r->d, &ch->chats[ch->at]);

        if (c == NULL || !c->loaded || c->gone) {
            ch->at++;
            continue;
        }
        c->refs++;
        r->chat = c;
    }
    if (r->chat == NULL)
        desk_request_broke(r, "find", TR_NOT_FOUND, NULL);
    else
        change_read(r);
}

static void change_begin(struct desk_request *r)
{
    struct change *ch = (struct change *)r;
    char why[120];
    const char *code;

    if (r->d->draining) {
        desk_request_fail(r, "overloaded", NULL, 1000, "This server is going down. Try again in a moment.");
        return;
    }
    code = ch->kind == CHANGE_EDIT ? desk_text_check(r->d, ch->text, ch->len, true, why) : NULL;
    if (code != NULL)
        desk_request_fail(r, code, "text", 0, "%s", why);
    else
        change_find(r);
}

/* A chat that is still opening may be another user's. */
static bool may_change(const struct desk_viewer *v, const struct desk_follow *f)
{
    return f->chat->loaded && uuid_eq(&f->chat->user, &v->user);
}

static struct change *change_new(struct desk *d, struct desk_viewer *v, enum change_kind kind, const struct uuid *turn,
                                 desk_ok_done *done, void *ctx)
{
    static const struct desk_request_ops ops = {.fail = change_fail, .release = change_release};
    struct change *ch = desk_request_new(d, v, sizeof *ch, &ops);
    size_t n = 0;

    if (ch == NULL)
        return NULL;
    ch->done = done;
    ch->ctx = ctx;
    ch->kind = kind;
    ch->turn = *turn;
    ch->variant = -1;
    for (const struct desk_follow *f = v->follows; f != NULL; f = f->v_next)
        n += may_change(v, f);
    ch->chats = calloc(n + 1, sizeof *ch->chats);
    if (ch->chats == NULL) {
        desk_request_end(&ch->base);
        return NULL;
    }
    for (const struct desk_follow *f = v->follows; f != NULL; f = f->v_next)
        if (may_change(v, f))
            ch->chats[ch->chats_n++] = f->chat->id;
    desk_request_later(&ch->base, change_begin);
    return ch;
}

bool desk_stop(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx)
{
    return change_new(d, v, CHANGE_STOP, turn, done, ctx) != NULL;
}

bool desk_regenerate(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t expected,
                     desk_ok_done *done, void *ctx)
{
    struct change *ch = change_new(d, v, CHANGE_REGENERATE, turn, done, ctx);

    if (ch != NULL)
        ch->variant = expected;
    return ch != NULL;
}

bool desk_choose(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t variant, desk_ok_done *done,
                 void *ctx)
{
    struct change *ch = change_new(d, v, CHANGE_CHOOSE, turn, done, ctx);

    if (ch != NULL)
        ch->variant = variant;
    return ch != NULL;
}

static void change_nomem(struct desk_request *r)
{
    desk_request_broke(r, "edit", TR_NOMEM, NULL);
}

bool desk_edit(struct desk *d, struct desk_viewer *v, const struct uuid *turn, const char *text, size_t len,
               desk_ok_done *done, void *ctx)
{
    struct change *ch = change_new(d, v, CHANGE_EDIT, turn, done, ctx);

    if (ch == NULL)
        return false;
    ch->text = malloc(len + 1);
    if (ch->text == NULL) {
        ch->base.step = change_nomem; /* instead of the beginning */
        return true;
    }
    memcpy(ch->text, text, len);
    ch->len = len;
    return true;
}

bool desk_delete(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx)
{
    return change_new(d, v, CHANGE_DELETE, turn, done, ctx) != NULL;
}
