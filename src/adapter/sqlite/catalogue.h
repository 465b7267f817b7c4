/* sqlite catalogue - the catalogue port on one SQLite file.  Rules: port/catalogue.h. */
#ifndef ADAPTER_SQLITE_CATALOGUE_H
#define ADAPTER_SQLITE_CATALOGUE_H

#include "base/loop.h"
#include "port/catalogue.h"

/*
 * Open or create the file at `path`; several processes may have it open.  Blocks: for start-up.
 *   TR_OK         *ret_catalogue is owned by the caller: catalogue->ops->close() it, on the loop's thread
 *   anything else says in err what is wrong with the file and how to mend it
 */
enum tr_rc sqlite_catalogue_open(struct loop *loop, const char *path, struct catalogue **ret_catalogue,
                                 struct tr_err *err) TR_MUST_CHECK;

#endif
