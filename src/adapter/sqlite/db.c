/*
 * db - SQLite files: write-ahead log, a sync a commit, no memory mapping (an I/O error must be an error, not a signal).
 */
#include "adapter/sqlite/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 5000
#define CHECKPOINT_PAGES 4000 /* 16 MiB of log between checkpoints */

enum { STMT_BEGIN, STMT_COMMIT, STMT_ROLLBACK, STMT_OWN };
static const char *const own_sql[STMT_OWN] = {"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"};

struct db {
    sqlite3 *handle;
    char *path;
    const char *const *sql;
    size_t sql_n;
    sqlite3_stmt **stmt; /* STMT_OWN of our own, then sql_n of the adapter's */
};

static enum tr_rc fail_code(const char *path, int code, const char *text, struct tr_err *err)
{
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return tr_fail(err, TR_NOMEM, "%s: out of memory", path);
    case SQLITE_FULL:
        return tr_fail(err, TR_TRANSIENT, "%s: disk is full: free space, then start again if it has stopped", path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return tr_fail(err, TR_TRANSIENT, "%s: in use by another process: stop that one, or give this one its own file",
                       path);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return tr_fail(err, TR_TRANSIENT, "%s: can't be written to: make the file and its folder writable for us",
                       path);
    case SQLITE_CANTOPEN:
        return tr_fail(err, TR_TRANSIENT, "%s: can't be opened: does its folder exist, and may this user use it?",
                       path);
    case SQLITE_NOTADB:
        return tr_fail(err, TR_TRANSIENT, "%s: not a SQLite database: move it away or name another file", path);
    case SQLITE_CORRUPT:
        return tr_fail(err, TR_TRANSIENT, "%s: damaged (%s): restore it from a backup, or try sqlite3's .recover", path,
                       text);
    case SQLITE_IOERR:
        return tr_fail(err, TR_TRANSIENT, "%s: the disk failed (%s, code %d): check the disk and its quota", path, text,
                       code);
    case SQLITE_TOOBIG:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return tr_fail(err, TR_INVALID, "%s: %s", path, text);
    default:
        return tr_fail(err, TR_TRANSIENT, "%s: %s (code %d)", path, text, code);
    }
}

enum tr_rc db_fail(struct db *db, struct tr_err *err)
{
    return fail_code(db->path, sqlite3_extended_errcode(db->handle), sqlite3_errmsg(db->handle), err);
}

sqlite3 *db_handle(struct db *db)
{
    return db->handle;
}

static sqlite3_stmt *stmt_at(struct db *db, size_t at, const char *sql, struct tr_err *err)
{
    if (db->stmt[at] == NULL) {
        if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &db->stmt[at], NULL) != SQLITE_OK) {
            db_fail(db, err);
            return NULL;
        }
        return db->stmt[at];
    }
    sqlite3_reset(db->stmt[at]);
    sqlite3_clear_bindings(db->stmt[at]);
    return db->stmt[at];
}

sqlite3_stmt *db_stmt(struct db *db, size_t i, struct tr_err *err)
{
    return stmt_at(db, STMT_OWN + i, db->sql[i], err);
}

enum tr_rc db_row(struct db *db, sqlite3_stmt *stmt, struct tr_err *err)
{
    enum tr_rc rc;

    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        return TR_OK;
    case SQLITE_DONE:
        sqlite3_reset(stmt);
        return TR_NOT_FOUND;
    default:
        rc = db_fail(db, err);
        sqlite3_reset(stmt);
        return rc;
    }
}

enum tr_rc db_run(struct db *db, sqlite3_stmt *stmt, struct tr_err *err)
{
    enum tr_rc rc;

    do
        rc = db_row(db, stmt, err);
    while (rc == TR_OK);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc db_exec(struct db *db, const char *sql, struct tr_err *err)
{
    return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? TR_OK : db_fail(db, err);
}

enum tr_rc db_begin(struct db *db, struct tr_err *err)
{
    struct tr_err own;
    sqlite3_stmt *stmt;

