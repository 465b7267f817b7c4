/*
 * postgres - what only a real PostgreSQL can do to the catalogue: lag, a kill, a promotion, a stall, cut connections,
 * schemas of other versions.  Runs where TROUPE_TEST_PG is set, with a primary and a replica (tests/servers/postgres.sh).
 * The promotion comes late: the primary is another one after it; and then what two primaries at once do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/postgres/catalogue.h"
#include "postgres_fixture.h"
#include "postgres_timeline.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct loop *loop;
static struct catalogue *cat;
static char url[512];

static int set_up(void **state)
{
    struct tr_err err = {0};

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    postgres_database("rough", url, sizeof url);
    if (postgres_open_ready(loop, url, &cat, &err) != TR_OK)
        fail_msg("%s", err.msg);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cat->ops->close(cat);
    loop_drain(loop);
    loop_free(loop);
    return 0;
}

static void server(const char *verb, int node)
{
    support_server_do("postgres", "TROUPE_TEST_PG_DIR", verb, node);
}

struct got {
    struct wait w; /* first */
    char name[64], server[160];
    uint64_t clock_ms;
};

static void on_character(void *ctx, enum tr_rc rc, const struct catalogue_character *c, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    if (c != NULL)
        snprintf(g->name, sizeof g->name, "%s", c->name);
}

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    if (report != NULL) {
        memcpy(g->server, report->server, sizeof g->server);
        g->clock_ms = report->clock_ms;
    }
}

static enum tr_rc put(const char *name, struct got *g)
{
    struct catalogue_character ch = {.id = "ada", .name = name, .card = {(const uint8_t *)"{}", 2}};

    *g = (struct got){.w.loop = loop};
    return wait_end(&g->w, cat->ops->character_put(cat, &ch, true, wait_done, g, &g->w.op, &g->w.err));
}

static enum tr_rc get(struct got *g)
{
    *g = (struct got){.w.loop = loop};
    return wait_end(&g->w, cat->ops->character_get(cat, "ada", on_character, g, &g->w.op, &g->w.err));
}

static enum tr_rc check_url(const char *text, struct got *g)
{
    struct catalogue *other = NULL;
    enum tr_rc rc;

    assert_int_equal(postgres_catalogue_open(loop, text, &other, NULL), TR_OK);
    *g = (struct got){.w.loop = loop};
    rc = wait_end(&g->w, other->ops->check(other, on_checked, g, &g->w.op, &g->w.err));
    other->ops->close(other);
    return rc;
}

static void checks(void **state)
{
    const char *const hosts = strchr(url, '@') + 1;
    struct got g;
    char other[512];

    (void)state;
    assert_int_equal(check_url(url, &g), TR_OK);
    assert_non_null(strstr(g.server, "PostgreSQL 1"));
    assert_true(llabs((long long)g.clock_ms - (long long)wall_ms()) < 1500);
    snprintf(other, sizeof other, "postgresql://troupe:wrong-secret@%s", hosts);
    assert_int_equal(check_url(other, &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "password"));
    assert_null(strstr(g.w.err.msg, "wrong-secret"));
    assert_int_equal(check_url("postgresql://troupe:x@127.0.0.1:9/troupe", &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "cannot reach PostgreSQL at 127.0.0.1:9"));
    postgres_database("empty", other, sizeof other);
    assert_int_equal(check_url(other, &g), TR_NOT_FOUND);
    assert_non_null(strstr(g.w.err.msg, "troupe init"));
    (void)postgres_sql(1, "rough", "INSERT INTO schema_version VALUES (99)");
    assert_int_equal(check_url(url, &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "newer"));
    {
        struct catalogue *newer = NULL;
        struct wait w = {.loop = loop};

        assert_int_equal(postgres_catalogue_open(loop, url, &newer, NULL), TR_OK);
        assert_int_equal(wait_end(&w, newer->ops->init(newer, wait_done, &w, &w.op, &w.err)), TR_INVALID);
        assert_non_null(strstr(w.err.msg, "newer"));
        newer->ops->close(newer);
    }
    (void)postgres_sql(1, "rough", "DELETE FROM schema_version WHERE version = 99");
    assert_int_equal(check_url(url, &g), TR_OK);
}

/* Two at once, and once more: the schema is made once. */
static void made_by_two(void **state)
{
    struct catalogue *c[2] = {NULL};
    struct wait w[3] = {{.loop = loop}, {.loop = loop}, {.loop = loop}};
    char other[512];

    (void)state;
    postgres_database("two", other, sizeof other);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(postgres_catalogue_open(loop, other, &c[i], NULL), TR_OK);
        wait_started(&w[i], c[i]->ops->init(c[i], wait_done, &w[i], &w[i].op, &w[i].err));
    }
    for (int i = 0; i < 2; i++) {
        support_count(loop, &w[i].calls, 1);
        assert_int_equal(w[i].rc, TR_OK);
    }
    assert_int_equal(wait_end(&w[2], c[0]->ops->init(c[0], wait_done, &w[2], &w[2].op, &w[2].err)), TR_OK);
    assert_string_equal(postgres_sql(1, "two", "SELECT count(*) FROM schema_version"), "1");
    c[0]->ops->close(c[0]);
    c[1]->ops->close(c[1]);
}

/* A replica that does not replay: what this process wrote is read all the same. */
static void lags(void **state)
{
    struct got g;

    (void)state;
    assert_int_equal(put("before", &g), TR_OK);
    (void)postgres_sql(2, "rough", "SELECT pg_wal_replay_pause()");
    assert_int_equal(put("after", &g), TR_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get(&g), TR_OK);
        assert_string_equal(g.name, "after");
    }
    (void)postgres_sql(2, "rough", "SELECT pg_wal_replay_resume()");
}

