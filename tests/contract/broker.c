/*
 * broker - what only a real RabbitMQ can do to the queue: a cut connection, a restart, a stall, a lost leader.
 * Runs where TROUPE_TEST_AMQP is set (tests/servers/rabbitmq.sh); the cluster's tests where TROUPE_TEST_AMQP3 is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/rabbitmq/queue.h"
#include "base/log.h"
#include "broker_cut.h"
#include "broker_flood.h"
#include "queue_broker_fixture.h"
#include "queue_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct queue_adapter amqp = {"amqp", broker_open, broker_dead, false, "TROUPE_TEST_AMQP"};

static void server(const char *verb)
{
    support_server_do("rabbitmq", "TROUPE_TEST_AMQP_DIR", verb, 0);
}

static int begin(void **state)
{
    (void)state;
    queue_adapter = &amqp;
    server("resume"); /* a test that failed may have left it stopped */
    return 0;
}

/* A restart in the middle of everything: what was confirmed is there, consumers go on, and are told. */
static void restarts(void **state)
{
    const size_t each = 2000, rounds = 3;
    struct bench b = bench_new("restart");
    struct flood f = {0};
    struct reader r;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    sleep(13); /* a quorum queue younger than that may not outlive a kill -9 of a single node */
    reader_start(&r, &b, each * rounds);
    for (size_t round = 0; round < rounds; round++) {
        flood(&b, &f, round * each, each);
        support_for(b.loop, 30);
        server(round == 1 ? "stop" : "kill");
        support_for(b.loop, 200);
        server("start");
        support_count(b.loop, &f.ended, each * (round + 1));
        support_count(b.loop, &r.gaps, round + 1); /* the next round finds a connection */
    }
    print_message("  %zu confirmed, %zu uncertain, %zu sent later or not at all\n", f.by_rc[TR_OK],
                  f.by_rc[TR_UNCERTAIN], f.by_rc[TR_TRANSIENT]);
    assert_int_equal(f.by_rc[TR_OK] + f.by_rc[TR_UNCERTAIN] + f.by_rc[TR_TRANSIENT], each * rounds);
    support_count(b.loop, &r.distinct, f.by_rc[TR_OK]);
    bench_end(&b);
    free(r.seen);
}

struct beat {
    uint64_t last_ns, worst_ns;
};

/* The clock without the time in which this thread could have run but others had the processor. */
static uint64_t own_ns(void)
{
    FILE *const f = fopen("/proc/thread-self/schedstat", "r");
    unsigned long long ran, waited = 0;

    if (f == NULL || fscanf(f, "%llu %llu", &ran, &waited) != 2)
        waited = 0;
    if (f != NULL)
        fclose(f);
    return mono_ns() - waited;
}

static void on_beat(void *ctx)
{
    struct beat *beat = ctx;
    const uint64_t now = own_ns();

    if (beat->last_ns != 0 && now - beat->last_ns > beat->worst_ns)
        beat->worst_ns = now - beat->last_ns;
    beat->last_ns = now;
}

/* A broker that stalls: the loop goes on, operations end by their deadline, and all is well when it goes on. */
static void stalls(void **state)
{
    const struct rabbitmq_options opt = {.heartbeat_ms = 1000, .timeout_ms = 1500};
    char url[512], prefix[64];
    struct loop *loop = NULL;
    struct bench b = {0};
    struct flood f = {0};
    struct beat beat = {0};
    struct loop_timer *timer = NULL;

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    b.loop = loop;
    b.place = support_path("stalls"); /* new for every run */
    broker_prefix(b.place, prefix);
    snprintf(url, sizeof url, "%s?prefix=%s", getenv("TROUPE_TEST_AMQP"), prefix);
    assert_int_equal(rabbitmq_queue_open(loop, url, &opt, &b.q, NULL), TR_OK);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "0"), TR_OK);
    server("pause");
    assert_int_equal(timer_start(loop, 5, 5, on_beat, &beat, &timer), TR_OK);
    flood(&b, &f, 0, 5000);
    beat.last_ns = 0;
    support_count(loop, &f.ended, 5000);
    print_message("  the loop's longest pause: %.1f ms; %zu uncertain, %zu never sent\n", (double)beat.worst_ns / 1e6,
                  f.by_rc[TR_UNCERTAIN], f.by_rc[TR_TRANSIENT]);
    assert_int_equal(f.by_rc[TR_OK], 0);
    assert_true(f.by_rc[TR_UNCERTAIN] > 0);
    assert_true(beat.worst_ns < 50 * 1000000ull);
    timer_stop(timer);
    server("resume");
    for (int i = 0; i < 50 && bench_publish(&b, "a", "1") != TR_OK; i++)
        support_for(loop, 100);
    assert_int_equal(bench_publish(&b, "a", "1"), TR_OK);
    server("pause");
    support_for(loop, 50);
    {
        const uint64_t start = mono_ns();

        b.q->ops->close(b.q); /* shut-down does not hang on a broker that stalls */
        assert_true(mono_ns() - start < 9 * 1000000000ull);
    }
    server("resume");
    loop_drain(loop);
    loop_free(loop);
    free(b.place);
}

