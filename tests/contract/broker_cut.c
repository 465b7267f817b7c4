/* broker_cut - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/rabbitmq/queue.h"
#include "base/url.h"
#include "broker_cut.h"
#include "broker_flood.h"
#include "broker_proxy.h"
#include "queue_broker_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A bench whose broker is reached by a proxy. */
struct line {
    struct bench b;
    struct broker_proxy *proxy;
};

static void open_at(struct bench *b, uint16_t port, uint64_t timeout_ms)
{
    const struct rabbitmq_options opt = {.heartbeat_ms = 1000, .timeout_ms = timeout_ms};
    char url[512], prefix[64];
    struct url u = {0};

    broker_prefix(b->place, prefix);
    assert_int_equal(url_parse(getenv("TROUPE_TEST_AMQP"), 5672, &u, NULL), TR_OK);
    snprintf(url, sizeof url, "amqp://%s:%s@127.0.0.1:%u/?prefix=%s", u.user, u.password, (unsigned)port, prefix);
    url_release(&u);
    assert_int_equal(loop_new(&b->loop, NULL), TR_OK);
    assert_int_equal(rabbitmq_queue_open(b->loop, url, &opt, &b->q, NULL), TR_OK);
}

static void line_open(struct line *l, const char *place, uint64_t timeout_ms)
{
    struct url u = {0};

    *l = (struct line){.b.place = support_path(place)}; /* new for every run */
    assert_int_equal(url_parse(getenv("TROUPE_TEST_AMQP"), 5672, &u, NULL), TR_OK);
    l->proxy = broker_proxy_new(u.host[0].port);
    url_release(&u);
    open_at(&l->b, broker_proxy_port(l->proxy), timeout_ms);
}

static void line_close(struct line *l)
{
    bench_end(&l->b);
    broker_proxy_free(l->proxy);
}

static void on_gap(void *ctx)
{
    size_t *const n = ctx;

    (*n)++;
}

static bool has_all(void *ctx)
{
    const struct taker *const t = ctx;

    return t[0].n > 0 && t[1].n > 0;
}

/* Cut in the middle of publishing, again and again; what this process declared works again, transient queues too. */
void cut_connection(void **state)
{
    const size_t each = 1500, rounds = 5;
    struct line l;
    struct flood f = {0};
    struct reader r;
    struct taker t[2];
    struct wait late = {0};
    const struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)"0", 1}};

    (void)state;
    line_open(&l, "cut", 10000);
    assert_int_equal(bench_declare(&l.b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&l.b, "t", QUEUE_TRANSIENT, 0, false), TR_OK);
    assert_int_equal(bench_declare(&l.b, "f", QUEUE_FANOUT, 0, false), TR_OK);
    reader_start(&r, &l.b, each * rounds);
    taker_start(&t[0], &l.b, "t", 0, ACK);
    taker_start(&t[1], &l.b, "f", 0, ACK);
    for (size_t i = 0; i < rounds; i++) {
        flood(&l.b, &f, i * each, each);
        support_for(l.b.loop, 5 + 10 * i);
        broker_proxy_set(l.proxy, PROXY_CUT);
        broker_proxy_set(l.proxy, PROXY_PASS);
        support_count(l.b.loop, &f.ended, each * (i + 1));
        support_count(l.b.loop, &r.gaps, i + 1);
    }
    support_count(l.b.loop, &r.distinct, f.by_rc[TR_OK]);
    print_message("  %zu confirmed, %zu uncertain, %zu read, %zu of them once more\n", f.by_rc[TR_OK],
                  f.by_rc[TR_UNCERTAIN], r.n, r.n - r.distinct);
    assert_int_equal(f.by_rc[TR_OK] + f.by_rc[TR_UNCERTAIN], each * rounds);
    t[0].n = t[1].n = 0;
    for (int i = 0; i < 100 && !has_all(t); i++) { /* the last subscription may be a moment away */
        assert_int_equal(bench_publish(&l.b, "t", "x"), TR_OK);
        assert_int_equal(bench_publish(&l.b, "f", "x"), TR_OK);
        support_for(l.b.loop, 50);
    }
    assert_true(has_all(t));

    broker_proxy_set(l.proxy, PROXY_CUT); /* what was not sent waits for the next connection */
    support_for(l.b.loop, 50);
    late.loop = l.b.loop;
    assert_int_equal(bench_publish_start(&l.b, &late, &msg), TR_OK);
    support_for(l.b.loop, 300);
    assert_int_equal(late.calls, 0);
    broker_proxy_set(l.proxy, PROXY_PASS);
    support_count(l.b.loop, &late.calls, 1);
    assert_int_equal(late.rc, TR_OK);
    line_close(&l);
    free(r.seen);
}

