/*
 * history_write - the writes, on the writer's thread, inside its batch's transaction.
 *
 * Every job looks before it writes, under the write lock (BEGIN IMMEDIATE): what it saw still holds.  So a job that
 * says no has written nothing, and only the disk (or memory) can fail a statement half way through a job; then the whole
 * batch is rolled back and says TR_TRANSIENT.
 */
#include "adapter/sqlite/history_impl.h"
#include "base/loop.h"

#include <string.h>

static enum tr_rc insert_row(struct history_conn *c, const struct turn_row *row, uint64_t change, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_ROW_INSERT, err);

    if (stmt == NULL)
        return err->rc;
    history_bind_row(stmt, row, change);
    return db_run(c->db, stmt, err);
}

/* One statement with ?1 = id and perhaps ?2 = value. */
static enum tr_rc run_on(struct history_conn *c, enum history_stmt st, const struct uuid *id, const uint64_t *value,
                         struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, st, err);

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, id);
    if (value != NULL)
        db_bind_u64(stmt, 2, *value);
    return db_run(c->db, stmt, err);
}

/* The chat that (user, client id) made before, or the one of the same id. */
static enum tr_rc find_standing(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct history_chat *want = &job->in.create.chat;
    enum tr_rc rc;

    if (job->in.create.has_client) {
        sqlite3_stmt *stmt = db_stmt(c->db, ST_CHAT_BY_CLIENT, err);

        if (stmt == NULL)
            return err->rc;
        history_bind_uuid(stmt, 1, &want->user);
        sqlite3_bind_blob(stmt, 2, job->in.create.client, sizeof job->in.create.client, SQLITE_STATIC);
        rc = db_row(c->db, stmt, err);
        if (rc == TR_OK) {
            history_read_chat(stmt, &job->chat);
            sqlite3_reset(stmt);
        }
        if (rc != TR_NOT_FOUND)
            return rc;
    }
    return history_load_chat(c, &want->chat, &job->chat, err);
}

static enum tr_rc insert_chat(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct history_chat *chat = &job->chat;
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHAT_INSERT, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &chat->chat);
    history_bind_uuid(stmt, 2, &chat->user);
    db_bind_text(stmt, 3, chat->character);
    db_bind_u64(stmt, 4, chat->created_ms);
    db_bind_u64(stmt, 5, chat->updated_ms);
    history_bind_uuid(stmt, 6, &chat->head);
    db_bind_u64(stmt, 7, chat->index);
    db_bind_u64(stmt, 8, chat->change);
    if (job->in.create.has_client)
        sqlite3_bind_blob(stmt, 9, job->in.create.client, sizeof job->in.create.client, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 10, history_bucket(&chat->chat));
    rc = db_run(c->db, stmt, err);
    if (rc != TR_OK)
        return rc;

    stmt = db_stmt(c->db, ST_SELECTED_PUT, err);
    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &chat->user);
    db_bind_text(stmt, 2, chat->character);
    history_bind_uuid(stmt, 3, &chat->chat);
    return db_run(c->db, stmt, err);
}

enum tr_rc history_chat_create(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct history_chat *want = &job->in.create.chat;
    enum tr_rc rc = history_exists(c, ST_FORGOTTEN, &want->chat, err);

    if (rc == TR_OK)
        return TR_NOT_FOUND; /* a late one: the chat is deleted already */
    if (rc == TR_NOT_FOUND)
        rc = find_standing(c, job, err);
    if (rc == TR_OK)
        job->mine = uuid_eq(&job->chat.chat, &want->chat) && uuid_eq(&job->chat.user, &want->user);
    if (rc != TR_NOT_FOUND)
        return rc;

    job->chat = *want;
    job->chat.change = 1;
    job->mine = true;
    rc = insert_chat(c, job, err);
    for (size_t i = 0; rc == TR_OK && i < job->rows_n; i++)
        rc = insert_row(c, &job->rows[i], job->chat.change, err);
    return rc;
}

static enum tr_rc forget_key(struct history_conn *c, const struct uuid *chat, struct tr_err *err)
{
    static const enum history_stmt steps[] = {ST_KEY_ERASE, ST_KEY_DELETE};
    char id[UUID_TEXT];
    enum tr_rc rc = TR_OK;

    uuid_format(chat, id);
    for (size_t i = 0; rc == TR_OK && i < sizeof steps / sizeof *steps; i++) {
        sqlite3_stmt *stmt = db_stmt(c->db, steps[i], err);

        if (stmt == NULL)
            return err->rc;
        sqlite3_bind_int(stmt, 1, SEAL_OWNER_CHAT);
        db_bind_text(stmt, 2, id);
        rc = db_run(c->db, stmt, err);
    }
    return rc;
}

static enum tr_rc drop_selected(struct history_conn *c, const struct history_chat *chat, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SELECTED_DROP, err);

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &chat->user);
    history_bind_uuid(stmt, 2, &chat->chat);
    return db_run(c->db, stmt, err);
}

