/* test_desk - role/chat over the real embedded adapters: opening, accepting, following. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "front.h"

static void a_new_chat(void **state)
{
    static struct view w;
    struct answer a = {0}, again = {0}, unknown = {0}, bad = {0}, list = {0}, chars = {0}, one = {0}, none = {0};
    struct desk_open_request req = {.character = "ada", .id = "first", .id_len = 5};

    (void)state;
    view_init(&w);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "");
    assert_int_equal(a.turns, 1);
    assert_int_equal(a.variants, 1);
    assert_string_equal(a.text, "Hello.");
    assert_true(a.has_card);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &again));
    answered(&again);
    assert_true(uuid_eq(&a.id, &again.id));
    assert_int_equal(again.turns, 1);

    req.character = "nobody";
    assert_true(desk_open(desk, &w.v, &req, on_opened, &unknown));
    answered(&unknown);
    assert_string_equal(unknown.code, "not_found");
    req.character = "No Slug";
    assert_true(desk_open(desk, &w.v, &req, on_opened, &bad));
    answered(&bad);
    assert_string_equal(bad.code, "bad_request");
    assert_string_equal(bad.field, "character");

    assert_true(desk_chats(desk, &w.v, on_chats_read, &list));
    answered(&list);
    assert_int_equal(list.turns, 2);
    assert_string_equal(list.text, "Ada");
    assert_true(desk_characters(desk, &w.v, on_characters_read, &chars));
    answered(&chars);
    assert_int_equal(chars.turns, 1);
    assert_true(desk_character(desk, &w.v, "ada", on_characters_read, &one));
    answered(&one);
    assert_string_equal(one.text, "Ada");
    assert_true(desk_avatar(desk, &w.v, "ada", on_avatar_read, &none));
    answered(&none);
    assert_string_equal(none.code, "not_found");
    desk_viewer_release(desk, &w.v);
}

static void accepted_then_answered(void **state)
{
    static struct view w, other;
    struct answer a;
    const struct seen *work;

    (void)state;
    view_init(&w);
    view_init(&other);
    a = open_chat(&w, NULL);
    assert_int_equal(a.turns, 1);
    open_chat(&other, NULL);
    a = send_text(&w, "one", "Hi there");
    work = await_seen(&fx, ENVELOPE_WORK, &a.id, 1);
    assert_true(uuid_eq(&work->env.predecessor, &fx.head));
    assert_int_equal(work->env.index, 1);
    assert_string_equal(work->env.character, "ada");
    assert_int_equal(strlen(work->env.trace), 16);
    tell_delta(&a.id, 0, 1, 0, "Good");
    reply_to(&a.id, &fx.head, "Good day");
    tell_reply(&a.id, &fx.head, 0, "Good day"); /* delivered twice */
    tell_delta(&a.id, 0, 1, 4, " day");         /* late */
    expect_log(&w, "opened accepted2 delta2.0@1+0:Good reply2.0:Good day ");
    expect_log(&other, "opened turn2:Hi there delta2.0@1+0:Good reply2.0:Good day ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* The work is done and told of before the broker's confirmation of the WORK comes back. */
static void on_eager(void *ctx, const struct queue_incoming *msg)
{
    const struct fixture *f = &fx;
    struct envelope env, reply = {.kind = ENVELOPE_REPLY, .finish = FINISH_STOP};
    struct seal_bind bind;
    struct buf sealed = {0}, body = {0};
    struct queue_message out = {.queue = "gateway.test1", .transient = true};

    (void)ctx;
    assert_int_equal(envelope_decode(msg->body.data, msg->body.len, &env, NULL), TR_OK);
    reply.chat = env.chat;
    reply.turn = env.turn;
    reply.predecessor = env.predecessor;
    bind = (struct seal_bind){
        .kind = SEAL_QUEUE, .chat = env.chat, .turn = env.turn, .part = 1, .role = SPEAKER_CHARACTER};
    assert_int_equal(seal_data(&f->key, &bind, "quick", 5, &sealed), TR_OK);
    reply.sealed = (struct slice){sealed.data, sealed.len};
    assert_int_equal(envelope_encode(&reply, &body), TR_OK);
    out.body = (struct slice){body.data, body.len};
    assert_int_equal(f->env.queue->ops->publish(f->env.queue, &out, NULL, NULL, NULL, NULL), TR_OK);
    buf_release(&sealed);
    buf_release(&body);
    f->env.queue->ops->ack(f->env.queue, msg->delivery);
}

static void accepted_comes_first(void **state)
{
    static struct view w;
    struct answer answers[10];
    char want[512] = "opened ";

    (void)state;
    fx.env.queue->ops->consumer_stop(fx.env.queue, fx.watches[0]);
    assert_int_equal(
        fx.env.queue->ops->consume(fx.env.queue, TOPIC_INCOMING, 0, on_eager, NULL, NULL, &fx.watches[0], NULL), TR_OK);
    view_init(&w);
    open_chat(&w, NULL);
    memset(answers, 0, sizeof answers);
    for (size_t i = 0; i < 10; i++) {
        char id[24];

        answers[i].view = &w;
        snprintf(id, sizeof id, "id%zu", i);
        assert_true(desk_send(desk, &w.v, &fx.chat, id, strlen(id), "text", 4, NULL, 0, on_accepted_turn, &answers[i]));
        snprintf(want + strlen(want), sizeof want - strlen(want), "accepted%zu reply%zu.0:quick ", i + 2, i + 2);
    }
    for (size_t i = 0; i < 10; i++)
        answered(&answers[i]);
    expect_log(&w, want);
    desk_viewer_release(desk, &w.v);
}

static void deltas_are_mended(void **state)
{
    static struct view w;
    struct answer a;
    struct envelope env = {.kind = ENVELOPE_DELTA, .snapshot = true, .attempt = 1};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    tell_delta(&a.id, 0, 1, 0, "ab");
    tell_delta(&a.id, 0, 1, 4, "ef"); /* cd was lost */
    assert_non_null(await_seen(&fx, ENVELOPE_TEXT, &a.id, 1));
    env.chat = fx.chat;
    env.turn = a.id;
    tell(&env, "abcdefg");
    tell_delta(&a.id, 0, 1, 6, "gh"); /* overlaps */
    tell_delta(&a.id, 0, 2, 0, "new");
    tell_delta(&a.id, 0, 1, 8, "old");
    tell_delta(&a.id, 0, 2, 3, "er");
    expect_log(&w,
               "opened accepted2 delta2.0@1+0:ab delta2.0@1+2:cdefg delta2.0@1+7:h delta2.0@2+0:new delta2.0@2+3:er ");
    desk_viewer_release(desk, &w.v);
}

static void a_running_text_in_opened(void **state)
{
    static struct view w, other;
    struct answer a, o;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    tell_delta(&a.id, 0, 1, 0, "so far");
    o = open_chat(&other, NULL);
    assert_int_equal(o.turns, 2);
    assert_int_equal(o.variants, 1);
    assert_string_equal(o.text, "so far");
    tell_delta(&a.id, 0, 1, 6, ", so good");
    expect_log(&other, "opened delta2.0@1+6:, so good ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* While an open waits for a running text, the reply comes: it follows `opened`, once. */
static void a_reply_before_opened(void **state)
{
    static struct view w, other;
    struct answer a, o = {.view = &other};
    const struct desk_open_request req = {.chat = fx.chat};

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    assert_true(desk_open(desk, &other.v, &req, on_opened, &o));
    assert_non_null(await_seen(&fx, ENVELOPE_TEXT, &a.id, 1));
    reply_to(&a.id, &fx.head, "done");
    answered(&o);
    tell_reply(&a.id, &fx.head, 0, "done");
    expect_log(&other, "opened reply2.0:done ");
    expect_log(&w, "opened accepted2 reply2.0:done ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* A reply is stored but its notification is lost: the next one brings both, in order. */
static void a_lost_reply(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    store_reply(&a.id, 0, "first", FINISH_STOP);
    reply_to(&b.id, &a.id, "second");
    expect_log(&w, "opened accepted2 accepted3 reply2.0:first reply3.0:second ");
    desk_viewer_release(desk, &w.v);
}

/* A turn that came in at another gateway, and whose TURN was lost: its first event brings it. */
static void a_turn_from_elsewhere(void **state)
{
    static struct view w;
    struct envelope work, turn = {.kind = ENVELOPE_TURN, .origin = "gateway.other"};
    struct uuid head = fx.head;
    struct answer a;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    accept(&fx, "from my phone", &work);
    tell_delta(&work.turn, 0, 1, 0, "so");
    expect_log(&w, "opened turn2:from my phone delta2.0@1+0:so ");
    reply_to(&work.turn, &head, "so it is");
    expect_log(&w, "reply2.0:so it is ");
    head = work.turn;
    accept(&fx, "again", &work);
    turn.chat = fx.chat;
    turn.turn = work.turn;
    turn.index = work.index;
    tell(&turn, NULL);
    expect_log(&w, "turn3:again ");
    store_reply(&work.turn, 0, "", FINISH_ERROR);
    desk_viewer_release(desk, &w.v);
    view_init(&w);
    a = open_chat(&w, &head);
    assert_int_equal(a.turns, 1);
    expect_log(&w, "opened ");
    a = send_text(&w, "new", "next"); /* the cached head was another one */
    assert_string_equal(a.code, "");
    desk_viewer_release(desk, &w.v);
}

static void the_same_id_again(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "one", "another text");
    assert_true(uuid_eq(&a.id, &b.id));
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, &a.id), 2); /* not settled: called to work again */
    assert_int_equal(await_seen(&fx, ENVELOPE_WORK, &a.id, 2)->env.sealed.len, 0);
    reply_to(&a.id, &fx.head, "done");
    b = send_text(&w, "one", "x");
    assert_true(uuid_eq(&a.id, &b.id));
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, &a.id), 2);
    expect_log(&w, "opened accepted2 accepted2 reply2.0:done accepted2 ");
    desk_viewer_release(desk, &w.v);
}

