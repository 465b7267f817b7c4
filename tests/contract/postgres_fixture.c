/* postgres_fixture - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/postgres/catalogue.h"
#include "base/url.h"
#include "postgres_fixture.h"
#include "support.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *postgres_sql(int node, const char *database, const char *sql)
{
    static char value[256];
    struct url u = {0};
    char conninfo[512];
    PGconn *conn;
    PGresult *rows;

    assert_int_equal(url_parse(getenv("TROUPE_TEST_PG"), 5432, &u, NULL), TR_OK);
    assert_true((size_t)node <= u.hosts);
    snprintf(conninfo, sizeof conninfo, "host=%s port=%u user=%s password=%s dbname=%s", u.host[node - 1].name,
             (unsigned)u.host[node - 1].port, u.user, u.password, database);
    conn = PQconnectdb(conninfo);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    rows = PQexec(conn, sql);
    if (PQresultStatus(rows) != PGRES_COMMAND_OK && PQresultStatus(rows) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(rows));
    snprintf(value, sizeof value, "%s", PQntuples(rows) > 0 ? PQgetvalue(rows, 0, 0) : "");
    PQclear(rows);
    PQfinish(conn);
    url_release(&u);
    return value;
}

void postgres_database(const char *name, char *url, size_t size)
{
    const char *const whole = getenv("TROUPE_TEST_PG");
    char sql[160];

    snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_database WHERE datname = '%s'", name);
    if (strcmp(postgres_sql(1, "troupe", sql), "0") == 0) {
        snprintf(sql, sizeof sql, "CREATE DATABASE %s", name);
        (void)postgres_sql(1, "troupe", sql);
    }
    snprintf(url, size, "%.*s/%s", (int)(strrchr(whole, '/') - whole), whole, name);
}

enum tr_rc postgres_open_ready(struct loop *loop, const char *url, struct catalogue **ret_catalogue, struct tr_err *err)
{
    struct catalogue *c = NULL;
    struct wait w = {.loop = loop};
    enum tr_rc rc = postgres_catalogue_open(loop, url, &c, err);

    if (rc != TR_OK)
        return rc;
    rc = wait_end(&w, c->ops->init(c, wait_done, &w, &w.op, &w.err));
    if (rc != TR_OK) {
        *err = w.err;
        c->ops->close(c);
        return rc;
    }
    *ret_catalogue = c;
    return TR_OK;
}
