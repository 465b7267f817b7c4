/*
 * gateway - HTTP and WebSocket on top of role/chat/desk.h: its beginning, its listener, its end.
 *
 *   client --conn.c--> http.c, ws.c --> protocol.c --> desk --> [incoming]
 *   client <---------------------------------------- desk <-- [gateway:<instance>]
 *
 * Threads: the loop's.
 */
#include "role/gateway/gateway_impl.h"

#include "base/log.h"
#include "base/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define LISTEN_BACKLOG 4096
#define FILES_RESERVED 200 /* open files that are not clients' */
#define SWEEP_MS 1000
#define DRAIN_LOOK_MS 20

struct metric gateway_connections = METRIC(METRIC_GAUGE, "troupe_gateway_connections", NULL, "Clients' connections.");

void gateway_conn_gone(struct gateway *g, struct conn *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        g->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    g->conns_n--;
    if (c->limited)
        metric_set(&gateway_connections, --g->limited_n);
}

static void on_drain_look(void *ctx);

/* Once a second: who has had time enough, who is to be pinged. */
static void on_sweep(void *ctx)
{
    struct gateway *g = ctx;
    const uint32_t now_s = (uint32_t)(loop_now_ms(g->env->loop) / 1000);

    upload_sweep(g);
    for (struct conn *c = g->conns, *next; c != NULL; c = next) {
        next = c->next; /* nothing frees a connection while this goes on: closing ends in the loop */
        if (c->state == CONN_CLOSED)
            continue;
        if (c->until_s != 0 && now_s >= c->until_s) {
            if (c->state == CONN_READING)
                http_timeout(c);
            else
                conn_abort(c);
        } else {
            ws_sweep(c, now_s);
        }
    }
    if (g->draining)
        on_drain_look(g); /* may free the gateway */
}

/* ---- listening ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    struct gateway *g = listener->data;

    if (status != 0)
        log_event(LOG_WARN, "gateway.accept", "cause=%Q", uv_strerror(status));
    else if (!g->started)
        g->waiting = true; /* it stays in libuv's hands until it is accepted */
    else if (!conn_accept(g, listener))
        log_event(LOG_WARN, "gateway.accept", "cause=%Q", "out of memory or open files");
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_listening(struct gateway *g)
{
    if (g->listener != NULL)
        uv_close((uv_handle_t *)g->listener, on_listener_closed);
    g->listener = NULL;
}

static enum tr_rc listen_error(const char *where, int r, struct tr_err *err)
{
    if (r == UV_EADDRINUSE)
        return tr_fail(err, TR_INVALID,
                       "TROUPE_LISTEN: %s is taken by another program: stop it, or set another address:port", where);
    if (r == UV_EADDRNOTAVAIL)
        return tr_fail(err, TR_INVALID, "TROUPE_LISTEN: %s is no address of this machine", where);
    if (r == UV_EACCES)
        return tr_fail(err, TR_INVALID, "TROUPE_LISTEN: %s is not allowed to this user: take a port from 1024 on",
                       where);
    return tr_fail(err, TR_TRANSIENT, "TROUPE_LISTEN: %s: %s", where, uv_strerror(r));
}

static enum tr_rc start_listening(struct gateway *g, struct tr_err *err)
{
    struct sockaddr_storage address;
    int len = sizeof g->address, r;
    char where[ADDRESS_TEXT];
    enum tr_rc rc = address_parse(config_str(g->env->config, "TROUPE_LISTEN"), &address, err);

    if (rc != TR_OK)
        return tr_wrap(err, rc, "TROUPE_LISTEN");
    address_format(&address, where);
    g->listener = calloc(1, sizeof *g->listener);
    if (g->listener == NULL)
        return tr_fail(err, TR_NOMEM, "gateway");
    r = uv_tcp_init(loop_uv(g->env->loop), g->listener);
    if (r != 0) {
        free(g->listener);
        g->listener = NULL;
        return listen_error(where, r, err);
    }
    g->listener->data = g;
    r = uv_tcp_bind(g->listener, (const struct sockaddr *)&address, 0);
    if (r == 0)
        r = uv_listen((uv_stream_t *)g->listener, LISTEN_BACKLOG, on_connection);
    if (r == 0)
        r = uv_tcp_getsockname(g->listener, (struct sockaddr *)&g->address, &len);
    return r == 0 ? TR_OK : listen_error(where, r, err);
}

/* ---- the beginning ---- */

static void on_desk_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct gateway *g = ctx;
    char where[ADDRESS_TEXT];

    if (rc == TR_OK) {
        g->started = true;
        address_format(&g->address, where);
        log_event(LOG_INFO, "gateway.listening", "address=%s connections_max=%zu", where, g->conns_max);
        if (g->waiting && g->listener != NULL)
            on_connection((uv_stream_t *)g->listener, 0);
    }
    g->started_cb(g->started_ctx, rc, err);
}

static enum tr_rc read_config(struct gateway *g, struct tr_err *err)
{
    const struct config *config = g->env->config;
    uint64_t conns = 0, kib = 0, idle = 0, media_mib = 0;
    struct rlimit files;
    enum tr_rc rc;

