/* catalogue_run - the schema, the statements, and what each job does on the thread. */
#include "adapter/sqlite/catalogue_impl.h"

#include <stdlib.h>
#include <string.h>

const char catalogue_schema[] =
    "CREATE TABLE characters ("
    "  id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, tagline TEXT NOT NULL, avatar_type TEXT NOT NULL,"
    "  updated INTEGER NOT NULL, card BLOB NOT NULL, avatar BLOB NOT NULL);"
    "CREATE TABLE users (user BLOB NOT NULL PRIMARY KEY, created INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

#define LIST_COLUMNS "id, name, tagline, avatar_type, updated"
#define ADD "INSERT INTO characters (" LIST_COLUMNS ", card, avatar) VALUES (?1,?2,?3,?4,?5,?6,?7) ON CONFLICT (id) DO "
const char *const catalogue_sql[ST_COUNT] = {
    /* A new `updated` with every put, whatever the clock does. */
    [ST_CHARACTER_PUT] = (ADD "UPDATE SET name = excluded.name, tagline = excluded.tagline,"
                              " avatar_type = excluded.avatar_type, updated = max(excluded.updated, updated + 1),"
                              " card = excluded.card, avatar = excluded.avatar"),
    [ST_CHARACTER_ADD] = ADD "NOTHING",
    [ST_CHARACTER_SAME] = ("SELECT 1 FROM characters WHERE id = ?1 AND name = ?2 AND tagline = ?3 AND avatar_type = ?4"
                           " AND card = ?6 AND avatar = ?7"),
    [ST_CHARACTER] = "SELECT " LIST_COLUMNS ", card, avatar FROM characters WHERE id = ?1",
    [ST_CHARACTERS] = "SELECT " LIST_COLUMNS ", x'', x'' FROM characters ORDER BY name COLLATE NOCASE, id",
    [ST_CHARACTER_REMOVE] = "DELETE FROM characters WHERE id = ?1",
    [ST_USER_PUT] = "INSERT OR IGNORE INTO users (user, created) VALUES (?1, ?2)",
    [ST_SETTING_PUT] = "INSERT OR IGNORE INTO settings (key, value) VALUES (?1, ?2)",
    [ST_SETTING] = "SELECT value FROM settings WHERE key = ?1",
    [ST_SETTINGS] = "SELECT key FROM settings WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
    [ST_SETTING_REMOVE] = "DELETE FROM settings WHERE key = ?1",
};

static void bind_character(sqlite3_stmt *stmt, const struct catalogue_character *ch)
{
    db_bind_text(stmt, 1, ch->id);
    db_bind_text(stmt, 2, ch->name);
    db_bind_text(stmt, 3, ch->tagline);
    db_bind_text(stmt, 4, ch->avatar_type);
    db_bind_u64(stmt, 5, ch->updated_ms);
    db_bind_slice(stmt, 6, ch->card);
    db_bind_slice(stmt, 7, ch->avatar);
}

enum tr_rc catalogue_run_character_put(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, job->replace ? ST_CHARACTER_PUT : ST_CHARACTER_ADD, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    bind_character(stmt, &job->in);
    rc = db_run(c->db, stmt, err);
    if (rc != TR_OK || sqlite3_changes(db_handle(c->db)) > 0)
        return rc;
    stmt = db_stmt(c->db, ST_CHARACTER_SAME, err);
    if (stmt == NULL)
        return err->rc;
    bind_character(stmt, &job->in);
    rc = db_row(c->db, stmt, err);
    sqlite3_reset(stmt);
    return rc == TR_NOT_FOUND ? tr_fail(err, TR_BUSY, "character '%s' is there already", job->in.id) : rc;
}

/* Copy a character and all its texts into one block, *ret_block, owned.  TR_OK or TR_NOMEM. */
enum tr_rc catalogue_character_copy(const struct catalogue_character *from, struct catalogue_character *ret_to,
                                    char **ret_block, struct tr_err *err)
{
    const char *const texts[] = {from->name, from->tagline, from->avatar_type};
    const struct slice blobs[] = {from->card, from->avatar};
    const char *copies[3];
    struct slice blob_copies[2];
    size_t size = 1;
    char *block, *at;

    for (size_t i = 0; i < 3; i++)
        size += texts[i] != NULL ? strlen(texts[i]) + 1 : 1;
    block = at = malloc(size + blobs[0].len + blobs[1].len);
    if (block == NULL)
        return tr_fail(err, TR_NOMEM, "catalogue: character");
    for (size_t i = 0; i < 3; i++) {
        const size_t len = texts[i] != NULL ? strlen(texts[i]) : 0;

        if (len > 0)
            memcpy(at, texts[i], len);
        at[len] = '\0';
        copies[i] = at;
        at += len + 1;
    }
    for (size_t i = 0; i < 2; i++) {
        if (blobs[i].len > 0)
            memcpy(at, blobs[i].data, blobs[i].len);
        blob_copies[i] = (struct slice){(uint8_t *)at, blobs[i].len};
        at += blobs[i].len;
    }
    *ret_to = *from;
    ret_to->name = copies[0];
    ret_to->tagline = copies[1];
    ret_to->avatar_type = copies[2];
    ret_to->card = blob_copies[0];
    ret_to->avatar = blob_copies[1];
    *ret_block = block;
    return TR_OK;
}

