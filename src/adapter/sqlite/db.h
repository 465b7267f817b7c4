/*
 * db - what every SQLite adapter needs: opening a file the way we want it, prepared statements, and SQLite's codes in
 * our terms, with messages that say how to mend it.
 * Threads: a handle has one user at a time (the adapter's offload, or whoever opens it before that thread starts).
 */
#ifndef ADAPTER_SQLITE_DB_H
#define ADAPTER_SQLITE_DB_H

#include "base/buf.h"

#include <sqlite3.h>

struct db;

/* A statement of the adapter's own table: db_stmt(db, i) prepares sql[i] at its first use. */
struct db_spec {
    const char *path;
    int version;              /* of the schema: PRAGMA user_version; a file of a newer one is refused */
    const char *schema;       /* run on a new file (version 0), in one transaction with setting the version */
    const char *const *steps; /* steps[v]: SQL from version v to v + 1, v = 1 … version - 1; may be NULL at version 1 */
    const char *const *sql;   /* the statements; borrowed until db_close() */
    size_t sql_n;
    bool exclusive; /* keep the file to this process alone: another one's open fails at once */
};

/*
 * Open or create the file (mode 0600; its folder too, mode 0700, if only that one is missing): WAL, synchronous=FULL.
 * Blocks: for start-up.
 *   TR_OK         *ret_db is owned by the caller: db_close() it
 *   anything else says in err what is wrong with the file and how to mend it
 */
enum tr_rc db_open(const struct db_spec *spec, struct db **ret_db, struct tr_err *err) TR_MUST_CHECK;
void db_close(struct db *db); /* NULL is fine */

sqlite3 *db_handle(struct db *db);

/* Statement i of the table, reset, no values bound; NULL: err is filled, the rc is err->rc (err must not be NULL). */
sqlite3_stmt *db_stmt(struct db *db, size_t i, struct tr_err *err) TR_MUST_CHECK;

/* Step a statement that gives no rows (or whose rows don't matter) to its end, and reset it. */
enum tr_rc db_run(struct db *db, sqlite3_stmt *stmt, struct tr_err *err) TR_MUST_CHECK;
/* Step once: TR_OK: there is a row; TR_NOT_FOUND: no (more) row, the statement is reset; else failed, and reset. */
enum tr_rc db_row(struct db *db, sqlite3_stmt *stmt, struct tr_err *err) TR_MUST_CHECK;
/* One or more statements without values or rows. */
enum tr_rc db_exec(struct db *db, const char *sql, struct tr_err *err) TR_MUST_CHECK;

enum tr_rc db_begin(struct db *db, struct tr_err *err) TR_MUST_CHECK; /* BEGIN IMMEDIATE */
/* Nothing is left open after it.  TR_TRANSIENT: certainly rolled back; TR_UNCERTAIN: the sync failed. */
enum tr_rc db_commit(struct db *db, struct tr_err *err) TR_MUST_CHECK;
void db_rollback(struct db *db); /* fine without a transaction */

/* What the handle's last call failed with, in our terms: full, read-only, missing folder, not a database, damaged, … */
enum tr_rc db_fail(struct db *db, struct tr_err *err);

/* Values; a slice is bound without a copy: it must stay until the statement is reset or bound anew. */
void db_bind_u64(sqlite3_stmt *stmt, int i, uint64_t v);
void db_bind_slice(sqlite3_stmt *stmt, int i, struct slice v); /* a blob, never NULL */
void db_bind_text(sqlite3_stmt *stmt, int i, const char *v);
uint64_t db_u64(sqlite3_stmt *stmt, int col);
struct slice db_slice(sqlite3_stmt *stmt, int col); /* borrowed until the next step or reset */
const char *db_text(sqlite3_stmt *stmt, int col);   /* never NULL; borrowed as db_slice */

#endif