    if (err == NULL)
        err = &own;
    stmt = stmt_at(db, STMT_BEGIN, own_sql[STMT_BEGIN], err);
    return stmt == NULL ? err->rc : db_run(db, stmt, err);
}

void db_rollback(struct db *db)
{
    struct tr_err err;
    sqlite3_stmt *stmt;

    if (sqlite3_get_autocommit(db->handle))
        return; /* SQLite rolled back by itself */
    stmt = stmt_at(db, STMT_ROLLBACK, own_sql[STMT_ROLLBACK], &err);
    if (stmt == NULL || db_run(db, stmt, &err) != TR_OK)
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

/*
 * The commit frame is the last that is written to the log: a failed write means that it is not there.  A failed sync
 * means that nobody knows.
 */
static bool is_sync_error(int code)
{
    return code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC;
}

enum tr_rc db_commit(struct db *db, struct tr_err *err)
{
    struct tr_err own;
    sqlite3_stmt *stmt;
    enum tr_rc rc;
    int r;

    if (err == NULL)
        err = &own;
    stmt = stmt_at(db, STMT_COMMIT, own_sql[STMT_COMMIT], err);
    if (stmt == NULL) {
        db_rollback(db);
        return err->rc;
    }
    r = sqlite3_step(stmt);
    if (r == SQLITE_DONE) {
        sqlite3_reset(stmt);
        return TR_OK;
    }
    rc = db_fail(db, err);
    if (is_sync_error(sqlite3_extended_errcode(db->handle)))
        rc = err->rc = TR_UNCERTAIN;
    sqlite3_reset(stmt);
    db_rollback(db);
    return rc;
}

void db_bind_u64(sqlite3_stmt *stmt, int i, uint64_t v)
{
    sqlite3_bind_int64(stmt, i, (sqlite3_int64)v);
}

void db_bind_slice(sqlite3_stmt *stmt, int i, struct slice v)
{
    if (v.len == 0)
        sqlite3_bind_zeroblob(stmt, i, 0);
    else
        sqlite3_bind_blob64(stmt, i, v.data, v.len, SQLITE_STATIC);
}

void db_bind_text(sqlite3_stmt *stmt, int i, const char *v)
{
    sqlite3_bind_text(stmt, i, v, -1, SQLITE_STATIC);
}

uint64_t db_u64(sqlite3_stmt *stmt, int col)
{
    return (uint64_t)sqlite3_column_int64(stmt, col);
}

struct slice db_slice(sqlite3_stmt *stmt, int col)
{
    const void *data = sqlite3_column_blob(stmt, col); /* before its length, as SQLite wants it */

    return (struct slice){data, (size_t)sqlite3_column_bytes(stmt, col)};
}

const char *db_text(sqlite3_stmt *stmt, int col)
{
    const unsigned char *text = sqlite3_column_text(stmt, col);

    return text != NULL ? (const char *)text : "";
}

/* Create the file with mode 0600 (its log inherits it), and its folder where only that is missing. */
static enum tr_rc touch(const char *path, struct tr_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 && errno == ENOENT) {
        const char *slash = strrchr(path, '/');
        char *dir = slash != NULL && slash != path ? strndup(path, (size_t)(slash - path)) : NULL;

        if (dir != NULL && mkdir(dir, 0700) == 0)
            fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        free(dir);
    }
    if (fd < 0) {
        if (errno == ENOSPC || errno == EDQUOT)
            return fail_code(path, SQLITE_FULL, "", err);
        return tr_fail(err, TR_TRANSIENT, "%s: %s: make sure its folder exists and this user may write there", path,
                       strerror(errno));
    }
    close(fd);
    return TR_OK;
}

static enum tr_rc read_int(struct db *db, const char *sql, int *ret_value, struct tr_err *err)
{
    sqlite3_stmt *stmt = NULL;
    enum tr_rc rc = TR_OK;

