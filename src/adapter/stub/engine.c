/*
 * stub engine - see engine.h.
 *
 * A job is driven by one deferred call or one timer at a time:
 *   QUEUED -> WAITING    on_turn       on_start; a timer runs until the next word is due
 *   QUEUED -> ENDED      on_turn       without pauses every word comes at once
 *   WAITING -> ENDED     on_due        after the last word
 *   any -> ENDED         on_turn       stopped, cancelled, or told to fail
 */
#include "adapter/stub/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define SLOTS 4096
#define CONTEXT_TOKENS (1u << 20)
#define PAUSE_MAX_MS 3600000u
#define FAIL_AFTER_MAX 1000000u

enum wish { WISH_NONE, WISH_STOP, WISH_CANCEL };

struct stub_params {
    uint64_t delay_ms, gap_ms, fail_after;
    char fail_word[64];
};

struct stub_engine {
    struct engine base;
    struct loop *loop;
    struct engine_info info;
    struct stub_params params;
    struct engine_job *jobs;
};

struct engine_job {
    struct loop_call call;      /* first: the call is the job */
    struct stub_engine *engine; /* NULL: the engine was closed before the call came */
    struct engine_callbacks cb;
    void *ctx;
    struct buf text;
    size_t sent;
    uint32_t prompt_tokens, words;
    enum wish wish;
    bool begun, deferred, fails;
    struct loop_timer *timer;
    struct engine_job *prev, *next;
};

static void job_free(struct engine_job *job)
{
    timer_stop(job->timer);
    buf_wipe(&job->text);
    free(job);
}

/* The job's one callback, with what its outcome is. */
static void finish(struct engine_job *job, enum tr_rc rc, enum finish how)
{
    struct engine_result result = {.finish = how, .prompt_tokens = job->prompt_tokens, .completion_tokens = job->words};
    struct engine_callbacks cb = job->cb;
    void *ctx = job->ctx;
    struct tr_err err = {.rc = rc};

    if (rc == TR_CANCELLED)
        (void)tr_fail(&err, rc, "cancelled");
    else if (rc != TR_OK)
        (void)tr_fail(&err, rc, "stub engine: told to fail");
    DL_DELETE(job->engine->jobs, job);
    job->engine = NULL;
    if (!job->deferred)
        job_free(job);
    cb.on_done(ctx, rc, rc == TR_OK ? &result : NULL, rc == TR_OK ? NULL : &err);
}

/* True when the job has ended. */
static bool finish_if_due(struct engine_job *job)
{
    const struct stub_params *p = &job->engine->params;

    if (job->wish == WISH_CANCEL)
        finish(job, TR_CANCELLED, FINISH_NONE);
    else if (job->wish == WISH_STOP)
        finish(job, TR_OK, FINISH_STOPPED);
    else if (job->fails && job->words >= p->fail_after)
        finish(job, TR_TRANSIENT, FINISH_NONE);
    else if (job->sent == job->text.len)
        finish(job, job->fails ? TR_TRANSIENT : TR_OK, FINISH_STOP);
    else
        return false;
    return true;
}

/* A word and the space behind it. */
static void send_word(struct engine_job *job)
{
    const char *text = (const char *)job->text.data;
    size_t from = job->sent, to = from;

    while (to < job->text.len && text[to] != ' ' && text[to] != '\n')
        to++;
    while (to < job->text.len && (text[to] == ' ' || text[to] == '\n'))
        to++;
    job->sent = to;
    job->words++;
    job->cb.on_text(job->ctx, text + from, to - from);
}

/* Send what is due now.  The job may be gone afterwards. */
static void send_due(struct engine_job *job)
{
    uint64_t gap = job->engine->params.gap_ms;

    while (!finish_if_due(job)) {
        send_word(job);
        if (gap > 0 && job->sent < job->text.len && job->wish == WISH_NONE) {
            timer_again(job->timer, gap);
            return;
        }
    }
}

static void on_due(void *ctx)
{
    struct engine_job *job = ctx;

    if (!job->deferred) /* else it is about to be ended */
        send_due(job);
}

static void on_turn(struct loop_call *call)
{
    struct engine_job *job = (struct engine_job *)call;
    const struct stub_params *p;

    job->deferred = false;
    if (job->engine == NULL) {
        job_free(job);
        return;
    }
    p = &job->engine->params;
    if (job->begun || job->wish != WISH_NONE) {
        send_due(job);
        return;
    }
    job->begun = true;
    if (p->delay_ms > 0 || p->gap_ms > 0) {
        if (timer_start(job->engine->loop, p->delay_ms, 0, on_due, job, &job->timer) != TR_OK) {
            job->fails = true;
            job->sent = job->text.len;
        }
    }
    if (job->cb.on_start != NULL)
        job->cb.on_start(job->ctx);
    if (job->timer == NULL && !job->deferred)
        send_due(job);
}

static void defer(struct engine_job *job)
{
    if (job->deferred)
        return;
    job->deferred = true;
    loop_defer(job->engine->loop, &job->call);
}

static const struct engine_info *stub_info(const struct engine *e)
{
    return &((const struct stub_engine *)(const void *)e)->info;
}

