/*
 * test_mend - role/chat: what was missed is read again, all of it, and told once: changes in a gap, a change that nobody told of, a gap
 * while a chat is opened, an error that came early, a history that can't be read.  Over the real embedded adapters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/chat/desk_impl.h"
#include "tests/unit/role/elsewhere.h"

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

/* ---- changes */

/* An edit, a regeneration, a choice, a deletion, a turn and its reply, all while no event came: each is told, once. */
static void everything_in_a_gap(void **state)
{
    static struct view w;
    struct uuid one, two, three, four;
    struct envelope work;

    (void)state;
    change = 1;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    two = a_turn(&w, "two", &one);
    three = a_turn(&w, "three", &two);
    four = a_turn(&w, "four", &three);
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change); /* it knows that it was told of all */
    w.log[0] = '\0';
    edit_elsewhere(&one, "another one", 1);
    event_elsewhere(&two, TURN_EVENT_REGENERATE, 1, 0);
    store_reply(&two, 1, "second", FINISH_STOP);
    change++;
    event_elsewhere(&three, TURN_EVENT_DELETE, 0, 0);
    event_elsewhere(&four, TURN_EVENT_STOP, 0, 0); /* nothing to be seen */
    fx.head = four;
    fx.index = 4;
    accept(&fx, "from my phone", &work);
    store_reply(&work.turn, 0, "done", FINISH_STOP);
    change += 2;
    desk_gap(desk);
    told(&w, "changed2:another one/1/0 reply3.1:second changed3:two/2/1 deleted4 turn6:from my phone reply6.0:done ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
    desk_gap(desk); /* nothing was missed */
    idle(&w);
    change--; /* what was on its way comes after all */
    reply_told(&work.turn, &four, 0, "done");
    idle(&w);
    expect_log(&w, "");
}

/* More turns than a page has. */
static void many_in_a_gap(void **state)
{
    static struct view w;
    struct uuid ids[120];
    struct envelope work;
    char want[4096] = "";

    (void)state;
    change = 1;
    view_init(&w);
    for (size_t i = 0; i < 120; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
        change += 2;
    }
    open_chat(&w, NULL);
    turn_names_n = 0;
    for (size_t i = 0; i < 120; i++) {
        edit_elsewhere(&ids[i], "e", 1);
        snprintf(want + strlen(want), sizeof want - strlen(want), "changed%zu:e/1/0 ", i + 1);
    }
    w.log[0] = '\0';
    desk_gap(desk);
    told(&w, want);
    idle(&w);
    assert_in_range(follow_of(&w)->told, change - 120 + 50, change); /* as the first page was read */
    desk_gap(desk);
    idle(&w);
    desk_gap(desk);
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
}

/* Whoever edited was killed before it told of that, and there is no gap: the next event shows it. */
static void a_change_that_nobody_told_of(void **state)
{
    static struct view w;
    struct uuid one, two;

    (void)state;
    change = 1;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    idle(&w);
    expect_log(&w, "opened accepted2 reply2.0:r ");
    edit_elsewhere(&one, "another one", 1);
    two = a_turn(&w, "two", &one);
    expect_log(&w, "accepted3 reply3.0:r ");
    told(&w, "changed2:another one/1/0 ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
    event_elsewhere(&one, TURN_EVENT_DELETE, 0, 0);
    (void)a_turn(&w, "three", &two);
    expect_log(&w, "accepted4 reply4.0:r ");
    told(&w, "deleted2 ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
}

/* Our own changes and those of others, all told of: no hole shows, and nothing is read again. */
static size_t changes_read;
static bool away;      /* the history can't be read */
static bool turn_away; /* nor can one turn */
static const struct history_ops *inner;

static enum tr_rc spy_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                            history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return away ? tr_fail(err, TR_INVALID, "away") : inner->turns(h, chat, range, done, ctx, ret_op, err);
}

static enum tr_rc spy_changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    changes_read++;
    return away ? tr_fail(err, TR_INVALID, "away") : inner->changed(h, chat, since, limit, done, ctx, ret_op, err);
}

