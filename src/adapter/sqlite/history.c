/*
 * history - the port's side, on the loop: copies what comes in, starts a job, hands its result out.
 *
 * Two threads, each the only user of a connection: one writes, a batch of jobs a transaction, so that many wait for one
 * sync; the other reads, so that no read waits for a sync.  A write is answered after its commit and a read takes its
 * snapshot after it was started, so it sees every write that was answered before.
 */
#include "adapter/sqlite/history.h"
#include "adapter/sqlite/history_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define READ_BATCH 32          /* they are answered together: few, for a short wait */
#define TRUNCATE_TIMEOUT_MS 50 /* how long emptying the log may wait for the reader; it is tried again later */
#define BUSY_TIMEOUT_MS 5000   /* as db.c has it: what the writer waits for another process */

struct sqlite_history {
    struct history base;
    struct history_conn write_conn, read_conn;
    struct offload *writer, *reader;
    struct history_job *jobs; /* all that are under way */
    bool closing;
};

/* ---- on the threads ---- */

static enum tr_rc job_work(struct offload_job *base, void *state)
{
    struct history_job *job = (struct history_job *)base;
    struct history_conn *c = state;
    enum tr_rc rc;

    if (c->cause.rc != TR_OK) {
        base->err = c->cause;
        return c->cause.rc;
    }
    rc = job->run(c, job, &base->err);
    base->err.rc = rc;
    if (base->write && rc != TR_OK && rc != TR_NOT_FOUND) {
        c->cause = base->err;
        c->cause.rc = rc == TR_NOMEM ? TR_NOMEM : TR_TRANSIENT; /* of the batch: it is rolled back */
    }
    return rc;
}

static enum tr_rc write_begin(void *state, struct tr_err *err)
{
    struct history_conn *c = state;

    c->cause = (struct tr_err){0};
    return db_begin(c->db, err);
}

/* Move the log into the file and cut it to nothing: what was destroyed must not stay there. */
static void truncate_log(struct history_conn *c)
{
    sqlite3 *handle = db_handle(c->db);

    sqlite3_busy_timeout(handle, TRUNCATE_TIMEOUT_MS);
    if (sqlite3_wal_checkpoint_v2(handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) == SQLITE_OK)
        c->truncate = false; /* else after the next batch */
    sqlite3_busy_timeout(handle, BUSY_TIMEOUT_MS);
}

static enum tr_rc write_end(void *state, bool any_write, struct tr_err *err)
{
    struct history_conn *c = state;
    enum tr_rc rc;

    (void)any_write; /* a commit of nothing neither writes nor syncs */
    if (c->cause.rc != TR_OK) {
        db_rollback(c->db);
        *err = c->cause;
        return c->cause.rc;
    }
    rc = db_commit(c->db, err);
    if (rc == TR_OK && c->truncate)
        truncate_log(c);
    return rc;
}

static enum tr_rc read_begin(void *state, struct tr_err *err)
{
    struct history_conn *c = state;
    sqlite3_stmt *stmt = db_stmt(c->db, ST_SNAPSHOT, err);

    return stmt == NULL ? err->rc : db_run(c->db, stmt, err);
}

static enum tr_rc read_end(void *state, bool any_write, struct tr_err *err)
{
    struct history_conn *c = state;
    sqlite3_stmt *stmt;

    (void)any_write;
    if (sqlite3_get_autocommit(db_handle(c->db)))
        return TR_OK; /* a failed read has ended it */
    stmt = db_stmt(c->db, ST_SNAPSHOT_END, err);
    return stmt == NULL ? err->rc : db_run(c->db, stmt, err);
}

/* ---- jobs, on the loop ---- */

static void job_free(struct history_job *job)
{
    free(job->rows);
    free(job->chats);
    row_set_release(&job->set);
    free(job);
}

static void job_release(struct offload_job *base)
{
    struct history_job *job = (struct history_job *)base;

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
    struct history_job *job = (struct history_job *)base;

    job->cb.plain(job->ctx, rc, err);
}

static void on_chat(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    if (rc == TR_OK)
        job->cb.chat(job->ctx, rc, &job->chat, job->mine, err);
    else
        job->cb.chat(job->ctx, rc, NULL, false, err);
}

static void on_chats(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    if (rc == TR_OK)
        job->cb.chats(job->ctx, rc, job->chats, job->chats_n, job->more, err);
    else
        job->cb.chats(job->ctx, rc, NULL, 0, false, err);
}

