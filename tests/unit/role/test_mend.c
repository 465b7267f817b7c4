/*
 * test_mend - role/chat: what was missed is read again, all of it, and told once: a gap while a chat is opened, an error that came
 * early, a history that can't be read.  Over the real embedded adapters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/chat/desk_impl.h"
#include "tests/unit/role/front.h"

static bool has_text(void *ctx)
{
    return ((struct view *)ctx)->log[0] != '\0';
}

static void told(struct view *w, const char *want)
{
    assert_true(support_until(fx.loop, has_text, w, SUPPORT_LIMIT_MS));
    expect_log(w, want);
}

static bool waits_for_the_text(void *ctx)
{
    const struct work *work = ((struct chat *)ctx)->work;

    return work != NULL && work->running != NULL && work->running->asked_ms != 0;
}

/* The history was read already, the reply's event is lost, and then the gap is told: it is not passed over. */
static void a_gap_while_opening(void **state)
{
    static struct view w, other;
    struct answer a, o = {.view = &other};
    const struct desk_open_request req = {.chat = fx.chat};
    struct chat *c;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    c = desk_chat_find(desk, &fx.chat);
    assert_non_null(c);
    assert_true(desk_open(desk, &other.v, &req, on_opened, &o));
    assert_true(support_until(fx.loop, waits_for_the_text, c, SUPPORT_LIMIT_MS));
    assert_int_equal(o.calls, 0);
    store_reply(&a.id, 0, "r", FINISH_STOP); /* its event found no queue */
    desk_gap(desk);
    expect_log(&w, "opened accepted2 reply2.0:r ");
    answered(&o);
    assert_string_equal(o.text, "");
    expect_log(&other, "opened reply2.0:r ");
}

static void tell_error(const struct uuid *turn, const struct uuid *predecessor)
{
    struct envelope env = {.kind = ENVELOPE_REPLY, .finish = FINISH_ERROR, .attempt = 7, .code = "internal"};

    env.chat = fx.chat;
    env.turn = *turn;
    env.predecessor = *predecessor;
    store_reply(turn, 0, "", FINISH_ERROR);
    tell(&env, "");
}

/*
 * An error that overtook the reply before it is told after it; meanwhile that one is still running: its text so far passes.  What comes
 * behind both goes on as ever.
 */
static void an_error_that_was_early(void **state)
{
    static struct view w;
    struct answer a, b, c;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    tell_error(&b.id, &a.id);
    support_for(fx.loop, 100);
    tell_delta(&a.id, 0, 7, 0, "so");
    expect_log(&w, "opened accepted2 accepted3 delta2.0@7+0:so ");
    reply_to(&a.id, &turn_names[0], "so it is");
    expect_log(&w, "reply2.0:so it is failed3:engine_failed ");
    c = send_text(&w, "three", "z");
    reply_to(&c.id, &b.id, "r");
    tell_delta(&b.id, 0, 9, 0, "late");
    expect_log(&w, "accepted4 reply4.0:r ");
}

/* The same where the turn before it is deleted at last. */
static void an_early_error_and_a_deletion(void **state)
{
    static struct view w;
    struct answer a, t, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    t = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    tell_error(&b.id, &t.id);
    support_for(fx.loop, 100);
    expect_log(&w, "opened accepted2 accepted3 ");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    told(&w, "ok failed3:engine_failed ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_gap_while_opening, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_that_was_early, setup, teardown),
        cmocka_unit_test_setup_teardown(an_early_error_and_a_deletion, setup, teardown),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
