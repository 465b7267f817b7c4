/*
 * op - an operation: in line until a fitting link is up -> in flight -> answered.
 * Past its deadline or cancelled it is answered at once; one that was sent is freed when its answer comes or its connection
 * goes.  A read that met a replica behind our own writes goes to the primary.
 */
#include "adapter/postgres/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pg_op_free(struct pg_op *op)
{
    if (op == NULL)
        return;
    PQclear(op->rows);
    free(op->args);
    free(op);
}

static void line_drop(struct pg_op *op)
{
    struct pg_op **at = &op->c->line;

    if (!op->in_line)
        return;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    if (op->next == NULL)
        op->c->line_end = at;
    op->next = NULL;
    op->in_line = false;
}

static void line_add(struct pg_op *op)
{
    op->next = NULL;
    op->in_line = true;
    *op->c->line_end = op;
    op->c->line_end = &op->next;
}

void pg_answer(struct pg_op *op, enum tr_rc rc, const struct tr_err *err)
{
    pending_end(&op->base);
    line_drop(op);
    op->answered = true;
    op->call(op, rc, op->rows, rc == TR_OK ? NULL : err);
    if (!op->sent)
        pg_op_free(op);
}

/* The first host that is up and refused, a primary before a replica, in words; false: there is none. */
static bool refused_text(const struct postgres_catalogue *c, bool replicas, char *out, size_t size)
{
    out[0] = '\0';
    for (int round = 0; round <= replicas; round++)
        for (size_t i = 0; i < c->url.hosts && out[0] == '\0'; i++)
            if (c->link[i].state == PG_UP && (round == 1 || c->link[i].primary))
                pg_standing_text(&c->link[i], out, size);
    return out[0] != '\0';
}

/* Why nothing was sent: a primary that is refused, and what the hosts' troubles are. */
static void why_not(const struct postgres_catalogue *c, enum tr_rc rc, struct tr_err *err)
{
    char where[96], text[sizeof err->msg];

    if (refused_text(c, false, text, sizeof text)) {
        const char *trouble = "";

        for (size_t i = 0; i < c->url.hosts && *trouble == '\0'; i++)
            if (c->link[i].state != PG_UP && c->link[i].trouble != TR_OK)
                trouble = c->link[i].trouble_err.msg;
        tr_fail(err, rc, "PostgreSQL at %.190s%s%s", text, *trouble != '\0' ? "; " : "", trouble);
        return;
    }

    for (size_t i = 0; i < c->url.hosts; i++) {
        const struct pg_link *const l = &c->link[i];

        if (l->state != PG_UP && l->trouble != TR_OK) {
            tr_fail(err, rc, "%s", l->trouble_err.msg);
            return;
        }
        if (l->state == PG_UP && l->primary && l->schema != PG_SCHEMA_VERSION) {
            tr_fail(err, rc, "PostgreSQL at %s: the schema is %s", pg_where(l, where),
                    l->schema > PG_SCHEMA_VERSION ? "of a newer version: run the newer build"
                                                  : "missing or older: run `troupe init`");
            return;
        }
    }
    tr_fail(err, rc, "PostgreSQL: none of the %zu hosts is a primary that can be reached", c->url.hosts);
}

void pg_give_up(struct pending *p, bool cancelled)
{
    struct pg_op *const op = (struct pg_op *)p;
    struct tr_err err = {0};
    const bool may_be_done = op->write && (op->sent || op->ran);
    const enum tr_rc rc = cancelled ? TR_CANCELLED : may_be_done ? TR_UNCERTAIN : TR_TRANSIENT;

    if (cancelled)
        tr_fail(&err, rc, "given up by the caller");
    else if (op->sent)
        tr_fail(&err, rc, "PostgreSQL: no answer within %d ms", PG_TIMEOUT_MS);
    else
        why_not(op->c, rc, &err);
    pg_answer(op, rc, &err);
}

void pg_on_tick(void *ctx)
{
    struct postgres_catalogue *const c = ctx;
    const uint64_t now = loop_now_ms(c->loop);

    pending_expire(&c->ops);
    for (size_t i = 0; i < c->url.hosts; i++)
        pg_link_tick(&c->link[i], now);
    pg_pump(c);
}

enum tr_rc pg_op_new(struct postgres_catalogue *c, enum pg_want want, bool write, const char *sql, pg_read *read,
                     pg_call *call, void *ctx, struct pg_op **ret_op, struct tr_err *err)
{
    struct pg_op *op;

    if (c->closing)
        return tr_fail(err, TR_CANCELLED, "catalogue: closing");
    if (c->ops.n >= PG_OPS_MAX)
        return tr_fail(err, TR_BUSY, "catalogue: %d operations are under way", PG_OPS_MAX);
    op = calloc(1, sizeof *op);
    if (op == NULL)
        return tr_fail(err, TR_NOMEM, "catalogue: operation");
    op->c = c;
    op->want = want;
    op->write = write;
    op->sql = sql;
    op->read = read;
    op->call = call;
    op->ctx = ctx;
    *ret_op = op;
    return TR_OK;
}

void pg_text(struct pg_op *op, const char *value)
{
    op->values[op->n] = value;
    op->lengths[op->n++] = (int)strlen(value);
}

void pg_bytes(struct pg_op *op, struct slice value)
{
    op->values[op->n] = value.len > 0 ? (const char *)value.data : "";
    op->lengths[op->n] = (int)value.len;
    op->formats[op->n++] = 1;
}

