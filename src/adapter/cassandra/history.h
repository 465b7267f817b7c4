/* history - the history in Apache Cassandra (and what speaks its protocol); see port/history.h. */
#ifndef ADAPTER_CASSANDRA_HISTORY_H
#define ADAPTER_CASSANDRA_HISTORY_H

#include "base/loop.h"
#include "port/history.h"

/*
 * Open cassandra://[user:password@]host1[:9042],host2,…/keyspace[?key=value&…]; needs no server (port/service.h).
 *   replication=N     copies of each row, for `init` (default: the number of hosts, at most 3)
 *   consistency=quorum|local   QUORUM and SERIAL (default), or LOCAL_QUORUM and LOCAL_SERIAL: see history_schema.c
 *   datacenter=NAME   whose nodes are asked first (with consistency=local: alone)
 *   timeout_ms=N      an operation's deadline, 100 … 600000 (default 10000)
 *   TR_OK       *ret_history is owned: ops->close() it
 *   TR_INVALID  err says what is wrong with the URL, and shows no password
 *   TR_NOMEM    no memory, thread or descriptor
 */
enum tr_rc cassandra_history_open(struct loop *loop, const char *url, struct history **ret_history,
                                  struct tr_err *err) TR_MUST_CHECK;

#endif
