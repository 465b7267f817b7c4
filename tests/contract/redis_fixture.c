/* redis_fixture - see redis_fixture.h. */
#include "redis_fixture.h"

#include "base/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct loop *redis_loop;
struct registry *redis_reg;
const struct uuid redis_chat = {{0x01, 0x90, 7}};

int redis_set_up(void **state)
{
    char url[512];

    (void)state;
    snprintf(url, sizeof url, "%s?prefix=redis%d.", getenv("TROUPE_TEST_REDIS"), (int)getpid());
    assert_int_equal(loop_new(&redis_loop, NULL), TR_OK);
    assert_int_equal(redis_registry_open(redis_loop, url, &redis_reg, NULL), TR_OK);
    return 0;
}

int redis_tear_down(void **state)
{
    (void)state;
    redis_reg->ops->close(redis_reg);
    loop_drain(redis_loop);
    loop_free(redis_loop);
    return 0;
}

redisContext *redis_connect(void)
{
    struct url u = {0};
    redisContext *c;

    assert_int_equal(url_parse(getenv("TROUPE_TEST_REDIS"), 6379, &u, NULL), TR_OK);
    c = redisConnect(u.host[0].name, u.host[0].port);
    assert_true(c != NULL && c->err == 0);
    freeReplyObject(redisCommand(c, "AUTH %s", u.password));
    url_release(&u);
    return c;
}

void redis_command(const char *text)
{
    redisContext *const c = redis_connect();
    redisReply *const reply = redisCommand(c, text);

    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", text, reply->str);
    freeReplyObject(reply);
    redisFree(c);
}

void redis_on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct redis_got *)ctx)->number = number;
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    (void)names;
    wait_called(ctx, rc, err);
    ((struct redis_got *)ctx)->n = n;
}

void redis_on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct redis_got *)ctx)->n = n;
    ((struct redis_got *)ctx)->age_ms = n > 0 ? list[0].age_ms : 0;
}

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct redis_got *g = ctx;

    wait_called(&g->w, rc, err);
    if (report != NULL) {
        memcpy(g->server, report->server, sizeof g->server);
        g->clock_ms = report->clock_ms;
        memcpy(g->note, report->warning, sizeof g->note);
    }
}

enum tr_rc redis_conn_put(struct redis_got *g)
{
    *g = (struct redis_got){.w.loop = redis_loop};
    return wait_end(
        &g->w, redis_reg->ops->conn_put(redis_reg, &redis_chat, "gateway.1", 60000, wait_done, g, &g->w.op, &g->w.err));
}

enum tr_rc redis_conns(struct redis_got *g)
{
    *g = (struct redis_got){.w.loop = redis_loop};
    return wait_end(&g->w, redis_reg->ops->conns(redis_reg, &redis_chat, on_names, g, &g->w.op, &g->w.err));
}

enum tr_rc redis_join(struct registry_worker *w, struct redis_got *g)
{
    enum tr_rc rc;

    *g = (struct redis_got){.w.loop = redis_loop};
    rc = wait_end(&g->w, redis_reg->ops->worker_register(redis_reg, w, 60000, redis_on_number, g, &g->w.op, &g->w.err));
    w->number = (uint32_t)g->number;
    return rc;
}

enum tr_rc redis_refresh(const struct registry_worker *w, struct redis_got *g)
{
    *g = (struct redis_got){.w.loop = redis_loop};
    return wait_end(&g->w, redis_reg->ops->worker_refresh(redis_reg, w, 60000, wait_done, g, &g->w.op, &g->w.err));
}

enum tr_rc redis_check(const char *url, struct redis_got *g)
{
    struct registry *other = NULL;
    enum tr_rc rc;

    assert_int_equal(redis_registry_open(redis_loop, url, &other, NULL), TR_OK);
    *g = (struct redis_got){.w.loop = redis_loop};
    rc = wait_end(&g->w, other->ops->check(other, on_checked, g, &g->w.op, &g->w.err));
    other->ops->close(other);
    return rc;
}
