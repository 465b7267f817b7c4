/* test_desk_change - role/chat: changing turns, answers that are lost, two gateways, no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "front.h"

static void regenerating(void **state)
{
    static struct view w, other;
    struct answer a, t;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    t = send_text(&w, "one", "x");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, -1, on_ok, &a));
    assert_string_equal(a.code, "conflict"); /* the first one is under way */
    assert_int_equal(await_seen(&fx, ENVELOPE_WORK, &t.id, 2)->env.variant,
                     0); /* and called again, in case it was lost */
    reply_to(&t.id, &fx.head, "one");
    CHANGE(desk_regenerate(desk, &w.v, &fx.head, -1, on_ok, &a));
    assert_string_equal(a.code, "bad_request");
    assert_string_equal(a.field, "turn");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 2, on_ok, &a));
    assert_string_equal(a.code, "conflict");
    expect_log(&other, "opened turn2:x reply2.0:one ");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a));
    assert_string_equal(a.code, "");
    assert_int_equal(a.variant, 1);
    assert_int_equal(await_seen(&fx, ENVELOPE_WORK, &t.id, 3)->env.variant, 1);
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a)); /* the answer was lost */
    assert_int_equal(a.variant, 1);
    assert_non_null(await_seen(&fx, ENVELOPE_WORK, &t.id, 4));
    CHANGE(desk_regenerate(desk, &w.v, &t.id, -1, on_ok, &a));
    assert_string_equal(a.code, "conflict");
    tell_delta(&t.id, 1, 1, 0, "tw");
    store_reply(&t.id, 1, "two", FINISH_STOP);
    tell_reply(&t.id, &fx.head, 1, "two");
    tell_reply(&t.id, &fx.head, 1, "two");
    expect_log(&w, "opened accepted2 reply2.0:one ok ok delta2.1@1+0:tw reply2.1:two changed2:x/2/1 ");
    expect_log(&other, "changed2:x/2/0 delta2.1@1+0:tw reply2.1:two changed2:x/2/1 ");
    CHANGE(desk_choose(desk, &w.v, &t.id, 0, on_ok, &a));
    CHANGE(desk_choose(desk, &w.v, &t.id, 2, on_ok, &a));
    assert_string_equal(a.code, "bad_request");
    assert_string_equal(a.field, "variant");
    expect_log(&w, "ok ");
    expect_log(&other, "changed2:x/2/0 ");
    CHANGE(desk_choose(desk, &w.v, &t.id, 0, on_ok, &a)); /* asked again: nobody may have been told */
    expect_log(&w, "ok ");
    expect_log(&other, "changed2:x/2/0 ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* A regeneration of a turn that a client holds already runs while it comes back: `opened` does not list it, so its text so far is told. */
static void a_regeneration_while_opening(void **state)
{
    static struct view w, other;
    struct answer t, a = {.view = &other};
    struct desk_open_request req = {.has_since = true};

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    t = send_text(&w, "one", "x");
    reply_to(&t.id, &fx.head, "one");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a));
    tell_delta(&t.id, 1, 1, 0, "tw");
    expect_log(&w, "opened accepted2 reply2.0:one ok delta2.1@1+0:tw ");
    req.chat = fx.chat;
    req.after = t.id;
    req.since = 1000; /* it knows all that changed */
    a = (struct answer){.view = &other};
    assert_true(desk_open(desk, &other.v, &req, on_opened, &a));
    answered(&a);
    tell_delta(&t.id, 1, 1, 2, "o");
    expect_log(&other, "opened delta2.1@1+0:tw delta2.1@1+2:o ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

static void changing(void **state)
{
    static struct view w, other;
    struct answer a, t, o;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    t = send_text(&w, "one", "x");
    CHANGE(desk_stop(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    assert_non_null(await_seen(&fx, ENVELOPE_STOP, &t.id, 1));
    reply_to(&t.id, &fx.head, "");
    CHANGE(desk_stop(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    CHANGE(desk_edit(desk, &w.v, &t.id, "  ", 2, on_ok, &a));
    assert_string_equal(a.field, "text");
    CHANGE(desk_edit(desk, &w.v, &fx.head, "y", 1, on_ok, &a));
    assert_string_equal(a.field, "turn");
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    CHANGE(desk_edit(desk, &w.v, &t.id, "z", 1, on_ok, &a));
    expect_log(&other, "opened turn2:x reply2.0: changed2:y/1/0 changed2:z/1/0 ");
    o = open_chat(&w, NULL);
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    expect_log(&other, "deleted2 ");
    expect_log(&w, "opened accepted2 ok reply2.0: ok ok ok opened ok ");
    a = (struct answer){.view = &w};
    assert_true(desk_open(
        desk, &w.v, &(struct desk_open_request){.chat = fx.chat, .after = t.id, .since = o.change, .has_since = true},
        on_opened, &a));
    answered(&a);
    assert_int_equal(a.turns, 0);
    expect_log(&w, "opened deleted2 ");
    CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
    expect_log(&w, "ok gone ");
    expect_log(&other, "gone ");
    assert_null(w.v.follows);
    a = send_text(&w, "late", "x");
    assert_string_equal(a.code, "not_found");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* A broker that does not take the news for the other gateways. */
static const struct queue_ops *news_inner;
static size_t news_refused, news_safe, news_transient;

static enum tr_rc news_publish(struct queue *q, const struct queue_message *msg, queue_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    if (strncmp(msg->queue, "notify.", 7) == 0) {
        if (news_refused > 0) {
            news_refused--;
            return tr_fail(err, TR_TRANSIENT, "the broker's node went");
        }
        if (msg->transient)
            news_transient++;
        else
            news_safe++;
    }
    return news_inner->publish(q, msg, done, ctx, ret_op, err);
}

/* What is answered has been told: durably, for the gateway that is not answered asks again, and one whose node went does not know. */
static void told_before_answered(void **state)
{
    static struct queue_ops ops;
    static struct view w;
    struct answer a, t;
    size_t safe = 0;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    t = send_text(&w, "one", "x");
    reply_to(&t.id, &fx.head, "one");
    store_reply(&t.id, 1, "two", FINISH_STOP);
    news_inner = fx.env.queue->ops;
    ops = *news_inner;
    ops.publish = news_publish;
    fx.env.queue->ops = &ops;
    news_safe = news_transient = 0;
    for (int i = 0; i < 4; i++) { /* the second choice changes nothing: it is asked for again */
        news_refused = 3;
        if (i < 2)
            CHANGE(desk_choose(desk, &w.v, &t.id, 0, on_ok, &a));
        else if (i == 2)
            CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
        else
            CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
        assert_string_equal(a.code, "");
        assert_int_equal(news_refused, 0);
        assert_int_equal(news_safe, ++safe);
    }
    for (int i = 0; i < 2; i++) { /* the whole chat; then it is gone, and told of again */
        news_refused = 3;
        CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
        assert_string_equal(a.code, i == 0 ? "" : "not_found");
        assert_int_equal(news_refused, 0);
        assert_int_equal(news_safe, ++safe);
    }
    assert_int_equal(news_transient, 0);
    fx.env.queue->ops = news_inner;
    desk_viewer_release(desk, &w.v);
}

/* A history whose writes land while their answers are lost, and a registry that is down. */
struct flaky {
    struct history history; /* first */
    struct history *real;
    history_accept_done *accept_done;
    history_append_done *append_done;
    void *ctx;
    size_t lost, calls;
    uint64_t hinted, change; /* of the last acceptance: what came with it, what it became */
};
static struct flaky flaky;

static void on_flaky_accept(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    (void)ctx;
    if (res != NULL)
        flaky.change = res->change;
    if (flaky.lost > 0) {
        flaky.lost--;
        flaky.accept_done(flaky.ctx, TR_UNCERTAIN, NULL, err);
    } else {
        flaky.accept_done(flaky.ctx, rc, res, err);
    }
}

static enum tr_rc flaky_accept(struct history *h, const struct history_accept *a, history_accept_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    flaky.calls++;
    flaky.accept_done = done;
    flaky.hinted = a->change;
    flaky.ctx = ctx;
    return flaky.real->ops->accept(flaky.real, a, on_flaky_accept, NULL, ret_op, err);
}

static void on_flaky_append(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                            const struct tr_err *err)
{
    (void)ctx;
    if (flaky.lost > 0) {
        flaky.lost--;
        flaky.append_done(flaky.ctx, TR_UNCERTAIN, false, 0, NULL, err);
    } else {
        flaky.append_done(flaky.ctx, rc, mine, change, standing, err);
    }
}

static enum tr_rc flaky_append(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done,
                               void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    flaky.calls++;
    flaky.append_done = done;
    flaky.ctx = ctx;
    return flaky.real->ops->append(flaky.real, rows, n, on_flaky_append, NULL, ret_op, err);
}

static enum tr_rc flaky_turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn,
                                 history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->turn_get(flaky.real, chat, turn, done, ctx, ret_op, err);
}

static enum tr_rc flaky_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->turns(flaky.real, chat, range, done, ctx, ret_op, err);
}

static enum tr_rc flaky_changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                                history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->changed(flaky.real, chat, since, limit, done, ctx, ret_op, err);
}

static enum tr_rc flaky_chat_get(struct history *h, const struct uuid *chat, history_chat_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->chat_get(flaky.real, chat, done, ctx, ret_op, err);
}

static enum tr_rc down_rate(struct registry *r, const char *key, uint32_t per_minute, registry_rate_done *done,
                            void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)r, (void)key, (void)per_minute, (void)done, (void)ctx, (void)ret_op;
    return tr_fail(err, TR_TRANSIENT, "down");
}

/* setup(), with the flaky ones in front. */
static int setup_flaky(void **state)
{
    static const struct history_ops ops = {.accept = flaky_accept,
                                           .append = flaky_append,
                                           .turn_get = flaky_turn_get,
                                           .turns = flaky_turns,
                                           .changed = flaky_changed,
                                           .chat_get = flaky_chat_get};
    static struct registry_ops registry_ops;
    size_t started = 0;

    (void)state;
    setup_env(&fx);
    turn_names_n = 0;
    flaky = (struct flaky){.history = {.ops = &ops}, .real = fx.env.history};
    registry_ops = *fx.env.registry->ops;
    registry_ops.rate_take = down_rate;
    fx.env.history = &flaky.history;
    fx.env.registry->ops = &registry_ops;
    assert_int_equal(desk_start(&fx.env, &events, on_desk_started, &started, &desk, NULL), TR_OK);
    fx.env.history = flaky.real;
    support_count(fx.loop, &started, 1);
    watch(&fx, TOPIC_INCOMING);
    watch(&fx, TOPIC_CONTROL);
    return 0;
}

static void lost_answers(void **state)
{
    static struct view w;
    struct answer a, t;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    flaky.lost = 3;
    t = send_text(&w, "one", "x");
    assert_string_equal(t.code, "");
    assert_int_equal(flaky.calls, 4);
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, NULL), 1);
    reply_to(&t.id, &fx.head, "r");
    flaky.lost = 2;
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a));
    assert_int_equal(a.variant, 1);
    flaky.lost = 1;
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    assert_string_equal(a.code, "");
    flaky.lost = 1;
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    flaky.lost = 1;
    t = send_text(&w, "two", "x");
    assert_string_equal(t.code, "");
    expect_log(&w, "opened accepted2 reply2.0:r ok ok ok accepted3 ");
    desk_viewer_release(desk, &w.v);
}

