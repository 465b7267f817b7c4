/*
 * filesystem media - see media.h.
 * Two threads: one reads, one writes, so that a picture is shown while a film comes in.  An object is written to a file
 * of its own name in .uploads, synced, and renamed into its user's folder, which is synced then.
 */
#include "adapter/filesystem/impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOBS_MAX 8192 /* of callers; letting go of puts comes on top */
#define PUTS_MAX 1024
#define TIMEOUT_MS 10000

/* ---- on the loop ---- */

static void job_done(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *const job = (struct job *)base;
    bool ok;

    if (job->m->closing)
        rc = TR_CANCELLED;
    ok = rc == TR_OK && base->worked;
    if (job->waiting != NULL)
        job->waiting->under_way = NULL;
    job->waiting = NULL;
    switch (job->kind) {
    case JOB_LET_GO:
        break;
    case JOB_READ:
        job->done.read(job->ctx, rc, ok ? (struct slice){job->data, job->len} : (struct slice){0}, ok ? job->size : 0,
                       err);
        break;
    case JOB_AGE:
        job->done.age(job->ctx, rc, ok ? job->age_ms : 0, err);
        break;
    case JOB_LIST:
        job->done.list(job->ctx, rc, ok ? (const char *const *)job->names : NULL,
                       !ok         ? 0
                       : job->more ? job->limit
                                   : job->n,
                       ok && job->more, err);
        break;
    default:
        job->done.plain(job->ctx, rc, err);
    }
}

static void job_release(struct offload_job *base)
{
    struct job *const job = (struct job *)base;

    if (job->kind == JOB_LET_GO) {
        job->m->puts--;
        free(job->put);
    } else {
        job->m->jobs--;
    }
    for (size_t i = 0; i < job->n; i++)
        free(job->names[i]);
    free(job->names);
    free(job->data);
    free(job);
}

static struct job *job_alloc(struct filesystem_media *m, enum job_kind kind)
{
    struct job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return NULL;
    job->base.work = disk_work;
    job->base.done = job_done;
    job->base.release = job_release;
    job->base.write = kind != JOB_READ && kind != JOB_LIST && kind != JOB_AGE;
    job->m = m;
    job->kind = kind;
    return job;
}

static enum tr_rc job_new(struct filesystem_media *m, enum job_kind kind, const char *name, void *ctx,
                          struct job **ret_job, struct tr_err *err)
{
    struct job *job;

    if (m->closing)
        return tr_fail(err, TR_CANCELLED, "media: closing");
    if (m->jobs >= JOBS_MAX)
        return tr_fail(err, TR_BUSY, "media: too many operations wait");
    job = job_alloc(m, kind);
    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "media");
    job->ctx = ctx;
    if (name != NULL)
        snprintf(job->name, sizeof job->name, "%s", name);
    *ret_job = job;
    return TR_OK;
}

static enum tr_rc job_start(struct job *job, struct tr_op **ret_op, struct tr_err *err)
{
    struct filesystem_media *const m = job->m;
    struct offload *const o = job->base.write ? m->writer : m->reader;
    const enum tr_rc rc = offload_submit(o, &job->base);

    if (rc != TR_OK) {
        free(job->data);
        free(job);
        return tr_fail(err, rc, "media: too many operations wait");
    }
    m->jobs++;
    job->waiting = job->put;
    if (job->put != NULL)
        job->put->under_way = job;
    *ret_op = &job->base.op;
    return TR_OK;
}

static enum tr_rc put_start(struct media *base, const char *name, uint64_t size, struct media_put **ret_put,
                            struct tr_err *err)
{
    struct filesystem_media *const m = (struct filesystem_media *)base;
    struct media_put *put;

    assert(media_name_valid(name));
    if (m->puts >= PUTS_MAX)
        return tr_fail(err, TR_BUSY, "media: too many files come in");
    put = calloc(1, sizeof *put);
    if (put != NULL)
        put->let_go = job_alloc(m, JOB_LET_GO);
    if (put == NULL || put->let_go == NULL) {
        free(put);
        return tr_fail(err, TR_NOMEM, "media");
    }
    put->let_go->put = put;
    put->m = m;
    put->fd = -1;
    put->size = size;
    snprintf(put->name, sizeof put->name, "%s", name);
    snprintf(put->temporary, sizeof put->temporary, "%.36s.%d.%llu", name + 37, (int)getpid(),
             (unsigned long long)++m->serial);
    m->puts++;
    *ret_put = put;
    return TR_OK;
}

