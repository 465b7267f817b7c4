/*
 * registry (redis) - port/registry.h on Redis 6.2 or newer, by hiredis on the loop.
 * URL: redis://[user]:password@host:6379/0?prefix=  (the prefix stands before `troupe:` in every key)
 */
#ifndef ADAPTER_REDIS_REGISTRY_H
#define ADAPTER_REDIS_REGISTRY_H

#include "base/loop.h"
#include "port/registry.h"

/* TR_INVALID: the URL; no server is needed.  The caller owns *ret_registry: ops->close(). */
enum tr_rc redis_registry_open(struct loop *loop, const char *url, struct registry **ret_registry,
                               struct tr_err *err) TR_MUST_CHECK;

#endif
