/*
 * share - see share.h.  One round, every third of TROUPE_WORKER_TTL_MS: (register or refresh) -> list -> compare.
 * The record is one of port/registry.h's workers, under a name that no character can have.
 */
#include "role/notifier/share.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP "_notify" /* no character's id has a "_" */
#define ROUNDS 2        /* rounds in a row in which another's partition came to us, before it is let go of */

struct share {
    struct role_env env;
    struct loop_timer *timer;
    struct registry_worker me;
    uint64_t ttl_ms, began_ms;
    struct tr_op *op;
    bool registered, gone; /* gone: free at the callback */
    void (*yield)(void *ctx, unsigned partition);
    void *ctx;
    bool got[NOTIFY_PARTITIONS];
    unsigned rounds[NOTIFY_PARTITIONS];
};

static struct metric yielded = METRIC(METRIC_COUNTER, "troupe_notify_yielded_total", NULL,
                                      "Partitions that were let go of, for another notifier to take.");

/* First in every callback; true: it is over. */
static bool over(struct share *s)
{
    const bool gone = s->gone;

    s->op = NULL;
    if (gone)
        free(s);
    return gone;
}

/* The place of `id` in order; n: it is not there. */
static size_t place_of(const struct registry_worker *list, size_t n, const char *id)
{
    size_t before = 0, found = 0;

    for (size_t i = 0; i < n; i++) {
        const int order = strcmp(list[i].id, id);

        before += order < 0;
        found += order == 0;
    }
    return found > 0 ? before : n;
}

static void compare(struct share *s, const struct registry_worker *list, size_t n)
{
    const size_t mine = place_of(list, n, s->me.id);

    for (unsigned p = 0; p < NOTIFY_PARTITIONS; p++) {
        const bool another = mine < n && p % n != mine && s->got[p];

        s->got[p] = false;
        s->rounds[p] = another ? s->rounds[p] + 1 : 0;
        if (s->rounds[p] < ROUNDS)
            continue;
        s->rounds[p] = 0;
        metric_add(&yielded, 1);
        log_event(LOG_DEBUG, "notify.yield", "partition=%u of=%zu", p, n);
        s->yield(s->ctx, p);
    }
}

static void on_list(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct share *s = ctx;

    (void)err;
    if (!over(s) && rc == TR_OK && n > 0)
        compare(s, list, n);
}

static void ask_list(struct share *s)
{
    struct registry *r = s->env.registry;

    if (r->ops->workers(r, GROUP, on_list, s, &s->op, NULL) != TR_OK)
        s->op = NULL;
}

static void on_timer(void *ctx);

static void on_registered(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    struct share *s = ctx;

    (void)err;
    if (over(s) || rc != TR_OK)
        return;
    s->me.number = number;
    s->registered = true;
    ask_list(s);
}

static void on_refreshed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct share *s = ctx;

    (void)err;
    if (over(s))
        return;
    if (rc == TR_OK) {
        ask_list(s);
    } else if (rc == TR_NOT_FOUND) { /* the record was lost */
        s->registered = false;
        on_timer(s);
    }
}

static void on_timer(void *ctx)
{
    struct share *s = ctx;
    struct registry *r = s->env.registry;
    enum tr_rc rc;

    if (s->op != NULL)
        return; /* the registry is slow */
    s->me.age_ms = loop_now_ms(s->env.loop) - s->began_ms;
    if (s->registered)
        rc = r->ops->worker_refresh(r, &s->me, s->ttl_ms, on_refreshed, s, &s->op, NULL);
    else
        rc = r->ops->worker_register(r, &s->me, s->ttl_ms, on_registered, s, &s->op, NULL);
    if (rc != TR_OK)
        s->op = NULL;
}

enum tr_rc share_new(const struct role_env *env, void (*yield)(void *ctx, unsigned partition), void *ctx,
                     struct share **ret_share, struct tr_err *err)
{
    struct share *s = calloc(1, sizeof *s);
    enum tr_rc rc;

    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "notifier");
    s->env = *env;
    s->began_ms = loop_now_ms(env->loop);
    s->yield = yield;
    s->ctx = ctx;
    s->me = (struct registry_worker){.character = GROUP, .slots = 1, .weight = 1};
    snprintf(s->me.id, sizeof s->me.id, "%s", env->instance);
    rc = config_u64(env->config, "TROUPE_WORKER_TTL_MS", &s->ttl_ms, err);
    if (rc == TR_OK)
        rc = timer_start(env->loop, 0, s->ttl_ms / 3, on_timer, s, &s->timer);
    if (rc != TR_OK) {
        free(s);
        return rc;
    }
    *ret_share = s;
    return TR_OK;
}

void share_got(struct share *s, unsigned partition)
{
    s->got[partition] = true;
}

static void ignore(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err;
}

void share_free(struct share *s)
{
    struct registry *r;

    if (s == NULL)
        return;
    r = s->env.registry;
    timer_stop(s->timer);
    if (s->registered)
        (void)r->ops->worker_remove(r, &s->me, ignore, NULL, NULL, NULL);
    s->gone = true;
    if (s->op != NULL)
        tr_op_cancel(s->op); /* its callback frees it */
    else
        free(s);
}
