/* registry (redis) - the port's side: each operation's command.  Threads: the loop's. */
#include "adapter/redis/impl.h"

#include "domain/ratelimit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT 6379
#define TICK_MS 50
#define RATE_KEY_MAX 127
#define MINUTE_US 60000000

static struct redis_registry *self(struct registry *r)
{
    return (struct redis_registry *)r;
}

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static const char *number_text(uint64_t n, char out[24])
{
    snprintf(out, 24, "%llu", (unsigned long long)n);
    return out;
}

static const char *key_of(const struct redis_registry *r, char out[RR_KEY_MAX], const char *kind, const char *name)
{
    snprintf(out, RR_KEY_MAX, "%stroupe:%s%s%s", r->prefix, kind, *name != '\0' ? ":" : "", name);
    return out;
}

static const char *chat_key(const struct redis_registry *r, char out[RR_KEY_MAX], const char *kind,
                            const struct uuid *chat)
{
    char id[UUID_TEXT];

    uuid_format(chat, id);
    return key_of(r, out, kind, id);
}

/* ---- answers ---- */

static void call_plain(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (op->done.plain != NULL)
        op->done.plain(op->ctx, rc, err);
}

/* ---- workers ---- */

static const char *record_prefix(const struct redis_registry *r, char out[RR_KEY_MAX], const char *character)
{
    snprintf(out, RR_KEY_MAX, "%stroupe:worker:%s:", r->prefix, character);
    return out;
}

static void call_worker(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.worker(op->ctx, rc, rc == TR_OK ? (uint32_t)op->number : 0, err);
}