static enum tr_rc put_write(struct media_put *put, const void *data, size_t len, media_done *done, void *ctx,
                            struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(put->under_way == NULL && len <= MEDIA_READ_MAX);
    rc = job_new(put->m, JOB_WRITE, NULL, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->put = put;
    job->done.plain = done;
    job->len = len;
    job->data = malloc(len + 1);
    if (job->data == NULL) {
        free(job);
        return tr_fail(err, TR_NOMEM, "media");
    }
    memcpy(job->data, data, len);
    return job_start(job, ret_op, err);
}

static enum tr_rc put_finish(struct media_put *put, media_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(put->under_way == NULL);
    rc = job_new(put->m, JOB_FINISH, NULL, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->put = put;
    job->done.plain = done;
    return job_start(job, ret_op, err);
}

static void put_free(struct media_put *put)
{
    struct job *job;

    if (put == NULL)
        return;
    if (put->under_way != NULL) { /* it comes before this on its thread */
        put->under_way->waiting = NULL;
        tr_op_cancel(&put->under_way->base.op);
    }
    job = put->let_go;
    put->let_go = NULL;
    if (offload_submit(put->m->writer, &job->base) != TR_OK)
        job_release(&job->base); /* never: its queue takes more than JOBS_MAX and PUTS_MAX */
}

static enum tr_rc start_plain(struct media *base, enum job_kind kind, const char *name, uint64_t age_ms,
                              media_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(name == NULL || media_name_valid(name));
    rc = job_new((struct filesystem_media *)base, kind, name, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->age_ms = age_ms;
    job->done.plain = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc mark(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                       struct tr_err *err)
{
    return start_plain(m, JOB_MARK, name, 0, done, ctx, ret_op, err);
}

static enum tr_rc remove_it(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                            struct tr_err *err)
{
    return start_plain(m, JOB_REMOVE, name, 0, done, ctx, ret_op, err);
}

static enum tr_rc sweep(struct media *m, uint64_t age_ms, media_done *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err)
{
    return start_plain(m, JOB_SWEEP, NULL, age_ms, done, ctx, ret_op, err);
}

static enum tr_rc age(struct media *m, const char *name, media_age_done *done, void *ctx, struct tr_op **ret_op,
                      struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(media_name_valid(name));
    rc = job_new((struct filesystem_media *)m, JOB_AGE, name, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->done.age = done;
    return job_start(job, ret_op, err);
}

static enum tr_rc read_it(struct media *m, const char *name, uint64_t from, size_t len, media_read_done *done,
                          void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(media_name_valid(name) && len <= MEDIA_READ_MAX && from <= INT64_MAX - MEDIA_READ_MAX);
    rc = job_new((struct filesystem_media *)m, JOB_READ, name, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->from = from;
    job->len = len;
    job->done.read = done;
    job->data = malloc(len + 1);
    if (job->data == NULL) {
        free(job);
        return tr_fail(err, TR_NOMEM, "media");
    }
    return job_start(job, ret_op, err);
}

static enum tr_rc list(struct media *m, const char *prefix, const char *after, uint32_t limit, media_list_done *done,
                       void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(strlen(prefix) >= 37 && prefix[36] == '/' && strlen(prefix) <= MEDIA_NAME_MAX);
    assert(limit > 0 && limit <= MEDIA_LIST_MAX);
    rc = job_new((struct filesystem_media *)m, JOB_LIST, prefix, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    snprintf(job->after, sizeof job->after, "%s", after);
    job->limit = limit;
    job->done.list = done;
    return job_start(job, ret_op, err);
}

static void media_free(struct filesystem_media *m)
{
    if (m == NULL)
        return;
    if (m->uploads >= 0)
        close(m->uploads);
    if (m->folder >= 0)
        close(m->folder);
    free(m);
}

static void close_it(struct media *base)
{
    struct filesystem_media *const m = (struct filesystem_media *)base;

    m->closing = true;
    offload_stop(m->reader);
    offload_stop(m->writer);
    assert(m->jobs == 0 && m->puts == 0);
    media_free(m);
}

static const struct media_ops filesystem_ops = {
    .scheme = "file",
    .put_start = put_start,
    .put_write = put_write,
    .put_finish = put_finish,
    .put_free = put_free,
    .read = read_it,
    .age = age,
    .mark = mark,
    .remove = remove_it,
    .list = list,
    .sweep = sweep,
    .close = close_it,
};

/* mkdir -p, then open. */
static enum tr_rc open_folder(struct filesystem_media *m, const char *folder, struct tr_err *err)
{
    char path[4096];
    char *slash;

    if (folder[0] == '\0' || snprintf(path, sizeof path, "%s", folder) >= (int)sizeof path)
        return tr_fail(err, TR_INVALID, "the folder's path is missing or too long");
    for (slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    (void)mkdir(path, 0700); /* what is wrong is told by opening it */
    m->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (m->folder >= 0 && (mkdirat(m->folder, UPLOADS, 0700) == 0 || errno == EEXIST))
        m->uploads = openat(m->folder, UPLOADS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (m->uploads < 0 || faccessat(m->folder, ".", W_OK, 0) != 0 || faccessat(m->uploads, ".", W_OK, 0) != 0)
        return tr_fail(err, TR_INVALID,
                       "cannot write to the folder %.160s: %s; give it to this user, or set another path", folder,
                       strerror(errno));
    return TR_OK;
}

enum tr_rc filesystem_media_open(struct loop *loop, const char *folder, struct media **ret_media, struct tr_err *err)
{
    const struct offload_hooks hooks = {.queue_max = JOBS_MAX + 2 * PUTS_MAX, .timeout_ms = TIMEOUT_MS, .batch_max = 1};
    struct filesystem_media *m = calloc(1, sizeof *m);
    enum tr_rc rc;

    if (m == NULL)
        return tr_fail(err, TR_NOMEM, "media");
    m->base.ops = &filesystem_ops;
    m->folder = m->uploads = -1;
    rc = open_folder(m, folder, err);
    if (rc == TR_OK)
        rc = offload_start(loop, "media-read", &hooks, &m->reader, err);
    if (rc == TR_OK)
        rc = offload_start(loop, "media-write", &hooks, &m->writer, err);
    if (rc == TR_OK) {
        *ret_media = &m->base;
        m = NULL;
    } else {
        offload_stop(m->reader);
    }
    media_free(m);
    return rc;
}
