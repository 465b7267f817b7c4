/* admin - the bucket made and looked at, and the parts of uploads that nobody finished let go of. */
#include "adapter/s3/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An operation of several requests; its handle passes a cancellation on to the one under way. */
struct admin {
    struct tr_op op; /* first */
    struct s3_media *m;
    struct tr_op *request;
    union {
        service_done *plain;
        service_checked *checked;
    } done;
    void *ctx;
    struct buf body;
    uint64_t age_ms, clock_ms;                            /* clock_ms: S3's; 0: it told none, and nothing is old */
    char (*uploads)[MEDIA_NAME_MAX + 64 + S3_UPLOAD_MAX]; /* owned: name, 0, upload id */
    size_t n, at;
};

static void admin_cancel(struct tr_op *op)
{
    tr_op_cancel(((struct admin *)op)->request);
}

static struct admin *admin_new(struct media *m, void *ctx)
{
    struct admin *a = calloc(1, sizeof *a);

    if (a == NULL)
        return NULL;
    a->op.cancel = admin_cancel;
    a->m = (struct s3_media *)m;
    a->ctx = ctx;
    return a;
}

static void admin_free(struct admin *a)
{
    buf_release(&a->body);
    free(a->uploads);
    free(a);
}

static void plain_end(struct admin *a, enum tr_rc rc, const struct tr_err *err)
{
    struct tr_err copy = {0};

    if (err != NULL)
        copy = *err;
    a->done.plain(a->ctx, rc, rc == TR_OK ? NULL : &copy);
    admin_free(a);
}

static enum tr_rc started(struct admin *a, enum tr_rc rc, struct tr_op **ret_op)
{
    if (rc != TR_OK)
        admin_free(a);
    else
        *ret_op = &a->op;
    return rc;
}

/* ---- init ---- */

static void on_made(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct admin *a = ctx;

    a->request = NULL;
    if (rc == TR_INVALID && strcmp(reply->code, "BucketAlreadyOwnedByYou") == 0)
        rc = TR_OK; /* somebody else was faster, or an attempt before this one */
    plain_end(a, rc, err);
}

static void on_there(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct admin *a = ctx;
    struct s3_ask ask = {.method = "PUT", .write = true, .exact = true};
    struct tr_err own = {0};

    a->request = NULL;
    if (rc == TR_OK) {
        rc = s3_is(a->m, reply, "ListBucketResult", &own);
        plain_end(a, rc, &own);
        return;
    }
    if (rc != TR_NOT_FOUND) {
        plain_end(a, rc, err);
        return;
    }
    if (strcmp(a->m->region, "us-east-1") != 0)
        buf_printf(&a->body,
                   "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>%s"
                   "</LocationConstraint></CreateBucketConfiguration>",
                   a->m->region);
    ask.body = (struct slice){a->body.data, a->body.len};
    rc = s3_start(a->m, &ask, on_made, a, &a->request, &own);
    if (rc != TR_OK)
        plain_end(a, rc, &own);
}

/* A list rather than a HEAD: its refusals say why. */
#define LOOK "list-type=2&max-keys=1"

