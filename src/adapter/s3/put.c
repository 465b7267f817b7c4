/*
 * put - an object on its way in.  One that fits a part goes in one request; a larger one in parts of S3_PART bytes, each
 * of which is held until S3 has it: that is all the memory that an object takes.
 *
 *   IDLE -> CREATING   put_write    the first part is full, and there is more to come
 *   IDLE, CREATING -> PART          a part is full
 *   PART -> IDLE                    S3 has it: what came beyond it begins the next one
 *   IDLE -> SINGLE     put_finish   all fits one request
 *   IDLE -> PART -> COMPLETING      put_finish: the last part, then the list of them
 *   COMPLETING -> LOOKING           its end is unknown: is the object there?
 * Each returns to the caller by put_answer().  A part is hashed as it comes in: 5 MiB at once would hold the loop up.
 */
#include "adapter/s3/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUTS_MAX 256

struct media_put {
    struct tr_op op; /* first: the caller's handle of the operation under way */
    struct s3_media *m;
    char name[MEDIA_NAME_MAX + 1];
    uint64_t size, written;
    struct buf part, beyond; /* beyond: what came behind a full part */
    crypto_hash_sha256_state hash;
    char hex[65];
    char upload[S3_UPLOAD_MAX]; /* "": none yet */
    unsigned number;            /* of the part */
    struct buf list;            /* the parts that S3 has, as XML */
    struct tr_op *request;
    struct loop_call call; /* an answer on its way */
    enum tr_rc rc;
    struct tr_err err;
    media_done *done;
    void *ctx;
    bool busy, called, cancelled, finishing, finished, freed;
};

static void put_release(struct media_put *put);

/* ---- answers ---- */

static void on_call(struct loop_call *call)
{
    struct media_put *put = (struct media_put *)((char *)call - offsetof(struct media_put, call));
    const enum tr_rc rc = put->cancelled ? TR_CANCELLED : put->rc;

    put->called = put->busy = false;
    if (put->freed) {
        put->done(put->ctx, TR_CANCELLED, NULL);
        put_release(put);
        return;
    }
    put->done(put->ctx, rc, rc == TR_OK ? NULL : &put->err);
}

static void put_answer_later(struct media_put *put, enum tr_rc rc)
{
    put->rc = rc;
    put->called = true;
    put->call.fn = on_call;
    loop_defer(put->m->loop, &put->call);
}

/* From a request's callback: at once. */
static void put_answer(struct media_put *put, enum tr_rc rc, const struct tr_err *err)
{
    put->rc = rc;
    if (rc != TR_OK && err != NULL)
        put->err = *err;
    on_call(&put->call);
}

static void put_cancel(struct tr_op *op)
{
    struct media_put *put = (struct media_put *)op;

    if (!put->busy || put->cancelled)
        return;
    put->cancelled = true;
    tr_fail(&put->err, TR_CANCELLED, "cancelled");
    if (!put->called)
        tr_op_cancel(put->request); /* its callback comes later, and answers */
}

/* First in every request's callback; true: it was cancelled, and is answered. */
static bool over(struct media_put *put)
{
    put->request = NULL;
    if (!put->cancelled)
        return false;
    put_answer(put, TR_CANCELLED, NULL);
    return true;
}

static void fill(struct media_put *put, const void *data, size_t len)
{
    const size_t room = S3_PART - put->part.len;
    const size_t n = len < room ? len : room;

    buf_add(&put->part, data, n);
    crypto_hash_sha256_update(&put->hash, data, n);
    if (len > n)
        buf_add(&put->beyond, (const uint8_t *)data + n, len - n);
}

static void next_part(struct media_put *put)
{
    struct buf beyond = put->beyond;

    put->beyond = (struct buf){0};
    buf_clear(&put->part);
    crypto_hash_sha256_init(&put->hash);
    if (beyond.len > 0)
        fill(put, beyond.data, beyond.len);
    buf_release(&beyond);
}

static const char *part_hash(struct media_put *put)
{
    crypto_hash_sha256_state st = put->hash;
    uint8_t hash[crypto_hash_sha256_BYTES];

    crypto_hash_sha256_final(&st, hash);
    sodium_bin2hex(put->hex, sizeof put->hex, hash, sizeof hash);
    return put->hex;
}

