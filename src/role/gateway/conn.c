/* conn - see conn.h. */
#include "role/gateway/gateway_impl.h"

#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define FLIGHT_MAX 32 /* pieces that are handed to the kernel at once */

struct metric gateway_bytes_in =
    METRIC(METRIC_COUNTER, "troupe_gateway_bytes_total", "direction=\"in\"", "Bytes over clients' connections.");
struct metric gateway_bytes_out =
    METRIC(METRIC_COUNTER, "troupe_gateway_bytes_total", "direction=\"out\"", "Bytes over clients' connections.");

struct out_item {
    struct out_item *next;
    size_t len;
    char data[];
};

static void submit(struct conn *c);

uint32_t conn_now_s(const struct conn *c)
{
    return (uint32_t)(loop_now_ms(conn_gateway(c)->env->loop) / 1000);
}

/* ---- out ---- */

static void free_items(struct out_queue *q, struct out_item *item)
{
    while (item != NULL) {
        struct out_item *next = item->next;

        q->bytes -= item->len;
        free(item);
        item = next;
    }
}

static void free_queue(struct conn *c)
{
    struct out_queue *q = c->out;

    if (q == NULL)
        return;
    free_items(q, q->flight);
    free_items(q, q->first);
    slow_release(q);
    free(q);
    c->out = NULL;
}

/* All is written: close our side; the peer's end is waited for, so that it gets what we sent. */
static void half_close(struct conn *c)
{
    uv_os_fd_t fd;

    c->state = CONN_ENDING;
    c->until_s = conn_now_s(c) + ENDING_SECONDS;
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) != 0 || shutdown(fd, SHUT_WR) != 0) {
        conn_abort(c);
        return;
    }
    conn_resume(c);
}

static void on_written(uv_write_t *req, int status)
{
    struct conn *c = req->data;
    struct out_queue *q = c->out;

    if (c->state == CONN_CLOSED)
        return; /* on_closed frees the queue */
    if (status != 0) {
        conn_abort(c);
        return;
    }
    free_items(q, q->flight);
    q->flight = NULL;
    if (q->first != NULL)
        submit(c);
    if (c->state == CONN_OPEN)
        slow_drained(c);
    if (c->state == CONN_CLOSED || c->out == NULL || q->flight != NULL)
        return;
    if (q->ending) {
        free_queue(c);
        half_close(c);
    } else if (q->kept == NULL) {
        free_queue(c);
        if (c->state == CONN_READING)
            http_flushed(c);
        else if (c->state == CONN_BUSY && c->http != NULL && c->http->download != NULL)
            download_drained(c);
    }
}

/* Hand waiting pieces to the socket; none are with it now. */
static void submit(struct conn *c)
{
    struct out_queue *q = c->out;
    uv_buf_t bufs[FLIGHT_MAX];
    struct out_item *last = NULL;
    unsigned n = 0;

    for (struct out_item *i = q->first; i != NULL && n < FLIGHT_MAX; i = i->next) {
        bufs[n++] = uv_buf_init(i->data, (unsigned)i->len);
        last = i;
    }
    q->flight = q->first;
    q->first = last->next;
    if (q->first == NULL)
        q->last = NULL;
    last->next = NULL;
    q->req.data = c;
    if (uv_write(&q->req, (uv_stream_t *)&c->tcp, bufs, n, on_written) != 0)
        conn_abort(c);
}

static bool enqueue(struct conn *c, const void *data, size_t len)
{
    struct out_queue *q = c->out;
    struct out_item *item = malloc(sizeof *item + len);

    if (q == NULL)
        c->out = q = calloc(1, sizeof *q);
    if (item == NULL || q == NULL) {
        free(item);
        conn_abort(c);
        return false;
    }
    item->next = NULL;
    item->len = len;
    memcpy(item->data, data, len);
    if (q->last != NULL)
        q->last->next = item;
    else
        q->first = item;
    q->last = item;
    q->bytes += len;
    if (len > q->greatest)
        q->greatest = len;
    if (q->flight == NULL)
        submit(c);
    return c->state != CONN_CLOSED;
}

static bool write_now(struct conn *c, const void *data, size_t len)
{
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    int n = 0;

    metric_add(&gateway_bytes_out, len);
    if (c->out == NULL || (c->out->flight == NULL && c->out->first == NULL)) {
        n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
        if (n == UV_EAGAIN)
            n = 0;
        if (n < 0) {
            conn_abort(c);
            return false;
        }
    }
    return (size_t)n == len || enqueue(c, (const char *)data + n, len - (size_t)n);
}

static bool flush_cork(struct gateway *g, struct conn *c)
{
    bool ok = true;

    if (g->cork.failed)
        conn_abort(c);
    else if (g->cork.len > 0 && c->state != CONN_CLOSED)
        ok = write_now(c, g->cork.data, g->cork.len);
    buf_clear(&g->cork);
    return ok && c->state != CONN_CLOSED;
}

