/*
 * test_behind - role/chat: followers that lack something for longer, or more than once: a chat that is deleted in a gap, gaps that
 * follow each other, a reading that fails, more changes than are read at once.  Over the real embedded adapters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/role/elsewhere.h"

static bool away, slow; /* turns can't be read; what changed is read after a while */
static size_t changes_read;
static const struct history_ops *inner;

static enum tr_rc spy_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                            history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return away ? tr_fail(err, TR_INVALID, "away") : inner->turns(h, chat, range, done, ctx, ret_op, err);
}

static struct slow_read {
    struct history *h;
    struct uuid chat;
    uint64_t since;
    uint32_t limit;
    history_rows_done *done;
    void *ctx;
    struct tr_op **ret_op;
    struct tr_op op;
    struct loop_timer *timer;
} slow_read;

static void slow_cancel(struct tr_op *op)
{
    (void)op;
    fail(); /* no test ends before it */
}

static void on_slow(void *ctx)
{
    struct slow_read *s = ctx;

    timer_stop(s->timer);
    s->timer = NULL;
    assert_int_equal(inner->changed(s->h, &s->chat, s->since, s->limit, s->done, s->ctx, s->ret_op, NULL), TR_OK);
}

static enum tr_rc spy_changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    changes_read++;
    if (slow) {
        slow = false;
        slow_read = (struct slow_read){
            .h = h, .chat = *chat, .since = since, .limit = limit, .done = done, .ctx = ctx, .ret_op = ret_op};
        slow_read.op.cancel = slow_cancel;
        *ret_op = &slow_read.op;
        return timer_start(fx.loop, 300, 0, on_slow, &slow_read, &slow_read.timer);
    }
    return inner->changed(h, chat, since, limit, done, ctx, ret_op, err);
}

static int setup_spied(void **state)
{
    static struct history_ops ops;

    setup(state);
    inner = fx.env.history->ops;
    ops = *inner;
    ops.turns = spy_turns;
    ops.changed = spy_changed;
    fx.env.history->ops = &ops;
    away = slow = false;
    changes_read = 0;
    change = 1;
    return 0;
}

