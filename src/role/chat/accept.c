/*
 * accept - a user's message becomes a turn.  Comes from: a front door.  Goes to: [incoming].
 *
 *   CHECKED -> RATED      the limits of user and address
 *   RATED   -> LOADED     room for it; the chat is known and the user's own
 *   LOADED  -> MEDIA      each of the message's media is there and the user's own, and marked (claim.c)
 *   LOADED, MEDIA -> IN LINE  one acceptance at a time a chat
 *   IN LINE -> WRITTEN    the conditional write; again with the new head where it has moved, the same again where its
 *                         end is unknown; an id that has a turn already: that turn is read
 *   WRITTEN -> PUBLISHED  WORK is confirmed by the broker
 *   PUBLISHED -> accepted, and what was held back of this turn's events
 */
#include "role/chat/desk_impl.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/metrics.h"
#include "domain/notes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MOVES_MAX 64
#define RATE_LOG_MS 10000

static struct metric accepted_total =
    METRIC(METRIC_COUNTER, "troupe_turns_accepted_total", NULL, "Messages that were accepted.");
static struct metric accept_seconds =
    METRIC(METRIC_HISTOGRAM, "troupe_accept_seconds", NULL, "From a message's arrival to its acceptance.");

struct accept {
    struct desk_request base; /* first */
    desk_accepted_done *done;
    void *ctx;
    struct uuid chat_id, user;
    uint8_t address[16];
    uint64_t began_ns;
    char *text; /* owned */
    size_t len;
    struct desk_claim claim; /* the message's media */
    struct history_accept write;
    struct buf sealed;
    struct envelope work;
    uint64_t change; /* of the write; 0: unknown */
    uint32_t moves;
    bool in_line;
    bool known; /* the id had a turn already */
    bool gone;  /* and that one is deleted */
};

static void accept_write(struct desk_request *r);
static void accept_publish(struct desk_request *r);

static void accept_fail(struct desk_request *r, const struct desk_error *e)
{
    struct accept *a = (struct accept *)r;

    a->done(a->ctx, e, NULL);
}

/* Out of the chat's line; what was held back goes on, and so does the next in line. */
static void leave_line(struct accept *a)
{
    struct chat *c = a->base.chat;
    struct work *w = c->work;
    struct desk_request **at = &w->accepts, *before = NULL;
    const bool first = w->accepts == &a->base;

    while (*at != &a->base) {
        before = *at;
        at = &before->line_next;
    }
    *at = a->base.line_next;
    if (w->accepts_last == &a->base)
        w->accepts_last = before;
    w->accepts_n--;
    a->in_line = false;
    if (first) {
        w->accepting = uuid_nil;
        if (!a->base.d->dead) {
            if (w->accepts != NULL)
                desk_request_later(w->accepts, accept_write);
            desk_replay(a->base.d, c);
        }
    }
    desk_work_tidy(c);
}

static void accept_release(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;

    if (a->in_line)
        leave_line(a);
    if (a->text != NULL)
        memset(a->text, 0, a->len);
    free(a->text);
    seal_key_wipe(&a->claim.key);
    buf_release(&a->sealed);
}

/* ---- accepted */

static void follow_others(struct desk *d, struct desk_follow *f, void *arg)
{
    const struct accept *a = arg;
    const struct desk_turn turn = {.chat = a->chat_id,
                                   .turn = a->write.row.turn,
                                   .created_ms = a->write.row.created_ms,
                                   .text = a->text,
                                   .len = a->len,
                                   .chosen = -1,
                                   .media = a->claim.media,
                                   .media_n = a->claim.n};

    if (f->viewer != a->base.viewer)
        desk_follow_turn(d, f, &turn, &a->write.row.predecessor, a->change, false);
}

/* The turn that the id had is deleted, and its sender knows of the turn only now: that settles it. */
static void tell_deleted(struct accept *a)
{
    struct desk_follow *own = a->base.viewer != NULL ? desk_follow_find(a->base.viewer, a->base.chat) : NULL;
    const struct envelope env = {.kind = ENVELOPE_DELETED, .chat = a->chat_id, .turn = a->write.row.turn};
    struct arrival arrival = {.env = &env};

    if (own != NULL)
        desk_follow_take(a->base.d, own, &arrival);
}

