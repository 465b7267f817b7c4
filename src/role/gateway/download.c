/*
 * download - GET and HEAD /api/media/ID: a stored file on its way out, opened piece by piece.  comes from: port/media.h
 *
 *   KEYING  -> HEAD       on_key     the user's data key; without one there is nothing of the user's here
 *   HEAD    -> answered   on_head    HEAD, 304, 416
 *   HEAD    -> SENDING    on_head    the range is known
 *   SENDING -> SENDING    on_pieces  the client has taken what went out: the next pieces are read
 *   SENDING -> answered   on_pieces  that was the last one
 *   any     -> gone       download_gone
 *
 * The status is told only when the first pieces were opened, so that a damaged file gets an error; damage further on
 * cuts the connection before its announced end.
 */
#include "role/gateway/gateway_impl.h"

#include "base/log.h"
#include "base/metrics.h"
#include "domain/media.h"
#include "role/common/keyring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECES 4         /* read at once */
#define TAKE_SECONDS 120 /* for a client to take them */
#define STORE_SECONDS 60 /* for the store; it has deadlines of its own */

struct download {
    struct conn *c; /* NULL: gone; freed by the callback that is under way */
    struct media *media;
    struct uuid user, id;
    struct seal_key key;
    struct tr_op *op;
    struct media_head head;
    char name[MEDIA_NAME_MAX + 1];
    uint64_t at, to; /* of the file: the next byte to send, and where to end */
    enum http_ranged ranged;
    bool begun; /* the head is out */
};

static struct metric sent_bytes =
    METRIC(METRIC_COUNTER, "troupe_media_sent_bytes_total", NULL, "Bytes of files sent to clients.");

static void download_free(struct download *d)
{
    seal_key_wipe(&d->key);
    free(d);
}

static void detach(struct download *d)
{
    d->c->http->download = NULL;
    d->c = NULL;
}

void download_gone(struct download *d)
{
    if (d == NULL)
        return;
    detach(d);
    if (d->op == NULL)
        download_free(d);
    else
        tr_op_cancel(d->op);
}

static bool over(struct download *d)
{
    d->op = NULL;
    if (d->c != NULL)
        return false;
    download_free(d);
    return true;
}

static void failed(struct download *d, const char *what, enum tr_rc rc, const struct tr_err *err)
{
    struct conn *c = d->c;
    const struct uuid id = d->id;
    const bool begun = d->begun;
    char text[UUID_TEXT];

    detach(d);
    download_free(d);
    if (rc == TR_NOT_FOUND && !begun) {
        http_error(c, 404, NULL, "no such media", NULL, NULL, false);
    } else if (!begun) {
        media_failed(c, what, &id, rc, err);
    } else {
        uuid_format(&id, text);
        log_event(rc == TR_INVALID ? LOG_ERROR : LOG_WARN, "media.cut", "media=%s rc=%s cause=%Q", text, tr_rc_name(rc),
                  tr_err_text(err));
        conn_abort(c);
    }
}

/* ---- the body ---- */

static void read_pieces(struct download *d);

/* Headers of all answers with a body of this file, or about it. */
static void add_headers(const struct download *d, char *out, size_t size)
{
    char id[UUID_TEXT];
    int n;

    uuid_format(&d->id, id);
    n = snprintf(out, size,
                 "ETag: \"%s\"\r\nAccept-Ranges: bytes\r\nVary: Cookie, Authorization\r\n"
                 "Cross-Origin-Resource-Policy: same-origin\r\nContent-Disposition: inline; filename=\"%s.%s\"\r\n",
                 id, id, media_extension(d->head.type));
    if (d->ranged == HTTP_PART)
        snprintf(out + n, size - (size_t)n, "Content-Range: bytes %llu-%llu/%llu\r\n", (unsigned long long)d->at,
                 (unsigned long long)d->to - 1, (unsigned long long)d->head.bytes);
    else if (d->ranged == HTTP_UNSATISFIABLE)
        snprintf(out + n, size - (size_t)n, "Content-Range: bytes */%llu\r\n", (unsigned long long)d->head.bytes);
}

static struct http_answer answer_of(const struct download *d, const char *headers)
{
    return (struct http_answer){
        .status = d->ranged == HTTP_PART ? 206 : 200,
        .type = media_type_name(d->head.type),
        .len = (size_t)(d->to - d->at),
        .headers = headers,
        .csp = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
        .cache = "private, max-age=3600",
    };
}

/* An answer without a body. */
static void answer(struct download *d, unsigned status)
{
    struct conn *c = d->c;
    struct http_answer a;
    char headers[512];

    add_headers(d, headers, sizeof headers);
    a = answer_of(d, headers);
    if (status != 0)
        a.status = status;
    if (status == 304) {
        a.type = NULL;
        a.len = 0;
    }
    if (status == 416) {
        detach(d);
        download_free(d);
        http_error(c, 416, NULL, "the file ends before this range", NULL, headers, false);
        return;
    }
    detach(d);
    download_free(d);
    http_reply(c, &a);
}

/* Open what was read, and put the part of it that is wanted out. */
static enum tr_rc open_pieces(struct download *d, struct slice data, struct buf *plain, struct tr_err *err)
{
    const uint64_t first = d->at / MEDIA_CHUNK;
    enum tr_rc rc = TR_OK;
    size_t at = 0;

    for (uint64_t chunk = first; rc == TR_OK && at < data.len; chunk++) {
        const size_t len = media_chunk_len(d->head.bytes, chunk) + SEAL_OVERHEAD;

        if (len == SEAL_OVERHEAD || len > data.len - at)
            return tr_fail(err, TR_INVALID, "stored file: cut");
        rc = media_open_chunk(&d->key, &d->user, &d->id, d->head.bytes, chunk, data.data + at, len, plain, err);
        at += len;
    }
    return rc;
}

