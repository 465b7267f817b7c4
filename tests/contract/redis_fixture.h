/*
 * redis_fixture - the registry in a real Redis, its operations waited for, and commands past it; shared by redis.c and
 * redis_full.c.
 */
#ifndef TESTS_CONTRACT_REDIS_FIXTURE_H
#define TESTS_CONTRACT_REDIS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/redis/impl.h"
#include "support.h"

/* Of the running test. */
extern struct loop *redis_loop;
extern struct registry *redis_reg; /* its keys begin with "redis<pid>." */
extern const struct uuid redis_chat;

int redis_set_up(void **state);
int redis_tear_down(void **state);

/* A connection past the adapter: redisFree() it. */
redisContext *redis_connect(void);
/* A command past the adapter, on a connection of its own; an error fails the test. */
void redis_command(const char *text);

/* What any of the callbacks brought. */
struct redis_got {
    struct wait w; /* first */
    uint64_t number;
    size_t n;
    uint64_t age_ms;
    char server[160], note[256];
    uint64_t clock_ms;
};
void redis_on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err);
void redis_on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err);

/* Operations that are waited for; their rc, wherever it came from.  *g: what they brought. */
enum tr_rc redis_conn_put(struct redis_got *g);                        /* redis_chat, at "gateway.1", for a minute */
enum tr_rc redis_conns(struct redis_got *g);                           /* of redis_chat */
enum tr_rc redis_join(struct registry_worker *w, struct redis_got *g); /* for a minute; w->number is set */
enum tr_rc redis_refresh(const struct registry_worker *w, struct redis_got *g);
enum tr_rc redis_check(const char *url, struct redis_got *g); /* of a registry opened for this */

#endif
