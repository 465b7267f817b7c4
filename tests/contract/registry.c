/* registry - the contract of port/registry.h, held against every adapter in the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/memory/registry.h"
#include "adapter/redis/registry.h"
#include "support.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An empty one: under a prefix that nobody had before. */
static enum tr_rc open_redis(struct loop *loop, struct registry **ret_registry, struct tr_err *err)
{
    static unsigned n;
    char url[512];

    snprintf(url, sizeof url, "%s?prefix=test%d.%u.", getenv("TROUPE_TEST_REDIS"), (int)getpid(), n++);
    return redis_registry_open(loop, url, ret_registry, err);
}

struct adapter {
    const char *name;
    const char *server; /* the variable with its URL; NULL: none is needed */
    enum tr_rc (*open)(struct loop *loop, struct registry **ret_registry, struct tr_err *err); /* an empty one */
};

static const struct adapter adapters[] = {
    {"memory", NULL, memory_registry_open},
    {"redis", "TROUPE_TEST_REDIS", open_redis},
};
static const struct adapter *adapter;

static struct loop *loop;
static struct registry *reg;

static int set_up(void **state)
{
    struct tr_err err = {0};

    (void)state;
    if (loop_new(&loop, &err) == TR_OK && adapter->open(loop, &reg, &err) == TR_OK)
        return 0;
    print_error("%s\n", err.msg);
    return -1;
}

static int tear_down(void **state)
{
    (void)state;
    if (reg != NULL)
        reg->ops->close(reg);
    reg = NULL;
    loop_drain(loop);
    loop_free(loop);
    loop = NULL;
    return 0;
}

#define MANY 200 /* gateways */

/* What any of the callbacks brought. */
struct got {
    struct wait w; /* first */
    uint64_t number;
    size_t n;
    char name[MANY][64];
    struct registry_worker worker[8];
    struct registry_context context;
    uint8_t bytes[64];
    bool drop_inside; /* drop the context from inside the callback that looks at it */
};

static void on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->number = number;
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    g->n = n;
    for (size_t i = 0; i < n && i < 8; i++)
        g->worker[i] = list[i];
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    g->n = n;
    assert_in_range(n, 0, MANY);
    for (size_t i = 0; i < n; i++)
        snprintf(g->name[i], sizeof g->name[i], "%s", names[i]);
}

static void on_context(void *ctx, enum tr_rc rc, const struct registry_context *context, const struct tr_err *err)
{
    struct got *g = ctx;
    size_t len;

    wait_called(&g->w, rc, err);
    if (rc != TR_OK)
        return;
    len = context->sealed.len;
    if (g->drop_inside)
        assert_int_equal(reg->ops->context_drop(reg, &context->last_turn, NULL, NULL, NULL, NULL), TR_OK);
    g->context = *context;
    memcpy(g->bytes, context->sealed.data, len < sizeof g->bytes ? len : sizeof g->bytes);
}

static void on_rate(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->number = retry_after_ms;
}

#define GOT                                                                                                            \
    {                                                                                                                  \
        .w.loop = loop                                                                                                 \
    }
/* Start an operation whose callback's context is a struct got `g`, and wait for it; its rc. */
#define CALL(g, start, ...) wait_end(&(g).w, reg->ops->start(reg, __VA_ARGS__, &(g), &(g).w.op, &(g).w.err))

static struct uuid chat_id(uint32_t n)
{
    struct uuid id = {{0x01, 0x8f}};

    memcpy(id.b + 8, &n, sizeof n);
    return id;
}

static struct registry_worker worker(const char *character, const char *id)
{
    struct registry_worker w = {.slots = 4, .context_tokens = 4096, .weight = 2};

    snprintf(w.character, sizeof w.character, "%s", character);
    snprintf(w.id, sizeof w.id, "%s", id);
    snprintf(w.model, sizeof w.model, "model");
    return w;
}

static uint32_t worker_in(struct registry_worker *w, uint64_t ttl_ms)
{
    struct got g = GOT;

    assert_int_equal(CALL(g, worker_register, w, ttl_ms, on_number), TR_OK);
    w->number = (uint32_t)g.number;
    return w->number;
}

