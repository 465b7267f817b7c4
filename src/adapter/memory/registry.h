/* registry (memory) - workers, connections, recent context and rate limits of one process.  See registry.c's head. */
#ifndef ADAPTER_MEMORY_REGISTRY_H
#define ADAPTER_MEMORY_REGISTRY_H

#include "base/loop.h"
#include "port/registry.h"

/* TR_OK: *ret_registry is owned by the caller: ret_registry->ops->close() it. */
enum tr_rc memory_registry_open(struct loop *loop, struct registry **ret_registry, struct tr_err *err) TR_MUST_CHECK;

#endif
