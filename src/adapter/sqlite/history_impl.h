/*
 * history_impl - what the files of the SQLite history share; nobody else includes it.
 *   history.c         the port's side, on the loop: copies what comes in, starts a job, hands its result out
 *   history_write.c   the writes, on the writer's thread
 *   history_read.c    the reads, on the reader's thread
 *   history_schema.c  the tables, the statements, and a row's way into and out of them
 */
#ifndef ADAPTER_SQLITE_HISTORY_IMPL_H
#define ADAPTER_SQLITE_HISTORY_IMPL_H

#include "adapter/sqlite/db.h"
#include "base/offload.h"
#include "port/history.h"

#define HISTORY_KEY_ID_MAX 64
#define HISTORY_SEALED_MAX (16u * 1024 * 1024)
#define HISTORY_ROWS_MAX 1024 /* of one append or greeting */

/* Indexes of history_sql[]. */
enum history_stmt {
    ST_CHAT,
    ST_CHAT_BY_CLIENT,
    ST_CHATS_OF_USER,
    ST_CHAT_INSERT,
    ST_CHAT_ADVANCE,
    ST_CHAT_CHANGE,
    ST_CHAT_DELETE,
    ST_SELECTED_PUT,
    ST_SELECTED_DROP,
    ST_FORGOTTEN,
    ST_FORGOTTEN_INSERT,
    ST_CLIENT,
    ST_CLIENT_INSERT,
    ST_CLIENTS_DELETE,
    ST_ROW,
    ST_ROW_STANDS,
    ST_ROW_INSERT,
    ST_ROWS_DELETE,
    ST_TURN_STANDS,
    ST_TURN_DELETED,
    ST_TURN_ERASE,
    ST_TURN_ROWS,
    ST_ROWS_UP,
    ST_ROWS_DOWN,
    ST_CHANGED,
    ST_KEY,
    ST_KEY_INSERT,
    ST_KEY_ERASE,
    ST_KEY_DELETE,
    ST_SNAPSHOT,
    ST_SNAPSHOT_END,
    ST_COUNT
};
extern const char *const history_sql[ST_COUNT];
extern const char history_schema[];

/* One connection; its user is its thread. */
struct history_conn {
    struct db *db;
    struct tr_err cause; /* writer: rc != TR_OK: this batch is lost, with everything in it */
    bool truncate;       /* writer: a key was destroyed: the log must not keep it */
};

/* Rows that were read: sealed texts lie in `bytes`, and row_set_settle() makes the rows point there. */
struct row_set {
    struct turn_row *rows;
    size_t n, cap;
    struct buf bytes;
};

struct sqlite_history;

/* One operation: `in` is copied from the caller, the rest is the result. */
struct history_job {
    struct offload_job base;
    struct sqlite_history *owner;
    struct history_job *next, *prev; /* all that are under way, for close */
    enum tr_rc (*run)(struct history_conn *c, struct history_job *job, struct tr_err *err);
    union {
        history_done *plain;
        history_chat_done *chat;
        history_chats_done *chats;
        history_accept_done *accept;
        history_append_done *append;
        history_rows_done *rows;
        history_key_done *key;
    } cb;
    void *ctx;

    union {
        struct {
            struct history_chat chat;
            uint8_t client[16];
            bool has_client;
        } create;
        struct history_accept accept;
        struct {
            struct uuid chat, turn; /* user too: the id that the operation is about */
            struct history_range range;
            uint64_t since;
        } read;
        struct {
            enum seal_owner owner;
            char id[HISTORY_KEY_ID_MAX + 1];
        } key;
    } in;
    struct turn_row *rows; /* owned, with their sealed texts in the same block: create, append, accept */
    size_t rows_n;

    bool mine, more;
    uint64_t change;
    struct history_chat chat;
    struct history_chat *chats; /* owned */
    size_t chats_n;
    struct history_accepted accepted;
    struct row_set set;
    uint8_t wrapped[SEAL_WRAPPED_MAX]; /* key: in and out */
    size_t wrapped_len;
};

/* The month of an id's time, as 202611. */
int64_t history_bucket(const struct uuid *id);

/* Bind an id; borrowed until the statement is bound anew. */
void history_bind_uuid(sqlite3_stmt *stmt, int i, const struct uuid *id);
struct uuid history_uuid(sqlite3_stmt *stmt, int col);

/* ST_ROW_INSERT's values; `change` is the one of this write. */
void history_bind_row(sqlite3_stmt *stmt, const struct turn_row *row, uint64_t change);
/* Bind ?1 chat, ?2 bucket, ?3 turn. */
void history_bind_turn(sqlite3_stmt *stmt, const struct uuid *chat, const struct uuid *turn);

/* Append the row that the statement stands on.  TR_OK or TR_NOMEM. */
enum tr_rc row_set_add(struct row_set *set, sqlite3_stmt *stmt, struct tr_err *err) TR_MUST_CHECK;
void row_set_settle(struct row_set *set);
void row_set_release(struct row_set *set);

/* The chat's record (columns of ST_CHAT). */
void history_read_chat(sqlite3_stmt *stmt, struct history_chat *ret_chat);
/* TR_OK; TR_NOT_FOUND: no such chat. */
enum tr_rc history_load_chat(struct history_conn *c, const struct uuid *chat, struct history_chat *ret_chat,
                             struct tr_err *err) TR_MUST_CHECK;
/* One statement with ?1 = id: is there a row?  TR_OK or TR_NOT_FOUND. */
enum tr_rc history_exists(struct history_conn *c, enum history_stmt st, const struct uuid *id,
                          struct tr_err *err) TR_MUST_CHECK;

/* Jobs: run on the writer's thread … */
enum tr_rc history_chat_create(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_chat_delete(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_accept(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_append(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_key_put(struct history_conn *c, struct history_job *job, struct tr_err *err);
/* … and on the reader's. */
enum tr_rc history_chat_get(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_chats_of_user(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_turn_get(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_turns(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_changed(struct history_conn *c, struct history_job *job, struct tr_err *err);
enum tr_rc history_key_get(struct history_conn *c, struct history_job *job, struct tr_err *err);

#endif