static size_t workers_of(const char *character, struct got *ret_got)
{
    struct got g = GOT;

    assert_int_equal(CALL(g, workers, character, on_workers), TR_OK);
    if (ret_got != NULL)
        *ret_got = g;
    return g.n;
}

static enum tr_rc refresh(const struct registry_worker *w, uint64_t ttl_ms)
{
    struct got g = GOT;

    return CALL(g, worker_refresh, w, ttl_ms, wait_done);
}

static void worker_numbers(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct registry_worker m = worker("mia", "m");
    struct got g = GOT;

    (void)state;
    assert_int_equal(workers_of("any", NULL), 0);
    assert_int_equal(worker_in(&a, 5000), 1);
    assert_int_equal(worker_in(&b, 5000), 2);
    assert_int_equal(worker_in(&m, 5000), 1); /* another character counts for itself */
    assert_int_equal(worker_in(&b, 5000), 2); /* again: its answer was lost */
    assert_int_equal(workers_of("any", &g), 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(g.worker[i].queue, g.worker[i].number == 1 ? "inference.any.1" : "inference.any.2");
        assert_string_equal(g.worker[i].model, "model");
    }
    g = (struct got)GOT;
    assert_int_equal(CALL(g, worker_remove, &a, wait_done), TR_OK);
    assert_int_equal(workers_of("any", NULL), 1);
    assert_int_equal(worker_in(&c, 5000), 1);          /* the lowest free one */
    assert_int_equal(refresh(&a, 5000), TR_NOT_FOUND); /* another's by now */
    g = (struct got)GOT;
    assert_int_equal(CALL(g, worker_remove, &a, wait_done), TR_OK); /* and it can't throw that one out */
    assert_int_equal(workers_of("any", NULL), 2);
    assert_int_equal(workers_of("mia", NULL), 1);
    assert_int_equal(workers_of("nobody", NULL), 0);
}

static void worker_ttl(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b");
    struct got g;

    (void)state;
    worker_in(&a, 150);
    worker_in(&b, 5000);
    a.load = 7;
    for (int i = 0; i < 6; i++) {
        support_for(loop, 50);
        assert_int_equal(refresh(&a, 150), TR_OK);
    }
    assert_int_equal(workers_of("any", &g), 2);
    assert_true(g.worker[0].load + g.worker[1].load == 7);
    support_for(loop, 200);
    assert_int_equal(workers_of("any", &g), 1);
    assert_string_equal(g.worker[0].id, "b");
    assert_int_equal(refresh(&a, 150), TR_NOT_FOUND);
    assert_int_equal(worker_in(&a, 5000), 1);
}

static enum tr_rc gateway_in(const char *name, uint64_t ttl_ms)
{
    struct got g = GOT;

    return CALL(g, gateway_refresh, name, ttl_ms, wait_done);
}

static size_t gateways(struct got *g)
{
    *g = (struct got)GOT;
    assert_int_equal(wait_end(&g->w, reg->ops->gateways(reg, on_names, g, &g->w.op, &g->w.err)), TR_OK);
    return g->n;
}

static void gateway_life(void **state)
{
    struct got g;

    (void)state;
    assert_int_equal(gateways(&g), 0);
    assert_int_equal(gateway_in("gateway.1", 5000), TR_NOT_FOUND); /* it was not, and is now */
    assert_int_equal(gateway_in("gateway.2", 100), TR_NOT_FOUND);
    assert_int_equal(gateway_in("gateway.1", 5000), TR_OK);
    assert_int_equal(gateways(&g), 2);
    support_for(loop, 150);
    assert_int_equal(gateways(&g), 1);
    assert_string_equal(g.name[0], "gateway.1");
    assert_int_equal(gateway_in("gateway.2", 100), TR_NOT_FOUND); /* its record had ended */
    support_for(loop, 150);
    g = (struct got)GOT;
    assert_int_equal(CALL(g, gateway_remove, "gateway.1", wait_done), TR_OK);
    assert_int_equal(gateways(&g), 0);
    g = (struct got)GOT;
    assert_int_equal(CALL(g, gateway_remove, "gateway.9", wait_done), TR_OK);
}

static enum tr_rc conn(uint32_t chat, const char *gateway, uint64_t ttl_ms)
{
    const struct uuid id = chat_id(chat);
    struct got g = GOT;

    return CALL(g, conn_put, &id, gateway, ttl_ms, wait_done);
}

