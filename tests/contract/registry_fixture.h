/* registry_fixture - an empty registry for each test, and an operation waited for; for registry.c and registry_workers.c. */
#ifndef TESTS_CONTRACT_REGISTRY_FIXTURE_H
#define TESTS_CONTRACT_REGISTRY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "port/registry.h"
#include "support.h"

struct registry_adapter {
    const char *name;
    const char *server; /* the variable with its URL; NULL: none is needed */
    enum tr_rc (*open)(struct loop *loop, struct registry **ret_registry, struct tr_err *err); /* an empty one */
};
extern const struct registry_adapter registry_adapters[2];

/* Of the running test. */
extern const struct registry_adapter *registry_adapter;
extern struct loop *registry_loop;
extern struct registry *registry_reg; /* a test may close it: NULL then */

int registry_set_up(void **state);
int registry_tear_down(void **state);

#define REGISTRY_NAMES 200 /* gateways, at most */

/* What any of the callbacks brought. */
struct registry_got {
    struct wait w; /* first */
    uint64_t number;
    size_t n;
    char name[REGISTRY_NAMES][64];
    struct registry_worker worker[8];
    struct registry_context context;
    uint8_t bytes[64];
    bool drop_inside; /* drop the context from inside the callback that looks at it */
};
/* An empty one, ready for an operation. */
#define REGISTRY_GOT                                                                                                   \
    {                                                                                                                  \
        .w.loop = registry_loop                                                                                        \
    }
/* Start an operation whose callback's context is a struct registry_got `g`, and wait for it; its rc. */
#define REGISTRY_CALL(g, start, ...)                                                                                   \
    wait_end(&(g).w, registry_reg->ops->start(registry_reg, __VA_ARGS__, &(g), &(g).w.op, &(g).w.err))

/* The id of chat number n. */
struct uuid registry_chat(uint32_t n);

#endif
