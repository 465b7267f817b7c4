/* cassandra_fixture - the client alone, beside the history: what a test of a real Cassandra looks at and writes by itself. */
#ifndef TESTS_CONTRACT_CASSANDRA_FIXTURE_H
#define TESTS_CONTRACT_CASSANDRA_FIXTURE_H

#include "adapter/cassandra/client/cql.h"
#include "history_fixture.h"

/* At the first node of the adapter's server. */
struct cql *bare_open(const char *const *statements, size_t n);
/* The answer, to be freed: cql_done_free().  Anything but CQL_OK fails the test. */
struct cql_done bare_ask(struct cql *cql, const struct cql_request *r);
void bare_run(struct cql *cql, const struct cql_request *r);
void bare_text(struct cql *cql, const char *text);
/* One number: the first cell, of 8 bytes. */
uint64_t bare_count(struct cql *cql, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
