/*
 * monitor - what those who run this look at: GET /metrics (Prometheus' text), /healthz (alive) and /readyz (serving,
 * and its stores answer) on TROUPE_METRICS_LISTEN, of whatever role.  Empty: no listener, but the stores are watched
 * all the same.  One request a connection; no TLS, no password: for an inner network.  Threads: the loop's.
 */
#ifndef ROLE_COMMON_MONITOR_H
#define ROLE_COMMON_MONITOR_H

#include "role/common/role.h"
#include "role/common/watch.h"

struct monitor;

/*
 * Listen, and begin to watch the stores.  env is borrowed; role ("up", "gateway", …) is, too, and stands in the answers.
 *   TR_INVALID  TROUPE_METRICS_LISTEN: no address, taken, not allowed; the err names it
 */
enum tr_rc monitor_start(const struct role_env *env, const char *role, struct monitor **ret_monitor,
                         struct tr_err *err) TR_MUST_CHECK;
/* The role has started (true), or begins to drain (false): /readyz.  NULL is fine. */
void monitor_serving(struct monitor *m, bool serving);
/* For role_env.watch.  Borrowed, as long as the monitor lives. */
const struct watch *monitor_watch(const struct monitor *m);
uint16_t monitor_port(const struct monitor *m); /* 0: not listening */
void monitor_free(struct monitor *m);           /* before the stores are closed; NULL is fine */

#endif