/* ---- the requests ---- */

static void start(struct media_put *put, const struct s3_ask *ask, s3_done *done)
{
    struct tr_err err = {0};
    const enum tr_rc rc = s3_start(put->m, ask, done, put, &put->request, &err);

    if (rc != TR_OK) {
        put->request = NULL;
        put->err = err;
        put_answer_later(put, rc);
    }
}

static void on_looked(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct media_put *put = ctx;

    if (over(put))
        return;
    if (rc == TR_OK && reply->size == put->size) {
        put->finished = true;
    } else if (rc == TR_OK || rc == TR_NOT_FOUND) {
        rc = tr_fail(&put->err, TR_TRANSIENT, "S3: the parts were not put together");
    } else {
        put->err = *err;
        rc = rc == TR_TRANSIENT ? TR_UNCERTAIN : rc; /* they may have been */
    }
    put_answer(put, rc, NULL);
}

static void on_completed(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct media_put *put = ctx;
    const struct s3_ask look = {.method = "HEAD", .name = put->name};

    if (over(put))
        return;
    if (rc == TR_OK && s3_is(put->m, reply, "CompleteMultipartUploadResult", &put->err) == TR_OK) {
        put->finished = true;
        put_answer(put, TR_OK, NULL);
    } else if (rc == TR_UNCERTAIN || rc == TR_NOT_FOUND || rc == TR_OK) { /* or an attempt before this one did it */
        start(put, &look, on_looked);
    } else {
        put_answer(put, rc, err);
    }
}

static void complete(struct media_put *put)
{
    struct s3_ask ask = {.method = "POST", .name = put->name, .timeout_ms = S3_PART_TIMEOUT_MS, .write = true};
    struct buf query = {0};

    s3_query(&query, "uploadId", put->upload);
    buf_add_str(&put->list, "</CompleteMultipartUpload>");
    ask.query = buf_str(&query);
    ask.body = (struct slice){put->list.data, put->list.len};
    if (query.failed || put->list.failed) {
        tr_fail(&put->err, TR_NOMEM, "S3");
        put_answer_later(put, TR_NOMEM);
    } else {
        start(put, &ask, on_completed);
    }
    buf_release(&query);
}

