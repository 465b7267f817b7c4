/*
 * filesystem media - see media.h.
 * Two threads: one reads, one writes, so that a picture is shown while a film comes in.  An object is written to a file
 * of its own name in .uploads, synced, and renamed into its user's folder, which is synced then.
 */
#include "adapter/filesystem/media.h"

#include "base/offload.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define UPLOADS ".uploads"
#define JOBS_MAX 8192 /* of callers; letting go of puts comes on top */
#define PUTS_MAX 1024
#define TIMEOUT_MS 10000

struct filesystem_media {
    struct media base;
    struct offload *reader, *writer;
    int folder;  /* file descriptor */
    int uploads; /* file descriptor */
    size_t jobs, puts;
    uint64_t serial;
};

struct media_put {
    struct filesystem_media *m;
    struct job *under_way;
    char name[MEDIA_NAME_MAX + 1];
    char temporary[64];
    uint64_t size;
    /* the writer's thread's */
    int fd; /* -1: not made yet */
    uint64_t written;
    bool finished;
};

enum job_kind { JOB_WRITE, JOB_FINISH, JOB_LET_GO, JOB_READ, JOB_MARK, JOB_REMOVE, JOB_LIST, JOB_SWEEP };

struct job {
    struct offload_job base; /* first */
    struct filesystem_media *m;
    enum job_kind kind;
    struct media_put *put;     /* of a put's jobs; the thread's */
    struct media_put *waiting; /* the loop's: the put whose job this is; NULL: it was let go */
    char name[MEDIA_NAME_MAX + 1], after[MEDIA_NAME_MAX + 1];
    uint64_t from, size, before_ms;
    size_t len;
    uint32_t limit;
    uint8_t *data; /* owned: what is written or was read */
    char **names;  /* owned, each in `data`'s place */
    size_t n;
    bool more;
    union {
        media_done *plain;
        media_read_done *read;
        media_list_done *list;
    } done;
    void *ctx;
};

static enum tr_rc fail(struct job *job, const char *what)
{
    const int e = errno;

    if (e == ENOENT)
        return tr_fail(&job->base.err, TR_NOT_FOUND, "media: %s: there is no such file", what);
    return tr_fail(&job->base.err, e == ENOSPC || e == EDQUOT || e == EMFILE || e == ENFILE ? TR_BUSY : TR_TRANSIENT,
                   "media: %s: %s", what, strerror(e));
}

/* ---- on the writer's thread ---- */

static enum tr_rc work_write(struct job *job)
{
    struct media_put *const put = job->put;
    size_t at = 0;

