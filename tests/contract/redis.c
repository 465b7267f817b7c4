/*
 * redis - what only a real Redis can do to the registry: FLUSHALL, forgotten scripts, a restart, a stall, cut connections,
 * refusals; and, in redis_full.c, no memory.  Runs where TROUPE_TEST_REDIS is set (tests/servers/redis.sh).
 */
#include "redis_fixture.h"
#include "redis_full.h"

#include "base/url.h"
#include "domain/ratelimit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void server(const char *verb)
{
    support_server_do("redis", "TROUPE_TEST_REDIS_DIR", verb, 0);
}

/* Everything may be lost at any moment: nothing breaks, and each comes back by itself. */
static void all_is_lost(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1}, b = a;
    struct redis_got g;

    (void)state;
    strcpy(b.id, "b");
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(redis_join(&b, &g), TR_OK);
    assert_int_equal(b.number, 2);
    assert_int_equal(redis_conn_put(&g), TR_OK);
    redis_command("FLUSHALL");
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 0);
    assert_int_equal(redis_refresh(&b, &g), TR_NOT_FOUND);
    assert_int_equal(redis_join(&b, &g), TR_OK); /* first, and still with its own number */
    assert_int_equal(b.number, 2);
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    redis_command("SCRIPT FLUSH");
    assert_int_equal(redis_refresh(&a, &g), TR_OK);
    assert_int_equal(redis_conn_put(&g), TR_OK);
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
}

/* A removal that was issued before a put and reaches the server after it: what stands is the put. */
static void a_late_removal(void **state)
{
    struct redis_registry *const r = (struct redis_registry *)redis_reg;
    struct redis_got g;
    char id[UUID_TEXT], line[256];
    double issued;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    issued = r->conn_end;
    assert_true(issued > 0);
    assert_int_equal(redis_conn_put(&g), TR_OK); /* the same gateway has it open again */
    assert_true(r->conn_end > issued);
    uuid_format(&redis_chat, id);
    snprintf(line, sizeof line, "EVALSHA %s 1 redis%d.troupe:conn:%s gateway.1 %.3f", r->sha[RR_NAME_REMOVE],
             (int)getpid(), id, issued);
    redis_command(line);
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
    g = (struct redis_got){.w.loop = redis_loop};
    assert_int_equal(wait_end(&g.w, redis_reg->ops->conn_remove(redis_reg, &redis_chat, "gateway.1", wait_done, &g,
                                                                &g.w.op, &g.w.err)),
                     TR_OK);
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 0);
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

static void many_puts(struct many *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct uuid id = redis_chat;

        id.b[8] = (uint8_t)i;
        id.b[9] = (uint8_t)(i >> 8);
        assert_int_equal(redis_reg->ops->conn_put(redis_reg, &id, "gateway.1", 60000, on_many, m, NULL, NULL), TR_OK);
    }
}

static void is_restarted(void **state)
{
    struct many m = {0};
    struct redis_got g;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    for (size_t round = 1; round <= 3; round++) {
        many_puts(&m, 500);
        server(round == 2 ? "stop" : "kill");
        many_puts(&m, 500);
        server("start");
        support_count(redis_loop, &m.ended, round * 1000);
        for (int i = 0; i < 40 && redis_conn_put(&g) != TR_OK; i++)
            continue;
        assert_int_equal(redis_conn_put(&g), TR_OK);
    }
    assert_int_equal(m.by_rc[TR_OK] + m.by_rc[TR_UNCERTAIN] + m.by_rc[TR_TRANSIENT], 3000);
    print_message("  %zu done, %zu uncertain, %zu never sent\n", m.by_rc[TR_OK], m.by_rc[TR_UNCERTAIN],
                  m.by_rc[TR_TRANSIENT]);
}

