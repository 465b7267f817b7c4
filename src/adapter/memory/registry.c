/*
 * registry (memory) - the registry of `troupe up`: hash tables on the loop's thread.
 * Comes from: gateways, preprocess, inference, notifier, by port/registry.h.
 *
 * Writes take effect in their start function, reads when they are answered; every answer comes from the pump, one
 * deferred call, so that no callback comes from inside a caller's own call.  Operations come out of a pool.
 * What has a TTL is looked at when it is read, and removed by a sweep of SWEEP_MAX entries a table and tick.
 * Limits: recent context CONTEXT_BYTES_MAX (the one unused longest goes first, overwritten), RATES_MAX keys,
 * WORKERS_MAX workers, CONNS_MAX chats.
 */
#include "adapter/memory/registry.h"
#include "adapter/memory/registry_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS 1000
#define POOL_MAX 1024

static struct memory_registry *self(struct registry *r)
{
    return (struct memory_registry *)r;
}

static void op_cancel(struct tr_op *handle)
{
    ((struct mr_op *)handle)->cancelled = true;
}

/* A new operation, to be answered by the pump; NULL: no memory, or closing. */
static struct mr_op *op_new(struct memory_registry *r, enum mr_kind kind, void *ctx, struct tr_op **ret_op)
{
    struct mr_op *op = r->pool;

    if (r->closing)
        return NULL;
    if (op != NULL) {
        r->pool = op->next;
        r->pool_n--;
    } else if ((op = malloc(sizeof *op)) == NULL) {
        return NULL;
    }
    *op = (struct mr_op){.op = {.cancel = op_cancel}, .kind = kind, .ctx = ctx};
    if (r->first == NULL)
        r->first = op;
    else
        r->last->next = op;
    r->last = op;
    if (!r->pump_posted) {
        r->pump_posted = true;
        loop_defer(r->loop, &r->pump);
    }
    if (ret_op != NULL)
        *ret_op = &op->op;
    return op;
}

static enum tr_rc no_op(struct memory_registry *r, struct tr_err *err)
{
    if (r->closing)
        return tr_fail(err, TR_CANCELLED, "registry: closing");
    return tr_fail(err, TR_NOMEM, "registry: out of memory");
}

/* A write's operation: its outcome stands already.  Nobody waiting (done == NULL) is fine. */
static enum tr_rc op_write(struct memory_registry *r, enum tr_rc rc, registry_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err)
{
    struct mr_op *op;

    if (done == NULL) {
        if (ret_op != NULL)
            *ret_op = NULL;
        return TR_OK;
    }
    op = op_new(r, MR_WRITE, ctx, ret_op);
    if (op == NULL)
        return no_op(r, err);
    op->done.write = done;
    op->rc = rc;
    return TR_OK;
}

static void answer_workers(struct memory_registry *r, const struct mr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    struct registry_worker *list = NULL;
    size_t n = 0;

    if (rc == TR_OK)
        rc = mr_workers_list(r, op->character, &list, &n);
    op->done.workers(op->ctx, rc, list, n, rc == TR_OK ? NULL : err);
    free(list);
}

static void answer_names(struct memory_registry *r, const struct mr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    const char **names = NULL;
    size_t n = 0;

    if (rc == TR_OK)
        rc = op->kind == MR_CONNS ? mr_conns_list(r, &op->chat, &names, &n) : mr_gateways_list(r, &names, &n);
    op->done.gateways(op->ctx, rc, names, n, rc == TR_OK ? NULL : err);
    free(names);
}

static void answer_context(struct memory_registry *r, const struct mr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    struct registry_context context;
    struct mr_blob *blob = NULL;

    if (rc == TR_OK)
        rc = mr_context_get(r, &op->chat, &context, &blob);
    op->done.context(op->ctx, rc, rc == TR_OK ? &context : NULL, rc == TR_OK ? NULL : err);
    mr_blob_release(blob);
}

