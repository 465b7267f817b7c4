/*
 * room - what becomes of a Redis that is full and evicts nothing (maxmemory, noeviction): recent contexts are given up, and
 * nothing else.
 *
 * All that is essential is written by scripts that may go past the limit (scripts.c).  A context is not: when Redis
 * refuses one, no context is put for REFUSED_MS, and a bounded sweep removes some, those that end soonest first, at most
 * once in that time by each process.  Whoever misses its context reads the history.
 */
#include "adapter/redis/impl.h"

#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>

#define REFUSED_MS 1000

static struct metric metric_refused = METRIC(METRIC_COUNTER, "troupe_registry_context_refused_total", NULL,
                                             "Recent contexts that Redis was too full for.");
static struct metric metric_given_up = METRIC(METRIC_COUNTER, "troupe_registry_context_given_up_total", NULL,
                                              "Recent contexts that were removed because Redis was full.");

static void call_swept(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    (void)err;
    if (rc == TR_OK)
        metric_add(&metric_given_up, op->number);
}

/* The prefix may hold what SCAN takes for a pattern. */
static void add_pattern(const struct redis_registry *r, struct buf *out)
{
    for (const char *c = r->prefix; *c != '\0'; c++) {
        if (strchr("*?[]\\^-", *c) != NULL)
            buf_add_u8(out, '\\');
        buf_add_u8(out, (uint8_t)*c);
    }
    buf_add_str(out, "troupe:context:*");
}

static void sweep(struct redis_registry *r)
{
    struct buf pattern = {0};
    struct rr_op *op = NULL;

    add_pattern(r, &pattern);
    if (pattern.failed || rr_op_new(r, RR_GIVE_UP, true, rr_read_swept, call_swept, NULL, &op, NULL) != TR_OK) {
        buf_release(&pattern);
        return;
    }
    {
        const char *const cursor = r->sweep_at[0] != '\0' ? r->sweep_at : "0";
        const struct slice args[] = {
            {(const uint8_t *)"0", 1}, {(const uint8_t *)cursor, strlen(cursor)}, {pattern.data, pattern.len}};

        if (rr_start(op, args, 3, NULL, NULL) == TR_OK)
            r->swept_ms = loop_now_ms(r->loop);
    }
    buf_release(&pattern);
}

bool rr_is_full(const struct redis_registry *r)
{
    return r->refused_ms != 0 && loop_now_ms(r->loop) - r->refused_ms < REFUSED_MS;
}

void rr_refused(struct redis_registry *r)
{
    metric_add(&metric_refused, 1);
    r->refused_ms = loop_now_ms(r->loop);
    if (r->swept_ms == 0 || r->refused_ms - r->swept_ms >= REFUSED_MS)
        sweep(r);
}