    rc = config_u64(config, "TROUPE_CONNECTIONS_MAX", &conns, err);
    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_SEND_BUFFER_KIB", &kib, err);
    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_IDLE_SECONDS", &idle, err);
    if (rc == TR_OK)
        rc = config_u64(config, "TROUPE_MEDIA_MAX_MIB", &media_mib, err);
    if (rc != TR_OK)
        return rc;
    g->media_max = media_mib << 20;
    g->conns_max = conns;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY &&
        files.rlim_cur > 2 * FILES_RESERVED && g->conns_max > files.rlim_cur - FILES_RESERVED)
        g->conns_max = files.rlim_cur - FILES_RESERVED;
    g->send_max = kib * 1024;
    g->idle_s = (uint32_t)idle;
    return TR_OK;
}

static enum tr_rc read_origins(struct gateway *g, struct tr_err *err)
{
    const char *text = config_str(g->env->config, "TROUPE_ORIGINS");
    enum tr_rc rc = origins_parse(text, address_port(&g->address), &g->address, &g->origins, err);

    return rc == TR_OK ? rc : tr_wrap(err, rc, "TROUPE_ORIGINS");
}

enum tr_rc gateway_start(const struct role_env *env, gateway_started *started, void *ctx, struct gateway **ret_gateway,
                         struct tr_err *err)
{
    struct gateway *g = calloc(1, sizeof *g);
    enum tr_rc rc;

    if (g == NULL)
        return tr_fail(err, TR_NOMEM, "gateway");
    g->env = env;
    g->started_cb = started;
    g->started_ctx = ctx;
    g->protocol = (struct protocol){
        .send = ws_send, .delta = slow_delta, .settled = slow_settled, .quiet = ws_quiet, .headroom = FRAME_HEAD_MAX};
    g->read_buffer = malloc(GATEWAY_READ_SIZE);
    rc = g->read_buffer == NULL ? tr_fail(err, TR_NOMEM, "gateway") : read_config(g, err);
    if (rc == TR_OK)
        rc = start_listening(g, err);
    if (rc == TR_OK)
        rc = read_origins(g, err);
    if (rc == TR_OK)
        rc = timer_start(env->loop, SWEEP_MS, SWEEP_MS, on_sweep, g, &g->sweep);
    if (rc == TR_OK)
        rc = desk_start(env, &protocol_events, on_desk_started, g, &g->desk, err);
    if (rc == TR_OK) {
        g->protocol.desk = g->desk;
        *ret_gateway = g;
        g = NULL;
    }
    gateway_free(g);
    return rc;
}

uint16_t gateway_port(const struct gateway *g)
{
    return address_port(&g->address);
}

/* ---- the end ---- */

static void abort_all(struct gateway *g)
{
    for (struct conn *c = g->conns; c != NULL; c = c->next)
        conn_abort(c);
}

/* Is it over?  Looked at now and then, so that the answer is given with nothing of ours under way. */
static void on_drain_look(void *ctx)
{
    struct gateway *g = ctx;
    void (*drained)(void *) = g->drained_cb;

    if (loop_now_ms(g->env->loop) >= g->drain_until_ms && g->conns != NULL) {
        log_event(LOG_WARN, "gateway.drain", "cause=%Q connections=%zu", "time is up", g->conns_n);
        abort_all(g);
        g->desk_drained = true;
    } else if (drained != NULL && g->desk_drained && g->conns == NULL) {
        g->drained_cb = NULL;
        drained(g->drained_ctx); /* may free the gateway */
    }
}

static void on_desk_drained(void *ctx)
{
    struct gateway *g = ctx;

    g->desk_drained = true;
}

void gateway_drain(struct gateway *g, void (*drained)(void *ctx), void *ctx)
{
    uint64_t seconds = 20;

    if (config_u64(g->env->config, "TROUPE_DRAIN_SECONDS", &seconds, NULL) != TR_OK)
        seconds = 20;
    g->draining = true;
    g->drained_cb = drained;
    g->drained_ctx = ctx;
    g->drain_until_ms = loop_now_ms(g->env->loop) + seconds * 1000;
    stop_listening(g);
    for (struct conn *c = g->conns; c != NULL; c = c->next) {
        if (c->state == CONN_OPEN)
            ws_finish(c);
        else if (c->state == CONN_READING && c->http == NULL && c->out == NULL)
            conn_end(c); /* between two requests */
    }
    desk_drain(g->desk, on_desk_drained, g);
    if (timer_start(g->env->loop, 0, DRAIN_LOOK_MS, on_drain_look, g, &g->drain_timer) != TR_OK)
        log_event(LOG_WARN, "gateway.drain", "cause=%Q", "out of memory: looked at once a second"); /* by on_sweep() */
}

void gateway_free(struct gateway *g)
{
    if (g == NULL)
        return;
    stop_listening(g);
    timer_stop(g->sweep);
    timer_stop(g->drain_timer);
    while (g->conns != NULL) {
        struct conn *c = g->conns;

        conn_abort(c);
        conn_discard(c); /* the handle frees itself when it is closed */
    }
    loop_drain(g->env->loop); /* those of uploads and downloads that were waiting are called back now */
    desk_free(g->desk);
    origins_release(&g->origins);
    protocol_release(&g->protocol);
    buf_release(&g->cork);
    free(g->read_buffer);
    free(g);
}
