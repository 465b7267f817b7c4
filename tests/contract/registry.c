/* registry - the contract of port/registry.h, held against every adapter; of workers: registry_workers.c. */
#include "registry_fixture.h"
#include "registry_workers.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct registry_got *g = ctx;

    wait_called(&g->w, rc, err);
    g->n = n;
    assert_in_range(n, 0, REGISTRY_NAMES);
    for (size_t i = 0; i < n; i++)
        snprintf(g->name[i], sizeof g->name[i], "%s", names[i]);
}

static void on_context(void *ctx, enum tr_rc rc, const struct registry_context *context, const struct tr_err *err)
{
    struct registry_got *g = ctx;
    size_t len;

    wait_called(&g->w, rc, err);
    if (rc != TR_OK)
        return;
    len = context->sealed.len;
    if (g->drop_inside)
        assert_int_equal(registry_reg->ops->context_drop(registry_reg, &context->last_turn, NULL, NULL, NULL, NULL),
                         TR_OK);
    g->context = *context;
    memcpy(g->bytes, context->sealed.data, len < sizeof g->bytes ? len : sizeof g->bytes);
}

static void on_rate(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct registry_got *)ctx)->number = retry_after_ms;
}

static enum tr_rc gateway_in(const char *name, uint64_t ttl_ms)
{
    struct registry_got g = REGISTRY_GOT;

    return REGISTRY_CALL(g, gateway_refresh, name, ttl_ms, wait_done);
}

static size_t gateways(struct registry_got *g)
{
    *g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(wait_end(&g->w, registry_reg->ops->gateways(registry_reg, on_names, g, &g->w.op, &g->w.err)),
                     TR_OK);
    return g->n;
}

static void gateway_life(void **state)
{
    struct registry_got g;

    (void)state;
    assert_int_equal(gateways(&g), 0);
    assert_int_equal(gateway_in("gateway.1", 5000), TR_NOT_FOUND); /* it was not, and is now */
    assert_int_equal(gateway_in("gateway.2", 100), TR_NOT_FOUND);
    assert_int_equal(gateway_in("gateway.1", 5000), TR_OK);
    assert_int_equal(gateways(&g), 2);
    support_for(registry_loop, 150);
    assert_int_equal(gateways(&g), 1);
    assert_string_equal(g.name[0], "gateway.1");
    assert_int_equal(gateway_in("gateway.2", 100), TR_NOT_FOUND); /* its record had ended */
    support_for(registry_loop, 150);
    g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(g, gateway_remove, "gateway.1", wait_done), TR_OK);
    assert_int_equal(gateways(&g), 0);
    g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(g, gateway_remove, "gateway.9", wait_done), TR_OK);
}

static enum tr_rc conn(uint32_t chat, const char *gateway, uint64_t ttl_ms)
{
    const struct uuid id = registry_chat(chat);
    struct registry_got g = REGISTRY_GOT;

    return REGISTRY_CALL(g, conn_put, &id, gateway, ttl_ms, wait_done);
}

static enum tr_rc renew(uint32_t chat, const char *gateway, uint64_t ttl_ms)
{
    const struct uuid id = registry_chat(chat);
    struct registry_got g = REGISTRY_GOT;

    return REGISTRY_CALL(g, conn_renew, &id, gateway, ttl_ms, wait_done);
}

static void conn_out(uint32_t chat, const char *gateway)
{
    const struct uuid id = registry_chat(chat);
    struct registry_got g = REGISTRY_GOT;

    assert_int_equal(REGISTRY_CALL(g, conn_remove, &id, gateway, wait_done), TR_OK);
}

static size_t conns(uint32_t chat, struct registry_got *g)
{
    const struct uuid id = registry_chat(chat);

    *g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(*g, conns, &id, on_names), TR_OK);
    return g->n;
}