static enum tr_rc worker_register(struct registry *reg, const struct registry_worker *w, uint64_t ttl_ms,
                                  registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char set[RR_KEY_MAX], prefix[RR_KEY_MAX], wish[24], ttl[24], age[24];
    struct buf record = {0};
    struct rr_op *op = NULL;
    enum tr_rc rc = rr_op_new(r, RR_WORKER_REGISTER, true, rr_read_register, call_worker, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.worker = done;
    rr_record_print(w, &record);
    {
        const struct slice args[] = {text("1"),
                                     text(key_of(r, set, "workers", w->character)),
                                     text(record_prefix(r, prefix, w->character)),
                                     text(w->id),
                                     text(number_text(w->number, wish)),
                                     text(number_text(ttl_ms, ttl)),
                                     {record.data, record.len},
                                     text(number_text(w->age_ms, age))};

        rc = rr_start(op, args, 8, ret_op, err);
    }
    buf_release(&record);
    return rc;
}

static enum tr_rc worker_refresh(struct registry *reg, const struct registry_worker *w, uint64_t ttl_ms,
                                 registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char set[RR_KEY_MAX], prefix[RR_KEY_MAX], key[RR_KEY_MAX], number[24], ttl[24], age[24];
    struct buf record = {0};
    struct rr_op *op = NULL;
    enum tr_rc rc = rr_op_new(r, RR_WORKER_REFRESH, true, rr_read_refresh, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    rr_record_print(w, &record);
    number_text(w->number, number);
    record_prefix(r, prefix, w->character);
    snprintf(key, sizeof key, "%.190s%s", prefix, number);
    {
        const struct slice args[] = {text("2"),
                                     text(key),
                                     text(key_of(r, set, "workers", w->character)),
                                     text(w->id),
                                     text(number_text(ttl_ms, ttl)),
                                     {record.data, record.len},
                                     text(number),
                                     text(number_text(w->age_ms, age)),
                                     text(prefix)};

        rc = rr_start(op, args, 9, ret_op, err);
    }
    buf_release(&record);
    return rc;
}

static enum tr_rc worker_remove(struct registry *reg, const struct registry_worker *w, registry_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char set[RR_KEY_MAX], key[RR_KEY_MAX], number[24];
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_WORKER_REMOVE, true, rr_read_nothing, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    number_text(w->number, number);
    record_prefix(r, key, w->character);
    strncat(key, number, sizeof key - strlen(key) - 1);
    {
        const struct slice args[] = {text("2"), text(key), text(key_of(r, set, "workers", w->character)), text(w->id),
                                     text(number)};

        return rr_start(op, args, 5, ret_op, err);
    }
}

static void call_workers(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.workers(op->ctx, rc, rc == TR_OK ? op->workers : NULL, rc == TR_OK ? op->n : 0, err);
}

static enum tr_rc workers(struct registry *reg, const char *character, registry_workers_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char set[RR_KEY_MAX], prefix[RR_KEY_MAX];
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_WORKERS, false, rr_read_workers, call_workers, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.workers = done;
    {
        const struct slice args[] = {text("1"), text(key_of(r, set, "workers", character)),
                                     text(record_prefix(r, prefix, character))};

        return rr_start(op, args, 3, ret_op, err);
    }
}

/* ---- names with an end: gateways, and the gateways of a chat ---- */

static enum tr_rc name_put(struct redis_registry *r, rr_read *read, const char *key, const char *name, uint64_t ttl_ms,
                           const char *stays, registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char ttl[24];
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_NAME_PUT, true, read, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    {
        const struct slice args[] = {text("1"), text(key), text(name), text(number_text(ttl_ms, ttl)), text(stays)};

        return rr_start(op, args, 5, ret_op, err);
    }
}

static void call_names(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.names(op->ctx, rc, op->names, rc == TR_OK ? op->n : 0, err);
}

static enum tr_rc names(struct redis_registry *r, const char *key, registry_gateways_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_NAMES, false, rr_read_names, call_names, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.names = done;
    {
        const struct slice args[] = {text("1"), text(key)};

        return rr_start(op, args, 2, ret_op, err);
    }
}

static enum tr_rc gateway_refresh(struct registry *reg, const char *gateway, uint64_t ttl_ms, registry_done *done,
                                  void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];

    return name_put(self(reg), rr_read_put_known, key_of(self(reg), key, "gateways", ""), gateway, ttl_ms, "stays",
                    done, ctx, ret_op, err);
}

static enum tr_rc gateway_remove(struct registry *reg, const char *gateway, registry_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];
    const struct slice args[] = {text("ZREM"), text(key_of(self(reg), key, "gateways", "")), text(gateway)};
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(self(reg), RR_SCRIPTS, true, rr_read_nothing, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    return rr_start(op, args, 3, ret_op, err);
}

static enum tr_rc gateways(struct registry *reg, registry_gateways_done *done, void *ctx, struct tr_op **ret_op,
                           struct tr_err *err)
{
    char key[RR_KEY_MAX];

    return names(self(reg), key_of(self(reg), key, "gateways", ""), done, ctx, ret_op, err);
}

static enum tr_rc conn_put(struct registry *reg, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                           registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];

    return name_put(self(reg), rr_read_conn_put, chat_key(self(reg), key, "conn", chat), gateway, ttl_ms, "", done, ctx,
                    ret_op, err);
}

static enum tr_rc conn_renew(struct registry *reg, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                             registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];

    return name_put(self(reg), rr_read_conn_renew, chat_key(self(reg), key, "conn", chat), gateway, ttl_ms, "", done,
                    ctx, ret_op, err);
}

/*
 * It may arrive after a put that was started later: what a connection that was given up had sent is read by the server when it
 * pleases.  So it takes only what ends no later than any put that was answered by now, and all puts have one TTL.
 */
static enum tr_rc conn_remove(struct registry *reg, const struct uuid *chat, const char *gateway, registry_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char key[RR_KEY_MAX], end[32];
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_NAME_REMOVE, true, rr_read_nothing, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    snprintf(end, sizeof end, "%.3f", r->conn_end);
    {
        const struct slice args[] = {text("1"), text(chat_key(r, key, "conn", chat)), text(gateway), text(end)};

        return rr_start(op, args, 4, ret_op, err);
    }
}

static enum tr_rc conns(struct registry *reg, const struct uuid *chat, registry_gateways_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];

    return names(self(reg), chat_key(self(reg), key, "conn", chat), done, ctx, ret_op, err);
}

/* ---- recent context ---- */

static void call_context_put(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_BUSY)
        rr_refused(op->r);
    call_plain(op, rc, err);
}

