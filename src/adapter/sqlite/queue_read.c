/*
 * queue_read - the broker's file, read back whole at the start: every queue, and every message that was not settled, in its
 * order, with its attempts and its delay.
 */
#include "adapter/sqlite/queue_impl.h"

#include <stdlib.h>
#include <string.h>

#define WAIT_MAX_MS 300000 /* none is put back for longer; a clock that was set back would make it hours */

static enum tr_rc read_queues(struct sqlite_queue *s, size_t sql, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(s->db, sql, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    while ((rc = db_row(s->db, stmt, err)) == TR_OK) {
        struct sq_queue *queue = calloc(1, sizeof *queue);

        if (queue == NULL) {
            sqlite3_reset(stmt);
            return tr_fail(err, TR_NOMEM, "queue: out of memory");
        }
        queue->id = (uint32_t)db_u64(stmt, 0);
        strncpy(queue->name, db_text(stmt, 1), QUEUE_NAME_MAX);
        queue->kind = QUEUE_DURABLE;
        queue->max_length = db_u64(stmt, 2);
        queue->single_active = db_u64(stmt, 3) != 0;
        HASH_ADD_STR(s->queues, name, queue);
        if (queue->id > s->queue_id_last)
            s->queue_id_last = queue->id;
    }
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

static enum tr_rc read_message(struct sqlite_queue *s, sqlite3_stmt *stmt, struct sq_queue *queue, struct tr_err *err)
{
    const struct slice body = db_slice(stmt, 4);
    const uint64_t now = wall_ms();
    uint64_t wait;
    struct queue_delivery *m = calloc(1, sizeof *m + body.len);

    if (m == NULL)
        return tr_fail(err, TR_NOMEM, "queue: out of memory");
    m->id = db_u64(stmt, 0);
    m->queue = queue;
    m->queue_id = queue->id;
    m->attempts = (uint32_t)db_u64(stmt, 2);
    m->not_before = db_u64(stmt, 3);
    m->saved = m->again = true;
    m->len = body.len;
    if (body.len > 0)
        memcpy(m->body, body.data, body.len);
    s->bytes += m->len;
    s->id_last = m->id;
    wait = m->not_before > now ? m->not_before - now : 0;
    if (wait > WAIT_MAX_MS)
        wait = WAIT_MAX_MS;
    if (wait == 0 || sq_delay(s, m, wait) != TR_OK)
        sq_append(s, m);
    return TR_OK;
}

static enum tr_rc read_messages(struct sqlite_queue *s, size_t sql, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(s->db, sql, err);
    struct sq_queue *queue = NULL;
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    while ((rc = db_row(s->db, stmt, err)) == TR_OK) {
        const uint32_t id = (uint32_t)db_u64(stmt, 1);

        for (queue = s->queues; queue != NULL && queue->id != id;) /* a few dozen queues */
            queue = queue->hh.next;
        if (queue == NULL)
            continue;
        rc = read_message(s, stmt, queue, err);
        if (rc != TR_OK) {
            sqlite3_reset(stmt);
            return rc;
        }
    }
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc sq_read(struct sqlite_queue *s, size_t sql_queues, size_t sql_messages, struct tr_err *err)
{
    const enum tr_rc rc = read_queues(s, sql_queues, err);

    return rc == TR_OK ? read_messages(s, sql_messages, err) : rc;
}
