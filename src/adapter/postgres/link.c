/*
 * link - one connection a host.
 *
 *   DOWN       -> RESOLVING   pg_link_tick   it is time to try (again)
 *   RESOLVING  -> CONNECTING  on_address     libpq is given the address, and never looks a name up itself
 *   CONNECTING -> ASKING      connecting     in pipeline mode: what are you, which schema have you?
 *   ASKING     -> UP          on_probe
 *   any        -> DOWN        pg_link_lost   tried again after a pause; what was sent and not answered: a read is sent
 *                                            again elsewhere, a write is UNCERTAIN
 * Up, it is asked again every PG_PROBE_MS and when another host came up: a replica may have become the primary, and one that
 * does not answer for STUCK_MS is dropped.  What it is decides whether it is used (timeline.c).
 *
 * An operation is one statement and a sync (a transaction of its own), on a replica with a look at its WAL position before
 * it; a write is followed by another sync, with a look at the primary's position.  Answers come in the order of sending.
 */
#include "adapter/postgres/impl.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 500
#define CONNECT_MS 4000
#define STUCK_MS 6000
#define AGAIN_MAX 3

#define UP_TO_DATE "SELECT (pg_last_wal_replay_lsn() >= $1::pg_lsn)::int::int8"
#define WRITTEN "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8"

static struct metric reconnections = METRIC(METRIC_COUNTER, "troupe_reconnections_total", "service=\"catalogue\"",
                                            "Connections made anew after the first one.");

/* libpq's socket on libuv; made anew where libpq changes it. */
struct pg_socket {
    uv_poll_t poll;    /* first */
    struct pg_link *l; /* NULL: it is given up */
    int fd, events;
};

const char *pg_where(const struct pg_link *l, char out[96])
{
    const struct url *const u = &l->c->url;

    snprintf(out, 96, "%.80s:%u", u->host[l->host].name, (unsigned)u->host[l->host].port);
    return out;
}

static void on_socket(uv_poll_t *handle, int status, int events);

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle);
}

static void socket_drop(struct pg_link *l)
{
    if (l->socket == NULL)
        return;
    l->socket->l = NULL;
    uv_close((uv_handle_t *)&l->socket->poll, on_socket_closed);
    l->socket = NULL;
}

/* Be called when the socket of the connection is readable, or writable as well. */
static bool watch(struct pg_link *l, int events)
{
    const int fd = PQsocket(l->conn);

    if (l->socket != NULL && l->socket->fd != fd)
        socket_drop(l);
    if (l->socket == NULL) {
        l->socket = calloc(1, sizeof *l->socket);
        if (l->socket == NULL)
            return false;
        if (uv_poll_init(loop_uv(l->c->loop), &l->socket->poll, fd) != 0) {
            free(l->socket);
            l->socket = NULL;
            return false;
        }
        l->socket->l = l;
        l->socket->fd = fd;
    }
    if (l->socket->events != events) {
        l->socket->events = events;
        uv_poll_start(&l->socket->poll, events, on_socket);
    }
    return true;
}

/* libpq's texts have several lines; the first tells. */
static void trouble(struct pg_link *l, const char *text)
{
    static const struct {
        const char *has, *says;
    } known[] = {
        {"password authentication failed", "refuses the user or the password"},
        {"no password supplied", "wants a password: postgresql://user:password@host/database"},
        {"no pg_hba.conf entry", "does not let this machine or user in: see its pg_hba.conf"},
        {"does not exist", "has no such database or user: createdb, createuser"},
        {"permission denied", "does not give this user the rights it needs"},
        {"too many clients", NULL},
    };
    char where[96];

    pg_where(l, where);
    l->trouble = TR_TRANSIENT;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(text, known[i].has) != NULL && known[i].says != NULL) {
            l->trouble = tr_fail(&l->trouble_err, TR_INVALID, "PostgreSQL at %s %s", where, known[i].says);
            return;
        }
    tr_fail(&l->trouble_err, TR_TRANSIENT, "cannot reach PostgreSQL at %s: %.*s", where, (int)strcspn(text, "\n"),
            text);
}

