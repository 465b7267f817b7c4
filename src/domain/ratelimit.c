/* ratelimit - see ratelimit.h.  GCRA as a virtual schedule: *tat_us is the theoretical arrival time of the next one. */
#include "domain/ratelimit.h"

#define MINUTE_US UINT64_C(60000000)

uint32_t ratelimit_burst(uint32_t per_minute)
{
    uint32_t burst = per_minute / 4;

    if (burst < 5)
        burst = 5;
    return burst < per_minute ? burst : per_minute;
}

uint64_t ratelimit_take(uint64_t *tat_us, uint32_t per_minute, uint64_t now_us)
{
    uint64_t interval, burst, tolerance, tat = *tat_us;

    if (per_minute == 0)
        return 0;
    interval = MINUTE_US / per_minute;
    burst = ratelimit_burst(per_minute);
    tolerance = (burst - 1) * interval;
    if (tat < now_us)
        tat = now_us;
    if (tat - now_us >
        burst * interval) /* the clock stepped back, or the rate was raised: never wait for more than that */
        tat = now_us + burst * interval;
    if (tat - now_us > tolerance)
        return (tat - now_us - tolerance + 999) / 1000;
    *tat_us = tat + interval;
    return 0;
}