/* The change that it heard of goes along with the next acceptance, so that the history need not ask for it. */
static void what_it_heard_of(void **state)
{
    static struct view w;
    struct uuid before = fx.head;
    struct answer t;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    for (unsigned i = 0; i < 3; i++) {
        const char id[2] = {(char)('a' + i)};

        t = send_text(&w, id, "x");
        assert_string_equal(t.code, "");
        assert_int_equal(flaky.hinted, i == 0 ? flaky.change - 1 : fx.appended); /* of `opened`; of reply_to() */
        reply_to(&t.id, &before, "r");
        before = t.id;
    }
    expect_log(&w, "opened accepted2 reply2.0:r accepted3 reply3.0:r accepted4 reply4.0:r ");
    desk_viewer_release(desk, &w.v);
}

/* Two gateways: what one publishes to [notify] the test brings to both, as the notifier does. */
static void on_notify(void *ctx, const struct queue_incoming *msg)
{
    static const char *const gateways[] = {"gateway.test1", "gateway.test2"};
    struct queue *q = fx.env.queue;

    (void)ctx;
    for (size_t i = 0; i < 2; i++) {
        const struct queue_message out = {.queue = gateways[i], .body = msg->body, .transient = true};

        assert_int_equal(q->ops->publish(q, &out, NULL, NULL, NULL, NULL), TR_OK);
    }
    if (msg->delivery != NULL)
        q->ops->ack(q, msg->delivery);
}

