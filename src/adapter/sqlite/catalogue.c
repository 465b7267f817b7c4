/*
 * catalogue - users, characters and settings in one SQLite file, with one thread as its only user.
 *
 * A batch's first write begins a transaction and the batch's end commits it, so that many writes wait for one sync and
 * a batch of reads takes no lock.  A job's checks come before its writes; a write that fails half way fails its batch.
 */
#include "adapter/sqlite/catalogue.h"
#include "adapter/sqlite/db.h"
#include "base/offload.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] =
    "CREATE TABLE characters ("
    "  id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, tagline TEXT NOT NULL, avatar_type TEXT NOT NULL,"
    "  updated INTEGER NOT NULL, card BLOB NOT NULL, avatar BLOB NOT NULL);"
    "CREATE TABLE users (user BLOB NOT NULL PRIMARY KEY, created INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;";

enum stmt {
    ST_CHARACTER_PUT,
    ST_CHARACTER_ADD,
    ST_CHARACTER_SAME,
    ST_CHARACTER,
    ST_CHARACTERS,
    ST_CHARACTER_REMOVE,
    ST_USER_PUT,
    ST_SETTING_PUT,
    ST_SETTING,
    ST_COUNT
};
#define LIST_COLUMNS "id, name, tagline, avatar_type, updated"
#define ADD "INSERT INTO characters (" LIST_COLUMNS ", card, avatar) VALUES (?1,?2,?3,?4,?5,?6,?7) ON CONFLICT (id) DO "
static const char *const sql[ST_COUNT] = {
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
};

struct job {
    struct offload_job base;
    struct sqlite_catalogue *owner;
    struct job *next, *prev; /* all that are under way, for close */
    enum tr_rc (*run)(struct sqlite_catalogue *c, struct job *job, struct tr_err *err);
    union {
        catalogue_done *plain;
        catalogue_character_done *character;
        catalogue_characters_done *characters;
        catalogue_setting_done *setting;
    } cb;
    void *ctx;

    struct catalogue_character in; /* its texts are in in_block, owned */
    char *in_block;
    bool replace;
    struct uuid user;
    uint64_t created_ms;
    char *key, *value; /* owned; value: in and out */

    bool mine;
    struct catalogue_character *list; /* owned; list[i]'s texts are in blocks[i] */
    char **blocks;
    size_t n, cap;
};

struct sqlite_catalogue {
    struct catalogue base;
    struct db *db;       /* the thread's */
    struct tr_err cause; /* the thread's: rc != TR_OK: this batch is lost */
    struct offload *thread;
    struct job *jobs;
    bool closing;
};

/* ---- on the thread ---- */

static enum tr_rc batch_begin(void *state, struct tr_err *err)
{
    struct sqlite_catalogue *c = state;

    (void)err;
    c->cause = (struct tr_err){0};
    return TR_OK;
}

static enum tr_rc job_work(struct offload_job *base, void *state)
{
    struct job *job = (struct job *)base;
    struct sqlite_catalogue *c = state;
    enum tr_rc rc = c->cause.rc;

    if (rc != TR_OK) {
        base->err = c->cause;
        return rc;
    }
    if (base->write && sqlite3_get_autocommit(db_handle(c->db)))
        rc = db_begin(c->db, &base->err);
    if (rc == TR_OK)
        rc = job->run(c, job, &base->err);
    base->err.rc = rc;
    if (base->write && (rc == TR_TRANSIENT || rc == TR_INVALID || rc == TR_NOMEM)) {
        c->cause = base->err;
        c->cause.rc = rc == TR_NOMEM ? TR_NOMEM : TR_TRANSIENT; /* of the batch: it is rolled back */
    }
    return rc;
}

static enum tr_rc batch_end(void *state, bool any_write, struct tr_err *err)
{
    struct sqlite_catalogue *c = state;

    (void)any_write;
    if (c->cause.rc != TR_OK) {
        db_rollback(c->db);
        *err = c->cause;
        return c->cause.rc;
    }
    return sqlite3_get_autocommit(db_handle(c->db)) ? TR_OK : db_commit(c->db, err);
}

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

