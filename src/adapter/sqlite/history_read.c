/* history_read - the reads, on the reader's thread; a batch sees one snapshot, taken after its reads were started. */
#include "adapter/sqlite/history_impl.h"

#include <stdlib.h>
#include <string.h>

#define BUCKET_END 99999999

/* Greater than every id. */
static const uint8_t beyond[17] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

enum tr_rc history_chat_get(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    return history_load_chat(c, &job->in.read.chat, &job->chat, err);
}

static void bind_before(sqlite3_stmt *stmt, int i, const struct uuid *before)
{
    if (uuid_is_nil(before))
        sqlite3_bind_blob(stmt, i, beyond, sizeof beyond, SQLITE_STATIC);
    else
        history_bind_uuid(stmt, i, before);
}

/* A LIMIT that shows whether there is one more. */
static sqlite3_int64 one_more(uint32_t limit)
{
    return limit == 0 ? -1 : (sqlite3_int64)limit + 1;
}

enum tr_rc history_chats_of_user(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const uint32_t limit = job->in.read.range.limit;
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHATS_OF_USER, err);
    size_t cap = 0;
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &job->in.read.chat);
    bind_before(stmt, 2, &job->in.read.range.before);
    sqlite3_bind_int64(stmt, 3, one_more(limit));
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        if (limit != 0 && job->chats_n == limit) {
            job->more = true;
            break;
        }
        if (job->chats_n == cap) {
            struct history_chat *chats;

            cap = cap == 0 ? 16 : cap * 2;
            chats = realloc(job->chats, cap * sizeof *chats);
            if (chats == NULL) {
                rc = tr_fail(err, TR_NOMEM, "history: chats");
                break;
            }
            job->chats = chats;
        }
        history_read_chat(stmt, &job->chats[job->chats_n++]);
    }
    sqlite3_reset(stmt);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

/* All rows of one turn into job->set; none is fine. */
static enum tr_rc read_turn(struct history_conn *c, struct history_job *job, const struct uuid *turn,
                            struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_TURN_ROWS, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_turn(stmt, &job->in.read.chat, turn);
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        rc = row_set_add(&job->set, stmt, err);
        if (rc != TR_OK)
            break;
    }
    sqlite3_reset(stmt);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc history_turn_get(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    enum tr_rc rc = read_turn(c, job, &job->in.read.turn, err);

    if (rc == TR_OK && job->set.n == 0)
        return TR_NOT_FOUND;
    row_set_settle(&job->set);
    return rc;
}

static void reverse(struct turn_row *rows, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        const struct turn_row row = rows[i];

        rows[i] = rows[n - 1 - i];
        rows[n - 1 - i] = row;
    }
}

static sqlite3_stmt *range_stmt(struct history_conn *c, const struct history_job *job, struct tr_err *err)
{
    const struct history_range *range = &job->in.read.range;
    sqlite3_stmt *stmt = db_stmt(c->db, range->newest ? ST_ROWS_DOWN : ST_ROWS_UP, err);
    const bool open_end = uuid_is_nil(&range->before);

    if (stmt == NULL)
        return NULL;
    history_bind_uuid(stmt, 1, &job->in.read.chat);
    sqlite3_bind_int64(stmt, 2, uuid_is_nil(&range->after) ? 0 : history_bucket(&range->after));
    history_bind_uuid(stmt, 3, &range->after);
    sqlite3_bind_int64(stmt, 4, open_end ? BUCKET_END : history_bucket(&range->before));
    bind_before(stmt, 5, &range->before);
    return stmt;
}

enum tr_rc history_turns(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct history_range *range = &job->in.read.range;
    struct row_set *set = &job->set;
    sqlite3_stmt *stmt;
    uint32_t turns = 0;
    enum tr_rc rc = history_load_chat(c, &job->in.read.chat, &job->chat, err);

    if (rc != TR_OK)
        return rc;
    stmt = range_stmt(c, job, err);
    if (stmt == NULL)
        return err->rc;
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        const struct uuid turn = history_uuid(stmt, 1);

        if (set->n == 0 || !uuid_eq(&set->rows[set->n - 1].turn, &turn)) {
            if (range->limit != 0 && turns == range->limit) {
                job->more = true;
                break;
            }
            turns++;
        }
        rc = row_set_add(set, stmt, err);
        if (rc != TR_OK)
            break;
    }
    sqlite3_reset(stmt);
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        return rc;
    row_set_settle(set);
    if (range->newest)
        reverse(set->rows, set->n);
    return TR_OK;
}

enum tr_rc history_changed(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const uint32_t limit = job->in.read.range.limit;
    sqlite3_stmt *stmt;
    uint32_t turns = 0;
    enum tr_rc rc = history_load_chat(c, &job->in.read.chat, &job->chat, err);

    if (rc != TR_OK)
        return rc;
    if (job->in.read.since >= job->chat.change)
        return TR_OK;
    stmt = db_stmt(c->db, ST_CHANGED, err);
    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &job->in.read.chat);
    db_bind_u64(stmt, 2, job->in.read.since);
    sqlite3_bind_int64(stmt, 3, one_more(limit));
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        const struct uuid turn = history_uuid(stmt, 1);

        if (limit != 0 && turns++ == limit) {
            job->more = true;
            break;
        }
        rc = read_turn(c, job, &turn, err);
        if (rc != TR_OK)
            break;
    }
    sqlite3_reset(stmt);
    row_set_settle(&job->set);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc history_key_get(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_KEY, err);
    struct slice wrapped;
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    sqlite3_bind_int(stmt, 1, (int)job->in.key.owner);
    db_bind_text(stmt, 2, job->in.key.id);
    rc = db_row(c->db, stmt, err);
    if (rc != TR_OK)
        return rc;
    wrapped = db_slice(stmt, 0);
    if (wrapped.len <= sizeof job->wrapped) {
        job->wrapped_len = wrapped.len;
        memcpy(job->wrapped, wrapped.data, wrapped.len);
    } else {
        rc = tr_fail(err, TR_INVALID, "history: a wrapped key of %zu bytes", wrapped.len);
    }
    sqlite3_reset(stmt);
    return rc;
}
