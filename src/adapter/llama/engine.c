/*
 * llama engine - see engine.h.
 * On the loop: the line of generations, of which the first is handed to the thread, and the callbacks.
 * On the thread: that one generation.  Between the two stands `shared`, guarded by its lock: the generation handed over
 * and the chats to forget go one way, begun, text and end the other, with one posted call for all that has gathered.
 */
#include "adapter/llama/engine.h"

#include "adapter/llama/generation.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FORGET_MAX 256 /* past it, all chats are forgotten: right, and slower only for a moment */

struct engine_job {
    struct llama_engine *engine;
    struct engine_request req;
    struct engine_callbacks cb;
    void *ctx;
    atomic_int wish; /* enum generation_wish; written on the loop, read by the thread */
    uint32_t told;   /* the position that on_position said last; 0: none */
    struct engine_job *prev, *next;
};

/* Guarded by lock. */
struct shared {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct engine_job *job; /* for the thread to take */
    struct uuid forget[FORGET_MAX];
    size_t n_forget;
    bool forget_all, closing;
    /* from the thread, about the running generation */
    bool posted; /* `mail` is on its way */
    bool begun, ended;
    struct buf text;
    enum tr_rc rc;
    struct engine_result result;
    struct tr_err err;
};

struct llama_engine {
    struct engine base;
    struct loop *loop;
    struct engine_info info;
    char model[96], device[96];
    struct loop_call mail, soon;
    bool soon_deferred;
    struct engine_job *running; /* handed to the thread */
    struct engine_job *line;    /* waiting */
    struct engine_job *dropped; /* stopped or cancelled while they were waiting: on_done is to come */
    struct engine_job *cursor;  /* of the round that tells positions */
    atomic_bool closing;
    pthread_t thread;
    struct generator generator; /* the thread's, once it runs */
    struct shared shared;
};

/* ---- the thread ---- */

/* Lock held. */
static void post_mail(struct llama_engine *e)
{
    if (e->shared.posted)
        return;
    e->shared.posted = true;
    loop_post(e->loop, &e->mail);
}

static enum generation_wish job_wish(void *ctx)
{
    const struct engine_job *job = ctx;

    if (atomic_load_explicit(&job->engine->closing, memory_order_relaxed))
        return GENERATION_CANCEL;
    return (enum generation_wish)atomic_load_explicit(&job->wish, memory_order_relaxed);
}

static void job_text(void *ctx, const struct buf *text)
{
    const struct engine_job *job = ctx;
    struct llama_engine *e = job->engine;

    pthread_mutex_lock(&e->shared.lock);
    buf_add(&e->shared.text, text->data, text->len);
    post_mail(e);
    pthread_mutex_unlock(&e->shared.lock);
}

/* Lock held; given up while the generation runs. */
static void run_job(struct llama_engine *e, struct engine_job *job)
{
    const struct generation_io io = {.wish = job_wish, .text = job_text, .ctx = job};
    struct engine_result result;
    struct tr_err err = {0};
    enum tr_rc rc;

    e->shared.begun = true;
    post_mail(e);
    pthread_mutex_unlock(&e->shared.lock);
    rc = generation_run(&e->generator, &job->req, &io, &result, &err);
    pthread_mutex_lock(&e->shared.lock);
    if (rc == TR_OK && e->shared.text.failed)
        rc = tr_fail(&err, TR_NOMEM, "llama engine: a reply");
    e->shared.rc = rc;
    e->shared.result = result;
    e->shared.err = err;
    e->shared.ended = true;
    post_mail(e); /* the job is the loop's again */
}

/* Lock held. */
static void run_forgets(struct llama_engine *e)
{
    if (e->shared.forget_all)
        sequences_forget(&e->generator.sequences, NULL);
    for (size_t i = 0; i < e->shared.n_forget; i++)
        sequences_forget(&e->generator.sequences, &e->shared.forget[i]);
    e->shared.forget_all = false;
    e->shared.n_forget = 0;
}

static void *thread_main(void *ctx)
{
    struct llama_engine *e = ctx;

    generator_warm_up(&e->generator);
    pthread_mutex_lock(&e->shared.lock);
    while (!e->shared.closing) {
        struct engine_job *job = e->shared.job;

        run_forgets(e);
        e->shared.job = NULL;
        if (job != NULL)
            run_job(e, job);
        else
            pthread_cond_wait(&e->shared.wake, &e->shared.lock);
    }
    pthread_mutex_unlock(&e->shared.lock);
    return NULL;
}

