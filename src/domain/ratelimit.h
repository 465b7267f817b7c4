/* ratelimit - GCRA (ITU-T I.371): a steady rate with a burst, in one number a key.  Pure. */
#ifndef DOMAIN_RATELIMIT_H
#define DOMAIN_RATELIMIT_H

#include "base/result.h"

/*
 * May one more happen at now_us, at `per_minute` a minute with bursts of a quarter of that (at least 5, or per_minute
 * where that is less)?  *tat_us is the key's state, 0 at first.  Returns 0: yes, counted; else milliseconds to wait.
 * per_minute 0: always yes.
 */
uint64_t ratelimit_take(uint64_t *tat_us, uint32_t per_minute, uint64_t now_us);

/* How many may come at once at this rate. */
uint32_t ratelimit_burst(uint32_t per_minute);

#endif