static void accept_done(struct accept *a)
{
    struct desk *d = a->base.d;
    struct chat *c = a->base.chat;
    struct desk_follow *own = a->base.viewer != NULL ? desk_follow_find(a->base.viewer, c) : NULL;
    const struct desk_turn turn = {.chat = a->chat_id, .turn = a->write.row.turn};

    fault_point("accept.published");
    metric_add(&accepted_total, 1);
    metric_observe_us(&accept_seconds, (mono_ns() - a->began_ns) / 1000);
    if (a->work.trace[0] != '\0') /* else it was settled already */
        story_log(LOG_INFO, "turn.accepted", &a->work, "known=%d", (int)a->known);
    if (own != NULL)
        desk_follow_turn(d, own, &turn, &a->write.row.predecessor, a->change, true);
    if (a->base.viewer != NULL)
        a->done(a->ctx, NULL, &turn.turn); /* may release the viewer */
    if (a->gone)
        tell_deleted(a);
    if (!a->known)
        desk_follow_each(d, c, follow_others, a);
    if (!a->known && !d->alone) {
        struct envelope env = {.kind = ENVELOPE_TURN,
                               .chat = a->chat_id,
                               .turn = turn.turn,
                               .predecessor = a->write.row.predecessor,
                               .user = a->user,
                               .index = a->write.row.index,
                               .change = a->change,
                               .created_ms = a->write.row.created_ms};

        memcpy(env.origin, d->queue, strnlen(d->queue, ENVELOPE_ORIGIN_MAX));
        memcpy(env.trace, a->work.trace, sizeof env.trace);
        desk_tell(d, topic_notify(&a->chat_id), &env);
    }
    desk_request_end(&a->base);
}

static void on_published(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct accept *a = ctx;

    if (desk_request_over(&a->base))
        return;
    a->work.again = true; /* should it be published once more */
    if (rc == TR_OK)
        accept_done(a);
    else if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(&a->base, accept_publish))
        desk_request_broke(&a->base, "publish", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
}

/* The notes: the text as sent, so that preprocess need not read the history. */
static enum tr_rc seal_notes(struct accept *a, const struct seal_key *key, struct buf *out)
{
    const struct notes notes = {.rev = a->work.rev,
                                .raw = {(const uint8_t *)a->text, a->len},
                                .media = {(const uint8_t *)a->claim.media, a->claim.n * sizeof a->claim.media[0]}};
    const struct seal_bind bind = {.kind = SEAL_QUEUE,
                                   .chat = a->work.chat,
                                   .turn = a->work.turn,
                                   .part = PART_USER,
                                   .rev = a->work.rev,
                                   .role = SPEAKER_USER};
    struct buf plain = {0};
    enum tr_rc rc = notes_encode(&notes, &plain);

    if (rc == TR_OK)
        rc = seal_data(key, &bind, plain.data, plain.len, out);
    buf_wipe(&plain);
    return rc;
}

static void accept_publish(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    const struct seal_key *key = desk_request_key(r, &a->chat_id, accept_publish);
    struct buf sealed = {0};
    struct tr_err err = {0};
    enum tr_rc rc = TR_OK;

    if (key == NULL)
        return;
    if (!a->known) /* else the text under the id may be another one */
        rc = seal_notes(a, key, &sealed);
    a->work.sealed = (struct slice){sealed.data, sealed.len};
    if (rc == TR_OK)
        rc = role_publish(&r->d->env, TOPIC_INCOMING, &a->work, false, on_published, a, &r->op, &err);
    a->work.sealed = (struct slice){0};
    buf_release(&sealed);
    if (rc == TR_OK)
        return;
    if (!(desk_rc_again(rc) || rc == TR_NOT_FOUND) || !desk_request_again(r, accept_publish))
        desk_request_broke(r, "publish", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, &err);
}