/* ---- the loop ---- */

/* Hand the first of the line to the thread if it is free. */
static void dispatch(struct llama_engine *e)
{
    struct engine_job *job = e->line;

    if (e->running != NULL || job == NULL || atomic_load(&e->closing))
        return;
    if (e->cursor == job)
        e->cursor = job->next;
    DL_DELETE(e->line, job);
    e->running = job;
    pthread_mutex_lock(&e->shared.lock);
    e->shared.job = job;
    pthread_cond_signal(&e->shared.wake);
    pthread_mutex_unlock(&e->shared.lock);
}

static void defer(struct llama_engine *e)
{
    if (e->soon_deferred)
        return;
    e->soon_deferred = true;
    loop_defer(e->loop, &e->soon);
}

/* on_position for those whose place has changed.  A callback may take any job out of the line. */
static void tell_positions(struct llama_engine *e)
{
    struct engine_job *job = e->line;
    uint32_t position = 0;

    while (job != NULL) {
        e->cursor = job->next;
        if (job->told != ++position) {
            job->told = position;
            if (job->cb.on_position != NULL)
                job->cb.on_position(job->ctx, position);
        }
        job = e->cursor;
    }
    e->cursor = NULL;
}

/* The job's one callback; it is in no list any more. */
static void finish(struct engine_job *job, enum tr_rc rc, const struct engine_result *result, const struct tr_err *err)
{
    struct engine_callbacks cb = job->cb;
    void *ctx = job->ctx;

    free(job);
    cb.on_done(ctx, rc, rc == TR_OK ? result : NULL, rc == TR_OK ? NULL : err);
}

static void finish_cancelled(struct engine_job *job)
{
    struct tr_err err = {0};
    enum tr_rc rc = tr_fail(&err, TR_CANCELLED, "cancelled");

    finish(job, rc, NULL, &err);
}

static bool is_cancelled(const struct engine_job *job)
{
    return atomic_load(&job->wish) == GENERATION_CANCEL;
}

static void on_soon(struct loop_call *call)
{
    struct llama_engine *e = (struct llama_engine *)((char *)call - offsetof(struct llama_engine, soon));
    struct engine_job *job;

    e->soon_deferred = false;
    while ((job = e->dropped) != NULL) {
        const struct engine_result stopped = {.finish = FINISH_STOPPED};

        DL_DELETE(e->dropped, job);
        if (is_cancelled(job))
            finish_cancelled(job);
        else
            finish(job, TR_OK, &stopped, NULL);
    }
    tell_positions(e);
}

/* What the thread has told since the last time. */
static void on_mail(struct loop_call *call)
{
    struct llama_engine *e = (struct llama_engine *)((char *)call - offsetof(struct llama_engine, mail));
    struct engine_job *job = e->running;
    struct shared *s = &e->shared;
    struct engine_result result;
    struct tr_err err;
    struct buf text;
    bool begun, ended;
    enum tr_rc rc;

    pthread_mutex_lock(&s->lock);
    text = s->text;
    s->text = (struct buf){0};
    begun = s->begun;
    ended = s->ended;
    s->begun = s->ended = s->posted = false;
    rc = s->rc;
    result = s->result;
    err = s->err;
    pthread_mutex_unlock(&s->lock);
    if (atomic_load(&e->closing)) { /* close() itself ends the job */
        buf_wipe(&text);
        return;
    }
    if (begun && job->cb.on_start != NULL && !is_cancelled(job))
        job->cb.on_start(job->ctx);
    if (text.len > 0 && !is_cancelled(job))
        job->cb.on_text(job->ctx, (const char *)text.data, text.len);
    buf_wipe(&text);
    if (ended) {
        bool cancelled = is_cancelled(job);

        e->running = NULL;
        dispatch(e);
        tell_positions(e);
        if (cancelled) /* on_done may close the engine */
            finish_cancelled(job);
        else
            finish(job, rc, &result, &err);
    }
}

static const struct engine_info *llama_info(const struct engine *base)
{
    return &((const struct llama_engine *)(const void *)base)->info;
}

static enum tr_rc llama_generate(struct engine *base, const struct engine_request *req,
                                 const struct engine_callbacks *cb, void *ctx, struct engine_job **ret_job,
                                 struct tr_err *err)
{
    struct llama_engine *e = (struct llama_engine *)base;
    struct engine_job *job;

