/* sqlite history - the history port on one SQLite file.  Rules: port/history.h.  Layout: history_schema.c. */
#ifndef ADAPTER_SQLITE_HISTORY_H
#define ADAPTER_SQLITE_HISTORY_H

#include "base/loop.h"
#include "port/history.h"

/*
 * Open or create the file at `path` (`path`-wal and `path`-shm stand beside it).  Blocks: for start-up.
 *   TR_OK         *ret_history is owned by the caller: history->ops->close() it, on the loop's thread
 *   anything else says in err what is wrong with the file and how to mend it
 */
enum tr_rc sqlite_history_open(struct loop *loop, const char *path, struct history **ret_history,
                               struct tr_err *err) TR_MUST_CHECK;

#endif