/* Reads go to the replica: they work while there is no primary. */
static void primary_is_away(void **state)
{
    struct got g;
    uint64_t start;

    (void)state;
    assert_int_equal(put("there", &g), TR_OK);
    for (int i = 0;
         i < 100 && strcmp(postgres_sql(2, "rough", "SELECT name FROM characters WHERE id = 'ada'"), "there");)
        support_for(loop, 20), i++;
    server("kill", 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get(&g), TR_OK);
        assert_string_equal(g.name, "there");
    }
    server("start", 0);
    start = mono_ns();
    while (put("back", &g) != TR_OK)
        assert_true(mono_ns() - start < 15 * 1000000000ull);
    print_message("  writes %.2f s after the primary was back\n", (double)(mono_ns() - start) / 1e9);
    assert_int_equal(get(&g), TR_OK);
    assert_string_equal(g.name, "back");
}

struct many {
    size_t ended, by_rc[TR_RC_COUNT];
};

static void on_many(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct many *m = ctx;

    (void)err;
    m->ended++;
    m->by_rc[rc]++;
}

static void many_users(struct many *m, size_t n)
{
    static uint64_t ms = 1760000000000;

    for (size_t i = 0; i < n; i++) {
        const uint8_t random[10] = {(uint8_t)i};
        const struct uuid id = uuid_v7(ms++, random);

        assert_int_equal(cat->ops->user_put(cat, &id, ms, on_many, m, NULL, NULL), TR_OK);
    }
}

static void connections_are_cut(void **state)
{
    struct many m = {0};

    (void)state;
    for (size_t round = 1; round <= 10; round++) {
        many_users(&m, 200);
        support_for(loop, round % 4);
        (void)postgres_sql(
            1, "rough",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'troupe'");
        support_count(loop, &m.ended, round * 200);
    }
    assert_int_equal(m.by_rc[TR_OK] + m.by_rc[TR_UNCERTAIN], 2000);
    print_message("  %zu done, %zu uncertain\n", m.by_rc[TR_OK], m.by_rc[TR_UNCERTAIN]);
    assert_true(strtoull(postgres_sql(1, "rough", "SELECT count(*) FROM users"), NULL, 10) >= m.by_rc[TR_OK]);
}

static void many_in_flight(void **state)
{
    struct many m = {0};
    const uint64_t start = mono_ns();

    (void)state;
    many_users(&m, 1000);
    support_count(loop, &m.ended, 1000);
    assert_int_equal(m.by_rc[TR_OK], 1000);
    print_message("  1,000 writes in flight: %.0f a second\n", 1e12 / (double)(mono_ns() - start));
}

static void stalls(void **state)
{
    struct got g;
    const uint64_t start = mono_ns();

    (void)state;
    assert_int_equal(put("one", &g), TR_OK);
    server("pause", 1);
    assert_int_equal(put("two", &g), TR_UNCERTAIN);
    assert_true(mono_ns() - start < 15 * 1000000000ull);
    server("resume", 1);
    for (int i = 0; i < 20 && put("three", &g) != TR_OK; i++)
        continue;
    assert_int_equal(get(&g), TR_OK);
    assert_string_equal(g.name, "three");
}

/* The primary dies, the replica takes its place: nothing that was answered is lost, and writes go on by themselves. */
static void promotion(void **state)
{
    char sql[80] = "";
    struct many m = {0};
    struct got g;
    uint64_t start;
    size_t before;

    (void)state;
    many_users(&m, 500);
    support_count(loop, &m.ended, 500);
    assert_int_equal(m.by_rc[TR_OK], 500);
    before = strtoul(postgres_sql(1, "rough", "SELECT count(*) FROM users"), NULL, 10);
    for (int i = 0; i < 200 && strtoul(postgres_sql(2, "rough", "SELECT count(*) FROM users"), NULL, 10) < before; i++)
        support_for(loop, 20); /* an asynchronous replica: what it has not got would be lost with the primary */
    server("kill", 1);
    server("promote", 2);
    start = mono_ns();
    for (int i = 0; i < 20 && put("promoted", &g) != TR_OK; i++)
        continue;
    print_message("  writes %.2f s after the promotion\n", (double)(mono_ns() - start) / 1e9);
    assert_true(mono_ns() - start < 5 * 1000000000ull);
    assert_int_equal(get(&g), TR_OK);
    assert_string_equal(g.name, "promoted");
    snprintf(sql, sizeof sql, "SELECT count(*) FROM users");
    assert_true(strtoul(postgres_sql(2, "rough", sql), NULL, 10) >= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(checks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(made_by_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lags, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_in_flight, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connections_are_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stalls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(primary_is_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(promotion, set_up, tear_down),
        cmocka_unit_test(timeline_old_one_comes_back),
        cmocka_unit_test(timeline_old_one_answers_first),
        cmocka_unit_test(timeline_only_the_old_one),
        cmocka_unit_test(timeline_replica_of_the_old_one),
        cmocka_unit_test(timeline_promoted_beside),
        cmocka_unit_test(timeline_answered_by_the_old_one),
        cmocka_unit_test(timeline_twins),
        cmocka_unit_test(timeline_foreign),
    };

    if (support_server("TROUPE_TEST_PG") == NULL)
        return 77; /* Meson: skipped */
    return cmocka_run_group_tests_name("PostgreSQL", tests, NULL, NULL);
}
