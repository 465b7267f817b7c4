/* redis_server - see redis_server.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_peer {
    uv_tcp_t tcp; /* first */
    struct fake_peer *next;
    struct buf in;
};

struct fake_redis fake;
const struct answer silence = {NULL, 0, THEN_STAY};

static void on_peer_closed(uv_handle_t *handle)
{
    struct fake_peer *const p = (struct fake_peer *)handle;

    buf_release(&p->in);
    free(p);
}

static void peer_close(struct fake_peer *p)
{
    if (uv_is_closing((uv_handle_t *)&p->tcp))
        return;
    for (struct fake_peer **at = &fake.peers; *at != NULL; at = &(*at)->next) {
        if (*at == p) {
            *at = p->next;
            break;
        }
    }
    uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
}

/* Answers are short: they go into the socket at once. */
static void give(struct fake_peer *p, struct answer a)
{
    uv_buf_t out = uv_buf_init(NULL, (unsigned)a.len);

    if (a.bytes != NULL && a.len > 0) {
        out.base = malloc(a.len);
        assert_non_null(out.base);
        memcpy(out.base, a.bytes, a.len);
        (void)uv_try_write((uv_stream_t *)&p->tcp, &out, 1);
        free(out.base);
    }
    if (a.then == THEN_CLOSE)
        peer_close(p);
}

/* Take the first whole command out of the peer's bytes: its first word; 0: not whole yet. */
static size_t command_len(const struct buf *in, char word[16])
{
    size_t at = 0, n = 0, words = 1;

    while (n <= words) {
        const uint8_t *const end = at < in->len ? memchr(in->data + at, '\n', in->len - at) : NULL;
        size_t len;

        if (end == NULL)
            return 0;
        len = strtoul((const char *)in->data + at + 1, NULL, 10);
        at = (size_t)(end - in->data) + 1;
        if (n == 0) {
            words = len;
        } else {
            if (at + len + 2 > in->len)
                return 0;
            if (n == 1)
                snprintf(word, 16, "%.*s", (int)len, (const char *)in->data + at);
            at += len + 2;
        }
        n++;
    }
    return at;
}

static void serve(struct fake_peer *p, const char *word)
{
    static const char sha[] = "$40\r\n0123456789012345678901234567890123456789\r\n";
    const bool greeting = strcmp(word, "AUTH") == 0 || strcmp(word, "SCRIPT") == 0 || strcmp(word, "SELECT") == 0;

    if (greeting && fake.connections <= fake.refused_greetings) {
        give(p, fake.greeting);
        if (fake.greeting_once)
            fake.greeting = silence;
    } else if (strcmp(word, "SCRIPT") == 0) {
        give(p, (struct answer){sha, sizeof sha - 1, THEN_STAY});
    } else if (greeting) {
        give(p, (struct answer)RAW("+OK\r\n"));
    } else if (fake.connections > fake.silent) {
        give(p, fake.asked++ < fake.answers_max ? fake.answer : fake.after);
    }
}

static void on_alloc(uv_handle_t *handle, size_t want, uv_buf_t *buf)
{
    static char space[65536];

    (void)handle, (void)want;
    *buf = uv_buf_init(space, sizeof space);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct fake_peer *const p = (struct fake_peer *)stream;
    char word[16] = "";
    size_t len;

    if (n < 0) {
        peer_close(p);
        return;
    }
    buf_add(&p->in, buf->base, (size_t)n);
    while (!uv_is_closing((uv_handle_t *)stream) && (len = command_len(&p->in, word)) > 0) {
        memmove(p->in.data, p->in.data + len, p->in.len - len);
        p->in.len -= len;
        serve(p, word);
    }
}

static void on_connection(uv_stream_t *server, int status)
{
    struct fake_peer *const p = calloc(1, sizeof *p);

    assert_int_equal(status, 0);
    assert_non_null(p);
    assert_int_equal(uv_tcp_init(server->loop, &p->tcp), 0);
    assert_int_equal(uv_accept(server, (uv_stream_t *)&p->tcp), 0);
    p->next = fake.peers;
    fake.peers = p;
    fake.connections++;
    assert_int_equal(uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read), 0);
}

void fake_start(struct loop *loop)
{
    struct sockaddr_in addr;
    int len = sizeof addr;

    memset(&fake, 0, sizeof fake);
    fake.answers_max = SIZE_MAX;
    fake.after = (struct answer)RAW("*2\r\n:1\r\n$2\r\n99\r\n");
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &addr), 0);
    assert_int_equal(uv_tcp_init(loop_uv(loop), &fake.tcp), 0);
    assert_int_equal(uv_tcp_bind(&fake.tcp, (const struct sockaddr *)&addr, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&fake.tcp, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&fake.tcp, (struct sockaddr *)&addr, &len), 0);
    fake.port = ntohs(addr.sin_port);
}

void fake_stop(void)
{
    while (fake.peers != NULL)
        peer_close(fake.peers);
    uv_close((uv_handle_t *)&fake.tcp, NULL);
}