enum tr_rc history_chat_delete(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct uuid *id = &job->in.read.chat;
    const uint64_t now = wall_ms();
    struct history_chat chat;
    enum tr_rc rc = history_exists(c, ST_FORGOTTEN, id, err);

    if (rc == TR_OK) {
        c->truncate = true; /* the log may hold the key still, if its emptying failed then */
        return TR_NOT_FOUND;
    }
    if (rc == TR_NOT_FOUND)
        rc = history_load_chat(c, id, &chat, err);
    if (rc != TR_OK)
        return rc;
    rc = forget_key(c, id, err);
    if (rc == TR_OK)
        rc = run_on(c, ST_FORGOTTEN_INSERT, id, &now, err);
    if (rc == TR_OK)
        rc = run_on(c, ST_CHAT_DELETE, id, NULL, err);
    if (rc == TR_OK)
        rc = run_on(c, ST_ROWS_DELETE, id, NULL, err);
    if (rc == TR_OK)
        rc = run_on(c, ST_CLIENTS_DELETE, id, NULL, err);
    if (rc == TR_OK)
        rc = drop_selected(c, &chat, err);
    if (rc == TR_OK)
        c->truncate = true;
    return rc;
}

/* TR_OK: the client id has a turn, in *ret_turn.  TR_NOT_FOUND: it is new. */
static enum tr_rc find_client(struct history_conn *c, const struct history_accept *a, struct uuid *ret_turn,
                              struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CLIENT, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &a->row.chat);
    sqlite3_bind_blob(stmt, 2, a->client_hash, sizeof a->client_hash, SQLITE_STATIC);
    rc = db_row(c->db, stmt, err);
    if (rc == TR_OK)
        *ret_turn = history_uuid(stmt, 0);
    sqlite3_reset(stmt);
    return rc;
}

/* Part 0, the client id and the chat's new head. */
static enum tr_rc write_turn(struct history_conn *c, struct history_job *job, uint64_t change, struct tr_err *err)
{
    const struct history_accept *a = &job->in.accept;
    const struct turn_row *row = &job->rows[0];
    enum tr_rc rc = insert_row(c, row, change, err);
    sqlite3_stmt *stmt;

    if (rc != TR_OK)
        return rc;
    stmt = db_stmt(c->db, ST_CLIENT_INSERT, err);
    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &row->chat);
    sqlite3_bind_blob(stmt, 2, a->client_hash, sizeof a->client_hash, SQLITE_STATIC);
    history_bind_uuid(stmt, 3, &row->turn);
    rc = db_run(c->db, stmt, err);
    if (rc != TR_OK)
        return rc;
    stmt = db_stmt(c->db, ST_CHAT_ADVANCE, err);
    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, &row->chat);
    history_bind_uuid(stmt, 2, &row->turn);
    db_bind_u64(stmt, 3, row->index);
    db_bind_u64(stmt, 4, change);
    db_bind_u64(stmt, 5, row->created_ms);
    return db_run(c->db, stmt, err);
}

enum tr_rc history_accept(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct history_accept *a = &job->in.accept;
    const struct turn_row *row = &job->rows[0];
    struct history_accepted *res = &job->accepted;
    struct history_chat chat;
    enum tr_rc rc = history_load_chat(c, &row->chat, &chat, err);

    if (rc != TR_OK)
        return rc;
    *res = (struct history_accepted){.head = chat.head, .index = chat.index, .change = chat.change};
    rc = find_client(c, a, &res->turn, err);
    if (rc == TR_OK) {
        res->outcome = ACCEPT_KNOWN;
        return TR_OK;
    }
    if (rc != TR_NOT_FOUND)
        return rc;
    if (!uuid_eq(&chat.head, &a->head)) {
        res->outcome = ACCEPT_MOVED;
        return TR_OK;
    }
    rc = write_turn(c, job, chat.change + 1, err);
    if (rc != TR_OK)
        return rc;
    *res = (struct history_accepted){
        .outcome = ACCEPT_DONE, .turn = row->turn, .head = row->turn, .index = row->index, .change = chat.change + 1};
    return TR_OK;
}

/* TR_OK: the row of this key stands, and is in job->set.  TR_NOT_FOUND: it does not. */
static enum tr_rc load_standing(struct history_conn *c, const struct turn_row *row, struct row_set *set,
                                struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_ROW, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_turn(stmt, &row->chat, &row->turn);
    sqlite3_bind_int(stmt, 4, row->part);
    sqlite3_bind_int(stmt, 5, row->rev);
    rc = db_row(c->db, stmt, err);
    if (rc == TR_OK) {
        rc = row_set_add(set, stmt, err);
        row_set_settle(set);
    }
    sqlite3_reset(stmt);
    return rc;
}

static enum tr_rc row_stands(struct history_conn *c, const struct turn_row *row, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_ROW_STANDS, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_turn(stmt, &row->chat, &row->turn);
    sqlite3_bind_int(stmt, 4, row->part);
    sqlite3_bind_int(stmt, 5, row->rev);
    rc = db_row(c->db, stmt, err);
    sqlite3_reset(stmt);
    return rc;
}

