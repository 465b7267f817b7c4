/*
 * impl - what the files of the filesystem media share; nobody else includes it.
 *   media.c   the port, on the loop
 *   disk.c    the work, on the two threads
 */
#ifndef ADAPTER_FILESYSTEM_IMPL_H
#define ADAPTER_FILESYSTEM_IMPL_H

#include "adapter/filesystem/media.h"

#include "base/offload.h"

#include <stdatomic.h>

#define UPLOADS ".uploads"

struct filesystem_media {
    struct media base;
    struct offload *reader, *writer;
    int folder;  /* file descriptor */
    int uploads; /* file descriptor */
    size_t jobs, puts;
    uint64_t serial;
    atomic_bool closing; /* what waits is not done any more */
};

struct media_put {
    struct filesystem_media *m;
    struct job *under_way, *let_go; /* let_go: owned until put_free(), which must not fail */
    char name[MEDIA_NAME_MAX + 1];
    char temporary[64];
    uint64_t size;
    /* the writer's thread's */
    int fd; /* -1: not made yet */
    uint64_t written;
    bool finished;
};

enum job_kind { JOB_WRITE, JOB_FINISH, JOB_LET_GO, JOB_READ, JOB_MARK, JOB_REMOVE, JOB_LIST, JOB_SWEEP, JOB_AGE };

struct job {
    struct offload_job base; /* first */
    struct filesystem_media *m;
    enum job_kind kind;
    struct media_put *put;     /* of a put's jobs; the thread's */
    struct media_put *waiting; /* the loop's: the put whose job this is; NULL: it was let go */
    char name[MEDIA_NAME_MAX + 1], after[MEDIA_NAME_MAX + 1];
    uint64_t from, size, age_ms; /* age_ms: of a sweep, how old at least; of JOB_AGE, what was found */
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
        media_age_done *age;
    } done;
    void *ctx;
};

/* An offload's work: what `kind` says. */
enum tr_rc disk_work(struct offload_job *base, void *state);

#endif
