/* cores - see cores.h.  More compute threads than free cores make generation collapse, so this errs on the low side. */
#include "adapter/llama/cores.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first number in a small file of the system; -1: none. */
static long file_number(const char *path)
{
    FILE *f = fopen(path, "re");
    long v = -1;

    if (f == NULL)
        return -1;
    if (fscanf(f, "%ld", &v) != 1)
        v = -1;
    fclose(f);
    return v;
}

/* Allowed processors, where the siblings of one core count once. */
static uint32_t physical(void)
{
    cpu_set_t allowed, seen;
    uint32_t n = 0;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    CPU_ZERO(&seen);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[96];
        long first;

        if (!CPU_ISSET(cpu, &allowed))
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        first = file_number(path); /* the core's lowest-numbered processor */
        if (first < 0 || first >= CPU_SETSIZE)
            first = cpu;
        if (CPU_ISSET((int)first, &seen))
            continue;
        CPU_SET((int)first, &seen);
        n++;
    }
    return n > 0 ? n : 1;
}

/* Whole cores of the container's quota; 0: no quota. */
static uint32_t quota(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    long max = -1, period = -1;

    if (f != NULL) {
        if (fscanf(f, "%ld %ld", &max, &period) != 2) /* "max 100000" is no quota */
            max = -1;
        fclose(f);
    } else {
        max = file_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        period = file_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    if (max <= 0 || period <= 0)
        return 0;
    return max < period ? 1 : (uint32_t)(max / period);
}

uint32_t cores_available(void)
{
    uint32_t cores = physical(), bound = quota();

    return bound > 0 && bound < cores ? bound : cores;
}

uint32_t cores_free(uint32_t mine)
{
    FILE *f = fopen("/proc/loadavg", "re");
    long online = sysconf(_SC_NPROCESSORS_ONLN), running = -1, others;

    if (f != NULL) {
        if (fscanf(f, "%*s %*s %*s %ld/", &running) != 1)
            running = -1;
        fclose(f);
    }
    if (online < 1 || running < 0)
        return UINT32_MAX;
    others = running > (long)mine ? running - (long)mine : 0;
    return others >= online ? 0 : (uint32_t)(online - others);
}