/* A partition: no reset, no answer.  The heartbeat finds it, publishes end by their deadline, and it mends. */
void cut_swallowed(void **state)
{
    struct line l;
    struct taker t;
    struct flood f = {0};
    size_t gaps = 0;
    struct queue_consumer *c = NULL;
    uint64_t start;

    (void)state;
    line_open(&l, "swallowed", 1500);
    assert_int_equal(bench_declare(&l.b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&l.b, "g", QUEUE_TRANSIENT, 0, false), TR_OK);
    assert_int_equal(l.b.q->ops->consume(l.b.q, "g", 0, taker_on_message, on_gap, &gaps, &c, NULL), TR_OK);
    assert_int_equal(bench_publish(&l.b, "a", "0"), TR_OK);
    broker_proxy_set(l.proxy, PROXY_SWALLOW);
    start = mono_ns();
    flood(&l.b, &f, 0, 100);
    support_count(l.b.loop, &f.ended, 100);
    assert_in_range((mono_ns() - start) / 1000000, 1400, 2500);
    assert_int_equal(f.by_rc[TR_OK], 0);
    assert_true(f.by_rc[TR_UNCERTAIN] > 0);
    support_for(l.b.loop, 3500); /* the heartbeat gives up on it */
    broker_proxy_set(l.proxy, PROXY_CUT);
    broker_proxy_set(l.proxy, PROXY_PASS);
    support_count(l.b.loop, &gaps, 1);
    assert_int_equal(bench_publish(&l.b, "a", "1"), TR_OK);
    taker_start(&t, &l.b, "a", 0, ACK);
    support_count(l.b.loop, &t.n, 2);
    line_close(&l);
}