static enum tr_rc list_grow(struct catalogue_job *job, struct tr_err *err)
{
    const size_t cap = job->cap == 0 ? 8 : job->cap * 2;
    struct catalogue_character *list = realloc(job->list, cap * sizeof *list);
    char **blocks = list != NULL ? realloc(job->blocks, cap * sizeof *blocks) : NULL;

    if (list != NULL)
        job->list = list;
    if (blocks == NULL)
        return tr_fail(err, TR_NOMEM, "catalogue: characters");
    job->blocks = blocks;
    job->cap = cap;
    return TR_OK;
}

/* The character that the statement stands on, to the list's end. */
static enum tr_rc list_add(struct catalogue_job *job, sqlite3_stmt *stmt, struct tr_err *err)
{
    struct catalogue_character row = {.updated_ms = db_u64(stmt, 4)};
    const char *id = db_text(stmt, 0);
    enum tr_rc rc = job->n == job->cap ? list_grow(job, err) : TR_OK;

    if (rc != TR_OK)
        return rc;
    memcpy(row.id, id, strnlen(id, sizeof row.id - 1));
    row.name = db_text(stmt, 1);
    row.tagline = db_text(stmt, 2);
    row.avatar_type = db_text(stmt, 3);
    row.card = db_slice(stmt, 5);
    row.avatar = db_slice(stmt, 6);
    rc = catalogue_character_copy(&row, &job->list[job->n], &job->blocks[job->n], err);
    if (rc == TR_OK)
        job->n++;
    return rc;
}

enum tr_rc catalogue_run_character_get(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHARACTER, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->in.id);
    rc = db_row(c->db, stmt, err);
    if (rc == TR_OK)
        rc = list_add(job, stmt, err);
    sqlite3_reset(stmt);
    return rc;
}

enum tr_rc catalogue_run_characters(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHARACTERS, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        rc = list_add(job, stmt, err);
        if (rc != TR_OK)
            break;
    }
    sqlite3_reset(stmt);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc catalogue_run_character_remove(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHARACTER_REMOVE, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->in.id);
    rc = db_run(c->db, stmt, err);
    return rc == TR_OK && sqlite3_changes(db_handle(c->db)) == 0 ? TR_NOT_FOUND : rc;
}

enum tr_rc catalogue_run_user_put(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_USER_PUT, err);

    if (stmt == NULL)
        return err->rc;
    sqlite3_bind_blob(stmt, 1, job->user.b, sizeof job->user.b, SQLITE_STATIC);
    db_bind_u64(stmt, 2, job->created_ms);
    return db_run(c->db, stmt, err);
}

enum tr_rc catalogue_run_setting_get(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SETTING, err);
    char *value = NULL;
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->key);
    rc = db_row(c->db, stmt, err);
    if (rc == TR_OK && (value = strdup(db_text(stmt, 0))) == NULL)
        rc = tr_fail(err, TR_NOMEM, "catalogue: setting");
    sqlite3_reset(stmt);
    if (rc != TR_OK)
        return rc;
    job->mine = job->value != NULL && strcmp(job->value, value) == 0;
    free(job->value);
    job->value = value;
    return TR_OK;
}

enum tr_rc catalogue_run_setting_put(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SETTING_PUT, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->key);
    db_bind_text(stmt, 2, job->value);
    rc = db_run(c->db, stmt, err);
    return rc == TR_OK ? catalogue_run_setting_get(c, job, err) : rc; /* the standing one */
}

static enum tr_rc keys_add(struct catalogue_job *job, const char *key, struct tr_err *err)
{
    char **const more = realloc(job->keys, (job->keys_n + 1) * sizeof *more);

    if (more != NULL)
        job->keys = more;
    if (more == NULL || (more[job->keys_n] = strdup(key)) == NULL)
        return tr_fail(err, TR_NOMEM, "catalogue: settings");
    job->keys_n++;
    return TR_OK;
}

enum tr_rc catalogue_run_settings(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SETTINGS, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->key);
    while ((rc = db_row(c->db, stmt, err)) == TR_OK) {
        rc = keys_add(job, db_text(stmt, 0), err);
        if (rc != TR_OK)
            break;
    }
    sqlite3_reset(stmt);
    return rc == TR_NOT_FOUND ? TR_OK : rc;
}

enum tr_rc catalogue_run_setting_remove(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SETTING_REMOVE, err);

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->key);
    return db_run(c->db, stmt, err);
}