static void on_accept(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    job->cb.accept(job->ctx, rc, rc == TR_OK ? &job->accepted : NULL, err);
}

static void on_append(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    if (rc == TR_OK)
        job->cb.append(job->ctx, rc, job->mine, job->change, job->mine ? NULL : job->set.rows, err);
    else
        job->cb.append(job->ctx, rc, false, 0, NULL, err);
}

static void on_rows(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    if (rc == TR_OK)
        job->cb.rows(job->ctx, rc, job->set.rows, job->set.n, job->more, err);
    else
        job->cb.rows(job->ctx, rc, NULL, 0, false, err);
}

static void on_key(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct history_job *job = (struct history_job *)base;

    if (rc == TR_OK)
        job->cb.key(job->ctx, rc, job->mine, (struct slice){job->wrapped, job->wrapped_len}, err);
    else
        job->cb.key(job->ctx, rc, false, (struct slice){0}, err);
}

typedef enum tr_rc job_run(struct history_conn *c, struct history_job *job, struct tr_err *err);
typedef void job_done(struct offload_job *base, enum tr_rc rc, const struct tr_err *err);

/* A job with nothing in it yet; *ret_job is owned. */
static enum tr_rc job_new(struct history *h, bool write, job_run *run, job_done *done, void *ctx,
                          struct history_job **ret_job, struct tr_err *err)
{
    struct history_job *job;

    if (((struct sqlite_history *)h)->closing)
        return tr_fail(err, TR_CANCELLED, "history: closing");
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "history: job");
    job->base.work = job_work;
    job->base.done = done;
    job->base.release = job_release;
    job->base.write = write;
    job->owner = (struct sqlite_history *)h;
    job->run = run;
    job->ctx = ctx;
    *ret_job = job;
    return TR_OK;
}

/* The job is taken in any case. */
static enum tr_rc job_start(struct history_job *job, struct tr_op **ret_op, struct tr_err *err)
{
    struct sqlite_history *h = job->owner;
    const enum tr_rc rc = offload_submit(job->base.write ? h->writer : h->reader, &job->base);

    if (rc != TR_OK) {
        job_free(job);
        return tr_fail(err, rc, "history: too many operations are waiting for the disk");
    }
    job->next = h->jobs;
    if (h->jobs != NULL)
        h->jobs->prev = job;
    h->jobs = job;
    if (ret_op != NULL)
        *ret_op = &job->base.op;
    return TR_OK;
}

/* Rows of one turn of one chat, each part and revision in range. */
static enum tr_rc check_rows(const struct turn_row *rows, size_t n, struct tr_err *err)
{
    if (n > HISTORY_ROWS_MAX)
        return tr_fail(err, TR_INVALID, "history: %zu rows in one write, at most %d", n, HISTORY_ROWS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (!uuid_eq(&rows[i].chat, &rows[0].chat) || !uuid_eq(&rows[i].turn, &rows[0].turn))
            return tr_fail(err, TR_INVALID, "history: rows of several turns in one write");
        if (rows[i].rev < 0 || rows[i].part < PART_NOTES)
            return tr_fail(err, TR_INVALID, "history: part %d, revision %d", rows[i].part, rows[i].rev);
        if (rows[i].sealed_len > HISTORY_SEALED_MAX)
            return tr_fail(err, TR_INVALID, "history: %zu bytes in one row, at most %u", rows[i].sealed_len,
                           HISTORY_SEALED_MAX);
    }
    return TR_OK;
}

/* Copy rows and their sealed texts into one block of the job's own; the job is freed where that fails. */
static enum tr_rc job_copy_rows(struct history_job *job, const struct turn_row *rows, size_t n, struct tr_err *err)
{
    size_t bytes = 0;
    uint8_t *at;

    if (n == 0)
        return TR_OK;
    for (size_t i = 0; i < n; i++)
        bytes += rows[i].sealed_len;
    job->rows = malloc(n * sizeof *rows + bytes);
    if (job->rows == NULL) {
        job_free(job);
        return tr_fail(err, TR_NOMEM, "history: rows");
    }
    memcpy(job->rows, rows, n * sizeof *rows);
    job->rows_n = n;
    at = (uint8_t *)(job->rows + n);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].sealed_len > 0)
            memcpy(at, rows[i].sealed, rows[i].sealed_len);
        job->rows[i].sealed = rows[i].sealed_len > 0 ? at : NULL;
        at += rows[i].sealed_len;
    }
    return TR_OK;
}

/* ---- the port ---- */