static enum tr_rc run_character_put(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
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
static enum tr_rc character_copy(const struct catalogue_character *from, struct catalogue_character *ret_to,
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

static enum tr_rc list_grow(struct job *job, struct tr_err *err)
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
static enum tr_rc list_add(struct job *job, sqlite3_stmt *stmt, struct tr_err *err)
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
    rc = character_copy(&row, &job->list[job->n], &job->blocks[job->n], err);
    if (rc == TR_OK)
        job->n++;
    return rc;
}

static enum tr_rc run_character_get(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
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

static enum tr_rc run_characters(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
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

static enum tr_rc run_character_remove(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHARACTER_REMOVE, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->in.id);
    rc = db_run(c->db, stmt, err);
    return rc == TR_OK && sqlite3_changes(db_handle(c->db)) == 0 ? TR_NOT_FOUND : rc;
}

static enum tr_rc run_user_put(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_USER_PUT, err);

    if (stmt == NULL)
        return err->rc;
    sqlite3_bind_blob(stmt, 1, job->user.b, sizeof job->user.b, SQLITE_STATIC);
    db_bind_u64(stmt, 2, job->created_ms);
    return db_run(c->db, stmt, err);
}

static enum tr_rc run_setting_get(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
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

static enum tr_rc run_setting_put(struct sqlite_catalogue *c, struct job *job, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SETTING_PUT, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, job->key);
    db_bind_text(stmt, 2, job->value);
    rc = db_run(c->db, stmt, err);
    return rc == TR_OK ? run_setting_get(c, job, err) : rc; /* the standing one */
}

/* ---- jobs, on the loop ---- */

static void job_free(struct job *job)
{
    for (size_t i = 0; i < job->n; i++)
        free(job->blocks[i]);
    free(job->blocks);
    free(job->list);
    free(job->in_block);
    free(job->key);
    free(job->value);
    free(job);
}

static void job_release(struct offload_job *base)
{
    struct job *job = (struct job *)base;

    if (job->prev != NULL)
        job->prev->next = job->next;
    else
        job->owner->jobs = job->next;
    if (job->next != NULL)
        job->next->prev = job->prev;
    job_free(job);
}

static void on_plain(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *job = (struct job *)base;

    job->cb.plain(job->ctx, rc, err);
}

static void on_character(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *job = (struct job *)base;

    job->cb.character(job->ctx, rc, rc == TR_OK ? job->list : NULL, err);
}

static void on_characters(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *job = (struct job *)base;

    if (rc == TR_OK)
        job->cb.characters(job->ctx, rc, job->list, job->n, err);
    else
        job->cb.characters(job->ctx, rc, NULL, 0, err);
}

static void on_setting(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *job = (struct job *)base;

    if (rc == TR_OK)
        job->cb.setting(job->ctx, rc, job->mine, job->value, err);
    else
        job->cb.setting(job->ctx, rc, false, NULL, err);
}

typedef enum tr_rc job_run(struct sqlite_catalogue *c, struct job *job, struct tr_err *err);
typedef void job_done(struct offload_job *base, enum tr_rc rc, const struct tr_err *err);

/* A job with nothing in it but perhaps a character's id; *ret_job is owned. */
static enum tr_rc job_new(struct catalogue *base, bool write, job_run *run, job_done *done, const char *id, void *ctx,
                          struct job **ret_job, struct tr_err *err)
{
    struct sqlite_catalogue *c = (struct sqlite_catalogue *)base;
    struct job *job;

    if (c->closing)
        return tr_fail(err, TR_CANCELLED, "catalogue: closing");
    if (id != NULL && !character_id_valid(id, strlen(id)))
        return tr_fail(err, TR_INVALID, "not a character's id: [a-z0-9-], 1 to %d of them, and not \"any\"",
                       CHARACTER_ID_MAX);
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "catalogue: job");
    job->base.work = job_work;
    job->base.done = done;
    job->base.release = job_release;
    job->base.write = write;
    job->owner = c;
    job->run = run;
    job->ctx = ctx;
    if (id != NULL)
        memcpy(job->in.id, id, strlen(id));
    *ret_job = job;
    return TR_OK;
}

/* The job is taken in any case. */
static enum tr_rc job_start(struct job *job, struct tr_op **ret_op, struct tr_err *err)
{
    struct sqlite_catalogue *c = job->owner;
    const enum tr_rc rc = offload_submit(c->thread, &job->base);

    if (rc != TR_OK) {
        job_free(job);
        return tr_fail(err, rc, "catalogue: too many operations are waiting for the disk");
    }
    job->next = c->jobs;
    if (c->jobs != NULL)
        c->jobs->prev = job;
    c->jobs = job;
    if (ret_op != NULL)
        *ret_op = &job->base.op;
    return TR_OK;
}