static void stalls(void **state)
{
    struct many m = {0};
    struct redis_got g;
    uint64_t start;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    server("pause");
    start = mono_ns();
    many_puts(&m, 1000);
    assert_int_equal(redis_conns(&g), TR_TRANSIENT);
    support_count(redis_loop, &m.ended, 1000);
    assert_int_equal(m.by_rc[TR_UNCERTAIN], 1000);
    assert_true(mono_ns() - start < 4 * 1000000000ull);
    server("resume");
    for (int i = 0; i < 40 && redis_conn_put(&g) != TR_OK; i++)
        continue;
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
}

static void is_cut(void **state)
{
    struct many m = {0};
    struct redis_got g;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    for (size_t round = 1; round <= 20; round++) {
        many_puts(&m, 200);
        support_for(redis_loop, round % 3);
        redis_command("CLIENT KILL TYPE normal SKIPME yes");
        support_count(redis_loop, &m.ended, round * 200);
    }
    for (int i = 0; i < 3 && redis_conn_put(&g) != TR_OK; i++)
        continue; /* the last cut may not be noticed yet */
    assert_int_equal(redis_conn_put(&g), TR_OK);
    assert_int_equal(m.by_rc[TR_OK] + m.by_rc[TR_UNCERTAIN], 4000);
}

static void checks(void **state)
{
    const char *const url = getenv("TROUPE_TEST_REDIS");
    struct redis_got g;
    char other[256];

    (void)state;
    assert_int_equal(redis_check(url, &g), TR_OK);
    assert_non_null(strstr(g.server, "Redis 7"));
    assert_true(llabs((long long)g.clock_ms - (long long)wall_ms()) < 1000);
    snprintf(other, sizeof other, "redis://:wrong-secret@%s", strchr(url, '@') + 1);
    assert_int_equal(redis_check(other, &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "password"));
    assert_null(strstr(g.w.err.msg, "wrong-secret"));
    snprintf(other, sizeof other, "redis://%s", strchr(url, '@') + 1);
    assert_int_equal(redis_check(other, &g), TR_INVALID);
    assert_int_equal(redis_check("redis://127.0.0.1:9/0", &g), TR_TRANSIENT);
    if (strstr(g.w.err.msg, "cannot reach Redis at 127.0.0.1:9") == NULL)
        fail_msg("%s", g.w.err.msg);
    assert_int_equal(redis_check("redis://no-such-host.invalid/0", &g), TR_TRANSIENT);
}