static void connections(void **state)
{
    struct registry_got g;

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
    support_for(registry_loop, 150);
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
    struct registry_got g;

    (void)state;
    assert_int_equal(renew(1, "g1", 5000), TR_NOT_FOUND);
    assert_int_equal(renew(1, "g1", 5000), TR_OK);
    assert_int_equal(conn(1, "g2", 100), TR_OK);
    assert_int_equal(renew(1, "g2", 100), TR_OK);
    assert_int_equal(renew(2, "g1", 5000), TR_NOT_FOUND); /* each chat for itself */
    support_for(registry_loop, 150);
    assert_int_equal(conns(1, &g), 1);
    assert_int_equal(renew(1, "g2", 5000), TR_NOT_FOUND);
    conn_out(1, "g1");
    assert_int_equal(conns(1, &g), 1);
    assert_int_equal(renew(1, "g1", 5000), TR_NOT_FOUND);
    assert_int_equal(conns(1, &g), 2);
}

static enum tr_rc context_put(uint32_t chat, const char *bytes, uint64_t change, uint64_t ttl_ms)
{
    const struct uuid id = registry_chat(chat);
    const struct slice sealed = {(const uint8_t *)bytes, strlen(bytes)};
    const struct registry_context c = {.last_turn = id, .change = change, .sealed = sealed};
    struct registry_got g = REGISTRY_GOT;

    return REGISTRY_CALL(g, context_put, &id, &c, ttl_ms, wait_done);
}

static enum tr_rc context_get(uint32_t chat, struct registry_got *g)
{
    const struct uuid id = registry_chat(chat);
    const bool drop_inside = g->drop_inside;

    *g = (struct registry_got)REGISTRY_GOT;
    g->drop_inside = drop_inside;
    return REGISTRY_CALL(*g, context_get, &id, on_context);
}

static void context(void **state)
{
    const struct uuid id = registry_chat(1);
    struct registry_got g = {.drop_inside = false};

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
    support_for(registry_loop, 100);
    assert_int_equal(context_get(2, &g), TR_NOT_FOUND);
    g.drop_inside = true; /* borrowed until the callback returns, whatever is done inside */
    assert_int_equal(context_get(1, &g), TR_OK);
    assert_memory_equal(g.bytes, "second one", 10);
    assert_int_equal(context_get(1, &g), TR_NOT_FOUND);
}

/* What is kept is bounded: of 128 MiB the newest are there, the oldest are not. */
static void context_bound(void **state)
{
    const size_t len = 1 << 20;
    uint8_t *bytes = malloc(len);
    struct registry_got g = {.drop_inside = false};

    (void)state;
    if (registry_adapter->server != NULL) { /* there, maxmemory and its policy are the server's affair */
        free(bytes);
        skip();
    }
    assert_non_null(bytes);
    memset(bytes, 'c', len);
    for (uint32_t i = 0; i < 128; i++) {
        const struct uuid id = registry_chat(i);
        const struct registry_context c = {.last_turn = id, .sealed = {bytes, len}};
        struct registry_got p = REGISTRY_GOT;

        assert_int_equal(REGISTRY_CALL(p, context_put, &id, &c, 60000, wait_done), TR_OK);
    }
    assert_int_equal(context_get(127, &g), TR_OK);
    assert_int_equal(context_get(0, &g), TR_NOT_FOUND);
    free(bytes);
}

/* Any number of gateways: each is registered, is told of, holds the chat, and may go. */
static void many_gateways(void **state)
{
    struct registry_got g;
    char name[32];

    (void)state;
    for (int i = 0; i < REGISTRY_NAMES; i++) {
        snprintf(name, sizeof name, "gateway.%d", i);
        assert_int_equal(gateway_in(name, 60000), TR_NOT_FOUND); /* it was not, and is now */
        assert_int_equal(conn(1, name, 60000), TR_OK);
    }
    assert_int_equal(gateways(&g), REGISTRY_NAMES);
    assert_int_equal(conns(1, &g), REGISTRY_NAMES);
    for (int i = 0; i < REGISTRY_NAMES; i++) {
        snprintf(name, sizeof name, "gateway.%d", i);
        assert_int_equal(gateway_in(name, 60000), TR_OK);
        assert_int_equal(renew(1, name, 60000), TR_OK);
    }
    for (int i = 0; i < REGISTRY_NAMES; i += 2) {
        snprintf(name, sizeof name, "gateway.%d", i);
        g = (struct registry_got)REGISTRY_GOT;
        assert_int_equal(REGISTRY_CALL(g, gateway_remove, name, wait_done), TR_OK);
        conn_out(1, name);
    }
    assert_int_equal(gateways(&g), REGISTRY_NAMES / 2);
    assert_int_equal(conns(1, &g), REGISTRY_NAMES / 2);
}