static enum tr_rc renew(uint32_t chat, const char *gateway, uint64_t ttl_ms)
{
    const struct uuid id = chat_id(chat);
    struct got g = GOT;

    return CALL(g, conn_renew, &id, gateway, ttl_ms, wait_done);
}

static void conn_out(uint32_t chat, const char *gateway)
{
    const struct uuid id = chat_id(chat);
    struct got g = GOT;

    assert_int_equal(CALL(g, conn_remove, &id, gateway, wait_done), TR_OK);
}

static size_t conns(uint32_t chat, struct got *g)
{
    const struct uuid id = chat_id(chat);

    *g = (struct got)GOT;
    assert_int_equal(CALL(*g, conns, &id, on_names), TR_OK);
    return g->n;
}

static void connections(void **state)
{
    struct got g;

    (void)state;
    assert_int_equal(conns(1, &g), 0);
    assert_int_equal(conn(1, "g1", 5000), TR_OK);
    assert_int_equal(conn(1, "g2", 5000), TR_OK);
    assert_int_equal(conn(1, "g3", 100), TR_OK);
    assert_int_equal(conn(1, "g1", 5000), TR_OK);
    assert_int_equal(conn(2, "g3", 5000), TR_OK);
    assert_int_equal(conns(1, &g), 3);
    assert_int_equal(conns(2, &g), 1);
    assert_string_equal(g.name[0], "g3");
    support_for(loop, 150);
    assert_int_equal(conns(1, &g), 2);
    conn_out(1, "g1");
    conn_out(1, "g1");
    conn_out(1, "unknown");
    assert_int_equal(conns(1, &g), 1);
    assert_string_equal(g.name[0], "g2");
    conn_out(1, "g2");
    assert_int_equal(conns(1, &g), 0);
    assert_int_equal(conns(2, &g), 1);
}

/* A record that is renewed says whether it was there: lost, ended or removed, it was not, and is now. */
static void renewals(void **state)
{
    struct got g;

    (void)state;
    assert_int_equal(renew(1, "g1", 5000), TR_NOT_FOUND);
    assert_int_equal(renew(1, "g1", 5000), TR_OK);
    assert_int_equal(conn(1, "g2", 100), TR_OK);
    assert_int_equal(renew(1, "g2", 100), TR_OK);
    assert_int_equal(renew(2, "g1", 5000), TR_NOT_FOUND); /* each chat for itself */
    support_for(loop, 150);
    assert_int_equal(conns(1, &g), 1);
    assert_int_equal(renew(1, "g2", 5000), TR_NOT_FOUND);
    conn_out(1, "g1");
    assert_int_equal(conns(1, &g), 1);
    assert_int_equal(renew(1, "g1", 5000), TR_NOT_FOUND);
    assert_int_equal(conns(1, &g), 2);
}

static enum tr_rc context_put(uint32_t chat, const char *bytes, uint64_t change, uint64_t ttl_ms)
{
    const struct uuid id = chat_id(chat);
    const struct slice sealed = {(const uint8_t *)bytes, strlen(bytes)};
    const struct registry_context c = {.last_turn = id, .change = change, .sealed = sealed};
    struct got g = GOT;

    return CALL(g, context_put, &id, &c, ttl_ms, wait_done);
}

static enum tr_rc context_get(uint32_t chat, struct got *g)
{
    const struct uuid id = chat_id(chat);
    const bool drop_inside = g->drop_inside;

    *g = (struct got)GOT;
    g->drop_inside = drop_inside;
    return CALL(*g, context_get, &id, on_context);
}

static void context(void **state)
{
    const struct uuid id = chat_id(1);
    struct got g = {.drop_inside = false};

    (void)state;
    assert_int_equal(context_get(1, &g), TR_NOT_FOUND);
    assert_int_equal(context_put(1, "first", 3, 5000), TR_OK);
    assert_int_equal(context_put(1, "second one", 4, 5000), TR_OK);
    assert_int_equal(context_put(2, "short-lived", 1, 60), TR_OK);
    assert_int_equal(context_get(1, &g), TR_OK);
    assert_int_equal(g.context.change, 4);
    assert_int_equal(g.context.sealed.len, 10);
    assert_memory_equal(g.bytes, "second one", 10);
    assert_true(uuid_eq(&g.context.last_turn, &id));
    support_for(loop, 100);
    assert_int_equal(context_get(2, &g), TR_NOT_FOUND);
    g.drop_inside = true; /* borrowed until the callback returns, whatever is done inside */
    assert_int_equal(context_get(1, &g), TR_OK);
    assert_memory_equal(g.bytes, "second one", 10);
    assert_int_equal(context_get(1, &g), TR_NOT_FOUND);
}

