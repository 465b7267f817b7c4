/*
 * upload - POST /api/media: a file on its way into the store, sealed piece by piece.  comes from: http.c; goes to: port/media.h
 *
 *   RATING  -> RATING     on_rated     the user's uploads of this minute are counted, then the address's
 *   RATING  -> KEYING     on_rated
 *   KEYING  -> TAKING     on_key       the user's data key is there (made at the first file)
 *   TAKING  -> TAKING     on_written   a piece at a time: one is being filled while the one before it is written
 *   TAKING  -> FINISHING  on_written   that was the last one
 *   FINISHING -> answered on_finished  the store has it for good
 *   any     -> refused    refuse
 *   any     -> gone       upload_gone  the client went: what was written goes away
 *
 * What it is, is told by its first piece, before anything is written.  The socket is read no faster than the store
 * takes the pieces, so an upload holds two of them at most.
 */
#include "role/gateway/gateway_impl.h"

#include "base/log.h"
#include "base/metrics.h"
#include "domain/media.h"
#include "role/common/keyring.h"
#include "role/gateway/json_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UPLOADS_MAX 32            /* at once */
#define UPLOADS_USER_MAX 4        /* of one user */
#define UPLOADS_ADDRESS_MAX 16    /* from one address, where addresses are counted (TROUPE_RATE_ADDRESS) */
#define SILENT_SECONDS 30         /* for a client to send something */
#define STORE_SECONDS 90          /* for the store to take a piece; it has deadlines of its own */
#define WHOLE_SECONDS 3600        /* for all of it */
#define SLOW_AFTER_MS 30000       /* of waiting for the client; from then on */
#define SLOW_BYTES 16384          /* a second, on average */
#define REFUSED_SECONDS 10        /* for a client to stop sending, and to read why */
#define SWEEP_SECONDS 3600        /* between two sweeps, */
#define LEFT_MS UINT64_C(7200000) /* of what was begun so long ago */

struct upload {
    struct conn *c; /* NULL: gone; freed by the callback that is under way */
    struct upload *next, *prev;
    struct media *media;
    struct keyring *keyring;
    struct uuid user, id;
    struct seal_key key;
    struct media_put *put;
    struct tr_op *op;
    uint64_t bytes; /* of the file */
    uint64_t chunk; /* the piece that `plain` is being filled with */
    enum media_type type;
    struct buf plain, sealed;
    uint32_t began_s;
    uint64_t taken;      /* bytes of the file that have come */
    uint64_t waiting_ms; /* since when the client is waited for; 0: it is not */
    uint64_t waited_ms;  /* for the client, before that */
    unsigned rates;      /* that were asked */
    bool keyed, finishing;
};

static struct metric stored =
    METRIC(METRIC_COUNTER, "troupe_media_uploads_total", "result=\"stored\"", "Files sent by clients.");
static struct metric refused =
    METRIC(METRIC_COUNTER, "troupe_media_uploads_total", "result=\"refused\"", "Files sent by clients.");
static struct metric cut =
    METRIC(METRIC_COUNTER, "troupe_media_uploads_total", "result=\"cut\"", "Files sent by clients.");
static struct metric stored_bytes =
    METRIC(METRIC_COUNTER, "troupe_media_stored_bytes_total", NULL, "Bytes of the files that were stored.");

void media_failed(struct conn *c, const char *what, const struct uuid *id, enum tr_rc rc, const struct tr_err *err)
{
    char text[UUID_TEXT];

    uuid_format(id, text);
    log_event(rc == TR_INVALID ? LOG_ERROR : LOG_WARN, "media.failed", "what=%s media=%s rc=%s cause=%Q", what, text,
              tr_rc_name(rc), tr_err_text(err));
    if (rc == TR_INVALID)
        http_error(c, 500, NULL, "the stored file is damaged: it can't be read", NULL, NULL, true);
    else if (rc == TR_NOMEM)
        http_error(c, 500, NULL, "out of memory", NULL, NULL, true);
    else
        http_error(c, 503, NULL, "the store of media is full or does not answer: try again in a moment", NULL,
                   "Retry-After: 2\r\n", true);
}

/* ---- the end of one ---- */

static void upload_free(struct upload *u)
{
    if (u->put != NULL)
        u->media->ops->put_free(u->put);
    seal_key_wipe(&u->key);
    buf_wipe(&u->plain);
    buf_release(&u->sealed);
    free(u);
}

/* Its connection goes on without it. */
static void detach(struct upload *u)
{
    struct gateway *g = conn_gateway(u->c);

    if (u->prev != NULL)
        u->prev->next = u->next;
    else
        g->uploads = u->next;
    if (u->next != NULL)
        u->next->prev = u->prev;
    u->c->http->upload = NULL;
    u->c = NULL;
}

