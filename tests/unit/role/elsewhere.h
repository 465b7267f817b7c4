/*
 * elsewhere - what happens to a chat at another gateway, and whether a view has been told of all of it.  Include after <cmocka.h>
 * and what that needs.
 */
#ifndef TESTS_UNIT_ROLE_ELSEWHERE_H
#define TESTS_UNIT_ROLE_ELSEWHERE_H

#include "role/chat/desk_impl.h"
#include "tests/unit/role/front.h"

FIXTURE static bool has_text(void *ctx)
{
    return ((struct view *)ctx)->log[0] != '\0';
}

FIXTURE static void told(struct view *w, const char *want)
{
    assert_true(support_until(fx.loop, has_text, w, SUPPORT_LIMIT_MS));
    expect_log(w, want);
}

static uint64_t change; /* of the chat, as the history counts */

FIXTURE static void reply_told(const struct uuid *turn, const struct uuid *predecessor, int32_t variant,
                               const char *text)
{
    struct envelope env = {.kind = ENVELOPE_REPLY, .variant = variant, .finish = FINISH_STOP, .attempt = 7};

    env.chat = fx.chat;
    env.turn = *turn;
    env.predecessor = *predecessor;
    env.change = change;
    tell(&env, text);
}

/* A turn that is sent here and answered. */
FIXTURE static struct uuid a_turn(struct view *w, const char *id, const struct uuid *predecessor)
{
    const struct answer a = send_text(w, id, id);

    assert_string_equal(a.code, "");
    store_reply(&a.id, 0, "r", FINISH_STOP);
    change += 2;
    reply_told(&a.id, predecessor, 0, "r");
    return a.id;
}

/* Another device edits, at another gateway, and nobody tells of it. */
FIXTURE static void edit_elsewhere(const struct uuid *turn, const char *text, int32_t rev)
{
    struct turn_row row = {.chat = fx.chat,
                           .turn = *turn,
                           .rev = rev,
                           .speaker = SPEAKER_USER,
                           .user = fx.user,
                           .created_ms = wall_ms(),
                           .character = "ada"};
    struct buf sealed = {0};

    seal_row(&fx, &row, text, &sealed);
    append(&fx, &row);
    buf_release(&sealed);
    change++;
}

FIXTURE static void event_elsewhere(const struct uuid *turn, enum turn_event event, int32_t variant, int32_t rev)
{
    append_event(&fx, turn, event, variant, rev);
    change++;
}

FIXTURE static struct desk_follow *follow_of(const struct view *w)
{
    return w->v.follows;
}

FIXTURE static bool is_idle(void *ctx)
{
    const struct desk_follow *f = follow_of(ctx);

    return desk->gap_left == 0 && f->busy == NULL && !f->behind && desk->requests_n == 0;
}

FIXTURE static void idle(struct view *w)
{
    assert_true(support_until(fx.loop, is_idle, w, SUPPORT_LIMIT_MS));
    support_for(fx.loop, 30);
}

#endif