static void later(struct pg_link *l)
{
    l->pause_ms = l->pause_ms == 0 ? PAUSE_FIRST_MS : l->pause_ms * 2;
    if (l->pause_ms > PAUSE_MAX_MS)
        l->pause_ms = PAUSE_MAX_MS;
    l->retry_ms = loop_now_ms(l->c->loop) + l->pause_ms / 2 + mono_ns() / 1000 % (l->pause_ms / 2 + 1);
}

void pg_link_lost(struct pg_link *l, const char *why)
{
    struct pg_op *op = l->flight, *next;

    if (l->state == PG_DOWN)
        return;
    log_event(LOG_DEBUG, "postgres.lost", "host=%s cause=%Q", l->c->url.host[l->host].name, why);
    if (!l->c->closing)
        trouble(l, why);
    resolve_stop(l->resolving);
    l->resolving = NULL;
    socket_drop(l);
    PQfinish(l->conn);
    l->conn = NULL;
    l->state = PG_DOWN;
    l->probes = 0;
    l->primary = false;
    l->flight = NULL;
    l->flight_end = &l->flight;
    later(l);
    for (; op != NULL; op = next) {
        struct tr_err err = {0};

        next = op->next;
        op->next = NULL;
        op->sent = false;
        if (op->answered) {
            pg_op_free(op);
        } else if (!op->write && op->tries++ < AGAIN_MAX) {
            pg_again(op);
        } else {
            const enum tr_rc rc = op->write ? TR_UNCERTAIN : TR_TRANSIENT;

            tr_fail(&err, rc, "the connection to PostgreSQL was lost");
            pg_answer(op, rc, &err);
        }
    }
}

/* ---- sending ---- */

static bool flush(struct pg_link *l)
{
    const int more = PQflush(l->conn);

    return more >= 0 && watch(l, UV_READABLE | (more > 0 ? UV_WRITABLE : 0));
}

static bool send_sql(struct pg_link *l, const char *sql, int n, const char *const *values, const int *lengths,
                     const int *formats)
{
    return PQsendQueryParams(l->conn, sql, n, NULL, values, lengths, formats, 1) == 1;
}

/* One of the questions that are not an operation's; `value` is its parameter, if it has one. */
static bool ask(struct pg_link *l, const char *sql, const char *value)
{
    if (!send_sql(l, sql, value != NULL ? 1 : 0, value != NULL ? &value : NULL, NULL, NULL) ||
        PQpipelineSync(l->conn) != 1 || !flush(l))
        return false;
    l->probes++;
    return true;
}

static bool probe(struct pg_link *l)
{
    l->probed_ms = loop_now_ms(l->c->loop);
    l->probe_turn = l->c->up_turns;
    l->ask_now = false;
    return ask(l, pg_probe_sql, NULL);
}

static bool send_init(struct pg_link *l)
{
    bool ok =
        send_sql(l, "SELECT pg_advisory_xact_lock(7237124578)", 0, NULL, NULL, NULL) &&
        send_sql(l,
                 "CREATE TABLE IF NOT EXISTS schema_version (version int PRIMARY KEY, applied timestamptz NOT NULL "
                 "DEFAULT now())",
                 0, NULL, NULL, NULL);

    ok = ok && send_sql(l, pg_not_newer, 0, NULL, NULL, NULL);
    for (int i = 0; i < PG_SCHEMA_VERSION && ok; i++)
        ok = send_sql(l, pg_steps[i], 0, NULL, NULL, NULL);
    return ok;
}

