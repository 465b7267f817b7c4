/*
 * monitor - see monitor.h.
 *
 *   READING -> WRITING   on_read      a whole head: answered
 *   WRITING -> ENDING    on_written   our side is closed, the peer's end is waited for
 *   any     -> closed    client_end   freed by on_client_closed
 */
#include "role/common/monitor.h"

#include "base/log.h"
#include "base/metrics.h"
#include "role/common/address.h"
#include "role/common/http_parse.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define CLIENTS_MAX 64
#define BACKLOG 64
#define HEAD_MAX 8192
#define SWEEP_MS 1000
#define SECONDS 10 /* for the whole request and its answer */

enum state { READING, WRITING, ENDING };

struct client {
    uv_tcp_t tcp; /* first */
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct monitor *m; /* NULL: being closed */
    struct client *next, *prev;
    enum state state;
    uint64_t until_ms;
    struct buf in, out;
};

struct monitor {
    const struct role_env *env;
    const char *role;
    struct watch *watch;
    bool serving, ever_served;
    uv_tcp_t *listener; /* owned: frees itself when closed; NULL: not listening */
    struct sockaddr_storage address;
    struct loop_timer *sweep;
    struct client *clients;
    size_t clients_n;
    char scratch[4096];
};

/* ---- the end of a client ---- */

static void on_client_closed(uv_handle_t *handle)
{
    struct client *c = (struct client *)handle;

    buf_release(&c->in);
    buf_release(&c->out);
    free(c);
}

static void client_end(struct client *c)
{
    struct monitor *m = c->m;

    if (m == NULL)
        return;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        m->clients = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    m->clients_n--;
    c->m = NULL;
    uv_close((uv_handle_t *)&c->tcp, on_client_closed);
}

static void on_sweep(void *ctx)
{
    struct monitor *m = ctx;
    const uint64_t now = loop_now_ms(m->env->loop);

    for (struct client *c = m->clients, *next; c != NULL; c = next) {
        next = c->next;
        if (now >= c->until_ms)
            client_end(c);
    }
}

/* ---- answers ---- */

static void add_error(struct buf *body, const char *code, const char *message, const char *field)
{
    buf_add_str(body, "{\"error\":{\"code\":");
    buf_add_json_string(body, code, strlen(code));
    buf_add_str(body, ",\"message\":");
    buf_add_json_string(body, message, strlen(message));
    if (field != NULL) {
        buf_add_str(body, ",\"field\":");
        buf_add_json_string(body, field, strlen(field));
    }
    buf_add_str(body, "}}");
}

static const char *ready(const struct monitor *m, struct buf *body)
{
    struct buf why = {0}, message = {0};
    const char *key = NULL;
    const bool reached = watch_reached(m->watch, true, &key, &why);

    if (!reached) {
        buf_printf(&message, "not reached: %s", buf_str(&why));
        add_error(body, "unavailable", buf_str(&message), key);
    } else if (!m->serving) {
        add_error(body, "unavailable",
                  m->ever_served ? "draining: this process is about to stop" : "starting: not serving yet", NULL);
    } else {
        buf_printf(body, "{\"status\":\"ready\",\"role\":\"%s\"", m->role);
        if (why.len > 0) {
            buf_add_str(body, ",\"degraded\":");
            buf_add_json_string(body, (const char *)why.data, why.len);
        }
        buf_add_str(body, "}");
    }
    buf_release(&why);
    buf_release(&message);
    return reached && m->serving ? "200 OK" : "503 Service Unavailable";
}

/* The status line's end; the body is added. */
static const char *route(const struct monitor *m, const struct http_request *req, const char **ret_type,
                         struct buf *body)
{
    *ret_type = "application/json";
    if (strcmp(req->path, "/metrics") != 0 && strcmp(req->path, "/healthz") != 0 && strcmp(req->path, "/readyz") != 0) {
        add_error(body, "not_found", "no such path: /metrics, /healthz and /readyz are served here", NULL);
        return "404 Not Found";
    }
    if (req->method != HTTP_GET && req->method != HTTP_HEAD) {
        add_error(body, "method_not_allowed", "this path has no such method", NULL);
        return "405 Method Not Allowed\r\nAllow: GET, HEAD";
    }
    if (strcmp(req->path, "/metrics") == 0) {
        *ret_type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_render(body);
        return "200 OK";
    }
    if (strcmp(req->path, "/readyz") == 0)
        return ready(m, body);
    buf_printf(body, "{\"status\":\"alive\",\"role\":\"%s\"}", m->role);
    return "200 OK";
}

static void on_shut(uv_shutdown_t *req, int status)
{
    struct client *c = req->data;

    if (status != 0)
        client_end(c);
}

static void on_written(uv_write_t *req, int status)
{
    struct client *c = req->data;

    if (c->m == NULL)
        return;
    c->state = ENDING;
    c->shutdown.data = c;
    if (status != 0 || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shut) != 0)
        client_end(c);
}

static void answer(struct client *c, const char *status, const char *type, const struct buf *body, bool head)
{
    uv_buf_t b;

    buf_printf(&c->out,
               "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
               "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
               status, type, body->len);
    if (!head)
        buf_add(&c->out, body->data, body->len);
    c->state = WRITING;
    if (c->out.failed || body->failed) {
        client_end(c);
        return;
    }
    b = uv_buf_init((char *)c->out.data, (unsigned)c->out.len);
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1, on_written) != 0)
        client_end(c);
}

/* ---- requests ---- */

