/*
 * redis_full - a Redis at its limit (maxmemory): what is essential is served, contexts make room, what is evicted comes back;
 * and what has no TTL there goes when it has ended.
 */
#include "redis_full.h"

#include "redis_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONTEXT_BYTES 65536
static uint8_t bytes[CONTEXT_BYTES];

static enum tr_rc context_put(uint32_t n, size_t len)
{
    struct uuid id = redis_chat;
    const struct registry_context c = {.last_turn = id, .sealed = {bytes, len}};
    struct wait w = {.loop = redis_loop};

    memcpy(id.b + 8, &n, sizeof n);
    return wait_end(&w, redis_reg->ops->context_put(redis_reg, &id, &c, 600000, wait_done, &w, &w.op, &w.err));
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

/* A limit of so much more than is in use. */
static void limit(const char *policy, unsigned mib)
{
    redisContext *const c = redis_connect();
    redisReply *const reply = redisCommand(c, "INFO memory");
    char line[128];
    const char *used;

    used = strstr(reply->str, "used_memory:");
    snprintf(line, sizeof line, "CONFIG SET maxmemory %llu",
             strtoull(used + strlen("used_memory:"), NULL, 10) + ((unsigned long long)mib << 20));
    freeReplyObject(reply);
    redisFree(c);
    redis_command(line);
    snprintf(line, sizeof line, "CONFIG SET maxmemory-policy %s", policy);
    redis_command(line);
}

static void no_limit(void)
{
    redis_command("CONFIG SET maxmemory 0");
    redis_command("CONFIG SET maxmemory-policy noeviction");
    redis_command("FLUSHALL");
}

/* What others keep in this Redis, up to the last byte. */
static void fill_with_foreign(void)
{
    redisContext *const c = redis_connect();
    bool full = false;

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
    struct uuid id = redis_chat;
    struct redis_got g;

    assert_int_equal(redis_refresh(w, &g), TR_OK);
    assert_int_equal(redis_join(&fresh, &g), TR_OK);
    g = (struct redis_got){.w.loop = redis_loop};
    assert_int_equal(wait_end(&g.w, redis_reg->ops->worker_remove(redis_reg, &fresh, wait_done, &g, &g.w.op, &g.w.err)),
                     TR_OK);
    assert_int_equal(redis_conn_put(&g), TR_OK);
    assert_int_equal(redis_conns(&g), TR_OK);
    assert_int_equal(g.n, 1);
    g = (struct redis_got){.w.loop = redis_loop};
    assert_in_range(wait_end(&g.w, redis_reg->ops->gateway_refresh(redis_reg, "gateway.1", 60000, wait_done, &g,
                                                                   &g.w.op, &g.w.err)),
                    TR_OK, TR_NOT_FOUND);
    g = (struct redis_got){.w.loop = redis_loop};
    id.b[15]++;
    assert_int_equal(
        wait_end(&g.w, redis_reg->ops->chat_place(redis_reg, &id, &place, 60000, on_place, &g, &g.w.op, &g.w.err)),
        TR_OK);
    g = (struct redis_got){.w.loop = redis_loop};
    assert_int_equal(
        wait_end(&g.w, redis_reg->ops->rate_take(redis_reg, "user:full", 60, on_rate, &g, &g.w.op, &g.w.err)), TR_OK);
}

/* At its limit, nothing evicted: contexts are given up and soon kept again; what others put there changes nothing for us. */
void redis_full_serves(void **state)
{
    struct registry_worker a = {.character = "any", .id = "full", .weight = 1};
    size_t refused = 0;
    uint64_t start;
    struct redis_got g;

    (void)state;
    redis_command("FLUSHALL");
    assert_int_equal(redis_join(&a, &g), TR_OK);
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
        support_for(redis_loop, 20);
    }

