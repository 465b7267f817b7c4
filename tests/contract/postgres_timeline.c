/* postgres_timeline - see the header.  Which node is what is told at the head of each test. */
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
#include <sys/stat.h>

#define DATABASE "timeline"
#define SECOND_NS UINT64_C(1000000000)

/* A process: a loop with a catalogue on these nodes. */
struct process {
    struct loop *loop;
    struct catalogue *cat;
};

struct got {
    struct wait w; /* first */
    char name[64], warning[256];
};

static void server(const char *verb, int node)
{
    support_server_do("postgres", "TROUPE_TEST_PG_DIR", verb, node);
}

static void follow(int node, int of)
{
    char verb[1024];

    snprintf(verb, sizeof verb, "'%s/postgres.sh' follow '%s' %d %d </dev/null >/dev/null",
             getenv("TROUPE_TEST_SERVERS"), getenv("TROUPE_TEST_PG_DIR"), node, of);
    assert_int_equal(system(verb), 0);
}

static struct process process_on(const char *url)
{
    struct process p = {0};

    assert_int_equal(loop_new(&p.loop, NULL), TR_OK);
    assert_int_equal(postgres_catalogue_open(p.loop, url, &p.cat, NULL), TR_OK);
    return p;
}

static struct process process_new(const char *nodes)
{
    char url[512];

    postgres_url(nodes, DATABASE, url, sizeof url);
    return process_on(url);
}

static void process_end(struct process *p)
{
    p->cat->ops->close(p->cat);
    loop_drain(p->loop);
    loop_free(p->loop);
}

static enum tr_rc put_start(struct process *p, const char *name, struct got *g)
{
    struct catalogue_character ch = {.id = "ada", .name = name, .card = {(const uint8_t *)"{}", 2}};

    *g = (struct got){.w.loop = p->loop};
    return p->cat->ops->character_put(p->cat, &ch, true, wait_done, g, &g->w.op, &g->w.err);
}

static enum tr_rc put(struct process *p, const char *name, struct got *g)
{
    return wait_end(&g->w, put_start(p, name, g));
}

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
    if (report != NULL)
        snprintf(g->warning, sizeof g->warning, "%s", report->warning);
}

static enum tr_rc check(struct process *p, struct got *g)
{
    *g = (struct got){.w.loop = p->loop};
    return wait_end(&g->w, p->cat->ops->check(p->cat, on_checked, g, &g->w.op, &g->w.err));
}

/* Until the process has heard of what it warns of. */
static void await_warning(struct process *p, const char *words)
{
    const uint64_t end = mono_ns() + 15 * SECOND_NS;
    struct got g;

    while (check(p, &g) != TR_OK || strstr(g.warning, words) == NULL) {
        if (mono_ns() > end)
            fail_msg("no '%s' but '%s' %s", words, g.warning, g.w.err.msg);
        support_for(p->loop, 50);
    }
}

static const char *name_on(int node)
{
    return postgres_sql(node, DATABASE, "SELECT name FROM characters WHERE id = 'ada'");
}

/* For a while: all that is written is on `right`, none of it on `wrong`, and read as written. */
static void writes_go_to(struct process *p, int right, int wrong, const char *what)
{
    char before[64], name[64];
    struct got g;

    snprintf(before, sizeof before, "%s", name_on(wrong));
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "%s %d", what, i);
        if (put(p, name, &g) != TR_OK)
            fail_msg("%s: %s", name, g.w.err.msg);
        assert_string_equal(name_on(right), name);
        assert_string_equal(name_on(wrong), before);
        g = (struct got){.w.loop = p->loop};
        assert_int_equal(wait_end(&g.w, p->cat->ops->character_get(p->cat, "ada", on_character, &g, &g.w.op, &g.w.err)),
                         TR_OK);
        assert_string_equal(g.name, name);
        support_for(p->loop, 50);
    }
}

static void schema_on(int node)
{
    struct process p = process_new((const char[]){(char)('0' + node), '\0'});
    struct got g = {.w.loop = p.loop};

    assert_int_equal(wait_end(&g.w, p.cat->ops->init(p.cat, wait_done, &g, &g.w.op, &g.w.err)), TR_OK);
    assert_int_equal(put(&p, "first", &g), TR_OK);
    process_end(&p);
}