void upload_gone(struct upload *u)
{
    if (u == NULL)
        return;
    metric_add(&cut, 1);
    detach(u);
    if (u->put != NULL) { /* now, so that the store may be closed right after this; its operation is called back, too */
        u->media->ops->put_free(u->put);
        u->put = NULL;
    } else {
        tr_op_cancel(u->op);
    }
    if (u->op == NULL)
        upload_free(u);
}

/* The answer to what is not taken; the connection ends where there is more of the body to come. */
static void answer_refused(struct conn *c, unsigned status, const char *message, const char *field, const char *headers)
{
    const bool rest = c->http->req.content_length > 0;

    metric_add(&refused, 1);
    http_error(c, status, NULL, message, field, headers, rest);
    if (c->state == CONN_ENDING)
        c->until_s = conn_now_s(c) + REFUSED_SECONDS;
}

static void refuse(struct upload *u, unsigned status, const char *message, const char *field, const char *headers)
{
    struct conn *c = u->c;

    detach(u);
    upload_free(u);
    answer_refused(c, status, message, field, headers);
}

static void failed(struct upload *u, const char *what, enum tr_rc rc, const struct tr_err *err)
{
    const struct tr_err why = err != NULL ? *err : (struct tr_err){0}; /* it may be the put's own */
    struct conn *c = u->c;
    const struct uuid id = u->id;

    metric_add(&cut, 1);
    detach(u);
    upload_free(u);
    media_failed(c, what, &id, rc, &why);
    if (c->state == CONN_ENDING)
        c->until_s = conn_now_s(c) + REFUSED_SECONDS;
}

/* First in every callback; true: the client has gone, and so has the upload. */
static bool over(struct upload *u)
{
    u->op = NULL;
    if (u->c != NULL)
        return false;
    upload_free(u);
    return true;
}

/* ---- pieces ---- */

static void go_on(struct upload *u);

/* Does the client send too slowly?  Only the time counts in which it could have sent. */
static bool too_slow(struct upload *u, bool more)
{
    const uint64_t now = loop_now_ms(conn_gateway(u->c)->env->loop) + 1;

    if (u->waiting_ms != 0)
        u->waited_ms += now - u->waiting_ms;
    u->waiting_ms = more ? now : 0;
    return more && u->waited_ms > SLOW_AFTER_MS &&
           u->taken < (u->waited_ms - SLOW_AFTER_MS) * SLOW_BYTES / UINT64_C(1000);
}

/* Read on from the socket, or not. */
static void pace(struct upload *u)
{
    struct conn *c = u->c;
    const uint32_t now = conn_now_s(c), latest = u->began_s + WHOLE_SECONDS;
    const bool more = u->plain.len < media_chunk_len(u->bytes, u->chunk);

    if (too_slow(u, more) && u->op == NULL) {
        refuse(u, 408, "body: the file comes in too slowly", NULL, NULL);
        return;
    }
    c->until_s = now + (u->op != NULL ? STORE_SECONDS : SILENT_SECONDS);
    if (c->until_s > latest)
        c->until_s = latest;
    if (more)
        conn_resume(c);
    else
        conn_pause(c);
}

static void take(struct upload *u)
{
    struct http_conn *h = u->c->http;
    const size_t want = media_chunk_len(u->bytes, u->chunk) - u->plain.len;
    const size_t have = h->in.len - h->req.head_len;
    const size_t n = have < want ? have : want;

    if (n == 0)
        return;
    buf_add(&u->plain, h->in.data + h->req.head_len, n);
    memmove(h->in.data + h->req.head_len, h->in.data + h->req.head_len + n, have - n);
    h->in.len -= n;
    h->req.content_length -= n;
    u->taken += n;
}

static void on_finished(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct upload *u = ctx;
    struct desk *desk;
    struct buf json = {0};
    struct conn *c;
    struct uuid user;

    if (over(u))
        return;
    if (rc != TR_OK) {
        failed(u, "finish", rc, err);
        return;
    }
    metric_add(&stored, 1);
    metric_add(&stored_bytes, u->bytes);
    buf_add_str(&json, "{\"media\":");
    json_uuid(&json, &u->id);
    buf_printf(&json, ",\"type\":\"%s\",\"bytes\":%llu}", media_type_name(u->type), (unsigned long long)u->bytes);
    c = u->c;
    user = u->user;
    desk = conn_gateway(c)->desk;
    detach(u);
    upload_free(u);
    http_reply_json(c, 200, &json, NULL);
    desk_media_stored(desk, &user);
}