static enum tr_rc spy_turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn,
                               history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return away || turn_away ? tr_fail(err, TR_INVALID, "away")
                             : inner->turn_get(h, chat, turn, done, ctx, ret_op, err);
}

static enum tr_rc spy_key_get(struct history *h, enum seal_owner owner, const char *id, history_key_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return away ? tr_fail(err, TR_INVALID, "away") : inner->key_get(h, owner, id, done, ctx, ret_op, err);
}

static int setup_spied(void **state)
{
    static struct history_ops ops;

    setup(state);
    inner = fx.env.history->ops;
    ops = *inner;
    ops.turns = spy_turns;
    ops.changed = spy_changed;
    ops.turn_get = spy_turn_get;
    ops.key_get = spy_key_get;
    fx.env.history->ops = &ops;
    away = turn_away = false;
    changes_read = 0;
    change = 1;
    return 0;
}

static void no_hole_in_what_is_told(void **state)
{
    static struct view w, other;
    struct answer a;
    struct uuid one, two;
    struct envelope env = {.kind = ENVELOPE_CHANGED, .origin = "gateway.other"};

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    two = a_turn(&other, "two", &one);
    CHANGE(desk_edit(desk, &w.v, &one, "y", 1, on_ok, &a));
    CHANGE(desk_regenerate(desk, &w.v, &one, 1, on_ok, &a));
    CHANGE(desk_stop(desk, &w.v, &one, on_ok, &a));
    store_reply(&one, 1, "", FINISH_STOPPED);
    change += 4;
    reply_told(&one, &turn_names[0], 1, "");
    CHANGE(desk_choose(desk, &other.v, &one, 0, on_ok, &a));
    change++;
    edit_elsewhere(&two, "z", 1);
    env.chat = fx.chat;
    env.turn = two;
    env.change = change;
    tell(&env, NULL);
    CHANGE(desk_delete(desk, &w.v, &two, on_ok, &a));
    change++;
    idle(&w);
    support_for(fx.loop, 1300); /* as long as a hole may stand */
    assert_int_equal(follow_of(&w)->told, change);
    assert_int_equal(follow_of(&other)->told, change);
    assert_int_equal(changes_read, 0);
}

