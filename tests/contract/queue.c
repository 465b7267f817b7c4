/*
 * queue - the contract of port/queue.h, held against every adapter in the table.
 * The numbers in the tests' names are the port's rules; queue_fault.c has the rough ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/sqlite/queue.h"
#include "queue_broker_fixture.h"
#include "queue_fixture.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static size_t sqlite_dead(const char *place, const char *cause)
{
    static const char text[] = "SELECT count(*) FROM dead WHERE cause = ?1 AND length(body) > 0";
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    size_t n;

    assert_int_equal(sqlite3_open(place, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &stmt, NULL), SQLITE_OK);
    sqlite3_bind_text(stmt, 1, cause, -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    n = (size_t)sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return n;
}

static const struct queue_adapter adapters[] = {
    {"sqlite", sqlite_queue_open, sqlite_dead, true, NULL},
    {"amqp", broker_open, broker_dead, false, "TROUPE_TEST_AMQP"},
};
static void expect_text(const struct taker *t, size_t first, const char *const *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_string_equal(t->text[first + i], want[i]);
}

static void rule1_unknown_and_kinds(void **state)
{
    struct bench b = bench_new("kinds");
    struct wait w = {.loop = b.loop};
    struct queue_consumer *c = NULL;
    char longname[QUEUE_NAME_MAX + 2];

    (void)state;
    memset(longname, 'q', sizeof longname - 1);
    longname[sizeof longname - 1] = '\0';
    assert_int_equal(bench_publish(&b, "nobody", "x"), TR_NOT_FOUND);
    if (queue_adapter->embedded) /* elsewhere it waits until there is one */
        assert_int_equal(b.q->ops->consume(b.q, "nobody", 1, taker_on_message, NULL, NULL, &c, &w.err), TR_NOT_FOUND);
    assert_int_equal(bench_remove(&b, "nobody"), TR_NOT_FOUND);
    assert_int_equal(bench_declare(&b, longname, QUEUE_DURABLE, 0, false), TR_INVALID);
    assert_int_equal(bench_declare(&b, "", QUEUE_DURABLE, 0, false), TR_INVALID);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&b, "a", QUEUE_FANOUT, 0, false), TR_INVALID);
    b.q->ops->consumer_stop(b.q, NULL);
    bench_end(&b);
}

static void rule1_cancel(void **state)
{
    struct bench b = bench_new("cancel");
    const struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)"x", 1}};
    struct wait w = {.loop = b.loop}, last = {.loop = b.loop};

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish_start(&b, &w, &msg), TR_OK);
    tr_op_cancel(w.op);
    tr_op_cancel(w.op);
    assert_int_equal(w.calls, 0);
    support_count(b.loop, &w.calls, 1);
    assert_int_equal(w.rc, TR_CANCELLED);
    support_for(b.loop, 50);
    assert_int_equal(w.calls, 1);

    /* What is outstanding at close ends before close returns. */
    assert_int_equal(bench_publish_start(&b, &last, &msg), TR_OK);
    bench_close(&b);
    assert_int_equal(last.calls, 1);
    assert_int_equal(last.rc, TR_CANCELLED);
    free(b.place);
}

static void rule2_survives_close(void **state)
{
    static const char *const want[] = {"one", "two", "three"};
    struct bench b = bench_new("reopen");
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 7, true), TR_OK);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(bench_publish(&b, "a", want[i]), TR_OK);
    bench_close(&b);
    bench_open(&b);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 7, true), TR_OK);
    bench_expect_length(&b, "a", 3);
    taker_start(&t, &b, "a", 0, ACK);
    support_count(b.loop, &t.n, 3);
    expect_text(&t, 0, want, 3);
    taker_stop(&t);
    bench_close(&b);
    bench_open(&b);
    bench_expect_length(&b, "a", 0);
    bench_end(&b);
}

