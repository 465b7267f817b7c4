/* inference - the role over the real embedded adapters: order, once, stopping, failing, context, fence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/role/inference_house.h"

static void test_answers(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "good  day\r\n", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: good  day\r\n", FINISH_STOP); /* the stub says it as sent */
    assert_string_equal(prompts, "< Hello.\n> good  day\n");
    assert_true(find_seen(&h.f, ENVELOPE_REPLY, NULL, 0)->env.change > 0);
    assert_non_null(find_seen(&h.f, ENVELOPE_DELTA, &work.turn, 0));
    assert_int_equal(find_seen(&h.f, ENVELOPE_DELTA, &work.turn, 0)->env.offset, 0);
    support_for(h.f.loop, 30);
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 0);
    house_close(&h);
}

static void test_redelivered(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "once", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: once", FINISH_STOP);
    support_count(h.f.loop, &settle_acks, 2); /* the role's and the watcher's: it is in hand no more */
    publish(&h.f, WORKER_QUEUE, &work, false);
    assert_string_equal(open_seen(&h.f, await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 2), SEAL_QUEUE),
                        "Ada heard: once");
    assert_int_equal(generated, 1);
    assert_int_equal(find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 0)->env.attempt,
                     find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1)->env.attempt);
    assert_int_equal(find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 0)->env.change,
                     find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1)->env.change);
    house_close(&h);
}

static void test_in_hand_twice(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "?delay_ms=100", NULL);
    accept(&h.f, "twice", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: twice", FINISH_STOP);
    support_for(h.f.loop, 100);
    assert_int_equal(generated, 1);
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, NULL), 2); /* the second out of the store; gateways drop it */
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 0);
    house_close(&h);
}

static void test_order(void **state)
{
    struct house h;
    struct envelope first, second, third;

    (void)state;
    house_open(&h, "?delay_ms=30", NULL);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    accept(&h.f, "three", &third);
    publish(&h.f, WORKER_QUEUE, &third, false);
    publish(&h.f, WORKER_QUEUE, &second, false);
    support_for(h.f.loop, 50);
    assert_int_equal(generated, 0);
    publish(&h.f, WORKER_QUEUE, &first, false);
    await_seen(&h.f, ENVELOPE_REPLY, NULL, 3);
    assert_true(uuid_eq(&find_seen(&h.f, ENVELOPE_REPLY, NULL, 0)->env.turn, &first.turn));
    assert_true(uuid_eq(&find_seen(&h.f, ENVELOPE_REPLY, NULL, 1)->env.turn, &second.turn));
    assert_true(uuid_eq(&find_seen(&h.f, ENVELOPE_REPLY, NULL, 2)->env.turn, &third.turn));
    assert_string_equal(prompts, "< Hello.\n> one\n< Ada heard: one\n> two\n< Ada heard: two\n> three\n");
    assert_int_equal(count_seen(&h.f, ENVELOPE_WORK, NULL), 0);
    house_close(&h);
}

/* The predecessor's work was lost: it is published again, and the waiting one is answered after it. */
static void test_predecessor_again(void **state)
{
    struct house h;
    struct envelope first, second;
    const struct seen *again;

    (void)state;
    house_open(&h, "", NULL);
    watch(&h.f, TOPIC_INCOMING);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    publish(&h.f, WORKER_QUEUE, &second, false);
    again = await_seen(&h.f, ENVELOPE_WORK, &first.turn, 1);
    assert_int_equal(again->env.index, first.index);
    assert_true(uuid_eq(&again->env.predecessor, &first.predecessor));
    publish(&h.f, WORKER_QUEUE, &again->env, false);
    reply_is(&h.f, &second.turn, "Ada heard: two", FINISH_STOP);
    reply_is(&h.f, &first.turn, "Ada heard: one", FINISH_STOP);
    house_close(&h);
}

static void test_five_failures(void **state)
{
    struct house h;
    struct envelope work;
    const struct seen *s;

    (void)state;
    house_open(&h, "?fail_word=boom&fail_after=2", NULL);
    accept(&h.f, "boom it goes", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    s = await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    assert_int_equal(s->env.finish, FINISH_ERROR);
    assert_string_equal(s->env.code, "engine_failed");
    assert_int_equal(generated, 5);
    support_for(h.f.loop, 50);
    assert_int_equal(settle_retries, 4);
    assert_int_equal(settle_dead, 1);
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 0);
    reply_is(&h.f, &work.turn, "Ada heard: ", FINISH_ERROR);
    assert_string_equal(read_turn(&h.f, &work.turn).code, "engine_failed");
    accept(&h.f, "and on", &work); /* an error settles its turn */
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: and on", FINISH_STOP);
    house_close(&h);
}