/* No broker: what nobody waits for is bounded and goes, what somebody waits for ends with TRANSIENT. */
void cut_bounded(void **state)
{
    const struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)"0", 1}, .transient = true};
    struct line l;
    enum tr_rc rc = TR_OK;
    size_t n = 0;

    (void)state;
    line_open(&l, "bounded", 5000); /* long enough to start them all under a sanitizer */
    assert_int_equal(bench_declare(&l.b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    broker_proxy_set(l.proxy, PROXY_CUT);
    support_for(l.b.loop, 100);
    for (; rc == TR_OK && n < 200000; n++)
        rc = l.b.q->ops->publish(l.b.q, &msg, NULL, NULL, NULL, NULL);
    assert_int_equal(rc, TR_BUSY);
    assert_in_range(n, 60000, 70000);
    assert_int_equal(bench_publish(&l.b, "a", "0"), TR_TRANSIENT);
    for (int i = 0; i < 1000 && l.b.q->ops->publish(l.b.q, &msg, NULL, NULL, NULL, NULL) == TR_BUSY; i++)
        support_for(l.b.loop, 10); /* past their deadline they are dropped */
    assert_int_equal(l.b.q->ops->publish(l.b.q, &msg, NULL, NULL, NULL, NULL), TR_OK);
    broker_proxy_set(l.proxy, PROXY_PASS);
    for (int i = 0; i < 50 && bench_publish(&l.b, "a", "0") != TR_OK; i++)
        support_for(l.b.loop, 50);
    line_close(&l);
}

/* Settled when the connection is gone: without effect, so each message comes again once, as it was. */
void cut_settles_nothing(void **state)
{
    struct line l;
    struct taker t;

    (void)state;
    line_open(&l, "settles", 5000);
    assert_int_equal(bench_declare(&l.b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bench_publish(&l.b, "a", "x"), TR_OK);
    taker_start(&t, &l.b, "a", 0, KEEP);
    support_count(l.b.loop, &t.hand_n, 3);
    broker_proxy_set(l.proxy, PROXY_CUT); /* the loop does not know it yet */
    l.b.q->ops->ack(l.b.q, t.hand[0]);
    l.b.q->ops->retry(l.b.q, t.hand[1], true, 0, "failed");
    l.b.q->ops->dead_letter(l.b.q, t.hand[2], "no more");
    support_for(l.b.loop, 100);
    broker_proxy_set(l.proxy, PROXY_PASS);
    support_count(l.b.loop, &t.hand_n, 6);
    support_for(l.b.loop, 500);
    assert_int_equal(t.n, 6); /* not one too many */
    for (int i = 3; i < 6; i++) {
        assert_int_equal(t.attempts[i], 0);
        l.b.q->ops->ack(l.b.q, t.hand[i]);
    }
    bench_expect_length(&l.b, "a", 0);
    bench_expect_length(&l.b, "dead", 0);
    line_close(&l);
}

/* The dead-letter queue is gone: the delivery comes again after a pause, and is a dead letter once there is one. */
void cut_copy_refused(void **state)
{
    struct bench b = bench_new("refused");
    struct wait w = {.loop = b.loop};
    struct taker t;
    uint64_t start;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    taker_start(&t, &b, "a", 0, KEEP);
    support_count(b.loop, &t.hand_n, 1);
    assert_int_equal(bench_remove(&b, "dead"), TR_OK);
    start = mono_ns();
    b.q->ops->dead_letter(b.q, t.hand[0], "refused");
    support_count(b.loop, &t.hand_n, 2);
    assert_true(mono_ns() - start > 500 * 1000000ull);
    assert_int_equal(wait_end(&w, b.q->ops->init(b.q, wait_done, &w, &w.op, &w.err)), TR_OK);
    b.q->ops->dead_letter(b.q, t.hand[1], "refused");
    bench_expect_length(&b, "a", 0);
    bench_expect_length(&b, "dead", 1);
    bench_close(&b);
    assert_int_equal(broker_dead(b.place, "refused"), 1);
    free(b.place);
}

/*
 * The broker refuses one message, and has not confirmed another, the copy of a delivery, when the publishing channel is given up
 * (publish.c): the delivery comes again.
 */
void cut_copy_unconfirmed(void **state)
{
    struct line l;
    struct taker t;
    size_t n = 0;

    (void)state;
    line_open(&l, "unconfirmed", 3000);
    assert_int_equal(bench_declare(&l.b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_declare(&l.b, "full", QUEUE_DURABLE, 1, false), TR_OK);
    while (bench_publish(&l.b, "full", "x") != TR_BUSY)
        assert_true(++n < 100);
    support_for(l.b.loop, 700); /* that one's renewal is over */
    assert_int_equal(bench_publish(&l.b, "a", "x"), TR_OK);
    taker_start(&t, &l.b, "a", 0, KEEP);
    support_count(l.b.loop, &t.hand_n, 1);
    broker_proxy_set(l.proxy, PROXY_UNCONFIRMED);
    l.b.q->ops->retry(l.b.q, t.hand[0], true, 0, "again");
    support_count(l.b.loop, &t.hand_n, 2); /* the copy, which the broker took */
    assert_int_equal(bench_publish(&l.b, "full", "x"), TR_BUSY);
    support_count(l.b.loop, &t.hand_n, 3); /* the original */
    broker_proxy_set(l.proxy, PROXY_PASS);
    for (size_t i = 1; i < 3; i++)
        l.b.q->ops->ack(l.b.q, t.hand[i]);
    bench_expect_length(&l.b, "a", 0);
    assert_int_equal(bench_publish(&l.b, "a", "y"), TR_OK);
    support_count(l.b.loop, &t.hand_n, 4);
    l.b.q->ops->ack(l.b.q, t.hand[3]);
    line_close(&l);
}

/* Given back more often than the broker's own limit allows: a dead letter, not lost. */
void cut_backstop(void **state)
{
    struct bench b = bench_new("backstop");

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    broker_give_back(b.place, "a", 1001);
    bench_expect_length(&b, "dead", 1);
    bench_expect_length(&b, "a", 0);
    bench_end(&b);
}

/* Queues that an earlier version made are taken as they are. */
void cut_upgrade(void **state)
{
    struct bench b = {.place = support_path("upgrade")};
    struct taker t;

    (void)state;
    broker_declare_old(b.place, "a");
    broker_declare_old(b.place, "dead");
    bench_open(&b);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    taker_start(&t, &b, "a", 0, ACK);
    support_count(b.loop, &t.n, 1);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, true), TR_INVALID); /* this is no detail */
    bench_end(&b);
}

/* A queue so young that it does not outlive the broker's death is made anew, and others go on beside it. */
void cut_young(void **state)
{
    struct bench b = bench_new("young");
    struct taker t, other;
    bool sent = false;
    const uint64_t start = mono_ns();

    (void)state;
    assert_int_equal(bench_declare(&b, "old", QUEUE_DURABLE, 0, false), TR_OK);
    support_for(b.loop, 13000);
    assert_int_equal(bench_declare(&b, "young", QUEUE_DURABLE, 0, false), TR_OK);
    taker_start(&t, &b, "young", 0, ACK);
    taker_start(&other, &b, "old", 0, ACK);
    support_server_do("rabbitmq", "TROUPE_TEST_AMQP_DIR", "kill", 0);
    support_server_do("rabbitmq", "TROUPE_TEST_AMQP_DIR", "start", 0);
    support_for(b.loop, 1); /* its clock stood still meanwhile: deadlines are counted from it */
    for (int i = 0; i < 6 && !sent; i++)
        sent = bench_publish(&b, "young", "x") == TR_OK;
    assert_true(sent);
    support_count(b.loop, &t.n, 1);
    assert_int_equal(bench_publish(&b, "old", "x"), TR_OK);
    support_count(b.loop, &other.n, 1);
    print_message("  works again %.0f s after the beginning\n", (double)(mono_ns() - start) / 1e9);
    bench_end(&b);
}

#define WINDOW 256

/* A publish whose end starts the next one. */
struct pipe_line {
    struct bench *b;
    size_t started, ended, n, ok;
    uint8_t body[300];
};

static void on_piped(void *ctx, enum tr_rc rc, const struct tr_err *err);

static void pipe_next(struct pipe_line *p)
{
    const struct queue_message msg = {.queue = "a", .body = {p->body, sizeof p->body}};
    struct tr_op *op = NULL;

    if (p->started == p->n)
        return;
    p->started++;
    assert_int_equal(p->b->q->ops->publish(p->b->q, &msg, on_piped, p, &op, NULL), TR_OK);
}

static void on_piped(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct pipe_line *const p = ctx;

    (void)err;
    p->ended++;
    p->ok += rc == TR_OK;
    pipe_next(p);
}

/* What a confirmed publish costs by the port, beside the bare library in a bare loop: same broker, window and bytes. */
void cut_throughput(void **state)
{
    struct bench b = bench_new("throughput");
    double ours = 0, bare = 0;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    for (int round = 0; round < 3; round++) {
        struct pipe_line p = {.b = &b, .n = 20000};
        uint64_t start = mono_ns();

        for (int i = 0; i < WINDOW; i++)
            pipe_next(&p);
        support_count(b.loop, &p.ended, p.n);
        ours += (double)(mono_ns() - start) / 1e9;
        assert_int_equal(p.ok, p.n);
        start = mono_ns();
        broker_publish_bare(b.place, "a", p.n, WINDOW, sizeof p.body);
        bare += (double)(mono_ns() - start) / 1e9;
    }
    print_message("  60000 confirmed publishes: the port %.0f/s, the bare library %.0f/s, %.2f times its cost\n",
                  60000 / ours, 60000 / bare, ours / bare);
    bench_end(&b);
}
