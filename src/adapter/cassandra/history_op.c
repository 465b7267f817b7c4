/*
 * history_op - an operation's life.
 *
 *   started -> begin() on the loop -> cass_op_send() -> an answer -> its step -> … -> cass_op_end(), once, from whichever comes first:
 *   the last step, an answer that failed, the deadline, tr_op_cancel(), close.
 * What was sent comes back in any case (or is dropped by closing the client): an operation that ended before is freed then.
 */
#include "adapter/cassandra/history_impl.h"
#include "base/metrics.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define LATE_MS 250 /* the client keeps the deadline itself; ours is for what it does not know of */
#define ANSWERS 64

static struct metric reconnections =
    METRIC(METRIC_COUNTER, "troupe_reconnections_total", "service=\"history\"", "Lost connections that came back.");

struct history_poll {
    uv_poll_t uv; /* first */
};

void cass_op_free(struct history_op *op)
{
    free(op->rows);
    free(op->chats);
    free(op->chats_ok);
    free(op->kind == OP_APPEND ? op->in.append.skip : NULL);
    free(op->kind == OP_READ ? op->in.read.turns : NULL);
    buf_release(&op->paging);
    buf_release(&op->list);
    buf_release(&op->ids);
    cass_row_set_release(&op->set);
    free(op);
}

void cass_op_drop(struct history_op *op)
{
    if (!op->answered || op->holds > 0)
        return;
    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        op->owner->ops = op->next;
    if (op->next != NULL)
        op->next->prev = op->prev;
    op->owner->ops_n--;
    cass_op_free(op);
}

static void end_with(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (op->answered)
        return;
    op->answered = true;
    if (op->slot != NULL) {
        cass_lane_leave(op);
        cass_slot_put(op->owner, op->slot);
        op->slot = NULL;
    }
    op->holds++; /* while it is called back */
    op->deliver(op, rc, err);
    op->holds--;
    cass_op_drop(op);
}

void cass_op_end(struct history_op *op, enum tr_rc rc, const char *fmt, ...)
{
    struct tr_err err = {.rc = rc};

    if (fmt != NULL) {
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(err.msg, sizeof err.msg, fmt, ap);
        va_end(ap);
    }
    end_with(op, rc, rc == TR_OK ? NULL : &err);
}

/* What an answer that is no CQL_OK comes to. */
static void op_refused(struct history_op *op, int status, const char *text)
{
    enum tr_rc rc = TR_TRANSIENT;

    if (op->on_refused != NULL) {
        op->on_refused(op, status, text);
        return;
    }
    if (status == CQL_UNCERTAIN || op->wrote)
        rc = TR_UNCERTAIN;
    if (status == CQL_NO_SCHEMA)
        cass_op_end(op, rc, "cassandra at %s: the schema is missing: run `troupe init`: %.100s", op->owner->hosts,
                    text);
    else
        cass_op_end(op, rc, "cassandra at %s: %.150s", op->owner->hosts, text);
}

static void on_begin(struct loop_call *call)
{
    struct history_op *op = (struct history_op *)((char *)call - offsetof(struct history_op, begin_call));

    op->holds--;
    if (!op->answered && !op->cancelled)
        op->begin(op);
    else
        cass_op_drop(op);
}

static void on_cancelled(struct loop_call *call)
{
    struct history_op *op = (struct history_op *)((char *)call - offsetof(struct history_op, cancel_call));

    op->holds--;
    if (op->answered)
        cass_op_drop(op);
    else
        cass_op_end(op, TR_CANCELLED, "history: cancelled");
}

static void op_cancel(struct tr_op *base)
{
    struct history_op *op = (struct history_op *)base;

    if (op->cancelled || op->answered)
        return;
    op->cancelled = true;
    op->holds++;
    loop_defer(op->owner->loop, &op->cancel_call);
}

enum tr_rc cass_op_new(struct cassandra_history *h, op_step *begin,
                       void (*deliver)(struct history_op *op, enum tr_rc rc, const struct tr_err *err), void *ctx,
                       struct history_op **ret_op, struct tr_err *err)
{
    struct history_op *op;

    if (h->closing)
        return tr_fail(err, TR_CANCELLED, "history: closing");
    if (h->ops_n >= HISTORY_OPS_MAX)
        return tr_fail(err, TR_BUSY, "history: too many operations are waiting for Cassandra");
    op = calloc(1, sizeof *op);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "history: operation");
    op->base.cancel = op_cancel;
    op->owner = h;
    op->begin = begin;
    op->deliver = deliver;
    op->ctx = ctx;
    op->begin_call.fn = on_begin;
    op->cancel_call.fn = on_cancelled;
    op->deadline_ms = loop_now_ms(h->loop) + h->timeout_ms;
    *ret_op = op;
    return TR_OK;
}

void cass_op_start(struct history_op *op, struct tr_op **ret_op)
{
    struct cassandra_history *h = op->owner;

    op->next = h->ops;
    if (h->ops != NULL)
        h->ops->prev = op;
    h->ops = op;
    h->ops_n++;
    op->holds++;
    loop_defer(h->loop, &op->begin_call);
    if (ret_op != NULL)
        *ret_op = &op->base;
}

/* ---- sending ---- */

