/*
 * http - requests off the connection, one at a time: bounds, order, time limits.
 * Comes from conn.c; what they ask for is http_routes.c's.
 */
#include "role/gateway/gateway_impl.h"

#include <stdlib.h>
#include <string.h>

#define BODY_MAX 1024                         /* no route of ours needs a body */
#define PIPELINED_MAX (2 * GATEWAY_READ_SIZE) /* requests that came before the answer to an earlier one */

void http_release(struct conn *c)
{
    if (c->http == NULL)
        return;
    upload_gone(c->http->upload);
    download_gone(c->http->download);
    buf_wipe(&c->http->in); /* tokens */
    free(c->http);
    c->http = NULL;
}

/* The first `n` bytes have been dealt with. */
static void consume(struct http_conn *h, size_t n)
{
    memmove(h->in.data, h->in.data + n, h->in.len - n);
    h->in.len -= n;
    h->scanned = 0;
    h->continued = false;
}

static void refuse(struct conn *c, unsigned status, const char *message)
{
    c->http->req = (struct http_request){0}; /* nothing of it can be trusted */
    http_error(c, status, NULL, message, NULL, NULL, true);
}

/* The head is whole and was parsed; the body may be still to come.  False: not yet, or refused. */
static bool body_there(struct conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct http_conn *h = c->http;
    const struct http_request *req = &h->req;

    if (req->content_length > BODY_MAX) {
        http_error(c, 413, NULL, "the body is over 1024 bytes", NULL, NULL, true);
        return false;
    }
    if (h->in.len - req->head_len >= req->content_length)
        return true;
    if (!h->continued && http_list_has(req->header[HTTP_EXPECT], "100-continue")) {
        h->continued = true;
        conn_write(c, go_on, sizeof go_on - 1);
    }
    return false;
}

/* Take one request, if there is one.  False: there is none, or it is being answered. */
static bool take_request(struct conn *c)
{
    struct http_conn *h = c->http;
    const char *message = NULL;
    size_t skip = 0, end;
    unsigned status;

    while (h->in.len - skip >= 2 && memcmp(h->in.data + skip, "\r\n", 2) == 0)
        skip += 2; /* empty lines before a request are borne with */
    if (skip > 0)
        consume(h, skip);
    end = http_head_end(h->in.data, h->in.len, h->scanned);
    h->scanned = h->in.len;
    if (end == 0 ? h->in.len > HTTP_HEAD_MAX : end > HTTP_HEAD_MAX) {
        refuse(c, 431, "request line and headers are over 16 KiB");
        return false;
    }
    if (end == 0) {
        /* What can't become a request is refused before its time is up: TLS, say. */
        if (h->in.len > 0 && (h->in.data[0] < 'A' || h->in.data[0] > 'z') && h->in.data[0] != '\r')
            refuse(c, 400, "this is not HTTP/1.1");
        return false;
    }
    h->scanned = 0; /* the same head again when its body has come */
    status = http_parse(h->in.data, end, &h->req, &message);
    if (status != 0) {
        refuse(c, status, message);
        return false;
    }
    if (!http_known(c, &h->req))
        return c->state == CONN_READING; /* answered, and the connection stays */
    if (!http_streams(&h->req) && !body_there(c))
        return false;
    c->until_s = 0;
    c->state = CONN_BUSY;
    http_route(c, &h->req);
    return c->state == CONN_READING;
}

static void process(struct conn *c)
{
    struct gateway *g = conn_gateway(c);

    g->processing = c;
    while (c->state == CONN_READING && c->out == NULL && c->http != NULL && c->http->in.len > 0 && take_request(c))
        continue;
    g->processing = NULL;
    if (c->state == CONN_BUSY && c->http->upload != NULL)
        return; /* it reads at its own pace */
    if (c->state == CONN_BUSY || (c->state == CONN_READING && c->out != NULL))
        conn_pause(c); /* nothing more is taken in before this one is answered, and the answer taken */
    else if (c->state == CONN_READING && c->http != NULL && c->http->in.len == 0)
        http_release(c);
}

void http_read(struct conn *c, const uint8_t *data, size_t len)
{
    if (c->http == NULL) {
        c->http = calloc(1, sizeof *c->http);
        if (c->http == NULL) {
            conn_abort(c);
            return;
        }
        c->until_s = conn_now_s(c) + HEAD_SECONDS;
    }
    buf_add(&c->http->in, data, len);
    if (c->http->in.failed || c->http->in.len > PIPELINED_MAX)
        conn_abort(c);
    else if (c->state == CONN_BUSY && c->http->upload != NULL)
        upload_feed(c);
    else
        process(c);
}

void http_next(struct conn *c)
{
    struct http_conn *h = c->http;

    consume(h, h->req.head_len + (size_t)h->req.content_length);
    h->req = (struct http_request){0};
    c->state = CONN_READING;
    c->until_s = conn_now_s(c) + (c->out != NULL ? REPLY_SECONDS : h->in.len > 0 ? HEAD_SECONDS : KEEP_ALIVE_SECONDS);
    if (conn_gateway(c)->processing == c)
        return;
    conn_resume(c);
    process(c);
}

void http_flushed(struct conn *c)
{
    c->until_s = conn_now_s(c) + (c->http != NULL ? HEAD_SECONDS : KEEP_ALIVE_SECONDS);
    conn_resume(c);
    process(c);
}

void http_timeout(struct conn *c)
{
    if (c->state == CONN_READING && c->http != NULL && c->http->in.len > 0 && c->out == NULL)
        refuse(c, 408, "the request did not come in whole in time");
    else
        conn_abort(c);
}

void http_over_limit(struct conn *c)
{
    http_error(c, 503, "overloaded", "too many connections", NULL, "Retry-After: 10\r\n", true);
}
