/* What operators look at: /metrics, /healthz, /readyz, over real sockets, with stores that answer, refuse or are silent. */
#include "role/common/monitor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "tests/contract/support.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- stores that answer as they are told ---- */

enum mood { ANSWERS, REFUSES, SILENT };

struct fake_op {
    struct tr_op op; /* first */
    struct loop_call call;
    service_checked *done;
    void *ctx;
    enum tr_rc rc;
};

static struct loop *loop;
static enum mood broker_mood, registry_mood;
static size_t checks;

static void on_call(struct loop_call *call)
{
    struct fake_op *o = (struct fake_op *)((char *)call - offsetof(struct fake_op, call));
    const struct service_report report = {.server = "Fake 1.0"};
    struct tr_err err = {0};

    if (o->rc != TR_OK)
        tr_fail(&err, o->rc, "no \"server\" at host:1");
    o->done(o->ctx, o->rc, o->rc == TR_OK ? &report : NULL, o->rc == TR_OK ? NULL : &err);
    free(o);
}

static void on_cancel(struct tr_op *op)
{
    struct fake_op *o = (struct fake_op *)op;

    o->rc = TR_CANCELLED;
    loop_defer(loop, &o->call); /* only silent ones are cancelled here */
}

static enum tr_rc ask(enum mood mood, service_checked *done, void *ctx, struct tr_op **ret_op)
{
    struct fake_op *o = calloc(1, sizeof *o);

    assert_non_null(o);
    *o = (struct fake_op){.op = {.cancel = on_cancel}, .call = {.fn = on_call}, .done = done, .ctx = ctx};
    o->rc = mood == REFUSES ? TR_TRANSIENT : TR_OK;
    checks++;
    if (mood != SILENT)
        loop_defer(loop, &o->call);
    *ret_op = &o->op;
    return TR_OK;
}

static enum tr_rc broker_check(struct queue *q, service_checked *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    (void)q, (void)err;
    return ask(broker_mood, done, ctx, ret_op);
}

static enum tr_rc registry_check(struct registry *r, service_checked *done, void *ctx, struct tr_op **ret_op,
                                 struct tr_err *err)
{
    (void)r, (void)err;
    return ask(registry_mood, done, ctx, ret_op);
}

struct fake_length {
    struct loop_call call;
    queue_length_done *done;
    void *ctx;
};

static void on_length_call(struct loop_call *call)
{
    struct fake_length *l = (struct fake_length *)call;

    l->done(l->ctx, TR_OK, 3, NULL);
    free(l);
}

static enum tr_rc fake_length(struct queue *q, const char *name, queue_length_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct fake_length *l = calloc(1, sizeof *l);

    (void)q, (void)name, (void)ret_op, (void)err;
    assert_non_null(l);
    *l = (struct fake_length){.call = {.fn = on_length_call}, .done = done, .ctx = ctx};
    loop_defer(loop, &l->call);
    return TR_OK;
}

static const struct queue_ops queue_ops = {.scheme = "fake", .check = broker_check, .length = fake_length};
static const struct registry_ops registry_ops = {.scheme = "fake", .check = registry_check};
static const struct history_ops history_ops = {.scheme = "fake"}; /* embedded: nothing to ask */
static struct queue queue = {.ops = &queue_ops};
static struct registry registry = {.ops = &registry_ops};
static struct history history = {.ops = &history_ops};

/* ---- a monitor and its clients ---- */

static struct config *config;
static struct role_env env;
static struct monitor *monitor;

static int start(void **state)
{
    (void)state;
    broker_mood = registry_mood = ANSWERS;
    setenv("TROUPE_METRICS_LISTEN", "127.0.0.1:0", 1);
    assert_int_equal(config_load("/nowhere", &config, NULL), TR_OK);
    unsetenv("TROUPE_METRICS_LISTEN");
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    env =
        (struct role_env){.loop = loop, .config = config, .queue = &queue, .registry = &registry, .history = &history};
    assert_int_equal(monitor_start(&env, "notifier", &monitor, NULL), TR_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    monitor_free(monitor);
    monitor = NULL;
    loop_drain(loop); /* as closing a store does */
    loop_free(loop);  /* asserts that no handle and no call is left */
    config_free(config);
    return 0;
}

struct client {
    int fd;
    char text[65536];
    size_t len;
    bool ended;
};

static void client_open(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(monitor_port(monitor))};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->len = 0;
    c->ended = false;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof to), 0);
}