/* Deliveries that nobody settled when the connection went come again, with their attempts; dead letters stay. */
static void redelivers(void **state)
{
    struct bench b = bench_new("redeliver");
    struct taker t;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    assert_int_equal(bench_publish(&b, "a", "x"), TR_OK);
    taker_start(&t, &b, "a", 4, RETRY_COUNTED);
    t.delay_ms = 50;
    support_count(b.loop, &t.n, 2);
    t.act = KEEP;
    support_count(b.loop, &t.hand_n, 1);
    sleep(13);
    server("kill");
    server("start");
    support_count(b.loop, &t.hand_n, 2);
    assert_int_equal(t.attempts[3], 2);
    b.q->ops->ack(b.q, t.hand[0]); /* of the connection that is gone: without effect */
    b.q->ops->dead_letter(b.q, t.hand[1], "enough");
    bench_expect_length(&b, "a", 0);
    taker_stop(&t);
    bench_close(&b);
    server("stop");
    server("start");
    assert_int_equal(broker_dead(b.place, "enough"), 1);
    free(b.place);
}

struct checked {
    struct wait w;
    char server[160];
};

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct checked *c = ctx;

    wait_called(&c->w, rc, err);
    if (report != NULL)
        snprintf(c->server, sizeof c->server, "%s", report->server);
}

static enum tr_rc check_url(const char *url, struct checked *c)
{
    struct loop *loop = NULL;
    struct queue *q = NULL;
    enum tr_rc rc;

    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    assert_int_equal(rabbitmq_queue_open(loop, url, NULL, &q, NULL), TR_OK);
    *c = (struct checked){.w.loop = loop};
    rc = wait_end(&c->w, q->ops->check(q, on_checked, c, &c->w.op, &c->w.err));
    q->ops->close(q);
    loop_drain(loop);
    loop_free(loop);
    return rc;
}

/* The words of `check` for what an operator meets. */
static void checks(void **state)
{
    const char *const url = getenv("TROUPE_TEST_AMQP");
    const char *const host = strchr(url, '@') + 1;
    struct checked c;
    char other[512];

    (void)state;
    assert_int_equal(check_url(url, &c), TR_OK);
    assert_non_null(strstr(c.server, "RabbitMQ 3"));
    snprintf(other, sizeof other, "amqp://troupe:wrong-secret@%s", host);
    assert_int_equal(check_url(other, &c), TR_INVALID);
    assert_non_null(strstr(c.w.err.msg, "wrong password"));
    assert_null(strstr(c.w.err.msg, "wrong-secret"));
    snprintf(other, sizeof other, "%snowhere", url);
    assert_int_equal(check_url(other, &c), TR_INVALID);
    assert_non_null(strstr(c.w.err.msg, "no vhost 'nowhere'"));
    assert_int_equal(check_url("amqp://a:b@127.0.0.1:9/", &c), TR_TRANSIENT);
    assert_non_null(strstr(c.w.err.msg, "cannot reach RabbitMQ at 127.0.0.1:9"));
}

/* Three nodes, the one that we are connected to killed again and again: nothing confirmed is lost. */
static void leader_killed(void **state)
{
    const size_t each = 3000, rounds = 3;
    char url[512], prefix[64];
    struct bench b = {0};
    struct flood f = {0};
    struct reader r;

    (void)state;
    if (support_server("TROUPE_TEST_AMQP3") == NULL)
        skip();
    assert_int_equal(loop_new(&b.loop, NULL), TR_OK);
    b.place = support_path("three"); /* new for every run */
    broker_prefix(b.place, prefix);
    snprintf(url, sizeof url, "%s?prefix=%s", getenv("TROUPE_TEST_AMQP3"), prefix);
    assert_int_equal(rabbitmq_queue_open(b.loop, url, NULL, &b.q, NULL), TR_OK);
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    reader_start(&r, &b, each * rounds);
    for (size_t round = 0; round < rounds; round++) {
        flood(&b, &f, round * each, each);
        support_for(b.loop, 20);
        support_server_do("rabbitmq", "TROUPE_TEST_AMQP3_DIR", "kill", (int)round + 1);
        support_count(b.loop, &f.ended, each * (round + 1));
        support_server_do("rabbitmq", "TROUPE_TEST_AMQP3_DIR", "start", 0);
        support_for(b.loop, 1); /* its clock stood still meanwhile: deadlines are counted from it */
        for (int i = 0; i < 100 && bench_length(&b, "a") > each; i++)
            support_for(b.loop, 100);
    }
    print_message("  %zu confirmed, %zu uncertain, %zu not sent\n", f.by_rc[TR_OK], f.by_rc[TR_UNCERTAIN],
                  f.by_rc[TR_TRANSIENT]);
    support_count(b.loop, &r.distinct, f.by_rc[TR_OK]);
    bench_end(&b);
    free(r.seen);
}

