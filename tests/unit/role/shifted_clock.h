/*
 * shifted_clock - clocks that a test can move: this program's clock_gettime() stands in for the C library's.  Include in one
 * file of a test program.
 */
#ifndef TESTS_UNIT_ROLE_SHIFTED_CLOCK_H
#define TESTS_UNIT_ROLE_SHIFTED_CLOCK_H

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HOUR_S 3600

static time_t shifted_s __attribute__((unused)); /* how far ahead the wall clock is; below 0: behind */
static time_t forward_s __attribute__((unused)); /* how far the monotonic clock, and with it the loop's, has jumped */

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    const int rc = (int)syscall(SYS_clock_gettime, clock, ts);

    if (rc == 0 && clock == CLOCK_REALTIME)
        ts->tv_sec += shifted_s;
    else if (rc == 0 && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE))
        ts->tv_sec += forward_s;
    return rc;
}

#endif
