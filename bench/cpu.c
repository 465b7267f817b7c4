/* cpu - see cpu.h. */
#include "cpu.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t cpu_us(int pid)
{
    char path[300];
    unsigned long long ns, sum = 0;
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    dir = opendir(path);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        FILE *f;

        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
        f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (f == NULL)
            continue;
        if (fscanf(f, "%llu", &ns) == 1)
            sum += ns;
        fclose(f);
    }
    if (dir != NULL)
        closedir(dir);
    return sum / 1000;
}

/* A group of processes whose CPU time is told as one figure. */
static struct group {
    char name[32];
    int pids[128];
    size_t pids_n;
    uint64_t from; /* microseconds at the start of the count */
} groups[32];
static size_t groups_n;

bool groups_read(char *text)
{
    char *rest = NULL;

    for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        char *const eq = strchr(word, '=');
        struct group *g = groups;

        if (eq == NULL)
            return false;
        *eq = '\0';
        while (g < groups + groups_n && strcmp(g->name, word) != 0)
            g++;
        if (g == groups + sizeof groups / sizeof groups[0])
            return false;
        if (g == groups + groups_n) {
            snprintf(g->name, sizeof g->name, "%s", word);
            groups_n++;
        }
        if (g->pids_n < sizeof g->pids / sizeof g->pids[0])
            g->pids[g->pids_n++] = atoi(eq + 1);
    }
    return true;
}

/* User and system time of a group, threads that have ended included; microseconds, in steps of a tick (10 ms). */
static uint64_t group_us(const struct group *g)
{
    unsigned long long user, system, sum = 0;

    for (size_t i = 0; i < g->pids_n; i++) {
        char path[64], line[1024];
        const char *p;
        FILE *f;

        snprintf(path, sizeof path, "/proc/%d/stat", g->pids[i]);
        f = fopen(path, "r");
        if (f == NULL)
            continue;
        p = fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL; /* the name may hold blanks */
        if (p != NULL && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2)
            sum += user + system;
        fclose(f);
    }
    return sum * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

void groups_tell(size_t turns)
{
    for (struct group *g = groups; g < groups + groups_n; g++)
        printf(" cpu_%s=%.0f", g->name, turns > 0 ? (double)(group_us(g) - g->from) / (double)turns : 0);
}

void groups_start(void)
{
    for (struct group *g = groups; g < groups + groups_n; g++)
        g->from = group_us(g);
}