static void on_written(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct upload *u = ctx;
    struct tr_err own = {0};

    if (over(u))
        return;
    if (rc == TR_OK && u->chunk == media_chunks(u->bytes)) {
        u->finishing = true;
        rc = u->media->ops->put_finish(u->put, on_finished, u, &u->op, &own);
        if (rc == TR_OK) {
            pace(u);
            return;
        }
        err = &own;
    }
    if (rc != TR_OK)
        failed(u, "write", rc, err);
    else
        go_on(u);
}

/* The first piece is there: what is it?  False: it was refused. */
static bool begin_object(struct upload *u)
{
    const struct media_head head = {
        .type = media_sniff(u->plain.data, u->plain.len), .bytes = u->bytes, .created_ms = wall_ms()};
    char name[MEDIA_NAME_MAX + 1];
    struct tr_err err = {0};
    uint8_t random[10];
    enum tr_rc rc;

    if (head.type == MEDIA_NONE) {
        refuse(u, 415,
               "body: not a PNG, JPEG, GIF or WebP picture, MP3, Ogg, WAV, FLAC or M4A sound, MP4 or WebM video",
               "body", NULL);
        return false;
    }
    u->type = head.type;
    seal_random(random, sizeof random);
    u->id = uuid_v7(head.created_ms, random);
    media_file_name(&u->user, &u->id, name);
    rc = u->media->ops->put_start(u->media, name, media_sealed_size(u->bytes), &u->put, &err);
    if (rc == TR_OK)
        rc = media_seal_head(&u->key, &u->user, &u->id, &head, &u->sealed);
    if (rc != TR_OK)
        failed(u, "begin", rc, &err);
    return rc == TR_OK;
}

static void write_piece(struct upload *u)
{
    struct tr_err err = {0};
    enum tr_rc rc;

    buf_clear(&u->sealed);
    if (u->chunk == 0 && !begin_object(u))
        return;
    rc = media_seal_chunk(&u->key, &u->user, &u->id, u->bytes, u->chunk, u->plain.data, u->plain.len, &u->sealed);
    buf_clear(&u->plain);
    u->chunk++;
    if (rc == TR_OK)
        rc = u->media->ops->put_write(u->put, u->sealed.data, u->sealed.len, on_written, u, &u->op, &err);
    if (rc != TR_OK) {
        failed(u, "write", rc, &err);
        return;
    }
    take(u);
    if (u->plain.failed)
        failed(u, "memory", TR_NOMEM, NULL);
    else
        pace(u);
}

static void go_on(struct upload *u)
{
    if (u->keyed && !u->finishing)
        take(u);
    if (u->plain.failed)
        failed(u, "memory", TR_NOMEM, NULL);
    else if (u->op == NULL && u->keyed && u->plain.len > 0 && u->plain.len == media_chunk_len(u->bytes, u->chunk))
        write_piece(u);
    else
        pace(u);
}

void upload_feed(struct conn *c)
{
    struct upload *u = c->http->upload;

    if (u->keyed)
        go_on(u);
    else
        conn_pause(c); /* what is here is enough until then */
}

/* ---- before it ---- */

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    static const char continue_[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct upload *u = ctx;
    struct conn *c = u->c;

    if (over(u))
        return;
    if (rc != TR_OK) {
        failed(u, "key", rc == TR_NOT_FOUND ? TR_TRANSIENT : rc, err);
        return;
    }
    u->key = *key;
    u->keyed = true;
    if (c->http->continued && !conn_write(c, continue_, sizeof continue_ - 1))
        return; /* gone, and u with it */
    go_on(u);
}

static void ask_key(struct upload *u)
{
    struct tr_err err = {0};
    const enum tr_rc rc = keyring_user(u->keyring, &u->user, true, on_key, u, &u->op, &err);

    if (rc != TR_OK)
        failed(u, "key", rc, &err);
}

static void ask_rate(struct upload *u);

/* A registry that fails refuses nobody (contract 3.7). */
static void on_rated(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err)
{
    struct upload *u = ctx;
    char headers[64];

    (void)err;
    if (over(u))
        return;
    if (rc != TR_OK || retry_after_ms == 0) {
        ask_rate(u);
        return;
    }
    snprintf(headers, sizeof headers, "Retry-After: %llu\r\n", (unsigned long long)(retry_after_ms / 1000 + 1));
    refuse(u, 429, "too many files in a short time", NULL, headers);
}

static uint64_t rate_of(const struct gateway *g, const char *key)
{
    uint64_t rate = 0;

    return config_u64(g->env->config, key, &rate, NULL) == TR_OK ? rate : 0;
}

