/* metrics - the registered metrics and their Prometheus text (exposition format 0.0.4). */
#include "base/metrics.h"

#include "base/loop.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Upper bounds in microseconds: 1 ms to 5 minutes. */
static const uint64_t bounds[METRIC_BUCKETS] = {1000,     2000,     5000,     10000,     25000,    50000,
                                                100000,   250000,   500000,   1000000,   2500000,  5000000,
                                                10000000, 30000000, 60000000, 120000000, 300000000};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric *first; /* guarded by lock; metrics of one name stand together */

static void metric_register(struct metric *m)
{
    int no = 0;
    struct metric **at;

    if (atomic_load_explicit(&m->registered, memory_order_acquire) != 0)
        return;
    pthread_mutex_lock(&lock);
    if (atomic_compare_exchange_strong(&m->registered, &no, 1)) {
        for (at = &first; *at != NULL; at = &(*at)->next)
            if (strcmp((*at)->name, m->name) == 0)
                break;
        m->next = *at != NULL ? (*at)->next : NULL;
        if (*at != NULL)
            (*at)->next = m;
        else
            *at = m;
    }
    pthread_mutex_unlock(&lock);
}

void metric_show(struct metric *m)
{
    metric_register(m);
}

void metric_add(struct metric *m, uint64_t n)
{
    metric_register(m);
    atomic_fetch_add_explicit(&m->value, n, memory_order_relaxed);
}

void metric_set(struct metric *m, uint64_t v)
{
    metric_register(m);
    atomic_store_explicit(&m->value, v, memory_order_relaxed);
}

void metric_observe_us(struct metric *m, uint64_t us)
{
    metric_register(m);
    for (size_t i = 0; i < METRIC_BUCKETS; i++)
        if (us <= bounds[i]) {
            atomic_fetch_add_explicit(&m->bucket[i], 1, memory_order_relaxed);
            break;
        }
    atomic_fetch_add_explicit(&m->sum, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->value, 1, memory_order_relaxed);
}

static void render_histogram(struct buf *out, struct metric *m)
{
    const char *const labels = m->labels != NULL ? m->labels : "";
    const char *const comma = m->labels != NULL ? "," : "";
    uint64_t n = 0;

    for (size_t i = 0; i < METRIC_BUCKETS; i++) {
        n += atomic_load_explicit(&m->bucket[i], memory_order_relaxed);
        buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", m->name, labels, comma, (double)bounds[i] / 1e6,
                   (unsigned long long)n);
    }
    buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", m->name, labels, comma,
               (unsigned long long)atomic_load_explicit(&m->value, memory_order_relaxed));
    buf_printf(out, "%s_sum%s%s%s %.6f\n", m->name, *labels ? "{" : "", labels, *labels ? "}" : "",
               (double)atomic_load_explicit(&m->sum, memory_order_relaxed) / 1e6);
    buf_printf(out, "%s_count%s%s%s %llu\n", m->name, *labels ? "{" : "", labels, *labels ? "}" : "",
               (unsigned long long)atomic_load_explicit(&m->value, memory_order_relaxed));
}

/* A figure of the process itself, under the names that Prometheus' client libraries use. */
static void render_one(struct buf *out, const char *name, const char *kind, const char *help, double value)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, kind, name, value);
}

/* How long ago the process was started. */
static uint64_t process_age_ms(void)
{
    unsigned long long start_ticks = 0;
    double up = 0;
    FILE *f = fopen("/proc/uptime", "re");

    if (f != NULL) {
        if (fscanf(f, "%lf", &up) != 1)
            up = 0;
        fclose(f);
    }
    f = fopen("/proc/self/stat", "re");
    if (f != NULL) { /* "pid (name) state ppid …": the 22nd is the start; our name has no space in it */
        if (fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                   &start_ticks) != 1)
            start_ticks = 0;
        fclose(f);
    }
    up -= (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
    return up > 0 ? (uint64_t)(up * 1000) : 0;
}

static double open_files(void)
{
    DIR *const d = opendir("/proc/self/fd");
    double n = 0;

    if (d == NULL)
        return 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 3; /* ".", ".." and the folder itself */
}

static void render_process(struct buf *out)
{
    static atomic_uint_fast64_t started_ms;
    uint64_t none = 0;
    struct rusage ru;
    struct rlimit files = {0};
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f != NULL) {
        if (fscanf(f, "%*u %lu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    getrusage(RUSAGE_SELF, &ru);
    getrlimit(RLIMIT_NOFILE, &files);
    atomic_compare_exchange_strong(&started_ms, &none, wall_ms() - process_age_ms());
    render_one(out, "process_cpu_seconds_total", "counter", "User and system CPU time.",
               (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                   (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    render_one(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
               (double)pages * (double)sysconf(_SC_PAGESIZE));
    render_one(out, "process_open_fds", "gauge", "Open files.", open_files());
    render_one(out, "process_max_fds", "gauge", "Open files allowed.", (double)files.rlim_cur);
    render_one(out, "process_start_time_seconds", "gauge", "When the process started, since 1970.",
               (double)atomic_load(&started_ms) / 1000);
    buf_printf(out, "# HELP troupe_build_info The version of this program.\n# TYPE troupe_build_info gauge\n"
                    "troupe_build_info{version=\"" TROUPE_VERSION "\"} 1\n");
}

void metrics_render(struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const char *name = "";

    pthread_mutex_lock(&lock);
    for (struct metric *m = first; m != NULL; m = m->next) {
        if (strcmp(name, m->name) != 0)
            buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
        name = m->name;
        if (m->kind == METRIC_HISTOGRAM)
            render_histogram(out, m);
        else
            buf_printf(out, "%s%s%s%s %llu\n", m->name, m->labels != NULL ? "{" : "",
                       m->labels != NULL ? m->labels : "", m->labels != NULL ? "}" : "",
                       (unsigned long long)atomic_load_explicit(&m->value, memory_order_relaxed));
    }
    pthread_mutex_unlock(&lock);
    render_process(out);
}
