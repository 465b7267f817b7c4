/*
 * mark - does the turn that a mark speaks of still stand?  Asked for the marks of a user's files, one after the other, by the walk
 * of media.c.  Comes from: media.c; goes to: port/history.h,
 * port/media.h.
 *
 *   chat_get   the chat is gone: so is the mark.  Kept for the next marks of the same chat.
 *   accept     which turn has the mark's ref (it is the message's client hash)?  Upon a head that no chat has, so nothing is
 *              written; none has it: the message may be on its way, and the mark stays,
 *              until it is a day old by the store's own clock.  A send does not take so long: each of its steps ends within
 *              seconds (RETRY_FOR_MS and an operation's deadline), its wait behind others of its chat within minutes.  Sent again,
 *              it makes the mark young: media.c looks at the age once more before it takes such a mark
 *   turn_get   deleted: the mark goes
 *
 * The last two cost the history a look each a mark: at most TURNS_MAX a walk; the next walk of the user goes on behind them.
 */
#include "role/chat/desk_impl.h"

#include <string.h>

#define TURNS_MAX 256
#define ON_ITS_WAY_MS UINT64_C(86400000)

static void judge_step(struct desk_request *r);

static void judged(struct desk_judge *j, bool left)
{
    j->known = true;
    j->left = left;
    j->next(j->r);
}

static void judge_failed(struct desk_judge *j, enum tr_rc rc, const struct tr_err *err)
{
    if (!desk_rc_again(rc) || !desk_request_again(j->r, judge_step))
        desk_request_broke(j->r, "marks", rc == TR_NOT_FOUND ? TR_INVALID : rc, err);
}

/* The chat's place among those that are known; NULL: it is not. */
static struct desk_judged_chat *chat_known(struct desk_judge *j)
{
    for (size_t i = 0; i < DESK_JUDGED_CHATS && i < j->chats_n; i++)
        if (uuid_eq(&j->chats[i].id, &j->chat))
            return &j->chats[i];
    return NULL;
}

static void on_turn(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct desk_judge *j = ctx;
    struct turn_view v;

    (void)more;
    if (desk_request_over(j->r))
        return;
    if (rc == TR_OK) {
        turn_fold(rows, n, &v);
        judged(j, v.deleted);
    } else if (rc == TR_NOT_FOUND) {
        judged(j, false);
    } else {
        judge_failed(j, rc, err);
    }
}

static void on_asked(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    struct desk_judge *j = ctx;

    if (desk_request_over(j->r))
        return;
    if (rc == TR_OK && res->outcome == ACCEPT_KNOWN) {
        j->turn = res->turn;
        judge_step(j->r);
    } else if (rc == TR_OK) {
        j->unclaimed = true;
        judge_step(j->r);
    } else if (rc == TR_NOT_FOUND) {
        judged(j, true);
    } else {
        judge_failed(j, rc, err);
    }
}

static void on_age(void *ctx, enum tr_rc rc, uint64_t age_ms, const struct tr_err *err)
{
    struct desk_judge *j = ctx;

    if (desk_request_over(j->r))
        return;
    if (rc == TR_OK || rc == TR_NOT_FOUND)
        judged(j, rc == TR_OK && age_ms >= ON_ITS_WAY_MS);
    else
        judge_failed(j, rc, err);
}

/* Not in a month that the chat has not reached: its newest turn's time. */
static enum tr_rc ask_turn(struct desk_judge *j, const struct uuid *head, struct tr_err *err)
{
    static const uint8_t nothing[1];
    struct history *h = j->r->d->env.history;
    struct history_accept a = {.head = HISTORY_NO_HEAD};
    uint8_t random[10];

    seal_random(random, sizeof random);
    a.row = (struct turn_row){.chat = j->chat,
                              .turn = uuid_v7_after(head, uuid_ms(head), random),
                              .part = PART_USER,
                              .speaker = SPEAKER_USER,
                              .user = j->user,
                              .predecessor = HISTORY_NO_HEAD,
                              .index = 1,
                              .created_ms = wall_ms(),
                              .sealed = nothing,
                              .sealed_len = sizeof nothing};
    memcpy(a.client_hash, j->ref, sizeof j->ref);
    return h->ops->accept(h, &a, on_asked, j, &j->r->op, err);
}

static void on_chat(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct desk_judge *j = ctx;
    struct desk_judged_chat *c = &j->chats[j->chats_n % DESK_JUDGED_CHATS];

    (void)mine;
    if (desk_request_over(j->r))
        return;
    if (rc != TR_OK && rc != TR_NOT_FOUND) {
        judge_failed(j, rc, err);
        return;
    }
    j->chats_n++;
    *c = (struct desk_judged_chat){.id = j->chat, .gone = rc == TR_NOT_FOUND};
    if (rc == TR_OK)
        c->head = chat->head;
    judge_step(j->r);
}

static void judge_step(struct desk_request *r)
{
    struct desk_judge *j = r->judge;
    struct history *h = r->d->env.history;
    struct media *store = r->d->env.media;
    const struct desk_judged_chat *c = chat_known(j);
    struct tr_err err = {0};
    enum tr_rc rc;

    r->began_ms = r->tries == 0 ? loop_now_ms(r->d->env.loop) : r->began_ms;
    if (c == NULL) {
        rc = h->ops->chat_get(h, &j->chat, on_chat, j, &r->op, &err);
    } else if (c->gone || !j->ask) {
        judged(j, c->gone);
        return;
    } else if (j->unclaimed) {
        rc = store->ops->age(store, j->name, on_age, j, &r->op, &err);
    } else if (uuid_is_nil(&j->turn)) {
        rc = ask_turn(j, &c->head, &err);
    } else {
        rc = h->ops->turn_get(h, &j->chat, &j->turn, on_turn, j, &r->op, &err);
    }
    if (rc != TR_OK)
        judge_failed(j, rc, &err);
}

bool desk_judge(struct desk_request *r, struct desk_judge *j, const char *name, void (*next)(struct desk_request *r))
{
    const struct desk_judged_chat *c;

    j->left = j->unclaimed = false;
    if (!message_mark_read(name, &j->chat, j->ref))
        return false; /* none of ours: it stays */
    j->ask = j->asked < TURNS_MAX && strcmp(name, j->from) > 0;
    c = chat_known(j);
    j->left = c != NULL && c->gone;
    if (j->left || (c != NULL && !j->ask))
        return false;
    r->judge = j;
    r->tries = 0;
    j->r = r;
    j->next = next;
    j->turn = uuid_nil;
    memcpy(j->name, name, strlen(name) + 1);
    if (j->ask && ++j->asked == TURNS_MAX)
        memcpy(j->last, name, strlen(name) + 1); /* the next walk goes on behind it */
    judge_step(r);
    return true;
}