/* The URL of some of the three nodes: `nodes` in order, as "13". */
static void url_of(const char *nodes, const char *prefix, char *out, size_t size)
{
    const char *const whole = getenv("TROUPE_TEST_AMQP3"), *const at = strchr(whole, '@') + 1;
    char hosts[256], *host[3] = {0}, *rest = NULL;
    size_t n = 0, len;

    snprintf(hosts, sizeof hosts, "%.*s", (int)strcspn(at, "/"), at);
    for (char *h = strtok_r(hosts, ",", &rest); h != NULL && n < 3; h = strtok_r(NULL, ",", &rest))
        host[n++] = h;
    assert_int_equal(n, 3);
    len = (size_t)snprintf(out, size, "%.*s", (int)(at - whole), whole);
    for (const char *d = nodes; *d != '\0'; d++)
        len += (size_t)snprintf(out + len, size - len, "%s%s", d == nodes ? "" : ",", host[*d - '1']);
    snprintf(out + len, size - len, "/?prefix=%s", prefix);
}

/*
 * A process publishes to a queue for the first time just when the queue's leader has been killed (the trap of publish.c): it gets
 * through while that node is away.
 */
static void first_publish_to_a_lost_leader(void **state)
{
    static const char *const others[] = {"23", "31", "12"};
    char prefix[64], url[512], node[2] = "0";

    (void)state;
    if (support_server("TROUPE_TEST_AMQP3") == NULL)
        skip();
    for (int n = 1; n <= 3; n++) {
        struct bench maker = {0}, b = {0};
        size_t refused = 0;
        enum tr_rc rc;
        uint64_t began;

        assert_int_equal(loop_new(&maker.loop, NULL), TR_OK);
        b.loop = maker.loop;
        maker.place = support_path("leader");
        broker_prefix(maker.place, prefix);
        node[0] = (char)('0' + n);
        url_of(node, prefix, url, sizeof url); /* a queue is led by the node that it was declared on */
        assert_int_equal(rabbitmq_queue_open(maker.loop, url, NULL, &maker.q, NULL), TR_OK);
        assert_int_equal(bench_declare(&maker, "a", QUEUE_DURABLE, 0, false), TR_OK);
        url_of(others[n - 1], prefix, url, sizeof url);
        assert_int_equal(rabbitmq_queue_open(b.loop, url, NULL, &b.q, NULL), TR_OK);
        assert_int_equal(bench_declare(&b, "other", QUEUE_DURABLE, 0, false), TR_OK); /* it is connected */
        support_server_do("rabbitmq", "TROUPE_TEST_AMQP3_DIR", "kill", n);
        support_for(b.loop, 1);
        began = loop_now_ms(b.loop);
        while ((rc = bench_publish(&b, "a", "x")) != TR_OK && loop_now_ms(b.loop) - began < 20000) {
            refused += rc == TR_BUSY;
            support_for(b.loop, 20);
        }
        print_message("  node %d away: %zu times refused, taken after %u ms\n", n, refused,
                      (unsigned)(loop_now_ms(b.loop) - began));
        assert_int_equal(rc, TR_OK);
        support_server_do("rabbitmq", "TROUPE_TEST_AMQP3_DIR", "start", 0);
        b.q->ops->close(b.q);
        bench_end(&maker);
    }
}

int main(void)
{
    if (getenv("TROUPE_TEST_LOG") != NULL)
        log_set_level(LOG_DEBUG);

    cmocka_set_test_filter(getenv("TROUPE_TEST_ONLY")); /* a pattern of names; NULL: all */

    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(checks, begin),           cmocka_unit_test_setup(restarts, begin),
        cmocka_unit_test_setup(stalls, begin),           cmocka_unit_test_setup(redelivers, begin),
        cmocka_unit_test_setup(leader_killed, begin),    cmocka_unit_test_setup(first_publish_to_a_lost_leader, begin),
        cmocka_unit_test_setup(cut_connection, begin),   cmocka_unit_test_setup(cut_swallowed, begin),
        cmocka_unit_test_setup(cut_bounded, begin),      cmocka_unit_test_setup(cut_settles_nothing, begin),
        cmocka_unit_test_setup(cut_copy_refused, begin), cmocka_unit_test_setup(cut_copy_unconfirmed, begin),
        cmocka_unit_test_setup(cut_backstop, begin),     cmocka_unit_test_setup(cut_upgrade, begin),
        cmocka_unit_test_setup(cut_young, begin),        cmocka_unit_test_setup(cut_throughput, begin),
    };

    if (support_server("TROUPE_TEST_AMQP") == NULL)
        return 77; /* Meson: skipped */
    return cmocka_run_group_tests_name("RabbitMQ", tests, NULL, NULL);
}
