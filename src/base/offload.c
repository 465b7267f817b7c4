/*
 * offload - one thread, batches of jobs, answers posted back to the loop.
 *
 * A job is answered (done) once: by the thread's return, by tr_op_cancel() or by its deadline, whichever comes first; it is
 * released when it is answered and the thread has returned it.  `answered` and `returned` are touched on the loop only.
 */
#include "base/offload.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS 250

struct offload {
    struct loop *loop;
    struct offload_hooks hooks;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct offload_job *first, *last;       /* guarded by lock: what waits */
    size_t waiting;                         /* guarded by lock */
    bool stop;                              /* guarded by lock */
    struct loop_timer *sweep;               /* looks for passed deadlines */
    struct offload_job *dl_first, *dl_last; /* on the loop: submitted, not returned; deadlines ascend */
};

static void unlink_deadline(struct offload *o, struct offload_job *job)
{
    if (job->dl_prev != NULL)
        job->dl_prev->dl_next = job->dl_next;
    else
        o->dl_first = job->dl_next;
    if (job->dl_next != NULL)
        job->dl_next->dl_prev = job->dl_prev;
    else
        o->dl_last = job->dl_prev;
}

static void answer(struct offload_job *job, enum tr_rc rc, const struct tr_err *err)
{
    if (job->answered)
        return;
    job->answered = true;
    job->done(job, rc, rc == TR_OK ? NULL : err);
}

/* The thread has let go of the job. */
static void on_returned(struct loop_call *call)
{
    struct offload_job *job = (struct offload_job *)((char *)call - offsetof(struct offload_job, call));

    unlink_deadline(job->owner, job);
    job->returned = true;
    if (!job->answered) {
        job->worked = job->committed;
        answer(job, job->rc, &job->err);
    }
    job->release(job);
}

static void fail_late(struct offload_job *job)
{
    struct tr_err err = {0};
    const enum tr_rc rc = job->write ? TR_UNCERTAIN : TR_TRANSIENT;

    tr_fail(&err, rc, "no answer from the disk within %llu ms", (unsigned long long)job->owner->hooks.timeout_ms);
    answer(job, rc, &err);
}

static void on_sweep(void *ctx)
{
    struct offload *o = ctx;
    const uint64_t now = loop_now_ms(o->loop);

    for (struct offload_job *job = o->dl_first; job != NULL && job->deadline_ms <= now;) {
        struct offload_job *next = job->dl_next;

        fail_late(job); /* stays in the list until the thread returns it */
        job = next;
    }
}

/* tr_op_cancel: the callback must not come from inside the call, so the answer is given when the loop gets to it. */
struct cancel_call {
    struct loop_call call;
    struct offload_job *job;
};

static void on_cancelled(struct loop_call *call)
{
    struct cancel_call *c = (struct cancel_call *)call;

    c->job->deferred = false;
    answer(c->job, TR_CANCELLED, NULL);
    if (c->job->returned)
        c->job->release(c->job);
    free(c);
}

/* As on_returned; where a cancellation is still on its way, that answers and releases. */
static void on_returned_cancelled(struct loop_call *call)
{
    struct offload_job *job = (struct offload_job *)((char *)call - offsetof(struct offload_job, call));

    if (!job->deferred) {
        on_returned(call);
        return;
    }
    unlink_deadline(job->owner, job);
    job->returned = true;
}

static void job_cancel(struct tr_op *op)
{
    struct offload_job *job = (struct offload_job *)op;
    struct cancel_call *c;

    if (job->answered || job->deferred)
        return;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return; /* it will end by itself */
    c->call.fn = on_cancelled;
    c->job = job;
    job->deferred = true;
    job->call.fn = on_returned_cancelled;
    loop_defer(job->owner->loop, &c->call);
}