/* The one place where callbacks are called. */
static void answer(struct memory_registry *r, const struct mr_op *op, bool cancelled)
{
    const enum tr_rc rc = cancelled ? TR_CANCELLED : op->rc;
    struct tr_err err = {.rc = rc};

    snprintf(err.msg, sizeof err.msg, "registry: %s", cancelled ? "given up" : "no such record");
    switch (op->kind) {
    case MR_WRITE:
        op->done.write(op->ctx, rc, rc == TR_OK ? NULL : &err);
        break;
    case MR_REGISTER:
        op->done.worker(op->ctx, rc, rc == TR_OK ? (uint32_t)op->value : 0, rc == TR_OK ? NULL : &err);
        break;
    case MR_WORKERS:
        answer_workers(r, op, rc, &err);
        break;
    case MR_GATEWAYS:
    case MR_CONNS:
        answer_names(r, op, rc, &err);
        break;
    case MR_CONTEXT:
        answer_context(r, op, rc, &err);
        break;
    case MR_PLACE:
        op->done.place(op->ctx, rc, rc == TR_OK ? op->placed->queue : NULL, rc == TR_OK ? op->placed->first : NULL,
                       rc == TR_OK && op->placed->fresh, rc == TR_OK ? NULL : &err);
        free(op->placed);
        break;
    case MR_RATE:
        op->done.rate(op->ctx, rc, rc == TR_OK ? op->value : 0, rc == TR_OK ? NULL : &err);
        break;
    }
}

/* Answer the oldest and give it back to the pool, which happens first: its handle ends where the callback begins. */
static void answer_first(struct memory_registry *r)
{
    struct mr_op *op = r->first;
    const struct mr_op was = *op;

    r->first = op->next;
    if (r->pool_n < POOL_MAX) {
        op->next = r->pool;
        r->pool = op;
        r->pool_n++;
    } else {
        free(op);
    }
    answer(r, &was, was.cancelled || r->closing);
}

static void on_pump(struct loop_call *call)
{
    struct memory_registry *r = (struct memory_registry *)((char *)call - offsetof(struct memory_registry, pump));
    const struct mr_op *last = r->last; /* what the callbacks start is for the next round */
    bool more = r->first != NULL;

    r->pump_posted = false;
    while (more && r->first != NULL) {
        more = r->first != last;
        answer_first(r);
    }
    if (r->first != NULL && !r->pump_posted && !r->closing) {
        r->pump_posted = true;
        loop_defer(r->loop, &r->pump);
    }
}

static enum tr_rc worker_register(struct registry *reg, const struct registry_worker *w, uint64_t ttl_ms,
                                  registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct memory_registry *r = self(reg);
    uint32_t number = 0;
    struct mr_op *op;
    enum tr_rc rc = mr_worker_register(r, w, ttl_ms, &number, err);

    if (rc != TR_OK)
        return rc;
    op = op_new(r, MR_REGISTER, ctx, ret_op);
    if (op == NULL)
        return no_op(r, err); /* the record ends with its TTL */
    op->done.worker = done;
    op->value = number;
    return TR_OK;
}

static enum tr_rc worker_refresh(struct registry *reg, const struct registry_worker *w, uint64_t ttl_ms,
                                 registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return op_write(self(reg), mr_worker_refresh(self(reg), w, ttl_ms), done, ctx, ret_op, err);
}

static enum tr_rc worker_remove(struct registry *reg, const struct registry_worker *w, registry_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    mr_worker_remove(self(reg), w);
    return op_write(self(reg), TR_OK, done, ctx, ret_op, err);
}

static enum tr_rc workers(struct registry *reg, const char *character, registry_workers_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err)
{
    struct mr_op *op = op_new(self(reg), MR_WORKERS, ctx, ret_op);

    if (op == NULL)
        return no_op(self(reg), err);
    op->done.workers = done;
    snprintf(op->character, sizeof op->character, "%s", character);
    return TR_OK;
}

static enum tr_rc gateway_refresh(struct registry *reg, const char *gateway, uint64_t ttl_ms, registry_done *done,
                                  void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const enum tr_rc rc = mr_gateway_refresh(self(reg), gateway, ttl_ms, err);

    return rc == TR_OK || rc == TR_NOT_FOUND ? op_write(self(reg), rc, done, ctx, ret_op, err) : rc;
}

static enum tr_rc gateway_remove(struct registry *reg, const char *gateway, registry_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    mr_gateway_remove(self(reg), gateway);
    return op_write(self(reg), TR_OK, done, ctx, ret_op, err);
}

static enum tr_rc gateways(struct registry *reg, registry_gateways_done *done, void *ctx, struct tr_op **ret_op,
                           struct tr_err *err)
{
    struct mr_op *op = op_new(self(reg), MR_GATEWAYS, ctx, ret_op);

    if (op == NULL)
        return no_op(self(reg), err);
    op->done.gateways = done;
    return TR_OK;
}

static enum tr_rc conn_put(struct registry *reg, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                           registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const enum tr_rc rc = mr_conn_put(self(reg), chat, gateway, ttl_ms, err);

    return rc == TR_OK || rc == TR_NOT_FOUND ? op_write(self(reg), TR_OK, done, ctx, ret_op, err) : rc;
}

