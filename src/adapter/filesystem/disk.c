/* disk - the filesystem media's work on files.  The reader's thread reads and lists, the writer's does the rest. */
#include "adapter/filesystem/impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum tr_rc fail(struct job *job, const char *what)
{
    const int e = errno;
    const bool full = e == ENOSPC || e == EDQUOT || e == EFBIG || e == EMFILE || e == ENFILE;

    if (e == ENOENT && !job->base.write)
        return tr_fail(&job->base.err, TR_NOT_FOUND, "media: %s: there is no such file", what);
    return tr_fail(&job->base.err, full ? TR_BUSY : TR_TRANSIENT, "media: %s: %s", what, strerror(e));
}

/* ---- on the writer's thread ---- */

static enum tr_rc make_file(struct job *job)
{
    struct media_put *const put = job->put;

    if (put->fd < 0)
        put->fd = openat(put->m->uploads, put->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return put->fd < 0 ? fail(job, "making a file") : TR_OK;
}

static enum tr_rc work_write(struct job *job)
{
    struct media_put *const put = job->put;
    enum tr_rc rc = make_file(job);
    size_t at = 0;

    if (rc != TR_OK)
        return rc;
    if (job->len > put->size - put->written)
        return tr_fail(&job->base.err, TR_INVALID, "media: more is written than was announced");
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

    if (put->written != put->size)
        return tr_fail(&job->base.err, TR_INVALID, "media: %llu of %llu bytes were written",
                       (unsigned long long)put->written, (unsigned long long)put->size);
    rc = make_file(job); /* an empty one has none yet */
    if (rc != TR_OK)
        return rc;
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
    if (fd < 0 || futimens(fd, NULL) != 0 || fsync(user) != 0) /* one that stands is young again */
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

static uint64_t ms_of(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000 + (uint64_t)t->tv_nsec / 1000000;
}

/*
 * The time as whoever keeps the folder tells it: what it writes into a file that is touched now.  A folder that machines share is
 * one server's, and its clock is the one that all files' times are of.  False: it can't be touched.
 */
static bool folder_now(const struct filesystem_media *m, uint64_t *ret_ms)
{
    char name[32];
    struct stat st;
    bool ok;
    int fd;

    snprintf(name, sizeof name, ".now.%d", (int)getpid());
    fd = openat(m->uploads, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    ok = futimens(fd, NULL) == 0 && fstat(fd, &st) == 0;
    close(fd);
    (void)unlinkat(m->uploads, name, 0);
    if (ok)
        *ret_ms = ms_of(&st.st_mtim);
    return ok;
}

static enum tr_rc work_sweep(struct job *job)
{
    const int fd = openat(job->m->folder, UPLOADS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *const dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    uint64_t now = 0;

    if (dir == NULL) {
        const enum tr_rc rc = fail(job, "opening " UPLOADS);

        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (folder_now(job->m, &now) && (entry = readdir(dir)) != NULL) {
        struct stat st;

        if (entry->d_name[0] != '.' && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && ms_of(&st.st_mtim) + job->age_ms <= now)
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

static enum tr_rc work_age(struct job *job)
{
    uint64_t now, written;
    struct stat st;

    if (fstatat(job->m->folder, job->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return fail(job, "looking");
    written = ms_of(&st.st_mtim);
    job->age_ms = folder_now(job->m, &now) && now > written ? now - written : 0;
    return TR_OK;
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

/* ---- either ---- */

enum tr_rc disk_work(struct offload_job *base, void *state)
{
    struct job *const job = (struct job *)base;

    (void)state;
    if (atomic_load(&job->m->closing) && job->kind != JOB_LET_GO)
        return TR_CANCELLED;
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
    case JOB_AGE:
        return work_age(job);
    }
    return TR_INVALID;
}
