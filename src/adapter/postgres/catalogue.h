/*
 * catalogue (postgres) - port/catalogue.h on PostgreSQL 12 or newer, by libpq on the loop.
 * URL: postgresql://user:password@host1,host2:5432/database  One of the hosts is the primary, whichever it is now;
 * writes and a user's own rows go there, reads of the public catalogue to any replica that is not behind this process's
 * own writes.
 */
#ifndef ADAPTER_POSTGRES_CATALOGUE_H
#define ADAPTER_POSTGRES_CATALOGUE_H

#include "base/loop.h"
#include "port/catalogue.h"

/* TR_INVALID: the URL; no server is needed.  The caller owns *ret_catalogue: ops->close(). */
enum tr_rc postgres_catalogue_open(struct loop *loop, const char *url, struct catalogue **ret_catalogue,
                                   struct tr_err *err) TR_MUST_CHECK;

#endif
