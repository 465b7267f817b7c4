/*
 * cassandra - what only a real Cassandra can do to the history: it goes and comes back, it stalls, it has no schema, a node of
 * three dies; and what the history's writes cost beside a bare one.  Runs where TROUPE_TEST_CASSANDRA (one node) or
 * TROUPE_TEST_CASSANDRA3 (three) is set: tests/servers/cassandra.sh.
 */
#include "history_fixture.h"

#ifdef TROUPE_WITH_CASSANDRA
#include "adapter/cassandra/history.h"
#include "base/metrics.h"
#include "cassandra_fixture.h"
#include "cassandra_gone.h"
#include "cassandra_half.h"
#include "cassandra_race.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct adapter one = {"cassandra", "TROUPE_TEST_CASSANDRA", cassandra_history_open};
static const struct adapter three = {"cassandra", "TROUPE_TEST_CASSANDRA3", cassandra_history_open};

static void node(const char *verb, int n)
{
    support_server_do("cassandra", adapter == &one ? "TROUPE_TEST_CASSANDRA_DIR" : "TROUPE_TEST_CASSANDRA3_DIR", verb,
                      n);
}

/* The server's URL with another end. */
static struct store *store_at(const char *keyspace, const char *query)
{
    struct store *s = calloc(1, sizeof *s);
    char url[512];
    char *slash;

    assert_non_null(s);
    snprintf(url, sizeof url, "%s", support_server(adapter->server));
    slash = strrchr(url, '/');
    if (keyspace != NULL)
        *slash = '\0';
    snprintf(url + strlen(url), sizeof url - strlen(url), "%s%s%s", keyspace != NULL ? "/" : "",
             keyspace != NULL ? keyspace : "", query);
    s->path = strdup(url);
    store_open(s);
    return s;
}

struct checked {
    struct wait w; /* first */
    struct service_report report;
};

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct checked *c = ctx;

    wait_called(&c->w, rc, err);
    if (report != NULL)
        c->report = *report;
}

static enum tr_rc do_check(struct store *s, struct checked *ret)
{
    enum tr_rc rc;

    *ret = (struct checked){.w = {.loop = s->loop}};
    rc = wait_end(&ret->w, s->h->ops->check(s->h, on_checked, ret, &ret->w.op, &ret->w.err));
    if (rc != TR_OK)
        print_message("  %s: %s\n", tr_rc_name(rc), tr_err_text(&ret->w.err));
    return rc;
}

/* A test that failed may have left it down, or stopped. */
static int servers_up(void **state)
{
    (void)state;
    node("resume", 0);
    node("start", 0);
    return 0;
}

/* ---- init, check ---- */

static void test_open_refuses(void **state)
{
    static const struct {
        const char *url, *says;
    } rows[] = {
        {"cassandra://h", "keyspace"},
        {"cassandra://h/a-b", "keyspace"},
        {"cassandra://h/1a", "keyspace"},
        {"cassandra://h/k?nothing=1", "nothing"},
        {"cassandra://h/k?replication=0", "replication"},
        {"cassandra://h/k?consistency=one", "consistency"},
        {"cassandra://user:secret@h/k?timeout_ms=5", "timeout_ms"},
    };
    struct loop *loop = NULL;

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct history *h = NULL;
        struct tr_err err = {0};

        assert_int_equal(cassandra_history_open(loop, rows[i].url, &h, &err), TR_INVALID);
        assert_null(h);
        assert_non_null(strstr(err.msg, rows[i].says));
        assert_null(strstr(err.msg, "secret"));
    }
    loop_free(loop);
}

static void test_init_and_check(void **state)
{
    struct store *s = store_at("troupe_init", "?replication=1"), *t = store_at("troupe_nothing", "");
    struct cql *cql = bare_open(NULL, 0);
    struct wait w;
    struct checked c;

    (void)state;
    bare_text(cql, "DROP KEYSPACE IF EXISTS troupe_init");
    assert_int_equal(do_check(t, &c), TR_NOT_FOUND);
    assert_non_null(strstr(c.w.err.msg, "troupe init"));
    assert_int_equal(do_check(s, &c), TR_NOT_FOUND);
    for (int i = 0; i < 2; i++) { /* harmless twice */
        w = (struct wait){.loop = s->loop};
        assert_int_equal(wait_end(&w, s->h->ops->init(s->h, wait_done, &w, &w.op, &w.err)), TR_OK);
        assert_int_equal(do_check(s, &c), TR_OK);
    }
    print_message("  %s\n", c.report.server);
    assert_non_null(strstr(c.report.server, "Cassandra "));
    assert_true(c.report.clock_ms + 5000 > wall_ms() && c.report.clock_ms < wall_ms() + 5000);
    bare_text(cql, "INSERT INTO troupe_init.schema_version (id, version) VALUES (1, 99)");
    assert_int_equal(do_check(s, &c), TR_INVALID);
    assert_non_null(strstr(c.w.err.msg, "newer"));
    w = (struct wait){.loop = s->loop};
    assert_int_equal(wait_end(&w, s->h->ops->init(s->h, wait_done, &w, &w.op, &w.err)), TR_INVALID);
    bare_text(cql, "INSERT INTO troupe_init.schema_version (id, version) VALUES (1, 0)");
    assert_int_equal(do_check(s, &c), TR_NOT_FOUND);
    bare_text(cql, "DROP KEYSPACE IF EXISTS troupe_init");
    cql_close(cql);
    store_free(t);
    store_free(s);
}