/* Kept, it is written and confirmed all the same; acknowledged, that is its confirmation. */
static void rule2_patient(void **state)
{
    struct bench b = bench_new("patient");
    const struct queue_message kept = {.queue = "a", .body = {(const uint8_t *)"kept", 4}, .patient = true};
    const struct queue_message done = {.queue = "b", .body = {(const uint8_t *)"done", 4}, .patient = true};
    static const char *const want[] = {"kept"};
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&b, "b", QUEUE_DURABLE, 0, false), TR_OK);
    taker_start(&t, &b, "a", 0, KEEP);
    taker_start(&u, &b, "b", 0, ACK);
    assert_int_equal(bench_publish_msg(&b, &kept), TR_OK);
    assert_int_equal(bench_publish_msg(&b, &done), TR_OK);
    if (queue_adapter->embedded) /* delivered before it is confirmed */
        assert_int_equal(t.n + u.n, 2);
    support_count(b.loop, &t.n, 1);
    support_count(b.loop, &u.n, 1);
    taker_stop(&t);
    taker_stop(&u);
    bench_close(&b);
    bench_open(&b);
    taker_start(&t, &b, "a", 0, ACK);
    taker_start(&u, &b, "b", 0, ACK);
    support_count(b.loop, &t.n, 1);
    expect_text(&t, 0, want, 1);
    bench_expect_length(&b, "b", 0);
    assert_int_equal(u.n, 0);
    bench_end(&b);
}

static void rule3_transient_never_on_disk(void **state)
{
    static const char words[] = "words that must not rest anywhere";
    struct bench b = bench_new("transient");
    const struct slice body = {(const uint8_t *)words, sizeof words - 1};
    const struct queue_message to_durable = {.queue = "d", .body = body, .transient = true};
    const struct queue_message to_transient = {.queue = "t", .body = body};
    const struct queue_message to_fanout = {.queue = "f", .body = body};
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "d", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&b, "t", QUEUE_TRANSIENT, 0, false), TR_OK);
    assert_int_equal(bench_declare(&b, "f", QUEUE_FANOUT, 0, false), TR_OK);
    assert_int_equal(bench_publish_msg(&b, &to_durable), TR_OK);
    assert_int_equal(bench_publish_msg(&b, &to_transient), TR_OK);
    assert_int_equal(bench_publish_msg(&b, &to_fanout), TR_OK);
    assert_int_equal(b.q->ops->publish(b.q, &to_durable, NULL, NULL, NULL, NULL), TR_OK);
    assert_int_equal(bench_publish(&b, "d", "this one may"), TR_OK);
    taker_start(&t, &b, "d", 1, ACK);
    support_count(b.loop, &t.n, 3);
    assert_int_equal(t.transient[0] + t.transient[1] + t.transient[2], 2);
    assert_true(!queue_adapter->embedded || !t.transient[2]);
    taker_stop(&t);
    if (queue_adapter->embedded) {
        assert_false(support_on_disk("sqlite-transient.db", words, sizeof words - 1));
        assert_true(support_on_disk("sqlite-transient.db", "this one may", 12));
    }
    bench_end(&b);
}

static void rule3_transient_queue(void **state)
{
    struct bench b = bench_new("transient-queue");
    struct taker t;
    size_t n;

    (void)state;
    assert_int_equal(bench_declare(&b, "t", QUEUE_TRANSIENT, 5, false), TR_OK);
    for (int i = 0; i < 9; i++) /* past the limit they are dropped, not refused */
        assert_int_equal(bench_publish(&b, "t", "x"), TR_OK);
    taker_start(&t, &b, "t", 1, KEEP); /* no prefetch holds them up: there is nothing to settle */
    support_count(b.loop, &t.n, 5);
    n = t.n;
    support_for(b.loop, 20);
    assert_int_equal(t.n, n);
    taker_stop(&t); /* goes with its last consumer */
    for (int i = 0; i < 200 && !queue_adapter->embedded && bench_publish(&b, "t", "x") == TR_OK; i++)
        support_for(b.loop, 5); /* the broker takes a moment */
    assert_int_equal(bench_publish(&b, "t", "x"), TR_NOT_FOUND);
    bench_end(&b);
}

