/* history_service - init and check: see port/service.h. */
#include "adapter/cassandra/history_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INIT_TIMEOUT_MS 120000

static bool is_about_password(const char *text)
{
    return strcasestr(text, "authenticat") != NULL || strcasestr(text, "credentials") != NULL ||
           strcasestr(text, "password") != NULL;
}

/* The ways in which a server is not there or does not let us in. */
static void end_refused(struct history_op *op, int status, const char *text)
{
    const struct cassandra_history *h = op->owner;

    if (status == CQL_NOT_SENT || status == CQL_UNCERTAIN)
        cass_op_end(op, TR_TRANSIENT,
                    "Cassandra at %s does not answer (%.90s): is it running, and are these its host and port?",
                    h->hosts, text);
    else if (is_about_password(text))
        cass_op_end(op, TR_INVALID,
                    "Cassandra at %s does not let user '%.40s' in: wrong user or password; set them in TROUPE_HISTORY",
                    h->hosts, h->url.user != NULL ? h->url.user : "");
    else
        cass_op_end(op, TR_INVALID, "Cassandra at %s refuses: %.160s", h->hosts, text);
}

/* ---- check ---- */

static void check_refused(struct history_op *op, int status, const char *text)
{
    if (status == CQL_NO_SCHEMA)
        cass_op_end(op, TR_NOT_FOUND, "Cassandra at %s has no keyspace '%s' with Troupe's tables: run `troupe init`",
                    op->owner->hosts, op->owner->url.path);
    else
        end_refused(op, status, text);
}

static void on_version(struct history_op *op, const struct cql_rows *rows)
{
    const struct cassandra_history *h = op->owner;
    const int32_t version = cass_cell_i32(cass_cell_named(rows, 0, "version"));

    if (version < SCHEMA_VERSION)
        cass_op_end(op, TR_NOT_FOUND,
                    "Cassandra at %s: the schema of '%s' is of version %d, this build wants %d: run `troupe init`",
                    h->hosts, h->url.path, (int)version, SCHEMA_VERSION);
    else if (version > SCHEMA_VERSION)
        cass_op_end(
            op, TR_INVALID,
            "Cassandra at %s: the schema of '%s' is of version %d, newer than this build's %d: use a newer troupe",
            h->hosts, h->url.path, (int)version, SCHEMA_VERSION);
    else
        cass_op_end(op, TR_OK, NULL);
}

static void on_server(struct history_op *op, const struct cql_rows *rows)
{
    char version[40], cluster[60];
    struct call c;

    cass_cell_text(cass_cell_named(rows, 0, "release_version"), version, sizeof version);
    cass_cell_text(cass_cell_named(rows, 0, "cluster_name"), cluster, sizeof cluster);
    op->report.clock_ms = cass_cell_u64(cass_cell_named(rows, 0, "now"));
    snprintf(op->report.server, sizeof op->report.server, "Cassandra %.24s at %.70s, cluster %.30s", version,
             op->owner->hosts, cluster);
    cass_call_init(&c, ST_VERSION);
    cass_op_send(op, &c, 1, false, on_version);
}

void cass_begin_check(struct history_op *op)
{
    struct call c;

    op->fail_fast = true;
    op->on_refused = check_refused;
    cass_call_init(&c, ST_SERVER);
    cass_op_send(op, &c, 1, false, on_server);
}

/* ---- init ---- */

static void init_table(struct history_op *op, const struct cql_rows *rows);

static void on_noted(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows;
    cass_op_end(op, TR_OK, NULL);
}

static void init_table(struct history_op *op, const struct cql_rows *rows)
{
    const char *ddl = cass_ddl[op->in.admin.at];
    char text[1500];

    (void)rows;
    op->in.admin.at++;
    if (ddl == NULL) {
        snprintf(text, sizeof text, "INSERT INTO %s.schema_version (id, version) VALUES (1, %d)", op->owner->url.path,
                 SCHEMA_VERSION);
        cass_op_send_text(op, text, true, on_noted);
        return;
    }
    cass_statement(ddl, op->owner->url.path, text, sizeof text);
    cass_op_send_text(op, text, true, init_table);
}

static void init_keyspace(struct history_op *op)
{
    char text[256];

    op->on_refused = end_refused;
    snprintf(text, sizeof text,
             "CREATE KEYSPACE IF NOT EXISTS %s WITH replication ="
             " {'class': 'NetworkTopologyStrategy', 'replication_factor': %u}",
             op->owner->url.path, (unsigned)op->owner->replication);
    cass_op_send_text(op, text, true, init_table);
}

static void init_refused(struct history_op *op, int status, const char *text)
{
    if (status == CQL_NO_SCHEMA)
        init_keyspace(op); /* the first time */
    else
        end_refused(op, status, text);
}

static void on_init_version(struct history_op *op, const struct cql_rows *rows)
{
    const int32_t version = cass_cell_i32(cass_cell_named(rows, 0, "version"));

    if (version > SCHEMA_VERSION)
        cass_op_end(
            op, TR_INVALID,
            "Cassandra at %s: the schema of '%s' is of version %d, newer than this build's %d: use a newer troupe",
            op->owner->hosts, op->owner->url.path, (int)version, SCHEMA_VERSION);
    else
        init_keyspace(op);
}

void cass_begin_init(struct history_op *op)
{
    struct call c;

    op->on_refused = init_refused;
    if (op->deadline_ms < loop_now_ms(op->owner->loop) + INIT_TIMEOUT_MS)
        op->deadline_ms = loop_now_ms(op->owner->loop) + INIT_TIMEOUT_MS; /* tables take their time */
    cass_call_init(&c, ST_VERSION);
    cass_op_send(op, &c, 1, false, on_init_version);
}
