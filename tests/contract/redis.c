/*
 * redis - what only a real Redis can do to the registry: FLUSHALL, forgotten scripts, a restart, a stall, cut connections,
 * refusals.  Runs where TROUPE_TEST_REDIS is set (tests/servers/redis.sh).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/redis/impl.h"
#include "base/url.h"
#include "domain/ratelimit.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct loop *loop;
static struct registry *reg;

static int set_up(void **state)
{
    char url[512];

    (void)state;
    snprintf(url, sizeof url, "%s?prefix=redis%d.", getenv("TROUPE_TEST_REDIS"), (int)getpid());
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    assert_int_equal(redis_registry_open(loop, url, &reg, NULL), TR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    reg->ops->close(reg);
    loop_drain(loop);
    loop_free(loop);
    return 0;
}

static void server(const char *verb)
{
    support_server_do("redis", "TROUPE_TEST_REDIS_DIR", verb, 0);
}

/* A command past the adapter. */
static void command(const char *text)
{
    struct url u = {0};
    redisContext *c;
    redisReply *reply;

    assert_int_equal(url_parse(getenv("TROUPE_TEST_REDIS"), 6379, &u, NULL), TR_OK);
    c = redisConnect(u.host[0].name, u.host[0].port);
    assert_true(c != NULL && c->err == 0);
    freeReplyObject(redisCommand(c, "AUTH %s", u.password));
    reply = redisCommand(c, text);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", text, reply->str);
    freeReplyObject(reply);
    redisFree(c);
    url_release(&u);
}

struct got {
    struct wait w; /* first */
    uint64_t number;
    size_t n;
    uint64_t age_ms;
    char server[160], note[256];
    uint64_t clock_ms;
};

static void on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->number = number;
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    (void)names;
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->n = n;
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->n = n;
    ((struct got *)ctx)->age_ms = n > 0 ? list[0].age_ms : 0;
}

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    if (report != NULL) {
        memcpy(g->server, report->server, sizeof g->server);
        g->clock_ms = report->clock_ms;
        memcpy(g->note, report->warning, sizeof g->note);
    }
}

static const struct uuid chat = {{0x01, 0x90, 7}};

static enum tr_rc conn_put(struct got *g)
{
    *g = (struct got){.w.loop = loop};
    return wait_end(&g->w, reg->ops->conn_put(reg, &chat, "gateway.1", 60000, wait_done, g, &g->w.op, &g->w.err));
}

static enum tr_rc conns(struct got *g)
{
    *g = (struct got){.w.loop = loop};
    return wait_end(&g->w, reg->ops->conns(reg, &chat, on_names, g, &g->w.op, &g->w.err));
}

static enum tr_rc join(struct registry_worker *w, struct got *g)
{
    enum tr_rc rc;

    *g = (struct got){.w.loop = loop};
    rc = wait_end(&g->w, reg->ops->worker_register(reg, w, 60000, on_number, g, &g->w.op, &g->w.err));
    w->number = (uint32_t)g->number;
    return rc;
}

static enum tr_rc refresh(const struct registry_worker *w, struct got *g)
{
    *g = (struct got){.w.loop = loop};
    return wait_end(&g->w, reg->ops->worker_refresh(reg, w, 60000, wait_done, g, &g->w.op, &g->w.err));
}

/* Everything may be lost at any moment: nothing breaks, and each comes back by itself. */
static void all_is_lost(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1}, b = a;
    struct got g;

    (void)state;
    strcpy(b.id, "b");
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(join(&b, &g), TR_OK);
    assert_int_equal(b.number, 2);
    assert_int_equal(conn_put(&g), TR_OK);
    command("FLUSHALL");
    assert_int_equal(conns(&g), TR_OK);
    assert_int_equal(g.n, 0);
    assert_int_equal(refresh(&b, &g), TR_NOT_FOUND);
    assert_int_equal(join(&b, &g), TR_OK); /* first, and still with its own number */
    assert_int_equal(b.number, 2);
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    command("SCRIPT FLUSH");
    assert_int_equal(refresh(&a, &g), TR_OK);
    assert_int_equal(conn_put(&g), TR_OK);
    assert_int_equal(conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
}