/* A number that was had before is given again where it is free. */
static void worker_wishes(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct got g;

    (void)state;
    a.number = 3;
    assert_int_equal(worker_in(&a, 5000), 3);
    b.number = 3;
    assert_int_equal(worker_in(&b, 5000), 1); /* taken: the lowest free one */
    assert_int_equal(worker_in(&c, 5000), 2); /* no wish */
    support_for(loop, 60);
    assert_int_equal(refresh(&a, 5000), TR_OK);
    assert_int_equal(workers_of("any", &g), 3);
    for (size_t i = 0; i < g.n; i++)
        assert_true(g.worker[i].age_ms >= 55 && g.worker[i].age_ms < 5000);
}

static const struct registry_worker *named(const struct got *g, const char *id)
{
    for (size_t i = 0; i < g->n && i < 8; i++)
        if (strcmp(g->worker[i].id, id) == 0)
            return &g->worker[i];
    fail_msg("%s is not in the list", id);
    return NULL;
}

#define HOUR_MS 3600000

static void age_is(const struct got *g, const char *id, uint64_t at_least, uint64_t at_most)
{
    assert_in_range(named(g, id)->age_ms, at_least, at_most + 60000);
}

/* A record that was lost comes back as old as its worker says; none gets younger; another's number makes nobody old. */
static void worker_ages(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct got g = GOT;

    (void)state;
    a.number = 2;
    a.age_ms = HOUR_MS;
    assert_int_equal(worker_in(&a, 60000), 2);
    assert_int_equal(worker_in(&b, 60000), 1);
    c.number = 2;
    c.age_ms = HOUR_MS;
    assert_int_equal(worker_in(&c, 60000), 3); /* not the queue that it served */
    workers_of("any", &g);
    age_is(&g, "a", HOUR_MS, HOUR_MS);
    age_is(&g, "b", 0, 0);
    age_is(&g, "c", 0, 0);

    a.age_ms = 0;
    assert_int_equal(worker_in(&a, 60000), 2); /* again: its answer was lost */
    assert_int_equal(refresh(&a, 60000), TR_OK);
    b.age_ms = 2 * HOUR_MS; /* a server whose clock was set back forgot its age */
    assert_int_equal(refresh(&b, 60000), TR_OK);
    workers_of("any", &g);
    age_is(&g, "a", HOUR_MS, HOUR_MS);
    age_is(&g, "b", 2 * HOUR_MS, 2 * HOUR_MS);
}

/* One that leaves says so, is still there, and its number is its own. */
static void worker_leaves(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct got g = GOT;

    (void)state;
    assert_int_equal(worker_in(&a, 60000), 1);
    assert_int_equal(worker_in(&b, 60000), 2);
    workers_of("any", &g);
    assert_false(named(&g, "a")->draining);
    a.draining = true;
    assert_int_equal(refresh(&a, 60000), TR_OK);
    assert_int_equal(workers_of("any", &g), 2);
    assert_true(named(&g, "a")->draining);
    assert_false(named(&g, "b")->draining);
    assert_int_equal(worker_in(&c, 60000), 3);
    g = (struct got)GOT;
    assert_int_equal(CALL(g, worker_remove, &a, wait_done), TR_OK);
    a.number = 0;
    assert_int_equal(worker_in(&a, 60000), 1); /* lost, and put again while it leaves */
    workers_of("any", &g);
    assert_true(named(&g, "a")->draining);
}