bool pg_link_send(struct pg_link *l, struct pg_op *op)
{
    bool ok = true;

    op->next = NULL;
    *l->flight_end = op;
    l->flight_end = &op->next;
    l->c->system = l->system;
    if (!l->primary) {
        char lsn[24];
        const char *const values[] = {lsn};

        snprintf(lsn, sizeof lsn, "%X/%X", (unsigned)(l->c->lsn >> 32), (unsigned)l->c->lsn);
        ok = send_sql(l, UP_TO_DATE, 1, values, NULL, NULL);
        op->stale_checked = true;
    }
    if (op->want == PG_INIT)
        ok = ok && send_init(l);
    else
        ok = ok && send_sql(l, op->sql, op->n, op->values, op->lengths, op->formats);
    ok = ok && PQpipelineSync(l->conn) == 1;
    op->syncs = 1;
    /* After its commit: within it, the position would be one that a replica can reach without having seen the commit. */
    if (ok && op->write && l->primary && op->want != PG_INIT) {
        ok = send_sql(l, WRITTEN, 0, NULL, NULL, NULL) && PQpipelineSync(l->conn) == 1;
        op->syncs = 2;
        op->asks_lsn = true;
    }
    if (!ok || !flush(l))
        pg_link_lost(l, PQerrorMessage(l->conn)); /* ends or re-queues the operation */
    return true;
}

/* ---- answers ---- */

static uint64_t int8_at(const PGresult *rows, int column)
{
    const uint8_t *const p = (const uint8_t *)PQgetvalue(rows, 0, column);
    uint64_t v = 0;

    if (PQntuples(rows) < 1 || PQnfields(rows) <= column || PQgetlength(rows, 0, column) != 8)
        return 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static void came_up(struct pg_link *l)
{
    if (l->state != PG_ASKING) {
        l->heard = l->probe_turn;
        return;
    }
    l->state = PG_UP;
    pg_came_up(l);
    l->pause_ms = 0;
    l->trouble = TR_OK;
    if (l->ever)
        metric_add(&reconnections, 1);
    l->ever = true;
    log_event(LOG_DEBUG, "postgres.connected", "host=%s primary=%d schema=%d timeline=%llu",
              l->c->url.host[l->host].name, (int)l->primary, l->schema, (unsigned long long)l->timeline);
}

/* The answer to a probe, or to the question for the schema's version (two columns). */
static void on_probe_rows(struct pg_link *l, const PGresult *rows)
{
    if (PQresultStatus(rows) == PGRES_FATAL_ERROR && l->schema < 0) {
        pg_link_lost(l, PQresultErrorMessage(rows)); /* what it is can't be asked */
        return;
    }
    if (PQresultStatus(rows) != PGRES_TUPLES_OK)
        return;
    if (PQnfields(rows) == 2) {
        l->schema = (int)int8_at(rows, 0);
        if (PQntuples(rows) > 0 && !PQgetisnull(rows, 0, 1))
            pg_told_mark(l, PQgetvalue(rows, 0, 1));
        return;
    }
    l->primary = int8_at(rows, 0) == 0;
    l->clock_ms = int8_at(rows, 2);
    l->clock_at_ms = loop_now_ms(l->c->loop);
    pg_told(l, int8_at(rows, 3), int8_at(rows, 4), int8_at(rows, 5));
    if (PQgetlength(rows, 0, 1) != 1 || *PQgetvalue(rows, 0, 1) == 0)
        l->schema = 0;
    else
        l->schema = -1; /* to be asked */
}

/* An old primary is told what it is: who reaches only that one reads it there. */
static bool mark_old(struct pg_link *l)
{
    const uint64_t newest = pg_newest(l->c);
    char text[48];

    if (!l->primary || l->schema != PG_SCHEMA_VERSION || pg_standing(l) != PG_OLD || l->marked >= newest)
        return true;
    l->marked = newest; /* once a probe, whatever comes of it */
    snprintf(text, sizeof text, "%llu/%llu", (unsigned long long)l->system, (unsigned long long)newest);
    return ask(l, pg_mark_sql, text);
}

/* A sync: the question before it is answered whole. */
static void on_probe_end(struct pg_link *l)
{
    bool ok;

    l->probes--;
    if (l->schema >= 0) {
        came_up(l);
        ok = mark_old(l);
    } else {
        l->schema = 0;
        ok = ask(l, pg_version_sql, NULL);
    }
    if (!ok)
        pg_link_lost(l, PQerrorMessage(l->conn));
}

static void note_error(struct pg_link *l, struct pg_op *op, const PGresult *result)
{
    const char *const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *const text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    enum tr_rc rc = TR_INVALID;

    if (op->rc != TR_OK || state == NULL)
        return;
    if (strcmp(state, "25006") == 0) { /* read only: it is no primary any more */
        l->primary = false;
        op->behind = true;
    } else if (strncmp(state, "08", 2) == 0 || strncmp(state, "53", 2) == 0 || strncmp(state, "57", 2) == 0 ||
               strncmp(state, "40", 2) == 0 || strcmp(state, "42P01") == 0 || strcmp(state, "55P03") == 0) {
        rc = TR_TRANSIENT; /* shutting down, out of something, conflicts, no such table yet */
    }
    if (strcmp(state, "42P01") == 0)
        l->schema = 0;
    op->rc = tr_fail(&op->err, rc, "PostgreSQL: %s %.160s", state, text != NULL ? text : "");
}

/* One result of the operation at the front. */
static void on_rows(struct pg_link *l, struct pg_op *op, PGresult *result)
{
    const ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_FATAL_ERROR) {
        note_error(l, op, result);
    } else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        if (op->stale_checked) { /* the first one: is the replica up to date? */
            op->stale_checked = false;
            op->behind = int8_at(result, 0) == 0;
        } else if (op->asks_lsn && op->syncs == 1) {
            op->lsn = int8_at(result, 0);
        } else if (op->rows == NULL && op->want != PG_INIT) {
            op->rows = result;
            return;
        }
    }
    PQclear(result);
}