    fill_with_foreign();
    while (context_put(1001, CONTEXT_BYTES) == TR_OK)
        assert_true(mono_ns() - start < 2 * SUPPORT_LIMIT_MS * 1000000ull);
    start = mono_ns();
    do { /* what was given up before is freed in the background, and makes room once more */
        fill_with_foreign();
        is_served(&a);
        assert_int_equal(redis_check(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    } while (strstr(g.note, "Redis is full (maxmemory") == NULL && mono_ns() - start < SUPPORT_LIMIT_MS * 1000000ull);
    if (strstr(g.note, "Redis is full (maxmemory") == NULL || strstr(g.note, "noeviction") == NULL ||
        strstr(g.note, "volatile-lru") == NULL || strstr(g.server, "noeviction") == NULL)
        fail_msg("%s: %s", g.server, g.note);
    no_limit();
    assert_int_equal(redis_check(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
    assert_string_equal(g.note, "");
    assert_non_null(strstr(g.server, "no limit"));
}

/* It evicts: a volatile-* policy never takes a worker or a gateway; another may, and the worker comes back as old as it was. */
void redis_full_evicts(void **state)
{
    static const char *const policies[] = {"volatile-lru",    "volatile-lfu", "volatile-ttl",
                                           "volatile-random", "allkeys-lru",  "allkeys-random"};
    size_t lost = 0;

    (void)state;
    for (size_t p = 0; p < sizeof policies / sizeof policies[0]; p++) {
        struct registry_worker a = {.character = "any", .id = "evicted", .weight = 1, .number = 3, .age_ms = 3600000};
        struct redis_got g;
        enum tr_rc rc;

        redis_command("FLUSHALL");
        assert_int_equal(redis_join(&a, &g), TR_OK);
        g = (struct redis_got){.w.loop = redis_loop};
        (void)wait_end(
            &g.w, redis_reg->ops->gateway_refresh(redis_reg, "gateway.1", 60000, wait_done, &g, &g.w.op, &g.w.err));
        limit(policies[p], 4);
        for (uint32_t i = 0; i < 400; i++)
            assert_int_equal(context_put(i, CONTEXT_BYTES), TR_OK);
        rc = redis_refresh(&a, &g);
        if (strncmp(policies[p], "volatile", 8) == 0)
            assert_int_equal(rc, TR_OK);
        lost += rc == TR_NOT_FOUND;
        if (rc == TR_NOT_FOUND)
            assert_int_equal(redis_join(&a, &g), TR_OK);
        assert_int_equal(a.number, 3);
        g = (struct redis_got){.w.loop = redis_loop};
        assert_int_equal(
            wait_end(&g.w, redis_reg->ops->workers(redis_reg, "any", redis_on_workers, &g, &g.w.op, &g.w.err)), TR_OK);
        assert_int_equal(g.n, 1);
        assert_true(g.age_ms >= 3600000);
        if (strncmp(policies[p], "volatile", 8) == 0) {
            g = (struct redis_got){.w.loop = redis_loop};
            assert_int_equal(wait_end(&g.w, redis_reg->ops->gateway_refresh(redis_reg, "gateway.1", 60000, wait_done,
                                                                            &g, &g.w.op, &g.w.err)),
                             TR_OK); /* it was known */
        }
        assert_int_equal(redis_check(getenv("TROUPE_TEST_REDIS"), &g), TR_OK);
        assert_non_null(strstr(g.server, policies[p]));
        assert_true((g.note[0] == '\0') == (p < 2)); /* volatile-lru and -lfu are right */
        no_limit();
    }
    print_message("  evicted and registered anew: %zu of 2\n", lost);
}

/* A record that has ended goes, although its key has no TTL: with a reading, or a renewal of another. */
void redis_full_ended_go(void **state)
{
    struct registry_worker a = {.character = "any", .id = "a", .weight = 1}, b = a;
    struct redis_got g = {.w.loop = redis_loop};
    char line[128];
    redisContext *c;
    long long left = 1;
    uint64_t start;

    (void)state;
    redis_command("FLUSHALL");
    strcpy(b.id, "b");
    assert_int_equal(
        wait_end(&g.w, redis_reg->ops->worker_register(redis_reg, &a, 50, redis_on_number, &g, &g.w.op, &g.w.err)),
        TR_OK);
    assert_int_equal(redis_join(&b, &g), TR_OK);
    support_for(redis_loop, 80);
    c = redis_connect();
    snprintf(line, sizeof line, "EXISTS redis%d.troupe:worker:any:1", (int)getpid());
    for (start = mono_ns(); left != 0;) {
        redisReply *const reply = redisCommand(c, line);

        assert_true(mono_ns() - start < SUPPORT_LIMIT_MS * 1000000ull);
        left = reply->integer;
        freeReplyObject(reply);
        assert_int_equal(redis_refresh(&b, &g), TR_OK);
    }
    redisFree(c);
    assert_int_equal(redis_refresh(&a, &g), TR_NOT_FOUND);
    assert_int_equal(redis_join(&a, &g), TR_OK);
    assert_int_equal(a.number, 1);
}