static void on_pieces(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct download *d = ctx;
    const size_t skip = (size_t)(d->at % MEDIA_CHUNK);
    struct buf plain = {0};
    struct tr_err own = {0};
    struct conn *c = d->c;
    char headers[512];
    size_t len;

    if (over(d))
        return;
    if (rc == TR_OK) {
        rc = size != media_sealed_size(d->head.bytes) ? tr_fail(&own, TR_INVALID, "stored file: it has changed")
                                                      : open_pieces(d, data, &plain, &own);
        if (rc == TR_OK && plain.len <= skip)
            rc = tr_fail(&own, TR_INVALID, "stored file: cut");
        err = &own;
    }
    if (rc == TR_OK && !d->begun) {
        struct http_answer a;

        add_headers(d, headers, sizeof headers);
        a = answer_of(d, headers);
        d->begun = true;
        if (!http_begin(c, &a)) {
            buf_wipe(&plain);
            return; /* gone, and d with it, or soon */
        }
    }
    if (rc != TR_OK) {
        buf_wipe(&plain);
        failed(d, "read", rc, err);
        return;
    }
    len = plain.len - skip;
    if (len > d->to - d->at)
        len = (size_t)(d->to - d->at);
    d->at += len;
    metric_add(&sent_bytes, len);
    c->until_s = conn_now_s(c) + TAKE_SECONDS;
    (void)conn_write(c, plain.data + skip, len);
    buf_wipe(&plain);
    if (c->state == CONN_BUSY && c->out == NULL)
        download_drained(c);
}

void download_drained(struct conn *c)
{
    struct download *d = c->http->download;

    if (d->op != NULL || !d->begun)
        return;
    if (d->at < d->to) {
        read_pieces(d);
        return;
    }
    detach(d);
    download_free(d);
    http_end(c);
}

static void read_pieces(struct download *d)
{
    const uint64_t first = d->at / MEDIA_CHUNK, last = (d->to - 1) / MEDIA_CHUNK;
    struct tr_err err = {0};
    size_t len = 0;
    enum tr_rc rc;

    for (uint64_t chunk = first; chunk <= last && chunk < first + PIECES; chunk++)
        len += media_chunk_len(d->head.bytes, chunk) + SEAL_OVERHEAD;
    d->c->until_s = conn_now_s(d->c) + STORE_SECONDS;
    rc = d->media->ops->read(d->media, d->name, media_chunk_at(first), len, on_pieces, d, &d->op, &err);
    if (rc != TR_OK)
        failed(d, "read", rc, &err);
}

/* ---- before it ---- */

/* If-Range: the range counts only while the file is the same; it always is, for its id is its tag. */
static enum http_ranged read_range(struct download *d, const struct http_request *req, const char *etag)
{
    const struct slice same = req->header[HTTP_IF_RANGE];
    uint64_t from = 0, to = d->head.bytes;
    enum http_ranged ranged = HTTP_WHOLE;

    if (req->method == HTTP_GET &&
        (same.data == NULL || (same.len == strlen(etag) && memcmp(same.data, etag, same.len) == 0)))
        ranged = http_range(req->header[HTTP_RANGE], d->head.bytes, &from, &to);
    d->at = from;
    d->to = to;
    return ranged;
}

static void on_head(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct download *d = ctx;
    const struct http_request *req;
    char id[UUID_TEXT], etag[UUID_TEXT + 2];
    struct tr_err own = {0};

    if (over(d))
        return;
    if (rc == TR_OK) {
        rc = media_open_head(&d->key, &d->user, &d->id, data.data, data.len, size, &d->head, &own);
        err = &own;
    }
    if (rc != TR_OK) {
        failed(d, "open", rc, err);
        return;
    }
    req = &d->c->http->req;
    uuid_format(&d->id, id);
    snprintf(etag, sizeof etag, "\"%s\"", id);
    d->ranged = read_range(d, req, etag);
    if (http_etag_matches(req->header[HTTP_IF_NONE_MATCH], etag)) {
        d->ranged = HTTP_WHOLE;
        answer(d, 304);
    } else if (req->method == HTTP_HEAD) {
        answer(d, 0);
    } else if (d->ranged == HTTP_UNSATISFIABLE) {
        answer(d, 416);
    } else {
        read_pieces(d);
    }
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct download *d = ctx;
    struct tr_err own = {0};

    if (over(d))
        return;
    if (rc == TR_OK) {
        d->key = *key;
        rc = d->media->ops->read(d->media, d->name, 0, MEDIA_HEAD, on_head, d, &d->op, &own);
        err = &own;
    }
    if (rc != TR_OK)
        failed(d, "key", rc, err); /* no key: nothing of the user's can be there */
}

void download_begin(struct conn *c, const struct http_request *req, const struct uuid *id)
{
    struct gateway *g = conn_gateway(c);
    struct download *d = calloc(1, sizeof *d);
    struct tr_err err = {0};
    enum tr_rc rc;

    (void)req;
    if (d == NULL) {
        http_error(c, 500, NULL, "out of memory", NULL, NULL, true);
        return;
    }
    d->c = c;
    d->media = g->env->media;
    d->user = c->peer.viewer.user;
    d->id = *id;
    media_file_name(&d->user, id, d->name);
    c->http->download = d;
    c->until_s = conn_now_s(c) + STORE_SECONDS;
    rc = keyring_user(g->env->keyring, &d->user, false, on_key, d, &d->op, &err);
    if (rc != TR_OK)
        failed(d, "key", rc, &err);
}