static void take(struct client *c)
{
    const size_t end = http_head_end(c->in.data, c->in.len, 0);
    struct http_request req = {0};
    struct buf body = {0};
    const char *message = "the request's head is too long", *type = "application/json", *status;
    unsigned code;

    if (end == 0 && c->in.len <= HEAD_MAX)
        return; /* more is to come */
    code = end == 0 ? 431 : http_parse(c->in.data, end, &req, &message);
    if (code != 0) {
        add_error(&body, "bad_request", message, NULL);
        answer(c, code == 431 ? "431 Request Header Fields Too Large" : "400 Bad Request", type, &body, false);
    } else {
        status = route(c->m, &req, &type, &body);
        answer(c, status, type, &body, req.method == HTTP_HEAD);
    }
    buf_release(&body);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct client *c = (struct client *)handle;

    (void)suggested;
    *buf = c->m != NULL ? uv_buf_init(c->m->scratch, sizeof c->m->scratch) : uv_buf_init(NULL, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *c = (struct client *)stream;

    if (n == 0 || c->m == NULL)
        return;
    if (n < 0) {
        if (c->state == WRITING && n == UV_EOF)
            uv_read_stop(stream); /* it closed its side and may still be reading */
        else
            client_end(c);
        return;
    }
    if (c->state != READING)
        return; /* one request a connection */
    buf_add(&c->in, buf->base, (size_t)n);
    if (c->in.failed)
        client_end(c);
    else
        take(c);
}

/* ---- the listener ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    struct monitor *m = listener->data;
    struct client *c = status == 0 ? calloc(1, sizeof *c) : NULL;

    if (c == NULL)
        return;
    if (uv_tcp_init(loop_uv(m->env->loop), &c->tcp) != 0) {
        free(c);
        return;
    }
    c->m = m;
    c->next = m->clients;
    if (c->next != NULL)
        c->next->prev = c;
    m->clients = c;
    m->clients_n++;
    c->until_ms = loop_now_ms(m->env->loop) + SECONDS * 1000;
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0 || m->clients_n > CLIENTS_MAX ||
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0)
        client_end(c);
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle);
}

static enum tr_rc start_listening(struct monitor *m, const char *text, struct tr_err *err)
{
    struct sockaddr_storage address;
    char where[ADDRESS_TEXT];
    int len = sizeof m->address, r;
    enum tr_rc rc = address_parse(text, &address, err);

    if (rc != TR_OK)
        return tr_wrap(err, rc, "TROUPE_METRICS_LISTEN");
    address_format(&address, where);
    m->listener = calloc(1, sizeof *m->listener);
    if (m->listener == NULL)
        return tr_fail(err, TR_NOMEM, "monitor");
    r = uv_tcp_init(loop_uv(m->env->loop), m->listener);
    if (r != 0) {
        free(m->listener);
        m->listener = NULL;
        return tr_fail(err, TR_TRANSIENT, "TROUPE_METRICS_LISTEN: %s: %s", where, uv_strerror(r));
    }
    m->listener->data = m;
    r = uv_tcp_bind(m->listener, (const struct sockaddr *)&address, 0);
    if (r == 0)
        r = uv_listen((uv_stream_t *)m->listener, BACKLOG, on_connection);
    if (r == 0)
        r = uv_tcp_getsockname(m->listener, (struct sockaddr *)&m->address, &len);
    if (r == 0)
        return TR_OK;
    return tr_fail(err, TR_INVALID,
                   "TROUPE_METRICS_LISTEN: %s: %s: stop what listens there, or set another address:port", where,
                   uv_strerror(r));
}

enum tr_rc monitor_start(const struct role_env *env, const char *role, struct monitor **ret_monitor, struct tr_err *err)
{
    const char *const listen = config_str(env->config, "TROUPE_METRICS_LISTEN");
    const bool notifier = strcmp(role, "notifier") == 0 || strcmp(role, "up") == 0;
    struct monitor *m = calloc(1, sizeof *m);
    char where[ADDRESS_TEXT];
    enum tr_rc rc;

    if (m == NULL)
        return tr_fail(err, TR_NOMEM, "monitor");
    m->env = env;
    m->role = role;
    rc = watch_start(env, notifier, &m->watch, err);
    if (rc == TR_OK && timer_start(env->loop, SWEEP_MS, SWEEP_MS, on_sweep, m, &m->sweep) != TR_OK)
        rc = tr_fail(err, TR_NOMEM, "monitor");
    if (rc == TR_OK && *listen != '\0')
        rc = start_listening(m, listen, err);
    if (rc == TR_OK) {
        if (m->listener != NULL) {
            address_format(&m->address, where);
            log_event(LOG_INFO, "monitor.listening", "role=%s address=%s", role, where);
        }
        *ret_monitor = m;
        m = NULL;
    }
    monitor_free(m);
    return rc;
}

void monitor_serving(struct monitor *m, bool serving)
{
    if (m == NULL)
        return;
    m->serving = serving;
    m->ever_served = m->ever_served || serving;
}

const struct watch *monitor_watch(const struct monitor *m)
{
    return m->watch;
}

uint16_t monitor_port(const struct monitor *m)
{
    return m->listener != NULL ? address_port(&m->address) : 0;
}

void monitor_free(struct monitor *m)
{
    if (m == NULL)
        return;
    while (m->clients != NULL)
        client_end(m->clients);
    if (m->listener != NULL)
        uv_close((uv_handle_t *)m->listener, on_listener_closed);
    timer_stop(m->sweep);
    watch_free(m->watch);
    free(m);
}