    if (sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL) != SQLITE_OK)
        return db_fail(db, err);
    if (sqlite3_step(stmt) == SQLITE_ROW)
        *ret_value = sqlite3_column_int(stmt, 0);
    else
        rc = db_fail(db, err);
    sqlite3_finalize(stmt);
    return rc;
}

static enum tr_rc set_version(struct db *db, int version, struct tr_err *err)
{
    char sql[48];

    sqlite3_snprintf(sizeof sql, sql, "PRAGMA user_version=%d", version);
    return db_exec(db, sql, err);
}

/* Bring the file to the schema's version, in one transaction, so that it is never between two. */
static enum tr_rc migrate(struct db *db, const struct db_spec *spec, struct tr_err *err)
{
    int version = 0, found;
    enum tr_rc rc = db_begin(db, err);

    if (rc != TR_OK)
        return rc;
    rc = read_int(db, "PRAGMA user_version", &version, err);
    if (rc == TR_OK && version > spec->version)
        rc = tr_fail(err, TR_INVALID,
                     "%s: of a newer version of this program (schema %d, known here: %d): start that version, or name "
                     "another file",
                     db->path, version, spec->version);
    found = version;
    if (rc == TR_OK && version == 0) {
        rc = db_exec(db, spec->schema, err);
        version = spec->version;
    }
    for (; rc == TR_OK && version < spec->version; version++)
        rc = db_exec(db, spec->steps[version], err);
    if (rc == TR_OK && version != found)
        rc = set_version(db, version, err);
    if (rc != TR_OK) {
        db_rollback(db);
        return rc;
    }
    return db_commit(db, err);
}

static enum tr_rc configure(struct db *db, const struct db_spec *spec, struct tr_err *err)
{
    char sql[256];
    enum tr_rc rc;

    /* Without a wait where the file is to be ours alone: whoever has it keeps it. */
    sqlite3_busy_timeout(db->handle, spec->exclusive ? 0 : BUSY_TIMEOUT_MS);
    sqlite3_snprintf(sizeof sql, sql,
                     "%s PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF; PRAGMA mmap_size=0;"
                     " PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=67108864; PRAGMA trusted_schema=OFF",
                     spec->exclusive ? "PRAGMA locking_mode=EXCLUSIVE;" : "", CHECKPOINT_PAGES);
    rc = db_exec(db, sql, err);
    return rc == TR_OK ? migrate(db, spec, err) : rc;
}

enum tr_rc db_open(const struct db_spec *spec, struct db **ret_db, struct tr_err *err)
{
    struct db *db = NULL;
    enum tr_rc rc;

    rc = touch(spec->path, err);
    if (rc != TR_OK)
        goto out;
    db = calloc(1, sizeof *db);
    if (db == NULL || (db->path = strdup(spec->path)) == NULL ||
        (db->stmt = calloc(STMT_OWN + spec->sql_n, sizeof(sqlite3_stmt *))) == NULL) {
        rc = tr_fail(err, TR_NOMEM, "%s: out of memory", spec->path);
        goto out;
    }
    db->sql = spec->sql;
    db->sql_n = spec->sql_n;
    if (sqlite3_open_v2(spec->path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        rc = db->handle != NULL ? db_fail(db, err) : tr_fail(err, TR_NOMEM, "%s: out of memory", spec->path);
        goto out;
    }
    sqlite3_extended_result_codes(db->handle, 1);
    rc = configure(db, spec, err);
    if (rc != TR_OK)
        goto out;
    *ret_db = db;
    db = NULL;
out:
    db_close(db);
    return rc;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    for (size_t i = 0; db->stmt != NULL && i < STMT_OWN + db->sql_n; i++)
        sqlite3_finalize(db->stmt[i]);
    sqlite3_close(db->handle);
    free(db->stmt);
    free(db->path);
    free(db);
}