static void accept_written(struct accept *a, int32_t rev, int32_t variant)
{
    const struct turn_row *row = &a->write.row;

    fault_point("accept.stored");
    desk_chat_moved(a->base.chat, &row->turn, row->index);
    a->work = (struct envelope){.kind = ENVELOPE_WORK,
                                .chat = row->chat,
                                .turn = row->turn,
                                .predecessor = row->predecessor,
                                .user = row->user,
                                .index = row->index,
                                .rev = rev,
                                .variant = variant,
                                .again = a->known,
                                .created_ms = row->created_ms};
    memcpy(a->work.character, row->character, sizeof a->work.character);
    story_trace(&row->turn, a->work.trace);
    a->base.began_ms = loop_now_ms(a->base.d->env.loop);
    accept_publish(&a->base);
}

/* ---- an id that was used before */

static void accept_known(struct desk_request *r);

static void on_known(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                     const struct tr_err *err)
{
    struct accept *a = ctx;
    struct turn_view v;

    (void)more;
    if (desk_request_over(&a->base))
        return;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&a->base, accept_known))
            desk_request_broke(&a->base, "read", rc, err);
        return;
    }
    turn_fold(rows, n, &v);
    a->gone = v.deleted;
    if (v.user != NULL) {
        a->write.row.predecessor = v.user->predecessor;
        a->write.row.index = v.user->index;
        a->write.row.created_ms = v.created_ms;
    }
    if (v.user != NULL && turn_running(&v))
        accept_written(a, v.user_rev, v.variants);
    else
        accept_done(a);
}

static void accept_known(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    const enum tr_rc rc = h->ops->turn_get(h, &a->chat_id, &a->write.row.turn, on_known, a, &r->op, &err);

    if (rc != TR_OK)
        desk_request_broke(r, "read", rc, &err);
}

/* ---- the write */

static void accept_issue(struct desk_request *r);

/* A message whose media are not there any more may be one that was accepted before they went: its id decides, and it is only asked. */
static void on_accepted(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    struct accept *a = ctx;
    struct chat *c = a->base.chat;

    if (desk_request_over(&a->base))
        return;
    if (rc == TR_NOT_FOUND) { /* deleted elsewhere, and nobody came to tell */
        const struct uuid chat = a->chat_id;
        struct desk *d = a->base.d;

        desk_request_broke(&a->base, "accept", rc, err);
        desk_chat_gone(d, &chat);
        return;
    }
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&a->base, accept_issue))
            desk_request_broke(&a->base, "accept", rc, err);
        return;
    }
    desk_chat_changed(c, res->change);
    switch (res->outcome) {
    case ACCEPT_MOVED:
        if (a->claim.refused != NULL) { /* the id is new, then */
            desk_request_fail(&a->base, "bad_request", "media", 0, "%s", a->claim.refused);
            return;
        }
        c->head = res->head;
        c->index = res->index;
        if (++a->moves > MOVES_MAX)
            desk_request_broke(&a->base, "accept", TR_BUSY, NULL);
        else
            accept_write(&a->base);
        return;
    case ACCEPT_KNOWN:
        if (!uuid_eq(&res->turn, &a->write.row.turn)) {
            a->known = true;
            a->write.row.turn = res->turn;
            c->work->accepting = uuid_nil; /* that turn's events need not wait */
            desk_replay(a->base.d, c);
            accept_known(&a->base);
            return;
        }
        break; /* our own write, issued again */
    case ACCEPT_DONE:
        a->change = res->change;
        break;
    }
    accept_written(a, 0, 0);
}

static void accept_issue(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    a->write.row.sealed = a->sealed.data;
    a->write.row.sealed_len = a->sealed.len;
    rc = h->ops->accept(h, &a->write, on_accepted, a, &r->op, &err);
    if (rc != TR_OK && (!desk_rc_again(rc) || !desk_request_again(r, accept_issue)))
        desk_request_broke(r, "accept", rc, &err);
}

/* The user's message as it rests. */
static enum tr_rc seal_message(struct accept *a, const struct seal_key *key, const struct seal_bind *bind)
{
    struct message m = {.text = a->text, .len = a->len, .media = a->claim.media, .media_n = a->claim.n};
    struct buf plain = {0};
    enum tr_rc rc;

