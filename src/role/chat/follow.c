/*
 * follow - one follower: what is held back for it, what it lacks, what it is told, and which changes it was told of.
 * Comes from: arrive.c, and the requests of this gateway.  Goes to: its viewer.
 *
 * Every change of a chat has the next number (port/history.h), and an event names the change that it tells of.  So a change that was
 * not told shows: as a hole between those that were (`told`, `heard`), even if no gap was.  A change is marked as told when its event is
 * handed out; a regeneration's is told by `changed`, which follows its reply.
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define HEARD_MAX 64 /* bits of `heard` */

/* ---- changes */

bool desk_was_told(const struct desk_follow *f, uint64_t change)
{
    return change <= f->told ||
           (change - f->told <= HEARD_MAX && (f->heard & UINT64_C(1) << (change - f->told - 1)) != 0);
}

void desk_told_up_to(struct desk_follow *f, uint64_t change)
{
    if (change > f->told) {
        f->heard = change - f->told < HEARD_MAX ? f->heard >> (change - f->told) : 0;
        f->told = change;
    }
    while ((f->heard & 1) != 0) {
        f->heard >>= 1;
        f->told++;
    }
}

void desk_told(struct desk *d, struct desk_follow *f, uint64_t change)
{
    if (change <= f->told) /* 0: nobody knows */
        return;
    if (change - f->told <= HEARD_MAX)
        f->heard |= UINT64_C(1) << (change - f->told - 1);
    else
        f->far = true;
    desk_told_up_to(f, f->told);
    if (f->heard != 0 || f->far)
        desk_hole(d, f->chat);
}

void desk_replied(struct desk_follow *f, uint64_t change)
{
    size_t n = 0;

    if (change <= f->told) /* 0: nobody knows */
        return;
    for (size_t i = 0; i < f->replied_n; i++) /* those that were told meanwhile need no mark any more */
        if (!desk_was_told(f, f->replied[i]))
            f->replied[n++] = f->replied[i];
    f->replied_n = n;
    if (n == f->replied_max) {
        const size_t max = n * 2 + 4;
        uint64_t *more = realloc(f->replied, max * sizeof *more);

        if (more == NULL)
            return; /* then it may come twice */
        f->replied = more;
        f->replied_max = max;
    }
    f->replied[f->replied_n++] = change;
}

bool desk_was_replied(const struct desk_follow *f, const struct uuid *turn, uint64_t change)
{
    bool found = change != 0 && (change <= f->began || desk_was_told(f, change) ||
                                 (change <= f->covered && uuid_cmp(turn, &f->listed) > 0));

    for (size_t i = 0; i < f->replied_n && !found; i++)
        found = f->replied[i] == change;
    return found;
}

/* ---- events */

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
void desk_follow_settled(struct desk *d, struct desk_follow *f)
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

    if (first && uuid_cmp(&e->turn, &f->answered) <= 0) {
        desk_told(d, f, e->change); /* seen */
        return;
    }
    if (!first && desk_was_replied(f, &e->turn, e->change))
        return;
    if (uuid_cmp(&e->turn, &f->seen) > 0) {
        (void)follow_lost(d, f, a); /* once read and still unknown: it is gone */
        return;
    }
    if (first && !follows_on(f, e)) { /* the replies before it come first */
        if (!follow_lost(d, f, a))
            f->early = true; /* and are not stored yet: it is in the history when they are */
        return;
    }
    if (first) {
        f->answered = e->turn;
        desk_told(d, f, e->change);
    } else {
        desk_replied(f, e->change); /* told when `changed` comes */
    }
    desk_follow_settled(d, f);
    desk_send_reply(d, f, &reply, e->code);
}

void desk_follow_take(struct desk *d, struct desk_follow *f, void *arg)
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
        if (unknown && f->behind && e->origin[0] == '.') /* kept, so that it is known as its own when all is read */
            follow_hold(d, f, a);
        else if (unknown && !a->caught_up && e->origin[0] == '.') /* held back by desk_follow_turn() */
            desk_catchup(d, f, &e->turn);
        else if (unknown)
            (void)follow_lost(d, f, a);
        else
            desk_told(d, f, e->change);
        break;
    case ENVELOPE_CHANGED: /* held back by a refresh */
        if (unknown)
            (void)follow_lost(d, f, a);
        else if (e->change == 0 || !desk_was_told(f, e->change)) /* the history was read meanwhile */
            desk_refresh(d, f->chat, &e->turn, NULL, e->change);
        break;
    case ENVELOPE_DELETED:
        if (e->change != 0 && desk_was_told(f, e->change))
            break;
        desk_told(d, f, e->change);
        desk_follow_settled(d, f);
        if (!unknown)
            d->events.deleted(f->viewer, &e->chat, &e->turn);
        break;
    default:
        break;
    }
}

void desk_follow_turn(struct desk *d, struct desk_follow *f, const struct desk_turn *turn,
                      const struct uuid *predecessor, uint64_t change, bool own)
{
    if (f->busy != NULL || (own && desk_awaits_page(d, f))) {
        const struct envelope env = {.kind = ENVELOPE_TURN,
                                     .chat = turn->chat,
                                     .turn = turn->turn,
                                     .change = change,
                                     .origin = {own ? '.' : '\0'}};
        const struct arrival a = {.env = &env};

        follow_hold(d, f, &a);
        return;
    }
    if (uuid_cmp(&turn->turn, &f->seen) <= 0) {
        desk_told(d, f, change);
        return;
    }
    if (uuid_cmp(predecessor, &f->seen) <= 0 && (own || turn->text != NULL)) {
        f->seen = turn->turn;
        desk_told(d, f, change);
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

void desk_follow_texts(struct desk *d, struct desk_follow *f, const struct uuid *before)
{
    struct chat *c = f->chat;
    const struct running *r = c->work != NULL ? c->work->running : NULL;

    for (; r != NULL; r = c->work != NULL ? r->next : NULL) {
        if (r->text.len == 0 || uuid_cmp(&r->turn, &f->seen) > 0 || (before != NULL && uuid_cmp(&r->turn, before) >= 0))
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
        desk_follow_texts(d, f, NULL);
    while (held != NULL && (h = desk_held_take(held)) != NULL) {
        const struct arrival a = {
            .env = &h->env, .text = (const char *)h->bytes, .len = h->len, .caught_up = h->caught_up};

        if (is_alive(c, f))
            desk_follow_take(d, f, (void *)(uintptr_t)&a);
        free(h);
    }
    free(held);
    desk_chat_unref(d, c);
}
