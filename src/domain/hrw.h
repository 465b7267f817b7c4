/*
 * hrw - weighted rendezvous hashing: which worker a chat goes to.
 * Thaler & Ravishankar 1998 (highest random weight); weights by Schindelhauer & Schomaker 2005: score = -w / ln(h).
 * When the set changes, only the chats of a removed worker (or 1/n of all, to a new one) move: the theoretical minimum.
 */
#ifndef DOMAIN_HRW_H
#define DOMAIN_HRW_H

#include "domain/uuid.h"

struct hrw_node {
    uint64_t id;     /* stable: a hash of the worker's queue name, hrw_hash() */
    uint32_t weight; /* > 0; a power of two (contract 11.12) */
    uint32_t load;   /* turns under way */
    uint32_t slots;  /* so many go at once: below that it is never full */
};

uint64_t hrw_hash(const void *data, size_t len);
/* The index of the chosen one; n > 0. */
size_t hrw_choose(const struct uuid *chat, const struct hrw_node *nodes, size_t n);
/*
 * The best one with room: its load is below its slots, or below `bound_percent`/100 x its share of all load (0: no bound).
 * None has: the best.  Consistent hashing with bounded loads, Mirrokni, Thorup & Zadimoghaddam 2016.
 */
size_t hrw_choose_bounded(const struct uuid *chat, const struct hrw_node *nodes, size_t n, uint32_t bound_percent);

#endif