enum tr_rc pg_start(struct pg_op *op, struct tr_op **ret_op, struct tr_err *err)
{
    struct postgres_catalogue *const c = op->c;
    size_t size = 1;
    char *at;

    for (int i = 0; i < op->n; i++)
        size += (size_t)op->lengths[i] + 1;
    op->args = at = malloc(size);
    if (op->args == NULL) {
        pg_op_free(op);
        return tr_fail(err, TR_NOMEM, "catalogue: operation");
    }
    for (int i = 0; i < op->n; i++) {
        memcpy(at, op->values[i], (size_t)op->lengths[i]);
        at[op->lengths[i]] = '\0';
        op->values[i] = at;
        at += op->lengths[i] + 1;
    }
    pending_add(&c->ops, &op->base, PG_TIMEOUT_MS);
    line_add(op);
    if (ret_op != NULL)
        *ret_op = &op->base.op;
    if (op->want != PG_CHECK) /* that one may be answered at once, which must not be now */
        pg_pump(c);
    return TR_OK;
}

void pg_again(struct pg_op *op)
{
    PQclear(op->rows);
    op->rows = NULL;
    op->rc = TR_OK;
    op->err = (struct tr_err){0};
    op->behind = op->stale_checked = op->asks_lsn = false;
    op->lsn = 0;
    op->sent = false;
    line_add(op);
}

/* ---- who gets what ---- */

/* Up, to be used, and not about to be asked what it is: then nothing else may be in flight. */
static bool open_for(const struct pg_link *l, bool with_schema)
{
    return l->state == PG_UP && l->probes == 0 && !l->ask_now &&
           loop_now_ms(l->c->loop) - l->probed_ms < 2 * PG_PROBE_MS &&
           (!with_schema || l->schema == PG_SCHEMA_VERSION) && pg_standing(l) == PG_GOOD;
}

static struct pg_link *choose(struct postgres_catalogue *c, const struct pg_op *op)
{
    struct pg_link *primary = NULL;

    for (size_t i = 0; i < c->url.hosts; i++) {
        struct pg_link *const l = &c->link[(c->turn + i) % c->url.hosts];

        if (op->want == PG_ANY && !l->primary && open_for(l, true)) {
            c->turn = l->host + 1;
            return l;
        }
        if (l->primary && primary == NULL && open_for(l, op->want != PG_INIT))
            primary = l;
    }
    return primary;
}

/* What is known of the hosts, in one line; false: not enough yet. */
static bool answer_check(struct pg_op *op)
{
    struct postgres_catalogue *const c = op->c;
    const struct pg_link *primary = NULL;
    struct tr_err err = {0};
    size_t replicas = 0;
    char where[96];

    for (size_t i = 0; i < c->url.hosts; i++) {
        const struct pg_link *const l = &c->link[i];

        if (l->state != PG_UP ? l->trouble == TR_OK : pg_standing(l) == PG_UNSURE)
            return false;
        if (l->state != PG_UP || pg_standing(l) != PG_GOOD)
            continue;
        if (l->primary)
            primary = l;
        replicas += !l->primary;
    }
    if (primary == NULL) {
        enum tr_rc rc = TR_TRANSIENT;

        for (size_t i = 0; i < c->url.hosts; i++)
            if (c->link[i].state != PG_UP && c->link[i].trouble == TR_INVALID)
                rc = TR_INVALID;
        why_not(c, rc, &err);
        pg_answer(op, rc, &err);
    } else if (primary->schema < PG_SCHEMA_VERSION) {
        tr_fail(&err, TR_NOT_FOUND, "PostgreSQL at %s: the schema is %s: run `troupe init`", pg_where(primary, where),
                primary->schema == 0 ? "missing" : "older than this build's");
        pg_answer(op, TR_NOT_FOUND, &err);
    } else if (primary->schema > PG_SCHEMA_VERSION) {
        tr_fail(&err, TR_INVALID,
                "PostgreSQL at %s: its schema is of a newer version (%d, this build knows %d): run the newer build",
                pg_where(primary, where), primary->schema, PG_SCHEMA_VERSION);
        pg_answer(op, TR_INVALID, &err);
    } else {
        snprintf(op->report.server, sizeof op->report.server, "PostgreSQL %d.%d at %s, %zu of %zu replicas",
                 primary->server_version / 10000, primary->server_version % 10000, pg_where(primary, where), replicas,
                 c->url.hosts - 1);
        refused_text(c, true, op->report.warning, sizeof op->report.warning);
        op->report.clock_ms = primary->clock_ms + (loop_now_ms(c->loop) - primary->clock_at_ms);
        pg_answer(op, TR_OK, NULL);
    }
    return true;
}

void pg_pump(struct postgres_catalogue *c)
{
    struct pg_op *op = c->line, *next;

    if (c->pumping)
        return;
    c->pumping = true;
    for (; op != NULL; op = next) {
        struct pg_link *l;

        next = op->next;
        if (op->want == PG_CHECK) {
            if (answer_check(op))
                next = c->line; /* a callback may have changed the line */
            continue;
        }
        l = choose(c, op);
        if (l == NULL)
            continue;
        line_drop(op);
        op->sent = true;
        if (!pg_link_send(l, op)) {
            op->sent = false;
            line_add(op);
            break; /* the link is going down */
        }
    }
    c->pumping = false;
}