    if (atomic_load(&e->closing))
        return tr_fail(err, TR_CANCELLED, "llama engine: closing");
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "llama engine: a generation");
    job->engine = e;
    job->req = *req;
    job->cb = *cb;
    job->ctx = ctx;
    atomic_init(&job->wish, GENERATION_GO_ON);
    DL_APPEND(e->line, job);
    *ret_job = job;
    dispatch(e);
    if (e->running != job)
        defer(e); /* it has a position to tell */
    return TR_OK;
}

static void wish_for(struct engine_job *job, enum generation_wish wish)
{
    struct llama_engine *e = job->engine;
    bool waiting = job != e->running && atomic_load(&job->wish) == GENERATION_GO_ON;

    if (wish == GENERATION_STOP && atomic_load(&job->wish) != GENERATION_GO_ON)
        return;
    atomic_store(&job->wish, wish);
    if (!waiting)
        return;
    if (e->cursor == job)
        e->cursor = job->next;
    DL_DELETE(e->line, job);
    DL_APPEND(e->dropped, job);
    defer(e);
}

static void llama_stop(struct engine *base, struct engine_job *job)
{
    (void)base;
    wish_for(job, GENERATION_STOP);
}

static void llama_cancel(struct engine *base, struct engine_job *job)
{
    (void)base;
    wish_for(job, GENERATION_CANCEL);
}

static void llama_forget(struct engine *base, const struct uuid *chat)
{
    struct llama_engine *e = (struct llama_engine *)base;
    struct shared *s = &e->shared;

    pthread_mutex_lock(&s->lock);
    if (s->n_forget < FORGET_MAX)
        s->forget[s->n_forget++] = *chat;
    else
        s->forget_all = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void engine_free(struct llama_engine *e)
{
    generator_release(&e->generator);
    pthread_cond_destroy(&e->shared.wake);
    pthread_mutex_destroy(&e->shared.lock);
    buf_wipe(&e->shared.text);
    free(e);
}

static void llama_close(struct engine *base)
{
    struct llama_engine *e = (struct llama_engine *)base;
    struct engine_job *job;

    if (e == NULL)
        return;
    atomic_store(&e->closing, true);
    pthread_mutex_lock(&e->shared.lock);
    e->shared.closing = true;
    pthread_cond_signal(&e->shared.wake);
    pthread_mutex_unlock(&e->shared.lock);
    pthread_join(e->thread, NULL);
    if (e->running != NULL)
        DL_PREPEND(e->line, e->running);
    e->running = NULL;
    DL_CONCAT(e->line, e->dropped);
    e->dropped = NULL;
    while ((job = e->line) != NULL) {
        DL_DELETE(e->line, job);
        finish_cancelled(job);
    }
    loop_drain(e->loop); /* mail and soon */
    engine_free(e);
}

static const struct engine_ops llama_engine_ops = {
    .scheme = "llama",
    .info = llama_info,
    .generate = llama_generate,
    .stop = llama_stop,
    .cancel = llama_cancel,
    .forget = llama_forget,
    .close = llama_close,
};

enum tr_rc llama_engine_open(struct loop *loop, const char *path, const struct llama_engine_options *opt,
                             struct engine **ret_engine, struct tr_err *err)
{
    struct llama_engine *e = calloc(1, sizeof *e);
    struct loaded loaded = {0};
    enum tr_rc rc;
    int r;

    if (e == NULL)
        return tr_fail(err, TR_NOMEM, "llama engine");
    e->base.ops = &llama_engine_ops;
    e->loop = loop;
    e->mail.fn = on_mail;
    e->soon.fn = on_soon;
    pthread_mutex_init(&e->shared.lock, NULL);
    pthread_cond_init(&e->shared.wake, NULL);
    rc = loader_open(path, opt, &loaded, err);
    if (rc != TR_OK)
        goto out;
    memcpy(e->model, loaded.name, sizeof e->model);
    memcpy(e->device, loaded.device, sizeof e->device);
    e->info = (struct engine_info){
        .engine = "llama", .model = e->model, .device = e->device, .slots = 1, .context_tokens = loaded.context_tokens};
    rc = generator_init(&e->generator, &loaded, err);
    if (rc != TR_OK)
        goto out;
    r = pthread_create(&e->thread, NULL, thread_main, e);
    if (r != 0) {
        rc = tr_fail(err, TR_TRANSIENT, "llama engine: thread: %s", strerror(r));
        goto out;
    }
    *ret_engine = &e->base;
    e = NULL;
out:
    if (e != NULL)
        engine_free(e);
    return rc;
}