static void test_fallback(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "?fail_word=boom", "");
    accept(&h.f, "boom", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: boom", FINISH_STOP);
    assert_int_equal(generated, 1); /* the first one's */
    assert_int_equal(settle_retries, 0);
    house_close(&h);
}

static void control(struct house *h, enum envelope_kind kind, const struct envelope *work, const char *origin)
{
    struct envelope env = {.kind = kind, .chat = work->chat, .turn = work->turn, .variant = work->variant};

    strcpy(env.origin, origin);
    publish(&h->f, TOPIC_CONTROL, &env, true);
}

static void test_stop_generating(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "?gap_ms=40", NULL);
    accept(&h.f, "a b c d e f g h i j k l m n o p q r s t u v w x y z", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_DELTA, &work.turn, 2);
    control(&h, ENVELOPE_STOP, &work, "");
    assert_int_equal(await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1)->env.finish, FINISH_STOPPED);
    assert_true(strlen(read_turn(&h.f, &work.turn).text) < 40);
    assert_int_equal(read_turn(&h.f, &work.turn).finish, FINISH_STOPPED);
    house_close(&h);
}

/* The broadcast was lost: the mark alone counts when the reply is stored. */
static void test_stop_mark(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "?delay_ms=400", NULL);
    accept(&h.f, "mark", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    support_for(h.f.loop, 50);
    append_event(&h.f, &work.turn, TURN_EVENT_STOP, 0, 0);
    reply_is(&h.f, &work.turn, "Ada heard: mark", FINISH_STOPPED);
    house_close(&h);
}

static void test_stop_queued(void **state)
{
    struct house h;
    struct envelope first, second, third;
    const struct seen *s;

    (void)state;
    house_open(&h, "?delay_ms=300", NULL);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    accept(&h.f, "three", &third);
    publish(&h.f, WORKER_QUEUE, &first, false);
    publish(&h.f, WORKER_QUEUE, &second, false);
    publish(&h.f, WORKER_QUEUE, &third, false);
    support_for(h.f.loop, 50);
    control(&h, ENVELOPE_STOP, &second, "");
    s = await_seen(&h.f, ENVELOPE_REPLY, &second.turn, 1);
    assert_int_equal(s->env.finish, FINISH_STOPPED);
    assert_string_equal(open_seen(&h.f, s, SEAL_QUEUE), "");
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &first.turn), 1); /* in order: not before the first */
    reply_is(&h.f, &third.turn, "Ada heard: three", FINISH_STOP);
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &first.turn), 1);
    assert_string_equal(prompts, "< Hello.\n> one\n< Ada heard: one\n> two\n> three\n");
    house_close(&h);
}

static void test_deleted_while_generating(void **state)
{
    struct house h;
    struct envelope work, next;

    (void)state;
    house_open(&h, "?delay_ms=100", NULL);
    accept(&h.f, "forget it", &work);
    accept(&h.f, "go on", &next);
    publish(&h.f, WORKER_QUEUE, &work, false);
    publish(&h.f, WORKER_QUEUE, &next, false);
    support_for(h.f.loop, 40);
    append_event(&h.f, &work.turn, TURN_EVENT_DELETE, 0, 0);
    reply_is(&h.f, &next.turn, "Ada heard: go on", FINISH_STOP);
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &work.turn), 0);
    assert_int_equal(read_turn(&h.f, &work.turn).variants, 0);
    assert_string_equal(prompts, "< Hello.\n> go on\n");
    house_close(&h);
}