/* The user's, of files alone; then the address's, together with messages (role/chat/accept.c). */
static void ask_rate(struct upload *u)
{
    const struct gateway *g = conn_gateway(u->c);
    struct registry *r = g->env->registry;
    char key[6 + UUID_TEXT] = "media:"; /* the longer one of the two */
    uint64_t rate = 0;

    for (; rate == 0 && u->rates < 2; u->rates++)
        rate = rate_of(g, u->rates == 0 ? "TROUPE_RATE_USER" : "TROUPE_RATE_ADDRESS");
    if (u->rates == 1) {
        uuid_format(&u->user, key + 6);
    } else {
        desk_address_key(u->c->peer.viewer.address, key);
    }
    if (rate == 0)
        ask_key(u);
    else if (r->ops->rate_take(r, key, (uint32_t)rate, on_rated, u, &u->op, NULL) != TR_OK)
        ask_rate(u);
}

/* NULL: there is room for one more of this client's. */
static const char *no_room(const struct gateway *g, const struct desk_viewer *v, unsigned *ret_status)
{
    const bool by_address = rate_of(g, "TROUPE_RATE_ADDRESS") > 0;
    size_t all = 0, own = 0, near = 0;

    for (const struct upload *u = g->uploads; u != NULL; u = u->next) {
        all++;
        own += uuid_eq(&u->user, &v->user);
        near += by_address && memcmp(u->c->peer.viewer.address, v->address, sizeof v->address) == 0;
    }
    *ret_status = own >= UPLOADS_USER_MAX || near >= UPLOADS_ADDRESS_MAX ? 429 : 503;
    return own >= UPLOADS_USER_MAX       ? "four files of yours are on their way: wait for one of them"
           : near >= UPLOADS_ADDRESS_MAX ? "too many files come in from your address at once: try again in a moment"
           : all >= UPLOADS_MAX          ? "too many files come in at once: try again in a moment"
                                         : NULL;
}

static struct upload *upload_new(struct conn *c, const struct http_request *req)
{
    struct gateway *g = conn_gateway(c);
    struct upload *u = calloc(1, sizeof *u);

    if (u == NULL)
        return NULL;
    u->c = c;
    u->media = g->env->media;
    u->keyring = g->env->keyring;
    u->user = c->peer.viewer.user;
    u->bytes = req->content_length;
    u->began_s = conn_now_s(c);
    u->next = g->uploads;
    if (u->next != NULL)
        u->next->prev = u;
    g->uploads = u;
    return u;
}

void upload_begin(struct conn *c, const struct http_request *req)
{
    struct gateway *g = conn_gateway(c);
    char message[96];
    const char *full;
    unsigned status = 404;

    if (req->header[HTTP_CONTENT_LENGTH].data == NULL) {
        answer_refused(c, 411, "a file needs a Content-Length", NULL, NULL);
    } else if (g->env->media == NULL) {
        answer_refused(c, 404, "there is no store of media here", NULL, NULL);
    } else if (req->content_length == 0) {
        answer_refused(c, 400, "body: the file is empty", "body", NULL);
    } else if (req->content_length > g->media_max) {
        snprintf(message, sizeof message, "body: the file is larger than %llu MiB",
                 (unsigned long long)(g->media_max >> 20));
        answer_refused(c, 413, message, "body", NULL);
    } else if (g->draining) {
        answer_refused(c, 503, "this server is going down: try again in a moment", NULL, "Retry-After: 1\r\n");
    } else if ((full = no_room(g, &c->peer.viewer, &status)) != NULL) {
        answer_refused(c, status, full, NULL, "Retry-After: 2\r\n");
    } else if ((c->http->upload = upload_new(c, req)) == NULL) {
        answer_refused(c, 500, "out of memory", NULL, NULL);
    } else {
        c->http->continued =
            c->http->in.len == req->head_len && http_list_has(req->header[HTTP_EXPECT], "100-continue");
        memset(c->http->req.header, 0, sizeof c->http->req.header); /* they move as the body comes in */
        c->until_s = conn_now_s(c) + STORE_SECONDS;
        conn_pause(c);
        ask_rate(c->http->upload);
    }
}

/* ---- what a kill left ---- */

static void on_swept(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx;
    if (rc != TR_OK && rc != TR_CANCELLED)
        log_event(LOG_DEBUG, "media.sweep", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
}

void upload_sweep(struct gateway *g)
{
    const uint64_t now = loop_now_ms(g->env->loop) / 1000 + 1;
    struct media *m = g->env->media;
    struct tr_op *op = NULL;

    if (m == NULL || (g->swept_s != 0 && now - g->swept_s < SWEEP_SECONDS))
        return;
    g->swept_s = now;
    if (m->ops->sweep(m, LEFT_MS, on_swept, NULL, &op, NULL) != TR_OK)
        g->swept_s = 0;
}