    if (put->fd < 0) {
        put->fd = openat(put->m->uploads, put->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (put->fd < 0)
            return fail(job, "making a file");
    }
    while (at < job->len) {
        const ssize_t n = write(put->fd, job->data + at, job->len - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail(job, "writing");
        at += (size_t)n;
    }
    put->written += job->len;
    return TR_OK;
}

/* The user's folder, as a file descriptor; made where `make` says so. */
static int user_folder(struct filesystem_media *m, const char *name, bool make)
{
    char user[37];
    int fd;

    memcpy(user, name, 36);
    user[36] = '\0';
    fd = openat(m->folder, user, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && make && (mkdirat(m->folder, user, 0700) == 0 || errno == EEXIST)) {
        if (fsync(m->folder) != 0)
            return -1;
        fd = openat(m->folder, user, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd;
}

static enum tr_rc work_finish(struct job *job)
{
    struct media_put *const put = job->put;
    enum tr_rc rc = TR_OK;
    int user;

    if (put->fd < 0 || put->written != put->size)
        return tr_fail(&job->base.err, TR_INVALID, "media: %llu of %llu bytes were written",
                       (unsigned long long)put->written, (unsigned long long)put->size);
    if (fsync(put->fd) != 0)
        return fail(job, "syncing");
    user = user_folder(put->m, put->name, true);
    if (user < 0)
        return fail(job, "making a user's folder");
    if (renameat(put->m->uploads, put->temporary, user, put->name + 37) != 0) {
        rc = fail(job, "renaming");
    } else {
        put->finished = true;
        if (fsync(user) != 0)
            rc = fail(job, "syncing a folder");
    }
    close(user);
    return rc;
}

static enum tr_rc work_let_go(struct job *job)
{
    struct media_put *const put = job->put;

    if (put->fd >= 0) {
        close(put->fd);
        if (!put->finished)
            (void)unlinkat(put->m->uploads, put->temporary, 0);
    }
    put->fd = -1;
    return TR_OK;
}

static enum tr_rc work_mark(struct job *job)
{
    const int user = user_folder(job->m, job->name, true);
    enum tr_rc rc = TR_OK;
    int fd;

    if (user < 0)
        return fail(job, "making a user's folder");
    fd = openat(user, job->name + 37, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fsync(user) != 0)
        rc = fail(job, "marking");
    if (fd >= 0)
        close(fd);
    close(user);
    return rc;
}

static enum tr_rc work_remove(struct job *job)
{
    const int user = user_folder(job->m, job->name, false);
    enum tr_rc rc = TR_OK;

    if (user < 0)
        return errno == ENOENT ? TR_OK : fail(job, "opening a user's folder");
    if (unlinkat(user, job->name + 37, 0) != 0)
        rc = errno == ENOENT ? TR_OK : fail(job, "removing");
    else if (fsync(user) != 0)
        rc = fail(job, "syncing a folder");
    close(user);
    return rc;
}

static enum tr_rc work_sweep(struct job *job)
{
    const int fd = openat(job->m->folder, UPLOADS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *const dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (dir == NULL) {
        const enum tr_rc rc = fail(job, "opening " UPLOADS);

        if (fd >= 0)
            close(fd);
        return rc;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;

        if (entry->d_name[0] != '.' && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && (uint64_t)st.st_mtime * 1000 < job->before_ms)
            (void)unlinkat(fd, entry->d_name, 0);
    }
    closedir(dir);
    return TR_OK;
}

/* ---- on the reader's thread ---- */

static enum tr_rc work_read(struct job *job)
{
    int fd = openat(job->m->folder, job->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    enum tr_rc rc = TR_OK;
    struct stat st;
    size_t at = 0;

    if (fd < 0)
        return fail(job, "opening");
    if (fstat(fd, &st) != 0)
        rc = fail(job, "reading");
    while (rc == TR_OK && at < job->len) {
        const ssize_t n = pread(fd, job->data + at, job->len - at, (off_t)(job->from + at));

        if (n == 0)
            break;
        if (n > 0)
            at += (size_t)n;
        else if (errno != EINTR)
            rc = fail(job, "reading");
    }
    if (rc == TR_OK) {
        job->size = (uint64_t)st.st_size;
        job->len = at;
    }
    close(fd);
    return rc;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum tr_rc add_name(struct job *job, size_t *cap, const char *file)
{
    char **names = job->names;
    char full[512];

    if (snprintf(full, sizeof full, "%.37s%s", job->name, file) >= (int)sizeof full ||
        strncmp(full, job->name, strlen(job->name)) != 0 || strcmp(full, job->after) <= 0 || !media_name_valid(full))
        return TR_OK;
    if (job->n == *cap) {
        *cap = *cap == 0 ? 64 : *cap * 2;
        names = realloc(job->names, *cap * sizeof *names);
        if (names == NULL)
            return TR_NOMEM;
        job->names = names;
    }
    names[job->n] = strdup(full);
    if (names[job->n] == NULL)
        return TR_NOMEM;
    job->n++;
    return TR_OK;
}

static enum tr_rc work_list(struct job *job)
{
    const int fd = user_folder(job->m, job->name, false);
    const struct dirent *entry;
    enum tr_rc rc = TR_OK;
    size_t cap = 0;
    DIR *dir;

    if (fd < 0)
        return errno == ENOENT ? TR_OK : fail(job, "opening a user's folder");
    dir = fdopendir(fd);
    if (dir == NULL) {
        rc = fail(job, "listing");
        close(fd);
        return rc;
    }
    while (rc == TR_OK && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            rc = add_name(job, &cap, entry->d_name);
    closedir(dir);
    if (rc != TR_OK)
        return tr_fail(&job->base.err, rc, "media: listing");
    if (job->n > 0)
        qsort(job->names, job->n, sizeof *job->names, by_bytes);
    job->more = job->n > job->limit;
    return TR_OK;
}

static enum tr_rc work(struct offload_job *base, void *state)
{
    struct job *const job = (struct job *)base;

    (void)state;
    switch (job->kind) {
    case JOB_WRITE:
        return work_write(job);
    case JOB_FINISH:
        return work_finish(job);
    case JOB_LET_GO:
        return work_let_go(job);
    case JOB_READ:
        return work_read(job);
    case JOB_MARK:
        return work_mark(job);
    case JOB_REMOVE:
        return work_remove(job);
    case JOB_LIST:
        return work_list(job);
    case JOB_SWEEP:
        return work_sweep(job);
    }
    return TR_INVALID;
}

/* ---- on the loop ---- */

static void job_done(struct offload_job *base, enum tr_rc rc, const struct tr_err *err)
{
    struct job *const job = (struct job *)base;
    const bool ok = rc == TR_OK && base->worked;

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

static enum tr_rc job_new(struct filesystem_media *m, enum job_kind kind, const char *name, void *ctx,
                          struct job **ret_job, struct tr_err *err)
{
    struct job *job;

    if (m->jobs >= JOBS_MAX)
        return tr_fail(err, TR_BUSY, "media: too many operations wait");
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "media");
    job->base.work = work;
    job->base.done = job_done;
    job->base.release = job_release;
    job->base.write = kind != JOB_READ && kind != JOB_LIST;
    job->m = m;
    job->kind = kind;
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
    if (put == NULL)
        return tr_fail(err, TR_NOMEM, "media");
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
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return; /* the file's left over goes with the next sweep */
    job->base.work = work;
    job->base.done = job_done;
    job->base.release = job_release;
    job->base.write = true;
    job->m = put->m;
    job->kind = JOB_LET_GO;
    job->put = put;
    if (offload_submit(put->m->writer, &job->base) != TR_OK)
        free(job); /* never: its queue takes more than JOBS_MAX and PUTS_MAX */
}

static enum tr_rc start_plain(struct media *base, enum job_kind kind, const char *name, uint64_t before_ms,
                              media_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct job *job;
    enum tr_rc rc;

    assert(name == NULL || media_name_valid(name));
    rc = job_new((struct filesystem_media *)base, kind, name, ctx, &job, err);
    if (rc != TR_OK)
        return rc;
    job->before_ms = before_ms;
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

static enum tr_rc sweep(struct media *m, uint64_t before_ms, media_done *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err)
{
    return start_plain(m, JOB_SWEEP, NULL, before_ms, done, ctx, ret_op, err);
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
