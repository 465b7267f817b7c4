/* queue (sqlite) - the embedded broker: in process, durable in one SQLite file.  See queue.c's head. */
#ifndef ADAPTER_SQLITE_QUEUE_H
#define ADAPTER_SQLITE_QUEUE_H

#include "base/loop.h"
#include "port/queue.h"

/*
 * Open or create the file and read back everything that is unsettled.  The file is this process's alone.  Blocks: for
 * start-up.
 *   TR_OK  *ret_queue is owned by the caller: ret_queue->ops->close() it
 */
enum tr_rc sqlite_queue_open(struct loop *loop, const char *path, struct queue **ret_queue,
                             struct tr_err *err) TR_MUST_CHECK;

#endif
