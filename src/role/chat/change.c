/*
 * change - stop, regenerate, choose, edit, delete: one event (or revision) of a turn, written where it is not there.
 *
 *   FINDING -> DECIDING   the turn is read from the chats that the viewer has open
 *   DECIDING -> WRITING   the row is appended at the next revision; taken by somebody else: read and decide again
 *   WRITING -> PUBLISHED  regenerate: WORK is confirmed by the broker
 *   WRITING -> TELLING    choose, edit, delete: the news for the other gateways is confirmed by the broker, and only then it is
 *                         answered: whoever is not answered asks again, and all are told again
 *   any     -> answered, then told: [control] to the worker, `changed` to the others here; what a regeneration comes to is
 *              told by its reply, as a stop is
 */
#include "role/chat/desk_impl.h"

#include "base/fault.h"

#include <stdlib.h>
#include <string.h>

#define RACES_MAX 16

enum change_kind { CHANGE_STOP, CHANGE_REGENERATE, CHANGE_CHOOSE, CHANGE_EDIT, CHANGE_DELETE };

struct change {
    struct desk_request base; /* first */
    desk_ok_done *done;
    void *ctx;
    enum change_kind kind;
    struct uuid turn;
    struct uuid *chats; /* owned: those to look in */
    size_t chats_n, at;
    int32_t variant; /* asked for: choose's, or regenerate's expected one; then the one that is answered */
    char *text;      /* owned: edit's */
    size_t len;
    struct turn_row row;
    struct buf sealed;
    struct buf plain;       /* the user's message as it stands, of edit and delete */
    struct message message; /* the same, borrowed from it */
    struct envelope work;
    uint64_t change; /* of the write; 0: nothing was written */
    uint32_t races;
    bool running; /* as read */
    bool told;    /* something has changed */
    bool gone;    /* delete: the turn was deleted before, and its words are erased */
};

static void change_read(struct desk_request *r);
static void change_write(struct desk_request *r);
static void change_publish(struct desk_request *r);
static void change_tell(struct desk_request *r);

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

static void change_done(struct change *ch)
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
        desk_follow_deleted(d, ch->base.chat, &ch->turn, ch->change, v);
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

static void change_publish(struct desk_request *r)
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

static void change_tell(struct desk_request *r)
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

static void change_write(struct desk_request *r)
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

/* ---- deciding */

static void bad_turn(struct change *ch, const char *why)
{
    desk_request_fail(&ch->base, "bad_request", "turn", 0, "%s", why);
}

static void write_event(struct change *ch, const struct turn_view *v, enum turn_event event, int32_t variant)
{
    ch->row = (struct turn_row){.chat = v->chat,
                                .turn = v->turn,
                                .part = PART_STATE,
                                .rev = v->next_rev,
                                .speaker = SPEAKER_SYSTEM,
                                .user = ch->base.chat->user,
                                .created_ms = wall_ms(),
                                .event = event,
                                .variant = variant,
                                .known = v->variants};
    memcpy(ch->row.character, ch->base.chat->character->id, strlen(ch->base.chat->character->id));
    change_write(&ch->base);
}

static void decide_stop(struct change *ch, const struct turn_view *v)
{
    ch->row.variant = v->variants;
    if (!ch->running)
        change_done(ch); /* nothing is to change */
    else if (v->stop)
        change_publish(&ch->base); /* marked already */
    else
        write_event(ch, v, TURN_EVENT_STOP, v->variants);
}

static void decide_regenerate(struct change *ch, const struct turn_view *v)
{
    const int32_t expected = ch->variant;

    if (v->user == NULL) {
        bad_turn(ch, "The greeting can't be regenerated.");
        return;
    }
    if (expected > 0 && expected < v->wanted) { /* a repeat: it was asked for already */
        ch->variant = expected;
        if (expected == v->variants)
            change_publish(&ch->base);
        else
            change_done(ch);
        return;
    }
    if (ch->running)
        desk_call_again(ch->base.d, ch->base.chat, &v->turn, v->variants); /* in case that nobody knows of it */
    if (ch->running || (expected >= 0 && expected != v->wanted)) {
        desk_request_fail(&ch->base, "conflict", ch->running ? NULL : "variant", 0,
                          ch->running ? "A reply to this turn is being written."
                                      : "The turn has other variants by now.");
        return;
    }
    if (v->variants >= TURN_VARIANTS_MAX) {
        bad_turn(ch, "The turn has as many variants as a turn can have.");
        return;
    }
    if (ch->races == 0 && !desk_has_room(ch->base.d)) {
        desk_request_fail(&ch->base, "overloaded", NULL, 1000, "Too many messages are waiting for their replies.");
        return;
    }
    write_event(ch, v, TURN_EVENT_REGENERATE, v->variants);
}

static void decide_choose(struct change *ch, const struct turn_view *v)
{
    if (ch->variant < 0 || ch->variant >= v->variants) {
        desk_request_fail(&ch->base, "bad_request", "variant", 0, "The turn has no such variant.");
    } else if (ch->variant == v->chosen) {
        ch->told = true; /* asked again: a kill may have come between its row and the telling */
        change_tell(&ch->base);
    } else {
        write_event(ch, v, TURN_EVENT_CHOOSE, ch->variant);
    }
}