    buf_clear(&a->sealed);
    if (a->claim.n == 0 || a->claim.refused != NULL) /* refused: it is never written */
        return seal_data(key, bind, a->text, a->len, &a->sealed);
    memcpy(m.ref, a->write.client_hash, sizeof m.ref);
    rc = message_encode(&m, &plain);
    if (rc == TR_OK)
        rc = seal_data(key, bind, plain.data, plain.len, &a->sealed);
    buf_wipe(&plain);
    return rc;
}

static void accept_write(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    struct chat *c = r->chat;
    const struct seal_key *key = desk_request_key(r, &a->chat_id, accept_write);
    struct turn_row *row = &a->write.row;
    struct seal_bind bind;
    uint8_t random[10];

    if (key == NULL)
        return;
    seal_random(random, sizeof random);
    if (a->moves == 0)
        r->began_ms = loop_now_ms(r->d->env.loop);
    *row = (struct turn_row){.chat = a->chat_id,
                             .part = PART_USER,
                             .speaker = SPEAKER_USER,
                             .user = a->user,
                             .created_ms = wall_ms(),
                             .predecessor = c->head,
                             .index = uuid_is_nil(&c->head) ? 0 : c->index + 1};
    row->turn = uuid_v7_after(&c->head, row->created_ms, random);
    memcpy(row->character, c->character->id, strlen(c->character->id));
    a->write.head = a->claim.refused == NULL ? c->head : HISTORY_NO_HEAD;
    a->write.change = c->change;
    c->work->accepting = row->turn;
    bind = (struct seal_bind){
        .kind = SEAL_HISTORY, .chat = row->chat, .turn = row->turn, .part = PART_USER, .role = SPEAKER_USER};
    if (seal_message(a, key, &bind) != TR_OK)
        desk_request_broke(r, "seal", TR_NOMEM, NULL);
    else
        accept_issue(r);
}

/* ---- before it */

static void accept_line(struct accept *a);

static void on_claimed(struct desk_request *r)
{
    accept_line((struct accept *)r);
}

static void accept_line(struct accept *a)
{
    struct chat *c = a->base.chat;
    struct work *w;

    if (!uuid_eq(&c->user, &a->user) || c->gone) {
        desk_request_broke(&a->base, "send", TR_NOT_FOUND, NULL);
        return;
    }
    if (a->claim.n > 0 && !a->claim.ended) {
        desk_claim(&a->base, &a->claim, on_claimed);
        return;
    }
    w = desk_work(c);
    if (w == NULL || w->accepts_n >= ACCEPTS_WAITING_MAX) {
        desk_work_tidy(c);
        desk_request_broke(&a->base, "send", w == NULL ? TR_NOMEM : TR_BUSY, NULL);
        return;
    }
    if (w->accepts == NULL)
        w->accepts = &a->base;
    else
        w->accepts_last->line_next = &a->base;
    w->accepts_last = &a->base;
    w->accepts_n++;
    a->in_line = true;
    if (w->accepts == &a->base)
        accept_write(&a->base);
}

static void accept_load(struct desk_request *r);

static void on_chat(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct accept *a = ctx;

    (void)mine;
    if (desk_request_over(&a->base))
        return;
    if (rc != TR_OK) {
        if (!desk_rc_again(rc) || !desk_request_again(&a->base, accept_load))
            desk_request_broke(&a->base, "chat", rc, err);
        return;
    }
    if (!desk_chat_apply(a->base.d, a->base.chat, chat))
        desk_request_broke(&a->base, "chat", TR_NOMEM, NULL);
    else
        accept_line(a);
}

static void accept_load(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    struct history *h = r->d->env.history;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (r->chat == NULL)
        r->chat = desk_chat_get(r->d, &a->chat_id);
    if (r->chat == NULL) {
        desk_request_broke(r, "chat", TR_NOMEM, NULL);
        return;
    }
    if (r->chat->loaded) {
        accept_line(a);
        return;
    }
    rc = h->ops->chat_get(h, &a->chat_id, on_chat, a, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "chat", rc, &err);
}

static void accept_admit(struct accept *a)
{
    if (desk_has_room(a->base.d))
        accept_load(&a->base);
    else
        desk_request_fail(&a->base, "overloaded", NULL, 1000, "Too many messages are waiting for their replies.");
}