/* Without the schema nothing is written, and the error says what to do. */
static void test_no_schema(void **state)
{
    struct store *s = store_at("troupe_nothing", "?timeout_ms=3000");
    const struct history_chat chat = a_chat(an_id(T0), T0);
    struct answer a = {0};

    (void)state;
    assert_int_equal(do_create(s, &chat, NULL, NULL, 0, &a), TR_TRANSIENT);
    assert_non_null(strstr(a.w.err.msg, "troupe init"));
    store_free(s);
}

/* ---- it goes and comes back ---- */

static uint64_t counted(const char *name)
{
    struct buf b = {0};
    const char *at;
    uint64_t n = 0;

    metrics_render(&b);
    at = strstr(buf_str(&b), name);
    if (at != NULL)
        n = strtoull(at + strlen(name), NULL, 10);
    buf_release(&b);
    return n;
}

/* Down: what waits ends with its deadline, nothing written; checks say so at once.  Up again: what waits is done. */
static void test_down_and_up(void **state)
{
    struct store *s = store_at(NULL, "?timeout_ms=1500"), *patient = store_at(NULL, "?timeout_ms=300000");
    struct history_chat chat = a_chat(an_id(T0), T0), other = a_chat(an_id(T0), T0);
    struct history_accept acc;
    static struct answer waiting;
    struct answer a = {0};
    struct checked c;
    uint64_t began;

    (void)state;
    make_chat(patient, &chat);
    make_chat(patient, &other);
    acc = an_accept(&chat, T0 + 1, "client", "words");
    node("kill", 0);
    support_for(s->loop, 1); /* its clock stood still meanwhile */
    began = mono_ns();
    assert_int_equal(do_accept(s, &acc, &a), TR_TRANSIENT);
    print_message("  %s: %s\n", tr_rc_name(a.w.rc), tr_err_text(&a.w.err));
    assert_true(mono_ns() - began > 1200 * 1000000ull && mono_ns() - began < 2500 * 1000000ull);
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_TRANSIENT);
    began = mono_ns();
    assert_int_equal(do_check(s, &c), TR_TRANSIENT);
    assert_true(mono_ns() - began < 5000 * 1000000ull);
    waiting = (struct answer){.w = {.loop = patient->loop}};
    wait_started(&waiting.w, patient->h->ops->chat_get(patient->h, &other.chat, on_chat_answer, &waiting, &waiting.w.op,
                                                       &waiting.w.err));
    support_for(patient->loop, 100);
    node("start", 0);
    began = mono_ns();
    support_count(patient->loop, &waiting.w.calls, 1);
    assert_int_equal(waiting.w.rc, TR_OK);
    print_message("  answered %llu ms after the start returned\n", (unsigned long long)(mono_ns() - began) / 1000000);
    assert_true(mono_ns() - began < 15000 * 1000000ull);
    assert_int_equal(do_accept(patient, &acc, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_DONE); /* the one above was not written, indeed */
    assert_true(counted("troupe_reconnections_total{service=\"history\"} ") >= 1);
    store_free(patient);
    store_free(s);
}

/* A client that never reached a server says so; one that starts before it is there works once it is. */
static void test_no_server(void **state)
{
    struct store *s = calloc(1, sizeof *s);
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct answer a = {0};
    struct checked c;

    (void)state;
    assert_non_null(s);
    s->path = strdup("cassandra://127.0.0.1:9/troupe_test?timeout_ms=1000");
    store_open(s);
    assert_int_equal(do_check(s, &c), TR_TRANSIENT);
    assert_non_null(strstr(c.w.err.msg, "127.0.0.1:9"));
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_TRANSIENT);
    store_free(s);
}

static bool is_down;