/* What is left until the deadline. */
static uint32_t time_left(const struct history_op *op)
{
    const uint64_t now = loop_now_ms(op->owner->loop);

    return op->deadline_ms > now + 1 ? (uint32_t)(op->deadline_ms - now) : 1;
}

static void execute(struct history_op *op, struct cql_request *r, op_answer *on_answer)
{
    r->timeout_ms = time_left(op);
    r->fail_fast = op->fail_fast;
    op->write_flying = r->write;
    op->on_answer = on_answer;
    op->holds++;
    cql_execute(op->owner->cql, r, op);
}

void cass_op_send(struct history_op *op, const struct call *calls, size_t n, bool write, op_answer *on_answer)
{
    struct cql_call one[8], *all = n <= 8 ? one : malloc(n * sizeof *all);
    struct cql_request r = {.calls = all, .calls_n = n, .write = write};

    if (all == NULL) {
        cass_op_end(op, TR_NOMEM, "history: batch");
        return;
    }
    for (size_t i = 0; i < n; i++)
        all[i] = (struct cql_call){.statement = (uint32_t)calls[i].st, .n = calls[i].n, .values = calls[i].v};
    r.paging = op->paging.data;
    r.paging_len = op->paging.len;
    r.page_size = op->page_size;
    execute(op, &r, on_answer);
    buf_clear(&op->paging);
    op->page_size = 0;
    if (all != one)
        free(all);
}

void cass_op_send_text(struct history_op *op, const char *text, bool write, op_answer *on_answer)
{
    struct cql_request r = {.text = text, .write = write};

    execute(op, &r, on_answer);
}

bool cass_op_next_page(struct history_op *op, const struct cql_rows *rows)
{
    size_t len = 0;
    const uint8_t *paging = cql_paging(rows, &len);

    buf_clear(&op->paging);
    if (paging == NULL || len == 0)
        return false;
    buf_add(&op->paging, paging, len);
    return true;
}

/* ---- answers, the deadline, the end of all ---- */

static void on_done(struct cql_done *done)
{
    struct history_op *op = done->ctx;

    op->holds--;
    op->write_flying = false;
    if (op->answered)
        cass_op_drop(op);
    else if (done->status != CQL_OK)
        op_refused(op, done->status, done->error != NULL ? done->error : "");
    else
        op->on_answer(op, done->rows);
}

static void ops_answers(struct cassandra_history *h)
{
    struct cql_done done[ANSWERS];
    const size_t n = cql_poll(h->cql, done, ANSWERS);
    const uint64_t seen = cql_reconnections(h->cql);

    for (size_t i = 0; i < n; i++) {
        on_done(&done[i]);
        cql_done_free(&done[i]);
    }
    if (seen > h->reconnections) {
        metric_add(&reconnections, seen - h->reconnections);
        h->reconnections = seen;
    }
}

/* Those past their deadline: the ones that wait for a chat's lane, and what the client has not answered in time. */
static void ops_sweep(void *ctx)
{
    struct cassandra_history *h = ctx;
    const uint64_t now = loop_now_ms(h->loop);

    for (struct history_op *op = h->ops; op != NULL;) {
        struct history_op *next;

        if (op->answered || now < op->deadline_ms + (op->waiting ? 0 : LATE_MS)) {
            op = op->next;
            continue;
        }
        op->holds++; /* so that `next` is read from a living one, whatever the callback starts or cancels */
        cass_op_end(op, op->write_flying || op->wrote ? TR_UNCERTAIN : TR_TRANSIENT,
                    "cassandra at %s: no answer within %llu ms", h->hosts, (unsigned long long)h->timeout_ms);
        op->holds--;
        next = op->next;
        cass_op_drop(op);
        op = next;
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    ops_answers(poll->data);
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

enum tr_rc cass_ops_listen(struct cassandra_history *h, struct tr_err *err)
{
    h->poll = calloc(1, sizeof *h->poll);
    if (h->poll == NULL)
        return tr_fail(err, TR_NOMEM, "history: poll");
    if (uv_poll_init(loop_uv(h->loop), &h->poll->uv, cql_fd(h->cql)) != 0) {
        free(h->poll);
        h->poll = NULL;
        return tr_fail(err, TR_NOMEM, "history: poll");
    }
    h->poll->uv.data = h;
    uv_poll_start(&h->poll->uv, UV_READABLE, on_readable);
    return timer_start(h->loop, 50, 50, ops_sweep, h, &h->timer);
}

void cass_ops_close(struct cassandra_history *h)
{
    h->closing = true;
    for (struct history_op *op = h->ops; op != NULL; op = op->next) {
        op->cancelled = true; /* their begin() is not wanted any more */
        op->holds++;
    }
    for (struct history_op *op = h->ops; op != NULL; op = op->next)
        cass_op_end(op, TR_CANCELLED, "history: closing");
    timer_stop(h->timer);
    if (h->poll != NULL) {
        uv_poll_stop(&h->poll->uv);
        uv_close((uv_handle_t *)&h->poll->uv, on_poll_closed);
    }
    cql_close(h->cql); /* no answer comes any more */
    if (h->ops != NULL)
        loop_drain(h->loop); /* calls that were under way */
    while (h->ops != NULL) {
        h->ops->holds = 0;
        cass_op_drop(h->ops);
    }
    assert(h->ops_n == 0);
}