static bool has_ended(void *ctx)
{
    struct client *c = ctx;
    ssize_t n = recv(c->fd, c->text + c->len, sizeof c->text - 1 - c->len, MSG_DONTWAIT);

    if (n > 0)
        c->len += (size_t)n;
    c->ended = c->ended || n == 0;
    c->text[c->len] = '\0';
    return c->ended;
}

static void client_read(struct client *c)
{
    assert_true(support_until(loop, has_ended, c, SUPPORT_LIMIT_MS));
    close(c->fd);
}

static const char *get(const char *request)
{
    static struct client c;

    client_open(&c);
    assert_int_equal(send(c.fd, request, strlen(request), 0), (ssize_t)strlen(request));
    client_read(&c);
    return c.text;
}

#define GET(path) get("GET " path " HTTP/1.1\r\nHost: x\r\n\r\n")

static bool ready_says(void *ctx)
{
    const char *key = NULL;
    struct buf why = {0};
    bool is;

    (void)watch_reached(monitor_watch(monitor), true, &key, &why);
    is = strstr(buf_str(&why), ctx) != NULL;
    buf_release(&why);
    return is;
}

static bool is_reached(void *ctx)
{
    const char *key = NULL;
    struct buf why = {0};
    const bool is = watch_reached(monitor_watch(monitor), true, &key, &why);

    (void)ctx;
    buf_release(&why);
    return is;
}

/* ---- the tests ---- */

static void ready_when_it_serves_and_stores_answer(void **state)
{
    (void)state;
    assert_true(support_until(loop, is_reached, NULL, SUPPORT_LIMIT_MS));
    assert_non_null(strstr(GET("/readyz"), "HTTP/1.1 503"));
    assert_non_null(strstr(GET("/readyz"), "starting"));
    monitor_serving(monitor, true);
    assert_non_null(strstr(GET("/readyz"), "HTTP/1.1 200"));
    assert_non_null(strstr(GET("/readyz"), "\"role\":\"notifier\""));
    monitor_serving(monitor, false);
    assert_non_null(strstr(GET("/readyz"), "draining"));
    assert_non_null(strstr(GET("/healthz"), "HTTP/1.1 200"));
}

static void a_store_that_refuses_is_named(void **state)
{
    const char *text;

    (void)state;
    monitor_serving(monitor, true);
    assert_true(support_until(loop, is_reached, NULL, SUPPORT_LIMIT_MS));
    broker_mood = REFUSES;
    assert_true(support_until(loop, ready_says, "broker", SUPPORT_LIMIT_MS));
    text = GET("/readyz");
    assert_non_null(strstr(text, "HTTP/1.1 503"));
    assert_non_null(strstr(text, "not reached: broker (no \\\"server\\\" at host:1)"));
    assert_non_null(strstr(text, "\"field\":\"TROUPE_BROKER\""));
    assert_non_null(strstr(GET("/metrics"), "troupe_store_up{store=\"broker\"} 0\n"));
    assert_non_null(strstr(GET("/healthz"), "HTTP/1.1 200")); /* alive all the same */
    broker_mood = ANSWERS;
    assert_true(support_until(loop, is_reached, NULL, SUPPORT_LIMIT_MS));
    assert_non_null(strstr(GET("/readyz"), "HTTP/1.1 200"));
    assert_non_null(strstr(GET("/metrics"), "troupe_store_up{store=\"broker\"} 1\n"));
}

static void without_the_registry_it_serves_on(void **state)
{
    (void)state;
    monitor_serving(monitor, true);
    assert_true(support_until(loop, is_reached, NULL, SUPPORT_LIMIT_MS));
    registry_mood = REFUSES;
    assert_true(support_until(loop, ready_says, "registry (no \"server\"", SUPPORT_LIMIT_MS));
    assert_non_null(strstr(GET("/readyz"), "HTTP/1.1 200"));
    assert_non_null(strstr(GET("/readyz"), "\"degraded\":\"registry (no \\\"server"));
    assert_non_null(strstr(GET("/metrics"), "troupe_store_up{store=\"registry\"} 0\n"));
    broker_mood = REFUSES;
    assert_true(support_until(loop, ready_says, "broker", SUPPORT_LIMIT_MS));
    assert_non_null(strstr(GET("/readyz"), "HTTP/1.1 503"));
    assert_non_null(strstr(GET("/readyz"), "host:1), registry"));
}