static bool refused(const struct pg_link *l)
{
    const enum pg_standing standing = pg_standing(l);

    return standing != PG_GOOD && standing != PG_UNSURE;
}

static void on_op_end(struct pg_link *l, struct pg_op *op)
{
    struct postgres_catalogue *const c = l->c;

    op->sent = false;
    if (refused(l)) /* a newer primary was heard of meanwhile: what was done here counts as not done */
        op->ran = op->behind = true;
    else if (op->lsn != 0 && (l->timeline > c->lsn_timeline || op->lsn > c->lsn)) {
        c->lsn = op->lsn;
        c->lsn_timeline = l->timeline;
    }
    if (op->want == PG_INIT && op->rc == TR_OK && l->primary)
        l->schema = PG_SCHEMA_VERSION; /* it is asked again with the next probe */
    if (op->answered) {
        pg_op_free(op);
    } else if (op->behind && op->tries++ < AGAIN_MAX) {
        if (op->want == PG_ANY)
            op->want = PG_PRIMARY;
        pg_again(op);
    } else if (op->ran && op->behind) {
        const enum tr_rc rc = op->write ? TR_UNCERTAIN : TR_TRANSIENT;

        pg_answer(op, tr_fail(&op->err, rc, "PostgreSQL: the primary changed again and again"), &op->err);
    } else {
        if (op->rc == TR_OK && op->read != NULL)
            op->rc = op->read(op, op->rows, &op->err);
        if (op->rc == TR_TRANSIENT && op->rows != NULL && op->tries++ < AGAIN_MAX)
            pg_again(op); /* it ran, and met another process at the same row */
        else
            pg_answer(op, op->rc, &op->err);
    }
}

static void on_sync(struct pg_link *l)
{
    struct pg_op *const op = l->flight;

    if (--op->syncs > 0)
        return; /* its position is still to come */
    l->flight = op->next;
    if (l->flight == NULL)
        l->flight_end = &l->flight;
    op->next = NULL;
    on_op_end(l, op);
}

/* Take in what has come.  While it is asked what it is, nothing else is in flight. */
static void read_results(struct pg_link *l)
{
    PGconn *const conn = l->conn;

    while (conn != NULL && l->conn == conn && (l->flight != NULL || l->probes > 0) && !PQisBusy(conn)) {
        PGresult *const result = PQgetResult(conn);

        if (result == NULL)
            continue; /* between two statements */
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            if (l->probes > 0)
                on_probe_end(l);
            else
                on_sync(l);
        } else if (l->probes > 0) {
            on_probe_rows(l, result);
            PQclear(result);
        } else {
            on_rows(l, l->flight, result);
        }
    }
}