static enum tr_rc context_put(struct registry *reg, const struct uuid *chat, const struct registry_context *context,
                              uint64_t ttl_ms, registry_done *done, void *ctx, struct tr_op **ret_op,
                              struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char key[RR_KEY_MAX], ttl[24];
    struct buf value = {0};
    struct rr_op *op = NULL;
    enum tr_rc rc;

    if (context->sealed.len > REGISTRY_CONTEXT_MAX)
        return tr_fail(err, TR_INVALID, "registry: a context of %zu bytes: at most %d", context->sealed.len,
                       REGISTRY_CONTEXT_MAX);
    if (rr_is_full(r))
        return tr_fail(err, TR_BUSY, "registry: Redis is full");
    rc = rr_op_new(r, RR_SCRIPTS, true, rr_read_nothing, call_context_put, ctx, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    buf_add(&value, context->last_turn.b, sizeof context->last_turn.b);
    buf_add_be64(&value, context->change);
    buf_add(&value, context->sealed.data, context->sealed.len);
    if (value.failed) {
        rr_op_free(op);
        rc = tr_fail(err, TR_NOMEM, "registry: context");
    } else {
        const struct slice args[] = {text("SET"),
                                     text(chat_key(r, key, "context", chat)),
                                     {value.data, value.len},
                                     text("PX"),
                                     text(number_text(ttl_ms, ttl))};

        rc = rr_start(op, args, 5, ret_op, err);
    }
    buf_release(&value);
    return rc;
}

static void call_context(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.context(op->ctx, rc, rc == TR_OK ? &op->context : NULL, err);
}

static enum tr_rc context_get(struct registry *reg, const struct uuid *chat, registry_context_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];
    const struct slice args[] = {text("GET"), text(chat_key(self(reg), key, "context", chat))};
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(self(reg), RR_SCRIPTS, false, rr_read_context, call_context, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.context = done;
    return rr_start(op, args, 2, ret_op, err);
}

static enum tr_rc context_drop(struct registry *reg, const struct uuid *chat, registry_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    char key[RR_KEY_MAX];
    const struct slice args[] = {text("DEL"), text(chat_key(self(reg), key, "context", chat))};
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(self(reg), RR_SCRIPTS, true, rr_read_nothing, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    return rr_start(op, args, 2, ret_op, err);
}

/* ---- places ---- */

static void call_place(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    struct tr_err odd = {0};

    if (rc == TR_OK && op->n < 2) {
        rc = tr_fail(&odd, TR_TRANSIENT, "registry: an answer without a place");
        err = &odd;
    }
    op->done.place(op->ctx, rc, rc == TR_OK ? op->names[0] : NULL, rc == TR_OK ? op->names[1] : NULL,
                   rc == TR_OK && op->n > 2, err);
}

static enum tr_rc chat_place(struct registry *reg, const struct uuid *chat, const struct registry_place *place,
                             uint64_t ttl_ms, registry_place_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char key[RR_KEY_MAX], ttl[24];
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(r, RR_PLACE, true, rr_read_names, call_place, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.place = done;
    {
        const struct slice args[] = {text("1"),
                                     text(chat_key(r, key, "place", chat)),
                                     text(place->first),
                                     text(place->queue),
                                     text(place->stale != NULL ? place->stale : ""),
                                     text(place->was != NULL ? place->was : ""),
                                     text(number_text(ttl_ms, ttl))};

        return rr_start(op, args, 7, ret_op, err);
    }
}

/* ---- rates ---- */

static void call_rate(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.rate(op->ctx, rc, rc == TR_OK ? op->number : 0, err);
}

static enum tr_rc rate_take(struct registry *reg, const char *key, uint32_t per_minute, registry_rate_done *done,
                            void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = self(reg);
    char full[RR_KEY_MAX], interval[24], burst[24];
    struct rr_op *op = NULL;
    enum tr_rc rc;

    if (strlen(key) > RATE_KEY_MAX) /* cut, it would be another's */
        return tr_fail(err, TR_INVALID, "registry: a limit's key of %zu bytes: at most %d", strlen(key), RATE_KEY_MAX);
    rc = rr_op_new(r, RR_RATE, true, rr_read_number, call_rate, ctx, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.rate = done;
    {
        /* off: a rate that nobody reaches */
        const struct slice args[] = {text("1"), text(key_of(r, full, "rate", key)),
                                     text(number_text(per_minute != 0 ? MINUTE_US / per_minute : 0, interval)),
                                     text(number_text(ratelimit_burst(per_minute), burst))};

        return rr_start(op, args, 4, ret_op, err);
    }
}

/* ---- the service itself ---- */

static void call_check(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->done.check(op->ctx, rc, rc == TR_OK ? &op->report : NULL, err);
}

static enum tr_rc check(struct registry *reg, service_checked *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err)
{
    const struct slice args[] = {text("0")};
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(self(reg), RR_SERVER, false, rr_read_server, call_check, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.check = done;
    return rr_start(op, args, 1, ret_op, err);
}

/* There is no schema: it is enough to be let in, by a server that takes writes. */
static enum tr_rc init(struct registry *reg, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const struct slice args[] = {text("0")};
    struct rr_op *op = NULL;
    const enum tr_rc rc = rr_op_new(self(reg), RR_SERVER, false, rr_read_server, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    return rr_start(op, args, 1, ret_op, err);
}

/* ---- open, close ---- */

static void redis_registry_free(struct redis_registry *r)
{
    if (r == NULL)
        return;
    r->closing = true;
    pending_cancel_all(&r->ops);
    rr_link_close(r);
    timer_stop(r->tick);
    loop_drain(r->loop); /* a call for cancelled ones may be on its way */
    url_release(&r->url);
    free(r);
}

static void registry_close(struct registry *reg)
{
    redis_registry_free(self(reg));
}

static const struct registry_ops redis_registry_ops = {
    .scheme = "redis",
    .worker_register = worker_register,
    .worker_refresh = worker_refresh,
    .worker_remove = worker_remove,
    .workers = workers,
    .gateway_refresh = gateway_refresh,
    .gateway_remove = gateway_remove,
    .gateways = gateways,
    .conn_put = conn_put,
    .conn_renew = conn_renew,
    .conn_remove = conn_remove,
    .conns = conns,
    .context_put = context_put,
    .context_get = context_get,
    .context_drop = context_drop,
    .chat_place = chat_place,
    .rate_take = rate_take,
    .init = init,
    .check = check,
    .close = registry_close,
};

static enum tr_rc read_url(struct redis_registry *r, const char *url, struct tr_err *err)
{
    const char *prefix;
    char *end;
    enum tr_rc rc = url_parse(url, PORT, &r->url, err);

    if (rc != TR_OK)
        return rc;
    prefix = url_query(&r->url, "prefix");
    if (strcmp(r->url.scheme, "redis") != 0 || r->url.hosts != 1)
        return tr_fail(err, TR_INVALID, "not redis://:password@host:6379/0 with one host");
    if (prefix != NULL && strlen(prefix) >= sizeof r->prefix)
        return tr_fail(err, TR_INVALID, "?prefix= is longer than %zu bytes", sizeof r->prefix - 1);
    snprintf(r->prefix, sizeof r->prefix, "%s", prefix != NULL ? prefix : "");
    r->db = (unsigned)strtoul(r->url.path, &end, 10);
    if (*end != '\0' || r->db > 1000000)
        return tr_fail(err, TR_INVALID, "the path is not a database's number");
    return TR_OK;
}

enum tr_rc redis_registry_open(struct loop *loop, const char *url, struct registry **ret_registry, struct tr_err *err)
{
    struct redis_registry *r = calloc(1, sizeof *r);
    enum tr_rc rc;

    if (r == NULL)
        return tr_fail(err, TR_NOMEM, "redis registry");
    r->base.ops = &redis_registry_ops;
    r->loop = loop;
    r->ops = (struct pending_list){.loop = loop, .give_up = rr_give_up};
    rc = read_url(r, url, err);
    if (rc == TR_OK && timer_start(loop, 0, TICK_MS, rr_on_tick, r, &r->tick) != TR_OK)
        rc = tr_fail(err, TR_NOMEM, "redis registry");
    if (rc != TR_OK) {
        timer_stop(r->tick);
        url_release(&r->url);
        free(r);
        return rc;
    }
    *ret_registry = &r->base;
    return TR_OK;
}