static void test_uncertain(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    appends_uncertain = 3;
    accept(&h.f, "maybe", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: maybe", FINISH_STOP);
    assert_int_equal(appends_uncertain, 0);
    assert_int_equal(generated, 1);
    assert_int_equal(settle_retries, 0);
    house_close(&h);
}

/* Another attempt was first: its reply is the one that is sent. */
static void test_adopts(void **state)
{
    struct house h;
    struct envelope work;
    struct turn_row row = {.part = PART_FIRST_VARIANT,
                           .speaker = SPEAKER_CHARACTER,
                           .character = "ada",
                           .attempt = 7,
                           .finish = FINISH_LENGTH,
                           .completion_tokens = 9};
    struct buf sealed = {0};

    (void)state;
    house_open(&h, "?delay_ms=80", NULL);
    accept(&h.f, "race", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    support_for(h.f.loop, 30);
    row.chat = work.chat;
    row.turn = work.turn;
    row.user = work.user;
    row.created_ms = wall_ms();
    seal_row(&h.f, &row, "I was first", &sealed);
    append(&h.f, &row);
    buf_release(&sealed);
    reply_is(&h.f, &work.turn, "I was first", FINISH_LENGTH);
    assert_int_equal(find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 0)->env.attempt, 7);
    assert_int_equal(find_seen(&h.f, ENVELOPE_REPLY, &work.turn, 0)->env.completion_tokens, 9);
    house_close(&h);
}

/* A master key that wrapped nothing of this house. */
static struct seal_master *foreign_master(void)
{
    struct seal_master *master;
    struct buf text = {0};

    assert_int_equal(seal_master_generate(&text), TR_OK);
    assert_int_equal(seal_master_parse((const char *)text.data, text.len, &master, NULL), TR_OK);
    buf_wipe(&text);
    return master;
}

/* From now on in a chat whose key does not open. */
static void make_foreign_chat(struct house *h)
{
    struct seal_master *const master = h->f.master;
    const char *topic = topic_notify(&h->f.chat);

    h->f.master = foreign_master();
    do { /* in the partition that is watched */
        make_chat_of(&h->f, false);
    } while (topic_notify(&h->f.chat) != topic);
    seal_master_free(h->f.master);
    h->f.master = master;
}

/* What does not open is an error, and the turn is settled with it. */
static void test_unreadable(void **state)
{
    struct house h;
    struct envelope work;
    const struct seen *s;

    (void)state;
    house_open(&h, "", NULL);
    h.f.key.key[0] ^= 1;
    accept(&h.f, "sealed with another key", &work);
    h.f.key.key[0] ^= 1;
    publish(&h.f, WORKER_QUEUE, &work, false);
    s = await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    assert_int_equal(s->env.finish, FINISH_ERROR);
    assert_string_equal(s->env.code, "internal");
    support_for(h.f.loop, 30);
    assert_int_equal(settle_dead, 1);

    /* a chat whose key another master key wrapped: not even the error's empty text can be sealed */
    make_foreign_chat(&h);
    accept(&h.f, "whose key is it", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    s = await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    assert_int_equal(s->env.finish, FINISH_ERROR);
    assert_string_equal(s->env.code, "internal");
    assert_int_equal(s->env.sealed.len, 0);
    assert_int_equal(read_turn(&h.f, &work.turn).variants, 1);
    house_close(&h);
}

/* The replies came in this order, each once. */
static void replies_are(struct house *h, const struct uuid *first, const struct uuid *second)
{
    await_seen(&h->f, ENVELOPE_REPLY, second, 1);
    assert_int_equal(count_seen(&h->f, ENVELOPE_REPLY, first), 1);
    assert_int_equal(count_seen(&h->f, ENVELOPE_REPLY, second), 1);
    assert_ptr_equal(find_seen(&h->f, ENVELOPE_REPLY, first, 0) < find_seen(&h->f, ENVELOPE_REPLY, second, 0), 1);
}

/* A text that does not open: its error is stored after the reply before it, also over a deleted turn between them. */
static void test_error_waits(void **state)
{
    struct house h;
    struct envelope first, between, second;

    (void)state;
    house_open(&h, "", NULL);
    say(&h, "warm", &first);
    for (int deleted = 0; deleted <= 1; deleted++) {
        accept(&h.f, "one", &first);
        if (deleted) {
            accept(&h.f, "gone", &between);
            append_event(&h.f, &between.turn, TURN_EVENT_DELETE, 0, 0);
        }
        h.f.key.key[0] ^= 1;
        accept(&h.f, "sealed with another key", &second);
        h.f.key.key[0] ^= 1;
        publish(&h.f, WORKER_QUEUE, &second, false);
        await_seen(&h.f, ENVELOPE_STATUS, &second.turn, 1); /* it waits */
        support_for(h.f.loop, 700);                         /* and looks once more */
        assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &second.turn), 0);
        assert_int_equal(read_turn(&h.f, &second.turn).variants, 0);
        publish(&h.f, WORKER_QUEUE, &first, false);
        replies_are(&h, &first.turn, &second.turn);
        assert_string_equal(find_seen(&h.f, ENVELOPE_REPLY, &second.turn, 0)->env.code, "internal");
    }
    house_close(&h);
}