static void on_part(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct media_put *put = ctx;

    if (over(put))
        return;
    if (rc == TR_OK && (reply->etag[0] == '\0' || strpbrk(reply->etag, "<>&") != NULL)) {
        put_answer(put, tr_fail(&put->err, TR_TRANSIENT, "S3: a part has no tag"), NULL);
        return;
    }
    if (rc != TR_OK) {
        put_answer(put, rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
        return;
    }
    buf_printf(&put->list, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", put->number, reply->etag);
    next_part(put);
    if (put->part.failed || put->list.failed) {
        put_answer(put, tr_fail(&put->err, TR_NOMEM, "S3"), NULL);
    } else if (put->finishing && put->part.len == 0) {
        complete(put);
    } else {
        put_answer(put, TR_OK, NULL);
    }
}

static void send_part(struct media_put *put)
{
    struct s3_ask ask = {.method = "PUT",
                         .name = put->name,
                         .body = {put->part.data, put->part.len},
                         .hash = part_hash(put),
                         .timeout_ms = S3_PART_TIMEOUT_MS,
                         .write = true};
    struct buf query = {0};
    char number[16];

    snprintf(number, sizeof number, "%u", ++put->number);
    s3_query(&query, "partNumber", number);
    s3_query(&query, "uploadId", put->upload);
    ask.query = buf_str(&query);
    start(put, &ask, on_part);
    buf_release(&query);
}

static void on_created(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct media_put *put = ctx;

    if (over(put))
        return;
    if (rc == TR_OK && !s3_xml_text(reply->body, "UploadId", put->upload, sizeof put->upload))
        rc = tr_fail(&put->err, TR_TRANSIENT, "S3: an upload without an id");
    else if (rc != TR_OK)
        put->err = *err;
    if (rc != TR_OK) {
        put_answer(put, rc, NULL);
        return;
    }
    buf_add_str(&put->list, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    send_part(put);
}

static void create(struct media_put *put)
{
    const struct s3_ask ask = {.method = "POST", .name = put->name, .query = "uploads=", .write = true};

    start(put, &ask, on_created);
}

static void on_single(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct media_put *put = ctx;

    if (over(put))
        return;
    if (rc == TR_OK && reply->etag[0] == '\0') { /* S3 names what it has */
        put_answer(put, tr_fail(&put->err, TR_TRANSIENT, "S3: an object without a tag: is S3_ENDPOINT_URL right?"),
                   NULL);
        return;
    }
    put->finished = rc == TR_OK;
    put_answer(put, rc, err);
}

/* ---- the port's side ---- */

enum tr_rc s3_put_start(struct media *base, const char *name, uint64_t size, struct media_put **ret_put,
                        struct tr_err *err)
{
    struct s3_media *m = (struct s3_media *)base;
    struct media_put *put;

    assert(media_name_valid(name));
    if (m->puts_n >= PUTS_MAX)
        return tr_fail(err, TR_BUSY, "S3: too many files come in");
    if (size / S3_PART >= 10000)
        return tr_fail(err, TR_INVALID, "S3: a file of more than 10000 parts");
    put = calloc(1, sizeof *put);
    if (put == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    put->op.cancel = put_cancel;
    put->m = m;
    put->size = size;
    snprintf(put->name, sizeof put->name, "%s", name);
    crypto_hash_sha256_init(&put->hash);
    m->puts_n++;
    *ret_put = put;
    return TR_OK;
}

static void begin(struct media_put *put, media_done *done, void *ctx, struct tr_op **ret_op)
{
    assert(!put->busy);
    put->busy = true;
    put->done = done;
    put->ctx = ctx;
    *ret_op = &put->op;
}

enum tr_rc s3_put_write(struct media_put *put, const void *data, size_t len, media_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    assert(len <= MEDIA_READ_MAX);
    if (put->m->closing)
        return tr_fail(err, TR_CANCELLED, "S3: closing");
    begin(put, done, ctx, ret_op);
    put->written += len;
    fill(put, data, len);
    if (put->part.failed || put->beyond.failed)
        put_answer_later(put, tr_fail(&put->err, TR_NOMEM, "S3"));
    else if (put->written > put->size)
        put_answer_later(put, tr_fail(&put->err, TR_INVALID, "S3: more is written than was announced"));
    else if (put->part.len < S3_PART || put->size <= S3_PART)
        put_answer_later(put, TR_OK);
    else if (put->upload[0] == '\0')
        create(put);
    else
        send_part(put);
    return TR_OK;
}

enum tr_rc s3_put_finish(struct media_put *put, media_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct s3_ask ask = {.method = "PUT",
                         .name = put->name,
                         .body = {put->part.data, put->part.len},
                         .timeout_ms = S3_PART_TIMEOUT_MS,
                         .write = true};

    if (put->m->closing)
        return tr_fail(err, TR_CANCELLED, "S3: closing");
    begin(put, done, ctx, ret_op);
    put->finishing = true;
    if (put->written != put->size) {
        put_answer_later(put, tr_fail(&put->err, TR_INVALID, "S3: %llu of %llu bytes were written",
                                      (unsigned long long)put->written, (unsigned long long)put->size));
    } else if (put->upload[0] == '\0') {
        ask.hash = part_hash(put);
        start(put, &ask, on_single);
    } else if (put->part.len > 0) {
        send_part(put);
    } else {
        complete(put);
    }
    return TR_OK;
}

static void on_aborted(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)reply, (void)err; /* what is left is swept */
}

static void put_release(struct media_put *put)
{
    struct s3_ask ask = {.method = "DELETE", .name = put->name, .write = true};
    struct tr_op *op = NULL;
    struct buf query = {0};

    if (put->upload[0] != '\0' && !put->finished && !put->m->closing) {
        s3_query(&query, "uploadId", put->upload);
        ask.query = buf_str(&query);
        (void)!s3_start(put->m, &ask, on_aborted, NULL, &op, NULL);
        buf_release(&query);
    }
    put->m->puts_n--;
    buf_release(&put->part);
    buf_release(&put->beyond);
    buf_release(&put->list);
    free(put);
}

void s3_put_free(struct media_put *put)
{
    if (put == NULL)
        return;
    if (!put->busy) {
        put_release(put);
        return;
    }
    put->freed = true;
    put_cancel(&put->op);
}
