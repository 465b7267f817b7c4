/* seal_master - what seal_master.c and seal_token.c share of the master key; for nobody else. */
#ifndef DOMAIN_SEAL_MASTER_H
#define DOMAIN_SEAL_MASTER_H

#include "domain/seal.h"

#define SEAL_MASTER_VERSIONS_MAX 64

/* Each use has a key of its own, derived from the version's; the version's own key is not kept. */
struct seal_master_version {
    uint32_t version;
    uint8_t wrap[32], token[32], client[32], check[32];
};

/* In guarded memory (sodium_malloc), read-only once it is read. */
struct seal_master {
    size_t n;
    struct seal_master_version versions[SEAL_MASTER_VERSIONS_MAX]; /* rising: [0] is the oldest, [n-1] wraps */
};

/* NULL: no such version. */
const struct seal_master_version *seal_master_find(const struct seal_master *master, uint32_t version);

#endif
