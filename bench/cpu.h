/*
 * cpu - processor time of other processes, for the benches.
 */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Time on a CPU of a process with all its threads, microseconds: from the scheduler, to the nanosecond. */
uint64_t cpu_us(int pid);

/* "NAME=PID,NAME=PID,…": those of one name are one group.  Changes `text`; false where it is not that, or too many. */
bool groups_read(char *text);
void groups_start(void); /* count from now on */
/* Print " cpu_NAME=MICROSECONDS" a turn for each group. */
void groups_tell(size_t turns);

#endif