/* A replica refuses: told, and gone when that is over. */
static void refuses(void **state)
{
    struct redis_got g;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    redis_command("REPLICAOF 127.0.0.1 9");
    assert_int_equal(redis_conn_put(&g), TR_TRANSIENT);
    assert_int_equal(redis_check(getenv("TROUPE_TEST_REDIS"), &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "replica"));
    redis_command("REPLICAOF NO ONE");
    assert_int_equal(redis_check(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    assert_int_equal(redis_conn_put(&g), TR_OK);
}

static size_t living(void)
{
    struct redis_got g = {.w.loop = redis_loop};

    assert_int_equal(wait_end(&g.w, redis_reg->ops->workers(redis_reg, "any", redis_on_workers, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    return g.n;
}

/* Records that were written before a fail-over to a server whose clock is behind: whoever lives renews its own, the dead end. */
static void other_clock(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1};
    struct redis_got g;
    char line[512];

    (void)state;
    redis_command("FLUSHALL");
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(living(), 1);
    /* one word a script; the TTL of redis_join() and redis_refresh() is a minute */
    snprintf(line, sizeof line,
             "EVAL redis.call('SET',KEYS[1],(string.gsub(redis.call('GET',KEYS[1]),'^(%%%%d+).(%%%%d+)',"
             "function(s,e)return(s+3600000)..string.char(32)..(e+3600000)end))) 1 redis%d.troupe:worker:any:1",
             (int)getpid());
    redis_command(line);
    assert_int_equal(living(), 0);
    assert_int_equal(redis_refresh(&a, &g), TR_NOT_FOUND); /* it lives: it puts it again */
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    assert_int_equal(living(), 1);
}

/* The set of the numbers alone is evicted: who registers again keeps its own. */
static void set_is_lost(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1};
    struct redis_got g;
    char line[128];

    (void)state;
    redis_command("FLUSHALL");
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    snprintf(line, sizeof line, "DEL redis%d.troupe:workers:any", (int)getpid());
    redis_command(line);
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
}

/* What another version, or somebody's hand, put there. */
static void odd_records(void **state)
{
    char line[512];
    struct redis_got g = {.w.loop = redis_loop};

    (void)state;
    snprintf(line, sizeof line, "SADD redis%d.troupe:workers:odd 1 2 3 4", (int)getpid());
    redis_command(line);
    /* one word a script: hiredis splits a command at its spaces */
    snprintf(
        line, sizeof line,
        "EVAL redis.call('SET','redis%d.troupe:worker:odd:1','17\\nid=x\\nweight=1\\nlater=thing\\n')"
        "redis.call('SET','redis%d.troupe:worker:odd:2','rubbish')redis.call('SET','redis%d.troupe:worker:odd:3','') 0",
        (int)getpid(), (int)getpid(), (int)getpid());
    redis_command(line);
    assert_int_equal(wait_end(&g.w, redis_reg->ops->workers(redis_reg, "odd", redis_on_workers, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    assert_int_equal(g.n, 1);
}

/* Started while nothing is there: done when it comes, within the deadline; else it was never sent. */
static void waits_for_it(void **state)
{
    struct many m = {0};
    struct redis_got g;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK);
    server("kill");
    for (int i = 0; i < 5 && redis_conn_put(&g) != TR_TRANSIENT; i++)
        continue; /* the first may still go into the old connection */
    assert_int_equal(redis_conn_put(&g), TR_TRANSIENT);
    if (strstr(g.w.err.msg, "cannot reach Redis at 127.0.0.1") == NULL)
        fail_msg("%s", g.w.err.msg);
    many_puts(&m, 500);
    server("start");
    support_count(redis_loop, &m.ended, 500);
    assert_int_equal(m.by_rc[TR_OK], 500);
}

/* Keys of the wrong type, put there by somebody's hand: a worker's place is taken back, its neighbours are seen. */
static void wrong_types(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1, .number = 2}, b = a;
    struct redis_got g = {.w.loop = redis_loop};
    char line[256];

    (void)state;
    redis_command("FLUSHALL");
    assert_int_equal(redis_join(&a, &g), TR_OK);
    snprintf(line, sizeof line, "LPUSH redis%d.troupe:worker:any:1 x", (int)getpid());
    redis_command(line);
    snprintf(line, sizeof line, "SADD redis%d.troupe:workers:any 1 junk -3", (int)getpid());
    redis_command(line);
    strcpy(b.id, "b");
    assert_int_equal(redis_join(&b, &g), TR_OK);
    assert_int_equal(b.number, 3); /* 1 is somebody else's key, left alone */
    g = (struct redis_got){.w.loop = redis_loop};
    assert_int_equal(wait_end(&g.w, redis_reg->ops->workers(redis_reg, "any", redis_on_workers, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    assert_int_equal(g.n, 2);
}

/* The script's limit is the very one of domain/ratelimit.h, on the same times. */
static void rate_is_gcra(void **state)
{
    static const uint32_t rates[] = {1, 4, 5, 7, 60, 600, 6000, 100000};
    const char *const clock = strstr(rr_scripts[RR_RATE], "local now=");
    redisContext *c;
    char script[2048];

    (void)state;
    assert_non_null(clock);
    /* its clock by ours */
    snprintf(script, sizeof script, "local now=tonumber(ARGV[3]) %s", strstr(clock, "local interval"));
    c = redis_connect();
    srand(7);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        uint64_t tat = 0, now = UINT64_C(1800000000000000);

        freeReplyObject(redisCommand(c, "DEL gcra"));
        for (int n = 0; n < 300; n++) {
            const uint64_t interval = 60000000 / rates[i], want = ratelimit_take(&tat, rates[i], now);
            redisReply *const got = redisCommand(c, "EVAL %s 1 gcra %llu %u %llu", script, (unsigned long long)interval,
                                                 ratelimit_burst(rates[i]), (unsigned long long)now);

            assert_non_null(got);
            if (got->type != REDIS_REPLY_INTEGER || (uint64_t)got->integer != want)
                fail_msg("%u a minute, step %d: %lld, not %llu (%s)", rates[i], n, got->integer,
                         (unsigned long long)want, got->type == REDIS_REPLY_ERROR ? got->str : "");
            freeReplyObject(got);
            if (n % 50 == 49)
                now -= interval * 100; /* the clock steps back */
            else
                now += (uint64_t)rand() % (interval * 3 / 2 + 1);
        }
    }
    redisFree(c);
}

/* The same script by Redis' own benchmark, one connection, as many in flight; 0: it is not there. */
static double benchmark_rate(void)
{
    struct url u = {0};
    char line[4096];
    double rate = 0;
    FILE *out;

    assert_int_equal(url_parse(getenv("TROUPE_TEST_REDIS"), 6379, &u, NULL), TR_OK);
    snprintf(line, sizeof line,
             "redis-benchmark -a %s -p %u -c 1 -P 500 -n 100000 --csv -r 20000 evalsha %s 1 bench:__rand_int__ "
             "gateway.1 60000 2>/dev/null",
             u.password, (unsigned)u.host[0].port, ((struct redis_registry *)redis_reg)->sha[RR_NAME_PUT]);
    out = popen(line, "r");
    assert_non_null(out);
    while (fgets(line, sizeof line, out) != NULL) { /* "evalsha …","12345.67",… */
        const char *const comma = strstr(line, "\",\"");

        if (comma != NULL && strtod(comma + 3, NULL) > 0)
            rate = strtod(comma + 3, NULL);
    }
    pclose(out);
    url_release(&u);
    return rate;
}

struct flood {
    size_t left, ended, failed;
};

static void on_flood(void *ctx, enum tr_rc rc, const struct tr_err *err);

static void flood_one(struct flood *f)
{
    struct uuid id = redis_chat;

    f->left--;
    id.b[8] = (uint8_t)f->left;
    id.b[9] = (uint8_t)(f->left >> 8);
    assert_int_equal(redis_reg->ops->conn_put(redis_reg, &id, "gateway.1", 60000, on_flood, f, NULL, NULL), TR_OK);
}

static void on_flood(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct flood *f = ctx;

    (void)err;
    f->ended++;
    f->failed += rc != TR_OK;
    if (f->left > 0)
        flood_one(f);
}

static void speed(void **state)
{
    const size_t n = 50000;
    struct flood f = {.left = n};
    struct redis_got g;
    uint64_t start;
    double ours, theirs;

    (void)state;
    assert_int_equal(redis_conn_put(&g), TR_OK); /* connected */
    theirs = benchmark_rate();
    support_for(redis_loop, 1); /* the loop's clock stood still meanwhile */
    start = mono_ns();
    for (int i = 0; i < 500; i++)
        flood_one(&f);
    support_count(redis_loop, &f.ended, n);
    ours = (double)n * 1e9 / (double)(mono_ns() - start);
    assert_int_equal(f.failed, 0);
    print_message("  %.0f scripted writes a second, 500 in flight; redis-benchmark with the same script: %.0f\n", ours,
                  theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(checks, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(all_is_lost, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(wrong_types, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(a_late_removal, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(rate_is_gcra, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(odd_records, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(refuses, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(redis_full_serves, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(redis_full_evicts, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(redis_full_ended_go, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(other_clock, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(set_is_lost, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(is_cut, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(stalls, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(is_restarted, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(waits_for_it, redis_set_up, redis_tear_down),
        cmocka_unit_test_setup_teardown(speed, redis_set_up, redis_tear_down),
    };

    if (support_server("TROUPE_TEST_REDIS") == NULL)
        return 77; /* Meson: skipped */
    return cmocka_run_group_tests_name("Redis", tests, NULL, NULL);
}