static void a_silent_store_is_not_waited_for(void **state)
{
    size_t before;

    (void)state;
    registry_mood = SILENT; /* its question is still under way in the end: stop() shows that it is given up */
    assert_true(support_until(loop, ready_says, "registry (no answer", SUPPORT_LIMIT_MS));
    before = checks;
    support_for(loop, 1500);
    assert_true(checks - before <= 2); /* the broker's alone: one question at a time */
}

static void metrics_are_served(void **state)
{
    static struct metric m = METRIC(METRIC_COUNTER, "t_monitor_total", NULL, "A count.");
    const char *text;

    (void)state;
    metric_add(&m, 4);
    assert_true(support_until(loop, is_reached, NULL, SUPPORT_LIMIT_MS));
    text = GET("/metrics");
    assert_non_null(strstr(text, "Content-Type: text/plain; version=0.0.4"));
    assert_non_null(strstr(text, "\nt_monitor_total 4\n"));
    assert_non_null(strstr(text, "troupe_queue_length{queue=\"notify\"} 24\n")); /* 8 partitions of 3 */
    assert_non_null(strstr(text, "troupe_store_up{store=\"history\"} 1\n"));
    text = get("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_non_null(strstr(text, "200 OK"));
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
}

static void what_is_not_a_request_is_refused(void **state)
{
    static char long_head[9000];

    (void)state;
    assert_non_null(strstr(GET("/api/characters"), "HTTP/1.1 404"));
    assert_non_null(strstr(get("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), "HTTP/1.1 405"));
    assert_non_null(strstr(get("nonsense\r\n\r\n"), "HTTP/1.1 400"));
    memset(long_head, 'a', sizeof long_head - 1);
    assert_non_null(strstr(get(long_head), "HTTP/1.1 431"));
}

static void many_clients_that_say_nothing(void **state)
{
    static struct client c[80];

    (void)state;
    for (size_t i = 0; i < 80; i++) {
        client_open(&c[i]);
        if (i % 40 == 39)
            support_for(loop, 50); /* they are accepted: the listener's backlog is short */
    }
    for (size_t i = 64; i < 80; i++)
        client_read(&c[i]); /* past the limit: closed at once */
    for (size_t i = 0; i < 32; i++)
        close(c[i].fd);
    support_for(loop, 50);
    assert_non_null(strstr(GET("/healthz"), "HTTP/1.1 200"));
    for (size_t i = 32; i < 64; i++)
        close(c[i].fd); /* while the monitor still holds them */
}

static void a_wrong_address_is_told(void **state)
{
    static const char *const rows[][2] = {
        {"nowhere", "TROUPE_METRICS_LISTEN"}, {"192.0.2.1:1", "192.0.2.1:1"}, {NULL, "in use"}};
    char taken[32];

    (void)state;
    snprintf(taken, sizeof taken, "127.0.0.1:%u", monitor_port(monitor));
    for (size_t i = 0; i < 3; i++) {
        struct config *c = NULL;
        struct role_env mine = env;
        struct monitor *m = NULL;
        struct tr_err err = {0};

        setenv("TROUPE_METRICS_LISTEN", rows[i][0] != NULL ? rows[i][0] : taken, 1);
        assert_int_equal(config_load("/nowhere", &c, NULL), TR_OK);
        unsetenv("TROUPE_METRICS_LISTEN");
        mine.config = c;
        assert_int_equal(monitor_start(&mine, "gateway", &m, &err), TR_INVALID);
        assert_null(m);
        assert_non_null(strstr(err.msg, rows[i][1]));
        assert_non_null(strstr(err.msg, "TROUPE_METRICS_LISTEN"));
        config_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ready_when_it_serves_and_stores_answer, start, stop),
        cmocka_unit_test_setup_teardown(a_store_that_refuses_is_named, start, stop),
        cmocka_unit_test_setup_teardown(without_the_registry_it_serves_on, start, stop),
        cmocka_unit_test_setup_teardown(a_silent_store_is_not_waited_for, start, stop),
        cmocka_unit_test_setup_teardown(metrics_are_served, start, stop),
        cmocka_unit_test_setup_teardown(what_is_not_a_request_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(many_clients_that_say_nothing, start, stop),
        cmocka_unit_test_setup_teardown(a_wrong_address_is_told, start, stop),
    };

    return cmocka_run_group_tests_name("monitor", tests, NULL, NULL);
}
