/*
 * catalogue - users, characters and settings in one SQLite file, with one thread as its only user.
 *
 * A batch's first write begins a transaction and the batch's end commits it, so that many writes wait for one sync and
 * a batch of reads takes no lock.  A job's checks come before its writes; a write that fails half way fails its batch.
 */
#include "adapter/sqlite/catalogue.h"
#include "adapter/sqlite/catalogue_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

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
    struct catalogue_job *job = (struct catalogue_job *)base;
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

/* ---- jobs, on the loop ---- */

static void job_free(struct catalogue_job *job)
{
    for (size_t i = 0; i < job->n; i++)
        free(job->blocks[i]);
    free(job->blocks);
    free(job->list);
    free(job->in_block);
    for (size_t i = 0; i < job->keys_n; i++)
        free(job->keys[i]);
    free(job->keys);
    free(job->key);
    free(job->value);
    free(job);
}

static void job_release(struct offload_job *base)
{
    struct catalogue_job *job = (struct catalogue_job *)base;

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
    struct catalogue_job *job = (struct catalogue_job *)base;

    job->cb.plain(job->ctx, rc, err);
}

static void on_character(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct catalogue_job *job = (struct catalogue_job *)base;

    job->cb.character(job->ctx, rc, rc == TR_OK ? job->list : NULL, err);
}

static void on_characters(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct catalogue_job *job = (struct catalogue_job *)base;

    if (rc == TR_OK)
        job->cb.characters(job->ctx, rc, job->list, job->n, err);
    else
        job->cb.characters(job->ctx, rc, NULL, 0, err);
}

static void on_setting(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct catalogue_job *job = (struct catalogue_job *)base;

    if (rc == TR_OK)
        job->cb.setting(job->ctx, rc, job->mine, job->value, err);
    else
        job->cb.setting(job->ctx, rc, false, NULL, err);
}

static void on_keys(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct catalogue_job *job = (struct catalogue_job *)base;

    job->cb.keys(job->ctx, rc, (const char *const *)job->keys, rc == TR_OK ? job->keys_n : 0, err);
}

typedef void job_done(struct offload_job *base, enum tr_rc rc, const struct tr_err *err);

/* A job with nothing in it but perhaps a character's id; *ret_job is owned. */
static enum tr_rc job_new(struct catalogue *base, bool write, catalogue_run *run, job_done *done, const char *id,
                          void *ctx, struct catalogue_job **ret_job, struct tr_err *err)
{
    struct sqlite_catalogue *c = (struct sqlite_catalogue *)base;
    struct catalogue_job *job;

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
static enum tr_rc job_start(struct catalogue_job *job, struct tr_op **ret_op, struct tr_err *err)
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
    struct catalogue_job *job = NULL;
    enum tr_rc rc = job_new(c, true, catalogue_run_character_put, on_plain, ch->id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    rc = catalogue_character_copy(ch, &job->in, &job->in_block, err);
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
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, false, catalogue_run_character_get, on_character, id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.character = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc characters(struct catalogue *c, catalogue_characters_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, false, catalogue_run_characters, on_characters, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.characters = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc character_remove(struct catalogue *c, const char *id, catalogue_done *done, void *ctx,
                                   struct tr_op **ret_op, struct tr_err *err)
{
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, true, catalogue_run_character_remove, on_plain, id, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc user_put(struct catalogue *c, const struct uuid *user, uint64_t created_ms, catalogue_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, true, catalogue_run_user_put, on_plain, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    job->user = *user;
    job->created_ms = created_ms;
    return job_start(job, ret_op, err);
}

static enum tr_rc setting_start(struct catalogue *c, bool write, catalogue_run *run, const char *key, const char *value,
                                catalogue_setting_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct catalogue_job *job = NULL;
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
    return setting_start(c, true, catalogue_run_setting_put, key, value, done, ctx, ret_op, err);
}

static enum tr_rc setting_get(struct catalogue *c, const char *key, catalogue_setting_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    return setting_start(c, false, catalogue_run_setting_get, key, NULL, done, ctx, ret_op, err);
}

static enum tr_rc settings(struct catalogue *c, const char *prefix, catalogue_keys_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err)
{
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, false, catalogue_run_settings, on_keys, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.keys = done;
    job->key = strdup(prefix);
    if (job->key == NULL) {
        job_free(job);
        return tr_fail(err, TR_NOMEM, "catalogue: settings");
    }
    return job_start(job, ret_op, err);
}

static enum tr_rc setting_remove(struct catalogue *c, const char *key, catalogue_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    struct catalogue_job *job = NULL;
    const enum tr_rc rc = job_new(c, true, catalogue_run_setting_remove, on_plain, NULL, ctx, &job, err);

    if (rc != TR_OK)
        return rc;
    job->cb.plain = done;
    job->key = strdup(key);
    if (job->key == NULL) {
        job_free(job);
        return tr_fail(err, TR_NOMEM, "catalogue: setting");
    }
    return job_start(job, ret_op, err);
}

/* NULL or half built: both are fine. */
static void catalogue_free(struct sqlite_catalogue *c)
{
    if (c == NULL)
        return;
    c->closing = true;
    for (struct catalogue_job *job = c->jobs; job != NULL; job = job->next)
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
    .settings = settings,
    .setting_remove = setting_remove,
    .close = catalogue_close,
};

enum tr_rc sqlite_catalogue_open(struct loop *loop, const char *path, struct catalogue **ret_catalogue,
                                 struct tr_err *err)
{
    const struct db_spec spec = {
        .path = path, .version = 1, .schema = catalogue_schema, .sql = catalogue_sql, .sql_n = ST_COUNT};
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
