/*
 * offload - a thread for blocking work, the only user of some handle (a SQLite connection, say).
 * Jobs run in the order they were submitted.  The thread takes all that wait as one batch (at most `batch_max`):
 * begin(state), every job's work(), end(state): this is where a group commit happens.
 * Threads: start, submit, stop and all of `done`/`release` on the loop's thread; work, begin and end on the offload's.
 */
#ifndef BASE_OFFLOAD_H
#define BASE_OFFLOAD_H

#include "base/loop.h"
#include "base/op.h"

struct offload;

/* Embed as the FIRST member of a job of your own, zeroed, with work, done and release set. */
struct offload_job {
    struct tr_op op; /* what the caller gets as its handle */
    /* On the offload's thread.  A result goes into the job itself.  Returns the job's rc; fill job->err if not TR_OK. */
    enum tr_rc (*work)(struct offload_job *job, void *state);
    /*
     * On the loop, exactly once: rc is what work() returned, or end()'s where that failed, or TR_CANCELLED,
     * or past the deadline TR_TRANSIENT (write = false) or TR_UNCERTAIN (write = true); then work() may be running
     * still, so look at the job's results only if rc is what work() returned, i.e. job->worked.
     */
    void (*done)(struct offload_job *job, enum tr_rc rc, const struct tr_err *err);
    /* On the loop, after done() and after the thread has let go of it: free the job. */
    void (*release)(struct offload_job *job);
    bool write;
    bool worked; /* rc and results come from work(), and end() succeeded */

    struct tr_err err;
    /* offload's own */
    struct loop_call call;
    struct offload *owner;
    struct offload_job *next, *dl_next, *dl_prev;
    uint64_t deadline_ms;
    enum tr_rc rc;
    bool committed; /* the thread's: work() ran and end() succeeded */
    bool answered, returned, deferred;
};

struct offload_hooks {
    enum tr_rc (*begin)(void *state, struct tr_err *err); /* may be NULL; a failure fails the whole batch */
    enum tr_rc (*end)(void *state, bool any_write,
                      struct tr_err *err); /* may be NULL; a failure fails every job of it */
    void *state;
    size_t batch_max;    /* 0: 256 */
    size_t queue_max;    /* 0: 65536; past it submit says TR_BUSY */
    uint64_t timeout_ms; /* a job's deadline; 0: 10000 */
};

enum tr_rc offload_start(struct loop *loop, const char *name, const struct offload_hooks *hooks,
                         struct offload **ret_offload, struct tr_err *err) TR_MUST_CHECK;

/* Take the job over.  TR_OK: done and release will be called.  TR_BUSY: nothing happened, the job is still yours. */
enum tr_rc offload_submit(struct offload *o, struct offload_job *job) TR_MUST_CHECK;

/*
 * Run what waits, join the thread, call done/release of all of them, and free.  NULL is fine.
 * It blocks until the thread is idle: for shut-down, and for tests.
 */
void offload_stop(struct offload *o);

#endif