static void connecting(struct pg_link *l)
{
    switch (PQconnectPoll(l->conn)) {
    case PGRES_POLLING_READING:
        if (!watch(l, UV_READABLE))
            pg_link_lost(l, "out of memory");
        return;
    case PGRES_POLLING_WRITING:
        if (!watch(l, UV_WRITABLE))
            pg_link_lost(l, "out of memory");
        return;
    case PGRES_POLLING_OK:
        l->server_version = PQserverVersion(l->conn);
        l->state = PG_ASKING;
        l->schema = -1;
        if (PQsetnonblocking(l->conn, 1) != 0 || PQenterPipelineMode(l->conn) != 1 || !probe(l))
            pg_link_lost(l, PQerrorMessage(l->conn));
        return;
    default:
        pg_link_lost(l, PQerrorMessage(l->conn));
    }
}

static void on_socket(uv_poll_t *handle, int status, int events)
{
    struct pg_link *const l = ((struct pg_socket *)handle)->l;

    (void)events;
    if (l == NULL)
        return;
    if (l->state == PG_CONNECTING) {
        connecting(l);
    } else if (status < 0 || PQconsumeInput(l->conn) != 1 || !flush(l)) {
        pg_link_lost(l,
                     *PQerrorMessage(l->conn) != '\0' ? PQerrorMessage(l->conn) : "the server closed the connection");
    } else {
        read_results(l);
    }
    pg_pump(l->c);
}

static void on_notice(void *arg, const PGresult *notice)
{
    (void)arg, (void)notice; /* nobody's terminal */
}

static void on_address(void *ctx, const char *address, const char *why)
{
    struct pg_link *const l = ctx;
    const struct url *const u = &l->c->url;
    char port[8];
    const char *keys[] = {"hostaddr",
                          "host",
                          "port",
                          "user",
                          "password",
                          "dbname",
                          "application_name",
                          "client_encoding",
                          "connect_timeout",
                          "tcp_user_timeout",
                          NULL};
    const char *values[] = {address,     u->host[l->host].name,
                            port,        u->user,
                            u->password, u->path[0] != '\0' ? u->path : NULL,
                            "troupe",    "UTF8",
                            "4",         "6000",
                            NULL};

    l->resolving = NULL;
    if (address == NULL) {
        pg_link_lost(l, why);
        return;
    }
    snprintf(port, sizeof port, "%u", (unsigned)u->host[l->host].port);
    l->conn = PQconnectStartParams(keys, values, 0);
    if (l->conn == NULL || PQstatus(l->conn) == CONNECTION_BAD) {
        pg_link_lost(l, l->conn != NULL ? PQerrorMessage(l->conn) : "out of memory");
        return;
    }
    PQsetNoticeReceiver(l->conn, on_notice, NULL);
    l->state = PG_CONNECTING;
    if (!watch(l, UV_WRITABLE))
        pg_link_lost(l, "out of memory");
}

void pg_link_tick(struct pg_link *l, uint64_t now_ms)
{
    switch (l->state) {
    case PG_DOWN:
        if (now_ms < l->retry_ms)
            return;
        l->began_ms = now_ms;
        l->state = PG_RESOLVING;
        if (resolve_start(l->c->loop, l->c->url.host[l->host].name, on_address, l, &l->resolving, NULL) != TR_OK)
            pg_link_lost(l, "the name cannot be looked up");
        return;
    case PG_RESOLVING:
    case PG_CONNECTING:
    case PG_ASKING:
        if (now_ms - l->began_ms >= CONNECT_MS)
            pg_link_lost(l, "no answer: does it stall, or is a firewall between?");
        return;
    case PG_UP:
        if (l->probes == 0 && l->flight == NULL && (l->ask_now || now_ms - l->probed_ms >= PG_PROBE_MS)) {
            if (!probe(l))
                pg_link_lost(l, PQerrorMessage(l->conn));
        } else if (now_ms - l->probed_ms >= STUCK_MS) {
            pg_link_lost(l, "no answer for 6 s: it stalls");
        }
        return;
    }
}

void pg_link_close(struct pg_link *l)
{
    if (l->state == PG_RESOLVING) {
        resolve_stop(l->resolving);
        l->resolving = NULL;
        l->state = PG_DOWN;
    }
    pg_link_lost(l, "closing");
}
