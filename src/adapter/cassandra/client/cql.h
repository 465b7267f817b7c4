/*
 * cql - Cassandra for C, over the Rust crate `scylla`: a static library (lib.rs) with a thread of its own.
 *
 * It connects by itself and stays so: opening needs no server, a request waits for a connection until its time is over, and
 * what was lost is connected again after 50 ms, doubling to 1 s.  Statements are prepared at their first use.
 * A read is sent again until it is answered or its time is over.  So is a WRITE whose end is unknown: every write that is
 * given to it must be idempotent.  Values and cells are in CQL's wire form (big endian integers, uuid = 16 bytes).
 * Threads: all functions on one thread, the one whose loop polls cql_fd().
 */
#ifndef ADAPTER_CASSANDRA_CLIENT_CQL_H
#define ADAPTER_CASSANDRA_CLIENT_CQL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cql;
struct cql_rows;

enum cql_status {
    CQL_OK = 0,
    CQL_NOT_SENT,  /* no connection, or the server said that too few replicas are alive: nothing was done */
    CQL_UNCERTAIN, /* a write without a clear answer */
    CQL_REFUSED,   /* password, rights, a statement that the server does not take */
    CQL_NO_SCHEMA, /* the keyspace or a table is missing */
};

struct cql_config {
    const char *const *hosts; /* "name:port" */
    size_t hosts_n;
    const char *user, *password; /* NULL: none */
    const char *datacenter;      /* NULL: any */
    const char *keyspace;
    bool local; /* LOCAL_QUORUM and LOCAL_SERIAL rather than QUORUM and SERIAL */
    const char *const *statements;
    size_t statements_n;
};

#define CQL_NULL (-1)
#define CQL_UNSET (-2)
struct cql_value {
    const uint8_t *data;
    int32_t len; /* or CQL_NULL, CQL_UNSET */
};

struct cql_call {
    uint32_t statement; /* index in the configuration's */
    uint32_t n;
    const struct cql_value *values;
};

struct cql_request {
    const struct cql_call *calls; /* several: one batch, of one partition */
    size_t calls_n;
    const char *text; /* without calls: this statement, unprepared */
    const uint8_t *paging;
    size_t paging_len;
    int32_t page_size; /* 0: the crate's own, 5000 rows */
    uint32_t timeout_ms;
    bool write;
    bool fail_fast; /* for checks: what cannot be sent now has failed */
};

struct cql_done {
    void *ctx;
    int status;            /* enum cql_status */
    struct cql_rows *rows; /* CQL_OK, else NULL */
    char *error;           /* not CQL_OK: for people; no value that was bound is in it */
};

/* Everything is copied.  NULL: no thread or descriptor is to be had. */
struct cql *cql_open(const struct cql_config *config);
/* Answers that were not polled are dropped; their contexts come no more.  NULL is fine. */
void cql_close(struct cql *cql);
int cql_fd(const struct cql *cql);                 /* readable when there are answers */
uint64_t cql_reconnections(const struct cql *cql); /* how often a lost connection came back */
/* Copies the request; its answer, with `ctx`, comes by cql_poll().  Never blocks. */
void cql_execute(const struct cql *cql, const struct cql_request *request, void *ctx);
/* Up to `max` answers, each to be freed; returns how many. */
size_t cql_poll(const struct cql *cql, struct cql_done *out, size_t max);
void cql_done_free(struct cql_done *done);

size_t cql_rows(const struct cql_rows *rows);                                      /* NULL: 0 */
int cql_column(const struct cql_rows *rows, const char *name);                     /* -1: not there */
struct cql_value cql_cell(const struct cql_rows *rows, size_t row, size_t column); /* borrowed from the answer */
/* What the next page is asked for with; NULL: this was the last. */
const uint8_t *cql_paging(const struct cql_rows *rows, size_t *ret_len);

#endif
