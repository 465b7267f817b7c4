/* registry_fixture - see registry_fixture.h. */
#include "registry_fixture.h"

#include "adapter/memory/registry.h"
#include "adapter/redis/registry.h"

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

const struct registry_adapter registry_adapters[2] = {
    {"memory", NULL, memory_registry_open},
    {"redis", "TROUPE_TEST_REDIS", open_redis},
};
const struct registry_adapter *registry_adapter;

struct loop *registry_loop;
struct registry *registry_reg;

int registry_set_up(void **state)
{
    struct tr_err err = {0};

    (void)state;
    if (loop_new(&registry_loop, &err) == TR_OK && registry_adapter->open(registry_loop, &registry_reg, &err) == TR_OK)
        return 0;
    print_error("%s\n", err.msg);
    return -1;
}

int registry_tear_down(void **state)
{
    (void)state;
    if (registry_reg != NULL)
        registry_reg->ops->close(registry_reg);
    registry_reg = NULL;
    loop_drain(registry_loop);
    loop_free(registry_loop);
    registry_loop = NULL;
    return 0;
}

struct uuid registry_chat(uint32_t n)
{
    struct uuid id = {{0x01, 0x8f}};

    memcpy(id.b + 8, &n, sizeof n);
    return id;
}