/* ---- the port ---- */

static enum tr_rc character_put(struct catalogue *c, const struct catalogue_character *ch, bool replace,
                                catalogue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job = NULL;
    enum tr_rc rc = job_new(c, true, run_character_put, on_plain, ch->id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    rc = character_copy(ch, &job->in, &job->in_block, err);
    if (rc != TR_OK) {
        job_free(job);
        return rc;
    }
    if (job->in.updated_ms == 0)
        job->in.updated_ms = wall_ms();
    job->cb.plain = done;
    job->replace = replace;
    return job_start(job, ret_op, err);
}

static enum tr_rc character_get(struct catalogue *c, const char *id, catalogue_character_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job = NULL;
    const enum tr_rc rc = job_new(c, false, run_character_get, on_character, id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.character = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc characters(struct catalogue *c, catalogue_characters_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct job *job = NULL;
    const enum tr_rc rc = job_new(c, false, run_characters, on_characters, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.characters = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc character_remove(struct catalogue *c, const char *id, catalogue_done *done, void *ctx,
                                   struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job = NULL;
    const enum tr_rc rc = job_new(c, true, run_character_remove, on_plain, id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc user_put(struct catalogue *c, const struct uuid *user, uint64_t created_ms, catalogue_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job = NULL;
    const enum tr_rc rc = job_new(c, true, run_user_put, on_plain, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    job->user = *user;
    job->created_ms = created_ms;
    return job_start(job, ret_op, err);
}

static enum tr_rc setting_start(struct catalogue *c, bool write, job_run *run, const char *key, const char *value,
                                catalogue_setting_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job = NULL;
    const enum tr_rc rc = job_new(c, write, run, on_setting, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.setting = done;
    job->key = strdup(key);
    job->value = value != NULL ? strdup(value) : NULL;
    if (job->key == NULL || (value != NULL && job->value == NULL)) {
        job_free(job);
        return tr_fail(err, TR_NOMEM, "catalogue: setting");
    }
    return job_start(job, ret_op, err);
}

static enum tr_rc setting_put(struct catalogue *c, const char *key, const char *value, catalogue_setting_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return setting_start(c, true, run_setting_put, key, value, done, ctx, ret_op, err);
}

static enum tr_rc setting_get(struct catalogue *c, const char *key, catalogue_setting_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    return setting_start(c, false, run_setting_get, key, NULL, done, ctx, ret_op, err);
}

/* NULL or half built: both are fine. */
static void catalogue_free(struct sqlite_catalogue *c)
{
    if (c == NULL)
        return;
    c->closing = true;
    for (struct job *job = c->jobs; job != NULL; job = job->next)
        tr_op_cancel(&job->base.op);
    offload_stop(c->thread);
    assert(c->jobs == NULL);
    db_close(c->db);
    free(c);
}

static void catalogue_close(struct catalogue *c)
{
    catalogue_free((struct sqlite_catalogue *)c);
}

static const struct catalogue_ops sqlite_catalogue_ops = {
    .scheme = "sqlite",
    .character_put = character_put,
    .character_get = character_get,
    .characters = characters,
    .character_remove = character_remove,
    .user_put = user_put,
    .setting_put = setting_put,
    .setting_get = setting_get,
    .close = catalogue_close,
};

enum tr_rc sqlite_catalogue_open(struct loop *loop, const char *path, struct catalogue **ret_catalogue,
                                 struct tr_err *err)
{
    const struct db_spec spec = {.path = path, .version = 1, .schema = schema, .sql = sql, .sql_n = ST_COUNT};
    struct offload_hooks hooks = {.begin = batch_begin, .end = batch_end};
    struct sqlite_catalogue *c = calloc(1, sizeof *c);
    enum tr_rc rc;

    if (c == NULL) {
        rc = tr_fail(err, TR_NOMEM, "sqlite catalogue");
        goto out;
    }
    c->base.ops = &sqlite_catalogue_ops;
    rc = db_open(&spec, &c->db, err);
    if (rc != TR_OK)
        goto out;
    hooks.state = c;
    rc = offload_start(loop, "catalogue", &hooks, &c->thread, err);
    if (rc != TR_OK)
        goto out;

    *ret_catalogue = &c->base;
    c = NULL; /* the caller owns it now */
out:
    catalogue_free(c);
    return rc;
}