/* Two that wish the same at once: one has it, the other the lowest free one; none has two. */
static void worker_wishes_meet(void **state)
{
    struct registry_worker w[8];
    struct got g[8];
    uint32_t seen = 0;

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        const char id[] = {(char)('a' + i), '\0'};

        w[i] = worker("any", id);
        w[i].number = 5;
        g[i] = (struct got)GOT;
        wait_started(&g[i].w, reg->ops->worker_register(reg, &w[i], 5000, on_number, &g[i], &g[i].w.op, &g[i].w.err));
    }
    for (size_t i = 0; i < 8; i++) {
        support_count(loop, &g[i].w.calls, 1);
        assert_int_equal(g[i].w.rc, TR_OK);
        assert_in_range(g[i].number, 1, 8);
        seen |= 1u << g[i].number;
    }
    assert_int_equal(seen, 0x1fe); /* 1 … 8, each once */
    assert_int_equal(g[0].number, 5);
    w[1].number = 7;
    assert_int_equal(worker_in(&w[1], 5000), g[1].number); /* its own stands, whatever it wishes now */
    assert_int_equal(workers_of("any", NULL), 8);
}

/* What is kept is bounded: of 128 MiB the newest are there, the oldest are not. */
static void context_bound(void **state)
{
    const size_t len = 1 << 20;
    uint8_t *bytes = malloc(len);
    struct got g = {.drop_inside = false};

    (void)state;
    if (adapter->server != NULL) { /* there, maxmemory and its policy are the server's affair */
        free(bytes);
        skip();
    }
    assert_non_null(bytes);
    memset(bytes, 'c', len);
    for (uint32_t i = 0; i < 128; i++) {
        const struct uuid id = chat_id(i);
        const struct registry_context c = {.last_turn = id, .sealed = {bytes, len}};
        struct got p = GOT;

        assert_int_equal(CALL(p, context_put, &id, &c, 60000, wait_done), TR_OK);
    }
    assert_int_equal(context_get(127, &g), TR_OK);
    assert_int_equal(context_get(0, &g), TR_NOT_FOUND);
    free(bytes);
}

/* Any number of gateways: each is registered, is told of, holds the chat, and may go. */
static void many_gateways(void **state)
{
    struct got g;
    char name[32];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "gateway.%d", i);
        assert_int_equal(gateway_in(name, 60000), TR_NOT_FOUND); /* it was not, and is now */
        assert_int_equal(conn(1, name, 60000), TR_OK);
    }
    assert_int_equal(gateways(&g), MANY);
    assert_int_equal(conns(1, &g), MANY);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "gateway.%d", i);
        assert_int_equal(gateway_in(name, 60000), TR_OK);
        assert_int_equal(renew(1, name, 60000), TR_OK);
    }
    for (int i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof name, "gateway.%d", i);
        g = (struct got)GOT;
        assert_int_equal(CALL(g, gateway_remove, name, wait_done), TR_OK);
        conn_out(1, name);
    }
    assert_int_equal(gateways(&g), MANY / 2);
    assert_int_equal(conns(1, &g), MANY / 2);
}

static void on_place(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                     const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    snprintf(g->name[0], sizeof g->name[0], "%s %s", rc == TR_OK ? first : "", rc == TR_OK ? queue : "");
    g->number = fresh;
}

/* "first queue"; with a "+": it is new. */
static const char *place_of(uint32_t chat, const char *first, const char *queue, const char *stale, const char *was,
                            uint64_t ttl_ms)
{
    static char said[66];
    const struct uuid id = chat_id(chat);
    const struct registry_place wish = {.first = first, .queue = queue, .stale = stale, .was = was};
    struct got g = GOT;

    assert_int_equal(CALL(g, chat_place, &id, &wish, ttl_ms, on_place), TR_OK);
    snprintf(said, sizeof said, "%s%s", g.number != 0 ? "+" : "", g.name[0]);
    return said;
}

static void places(void **state)
{
    (void)state;
    assert_string_equal(place_of(1, "a", "b", NULL, NULL, 5000), "+a b");
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 5000), "a b"); /* whoever asks next is told the same */
    assert_string_equal(place_of(1, "a", "a", "c", "x", 5000), "a b");
    assert_string_equal(place_of(2, "a", "a", NULL, NULL, 5000), "+a a"); /* each chat for itself */
    assert_string_equal(place_of(1, "a", "c", "b", NULL, 5000), "+a c");  /* b is gone */
    assert_string_equal(place_of(1, "a", "d", "b", NULL, 5000), "a c");   /* and somebody saw that before */
    assert_string_equal(place_of(1, "d", "d", NULL, NULL, 5000), "a c");  /* made under another first choice: told so */
    assert_string_equal(place_of(1, "d", "d", NULL, "x", 5000), "a c");
    assert_string_equal(place_of(1, "d", "c", NULL, "a", 5000), "+d c"); /* and changed, if it is still that one */
    assert_string_equal(place_of(1, "d", "d", NULL, "a", 5000), "d c");
    assert_string_equal(place_of(1, "a", "a", "c", NULL, 5000), "+a a");
}

