/* postgres_fixture - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/postgres/catalogue.h"
#include "postgres_fixture.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *postgres_host(int node)
{
    static char host[40];
    char path[512];
    unsigned port[3];
    FILE *f;

    snprintf(path, sizeof path, "%s/ports", getenv("TROUPE_TEST_PG_DIR"));
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%u %u %u", &port[0], &port[1], &port[2]), 3);
    fclose(f);
    snprintf(host, sizeof host, "127.0.0.1:%u", port[node - 1]);
    return host;
}

void postgres_url(const char *nodes, const char *database, char *url, size_t size)
{
    size_t len = (size_t)snprintf(url, size, "postgresql://troupe:tr-secret@");

    for (const char *n = nodes; *n != '\0'; n++)
        len += (size_t)snprintf(url + len, size - len, "%s%s", n == nodes ? "" : ",", postgres_host(*n - '0'));
    snprintf(url + len, size - len, "/%s", database);
}

PGconn *postgres_connect(int node, const char *database)
{
    char url[512];
    PGconn *conn;

    postgres_url((const char[]){(char)('0' + node), '\0'}, database, url, sizeof url);
    conn = PQconnectdb(url);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    return conn;
}

const char *postgres_sql(int node, const char *database, const char *sql)
{
    static char value[256];
    PGconn *const conn = postgres_connect(node, database);
    PGresult *rows;

    rows = PQexec(conn, sql);
    if (PQresultStatus(rows) != PGRES_COMMAND_OK && PQresultStatus(rows) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQresultErrorMessage(rows));
    snprintf(value, sizeof value, "%s", PQntuples(rows) > 0 ? PQgetvalue(rows, 0, 0) : "");
    PQclear(rows);
    PQfinish(conn);
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