static int setup_two(void **state)
{
    struct role_env env;
    size_t started = 0;

    setup(state);
    env = fx.env;
    env.instance = "test2";
    assert_int_equal(desk_start(&env, &events, on_desk_started, &started, &second, NULL), TR_OK);
    support_count(fx.loop, &started, 1);
    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++)
        assert_int_equal(fx.env.queue->ops->consume(fx.env.queue, topic_notify_number(i), 0, on_notify, NULL, NULL,
                                                    &fx.watches[fx.watches_n++], NULL),
                         TR_OK);
    support_for(fx.loop, 2500); /* they know of each other */
    return 0;
}

static void two_gateways(void **state)
{
    static struct view w, other;
    struct answer a = {0}, t;
    struct desk *first = desk;

    (void)state;
    view_init(&w);
    view_init(&other);
    other.second = true;
    open_chat(&w, NULL);
    desk = second;
    open_chat(&other, NULL);
    desk = first;
    t = send_text(&w, "one", "x");
    expect_log(&w, "opened accepted2 ");
    expect_log(&other, "opened turn2:x ");
    store_reply(&t.id, 0, "r", FINISH_STOP);
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    expect_log(&w, "ok ");
    expect_log(&other, "changed2:y/1/0 ");
    desk = second;
    t = send_text(&other, "two", "z");
    desk = first;
    expect_log(&w, "reply2.0:r turn3:z "); /* the first one's reply was never told: found on the way */
    expect_log(&other, "accepted3 ");
    t = send_text(&w, "three", "3"); /* the head is known from the other's TURN */
    assert_string_equal(t.code, "");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    expect_log(&w, "accepted4 ok ");
    expect_log(&other, "reply2.0:r turn4:3 deleted4 ");
    CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
    expect_log(&w, "ok gone ");
    expect_log(&other, "gone ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(second, &other.v);
}

static void delete_behind(void)
{
    struct history *h = fx.env.history;
    struct wait w = {.loop = fx.loop};

    assert_int_equal(wait_end(&w, h->ops->chat_delete(h, &fx.chat, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* Who deleted the chat was killed before it told anybody: whoever sends next learns of it, and so do all others here. */
static void untold_to_the_sender(void **state)
{
    static struct view w, other;
    struct answer a;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    delete_behind();
    assert_non_null(keyring_peek(fx.env.keyring, &fx.chat));
    a = send_text(&w, "late", "x");
    assert_string_equal(a.code, "not_found");
    expect_log(&w, "opened gone ");
    expect_log(&other, "opened gone ");
    assert_null(keyring_peek(fx.env.keyring, &fx.chat));
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* The same, asked for again: not found, and told to those here and at other gateways. */
static void untold_and_asked_again(void **state)
{
    static struct view w, other;
    struct desk *first = desk;
    struct answer a;

    (void)state;
    view_init(&w);
    view_init(&other);
    other.second = true;
    open_chat(&w, NULL);
    desk = second;
    open_chat(&other, NULL);
    desk = first;
    delete_behind();
    CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    expect_log(&w, "opened gone ");
    expect_log(&other, "opened gone ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(second, &other.v);
}

/* A turn's deletion that nobody was told of: asked for again, it is told.  The words are gone by then: so, it says, is the turn. */
static void untold_turn(void **state)
{
    static struct view w, other;
    struct turn_row event = {
        .part = PART_STATE, .event = TURN_EVENT_DELETE, .speaker = SPEAKER_SYSTEM, .created_ms = 1};
    struct desk *first = desk;
    struct answer a, t;

    (void)state;
    view_init(&w);
    view_init(&other);
    other.second = true;
    open_chat(&w, NULL);
    desk = second;
    open_chat(&other, NULL);
    desk = first;
    t = send_text(&w, "one", "x");
    expect_log(&other, "opened turn2:x ");
    event.chat = fx.chat;
    event.turn = t.id;
    append(&fx, &event);
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    expect_log(&other, "deleted2 ");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a)); /* told once */
    assert_string_equal(a.code, "not_found");
    expect_log(&other, "");
    assert_non_null(await_seen(&fx, ENVELOPE_STOP, &t.id, 1)); /* its reply was being written */
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(second, &other.v);
}

static int setup_small(void **state)
{
    int rc;

    setenv("TROUPE_QUEUE_MAX", "3", 1);
    rc = setup(state);
    unsetenv("TROUPE_QUEUE_MAX");
    return rc;
}

static void no_room(void **state)
{
    static struct view w;
    struct answer a;
    size_t accepted = 0;

    (void)state;
    fx.hold = true; /* nothing is settled */
    view_init(&w);
    open_chat(&w, NULL);
    for (int i = 0; i < 5; i++) {
        char id[24];

        snprintf(id, sizeof id, "%d", i);
        a = send_text(&w, id, "x");
        accepted += a.code[0] == '\0';
    }
    assert_int_equal(accepted, 3);
    assert_string_equal(a.code, "overloaded");
    support_for(fx.loop, 1000); /* the lengths say the same */
    a = send_text(&w, "5", "x");
    assert_string_equal(a.code, "overloaded");
    assert_false(desk_ready(desk));
    desk_viewer_release(desk, &w.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(regenerating, setup, teardown),
        cmocka_unit_test_setup_teardown(a_regeneration_while_opening, setup, teardown),
        cmocka_unit_test_setup_teardown(changing, setup, teardown),
        cmocka_unit_test_setup_teardown(told_before_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(what_it_heard_of, setup_flaky, teardown),
        cmocka_unit_test_setup_teardown(lost_answers, setup_flaky, teardown),
        cmocka_unit_test_setup_teardown(two_gateways, setup_two, teardown),
        cmocka_unit_test_setup_teardown(untold_to_the_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(untold_and_asked_again, setup_two, teardown),
        cmocka_unit_test_setup_teardown(untold_turn, setup_two, teardown),
        cmocka_unit_test_setup_teardown(no_room, setup_small, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
