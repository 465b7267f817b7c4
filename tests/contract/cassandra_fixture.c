/* cassandra_fixture - see cassandra_fixture.h. */
#ifdef TROUPE_WITH_CASSANDRA
#include "cassandra_fixture.h"

#include "base/url.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cql *bare_open(const char *const *statements, size_t n)
{
    struct url u = {0};
    char host[300];
    const char *hosts[] = {host};
    struct cql_config config = {
        .hosts = hosts, .hosts_n = 1, .keyspace = "x", .statements = statements, .statements_n = n};
    struct cql *cql;

    assert_int_equal(url_parse(support_server(adapter->server), 9042, &u, NULL), TR_OK);
    snprintf(host, sizeof host, "%s:%u", u.host[0].name, u.host[0].port);
    cql = cql_open(&config);
    assert_non_null(cql);
    url_release(&u);
    return cql;
}

struct cql_done bare_ask(struct cql *cql, const struct cql_request *r)
{
    struct cql_done done = {0};
    struct pollfd fd = {.fd = cql_fd(cql), .events = POLLIN};

    cql_execute(cql, r, NULL);
    while (cql_poll(cql, &done, 1) == 0)
        assert_int_equal(poll(&fd, 1, SUPPORT_LIMIT_MS), 1);
    if (done.status != CQL_OK)
        fail_msg("%d: %s", done.status, done.error);
    return done;
}

void bare_run(struct cql *cql, const struct cql_request *r)
{
    struct cql_done done = bare_ask(cql, r);

    cql_done_free(&done);
}

void bare_text(struct cql *cql, const char *text)
{
    bare_run(cql, &(struct cql_request){.text = text, .timeout_ms = SUPPORT_LIMIT_MS, .write = true});
}

uint64_t bare_count(struct cql *cql, const char *fmt, ...)
{
    char text[500];
    struct cql_done done;
    uint64_t n = 0;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    done = bare_ask(cql, &(struct cql_request){.text = text, .timeout_ms = SUPPORT_LIMIT_MS});
    assert_int_equal(cql_rows(done.rows), 1);
    assert_int_equal(cql_cell(done.rows, 0, 0).len, 8);
    for (int i = 0; i < 8; i++)
        n = n << 8 | cql_cell(done.rows, 0, 0).data[i];
    cql_done_free(&done);
    return n;
}
#else
/* built without the adapter */
typedef int cassandra_fixture_is_empty;
#endif