static void on_place(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                     const struct tr_err *err)
{
    struct registry_got *g = ctx;

    wait_called(&g->w, rc, err);
    snprintf(g->name[0], sizeof g->name[0], "%s %s", rc == TR_OK ? first : "", rc == TR_OK ? queue : "");
    g->number = fresh;
}

/* "first queue"; with a "+": it is new. */
static const char *place_of(uint32_t chat, const char *first, const char *queue, const char *stale, const char *was,
                            uint64_t ttl_ms)
{
    static char said[66];
    const struct uuid id = registry_chat(chat);
    const struct registry_place wish = {.first = first, .queue = queue, .stale = stale, .was = was};
    struct registry_got g = REGISTRY_GOT;

    assert_int_equal(REGISTRY_CALL(g, chat_place, &id, &wish, ttl_ms, on_place), TR_OK);
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
    support_for(registry_loop, 250);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 400), "a b"); /* renewed */
    support_for(registry_loop, 250);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 100), "a b");
    support_for(registry_loop, 150);
    assert_string_equal(place_of(1, "a", "a", NULL, NULL, 400), "+a a");
}

static uint64_t rate(const char *key, uint32_t per_minute)
{
    struct registry_got g = REGISTRY_GOT;

    assert_int_equal(REGISTRY_CALL(g, rate_take, key, per_minute, on_rate), TR_OK);
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
    support_for(registry_loop, 1100);
    assert_int_equal(rate("user:a", 60), 0);
}

/* One that is too long is refused, not cut: cut, it would be another's. */
static void long_rate_key(void **state)
{
    struct registry_got g = REGISTRY_GOT;
    char key[302];

    (void)state;
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    assert_int_equal(REGISTRY_CALL(g, rate_take, key, 60, on_rate), TR_INVALID);
}

static void cancel_and_close(void **state)
{
    const struct uuid id = registry_chat(1);
    struct registry_got g = REGISTRY_GOT, last = REGISTRY_GOT;

    (void)state;
    wait_started(&g.w, registry_reg->ops->conns(registry_reg, &id, on_names, &g, &g.w.op, &g.w.err));
    assert_int_equal(g.w.rc, TR_OK);
    tr_op_cancel(g.w.op);
    assert_int_equal(g.w.calls, 0);
    support_count(registry_loop, &g.w.calls, 1);
    assert_int_equal(g.w.rc, TR_CANCELLED);

    wait_started(&last.w,
                 registry_reg->ops->context_get(registry_reg, &id, on_context, &last, &last.w.op, &last.w.err));
    registry_reg->ops->close(registry_reg);
    registry_reg = NULL;
    assert_int_equal(last.w.calls, 1);
    assert_int_equal(last.w.rc, TR_CANCELLED);
}

static void ten_thousand_chats(void **state)
{
    const uint32_t n = 10000;
    struct support_many m = {0};
    struct mallinfo2 before = mallinfo2(), after;
    struct registry_got g;

    (void)state;
    for (uint32_t i = 0; i < n; i++) {
        const struct uuid id = registry_chat(i);

        assert_int_equal(
            registry_reg->ops->conn_put(registry_reg, &id, "gateway.1", 60000, support_many_done, &m, NULL, NULL),
            TR_OK);
        if (i % 100 == 99)
            support_count(registry_loop, &m.done, i + 1);
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
        cmocka_unit_test_setup_teardown(registry_workers_numbers, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(registry_workers_wishes, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(registry_workers_wishes_meet, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(registry_workers_ttl, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(registry_workers_ages, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(registry_workers_leaves, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(gateway_life, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(connections, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(context, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(context_bound, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(renewals, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(many_gateways, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(places, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(place_ttl, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(rates, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(long_rate_key, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(cancel_and_close, registry_set_up, registry_tear_down),
        cmocka_unit_test_setup_teardown(ten_thousand_chats, registry_set_up, registry_tear_down),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof registry_adapters / sizeof registry_adapters[0]; i++) {
        registry_adapter = &registry_adapters[i];
        if (registry_adapter->server == NULL ? support_real() : support_server(registry_adapter->server) == NULL)
            continue;
        failed += cmocka_run_group_tests_name(registry_adapter->name, tests, NULL, NULL);
    }
    return failed != 0;
}