/* While an operation is under way. */
static void on_kill(void *ctx)
{
    (void)ctx;
    node("kill", 0);
    is_down = true;
}

static void again_after(struct store *s, size_t *again)
{
    if (++*again > 500)
        fail_msg("issued again 500 times");
    if (is_down)
        node("start", 0);
    is_down = false;
    support_for(s->loop, 1);
}

/* One turn and its reply, issued again until they are done; counts what had to be. */
static struct uuid write_turn(struct store *s, struct history_chat *chat, unsigned n, size_t *again)
{
    struct history_accept acc;
    struct turn_row row;
    struct answer a = {0};
    char client[17];
    enum tr_rc rc;

    snprintf(client, sizeof client, "%u", n);
    acc = an_accept(chat, T0 + 1 + n, client, "words");
    while ((rc = do_accept(s, &acc, &a)) == TR_TRANSIENT || rc == TR_UNCERTAIN)
        again_after(s, again);
    assert_int_equal(rc, TR_OK);
    assert_true(a.accepted.outcome == ACCEPT_DONE || a.accepted.outcome == ACCEPT_KNOWN);
    assert_true(uuid_eq(&a.accepted.turn, &acc.row.turn));
    assert_true(uuid_eq(&a.accepted.head, &acc.row.turn));
    chat->head = a.accepted.head;
    chat->index = a.accepted.index;
    row = a_row(chat, acc.row.turn, PART_FIRST_VARIANT, "reply");
    row.attempt = n + 1;
    while ((rc = do_append(s, &row, 1, &a)) == TR_TRANSIENT || rc == TR_UNCERTAIN)
        again_after(s, again);
    assert_int_equal(rc, TR_OK);
    assert_true(a.mine);
    return acc.row.turn;
}

static void assert_turns(struct store *s, const struct history_chat *chat, const struct uuid *turns, size_t n)
{
    struct answer a = {0};

    while (do_turns(s, &chat->chat, &(struct history_range){0}, &a) == TR_TRANSIENT)
        continue;
    assert_int_equal(a.w.rc, TR_OK);
    assert_int_equal(a.n, 2 + 2 * n);
    for (size_t i = 0; i < n; i++) {
        assert_true(uuid_eq(&a.rows[2 + 2 * i].turn, &turns[i]));
        assert_int_equal(a.rows[2 + 2 * i].part, PART_USER);
        assert_int_equal(a.rows[3 + 2 * i].part, PART_FIRST_VARIANT);
    }
    answer_release(&a);
}

/* kill -9 and a new start while turns are written, again and again: each is there once. */
static void test_restart_under_writes(void **state)
{
    enum { ROUNDS = 3, TURNS = 150 };
    static struct uuid turns[ROUNDS * TURNS];
    struct store *s = store_at(NULL, "?timeout_ms=1500");
    struct history_chat chat = a_chat(an_id(T0), T0);
    size_t again = 0;

    (void)state;
    make_chat(s, &chat);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct loop_timer *timer = NULL;

        assert_int_equal(timer_start(s->loop, 100 + 177 * round, 0, on_kill, NULL, &timer), TR_OK);
        for (unsigned i = 0; i < TURNS; i++)
            turns[round * TURNS + i] = write_turn(s, &chat, round * TURNS + i, &again);
        timer_stop(timer);
        assert_false(is_down); /* it was killed while we wrote */
    }
    assert_turns(s, &chat, turns, ROUNDS * TURNS);
    print_message("  %d turns, issued again %zu times\n", ROUNDS * TURNS, again);
    store_free(s);
}

/* SIGSTOP past the deadline: a write is uncertain, a read is not; issued again they are settled. */
static void test_stall(void **state)
{
    struct store *s = store_at(NULL, "?timeout_ms=1200"), *patient = store_at(NULL, "");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct history_accept acc;
    struct turn_row row;
    struct answer a = {0}, b = {0};
    enum tr_rc rc;

    (void)state;
    make_chat(patient, &chat);
    make_turn(patient, &chat, T0 + 1, "first");
    row = a_row(&chat, chat.head, PART_FIRST_VARIANT + 1, "another");
    while (do_append(s, &row, 1, &a) != TR_OK) /* it is connected, and its statements are prepared */
        continue;
    row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "reply");
    row.attempt = 7;
    acc = an_accept(&chat, T0 + 2, "second", "words");
    node("pause", 0);
    assert_int_equal(do_append(s, &row, 1, &a), TR_UNCERTAIN);
    assert_int_equal(do_accept(s, &acc, &b), TR_UNCERTAIN);
    print_message("  %s: %s\n", tr_rc_name(b.w.rc), tr_err_text(&b.w.err));
    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &b), TR_TRANSIENT);
    node("resume", 0);
    while ((rc = do_append(s, &row, 1, &a)) == TR_TRANSIENT || rc == TR_UNCERTAIN)
        continue;
    assert_int_equal(rc, TR_OK);
    assert_true(a.mine);
    while ((rc = do_accept(s, &acc, &b)) == TR_TRANSIENT || rc == TR_UNCERTAIN)
        continue;
    assert_int_equal(rc, TR_OK);
    assert_true(b.accepted.outcome == ACCEPT_DONE || b.accepted.outcome == ACCEPT_KNOWN);
    assert_true(uuid_eq(&b.accepted.turn, &acc.row.turn));
    row.attempt = 8;
    assert_int_equal(do_append(patient, &row, 1, &a), TR_OK);
    assert_false(a.mine);
    answer_release(&a);
    store_free(patient);
    store_free(s);
}

