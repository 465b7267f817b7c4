/* cores - how many processor cores this process may really use. */
#ifndef ADAPTER_LLAMA_CORES_H
#define ADAPTER_LLAMA_CORES_H

#include <stdint.h>

/* Physical cores among those that we may run on (affinity), bounded by the container's CPU quota; at least 1. */
uint32_t cores_available(void);

#endif