/* 1 died as the primary and 2 was promoted; 1 comes back, and takes writes again, under a process that knows 2. */
void timeline_old_one_comes_back(void **state)
{
    struct process p;
    struct got g;

    (void)state;
    server("start", 0);
    postgres_sql(2, "troupe", "CREATE DATABASE " DATABASE);
    postgres_sql(1, "troupe", "CREATE DATABASE " DATABASE); /* each its own: what is written to 1 is lost */
    for (int node = 1; node <= 2; node++)
        schema_on(node);
    server("kill", 1);
    p = process_new("12");
    assert_int_equal(put(&p, "while 1 is dead", &g), TR_OK);
    server("start", 0);
    writes_go_to(&p, 2, 1, "1 is back");
    await_warning(&p, "is an old primary that came back (timeline 1, newest 2) and is not used");
    process_end(&p);
    assert_non_null(
        strstr(postgres_sql(1, DATABASE, "SELECT value FROM settings WHERE key = 'postgres_newest_timeline'"), "/2"));
    assert_string_equal(
        postgres_sql(2, DATABASE, "SELECT count(*) FROM settings WHERE key = 'postgres_newest_timeline'"), "0");
}

/* 1 old, 2 right: a process that starts is answered by the old one while the right one stalls. */
void timeline_old_one_answers_first(void **state)
{
    struct process p;
    struct got g;

    (void)state;
    postgres_sql(1, DATABASE, "DELETE FROM settings");
    server("pause", 2);
    p = process_new("12");
    wait_started(&g.w, put_start(&p, "which of both?", &g));
    support_for(p.loop, 700);
    assert_int_equal(g.w.calls, 0);
    server("resume", 2);
    support_count(p.loop, &g.w.calls, 1);
    assert_int_equal(g.w.rc, TR_OK);
    assert_string_equal(name_on(2), "which of both?");
    writes_go_to(&p, 2, 1, "the right one was late");
    process_end(&p);
}

/* 1 old, 2 right: a process that reaches 1 alone reads there that it is old, and says so. */
void timeline_only_the_old_one(void **state)
{
    struct process p = process_new("1");
    struct got g;

    (void)state;
    assert_int_equal(check(&p, &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "an old primary that came back"));
    assert_int_equal(put(&p, "lost", &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "an old primary that came back"));
    assert_string_not_equal(name_on(1), "lost");
    process_end(&p);
}

/* 1 old, 2 right, 3 a replica of 1: nothing is read from 3. */
void timeline_replica_of_the_old_one(void **state)
{
    struct process p;
    struct got g;

    (void)state;
    follow(3, 1);
    p = process_new("321");
    writes_go_to(&p, 2, 3, "3 follows 1");
    process_end(&p);
    server("kill", 1);
    p = process_new("32");
    writes_go_to(&p, 2, 3, "3 has nobody");
    await_warning(&p, "is a replica of an old primary");
    process_end(&p);
    p = process_new("3");
    g = (struct got){.w.loop = p.loop};
    assert_int_equal(check(&p, &g), TR_TRANSIENT);
    process_end(&p);
    server("kill", 3);
}

/* 2 the primary, 1 made its replica anew: 1 is promoted beside 2, which goes on; the process is connected to both. */
void timeline_promoted_beside(void **state)
{
    struct process p;
    struct got g;
    uint64_t start;
    int n = 0;

    (void)state;
    follow(1, 2);
    p = process_new("21");
    assert_int_equal(put(&p, "before", &g), TR_OK);
    server("promote", 1);
    start = mono_ns();
    do {
        char name[32];

        snprintf(name, sizeof name, "beside %d", n++);
        (void)put(&p, name, &g);
        snprintf(g.name, sizeof g.name, "%s", name);
    } while (strcmp(name_on(1), g.name) != 0 && mono_ns() - start < 10 * SECOND_NS);
    print_message("  writes at the promoted one after %.2f s\n", (double)(mono_ns() - start) / 1e9);
    assert_true(mono_ns() - start < 5 * SECOND_NS);
    writes_go_to(&p, 1, 2, "beside");
    process_end(&p);
}

