/* s3_server - see s3_server.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/adapter/s3_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct s3_peer {
    uv_tcp_t tcp; /* first */
    struct s3_peer *next;
    struct buf in;
    bool closing;
};

struct s3_write {
    uv_write_t req; /* first */
    struct buf out;
    struct s3_peer *close; /* when it is written; NULL: it stays */
};

static struct {
    uv_tcp_t tcp;
    char url[64];
    struct s3_peer *peers;
    s3_answers *answers;
    size_t n;
} server;

static void on_peer_closed(uv_handle_t *handle)
{
    struct s3_peer *p = (struct s3_peer *)handle;

    for (struct s3_peer **at = &server.peers; *at != NULL; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    buf_release(&p->in);
    free(p);
}

static void peer_close(struct s3_peer *p)
{
    if (!p->closing)
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
    p->closing = true;
}

static void on_written(uv_write_t *req, int status)
{
    struct s3_write *w = (struct s3_write *)req;

    (void)status;
    if (w->close != NULL)
        peer_close(w->close);
    buf_release(&w->out);
    free(w);
}

static void answer(struct s3_peer *p, const char *head, size_t body)
{
    struct s3_asked asked = {.body = body, .n = server.n++};
    struct s3_write *w = calloc(1, sizeof *w);
    enum s3_then then;
    uv_buf_t b;

    assert_non_null(w);
    snprintf(asked.head, sizeof asked.head, "%s", head);
    assert_int_equal(sscanf(head, "%7s %1023s", asked.method, asked.target), 2);
    then = server.answers(&asked, &w->out);
    if (then == S3_THEN_SILENT || w->out.len == 0) {
        if (then == S3_THEN_CLOSE)
            peer_close(p);
        buf_release(&w->out);
        free(w);
        return;
    }
    w->close = then == S3_THEN_CLOSE ? p : NULL;
    b = uv_buf_init((char *)w->out.data, (unsigned)w->out.len);
    assert_int_equal(uv_write(&w->req, (uv_stream_t *)&p->tcp, &b, 1, on_written), 0);
}

static void on_data(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct s3_peer *p = (struct s3_peer *)stream;
    const char *end, *length;
    size_t head, body;
    char *text;

    if (n > 0)
        buf_add(&p->in, b->base, (size_t)n);
    free(b->base);
    if (n < 0) {
        peer_close(p);
        return;
    }
    while (!p->closing && (end = strstr(buf_str(&p->in), "\r\n\r\n")) != NULL) {
        head = (size_t)(end - (const char *)p->in.data) + 4;
        text = strndup((const char *)p->in.data, head);
        assert_non_null(text);
        length = strcasestr(text, "\r\ncontent-length:");
        body = length != NULL ? strtoul(length + 17, NULL, 10) : 0;
        if (p->in.len < head + body) {
            free(text);
            return;
        }
        memmove(p->in.data, p->in.data + head + body, p->in.len - head - body);
        p->in.len -= head + body;
        answer(p, text, body);
        free(text);
    }
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *b)
{
    (void)handle;
    *b = uv_buf_init(malloc(size), (unsigned)size);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct s3_peer *p = calloc(1, sizeof *p);

    assert_int_equal(status, 0);
    assert_non_null(p);
    uv_tcp_init(listener->loop, &p->tcp);
    p->next = server.peers;
    server.peers = p;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
    uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_data);
}

const char *s3_server_start(struct loop *loop, s3_answers *answers)
{
    struct sockaddr_in a;
    int len = sizeof a;

    server.answers = answers;
    server.n = 0;
    uv_tcp_init(loop_uv(loop), &server.tcp);
    uv_ip4_addr("127.0.0.1", 0, &a);
    assert_int_equal(uv_tcp_bind(&server.tcp, (const struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server.tcp, 64, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&server.tcp, (struct sockaddr *)&a, &len), 0);
    snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    return server.url;
}

size_t s3_server_stop(void)
{
    uv_close((uv_handle_t *)&server.tcp, NULL);
    for (struct s3_peer *p = server.peers; p != NULL; p = p->next)
        peer_close(p);
    return server.n;
}

void s3_say(struct buf *out, const char *status, const char *headers, const char *body)
{
    buf_printf(out, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body), headers, body);
}
