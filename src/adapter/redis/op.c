/*
 * op - an operation: in line until the link is up -> sent -> answered.
 * Past its deadline or cancelled it is answered at once; one that was sent is freed with its reply, which hiredis always
 * brings (NULL when the connection goes).
 */
#include "adapter/redis/impl.h"

#include <stdlib.h>
#include <string.h>

static void line_drop(struct rr_op *op)
{
    struct redis_registry *const r = op->r;

    if (!op->in_line)
        return;
    if (op->prev_line != NULL)
        op->prev_line->next_line = op->next_line;
    else
        r->line = op->next_line;
    if (op->next_line != NULL)
        op->next_line->prev_line = op->prev_line;
    else
        r->line_last = op->prev_line;
    op->in_line = false;
}

void rr_op_free(struct rr_op *op)
{
    if (op == NULL)
        return;
    free(op->args);
    free(op->workers);
    free(op->names);
    free(op);
}

/* The one place where callbacks are called.  An operation without a reply to come is freed here. */
void rr_answer(struct rr_op *op, enum tr_rc rc, const struct tr_err *err)
{
    pending_end(&op->base);
    line_drop(op);
    op->answered = true;
    op->call(op, rc, rc == TR_OK ? NULL : err);
    if (!op->sent)
        rr_op_free(op);
}

void rr_give_up(struct pending *p, bool cancelled)
{
    struct rr_op *const op = (struct rr_op *)p;
    struct tr_err err = {0};
    char where[96];
    enum tr_rc rc = cancelled ? TR_CANCELLED : op->write && op->sent ? TR_UNCERTAIN : TR_TRANSIENT;

    if (cancelled)
        tr_fail(&err, rc, "given up by the caller");
    else if (!op->sent && op->r->trouble != TR_OK)
        tr_fail(&err, rc, "%s", op->r->trouble_err.msg);
    else
        tr_fail(&err, rc, "Redis at %s: no %s within %d ms", rr_where(op->r, where), op->sent ? "answer" : "connection",
                RR_TIMEOUT_MS);
    rr_answer(op, rc, &err);
}

void rr_on_tick(void *ctx)
{
    struct redis_registry *const r = ctx;

    pending_expire(&r->ops);
    rr_link_tick(r, loop_now_ms(r->loop));
}

enum tr_rc rr_op_new(struct redis_registry *r, enum rr_script script, bool write, rr_read *read, rr_call *call,
                     void *ctx, struct rr_op **ret_op, struct tr_err *err)
{
    struct rr_op *op;

    if (r->closing)
        return tr_fail(err, TR_CANCELLED, "registry: closing");
    if (r->ops.n >= RR_OPS_MAX || r->awaited >= RR_OPS_MAX)
        return tr_fail(err, TR_BUSY, "registry: %d operations are under way", RR_OPS_MAX);
    op = calloc(1, sizeof *op);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "registry: operation");
    op->r = r;
    op->script = script;
    op->write = write;
    op->read = read;
    op->call = call;
    op->ctx = ctx;
    *ret_op = op;
    return TR_OK;
}

enum tr_rc rr_start(struct rr_op *op, const struct slice *args, int n, struct tr_op **ret_op, struct tr_err *err)
{
    struct redis_registry *const r = op->r;
    size_t size = 1;
    uint8_t *at;

    for (int i = 0; i < n; i++)
        size += args[i].len;
    op->args = at = malloc(size);
    if (op->args == NULL) {
        rr_op_free(op);
        return tr_fail(err, TR_NOMEM, "registry: operation");
    }
    op->argc = n;
    for (int i = 0; i < n; i++) {
        op->argv[i] = (char *)at;
        op->argvlen[i] = args[i].len;
        if (args[i].len > 0)
            memcpy(at, args[i].data, args[i].len);
        at += args[i].len;
    }
    pending_add(&r->ops, &op->base, RR_TIMEOUT_MS);
    op->in_line = true;
    op->prev_line = r->line_last;
    if (r->line_last != NULL)
        r->line_last->next_line = op;
    else
        r->line = op;
    r->line_last = op;
    if (ret_op != NULL)
        *ret_op = &op->base.op;
    if (r->link == RR_UP)
        rr_send_line(r);
    return TR_OK;
}

void rr_send(struct rr_op *op)
{
    const char *argv[RR_ARGS_MAX + 2];
    size_t lens[RR_ARGS_MAX + 2];
    int n = 0, sent;

    if (op->script < RR_SCRIPTS) {
        argv[n] = "EVALSHA";
        lens[n++] = 7;
        argv[n] = op->r->sha[op->script];
        lens[n++] = 40;
    }
    for (int i = 0; i < op->argc; i++) {
        argv[n] = op->argv[i];
        lens[n++] = op->argvlen[i];
    }
    sent = redisAsyncCommandArgv(op->r->ac, rr_on_reply, op, n, argv, lens);
    op->sent = sent == REDIS_OK;
    if (op->sent && op->r->awaited++ == 0)
        op->r->heard_ms = loop_now_ms(op->r->loop);
}

void rr_send_line(struct redis_registry *r)
{
    while (r->line != NULL && r->link == RR_UP) {
        struct rr_op *const op = r->line;

        rr_send(op);
        if (!op->sent)
            return; /* the link is going down: it stays in line */
        line_drop(op);
    }
}

void rr_fail_checks(struct redis_registry *r)
{
    const struct rr_op *const last =
        r->line_last; /* those that callbacks start come after it, and wait for the next try */
    struct rr_op *op = r->line, *next;
    bool more = op != NULL;

    for (; more; op = next) {
        more = op != last;
        next = op->next_line;
        if (op->script == RR_SERVER)
            rr_answer(op, r->trouble, &r->trouble_err);
    }
}

/* The script is not known any more (a restart, SCRIPT FLUSH): with its whole text, which makes it known again. */
static bool send_whole(struct rr_op *op)
{
    const char *argv[RR_ARGS_MAX + 2] = {"EVAL", rr_scripts[op->script]};
    size_t lens[RR_ARGS_MAX + 2] = {4, strlen(rr_scripts[op->script])};

    for (int i = 0; i < op->argc; i++) {
        argv[i + 2] = op->argv[i];
        lens[i + 2] = op->argvlen[i];
    }
    return redisAsyncCommandArgv(op->r->ac, rr_on_reply, op, op->argc + 2, argv, lens) == REDIS_OK;
}

void rr_on_reply(redisAsyncContext *ac, void *data, void *privdata)
{
    const redisReply *const reply = data;
    struct rr_op *const op = privdata;
    struct tr_err err = {0};
    struct redis_registry *const r = ac->data; /* NULL: dropped, and maybe closed by now */
    enum tr_rc rc;

    if (r != NULL && reply != NULL)
        r->heard_ms = loop_now_ms(r->loop);
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOSCRIPT", 8) == 0 && !op->answered &&
        op->script < RR_SCRIPTS && !op->whole && send_whole(op)) {
        op->whole = true;
        return;
    }
    if (r != NULL)
        r->awaited--;
    op->sent = false; /* nothing is to come any more: whoever answers frees it */
    if (op->answered) {
        rr_op_free(op);
        return;
    }
    if (reply == NULL)
        rc = tr_fail(&err, op->write ? TR_UNCERTAIN : TR_TRANSIENT, "the connection to Redis was lost");
    else if (reply->type == REDIS_REPLY_ERROR)
        rc = rr_error(reply->str, &err);
    else
        rc = op->read(op, reply, &err);
    rr_answer(op, rc, &err);
}