/* The message as it stands, into ch->message.  False: the key was pushed out of the keyring since; it is read again. */
static bool read_message(struct change *ch, const struct turn_view *v)
{
    const struct seal_key *key = keyring_peek(ch->base.d->env.keyring, &v->chat);
    struct tr_err err = {0};

    ch->message = (struct message){0};
    if (v->user == NULL || (v->deleted && v->user->sealed_len == 0))
        return true;
    if (key == NULL) {
        change_read(&ch->base);
        return false;
    }
    buf_clear(&ch->plain);
    if (desk_row_message(key, v->user, &ch->plain, &ch->message, &err) != TR_OK)
        desk_damaged(ch->base.d, &v->chat, &v->turn, &err); /* it may be written anew, and deleted */
    return true;
}

/* With the media that it had. */
static enum tr_rc seal_edited(struct change *ch, const struct seal_key *key, const struct seal_bind *bind)
{
    struct message m = ch->message;
    struct buf plain = {0};
    enum tr_rc rc;

    m.text = ch->text;
    m.len = ch->len;
    rc = message_encode(&m, &plain);
    buf_clear(&ch->sealed);
    if (rc == TR_OK)
        rc = seal_data(key, bind, plain.data, plain.len, &ch->sealed);
    buf_wipe(&plain);
    return rc;
}

static void decide_edit(struct change *ch, const struct turn_view *v)
{
    const struct seal_key *key = keyring_peek(ch->base.d->env.keyring, &v->chat);
    struct seal_bind bind;
    char why[120];
    const char *code;

    if (v->user == NULL) {
        bad_turn(ch, "The greeting can't be edited.");
        return;
    }
    if (!read_message(ch, v))
        return;
    code = desk_text_check(ch->base.d, ch->text, ch->len, ch->message.media_n > 0, why);
    if (code != NULL) {
        desk_request_fail(&ch->base, code, "text", 0, "%s", why);
        return;
    }
    ch->row = *v->user;
    ch->row.rev = v->user_rev + 1;
    ch->row.created_ms = wall_ms();
    ch->row.attempt = 0;
    bind = (struct seal_bind){.kind = SEAL_HISTORY,
                              .chat = v->chat,
                              .turn = v->turn,
                              .part = PART_USER,
                              .rev = ch->row.rev,
                              .role = (uint8_t)ch->row.speaker};
    if (seal_edited(ch, key, &bind) != TR_OK)
        desk_request_broke(&ch->base, "seal", TR_NOMEM, NULL);
    else
        change_write(&ch->base);
}

static void decide(struct change *ch, const struct turn_view *v)
{
    ch->running = v->variants < v->wanted;
    ch->work = (struct envelope){.kind = ENVELOPE_WORK,
                                 .again = true, /* but for a regeneration's first one */
                                 .chat = v->chat,
                                 .turn = v->turn,
                                 .variant = v->variants,
                                 .user = ch->base.chat->user};
    if (v->user != NULL) {
        ch->work.predecessor = v->user->predecessor;
        ch->work.index = v->user->index;
        ch->work.rev = v->user_rev;
        ch->work.created_ms = v->created_ms;
    }
    memcpy(ch->work.character, ch->base.chat->character->id, strlen(ch->base.chat->character->id));
    story_trace(&v->turn, ch->work.trace);
    switch (ch->kind) {
    case CHANGE_STOP:
        decide_stop(ch, v);
        break;
    case CHANGE_REGENERATE:
        decide_regenerate(ch, v);
        break;
    case CHANGE_CHOOSE:
        decide_choose(ch, v);
        break;
    case CHANGE_EDIT:
        decide_edit(ch, v);
        break;
    case CHANGE_DELETE:
        if (!read_message(ch, v))
            break;
        if (v->deleted)
            change_write(&ch->base); /* the event that stands */
        else
            write_event(ch, v, TURN_EVENT_DELETE, v->variants);
        break;
    }
}

/*
 * It was deleted before, and whoever did it may have been killed on the way: the same event is issued again, so that the words
 * go, and all that follows is done again.  Somebody who finds the words gone is told that there is no such turn.
 */
static void delete_again(struct change *ch, const struct turn_view *v, const struct turn_row *rows, size_t n)
{
    ch->gone = true;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].part == PART_STATE && rows[i].event == TURN_EVENT_DELETE)
            ch->row = rows[i];
        else if (rows[i].sealed_len > 0)
            ch->gone = false;
    }
    buf_clear(&ch->sealed);
    if (v->user == NULL || v->user->sealed_len == 0) /* which media it had, it does not tell any more */
        desk_media_stored(ch->base.d, &ch->base.chat->user);
    decide(ch, v);
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
        delete_again(ch, &v, rows, n);
    else if (v.deleted)
        desk_request_broke(&ch->base, "read", TR_NOT_FOUND, NULL);
    else
        decide(ch, &v);
}

static void change_read(struct desk_request *r)
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