static void rule4_redelivery(void **state)
{
    static const char *const want[] = {"one", "two"};
    struct bench b = bench_new("redelivery");
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "one"), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "two"), TR_OK);
    taker_start(&t, &b, "a", 0, RETRY_COUNTED); /* one failed attempt each */
    t.delay_ms = 100;                           /* so that neither is back before it is told to be kept */
    support_count(b.loop, &t.n, 2);
    t.act = KEEP;
    support_count(b.loop, &t.hand_n, 2);
    assert_int_equal(t.attempts[2], 1);
    assert_false(t.again[0] || t.again[1]);
    assert_true(t.again[2] && t.again[3]);
    taker_stop(&t);
    /* In hand when the consumer stopped: can be handed back, another consumer gets it. */
    taker_start(&u, &b, "a", 0, KEEP);
    b.q->ops->retry(b.q, t.hand[0], false, 0, NULL);
    support_count(b.loop, &u.n, 1);
    assert_int_equal(u.attempts[0], 1);
    assert_true(u.again[0]);
    taker_stop(&u);
    bench_close(&b); /* both unsettled */
    bench_open(&b);
    taker_start(&u, &b, "a", 0, ACK);
    support_count(b.loop, &u.n, 2);
    if (queue_adapter->embedded || strcmp(u.text[0], want[0]) == 0) /* one was put back: elsewhere it may come last */
        expect_text(&u, 0, want, 2);
    else
        assert_true(strcmp(u.text[0], want[1]) == 0 && strcmp(u.text[1], want[0]) == 0);
    assert_int_equal(u.attempts[0], 1);
    assert_int_equal(u.attempts[1], 1);
    assert_true(u.again[0] && u.again[1]);
    bench_end(&b);
}

/* No failure is counted, and all the same it was handed out before: held and given again, stopped, of a process that died. */
static void rule4_again(void **state)
{
    struct bench b = bench_new("again");
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "one"), TR_OK);
    taker_start(&t, &b, "a", 0, KEEP);
    support_count(b.loop, &t.n, 1);
    b.q->ops->retry(b.q, t.hand[0], false, 10, NULL);
    support_count(b.loop, &t.n, 2);
    taker_stop(&t);
    b.q->ops->retry(b.q, t.hand[1], false, 0, NULL);
    taker_start(&u, &b, "a", 0, KEEP);
    support_count(b.loop, &u.n, 1);
    taker_stop(&u);
    bench_close(&b);
    assert_false(t.again[0]);
    assert_true(t.again[1] && u.again[0]);
    bench_open(&b);
    taker_start(&u, &b, "a", 0, ACK);
    support_count(b.loop, &u.n, 1);
    assert_int_equal(u.attempts[0], 0);
    assert_true(u.again[0]);
    bench_end(&b);
}

static void rule4_prefetch_and_turns(void **state)
{
    struct bench b = bench_new("prefetch");
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    taker_start(&t, &b, "a", 2, KEEP);
    taker_start(&u, &b, "a", 3, KEEP);
    for (int i = 0; i < 10; i++)
        assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    support_count(b.loop, &t.n, 2);
    support_count(b.loop, &u.n, 3);
    support_for(b.loop, 30);
    assert_int_equal(t.n, 2);
    assert_int_equal(u.n, 3);
    bench_expect_length(&b, "a", 10);
    b.q->ops->ack(b.q, t.hand[0]);
    support_count(b.loop, &t.n, 3);
    support_for(b.loop, 20);
    assert_int_equal(t.n, 3);
    assert_int_equal(u.n, 3);
    taker_stop(&t); /* its two stay in hand, and may still be settled */
    b.q->ops->ack(b.q, t.hand[1]);
    b.q->ops->dead_letter(b.q, t.hand[2], "late");
    bench_expect_length(&b, "a", 7);
    u.act = ACK;
    for (int i = 0; i < 3; i++)
        b.q->ops->ack(b.q, u.hand[i]);
    support_count(b.loop, &u.n, 7);
    bench_expect_length(&b, "a", 0);
    bench_end(&b);
}

static void rule4_single_active(void **state)
{
    struct bench b = bench_new("single");
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, true), TR_OK);
    taker_start(&t, &b, "a", 1, ACK);
    taker_start(&u, &b, "a", 1, ACK);
    for (int i = 0; i < 6; i++)
        assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    support_count(b.loop, &t.n, 6);
    assert_int_equal(u.n, 0);
    taker_stop(&t);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    support_count(b.loop, &u.n, 1);
    bench_end(&b);
}