static void run_batch(struct offload *o, struct offload_job *batch)
{
    struct tr_err err = {0};
    enum tr_rc rc = o->hooks.begin != NULL ? o->hooks.begin(o->hooks.state, &err) : TR_OK;
    struct loop_call *first = NULL, *last = NULL;
    bool any_write = false;

    for (struct offload_job *job = batch; job != NULL; job = job->next) {
        any_write = any_write || job->write;
        job->rc = rc == TR_OK ? job->work(job, o->hooks.state) : rc;
    }
    if (rc == TR_OK && o->hooks.end != NULL)
        rc = o->hooks.end(o->hooks.state, any_write, &err);
    for (struct offload_job *job = batch; job != NULL; job = job->next) {
        job->committed = rc == TR_OK;
        if (rc != TR_OK) {
            job->rc = rc;
            job->err = err;
        }
        if (first == NULL)
            first = &job->call;
        else
            last->next = &job->call;
        last = &job->call;
    }
    loop_post_all(o->loop, first, last);
}

static void *offload_main(void *arg)
{
    struct offload *o = arg;

    pthread_mutex_lock(&o->lock);
    for (;;) {
        struct offload_job *batch, *end;
        size_t n = 1;

        while (o->first == NULL && !o->stop)
            pthread_cond_wait(&o->wake, &o->lock);
        if (o->first == NULL)
            break;
        batch = end = o->first;
        while (end->next != NULL && n < o->hooks.batch_max) {
            end = end->next;
            n++;
        }
        o->first = end->next;
        if (o->first == NULL)
            o->last = NULL;
        o->waiting -= n;
        end->next = NULL;
        pthread_mutex_unlock(&o->lock);
        run_batch(o, batch);
        pthread_mutex_lock(&o->lock);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

enum tr_rc offload_start(struct loop *loop, const char *name, const struct offload_hooks *hooks,
                         struct offload **ret_offload, struct tr_err *err)
{
    struct offload *o = calloc(1, sizeof *o);
    int r;

    if (o == NULL)
        return tr_fail(err, TR_NOMEM, "%s", name);
    o->loop = loop;
    o->hooks = *hooks;
    if (o->hooks.batch_max == 0)
        o->hooks.batch_max = 256;
    if (o->hooks.queue_max == 0)
        o->hooks.queue_max = 65536;
    if (o->hooks.timeout_ms == 0)
        o->hooks.timeout_ms = 10000;
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->wake, NULL);
    if (timer_start(loop, SWEEP_MS, SWEEP_MS, on_sweep, o, &o->sweep) != TR_OK) {
        free(o);
        return tr_fail(err, TR_NOMEM, "%s", name);
    }
    r = pthread_create(&o->thread, NULL, offload_main, o);
    if (r != 0) {
        timer_stop(o->sweep);
        free(o);
        return tr_fail(err, TR_TRANSIENT, "%s: no thread: %s", name, strerror(r));
    }
    pthread_setname_np(o->thread, name);
    *ret_offload = o;
    return TR_OK;
}

enum tr_rc offload_submit(struct offload *o, struct offload_job *job)
{
    bool wake;

    job->op.cancel = job_cancel;
    job->owner = o;
    job->next = NULL;
    job->call.fn = on_returned;
    job->deadline_ms = loop_now_ms(o->loop) + o->hooks.timeout_ms;

    pthread_mutex_lock(&o->lock);
    if (o->waiting >= o->hooks.queue_max) {
        pthread_mutex_unlock(&o->lock);
        return TR_BUSY;
    }
    wake = o->first == NULL;
    if (wake)
        o->first = job;
    else
        o->last->next = job;
    o->last = job;
    o->waiting++;
    pthread_mutex_unlock(&o->lock);
    if (wake)
        pthread_cond_signal(&o->wake);

    job->dl_prev = o->dl_last;
    job->dl_next = NULL;
    if (o->dl_last != NULL)
        o->dl_last->dl_next = job;
    else
        o->dl_first = job;
    o->dl_last = job;
    return TR_OK;
}

void offload_stop(struct offload *o)
{
    if (o == NULL)
        return;
    pthread_mutex_lock(&o->lock);
    o->stop = true;
    pthread_mutex_unlock(&o->lock);
    pthread_cond_signal(&o->wake);
    pthread_join(o->thread, NULL);
    timer_stop(o->sweep);
    loop_drain(o->loop);
    assert(o->dl_first == NULL);
    pthread_mutex_destroy(&o->lock);
    pthread_cond_destroy(&o->wake);
    free(o);
}