/* ---- what it costs ---- */

static int by_time(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double median_ms(uint64_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, by_time);
    return (double)ns[n / 2] / 1e6;
}

/* An accept and an append beside a bare conditional insert and a bare read, in turn, one at a time. */
static void test_cost(void **state)
{
    enum { TURNS = 300 };
    static const char *const statements[] = {"INSERT INTO troupe_test.bare (id, v) VALUES (?, ?) IF NOT EXISTS",
                                             "SELECT v FROM troupe_test.bare WHERE id = ?"};
    static uint64_t ns[5][TURNS];
    struct store *s = store_at(NULL, "");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct cql *cql = bare_open(statements, 2);
    struct answer a = {0};
    size_t again = 0;

    (void)state;
    bare_text(cql, "CREATE TABLE IF NOT EXISTS troupe_test.bare (id uuid PRIMARY KEY, v blob)");
    make_chat(s, &chat);
    for (unsigned i = 0; i < 50; i++)
        write_turn(s, &chat, 10000 + i, &again);
    for (unsigned i = 0; i < TURNS; i++) {
        const struct uuid id = an_id(T0);
        const struct cql_value values[] = {{id.b, 16}, {(const uint8_t *)"words", 5}};
        const struct cql_call insert = {0, 2, values}, select = {1, 1, values};
        char client[17];
        struct history_accept acc;
        struct turn_row row;
        uint64_t t[6];

        snprintf(client, sizeof client, "%u", i);
        acc = an_accept(&chat, T0 + 100 + i, client, "words");
        t[0] = mono_ns();
        bare_run(cql, &(struct cql_request){.calls = &insert, .calls_n = 1, .timeout_ms = 10000, .write = true});
        t[1] = mono_ns();
        bare_run(cql, &(struct cql_request){.calls = &select, .calls_n = 1, .timeout_ms = 10000});
        t[2] = mono_ns();
        assert_int_equal(do_accept(s, &acc, &a), TR_OK);
        t[3] = mono_ns();
        chat.head = a.accepted.head;
        chat.index = a.accepted.index;
        row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "reply");
        assert_int_equal(do_append(s, &row, 1, &a), TR_OK);
        t[4] = mono_ns();
        assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
        t[5] = mono_ns();
        for (int k = 0; k < 5; k++)
            ns[k][i] = t[k + 1] - t[k];
    }
    print_message("  median ms: bare LWT insert %.2f, bare read %.2f; accept %.2f, append %.2f, turn_get %.2f\n",
                  median_ms(ns[0], TURNS), median_ms(ns[1], TURNS), median_ms(ns[2], TURNS), median_ms(ns[3], TURNS),
                  median_ms(ns[4], TURNS));
    answer_release(&a);
    cql_close(cql);
    store_free(s);
}

/* The requests that the server has answered. */
static uint64_t requests_answered(struct cql *cql)
{
    return bare_count(cql, "SELECT completed_tasks FROM system_views.thread_pools"
                           " WHERE name = 'Native-Transport-Requests'");
}

/*
 * A turn as a gateway and a worker have it, each with an adapter of its own: the acceptance with what the gateway heard of the reply
 * before, what changed since, the reply.  Three requests, no more: no write on a wrong guess, no read of what came along.
 */