/* A key that does not open: each turn's error waits for that of the turn before; lost work is published again. */
static void test_error_waits_without_key(void **state)
{
    struct house h;
    struct envelope first, second;
    const struct seen *again;

    (void)state;
    house_open(&h, "", NULL);
    watch(&h.f, TOPIC_INCOMING);
    make_foreign_chat(&h);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    publish(&h.f, WORKER_QUEUE, &second, false);
    again = await_seen(&h.f, ENVELOPE_WORK, &first.turn, 1);
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, NULL), 0);
    publish(&h.f, WORKER_QUEUE, &again->env, false);
    replies_are(&h, &first.turn, &second.turn);
    assert_int_equal(read_turn(&h.f, &first.turn).variants, 1);
    assert_int_equal(read_turn(&h.f, &second.turn).variants, 1);
    support_count(h.f.loop, &settle_dead, 2);
    house_close(&h);
}

static void test_snapshot(void **state)
{
    struct house h;
    struct envelope work;
    const struct seen *s = NULL;

    (void)state;
    house_open(&h, "?gap_ms=50", NULL);
    declare(&h.f, "gateway.g1", QUEUE_TRANSIENT);
    watch(&h.f, "gateway.g1");
    accept(&h.f, "a b c d e f", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_DELTA, &work.turn, 2);
    control(&h, ENVELOPE_TEXT, &work, "gateway.g1");
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    for (size_t i = 0; i < h.f.seen_n; i++)
        if (strcmp(h.f.seen[i].queue, "gateway.g1") == 0)
            s = &h.f.seen[i];
    assert_non_null(s);
    assert_true(s->env.snapshot);
    assert_int_equal(s->env.offset, 0);
    assert_memory_equal(open_seen(&h.f, s, SEAL_DELTA), "Ada ", 4);
    house_close(&h);
}

static void test_fence(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    setenv("TROUPE_WORKER_TTL_MS", "400", 1);
    house_open(&h, "", NULL);
    unsetenv("TROUPE_WORKER_TTL_MS");
    registry_down = true;
    support_for(h.f.loop, 600);
    accept(&h.f, "anybody there", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    support_for(h.f.loop, 200);
    assert_int_equal(generated, 0); /* it does not consume any more */
    registry_down = false;
    reply_is(&h.f, &work.turn, "Ada heard: anybody there", FINISH_STOP);
    house_close(&h);
}

static void on_drained(void *ctx)
{
    struct house *h = ctx;

    h->drained++;
}

static void test_drain(void **state)
{
    struct house h;
    struct envelope first, second;

    (void)state;
    house_open(&h, "?delay_ms=150", NULL);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    publish(&h.f, WORKER_QUEUE, &first, false);
    publish(&h.f, WORKER_QUEUE, &second, false);
    support_for(h.f.loop, 50);
    inference_drain(h.role, on_drained, &h);
    support_count(h.f.loop, &h.drained, 1);
    reply_is(&h.f, &first.turn, "Ada heard: one", FINISH_STOP); /* finished */
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &second.turn), 0);
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 1); /* handed back */
    assert_false(settle_counted);
    house_close(&h);
}

/* Freed in the middle of everything: nothing leaks, what was in hand comes again. */
static void test_free_in_hand(void **state)
{
    struct house h;
    struct envelope first, second;

    (void)state;
    house_open(&h, "?delay_ms=150", NULL);
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    publish(&h.f, WORKER_QUEUE, &first, false);
    publish(&h.f, WORKER_QUEUE, &second, false);
    support_for(h.f.loop, 30);
    inference_free(h.role);
    h.role = NULL;
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 2);
    house_close(&h);
}

static void test_bad_input(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    publish_bytes(&h.f, WORKER_QUEUE, "no envelope");
    accept(&h.f, "unknown character", &work);
    strcpy(work.character, "nobody");
    publish(&h.f, WORKER_QUEUE, &work, false);
    assert_string_equal(await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1)->env.code, "not_found");
    support_for(h.f.loop, 50);
    assert_int_equal(settle_dead, 2);
    work.chat = fresh_uuid(); /* a chat without a key: forgotten */
    work.turn = fresh_uuid();
    publish(&h.f, WORKER_QUEUE, &work, false);
    support_for(h.f.loop, 50);
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &work.turn), 0);
    assert_int_equal(queue_length_of(&h.f, WORKER_QUEUE), 0);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_redelivered),
        cmocka_unit_test(test_in_hand_twice),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_predecessor_again),
        cmocka_unit_test(test_five_failures),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_stop_generating),
        cmocka_unit_test(test_stop_mark),
        cmocka_unit_test(test_stop_queued),
        cmocka_unit_test(test_deleted_while_generating),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_fence),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_free_in_hand),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_uncertain),
        cmocka_unit_test(test_adopts),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_error_waits),
        cmocka_unit_test(test_error_waits_without_key),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