static void what_is_refused(void **state)
{
    static char huge[8002];
    static struct view w, stranger;
    struct answer a;
    const struct {
        const char *id, *text, *code, *field;
    } rows[] = {
        {"", "x", "bad_request", "id"},
        {"0123456789012345678901234567890123456789012345678901234567890123x", "x", "bad_request", "id"},
        {"a", "", "bad_request", "text"},
        {"a", " \n ", "bad_request", "text"},
        {"a", "\xe2\x80\x8b", "bad_request", "text"},
        {"a", "\xff", "bad_request", "text"},
        {"a", huge, "too_large", "text"},
    };

    (void)state;
    memset(huge, 'x', 8001);
    view_init(&w);
    open_chat(&w, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        a = send_text(&w, rows[i].id, rows[i].text);
        assert_string_equal(a.code, rows[i].code);
        assert_string_equal(a.field, rows[i].field);
    }
    huge[8000] = '\0';
    a = send_text(&w, "a", huge);
    assert_string_equal(a.code, "");
    view_init(&stranger);
    stranger.v.user = fresh_uuid();
    a = send_text(&stranger, "a", "x");
    assert_string_equal(a.code, "not_found");
    a = (struct answer){0};
    assert_true(desk_open(desk, &stranger.v, &(struct desk_open_request){.chat = fx.chat}, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    assert_null(stranger.v.follows);
    a = (struct answer){0};
    assert_true(desk_history(desk, &stranger.v, &fx.chat, &uuid_nil, 10, on_turns_read, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    a = (struct answer){0};
    assert_true(desk_chat_delete(desk, &stranger.v, &fx.chat, on_ok, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    for (int i = 0; i < 30 && a.code[0] != 'r'; i++) {
        char id[24];

        snprintf(id, sizeof id, "r%d", i);
        a = send_text(&w, id, "x");
    }
    assert_string_equal(a.code, "rate_limited");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &stranger.v);
}

static void resuming(void **state)
{
    static struct view w;
    struct answer a, first, o;
    struct envelope work;
    struct uuid ids[60], before = fx.head;

    (void)state;
    view_init(&w);
    for (size_t i = 0; i < 60; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
    }
    o = open_chat(&w, NULL);
    assert_int_equal(o.turns, 50);
    assert_false(o.more);
    first = open_chat(&w, &before);
    assert_int_equal(first.turns, 50);
    assert_true(first.more);
    first = open_chat(&w, &ids[49]);
    assert_int_equal(first.turns, 10);
    assert_false(first.more);
    a = (struct answer){0};
    assert_true(desk_history(desk, &w.v, &fx.chat, &ids[30], 200, on_turns_read, &a));
    answered(&a);
    assert_int_equal(a.turns, 31); /* and the greeting */
    w.log[0] = '\0';
    CHANGE(desk_edit(desk, &w.v, &ids[3], "edited", 6, on_ok, &a));
    CHANGE(desk_edit(desk, &w.v, &ids[59], "edited", 6, on_ok, &a));
    w.log[0] = '\0';
    turn_names_n = 0;
    a = (struct answer){.view = &w};
    assert_true(
        desk_open(desk, &w.v,
                  &(struct desk_open_request){.chat = fx.chat, .after = ids[58], .since = o.change, .has_since = true},
                  on_opened, &a));
    answered(&a);
    assert_int_equal(a.turns, 1);
    expect_log(&w, "opened changed2:edited/1/0 ");
    desk_viewer_release(desk, &w.v);
}

static void an_error_is_told_once(void **state)
{
    static struct view w;
    struct answer a;
    struct envelope env = {.kind = ENVELOPE_REPLY, .finish = FINISH_ERROR, .code = "engine_failed", .change = 99};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    store_reply(&a.id, 0, "", FINISH_ERROR);
    env.chat = fx.chat;
    env.turn = a.id;
    env.predecessor = fx.head;
    tell(&env, "");
    tell(&env, "");
    expect_log(&w, "opened accepted2 failed2:engine_failed ");
    desk_viewer_release(desk, &w.v);
}

static void leaving_in_the_middle(void **state)
{
    struct answer ignored[8];
    static struct view w;

    (void)state;
    memset(ignored, 0, sizeof ignored);
    for (int i = 0; i < 6; i++) {
        views_n = 0;
        view_init(&w);
        assert_true(desk_open(desk, &w.v, &(struct desk_open_request){.chat = fx.chat}, on_opened, &ignored[0]));
        assert_true(desk_open(desk, &w.v, &(struct desk_open_request){.character = "ada"}, on_opened, &ignored[1]));
        assert_true(desk_send(desk, &w.v, &fx.chat, "a", 1, "x", 1, NULL, 0, on_accepted_turn, &ignored[2]));
        assert_true(desk_send(desk, &w.v, &fx.chat, "b", 1, "x", 1, NULL, 0, on_accepted_turn, &ignored[3]));
        assert_true(desk_chats(desk, &w.v, on_chats_read, &ignored[4]));
        assert_true(desk_history(desk, &w.v, &fx.chat, &uuid_nil, 5, on_turns_read, &ignored[5]));
        support_for(fx.loop, (uint64_t)i);
        memset(ignored, 0, sizeof ignored);
        desk_viewer_release(desk, &w.v);
        if (i == 5)
            break;
        support_for(fx.loop, 5);
        for (size_t k = 0; k < 8; k++)
            assert_int_equal(ignored[k].calls, 0);
    }
    /* teardown frees the desk with all that under way */
}

static void on_drained(void *ctx)
{
    (*(size_t *)ctx)++;
}

static void draining(void **state)
{
    static struct view w;
    struct answer a = {.view = &w}, late;
    size_t drained = 0;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    assert_true(desk_ready(desk));
    assert_true(desk_send(desk, &w.v, &fx.chat, "a", 1, "x", 1, NULL, 0, on_accepted_turn, &a));
    support_for(fx.loop, 1);
    desk_drain(desk, on_drained, &drained);
    assert_false(desk_ready(desk));
    late = send_text(&w, "b", "x");
    assert_string_equal(late.code, "overloaded");
    support_count(fx.loop, &drained, 1);
    assert_int_equal(a.calls, 1);
    assert_string_equal(a.code, "");
    desk_viewer_release(desk, &w.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_chat, setup, teardown),
        cmocka_unit_test_setup_teardown(accepted_then_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(accepted_comes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(deltas_are_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_running_text_in_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reply_before_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(a_turn_from_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_id_again, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(resuming, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(leaving_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(draining, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