/* 1 the primary, 2 made its replica anew and promoted beside it, while a write waits at 1: it is done at 2. */
void timeline_answered_by_the_old_one(void **state)
{
    struct process p;
    struct got g;
    PGconn *holder;

    (void)state;
    follow(2, 1);
    p = process_new("12");
    assert_int_equal(put(&p, "before", &g), TR_OK);
    holder = postgres_connect(1, DATABASE);
    PQclear(PQexec(holder, "BEGIN"));
    PQclear(PQexec(holder, "LOCK TABLE characters IN EXCLUSIVE MODE"));
    wait_started(&g.w, put_start(&p, "held", &g));
    support_for(p.loop, 50);
    server("promote", 2);
    support_for(p.loop,
                2500); /* the probe of 2, which tells its timeline: 1 has the write in flight and is asked nothing */
    assert_int_equal(g.w.calls, 0);
    PQclear(PQexec(holder, "COMMIT"));
    PQfinish(holder);
    support_count(p.loop, &g.w.calls, 1);
    assert_int_equal(g.w.rc, TR_OK);
    assert_string_equal(name_on(2), "held");
    process_end(&p);
}

/* 2 the primary dies; 1 and 3, both its replicas, are promoted: nothing tells which is right, until one is stopped. */
void timeline_twins(void **state)
{
    struct process p;
    struct got g;

    (void)state;
    follow(1, 2);
    follow(3, 2);
    server("kill", 2);
    server("promote", 1);
    server("promote", 3);
    p = process_new("123");
    assert_int_equal(check(&p, &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "take writes on the same timeline"));
    assert_int_equal(put(&p, "to whom?", &g), TR_TRANSIENT);
    assert_string_not_equal(name_on(1), "to whom?");
    assert_string_not_equal(name_on(3), "to whom?");
    server("kill", 3);
    assert_int_equal(put(&p, "1 is left", &g), TR_OK);
    assert_string_equal(name_on(1), "1 is left");
    process_end(&p);
    /* one server by two names is no twin */
    p = process_new("11");
    assert_int_equal(check(&p, &g), TR_OK);
    assert_string_equal(g.warning, "");
    assert_int_equal(put(&p, "by two names", &g), TR_OK);
    process_end(&p);
}

/* 1 the primary; another database system in the URL, with a higher timeline or not, is none of ours. */
void timeline_foreign(void **state)
{
    char *const folder = support_path("foreign");
    char *const ours = strdup(getenv("TROUPE_TEST_PG_DIR"));
    char url[512], foreign[512], whole[512];
    struct process p;
    struct got g;

    (void)state;
    postgres_url("1", DATABASE, url, sizeof url);
    assert_int_equal(chmod(support_folder(), 0755), 0); /* PostgreSQL's user goes through it */
    setenv("TROUPE_TEST_PG_DIR", folder, 1);
    server("start", 1);
    postgres_url("1", "troupe", foreign, sizeof foreign);
    setenv("TROUPE_TEST_PG_DIR", ours, 1);
    snprintf(whole, sizeof whole, "%.*s,%.*s/" DATABASE, (int)(strrchr(url, '/') - url), url,
             (int)(strrchr(foreign, '/') - strchr(foreign, '@') - 1), strchr(foreign, '@') + 1);
    setenv("TROUPE_TEST_PG_DIR", folder, 1);
    postgres_sql(1, "troupe", "CREATE DATABASE " DATABASE);
    schema_on(1);
    p = process_on(whole);
    for (int i = 0; i < 30; i++)
        assert_int_equal(put(&p, "ours", &g), TR_OK);
    assert_string_equal(postgres_sql(1, DATABASE, "SELECT count(*) FROM characters WHERE name = 'ours'"), "0");
    await_warning(&p, "is another database system");
    process_end(&p);
    server("kill", 0);
    setenv("TROUPE_TEST_PG_DIR", ours, 1);
    assert_string_equal(name_on(1), "ours");
    snprintf(whole, sizeof whole, "rm -rf '%s'", folder);
    assert_int_equal(system(whole), 0);
    free(ours);
    free(folder);
}