static enum tr_rc conn_renew(struct registry *reg, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                             registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const enum tr_rc rc = mr_conn_put(self(reg), chat, gateway, ttl_ms, err);

    return rc == TR_OK || rc == TR_NOT_FOUND ? op_write(self(reg), rc, done, ctx, ret_op, err) : rc;
}

static enum tr_rc conn_remove(struct registry *reg, const struct uuid *chat, const char *gateway, registry_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    mr_conn_remove(self(reg), chat, gateway);
    return op_write(self(reg), TR_OK, done, ctx, ret_op, err);
}

static enum tr_rc conns(struct registry *reg, const struct uuid *chat, registry_gateways_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    struct mr_op *op = op_new(self(reg), MR_CONNS, ctx, ret_op);

    if (op == NULL)
        return no_op(self(reg), err);
    op->done.gateways = done;
    op->chat = *chat;
    return TR_OK;
}

static enum tr_rc context_put(struct registry *reg, const struct uuid *chat, const struct registry_context *context,
                              uint64_t ttl_ms, registry_done *done, void *ctx, struct tr_op **ret_op,
                              struct tr_err *err)
{
    const enum tr_rc rc = mr_context_put(self(reg), chat, context, ttl_ms, err);

    return rc == TR_OK ? op_write(self(reg), TR_OK, done, ctx, ret_op, err) : rc;
}

static enum tr_rc context_get(struct registry *reg, const struct uuid *chat, registry_context_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct mr_op *op = op_new(self(reg), MR_CONTEXT, ctx, ret_op);

    if (op == NULL)
        return no_op(self(reg), err);
    op->done.context = done;
    op->chat = *chat;
    return TR_OK;
}

static enum tr_rc context_drop(struct registry *reg, const struct uuid *chat, registry_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    mr_context_drop(self(reg), chat);
    return op_write(self(reg), TR_OK, done, ctx, ret_op, err);
}

static enum tr_rc chat_place(struct registry *reg, const struct uuid *chat, const struct registry_place *place,
                             uint64_t ttl_ms, registry_place_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct memory_registry *r = self(reg);
    struct mr_placed *placed = malloc(sizeof *placed);
    struct mr_op *op;
    enum tr_rc rc;

    if (placed == NULL)
        return tr_fail(err, TR_NOMEM, "registry: out of memory");
    rc = mr_place(r, chat, place, ttl_ms, placed, err);
    op = rc == TR_OK ? op_new(r, MR_PLACE, ctx, ret_op) : NULL;
    if (op == NULL) {
        free(placed);
        return rc == TR_OK ? no_op(r, err) : rc;
    }
    op->done.place = done;
    op->placed = placed;
    return TR_OK;
}

static enum tr_rc rate_take(struct registry *reg, const char *key, uint32_t per_minute, registry_rate_done *done,
                            void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct memory_registry *r = self(reg);
    uint64_t wait_ms = 0;
    struct mr_op *op;
    enum tr_rc rc = mr_rate_take(r, key, per_minute, &wait_ms, err);

    if (rc != TR_OK)
        return rc;
    op = op_new(r, MR_RATE, ctx, ret_op);
    if (op == NULL)
        return no_op(r, err);
    op->done.rate = done;
    op->value = wait_ms;
    return TR_OK;
}

static void registry_close(struct registry *reg)
{
    struct memory_registry *r = self(reg);

    r->closing = true;
    timer_stop(r->sweep);
    while (r->first != NULL)
        answer_first(r);
    if (r->pump_posted)
        loop_drain(r->loop); /* the pump's call is in the loop's list */
    mr_tables_free(r);
    while (r->pool != NULL) {
        struct mr_op *op = r->pool;

        r->pool = op->next;
        free(op);
    }
    free(r);
}

static const struct registry_ops memory_registry_ops = {
    .scheme = "memory",
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
    .close = registry_close,
};

enum tr_rc memory_registry_open(struct loop *loop, struct registry **ret_registry, struct tr_err *err)
{
    struct memory_registry *r = calloc(1, sizeof *r);

    if (r == NULL || timer_start(loop, SWEEP_MS, SWEEP_MS, mr_on_sweep, r, &r->sweep) != TR_OK) {
        free(r);
        return tr_fail(err, TR_NOMEM, "registry: out of memory");
    }
    r->base.ops = &memory_registry_ops;
    r->loop = loop;
    r->pump.fn = on_pump;
    *ret_registry = &r->base;
    return TR_OK;
}
