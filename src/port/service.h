/*
 * service - what every store and broker outside of this process can be asked, whatever else it does: make your schema,
 * and: are you there, with it?  `init` and `check` stand in each port's table; NULL in those of embedded adapters,
 * which have made everything once they are open.
 *
 * Opening an adapter of such a service reads the URL, starts to connect and returns: it needs no server.  An operation
 * that is started while there is no connection waits for one until its deadline, then ends with TR_TRANSIENT.
 */
#ifndef PORT_SERVICE_H
#define PORT_SERVICE_H

#include "base/op.h"

struct service_report {
    char server[160];  /* what answered, for people: "PostgreSQL 15.8 at db1:5432, 1 replica" */
    char warning[256]; /* it serves, and this is wrong all the same, with how to mend it; "": nothing */
    uint64_t clock_ms; /* its wall clock at the answer, milliseconds since 1970; 0: it tells none */
};

/* Made (or there already: harmless twice).  TR_TRANSIENT: not reached; TR_INVALID: refused, err says why. */
typedef void service_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
/*
 * Reached, let in, and the schema is the one this build wants; report is borrowed, NULL unless TR_OK.
 *   TR_NOT_FOUND  reached, but the schema is missing or older: `troupe init`
 *   TR_TRANSIENT  not reached (refused, no such host, no answer in time)
 *   TR_INVALID    reached and refused: password, rights, a schema of a newer version
 * err says in plain words what is wrong, with host and port, and how to mend it; never a password.
 */
typedef void service_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err);

#endif
