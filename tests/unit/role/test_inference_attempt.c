/* inference - of two attempts at one variant the later one has the greater number, whatever the clocks say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/role/inference_house.h"
#include "tests/unit/role/shifted_clock.h"

#define SLOW "?gap_ms=40"
#define LONG "a b c d e f g h i j k l m n o p q r s t u v w x y z"

static uint64_t attempt_of(const struct seen *s)
{
    assert_true(s->env.attempt < UINT64_C(1) << 53); /* exact in JavaScript */
    return s->env.attempt;
}

static unsigned number_of(const struct seen *s)
{
    return (unsigned)(attempt_of(s) >> 32 & 0xfffff);
}

struct rows {
    struct wait w;
    int attempts;
};

static void on_rows(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct rows *r = ctx;

    (void)more;
    if (rc == TR_OK) {
        r->attempts = 0;
        for (size_t i = 0; i < n; i++)
            r->attempts += rows[i].part == PART_STATE && rows[i].event == TURN_EVENT_ATTEMPT;
    }
    wait_called(&r->w, rc, err);
}

static int attempt_rows(struct house *h, const struct uuid *turn)
{
    struct rows r = {.w = {.loop = h->f.loop}};
    struct history *store = h->f.env.history;

    assert_int_equal(wait_end(&r.w, store->ops->turn_get(store, &h->f.chat, turn, on_rows, &r, &r.w.op, &r.w.err)),
                     TR_OK);
    return r.attempts;
}

/* The worker's process ends in the middle of its reply, and another one takes its queue. */
static void take_over(struct house *h)
{
    struct wait w = {.loop = h->f.loop};

    inference_free(h->role);
    h->role = NULL;
    assert_int_equal(
        wait_end(&w, inference_start(&h->f.env, h->engines, h->engines_n, "any", on_started, &w, &h->role, &w.err)),
        TR_OK);
}

static void test_first_writes_nothing(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    say(&h, "hello", &work);
    assert_int_equal(number_of(find_seen(&h.f, ENVELOPE_DELTA, &work.turn, 0)), 0);
    assert_int_equal(attempt_rows(&h, &work.turn), 0);
    house_close(&h);
}