static void place_ttl(void **state)
{
    (void)state;
    assert_string_equal(place_of(1, "a", "b", NULL, NULL, 400), "+a b");
    support_for(loop, 250);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 400), "a b"); /* renewed */
    support_for(loop, 250);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 100), "a b");
    support_for(loop, 150);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 400), "+a a");
}

static uint64_t rate(const char *key, uint32_t per_minute)
{
    struct got g = GOT;

    assert_int_equal(CALL(g, rate_take, key, per_minute, on_rate), TR_OK);
    return g.number;
}

static void rates(void **state)
{
    size_t allowed = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        allowed += rate("user:a", 60) == 0;
    assert_true(allowed >= 15 && allowed <= 16); /* a burst of a quarter */
    assert_true(rate("user:a", 60) > 0 && rate("user:a", 60) <= 1000);
    assert_int_equal(rate("user:b", 60), 0); /* each for itself */
    for (int i = 0; i < 100; i++)
        assert_int_equal(rate("user:c", 0), 0); /* off */
    support_for(loop, 1100);
    assert_int_equal(rate("user:a", 60), 0);
}

/* One that is too long is refused, not cut: cut, it would be another's. */
static void long_rate_key(void **state)
{
    struct got g = GOT;
    char key[302];

    (void)state;
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    assert_int_equal(CALL(g, rate_take, key, 60, on_rate), TR_INVALID);
}

static void cancel_and_close(void **state)
{
    const struct uuid id = chat_id(1);
    struct got g = GOT, last = GOT;

    (void)state;
    wait_started(&g.w, reg->ops->conns(reg, &id, on_names, &g, &g.w.op, &g.w.err));
    assert_int_equal(g.w.rc, TR_OK);
    tr_op_cancel(g.w.op);
    assert_int_equal(g.w.calls, 0);
    support_count(loop, &g.w.calls, 1);
    assert_int_equal(g.w.rc, TR_CANCELLED);

    wait_started(&last.w, reg->ops->context_get(reg, &id, on_context, &last, &last.w.op, &last.w.err));
    reg->ops->close(reg);
    reg = NULL;
    assert_int_equal(last.w.calls, 1);
    assert_int_equal(last.w.rc, TR_CANCELLED);
}

static void ten_thousand_chats(void **state)
{
    const uint32_t n = 10000;
    struct support_many m = {0};
    struct mallinfo2 before = mallinfo2(), after;
    struct got g;

    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        const struct uuid id = chat_id(i);

        assert_int_equal(reg->ops->conn_put(reg, &id, "gateway.1", 60000, support_many_done, &m, NULL, NULL), TR_OK);
        if (i % 100 == 99)
            support_count(loop, &m.done, i + 1);
    }
    after = mallinfo2();
    assert_int_equal(m.failed, 0);
    assert_int_equal(conns(n - 1, &g), 1);
    assert_int_equal(conns(n, &g), 0);
    if (after.uordblks > before.uordblks) /* not where the allocator is a sanitizer's */
        print_message("  %zu bytes a chat\n", (after.uordblks - before.uordblks) / n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(worker_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(worker_wishes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(worker_wishes_meet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(worker_ttl, set_up, tear_down),
        cmocka_unit_test_setup_teardown(worker_ages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(worker_leaves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gateway_life, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connections, set_up, tear_down),
        cmocka_unit_test_setup_teardown(context, set_up, tear_down),
        cmocka_unit_test_setup_teardown(context_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(renewals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_gateways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(place_ttl, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_rate_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancel_and_close, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ten_thousand_chats, set_up, tear_down),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++) {
        adapter = &adapters[i];
        if (adapter->server == NULL ? support_real() : support_server(adapter->server) == NULL)
            continue;
        failed += cmocka_run_group_tests_name(adapter->name, tests, NULL, NULL);
    }
    return failed != 0;
}