static void build_reply(struct engine_job *job, const struct engine_request *req)
{
    const char *const word = job->engine->params.fail_word;
    size_t bytes = 0;

    for (size_t i = 0; i < req->prompt->n; i++)
        bytes += req->prompt->messages[i].len;
    job->prompt_tokens = (uint32_t)(bytes / 4 + 1);
    buf_add_str(&job->text, req->character_name);
    buf_add_str(&job->text, " heard: ");
    buf_add(&job->text, req->said.data, req->said.len);
    job->fails = word[0] != 0 && req->said.len > 0 && memmem(req->said.data, req->said.len, word, strlen(word)) != NULL;
}

static enum tr_rc stub_generate(struct engine *base, const struct engine_request *req,
                                const struct engine_callbacks *cb, void *ctx, struct engine_job **ret_job,
                                struct tr_err *err)
{
    struct stub_engine *e = (struct stub_engine *)base;
    struct engine_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        return tr_fail(err, TR_NOMEM, "stub engine: a generation");
    *job = (struct engine_job){.call.fn = on_turn, .engine = e, .cb = *cb, .ctx = ctx};
    build_reply(job, req);
    if (job->text.failed) {
        job_free(job);
        return tr_fail(err, TR_NOMEM, "stub engine: a reply");
    }
    DL_APPEND(e->jobs, job);
    defer(job);
    *ret_job = job;
    return TR_OK;
}

static void stub_stop(struct engine *e, struct engine_job *job)
{
    (void)e;
    if (job->wish != WISH_NONE)
        return;
    job->wish = WISH_STOP;
    defer(job);
}

static void stub_cancel(struct engine *e, struct engine_job *job)
{
    (void)e;
    job->wish = WISH_CANCEL;
    defer(job);
}

static void stub_forget(struct engine *e, const struct uuid *chat)
{
    (void)e;
    (void)chat;
}

static void stub_close(struct engine *base)
{
    struct stub_engine *e = (struct stub_engine *)base;

    if (e == NULL)
        return;
    while (e->jobs != NULL) {
        timer_stop(e->jobs->timer);
        e->jobs->timer = NULL;
        finish(e->jobs, TR_CANCELLED, FINISH_NONE);
    }
    loop_drain(e->loop); /* the deferred calls that were under way free their jobs */
    free(e);
}

static const struct engine_ops stub_engine_ops = {
    .scheme = "stub",
    .info = stub_info,
    .generate = stub_generate,
    .stop = stub_stop,
    .cancel = stub_cancel,
    .forget = stub_forget,
    .close = stub_close,
};

static enum tr_rc parse_number(const char *key, const char *value, uint64_t max, uint64_t *ret, struct tr_err *err)
{
    char *end = NULL;
    unsigned long long v;

    errno = 0;
    v = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != 0 || errno != 0 || v > max)
        return tr_fail(err, TR_INVALID, "stub engine: %s=%s is not a whole number from 0 to %llu", key, value,
                       (unsigned long long)max);
    *ret = v;
    return TR_OK;
}

static enum tr_rc parse_param(char *param, struct stub_params *p, struct tr_err *err)
{
    char *value = strchr(param, '=');

    if (value == NULL)
        return tr_fail(err, TR_INVALID, "stub engine: '%s' is not key=value", param);
    *value++ = 0;
    if (strcmp(param, "delay_ms") == 0)
        return parse_number(param, value, PAUSE_MAX_MS, &p->delay_ms, err);
    if (strcmp(param, "gap_ms") == 0)
        return parse_number(param, value, PAUSE_MAX_MS, &p->gap_ms, err);
    if (strcmp(param, "fail_after") == 0)
        return parse_number(param, value, FAIL_AFTER_MAX, &p->fail_after, err);
    if (strcmp(param, "fail_word") == 0) {
        if (strlen(value) >= sizeof p->fail_word)
            return tr_fail(err, TR_INVALID, "stub engine: fail_word has over %zu bytes", sizeof p->fail_word - 1);
        memcpy(p->fail_word, value, strlen(value) + 1);
        return TR_OK;
    }
    return tr_fail(err, TR_INVALID,
                   "stub engine: unknown parameter '%s'; known: delay_ms, gap_ms, fail_word, fail_after", param);
}

static enum tr_rc parse_params(const char *params, struct stub_params *p, struct tr_err *err)
{
    enum tr_rc rc = TR_OK;
    char *copy, *rest, *param;

    if (params[0] == 0)
        return TR_OK;
    if (params[0] != '?')
        return tr_fail(err, TR_INVALID, "stub engine: '%s' should be empty or start with '?'", params);
    copy = strdup(params + 1);
    if (copy == NULL)
        return tr_fail(err, TR_NOMEM, "stub engine: its parameters");
    rest = copy;
    while (rc == TR_OK && (param = strsep(&rest, "&")) != NULL) {
        if (param[0] != 0)
            rc = parse_param(param, p, err);
    }
    free(copy);
    return rc;
}

enum tr_rc stub_engine_open(struct loop *loop, const char *params, struct engine **ret_engine, struct tr_err *err)
{
    struct stub_params parsed = {0};
    struct stub_engine *e;
    enum tr_rc rc = parse_params(params, &parsed, err);

    if (rc != TR_OK)
        return rc;
    e = calloc(1, sizeof *e);
    if (e == NULL)
        return tr_fail(err, TR_NOMEM, "stub engine");
    *e = (struct stub_engine){
        .base.ops = &stub_engine_ops,
        .loop = loop,
        .info = {.engine = "stub", .model = "stub", .device = "none", .slots = SLOTS, .context_tokens = CONTEXT_TOKENS},
        .params = parsed,
    };
    *ret_engine = &e->base;
    return TR_OK;
}