/* The one that is stopped is `ahead` of its successor's clock, or behind it. */
static void later_one_is_newer(time_t ahead)
{
    struct house h;
    struct envelope work;
    const struct seen *first, *then = NULL;

    house_open(&h, SLOW, NULL);
    shifted_s = ahead;
    accept(&h.f, LONG, &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    first = await_seen(&h.f, ENVELOPE_DELTA, &work.turn, 2);
    shifted_s = 0;
    take_over(&h);
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    for (size_t i = 0; then == NULL; i++) { /* the second one's begin at offset 0 again */
        const struct seen *s = find_seen(&h.f, ENVELOPE_DELTA, &work.turn, i);

        assert_non_null(s);
        if (s > first && s->env.offset == 0)
            then = s;
    }
    assert_true(attempt_of(then) > attempt_of(first));
    assert_int_equal(number_of(first), 0);
    assert_int_equal(number_of(then), 1);
    assert_int_equal(attempt_rows(&h, &work.turn), 1);
    assert_int_equal(read_turn(&h.f, &work.turn).variants, 1);
    house_close(&h);
}

static void test_clock_ahead(void **state)
{
    (void)state;
    later_one_is_newer(HOUR_S / 6);
}

static void test_clock_behind(void **state)
{
    (void)state;
    later_one_is_newer(-HOUR_S / 6);
}

/* Published again by somebody, or failed before: another attempt, too.  A number of the version before is smaller. */
static void test_called_again(void **state)
{
    struct house h;
    struct envelope work;
    const struct seen *s;

    (void)state;
    house_open(&h, "?fail_word=boom&fail_after=2", NULL);
    accept(&h.f, "boom", &work);
    work.again = true;
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    for (unsigned i = 0; (s = find_seen(&h.f, ENVELOPE_DELTA, &work.turn, i)) != NULL; i++) {
        assert_int_equal(number_of(s), i + 1); /* one delta an attempt */
        assert_true(attempt_of(s) > wall_ms() * 1000);
    }
    assert_int_equal(attempt_rows(&h, &work.turn), QUEUE_ATTEMPTS_MAX);
    house_close(&h);
}

/*
 * Asked for its text before it has its number, a later attempt says nothing: its number would be the first one's, and what the
 * first one still writes might be dropped for it.
 */
static void test_unnumbered_says_nothing(void **state)
{
    struct house h;
    struct envelope first, second, ask = {.kind = ENVELOPE_TEXT, .chat = {{0}}, .origin = "gateway.g1"};

    (void)state;
    house_open(&h, "?delay_ms=300", NULL);
    declare(&h.f, "gateway.g1", QUEUE_TRANSIENT);
    watch(&h.f, "gateway.g1");
    accept(&h.f, "one", &first);
    accept(&h.f, "two", &second);
    second.again = true;
    publish(&h.f, WORKER_QUEUE, &second, false);
    await_seen(&h.f, ENVELOPE_STATUS, &second.turn, 1); /* it waits for the other */
    ask.chat = second.chat;
    ask.turn = second.turn;
    publish(&h.f, TOPIC_CONTROL, &ask, true);
    support_for(h.f.loop, 50);
    assert_int_equal(count_seen(&h.f, ENVELOPE_DELTA, &second.turn), 0);
    publish(&h.f, WORKER_QUEUE, &first, false);
    await_seen(&h.f, ENVELOPE_REPLY, &second.turn, 1);
    assert_int_equal(number_of(find_seen(&h.f, ENVELOPE_DELTA, &second.turn, 0)), 1);
    house_close(&h);
}

static struct house *stopping; /* the user's stop comes first: in the place that the attempt would have */

static enum tr_rc stop_first(struct history *store, const struct turn_row *rows, size_t n, history_append_done *done,
                             void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct turn_row stop;
    struct tr_op *op;

    if (stopping != NULL && rows[0].event == TURN_EVENT_ATTEMPT) {
        stop = rows[0];
        stop.event = TURN_EVENT_STOP;
        stop.known = 0;
        stopping = NULL;
        assert_int_equal(history_inner->append(store, &stop, 1, ignore_appended, NULL, &op, NULL), TR_OK);
    }
    return history_inner->append(store, rows, n, done, ctx, ret_op, err);
}

static void test_event_was_first(void **state)
{
    struct house h;
    struct envelope work;
    struct history_ops ops;

    (void)state;
    house_open(&h, "", NULL);
    ops = *h.f.env.history->ops;
    ops.append = stop_first;
    h.f.env.history->ops = &ops;
    stopping = &h;
    accept(&h.f, "stop", &work);
    work.again = true;
    publish(&h.f, WORKER_QUEUE, &work, false);
    assert_int_equal(await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1)->env.finish, FINISH_STOPPED);
    assert_int_equal(generated, 0);
    assert_int_equal(attempt_rows(&h, &work.turn), 0);
    house_close(&h);
}

/* However often it is called for, a variant gets so many rows and no more. */
static void test_rows_are_bounded(void **state)
{
    struct house h;
    struct envelope work;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "bounded", &work);
    for (int i = 0; i < 32; i++)
        append_event(&h.f, &work.turn, TURN_EVENT_ATTEMPT, 0, i);
    work.again = true;
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    assert_int_equal(number_of(find_seen(&h.f, ENVELOPE_DELTA, &work.turn, 0)), 32);
    assert_int_equal(attempt_rows(&h, &work.turn), 32);
    house_close(&h);
}

/* The row is a change of the chat, but none that the kept context would have to be read anew for. */
static void test_context_is_kept(void **state)
{
    struct house h;
    struct envelope work;
    size_t turns, alone;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "one", &work);
    work.again = true;
    publish(&h.f, WORKER_QUEUE, &work, false);
    await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    turns = reads_turns;
    alone = reads_turn;
    say(&h, "two", &work);
    assert_string_equal(prompts, "< Hello.\n> one\n< Ada heard: one\n> two\n");
    assert_int_equal(reads_turns, turns);
    assert_int_equal(reads_turn, alone);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_writes_nothing), cmocka_unit_test(test_clock_ahead),
        cmocka_unit_test(test_clock_behind),         cmocka_unit_test(test_called_again),
        cmocka_unit_test(test_event_was_first),      cmocka_unit_test(test_rows_are_bounded),
        cmocka_unit_test(test_context_is_kept),      cmocka_unit_test(test_unnumbered_says_nothing),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