/* ---- the rates; a registry that fails refuses nobody (contract 3.7) */

static bool rate_refused(struct accept *a, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    struct desk *d = a->base.d;
    const uint64_t now = loop_now_ms(d->env.loop);

    if (rc != TR_OK) {
        if (d->rate_log_ms == 0 || now - d->rate_log_ms >= RATE_LOG_MS)
            log_event(LOG_WARN, "desk.rates_unknown", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
        if (d->rate_log_ms == 0 || now - d->rate_log_ms >= RATE_LOG_MS)
            d->rate_log_ms = now + 1;
        return false;
    }
    if (retry_after_ms == 0)
        return false;
    desk_request_fail(&a->base, "rate_limited", NULL, retry_after_ms, "Too many messages in a short time.");
    return true;
}

static void on_address_rate(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    struct accept *a = ctx;

    if (!desk_request_over(&a->base) && !rate_refused(a, rc, retry_after_ms, err))
        accept_admit(a);
}

static void accept_rate_address(struct accept *a)
{
    struct desk *d = a->base.d;
    struct registry *r = d->env.registry;
    char key[DESK_ADDRESS_KEY + 1];

    desk_address_key(a->address, key);
    if (d->rate_address == 0 ||
        r->ops->rate_take(r, key, (uint32_t)d->rate_address, on_address_rate, a, &a->base.op, NULL) != TR_OK)
        accept_admit(a);
}

static void on_user_rate(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    struct accept *a = ctx;

    if (!desk_request_over(&a->base) && !rate_refused(a, rc, retry_after_ms, err))
        accept_rate_address(a);
}

static void accept_rate_user(struct desk_request *base)
{
    struct accept *a = (struct accept *)base;
    struct desk *d = base->d;
    struct registry *r = d->env.registry;
    char key[5 + UUID_TEXT] = "user:";

    uuid_format(&a->user, key + 5);
    if (d->rate_user == 0 ||
        r->ops->rate_take(r, key, (uint32_t)d->rate_user, on_user_rate, a, &base->op, NULL) != TR_OK)
        accept_rate_address(a);
}

static void accept_check(struct desk_request *r)
{
    struct accept *a = (struct accept *)r;
    char why[120];
    const char *code;

    if (r->d->draining) {
        desk_request_fail(r, "overloaded", NULL, 1000, "This server is going down. Try again in a moment.");
        return;
    }
    code = desk_text_check(r->d, a->text, a->len, a->claim.n > 0, why);
    if (code != NULL)
        desk_request_fail(r, code, "text", 0, "%s", why);
    else
        accept_rate_user(r);
}

static void accept_bad_id(struct desk_request *r)
{
    desk_request_fail(r, "bad_request", "id", 0, "The id must have 1 to %d characters.", DESK_ID_MAX);
}

bool desk_send(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const char *id, size_t id_len,
               const char *text, size_t len, const struct uuid *media, size_t media_n, desk_accepted_done *done,
               void *ctx)
{
    static const struct desk_request_ops ops = {.fail = accept_fail, .release = accept_release};
    struct accept *a = desk_request_new(d, v, sizeof *a, &ops);

    if (a == NULL)
        return false;
    a->done = done;
    a->ctx = ctx;
    a->chat_id = *chat;
    a->user = v->user;
    assert(media_n <= MESSAGE_MEDIA_MAX);
    a->claim = (struct desk_claim){.n = media_n, .user = &a->user, .chat = &a->chat_id, .ref = a->write.client_hash};
    for (size_t i = 0; i < media_n; i++)
        a->claim.media[i].id = media[i];
    memcpy(a->address, v->address, sizeof a->address);
    a->began_ns = mono_ns();
    a->text = malloc(len + 1);
    if (a->text == NULL) {
        desk_request_end(&a->base);
        return false;
    }
    memcpy(a->text, text, len);
    a->len = len;
    if (desk_id_check(id, id_len)) {
        seal_client_id(d->env.master, chat, id, id_len, a->write.client_hash);
        desk_request_later(&a->base, accept_check);
    } else {
        desk_request_later(&a->base, accept_bad_id);
    }
    return true;
}