bool conn_write(struct conn *c, const void *data, size_t len)
{
    struct gateway *g = conn_gateway(c);

    if (c->state == CONN_CLOSED)
        return false;
    if (g->corked != c)
        return write_now(c, data, len);
    if (g->cork.len + len > GATEWAY_READ_SIZE && !flush_cork(g, c))
        return false;
    if (len > GATEWAY_READ_SIZE)
        return write_now(c, data, len);
    buf_add(&g->cork, data, len);
    return true;
}

bool conn_overfull(const struct conn *c)
{
    return c->out != NULL && c->out->bytes > conn_gateway(c)->send_max + c->out->greatest;
}

void conn_drop_waiting(struct conn *c)
{
    if (c->out == NULL)
        return;
    free_items(c->out, c->out->first);
    c->out->first = c->out->last = NULL;
    slow_release(c->out);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *c = (struct conn *)handle;

    conn_discard(c);
    free_queue(c); /* the write that was under way has been called back */
    free(c);
}

void conn_discard(struct conn *c)
{
    struct gateway *g = conn_gateway(c);

    if (g == NULL)
        return; /* done before */
    peer_release(&c->peer);
    http_release(c);
    if (c->reader != NULL)
        frame_reader_release(c->reader);
    free(c->reader);
    c->reader = NULL;
    gateway_conn_gone(g, c);
    c->tcp.data = NULL;
}

void conn_abort(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_CLOSED;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

void conn_end(struct conn *c)
{
    struct gateway *g = conn_gateway(c);

    if (c->state == CONN_CLOSED || c->state == CONN_ENDING)
        return;
    if (g->corked == c && !flush_cork(g, c))
        return;
    if (c->out == NULL) {
        half_close(c);
        return;
    }
    slow_release(c->out);
    c->out->ending = true;
    c->state = CONN_ENDING;
    c->until_s = conn_now_s(c) + CLOSING_SECONDS;
    if (c->out->flight == NULL) { /* it was there for what was kept back alone */
        free_queue(c);
        half_close(c);
    }
}

/* ---- in ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct gateway *g = handle->data;

    (void)suggested;
    *buf = uv_buf_init((char *)g->read_buffer, GATEWAY_READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = (struct conn *)stream;
    struct gateway *g = conn_gateway(c);

    if (n == 0 || c->state == CONN_CLOSED)
        return;
    if (n < 0) {
        if (n != UV_EOF || c->out == NULL || c->out->flight == NULL || c->state == CONN_OPEN ||
            c->state == CONN_CLOSING) {
            conn_abort(c);
        } else { /* a client that closed its side may still be reading */
            conn_pause(c);
            conn_end(c);
        }
        return;
    }
    metric_add(&gateway_bytes_in, (uint64_t)n);
    c->heard_s = conn_now_s(c);
    c->pings = 0;
    if (c->state == CONN_ENDING)
        return;
    g->corked = c;
    if (c->state == CONN_OPEN || c->state == CONN_CLOSING)
        ws_read(c, (uint8_t *)buf->base, (size_t)n);
    else
        http_read(c, (const uint8_t *)buf->base, (size_t)n);
    flush_cork(g, c);
    g->corked = NULL;
}

void conn_pause(struct conn *c)
{
    uv_read_stop((uv_stream_t *)&c->tcp);
}

void conn_resume(struct conn *c)
{
    if (c->state != CONN_CLOSED)
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

bool conn_accept(struct gateway *g, uv_stream_t *listener)
{
    struct sockaddr_storage address = {0};
    int len = sizeof address;
    struct conn *c = calloc(1, sizeof *c);

    if (c == NULL)
        return false;
    if (uv_tcp_init(loop_uv(g->env->loop), &c->tcp) != 0) {
        free(c);
        return false;
    }
    c->tcp.data = g;
    c->peer.protocol = &g->protocol;
    c->prev = NULL;
    c->next = g->conns;
    if (c->next != NULL)
        c->next->prev = c;
    g->conns = c;
    g->conns_n++;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) {
        conn_abort(c);
        return false;
    }
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &len) == 0)
        address_bytes(&address, c->peer.viewer.address);
    uv_tcp_nodelay(&c->tcp, 1);
    c->heard_s = conn_now_s(c);
    c->until_s = c->heard_s + HEAD_SECONDS;
    if (g->limited_n >= g->conns_max) {
        if (g->conns_n > g->conns_max + GATEWAY_OVER_LIMIT)
            conn_abort(c);
        else
            http_over_limit(c);
        return true;
    }
    c->limited = true;
    metric_set(&gateway_connections, ++g->limited_n);
    conn_resume(c);
    return true;
}