static void rule6_order(void **state)
{
    static const char *const want[] = {"0", "1", "2", "0", "1", "2", "3"};
    struct bench b = bench_new("order");
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(bench_publish(&b, "a", want[i]), TR_OK);
    taker_start(&t, &b, "a", 3, KEEP);
    support_count(b.loop, &t.n, 3);
    assert_int_equal(bench_publish(&b, "a", "3"), TR_OK);
    /* Put back in any order, without a delay: the old places. */
    b.q->ops->retry(b.q, t.hand[1], false, 0, NULL);
    b.q->ops->retry(b.q, t.hand[2], false, 0, NULL);
    b.q->ops->retry(b.q, t.hand[0], false, 0, NULL);
    t.act = ACK;
    support_count(b.loop, &t.n, 7);
    expect_text(&t, 0, want, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(t.attempts[i], 0);
    bench_end(&b);
}

/* A limit is reached; a quorum queue notices it some messages late.  Returns how many more were taken. */
static size_t expect_full(struct bench *b, const char *queue)
{
    size_t more = 0;

    while (!queue_adapter->embedded && more < 200 && bench_publish(b, queue, "x") == TR_OK)
        more++;
    assert_int_equal(bench_publish(b, queue, "y"), TR_BUSY);
    return more;
}

static void rule7_limit(void **state)
{
    struct bench b = bench_new("limit");
    struct taker t;
    size_t n = 3;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 3, false), TR_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    n += expect_full(&b, "a");
    bench_expect_length(&b, "a", n);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 4, false), TR_OK);
    if (queue_adapter->embedded) { /* elsewhere what it was made with holds */
        assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
        n++;
    }
    assert_int_equal(bench_publish(&b, "a", "y"), TR_BUSY);
    bench_close(&b);
    bench_open(&b); /* the limit is kept */
    assert_int_equal(bench_publish(&b, "a", "y"), TR_BUSY);
    taker_start(&t, &b, "a", 1, ACK);
    support_count(b.loop, &t.n, n);
    bench_expect_length(&b, "a", 0);
    for (int i = 0; i < 100 && !queue_adapter->embedded && bench_publish(&b, "a", "x") == TR_BUSY; i++)
        support_for(b.loop, 5);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    for (size_t i = 0; i < n && i < TAKEN_MAX; i++)
        assert_string_equal(t.text[i], "x");
    bench_end(&b);
}

static void rule8_attempts(void **state)
{
    struct bench b = bench_new("attempts");
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    taker_start(&t, &b, "a", 1, RETRY); /* these don't count */
    support_count(b.loop, &t.n, 20);
    t.act = KEEP;
    support_count(b.loop, &t.hand_n, 1);
    for (uint32_t i = 0; i < QUEUE_ATTEMPTS_MAX; i++) {
        const size_t before = t.hand_n;

        bench_expect_length(&b, "a", 1);
        b.q->ops->retry(b.q, t.hand[before - 1], true, 0, i == 4 ? "the last cause" : "an earlier one");
        if (i + 1 < QUEUE_ATTEMPTS_MAX)
            support_count(b.loop, &t.hand_n, before + 1);
    }
    bench_expect_length(&b, "a", 0);
    assert_int_equal(bench_publish(&b, "a", "y"), TR_OK);
    support_count(b.loop, &t.hand_n, QUEUE_ATTEMPTS_MAX + 1);
    b.q->ops->dead_letter(b.q, t.hand[t.hand_n - 1], "bad input");
    taker_stop(&t);
    bench_close(&b);
    assert_int_equal(queue_adapter->dead(b.place, "the last cause"), 1);
    assert_int_equal(queue_adapter->dead(b.place, "an earlier one"), 0);
    assert_int_equal(queue_adapter->dead(b.place, "bad input"), 1);
    bench_open(&b);
    bench_expect_length(&b, "a", 0);
    bench_end(&b);
}

static void delays(void **state)
{
    static const char *const want[] = {"now", "soon", "later"};
    struct bench b = bench_new("delays");
    struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)"later", 5}, .delay_ms = 250};
    const uint64_t start = mono_ns();
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish_msg(&b, &msg), TR_OK);
    msg.body = (struct slice){(const uint8_t *)"soon", 4};
    msg.delay_ms = 120;
    assert_int_equal(bench_publish_msg(&b, &msg), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "now"), TR_OK);
    bench_expect_length(&b, "a", 3);
    bench_close(&b); /* a delay outlives the broker */
    bench_open(&b);
    taker_start(&t, &b, "a", 0, ACK);
    support_count(b.loop, &t.n, 2);
    assert_true(mono_ns() - start >= 110 * 1000000ull);
    support_count(b.loop, &t.n, 3);
    assert_true(mono_ns() - start >= 240 * 1000000ull);
    expect_text(&t, 0, want, 3);
    bench_end(&b);
}