static void delete_chat(void)
{
    struct history *h = fx.env.history;
    struct wait w = {.loop = fx.loop};

    assert_int_equal(wait_end(&w, h->ops->chat_delete(h, &fx.chat, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* The chat was idle for so long that its key is not at hand; the key is gone with the chat. */
static void a_deletion_in_a_gap(void **state)
{
    static struct view w, other;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    expect_log(&w, "opened ");
    expect_log(&other, "opened ");
    keyring_forget(fx.env.keyring, &fx.chat);
    delete_chat();
    desk_gap(desk);
    told(&w, "gone ");
    told(&other, "gone ");
    assert_null(desk_chat_find(desk, &fx.chat));
}

/* Nobody told of the deletion, and there was no gap: whatever comes next for the chat shows it to all. */
static void a_deletion_without_a_gap(void **state)
{
    static struct view w, other;
    struct answer a;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    expect_log(&other, "opened ");
    keyring_forget(fx.env.keyring, &fx.chat);
    delete_chat();
    a = send_text(&w, "one", "x");
    assert_string_equal(a.code, "not_found");
    told(&w, "opened gone ");
    told(&other, "gone ");
}

/* A chat that is open already is opened once more when the news of its deletion comes. */
static void a_deletion_while_opening_again(void **state)
{
    static struct view w;
    const struct desk_open_request req = {.chat = fx.chat};
    struct envelope env = {.kind = ENVELOPE_DELETED, .origin = "gateway.other"};
    struct answer a = {0};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    expect_log(&w, "opened ");
    delete_chat();
    assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
    env.chat = fx.chat;
    tell(&env, NULL);
    answered(&a);
    assert_string_equal(a.code, "not_found");
    told(&w, "gone ");
    assert_null(w.v.follows);
}

/* An error that was early is told, though the reading that was to tell it failed. */
static void an_early_error_and_a_failed_reading(void **state)
{
    static struct view w;
    struct envelope env = {.kind = ENVELOPE_REPLY, .finish = FINISH_ERROR, .attempt = 7, .code = "internal"};
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    store_reply(&b.id, 0, "", FINISH_ERROR);
    change += 3;
    env.chat = fx.chat;
    env.turn = b.id;
    env.predecessor = a.id;
    env.change = change;
    tell(&env, "");
    desk_gap(desk); /* so that it was told of all changes up to there */
    idle(&w);
    expect_log(&w, "opened accepted2 accepted3 ");
    assert_true(follow_of(&w)->early);
    store_reply(&a.id, 0, "r", FINISH_STOP);
    change++;
    away = true;
    reply_told(&a.id, &turn_names[0], 0, "r");
    told(&w, "reply2.0:r ");
    assert_true(follow_of(&w)->behind);
    away = false;
    told(&w, "failed3:engine_failed ");
}

/* More turns have changed than are read at once: they are told once, and what comes next is no reason to read them again. */
static void many_changes_and_one_more(void **state)
{
    static struct view w;
    struct uuid ids[220], last;
    struct envelope work;
    struct answer a = {.view = &w};
    struct desk_open_request req = {.chat = fx.chat, .has_since = true};

    (void)state;
    for (size_t i = 0; i < 220; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&ids[i], 0, "r", FINISH_STOP);
        change += 2;
    }
    req.since = change;
    req.after = ids[219];
    for (size_t i = 0; i < 220; i++)
        edit_elsewhere(&ids[i], "e", 1);
    view_init(&w);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
    answered(&a);
    idle(&w);
    assert_int_equal(follow_of(&w)->told, change);
    changes_read = 0;
    w.log[0] = '\0';
    last = a_turn(&w, "one", &ids[219]);
    (void)a_turn(&w, "two", &last);
    support_for(fx.loop, 1300); /* as long as a hole may stand */
    idle(&w);
    assert_int_equal(changes_read, 0);
    assert_null(strstr(w.log, "changed"));
}

/* Somebody who comes back after a long time is told of old regenerations; who was there then is not told again. */
static void old_regenerations(void **state)
{
    static struct view w, other;
    struct uuid ids[230], before = fx.head;
    struct envelope work;
    struct answer a = {.view = &other};
    struct desk_open_request req = {.chat = fx.chat, .has_since = true, .since = 1};

    (void)state;
    for (size_t i = 0; i < 230; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&ids[i], 0, "r", FINISH_STOP);
        change += 2;
    }
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    for (size_t i = 0; i < DELIVERED_MAX + 6; i++) {
        event_elsewhere(&ids[i], TURN_EVENT_REGENERATE, 1, 0);
        store_reply(&ids[i], 1, "s", FINISH_STOP);
        change++;
        reply_told(&ids[i], &before, 1, "s");
        if (i % 8 == 0) {
            idle(&w);
            w.log[0] = '\0';
        }
    }
    idle(&w);
    support_for(fx.loop, 1300); /* as long as a hole may stand */
    idle(&w);
    w.log[0] = '\0';
    req.after = ids[229];
    assert_true(desk_open(desk, &other.v, &req, on_opened, &a));
    answered(&a);
    idle(&other);
    expect_log(&w, "");
    assert_non_null(strstr(other.log, "changed"));
    assert_null(strstr(other.log, "reply"));
}

/* ---- while messages are accepted */

static const struct queue_ops *queue_inner;
static bool calls_refused;

static enum tr_rc spy_publish(struct queue *q, const struct queue_message *msg, queue_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    if (calls_refused && strcmp(msg->queue, TOPIC_INCOMING) == 0)
        return tr_fail(err, TR_TRANSIENT, "the broker's node went");
    return queue_inner->publish(q, msg, done, ctx, ret_op, err);
}

static bool is_accepting(void *ctx)
{
    const struct chat *c = desk_chat_find(desk, &fx.chat);

    (void)ctx;
    return c->work != NULL && !uuid_is_nil(&c->work->accepting) && uuid_eq(&c->head, &c->work->accepting);
}

/* A message is stored and its acceptance takes long: what was missed before it is told meanwhile, once. */
static void a_long_acceptance(void **state)
{
    static struct view w;
    static struct queue_ops ops;
    struct answer a = {.view = &w};
    struct uuid one;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    one = a_turn(&w, "one", &turn_names[0]);
    idle(&w);
    expect_log(&w, "opened accepted2 reply2.0:r ");
    queue_inner = fx.env.queue->ops;
    ops = *queue_inner;
    ops.publish = spy_publish;
    fx.env.queue->ops = &ops;
    calls_refused = true;
    edit_elsewhere(&one, "e", 1);
    assert_true(desk_send(desk, &w.v, &fx.chat, "two", 3, "two", 3, NULL, 0, on_accepted_turn, &a));
    assert_true(support_until(fx.loop, is_accepting, NULL, SUPPORT_LIMIT_MS));
    change++;
    desk_gap(desk);
    told(&w, "changed2:e/1/0 ");
    support_for(fx.loop, 1500); /* it is read again and again */
    expect_log(&w, "");
    assert_int_equal(follow_of(&w)->told, change - 1);
    calls_refused = false;
    answered(&a);
    idle(&w);
    expect_log(&w, "accepted3 ");
    assert_int_equal(follow_of(&w)->told, change);
    fx.env.queue->ops = queue_inner;
}

/* Messages that are accepted while their sender is read for: none comes to it as another connection's. */
static void sent_while_reading(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    slow = true;
    desk_gap(desk);
    while (changes_read == 0)
        support_for(fx.loop, 10);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    assert_non_null(follow_of(&w)->busy);
    idle(&w);
    expect_log(&w, "opened accepted2 accepted3 ");
    reply_to(&a.id, &turn_names[0], "r");
    reply_to(&b.id, &a.id, "s");
    expect_log(&w, "reply2.0:r reply3.0:s ");
}

static bool is_behind(void *ctx)
{
    return follow_of(ctx)->behind; /* between two tries */
}

/* The same where the reading fails: it is known as the sender's own when it is read at last. */
static void sent_while_reading_fails(void **state)
{
    static struct view w;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    slow = away = true;
    desk_gap(desk);
    while (changes_read == 0)
        support_for(fx.loop, 10);
    (void)send_text(&w, "one", "x");
    (void)send_text(&w, "two", "y");
    assert_non_null(follow_of(&w)->busy);
    support_for(fx.loop, 1500); /* it is tried again meanwhile */
    assert_true(support_until(fx.loop, is_behind, &w, SUPPORT_LIMIT_MS));
    away = false;
    idle(&w);
    expect_log(&w, "opened accepted2 accepted3 ");
    assert_null(follow_of(&w)->held);
}

/* ---- gaps that follow each other */

#define CHATS 60

static size_t put_n; /* chats whose record was put, each counted once */
static struct uuid put_ids[CHATS];
static const struct registry_ops *registry_inner;

static enum tr_rc spy_conn_put(struct registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                               registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    size_t i = 0;

    while (i < put_n && !uuid_eq(&put_ids[i], chat))
        i++;
    if (i == put_n && put_n < CHATS)
        put_ids[put_n++] = *chat;
    return registry_inner->conn_put(r, chat, gateway, ttl_ms, done, ctx, ret_op, err);
}

static bool all_put(void *ctx)
{
    (void)ctx;
    return put_n == CHATS;
}

static void next_gap(void *ctx)
{
    (void)ctx;
    desk_gap(desk);
}

/* A connection that comes and goes: each time is a gap, sooner than all chats are looked at.  None waits for the end of that. */
static void gap_after_gap(void **state)
{
    static struct view w;
    static struct registry_ops ops;
    struct loop_timer *gaps;

    (void)state;
    view_init(&w);
    for (size_t i = 0; i < CHATS; i++) {
        const struct desk_open_request req = {.character = "ada"};
        struct answer a = {0};

        assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
        answered(&a);
        assert_string_equal(a.code, "");
    }
    registry_inner = fx.env.registry->ops;
    ops = *registry_inner;
    ops.conn_put = spy_conn_put;
    fx.env.registry->ops = &ops;
    put_n = 0;
    desk_gap(desk);
    assert_int_equal(timer_start(fx.loop, 150, 150, next_gap, NULL, &gaps), TR_OK);
    (void)support_until(fx.loop, all_put, NULL, SUPPORT_LIMIT_MS);
    timer_stop(gaps);
    assert_true(all_put(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_deletion_in_a_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deletion_without_a_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deletion_while_opening_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_early_error_and_a_failed_reading, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(many_changes_and_one_more, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(old_regenerations, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(a_long_acceptance, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(sent_while_reading, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(sent_while_reading_fails, setup_spied, teardown),
        cmocka_unit_test_setup_teardown(gap_after_gap, setup, teardown),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