/* A statement on a whole turn (OF_TURN): does it give a row, or did it run? */
static enum tr_rc on_turn(struct history_conn *c, enum history_stmt st, const struct turn_row *row, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, st, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_turn(stmt, &row->chat, &row->turn);
    rc = db_row(c->db, stmt, err);
    sqlite3_reset(stmt);
    return rc;
}

/* Was it the writer of `row` that wrote `stands`? */
static bool is_mine(const struct turn_row *row, const struct turn_row *stands)
{
    const bool same_bytes = row->sealed_len == stands->sealed_len &&
                            (row->sealed_len == 0 || memcmp(row->sealed, stands->sealed, row->sealed_len) == 0);

    if (row->part >= PART_FIRST_VARIANT)
        return row->attempt == stands->attempt;
    if (row->attempt != 0 && row->attempt == stands->attempt)
        return true;
    return same_bytes && row->event == stands->event && row->variant == stands->variant && row->known == stands->known;
}

static enum tr_rc append_rows(struct history_conn *c, struct history_job *job, uint64_t change, struct tr_err *err)
{
    bool erase = false;
    enum tr_rc rc = TR_OK;

    for (size_t i = 0; rc == TR_OK && i < job->rows_n; i++) {
        const struct turn_row *row = &job->rows[i];

        rc = i == 0 ? TR_NOT_FOUND : row_stands(c, row, err);
        if (rc == TR_NOT_FOUND) {
            rc = insert_row(c, row, change, err);
            erase = erase || (row->part == PART_STATE && row->event == TURN_EVENT_DELETE);
        }
    }
    if (rc == TR_OK)
        rc = run_on(c, ST_CHAT_CHANGE, &job->rows[0].chat, &change, err);
    if (rc == TR_OK && erase) {
        rc = on_turn(c, ST_TURN_ERASE, &job->rows[0], err); /* the words go, the rows stay: the fold shows a deletion */
        if (rc == TR_NOT_FOUND)
            rc = TR_OK;
    }
    return rc;
}

enum tr_rc history_append(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    const struct turn_row *row = &job->rows[0];
    struct history_chat chat;
    bool deleted;
    enum tr_rc rc = history_load_chat(c, &row->chat, &chat, err);

    if (rc == TR_OK)
        rc = on_turn(c, ST_TURN_STANDS, row, err);
    if (rc != TR_OK)
        return rc;
    rc = on_turn(c, ST_TURN_DELETED, row, err);
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        return rc;
    deleted = rc == TR_OK;
    if (deleted && row->part != PART_STATE)
        return TR_NOT_FOUND; /* late stores are dropped (contract 11.9) */

    rc = load_standing(c, row, &job->set, err);
    if (rc == TR_OK) {
        job->mine = is_mine(row, &job->set.rows[0]);
        job->change = job->set.rows[0].change;
        return TR_OK;
    }
    if (rc != TR_NOT_FOUND || deleted)
        return rc;
    job->mine = true;
    job->change = chat.change + 1;
    return append_rows(c, job, job->change, err);
}

enum tr_rc history_key_put(struct history_conn *c, struct history_job *job, struct tr_err *err)
{
    struct uuid chat;
    sqlite3_stmt *stmt;
    enum tr_rc rc;

    if (job->in.key.owner == SEAL_OWNER_CHAT && uuid_parse(job->in.key.id, strlen(job->in.key.id), &chat)) {
        rc = history_exists(c, ST_FORGOTTEN, &chat, err);
        if (rc != TR_NOT_FOUND)
            return rc == TR_OK ? TR_NOT_FOUND : rc; /* a forgotten chat gets no key again */
    }
    stmt = db_stmt(c->db, ST_KEY, err);
    if (stmt == NULL)
        return err->rc;
    sqlite3_bind_int(stmt, 1, (int)job->in.key.owner);
    db_bind_text(stmt, 2, job->in.key.id);
    rc = db_row(c->db, stmt, err);
    if (rc == TR_OK) {
        const struct slice standing = db_slice(stmt, 0);

        job->mine = standing.len == job->wrapped_len && memcmp(standing.data, job->wrapped, standing.len) == 0;
        if (standing.len <= sizeof job->wrapped) {
            job->wrapped_len = standing.len;
            memcpy(job->wrapped, standing.data, standing.len);
        } else {
            rc = tr_fail(err, TR_INVALID, "history: a wrapped key of %zu bytes", standing.len);
        }
        sqlite3_reset(stmt);
    }
    if (rc != TR_NOT_FOUND)
        return rc;
    stmt = db_stmt(c->db, ST_KEY_INSERT, err);
    if (stmt == NULL)
        return err->rc;
    sqlite3_bind_int(stmt, 1, (int)job->in.key.owner);
    db_bind_text(stmt, 2, job->in.key.id);
    sqlite3_bind_blob(stmt, 3, job->wrapped, (int)job->wrapped_len, SQLITE_STATIC);
    job->mine = true;
    return db_run(c->db, stmt, err);
}
