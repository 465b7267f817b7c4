/*
 * metrics - counters, gauges and histograms in Prometheus' text format.
 * A metric is a static struct that registers itself at first use, or by metric_show() so that it stands there as 0
 * from the start.  Threads: any (atomics).
 * Names: troupe_<noun>_<unit>, seconds and bytes; counters end in _total.  docs/operations.md tells what to watch.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/buf.h"

#include <stdatomic.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
#define METRIC_BUCKETS 17

struct metric {
    enum metric_kind kind;
    const char *name;   /* troupe_turns_total */
    const char *labels; /* "finish=\"stop\"" or NULL; metrics that share a name stand together in the output */
    const char *help;
    atomic_uint_fast64_t value;                  /* counter, gauge; histogram: count */
    atomic_uint_fast64_t sum;                    /* histogram: sum of microseconds */
    atomic_uint_fast64_t bucket[METRIC_BUCKETS]; /* histogram: 1 ms … 5 min, see metrics.c */
    atomic_int registered;
    struct metric *next;
};

#define METRIC(k, n, l, h)                                                                                             \
    {                                                                                                                  \
        .kind = (k), .name = (n), .labels = (l), .help = (h)                                                           \
    }

void metric_show(struct metric *m);                    /* also while nothing was counted */
void metric_add(struct metric *m, uint64_t n);         /* counter */
void metric_set(struct metric *m, uint64_t v);         /* gauge */
void metric_observe_us(struct metric *m, uint64_t us); /* histogram, in microseconds; shown in seconds */
void metrics_render(struct buf *out);                  /* all registered metrics and the process's own figures */

#endif
