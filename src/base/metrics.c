/* metrics - the registered metrics and their Prometheus text (exposition format 0.0.4). */
#include "base/metrics.h"

#include "base/loop.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Upper bounds in microseconds: 1 ms to 5 minutes. */
static const uint64_t bounds[METRIC_BUCKETS] = {1000,     2000,     5000,      10000,    25000,   50000,
                                                100000,   250000,   500000,    1000000,  2500000, 10000000,
                                                30000000, 60000000, 120000000, 300000000};
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

static void render_process(struct buf *out)
{
    struct rusage ru;
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f != NULL) {
        if (fscanf(f, "%*u %lu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    getrusage(RUSAGE_SELF, &ru);
    buf_printf(out,
               "# HELP process_cpu_seconds_total User and system CPU time.\n# TYPE process_cpu_seconds_total counter\n"
               "process_cpu_seconds_total %.3f\n"
               "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n"
               "process_resident_memory_bytes %llu\n",
               (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                   (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6,
               (unsigned long long)pages * (unsigned long long)sysconf(_SC_PAGESIZE));
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