/* The history is away while a turn, its reply, an edit and a regeneration come: none is taken for gone; all is told when it answers. */
static void a_history_that_is_away(void **state)
{
    static struct view w;
    struct uuid one;
    struct envelope work, turn = {.kind = ENVELOPE_TURN, .origin = "gateway.other"};
    struct envelope edited = {.kind = ENVELOPE_CHANGED, .origin = "gateway.other"};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    idle(&w);
    expect_log(&w, "opened accepted2 reply2.0:r ");
    fx.head = one;
    fx.index = 1;
    accept(&fx, "from my phone", &work);
    turn.chat = edited.chat = fx.chat;
    turn.turn = work.turn;
    turn.predecessor = edited.turn = one;
    turn.change = ++change;
    away = true;
    tell(&turn, NULL);
    support_for(fx.loop, 100);
    assert_true(follow_of(&w)->behind);
    store_reply(&work.turn, 0, "done", FINISH_STOP);
    change++;
    for (int i = 0; i < 50; i++) /* again and again: none is kept */
        reply_told(&work.turn, &one, 0, "done");
    edit_elsewhere(&one, "another one", 1);
    edited.change = change;
    tell(&edited, NULL);
    support_for(fx.loop, 1500); /* it is tried again meanwhile */
    assert_null(follow_of(&w)->held);
    expect_log(&w, "");
    away = false;
    told(&w, "changed2:another one/1/0 turn3:from my phone reply3.0:done ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
    assert_int_equal(desk->behind_n, 0);
}

/* The chat's key can't be read while its reply comes. */
static void a_key_that_is_away(void **state)
{
    static struct view w;
    struct answer a;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    store_reply(&a.id, 0, "r", FINISH_STOP);
    change += 2;
    keyring_forget(fx.env.keyring, &fx.chat);
    away = true;
    reply_told(&a.id, &turn_names[0], 0, "r");
    support_for(fx.loop, 100);
    expect_log(&w, "opened accepted2 ");
    away = false;
    told(&w, "reply2.0:r ");
}

/*
 * A regeneration's reply was handed out, and what was to be read for its `changed` is not: that is told later.  An edit that nobody told
 * of stands before it, so that it is one of the changes behind a hole.
 */
static void a_refresh_that_fails(void **state)
{
    static struct view w;
    struct uuid one, two;
    struct envelope asked = {.kind = ENVELOPE_CHANGED, .origin = "gateway.other"};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    two = a_turn(&w, "two", &one);
    idle(&w);
    w.log[0] = '\0';
    edit_elsewhere(&two, "untold", 1);
    event_elsewhere(&one, TURN_EVENT_REGENERATE, 1, 0);
    asked.chat = fx.chat;
    asked.turn = one;
    asked.change = change;
    tell(&asked, NULL);
    expect_log(&w, "changed2:one/2/0 "); /* the second one is running */
    turn_away = true;
    store_reply(&one, 1, "second", FINISH_STOP);
    change++;
    reply_told(&one, &turn_names[0], 1, "second");
    expect_log(&w, "reply2.1:second ");
    support_for(fx.loop, 100);
    turn_away = false;
    told(&w, "changed2:one/2/1 changed3:untold/1/0 ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
    assert_int_equal(follow_of(&w)->replied_n, 1); /* till the next one */
    reply_told(&one, &turn_names[0], 1, "second");
    expect_log(&w, "");
}

/* A turn, its reply and a regeneration's came while the history was away: it is told of each. */
static void a_regeneration_of_a_turn_that_is_unknown(void **state)
{
    static struct view w;
    struct uuid one;
    struct envelope work;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    idle(&w);
    w.log[0] = '\0';
    fx.head = one;
    fx.index = 1;
    accept(&fx, "from my phone", &work);
    store_reply(&work.turn, 0, "first", FINISH_STOP);
    change += 2;
    away = true;
    reply_told(&work.turn, &one, 0, "first");
    event_elsewhere(&work.turn, TURN_EVENT_REGENERATE, 1, 0);
    store_reply(&work.turn, 1, "second", FINISH_STOP);
    change++;
    reply_told(&work.turn, &one, 1, "second");
    support_for(fx.loop, 100);
    expect_log(&w, "");
    away = false;
    told(&w, "turn3:from my phone reply3.0:first reply3.1:second changed3:from my phone/2/1 ");
    idle(&w);
    expect_log(&w, "");
    assert_int_equal(follow_of(&w)->told, change);
}

/* An early error is known of, and the reading that would tell of it fails. */
static void an_early_error_that_is_not_read(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    change += 2;
    tell_error(&b.id, &a.id);
    change++;
    support_for(fx.loop, 100);
    desk_gap(desk); /* that change is looked at, and passed over */
    idle(&w);
    expect_log(&w, "opened accepted2 accepted3 ");
    assert_int_equal(follow_of(&w)->told, change);
    away = true;
    store_reply(&a.id, 0, "r", FINISH_STOP);
    change++;
    reply_told(&a.id, &turn_names[0], 0, "r");
    expect_log(&w, "reply2.0:r ");
    support_for(fx.loop, 100);
    away = false;
    told(&w, "failed3:engine_failed ");
}

/* A reply comes, and the turn before it was deleted: that settles it, first. */
static void a_deletion_before_a_reply(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    change += 2;
    event_elsewhere(&a.id, TURN_EVENT_DELETE, 0, 0);
    store_reply(&b.id, 0, "r", FINISH_STOP);
    change++;
    reply_told(&b.id, &a.id, 0, "r");
    told(&w, "opened accepted2 accepted3 deleted2 reply3.0:r ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
}

/* A message that is sent again was accepted and deleted meanwhile: its turn is settled where its sender hears of it. */
static void a_message_that_was_deleted(void **state)
{
    static struct view w;
    struct answer a;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    event_elsewhere(&a.id, TURN_EVENT_DELETE, 0, 0);
    desk_gap(desk);
    expect_log(&w, "opened accepted2 deleted2 ");
    (void)send_text(&w, "one", "x");
    expect_log(&w, "accepted2 deleted2 ");
}

/* Who asks to delete a turn that somebody else deleted, and is answered that there is none, is told of that as ever. */
static void a_deletion_that_came_too_late(void **state)
{
    static struct view w;
    struct answer a, t;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    t = send_text(&w, "one", "x");
    change++;
    event_elsewhere(&t.id, TURN_EVENT_DELETE, 0, 0);
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    told(&w, "opened accepted2 deleted2 ");
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
}

/* What is behind the first page of a chat that is opened is listed with the next one, and does not come before: it would come twice. */
static void more_than_a_page(void **state)
{
    static struct view w;
    struct uuid ids[72], one;
    struct envelope work;
    struct answer a;

    (void)state;
    view_init(&w);
    for (size_t i = 0; i < 70; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
        change += 2;
    }
    a = open_chat(&w, &ids[9]);
    assert_true(a.more);
    assert_int_equal(a.turns, 50);
    for (size_t i = 70; i < 72; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
        change += 2;
        reply_told(&ids[i], &ids[i - 1], 0, "r");
    }
    desk_gap(desk);
    edit_elsewhere(&ids[20], "e", 1); /* one that was listed */
    one = send_text(&w, "one", "x").id;
    change++;
    support_for(fx.loop, 300);
    expect_log(&w, "opened accepted51 ");
    a = open_chat(&w, &ids[59]);
    assert_false(a.more);
    assert_int_equal(a.turns, 13);
    told(&w, "opened changed11:e/1/0 ");
    idle(&w);
    store_reply(&one, 0, "r", FINISH_STOP);
    change++;
    reply_told(&one, &ids[71], 0, "r");
    expect_log(&w, "reply51.0:r ");
    (void)a_turn(&w, "two", &one);
    expect_log(&w, "accepted64 reply64.0:r ");
}

/* A client that does not ask for the rest is told of it after a while. */
static void a_page_that_is_not_asked_for(void **state)
{
    static struct view w;
    struct uuid ids[52];
    struct envelope work;

    (void)state;
    view_init(&w);
    for (size_t i = 0; i < 52; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
        change += 2;
    }
    event_elsewhere(&ids[51], TURN_EVENT_REGENERATE, 1, 0);
    store_reply(&ids[51], 1, "s", FINISH_STOP);
    change++;
    assert_true(open_chat(&w, &ids[0]).more);
    support_for(fx.loop, 300);
    expect_log(&w, "opened ");
    follow_of(&w)->page_ms -= PAGE_WAIT_MS;
    told(&w, "turn51:m reply51.0:r changed51:m/2/1 ");
}

/* A client that was away for more changes than are told with `opened`: they come after it, all of them. */
static void many_since(void **state)
{
    static struct view w;
    struct uuid ids[220];
    struct envelope work;
    struct answer a = {.view = &w};
    struct desk_open_request req = {.chat = fx.chat, .has_since = true};
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 220; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        change++;
    }
    req.since = change;
    req.after = ids[219];
    for (size_t i = 0; i < 220; i++)
        edit_elsewhere(&ids[i], "e", 1);
    view_init(&w);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
    answered(&a);
    assert_int_equal(a.change, req.since); /* should it be cut off now, it asks for them again */
    idle(&w);
    for (const char *at = w.log; (at = strstr(at, "changed")) != NULL; at++)
        n++;
    assert_int_equal(n, 220);
    assert_int_equal(strncmp(w.log, "opened changed", 14), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_gap_while_opening, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_that_was_early, setup, teardown),
        cmocka_unit_test_setup_teardown(an_early_error_and_a_deletion, setup, teardown),
        cmocka_unit_test_setup_teardown(everything_in_a_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(many_in_a_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_that_nobody_told_of, setup, teardown),
        cmocka_unit_test_setup_teardown(no_hole_in_what_is_told, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_history_that_is_away, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_key_that_is_away, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(many_since, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_refresh_that_fails, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_regeneration_of_a_turn_that_is_unknown, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(an_early_error_that_is_not_read, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_deletion_before_a_reply, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_message_that_was_deleted, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_deletion_that_came_too_late, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(more_than_a_page, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_page_that_is_not_asked_for, setup_spied, teardown),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