static void test_three_requests_a_turn(void **state)
{
    enum { TURNS = 100 };
    struct store *gateway = store_at(NULL, ""), *worker = store_beside(gateway);
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct cql *cql = bare_open(NULL, 0);
    struct answer a = {0};
    uint64_t before = 0, known = 0, n;

    (void)state;
    make_chat(gateway, &chat);
    for (unsigned i = 0; i < TURNS + 5; i++) {
        char client[17];
        struct history_accept acc;
        struct turn_row row;

        if (i == 5) /* statements are prepared, the chat is known to both */
            before = requests_answered(cql);
        snprintf(client, sizeof client, "%u", i);
        acc = an_accept(&chat, T0 + 100 + i, client, "words");
        acc.change = known;
        assert_int_equal(do_accept(gateway, &acc, &a), TR_OK);
        assert_int_equal(a.accepted.outcome, ACCEPT_DONE);
        chat.head = a.accepted.head;
        chat.index = a.accepted.index;
        assert_int_equal(do_changed(worker, &chat.chat, known, 64, &a), TR_OK);
        assert_true(a.n > 0 && uuid_eq(&a.rows[a.n - 1].turn, &chat.head));
        row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "reply");
        assert_int_equal(do_append(worker, &row, 1, &a), TR_OK);
        known = a.change;
    }
    n = requests_answered(cql) - before;
    print_message("  %llu requests for %d turns\n", (unsigned long long)n, TURNS);
    assert_true(n >= 3 * TURNS && n <= 3 * TURNS + TURNS / 5); /* the clients' own now and then */
    answer_release(&a);
    cql_close(cql);
    store_beside_free(worker);
    store_free(gateway);
}

/* ---- three nodes ---- */

/* One of three is killed under load (each in its turn), and comes back: nothing that was answered is lost. */
static void test_node_of_three(void **state)
{
    enum { TURNS = 240 };
    static struct uuid turns[TURNS];
    struct store *s = store_at(NULL, "");
    struct history_chat chat = a_chat(an_id(T0), T0);
    uint64_t worst = 0;
    size_t again = 0;

    (void)state;
    make_chat(s, &chat);
    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t began;

        if (i % 80 == 20)
            node("kill", 1 + (int)i / 80);
        if (i % 80 == 60)
            node("start", 0);
        began = mono_ns();
        turns[i] = write_turn(s, &chat, i, &again);
        if (mono_ns() - began > worst)
            worst = mono_ns() - began;
    }
    assert_turns(s, &chat, turns, TURNS);
    print_message("  %d turns, issued again %zu times, the longest took %llu ms\n", TURNS, again,
                  (unsigned long long)worst / 1000000);
    store_free(s);
}

/* A node that stalls holds up nothing for longer than it takes to ask another one. */
static void test_node_stalls(void **state)
{
    enum { TURNS = 60 };
    static struct uuid turns[TURNS];
    struct store *s = store_at(NULL, "");
    struct history_chat chat = a_chat(an_id(T0), T0);
    size_t again = 0;

    (void)state;
    make_chat(s, &chat);
    for (unsigned i = 0; i < TURNS; i++) {
        if (i == 20)
            node("pause", 2);
        turns[i] = write_turn(s, &chat, i, &again);
    }
    node("resume", 2);
    assert_turns(s, &chat, turns, TURNS);
    print_message("  issued again %zu times\n", again);
    store_free(s);
}

#define ON_SERVER(t) cmocka_unit_test_setup(t, servers_up)
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_open_refuses), ON_SERVER(test_init_and_check), ON_SERVER(test_no_schema),
    cmocka_unit_test(test_no_server),    ON_SERVER(test_cost),           ON_SERVER(test_three_requests_a_turn),
    ON_SERVER(test_down_and_up),         ON_SERVER(test_stall),          ON_SERVER(test_restart_under_writes),
};
static const struct CMUnitTest tests_of_three[] = {
    ON_SERVER(test_node_of_three),
    ON_SERVER(test_node_stalls),
    ON_SERVER(test_half_commit),
};

int main(void)
{
    int failed = 0;

    cmocka_set_test_filter(getenv("TROUPE_TEST_ONLY")); /* a pattern of names; NULL: all */
    adapter = &one;
    if (support_server(one.server) != NULL) {
        servers_up(NULL);
        store_init();
        failed += cmocka_run_group_tests_name("one node", tests, NULL, NULL);
        failed += _cmocka_run_group_tests("races", cassandra_race_tests, cassandra_race_tests_n, servers_up, NULL);
        failed += _cmocka_run_group_tests("deletions", cassandra_gone_tests, cassandra_gone_tests_n, servers_up, NULL);
    }
    adapter = &three;
    if (support_server(three.server) != NULL) {
        servers_up(NULL);
        store_init();
        failed += cmocka_run_group_tests_name("three nodes", tests_of_three, NULL, NULL);
    }
    return failed != 0;
}
#else
#include <stdlib.h>

int main(void)
{
    /* built without the adapter: wrong where it was to be tested */
    return support_real() && (support_server("TROUPE_TEST_CASSANDRA") != NULL);
}
#endif