/* A removal that was issued before a put and reaches the server after it: what stands is the put. */
static void a_late_removal(void **state)
{
    struct redis_registry *const r = (struct redis_registry *)reg;
    struct got g;
    char id[UUID_TEXT], line[256];
    double issued;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    issued = r->conn_end;
    assert_true(issued > 0);
    assert_int_equal(conn_put(&g), TR_OK); /* the same gateway has it open again */
    assert_true(r->conn_end > issued);
    uuid_format(&chat, id);
    snprintf(line, sizeof line, "EVALSHA %s 1 redis%d.troupe:conn:%s gateway.1 %.3f", r->sha[RR_NAME_REMOVE],
             (int)getpid(), id, issued);
    command(line);
    assert_int_equal(conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
    g = (struct got){.w.loop = loop};
    assert_int_equal(wait_end(&g.w, reg->ops->conn_remove(reg, &chat, "gateway.1", wait_done, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    assert_int_equal(conns(&g), TR_OK);
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
        struct uuid id = chat;

        id.b[8] = (uint8_t)i;
        id.b[9] = (uint8_t)(i >> 8);
        assert_int_equal(reg->ops->conn_put(reg, &id, "gateway.1", 60000, on_many, m, NULL, NULL), TR_OK);
    }
}

static void is_restarted(void **state)
{
    struct many m = {0};
    struct got g;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    for (size_t round = 1; round <= 3; round++) {
        many_puts(&m, 500);
        server(round == 2 ? "stop" : "kill");
        many_puts(&m, 500);
        server("start");
        support_count(loop, &m.ended, round * 1000);
        for (int i = 0; i < 40 && conn_put(&g) != TR_OK; i++)
            continue;
        assert_int_equal(conn_put(&g), TR_OK);
    }
    assert_int_equal(m.by_rc[TR_OK] + m.by_rc[TR_UNCERTAIN] + m.by_rc[TR_TRANSIENT], 3000);
    print_message("  %zu done, %zu uncertain, %zu never sent\n", m.by_rc[TR_OK], m.by_rc[TR_UNCERTAIN],
                  m.by_rc[TR_TRANSIENT]);
}

static void stalls(void **state)
{
    struct many m = {0};
    struct got g;
    uint64_t start;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    server("pause");
    start = mono_ns();
    many_puts(&m, 1000);
    assert_int_equal(conns(&g), TR_TRANSIENT);
    support_count(loop, &m.ended, 1000);
    assert_int_equal(m.by_rc[TR_UNCERTAIN], 1000);
    assert_true(mono_ns() - start < 4 * 1000000000ull);
    server("resume");
    for (int i = 0; i < 40 && conn_put(&g) != TR_OK; i++)
        continue;
    assert_int_equal(conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
}

static void is_cut(void **state)
{
    struct many m = {0};
    struct got g;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    for (size_t round = 1; round <= 20; round++) {
        many_puts(&m, 200);
        support_for(loop, round % 3);
        command("CLIENT KILL TYPE normal SKIPME yes");
        support_count(loop, &m.ended, round * 200);
    }
    for (int i = 0; i < 3 && conn_put(&g) != TR_OK; i++)
        continue; /* the last cut may not be noticed yet */
    assert_int_equal(conn_put(&g), TR_OK);
    assert_int_equal(m.by_rc[TR_OK] + m.by_rc[TR_UNCERTAIN], 4000);
}

static enum tr_rc check_url(const char *url, struct got *g)
{
    struct registry *other = NULL;
    enum tr_rc rc;

    assert_int_equal(redis_registry_open(loop, url, &other, NULL), TR_OK);
    *g = (struct got){.w.loop = loop};
    rc = wait_end(&g->w, other->ops->check(other, on_checked, g, &g->w.op, &g->w.err));
    other->ops->close(other);
    return rc;
}

static void checks(void **state)
{
    const char *const url = getenv("TROUPE_TEST_REDIS");
    struct got g;
    char other[256];

    (void)state;
    assert_int_equal(check_url(url, &g), TR_OK);
    assert_non_null(strstr(g.server, "Redis 7"));
    assert_true(llabs((long long)g.clock_ms - (long long)wall_ms()) < 1000);
    snprintf(other, sizeof other, "redis://:wrong-secret@%s", strchr(url, '@') + 1);
    assert_int_equal(check_url(other, &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "password"));
    assert_null(strstr(g.w.err.msg, "wrong-secret"));
    snprintf(other, sizeof other, "redis://%s", strchr(url, '@') + 1);
    assert_int_equal(check_url(other, &g), TR_INVALID);
    assert_int_equal(check_url("redis://127.0.0.1:9/0", &g), TR_TRANSIENT);
    if (strstr(g.w.err.msg, "cannot reach Redis at 127.0.0.1:9") == NULL)
        fail_msg("%s", g.w.err.msg);
    assert_int_equal(check_url("redis://no-such-host.invalid/0", &g), TR_TRANSIENT);
}

/* A replica refuses: told, and gone when that is over. */
static void refuses(void **state)
{
    struct got g;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    command("REPLICAOF 127.0.0.1 9");
    assert_int_equal(conn_put(&g), TR_TRANSIENT);
    assert_int_equal(check_url(getenv("TROUPE_TEST_REDIS"), &g), TR_INVALID);
    assert_non_null(strstr(g.w.err.msg, "replica"));
    command("REPLICAOF NO ONE");
    assert_int_equal(check_url(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    assert_int_equal(conn_put(&g), TR_OK);
}

/* ---- full ---- */

#define CONTEXT_BYTES 65536
static uint8_t bytes[CONTEXT_BYTES];

static enum tr_rc context_put(uint32_t n, size_t len)
{
    struct uuid id = chat;
    const struct registry_context c = {.last_turn = id, .sealed = {bytes, len}};
    struct wait w = {.loop = loop};

    memcpy(id.b + 8, &n, sizeof n);
    return wait_end(&w, reg->ops->context_put(reg, &id, &c, 600000, wait_done, &w, &w.op, &w.err));
}

static void on_place(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                     const struct tr_err *err)
{
    (void)queue, (void)first, (void)fresh;
    wait_called(ctx, rc, err);
}

static void on_rate(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    (void)retry_after_ms;
    wait_called(ctx, rc, err);
}

static void connect_past(redisContext **ret_c)
{
    struct url u = {0};

    assert_int_equal(url_parse(getenv("TROUPE_TEST_REDIS"), 6379, &u, NULL), TR_OK);
    *ret_c = redisConnect(u.host[0].name, u.host[0].port);
    assert_true(*ret_c != NULL && (*ret_c)->err == 0);
    freeReplyObject(redisCommand(*ret_c, "AUTH %s", u.password));
    url_release(&u);
}

/* A limit of so much more than is in use. */
static void limit(const char *policy, unsigned mib)
{
    char line[128];
    redisContext *c;
    redisReply *reply;
    const char *used;

    connect_past(&c);
    reply = redisCommand(c, "INFO memory");
    used = strstr(reply->str, "used_memory:");
    snprintf(line, sizeof line, "CONFIG SET maxmemory %llu",
             strtoull(used + strlen("used_memory:"), NULL, 10) + ((unsigned long long)mib << 20));
    freeReplyObject(reply);
    redisFree(c);
    command(line);
    snprintf(line, sizeof line, "CONFIG SET maxmemory-policy %s", policy);
    command(line);
}

static void no_limit(void)
{
    command("CONFIG SET maxmemory 0");
    command("CONFIG SET maxmemory-policy noeviction");
    command("FLUSHALL");
}

/* What others keep in this Redis, up to the last byte. */
static void fill_with_foreign(void)
{
    redisContext *c;
    bool full = false;

    connect_past(&c);
    for (unsigned size = CONTEXT_BYTES; size > 0; size /= 4, full = false) {
        for (unsigned i = 0; !full && i < 100000; i++) {
            redisReply *const reply = redisCommand(c, "SET foreign%u.%u %b", size, i, bytes, (size_t)size);

            assert_non_null(reply);
            full = reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "OOM", 3) == 0;
            freeReplyObject(reply);
        }
        assert_true(full);
    }
    redisFree(c);
}

/* All that is essential works. */
static void is_served(struct registry_worker *w)
{
    const struct registry_place place = {.first = "inference.any.1", .queue = "inference.any.1"};
    struct registry_worker fresh = {.character = "full", .id = "fresh", .weight = 1};
    struct uuid id = chat;
    struct got g;

    assert_int_equal(refresh(w, &g), TR_OK);
    assert_int_equal(join(&fresh, &g), TR_OK);
    g = (struct got){.w.loop = loop};
    assert_int_equal(wait_end(&g.w, reg->ops->worker_remove(reg, &fresh, wait_done, &g, &g.w.op, &g.w.err)), TR_OK);
    assert_int_equal(conn_put(&g), TR_OK);
    assert_int_equal(conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
    g = (struct got){.w.loop = loop};
    assert_in_range(
        wait_end(&g.w, reg->ops->gateway_refresh(reg, "gateway.1", 60000, wait_done, &g, &g.w.op, &g.w.err)), TR_OK,
        TR_NOT_FOUND);
    g = (struct got){.w.loop = loop};
    id.b[15]++;
    assert_int_equal(wait_end(&g.w, reg->ops->chat_place(reg, &id, &place, 60000, on_place, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    g = (struct got){.w.loop = loop};
    assert_int_equal(wait_end(&g.w, reg->ops->rate_take(reg, "user:full", 60, on_rate, &g, &g.w.op, &g.w.err)), TR_OK);
}

/* At its limit, nothing evicted: contexts are given up and soon kept again; what others put there changes nothing for us. */
static void is_full(void **state)
{
    struct registry_worker a = {.character = "any", .id = "full", .weight = 1};
    size_t refused = 0;
    uint64_t start;
    struct got g;

    (void)state;
    command("FLUSHALL");
    assert_int_equal(join(&a, &g), TR_OK);
    limit("noeviction", 8);
    for (uint32_t i = 0; i < 400; i++) { /* 25 MB */
        const enum tr_rc rc = context_put(i, CONTEXT_BYTES);

        assert_true(rc == TR_OK || rc == TR_BUSY);
        refused += rc == TR_BUSY;
    }
    assert_in_range(refused, 1, 399);
    is_served(&a);
    start = mono_ns();
    while (context_put(1000, CONTEXT_BYTES) != TR_OK) { /* the oldest have gone */
        assert_true(mono_ns() - start < SUPPORT_LIMIT_MS * 1000000ull);
        support_for(loop, 20);
    }

    fill_with_foreign();
    while (context_put(1001, CONTEXT_BYTES) == TR_OK)
        assert_true(mono_ns() - start < 2 * SUPPORT_LIMIT_MS * 1000000ull);
    start = mono_ns();
    do { /* what was given up before is freed in the background, and makes room once more */
        fill_with_foreign();
        is_served(&a);
        assert_int_equal(check_url(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    } while (strstr(g.note, "Redis is full (maxmemory") == NULL && mono_ns() - start < SUPPORT_LIMIT_MS * 1000000ull);
    if (strstr(g.note, "Redis is full (maxmemory") == NULL || strstr(g.note, "noeviction") == NULL ||
        strstr(g.note, "volatile-lru") == NULL || strstr(g.server, "noeviction") == NULL)
        fail_msg("%s: %s", g.server, g.note);
    no_limit();
    assert_int_equal(check_url(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    assert_string_equal(g.note, "");
    assert_non_null(strstr(g.server, "no limit"));
}

/* It evicts: a volatile-* policy never takes a worker or a gateway; another may, and the worker comes back as old as it was. */
static void evicts(void **state)
{
    static const char *const policies[] = {"volatile-lru",    "volatile-lfu", "volatile-ttl",
                                           "volatile-random", "allkeys-lru",  "allkeys-random"};
    size_t lost = 0;

    (void)state;
    for (size_t p = 0; p < sizeof policies / sizeof policies[0]; p++) {
        struct registry_worker a = {.character = "any", .id = "evicted", .weight = 1, .number = 3, .age_ms = 3600000};
        struct got g;
        enum tr_rc rc;

        command("FLUSHALL");
        assert_int_equal(join(&a, &g), TR_OK);
        g = (struct got){.w.loop = loop};
        (void)wait_end(&g.w, reg->ops->gateway_refresh(reg, "gateway.1", 60000, wait_done, &g, &g.w.op, &g.w.err));
        limit(policies[p], 4);
        for (uint32_t i = 0; i < 400; i++)
            assert_int_equal(context_put(i, CONTEXT_BYTES), TR_OK);
        rc = refresh(&a, &g);
        if (strncmp(policies[p], "volatile", 8) == 0)
            assert_int_equal(rc, TR_OK);
        lost += rc == TR_NOT_FOUND;
        if (rc == TR_NOT_FOUND)
            assert_int_equal(join(&a, &g), TR_OK);
        assert_int_equal(a.number, 3);
        g = (struct got){.w.loop = loop};
        assert_int_equal(wait_end(&g.w, reg->ops->workers(reg, "any", on_workers, &g, &g.w.op, &g.w.err)), TR_OK);
        assert_int_equal(g.n, 1);
        assert_true(g.age_ms >= 3600000);
        if (strncmp(policies[p], "volatile", 8) == 0) {
            g = (struct got){.w.loop = loop};
            assert_int_equal(
                wait_end(&g.w, reg->ops->gateway_refresh(reg, "gateway.1", 60000, wait_done, &g, &g.w.op, &g.w.err)),
                TR_OK); /* it was known */
        }
        assert_int_equal(check_url(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
        assert_non_null(strstr(g.server, policies[p]));
        assert_true((g.note[0] == '\0') == (p < 2)); /* volatile-lru and -lfu are right */
        no_limit();
    }
    print_message("  evicted and registered anew: %zu of 2\n", lost);
}

/* A record that has ended goes, although its key has no TTL: with a reading, or a renewal of another. */
static void ended_records_go(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1}, b = a;
    struct got g = {.w.loop = loop};
    char line[128];
    redisContext *c;
    long long left = 1;
    uint64_t start;

    (void)state;
    command("FLUSHALL");
    strcpy(b.id, "b");
    assert_int_equal(wait_end(&g.w, reg->ops->worker_register(reg, &a, 50, on_number, &g, &g.w.op, &g.w.err)), TR_OK);
    assert_int_equal(join(&b, &g), TR_OK);
    support_for(loop, 80);
    connect_past(&c);
    snprintf(line, sizeof line, "EXISTS redis%d.troupe:worker:any:1", (int)getpid());
    for (start = mono_ns(); left != 0;) {
        redisReply *const reply = redisCommand(c, line);

        assert_true(mono_ns() - start < SUPPORT_LIMIT_MS * 1000000ull);
        left = reply->integer;
        freeReplyObject(reply);
        assert_int_equal(refresh(&b, &g), TR_OK);
    }
    redisFree(c);
    assert_int_equal(refresh(&a, &g), TR_NOT_FOUND);
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
}

static size_t living(void)
{
    struct got g = {.w.loop = loop};

    assert_int_equal(wait_end(&g.w, reg->ops->workers(reg, "any", on_workers, &g, &g.w.op, &g.w.err)), TR_OK);
    return g.n;
}

/* Records that were written before a fail-over to a server whose clock is behind: whoever lives renews its own, the dead end. */
static void other_clock(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1};
    struct got g;
    char line[512];

    (void)state;
    command("FLUSHALL");
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(living(), 1);
    /* one word a script; the TTL of join() and refresh() is a minute */
    snprintf(line, sizeof line,
             "EVAL redis.call('SET',KEYS[1],(string.gsub(redis.call('GET',KEYS[1]),'^(%%%%d+).(%%%%d+)',"
             "function(s,e)return(s+3600000)..string.char(32)..(e+3600000)end))) 1 redis%d.troupe:worker:any:1",
             (int)getpid());
    command(line);
    assert_int_equal(living(), 0);
    assert_int_equal(refresh(&a, &g), TR_NOT_FOUND); /* it lives: it puts it again */
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    assert_int_equal(living(), 1);
}

/* The set of the numbers alone is evicted: who registers again keeps its own. */
static void set_is_lost(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1};
    struct got g;
    char line[128];

    (void)state;
    command("FLUSHALL");
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
    snprintf(line, sizeof line, "DEL redis%d.troupe:workers:any", (int)getpid());
    command(line);
    assert_int_equal(join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
}

/* What another version, or somebody's hand, put there. */
static void odd_records(void **state)
{
    char line[512];
    struct got g = {.w.loop = loop};

    (void)state;
    snprintf(line, sizeof line, "SADD redis%d.troupe:workers:odd 1 2 3 4", (int)getpid());
    command(line);
    /* one word a script: hiredis splits a command at its spaces */
    snprintf(
        line, sizeof line,
        "EVAL redis.call('SET','redis%d.troupe:worker:odd:1','17\\nid=x\\nweight=1\\nlater=thing\\n')"
        "redis.call('SET','redis%d.troupe:worker:odd:2','rubbish')redis.call('SET','redis%d.troupe:worker:odd:3','') 0",
        (int)getpid(), (int)getpid(), (int)getpid());
    command(line);
    assert_int_equal(wait_end(&g.w, reg->ops->workers(reg, "odd", on_workers, &g, &g.w.op, &g.w.err)), TR_OK);
    assert_int_equal(g.n, 1);
}

/* Started while nothing is there: done when it comes, within the deadline; else it was never sent. */
static void waits_for_it(void **state)
{
    struct many m = {0};
    struct got g;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK);
    server("kill");
    for (int i = 0; i < 5 && conn_put(&g) != TR_TRANSIENT; i++)
        continue; /* the first may still go into the old connection */
    assert_int_equal(conn_put(&g), TR_TRANSIENT);
    if (strstr(g.w.err.msg, "cannot reach Redis at 127.0.0.1") == NULL)
        fail_msg("%s", g.w.err.msg);
    many_puts(&m, 500);
    server("start");
    support_count(loop, &m.ended, 500);
    assert_int_equal(m.by_rc[TR_OK], 500);
}

/* Keys of the wrong type, put there by somebody's hand: a worker's place is taken back, its neighbours are seen. */
static void wrong_types(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1, .number = 2}, b = a;
    struct got g = {.w.loop = loop};
    char line[256];

    (void)state;
    command("FLUSHALL");
    assert_int_equal(join(&a, &g), TR_OK);
    snprintf(line, sizeof line, "LPUSH redis%d.troupe:worker:any:1 x", (int)getpid());
    command(line);
    snprintf(line, sizeof line, "SADD redis%d.troupe:workers:any 1 junk -3", (int)getpid());
    command(line);
    strcpy(b.id, "b");
    assert_int_equal(join(&b, &g), TR_OK);
    assert_int_equal(b.number, 3); /* 1 is somebody else's key, left alone */
    g = (struct got){.w.loop = loop};
    assert_int_equal(wait_end(&g.w, reg->ops->workers(reg, "any", on_workers, &g, &g.w.op, &g.w.err)), TR_OK);
    assert_int_equal(g.n, 2);
}

/* The script's limit is the very one of domain/ratelimit.h, on the same times. */
static void rate_is_gcra(void **state)
{
    static const uint32_t rates[] = {1, 4, 5, 7, 60, 600, 6000, 100000};
    const char *const clock = strstr(rr_scripts[RR_RATE], "local now=");
    struct url u = {0};
    redisContext *c;
    char script[2048];

    (void)state;
    assert_non_null(clock);
    /* its clock by ours */
    snprintf(script, sizeof script, "local now=tonumber(ARGV[3]) %s", strstr(clock, "local interval"));
    assert_int_equal(url_parse(getenv("TROUPE_TEST_REDIS"), 6379, &u, NULL), TR_OK);
    c = redisConnect(u.host[0].name, u.host[0].port);
    assert_true(c != NULL && c->err == 0);
    freeReplyObject(redisCommand(c, "AUTH %s", u.password));
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
    url_release(&u);
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
             u.password, (unsigned)u.host[0].port, ((struct redis_registry *)reg)->sha[RR_NAME_PUT]);
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
    struct uuid id = chat;

    f->left--;
    id.b[8] = (uint8_t)f->left;
    id.b[9] = (uint8_t)(f->left >> 8);
    assert_int_equal(reg->ops->conn_put(reg, &id, "gateway.1", 60000, on_flood, f, NULL, NULL), TR_OK);
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
    struct got g;
    uint64_t start;
    double ours, theirs;

    (void)state;
    assert_int_equal(conn_put(&g), TR_OK); /* connected */
    theirs = benchmark_rate();
    support_for(loop, 1); /* the loop's clock stood still meanwhile */
    start = mono_ns();
    for (int i = 0; i < 500; i++)
        flood_one(&f);
    support_count(loop, &f.ended, n);
    ours = (double)n * 1e9 / (double)(mono_ns() - start);
    assert_int_equal(f.failed, 0);
    print_message("  %.0f scripted writes a second, 500 in flight; redis-benchmark with the same script: %.0f\n", ours,
                  theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(checks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_types, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_late_removal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rate_is_gcra, set_up, tear_down),
        cmocka_unit_test_setup_teardown(odd_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(evicts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ended_records_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_clock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(set_is_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stalls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_restarted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waits_for_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(speed, set_up, tear_down),
    };

    if (support_server("TROUPE_TEST_REDIS") == NULL)
        return 77; /* Meson: skipped */
    return cmocka_run_group_tests_name("Redis", tests, NULL, NULL);
}
