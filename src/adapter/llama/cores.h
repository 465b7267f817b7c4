/* cores - how many processor cores this process may really use. */
#ifndef ADAPTER_LLAMA_CORES_H
#define ADAPTER_LLAMA_CORES_H

#include <stdint.h>

/* Physical cores among those that we may run on (affinity), bounded by the container's CPU quota; at least 1. */
uint32_t cores_available(void);
/*
 * Cores of the machine that no other thread runs on at this moment, where `mine` of the running threads are ours;
 * UINT32_MAX: the system doesn't tell.
 */
uint32_t cores_free(uint32_t mine);

#endif