enum tr_rc s3_init(struct media *m, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const struct s3_ask ask = {.method = "GET", .query = LOOK, .exact = true};
    struct admin *a = admin_new(m, ctx);

    if (a == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    a->done.plain = done;
    return started(a, s3_start(a->m, &ask, on_there, a, &a->request, err), ret_op);
}

/* ---- check ---- */

static void on_checked(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct admin *a = ctx;
    struct service_report report = {0};
    struct tr_err own = {0};

    a->request = NULL;
    if (rc == TR_OK && (rc = s3_is(a->m, reply, "ListBucketResult", &own)) != TR_OK)
        err = &own;
    if (rc == TR_OK) {
        snprintf(report.server, sizeof report.server, "S3 (%.30s) at %.55s, bucket %.50s",
                 reply->server[0] != '\0' ? reply->server : "no name given", a->m->host, a->m->bucket);
        report.clock_ms = reply->clock_ms;
    }
    a->done.checked(a->ctx, rc, rc == TR_OK ? &report : NULL, err);
    admin_free(a);
}

enum tr_rc s3_check(struct media *m, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const struct s3_ask ask = {.method = "GET", .query = LOOK, .once = true, .exact = true, .timeout_ms = S3_CHECK_MS};
    struct admin *a = admin_new(m, ctx);

    if (a == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    a->done.checked = done;
    return started(a, s3_start(a->m, &ask, on_checked, a, &a->request, err), ret_op);
}

/* ---- sweep ---- */

static void sweep_next(struct admin *a);

static void on_let_go(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct admin *a = ctx;

    (void)reply;
    a->request = NULL;
    if (rc != TR_OK && rc != TR_NOT_FOUND)
        plain_end(a, rc, err);
    else
        sweep_next(a);
}

static void sweep_next(struct admin *a)
{
    struct s3_ask ask = {.method = "DELETE", .write = true};
    struct buf query = {0};
    struct tr_err err = {0};
    enum tr_rc rc;

    if (a->at == a->n) {
        plain_end(a, TR_OK, NULL);
        return;
    }
    ask.name = a->uploads[a->at];
    s3_query(&query, "uploadId", ask.name + strlen(ask.name) + 1);
    ask.query = buf_str(&query);
    a->at++;
    rc = s3_start(a->m, &ask, on_let_go, a, &a->request, &err);
    buf_release(&query);
    if (rc != TR_OK)
        plain_end(a, rc, &err);
}

/* One upload of the list: ours, and old? */
static void look(struct admin *a, struct slice upload)
{
    const size_t prefix = strlen(a->m->prefix);
    char key[S3_PATH_MAX], id[S3_UPLOAD_MAX], begun[64];
    char *to = a->uploads[a->n];
    uint64_t ms;

    if (!s3_xml_text(upload, "Key", key, sizeof key) || !s3_xml_text(upload, "UploadId", id, sizeof id) ||
        !s3_xml_text(upload, "Initiated", begun, sizeof begun))
        return;
    ms = s3_xml_time(begun);
    if (ms == 0 || ms + a->age_ms > a->clock_ms || strncmp(key, a->m->prefix, prefix) != 0 ||
        !media_name_valid(key + prefix))
        return;
    memcpy(to, key + prefix, strlen(key + prefix) + 1);
    memcpy(to + strlen(to) + 1, id, strlen(id) + 1);
    a->n++;
}

#define UPLOADS_MAX 1000 /* a page; the next sweep takes the next one */

static void on_uploads(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct admin *a = ctx;
    struct tr_err own = {0};
    struct slice upload;
    size_t at = 0;

    a->request = NULL;
    if (rc == TR_OK && s3_is(a->m, reply, "ListMultipartUploadsResult", &own) != TR_OK) {
        rc = own.rc = TR_TRANSIENT;
        err = &own;
    }
    if (rc == TR_OK) {
        a->uploads = calloc(UPLOADS_MAX, sizeof *a->uploads);
        if (a->uploads == NULL)
            rc = TR_NOMEM;
    }
    if (rc != TR_OK) {
        plain_end(a, rc, err);
        return;
    }
    a->clock_ms = reply->clock_ms;
    while (a->n < UPLOADS_MAX && s3_xml_next(reply->body, "Upload", &at, &upload))
        look(a, upload);
    sweep_next(a);
}

enum tr_rc s3_sweep(struct media *m, uint64_t age_ms, media_done *done, void *ctx, struct tr_op **ret_op,
                    struct tr_err *err)
{
    struct admin *a = admin_new(m, ctx);
    struct s3_ask ask = {.method = "GET"};
    struct buf query = {0};
    enum tr_rc rc;

    if (a == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    a->done.plain = done;
    a->age_ms = age_ms;
    if (a->m->prefix[0] != '\0')
        s3_query(&query, "prefix", a->m->prefix);
    s3_query(&query, "uploads", "");
    ask.query = buf_str(&query);
    rc = started(a, s3_start(a->m, &ask, on_uploads, a, &a->request, err), ret_op);
    buf_release(&query);
    return rc;
}
