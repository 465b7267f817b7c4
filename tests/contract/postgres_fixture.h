/* postgres_fixture - PostgreSQL for the catalogue's suites: a database for each place, with its schema. */
#ifndef TESTS_CONTRACT_POSTGRES_FIXTURE_H
#define TESTS_CONTRACT_POSTGRES_FIXTURE_H

#include "base/loop.h"
#include "port/catalogue.h"

#include <libpq-fe.h>

/* Make the database (once a program; there already is fine) and write its URL. */
void postgres_database(const char *name, char *url, size_t size);
/* Open, and run `init` until it is done. */
enum tr_rc postgres_open_ready(struct loop *loop, const char *url, struct catalogue **ret_catalogue,
                               struct tr_err *err);
/* "127.0.0.1:PORT" of node 1, 2 or 3 (which is none of TROUPE_TEST_PG's).  Borrowed until the next. */
const char *postgres_host(int node);
/* A URL of these nodes alone, in this order, as "21". */
void postgres_url(const char *nodes, const char *database, char *url, size_t size);
/* A connection past the adapter: PQfinish() it. */
PGconn *postgres_connect(int node, const char *database);
/* A statement past the adapter, on node 1 (primary at first), 2 or 3; its first value, "" without one.  Borrowed until the next. */
const char *postgres_sql(int node, const char *database, const char *sql);

#endif