static enum tr_rc chat_create(struct history *h, const struct history_chat *chat, const uint8_t client_hash[16],
                              const struct turn_row *greeting, size_t n, history_chat_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    enum tr_rc rc = check_rows(greeting, n, err);

    if (rc != TR_OK)
        return rc;
    if (n > 0 && (!uuid_eq(&greeting[0].chat, &chat->chat) || !uuid_eq(&greeting[0].turn, &chat->head)))
        return tr_fail(err, TR_INVALID, "history: the greeting is not the new chat's head");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (greeting[i].part == greeting[k].part && greeting[i].rev == greeting[k].rev)
                return tr_fail(err, TR_INVALID, "history: part %d twice in the greeting", greeting[i].part);
    rc = job_new(h, true, history_chat_create, on_chat, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->cb.chat = done;
    job->in.create.chat = *chat;
    job->in.create.has_client = client_hash != NULL;
    if (client_hash != NULL)
        memcpy(job->in.create.client, client_hash, sizeof job->in.create.client);
    rc = job_copy_rows(job, greeting, n, err);
    return rc == TR_OK ? job_start(job, ret_op, err) : rc;
}

static enum tr_rc chat_get(struct history *h, const struct uuid *chat, history_chat_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    const enum tr_rc rc = job_new(h, false, history_chat_get, on_chat, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.chat = done;
    job->in.read.chat = *chat;
    return job_start(job, ret_op, err);
}

static enum tr_rc chats_of_user(struct history *h, const struct uuid *user, const struct uuid *before, uint32_t limit,
                                history_chats_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    const enum tr_rc rc = job_new(h, false, history_chats_of_user, on_chats, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.chats = done;
    job->in.read.chat = *user;
    job->in.read.range.before = before != NULL ? *before : uuid_nil;
    job->in.read.range.limit = limit;
    return job_start(job, ret_op, err);
}

static enum tr_rc chat_delete(struct history *h, const struct uuid *chat, history_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    const enum tr_rc rc = job_new(h, true, history_chat_delete, on_plain, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    job->in.read.chat = *chat;
    return job_start(job, ret_op, err);
}

static enum tr_rc turn_accept(struct history *h, const struct history_accept *a, history_accept_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    enum tr_rc rc = check_rows(&a->row, 1, err);

    if (rc != TR_OK)
        return rc;
    if (a->row.part != PART_USER || a->row.rev != 0)
        return tr_fail(err, TR_INVALID, "history: part %d, revision %d is no new turn", a->row.part, a->row.rev);
    if (uuid_cmp(&a->row.turn, &a->head) <= 0)
        return tr_fail(err, TR_INVALID, "history: the new turn's id is not after the head's");
    rc = job_new(h, true, history_accept, on_accept, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->cb.accept = done;
    job->in.accept = *a;
    rc = job_copy_rows(job, &a->row, 1, err);
    return rc == TR_OK ? job_start(job, ret_op, err) : rc;
}

static enum tr_rc append(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done, void *ctx,
                         struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    enum tr_rc rc = n > 0 ? check_rows(rows, n, err) : tr_fail(err, TR_INVALID, "history: no rows");

    if (rc != TR_OK)
        return rc;
    rc = job_new(h, true, history_append, on_append, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->cb.append = done;
    rc = job_copy_rows(job, rows, n, err);
    return rc == TR_OK ? job_start(job, ret_op, err) : rc;
}

/* The three that read rows. */
static enum tr_rc rows_start(struct history *h, job_run *run, const struct uuid *chat, const struct uuid *turn,
                             const struct history_range *range, uint64_t since, history_rows_done *done, void *ctx,
                             struct tr_op **ret_op, struct tr_err *err)
{
    struct history_job *job = NULL;
    const enum tr_rc rc = job_new(h, false, run, on_rows, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.rows = done;
    job->in.read.chat = *chat;
    job->in.read.turn = *turn;
    job->in.read.range = *range;
    job->in.read.since = since;
    return job_start(job, ret_op, err);
}

static enum tr_rc turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn, history_rows_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, history_turn_get, chat, turn, &(struct history_range){0}, 0, done, ctx, ret_op, err);
}

static enum tr_rc turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                        history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, history_turns, chat, &uuid_nil, range, 0, done, ctx, ret_op, err);
}

static enum tr_rc changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                          history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, history_changed, chat, &uuid_nil, &(struct history_range){.limit = limit}, since, done, ctx,
                      ret_op, err);
}

static enum tr_rc key_start(struct history *h, bool write, job_run *run, enum seal_owner owner, const char *id,
                            struct slice wrapped, history_key_done *done, void *ctx, struct tr_op **ret_op,
                            struct tr_err *err)
{
    struct history_job *job = NULL;
    enum tr_rc rc;

    if (strlen(id) > HISTORY_KEY_ID_MAX || wrapped.len > sizeof job->wrapped || (write && wrapped.len == 0))
        return tr_fail(err, TR_INVALID, "history: a key's owner or size");
    rc = job_new(h, write, run, on_key, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->cb.key = done;
    job->in.key.owner = owner;
    memcpy(job->in.key.id, id, strlen(id) + 1);
    if (wrapped.len > 0)
        memcpy(job->wrapped, wrapped.data, wrapped.len);
    job->wrapped_len = wrapped.len;
    return job_start(job, ret_op, err);
}

static enum tr_rc key_put(struct history *h, enum seal_owner owner, const char *id, struct slice wrapped,
                          history_key_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return key_start(h, true, history_key_put, owner, id, wrapped, done, ctx, ret_op, err);
}

static enum tr_rc key_get(struct history *h, enum seal_owner owner, const char *id, history_key_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err)
{
    return key_start(h, false, history_key_get, owner, id, (struct slice){0}, done, ctx, ret_op, err);
}

/* NULL or half built: both are fine. */
static void history_free(struct sqlite_history *h)
{
    if (h == NULL)
        return;
    h->closing = true;
    for (struct history_job *job = h->jobs; job != NULL; job = job->next)
        tr_op_cancel(&job->base.op);
    offload_stop(h->reader);
    offload_stop(h->writer);
    assert(h->jobs == NULL);
    db_close(h->read_conn.db);
    db_close(h->write_conn.db); /* the last one moves the log into the file */
    free(h);
}

static void history_close(struct history *h)
{
    history_free((struct sqlite_history *)h);
}

static const struct history_ops sqlite_history_ops = {
    .scheme = "sqlite",
    .chat_create = chat_create,
    .chat_get = chat_get,
    .chats_of_user = chats_of_user,
    .chat_delete = chat_delete,
    .accept = turn_accept,
    .append = append,
    .turn_get = turn_get,
    .turns = turns,
    .changed = changed,
    .key_put = key_put,
    .key_get = key_get,
    .close = history_close,
};

static enum tr_rc open_conns(struct sqlite_history *h, const char *path, struct tr_err *err)
{
    const struct db_spec spec = {
        .path = path, .version = 1, .schema = history_schema, .sql = history_sql, .sql_n = ST_COUNT};
    enum tr_rc rc = db_open(&spec, &h->write_conn.db, err);

    /* Freed bytes are overwritten: a destroyed key must not lie about.  A batch's pages are written once, at its end. */
    if (rc == TR_OK)
        rc = db_exec(h->write_conn.db, "PRAGMA secure_delete=ON; PRAGMA cache_size=-2048; PRAGMA cache_spill=OFF", err);
    if (rc == TR_OK)
        rc = db_open(&spec, &h->read_conn.db, err);
    if (rc == TR_OK)
        rc = db_exec(h->read_conn.db, "PRAGMA query_only=ON; PRAGMA cache_size=-2048", err);
    return rc;
}

enum tr_rc sqlite_history_open(struct loop *loop, const char *path, struct history **ret_history, struct tr_err *err)
{
    struct offload_hooks hooks = {0};
    struct sqlite_history *h = calloc(1, sizeof *h);
    enum tr_rc rc;

    if (h == NULL) {
        rc = tr_fail(err, TR_NOMEM, "sqlite history");
        goto out;
    }
    h->base.ops = &sqlite_history_ops;
    rc = open_conns(h, path, err);
    if (rc != TR_OK)
        goto out;
    hooks = (struct offload_hooks){.begin = write_begin, .end = write_end, .state = &h->write_conn};
    rc = offload_start(loop, "history-write", &hooks, &h->writer, err);
    if (rc != TR_OK)
        goto out;
    hooks =
        (struct offload_hooks){.begin = read_begin, .end = read_end, .state = &h->read_conn, .batch_max = READ_BATCH};
    rc = offload_start(loop, "history-read", &hooks, &h->reader, err);
    if (rc != TR_OK)
        goto out;

    *ret_history = &h->base;
    h = NULL; /* the caller owns it now */
out:
    history_free(h);
    return rc;
}