static void rule9_fanout(void **state)
{
    struct bench b = bench_new("fanout");
    struct taker t, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "f", QUEUE_FANOUT, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "f", "to nobody"), TR_OK);
    taker_start(&t, &b, "f", 1, KEEP);
    taker_start(&u, &b, "f", 1, KEEP);
    support_for(b.loop, 20);
    assert_int_equal(t.n + u.n, 0);
    assert_int_equal(bench_publish(&b, "f", "one"), TR_OK);
    assert_int_equal(bench_publish(&b, "f", "two"), TR_OK);
    support_count(b.loop, &t.n, 2);
    support_count(b.loop, &u.n, 2);
    assert_string_equal(u.text[1], "two");
    taker_stop(&t);
    assert_int_equal(bench_publish(&b, "f", "three"), TR_OK);
    support_count(b.loop, &u.n, 3);
    assert_int_equal(t.n, 2);
    bench_end(&b);
}

static void removal(void **state)
{
    struct bench b = bench_new("remove");
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    assert_int_equal(bench_remove(&b, "a"), TR_BUSY); /* not empty */
    taker_start(&t, &b, "a", 1, ACK);
    support_count(b.loop, &t.n, 1);
    assert_int_equal(bench_remove(&b, "a"), TR_BUSY); /* in use */
    taker_stop(&t);
    bench_expect_length(&b, "a", 0);
    assert_int_equal(bench_remove(&b, "a"), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_NOT_FOUND);
    bench_close(&b);
    bench_open(&b);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_NOT_FOUND);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    bench_end(&b);
}

/* A consumer that stops itself inside its callback. */
static void on_message_stop(void *ctx, const struct queue_incoming *msg)
{
    struct taker *t = ctx;

    t->n++;
    t->b->q->ops->ack(t->b->q, msg->delivery);
    taker_stop(t);
}

static void stop_inside_callback(void **state)
{
    struct bench b = bench_new("inside");
    struct taker t = {.b = &b}, u;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    assert_int_equal(b.q->ops->consume(b.q, "a", 0, on_message_stop, NULL, &t, &t.c, NULL), TR_OK);
    support_count(b.loop, &t.n, 1);
    support_for(b.loop, 20);
    assert_int_equal(t.n, 1);
    taker_start(&u, &b, "a", 0, ACK);
    support_count(b.loop, &u.n, 2);
    bench_end(&b);
}

static void large_bodies(void **state)
{
    struct bench b = bench_new("large");
    const size_t len = 128 * 1024;
    uint8_t *body = malloc(len);
    struct queue_message msg = {.queue = "a", .body = {body, len}};
    struct taker t;

    (void)state;
    assert_non_null(body);
    memset(body, 'L', len);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(bench_publish_msg(&b, &msg), TR_OK);
    msg.body.len = 0;
    assert_int_equal(bench_publish_msg(&b, &msg), TR_OK);
    bench_close(&b);
    bench_open(&b);
    taker_start(&t, &b, "a", 4, ACK);
    support_count(b.loop, &t.n, 21);
    assert_int_equal(t.bytes, 20 * len);
    free(body);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_survives_sigkill), /* those that fork come first: no thread lives yet */
        cmocka_unit_test(fault_full_disk),
        cmocka_unit_test(rule1_unknown_and_kinds),
        cmocka_unit_test(rule1_cancel),
        cmocka_unit_test(rule2_survives_close),
        cmocka_unit_test(rule2_patient),
        cmocka_unit_test(rule3_transient_never_on_disk),
        cmocka_unit_test(rule3_transient_queue),
        cmocka_unit_test(rule4_redelivery),
        cmocka_unit_test(rule4_again),
        cmocka_unit_test(rule4_prefetch_and_turns),
        cmocka_unit_test(rule4_single_active),
        cmocka_unit_test(rule6_order),
        cmocka_unit_test(rule7_limit),
        cmocka_unit_test(rule8_attempts),
        cmocka_unit_test(delays),
        cmocka_unit_test(rule9_fanout),
        cmocka_unit_test(removal),
        cmocka_unit_test(stop_inside_callback),
        cmocka_unit_test(large_bodies),
        cmocka_unit_test(fault_ten_thousand),
        cmocka_unit_test(fault_one_owner),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++) {
        queue_adapter = &adapters[i];
        if (adapters[i].server == NULL ? support_real() : support_server(adapters[i].server) == NULL)
            continue;
        failed += cmocka_run_group_tests_name(adapters[i].name, tests, NULL, NULL);
    }
    return failed != 0;
}
