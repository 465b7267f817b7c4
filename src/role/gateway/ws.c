/*
 * ws - a WebSocket: handshake, frames in, messages out, its end.
 * Comes from http_routes.c (/ws), goes to protocol.c and back.
 */
#include "role/gateway/gateway_impl.h"

#include "base/metrics.h"
#include "role/gateway/session.h"

#include <stdlib.h>
#include <string.h>

#define RESTARTS "server restarts: reconnect and resume"

struct metric gateway_slow = METRIC(METRIC_COUNTER, "troupe_gateway_slow_closed_total", NULL,
                                    "WebSockets closed because their client read too slowly.");

/* ---- out ---- */

static bool send_control(struct conn *c, enum frame_opcode opcode, const void *data, size_t len)
{
    uint8_t frame[2 + FRAME_CONTROL_MAX];
    const size_t head = frame_head(frame, opcode, len);

    if (len > 0)
        memcpy(frame + head, data, len);
    return conn_write(c, frame, head + len);
}

static void send_close(struct conn *c, unsigned code, const char *reason)
{
    uint8_t data[FRAME_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = strlen(reason);

    if (len > sizeof data - 2)
        len = sizeof data - 2;
    memcpy(data + 2, reason, len);
    send_control(c, FRAME_CLOSE, data, code == FRAME_STATUS_NONE ? 0 : 2 + len);
}

void ws_close(struct conn *c, unsigned code, const char *reason)
{
    if (c->state != CONN_OPEN)
        return;
    if (code == FRAME_STATUS_TRY_LATER) {
        metric_add(&gateway_slow, 1);
        conn_drop_waiting(c); /* it would not be read */
    }
    send_close(c, code, reason);
    if (c->state == CONN_OPEN) {
        c->state = CONN_CLOSING;
        c->until_s = conn_now_s(c) + CLOSING_SECONDS;
    }
}

void ws_send(struct peer *peer, struct buf *text)
{
    struct conn *c = conn_of(peer);
    uint8_t head[FRAME_HEAD_MAX];
    size_t n;

    if (c->state != CONN_OPEN)
        return;
    if (text->failed) {
        ws_close(c, FRAME_STATUS_INTERNAL, "out of memory: reconnect and resume");
        return;
    }
    if (conn_overfull(c)) {
        ws_close(c, FRAME_STATUS_TRY_LATER, "reads too slowly: reconnect and resume");
        return;
    }
    n = frame_head(head, FRAME_TEXT, text->len - FRAME_HEAD_MAX);
    memcpy(text->data + FRAME_HEAD_MAX - n, head, n);
    conn_write(c, text->data + FRAME_HEAD_MAX - n, text->len - FRAME_HEAD_MAX + n);
}

void ws_quiet(struct peer *peer)
{
    if (conn_of(peer)->finishing)
        ws_close(conn_of(peer), FRAME_STATUS_RESTART, RESTARTS);
}

void ws_finish(struct conn *c)
{
    c->finishing = true;
    if (c->peer.under_way == 0)
        ws_close(c, FRAME_STATUS_RESTART, RESTARTS);
}

/* ---- in ---- */

/* Is there more to be read of this connection? */
static bool goes_on(const struct conn *c)
{
    return c->state == CONN_OPEN || c->state == CONN_CLOSING;
}

static bool on_text(void *ctx, const char *text, size_t len)
{
    struct conn *c = ctx;

    if (c->state == CONN_OPEN)
        protocol_message(&c->peer, text, len);
    return goes_on(c);
}

static bool on_control(void *ctx, enum frame_opcode opcode, const uint8_t *data, size_t len)
{
    struct conn *c = ctx;

    if (opcode != FRAME_PING || c->state != CONN_OPEN)
        return goes_on(c);
    if (conn_overfull(c))
        ws_close(c, FRAME_STATUS_TRY_LATER, "reads too slowly: reconnect and resume");
    else
        send_control(c, FRAME_PONG, data, len);
    return goes_on(c);
}

static void on_close_frame(void *ctx, unsigned code)
{
    struct conn *c = ctx;

    if (c->state == CONN_OPEN)
        send_close(c, code, "");
    conn_end(c);
}

static const struct frame_events frame_events = {.text = on_text, .control = on_control, .closed = on_close_frame};

/* Keep what has come of a frame or message until the next read, or forget it. */
static void keep_reader(struct conn *c, struct frame_reader *r)
{
    if (!goes_on(c) || frame_reader_idle(r)) {
        frame_reader_release(r);
        if (c->reader != NULL) {
            free(c->reader);
            c->reader = NULL;
        }
    } else if (c->reader == NULL) {
        c->reader = malloc(sizeof *c->reader);
        if (c->reader == NULL) {
            frame_reader_release(r);
            conn_abort(c);
        } else {
            *c->reader = *r;
        }
    }
}

void ws_read(struct conn *c, uint8_t *data, size_t len)
{
    struct frame_reader fresh, *r = c->reader;
    const char *reason = "";
    unsigned code;

    if (r == NULL) {
        fresh = (struct frame_reader){0};
        r = &fresh;
    }
    code = frame_read(r, data, len, &frame_events, c, &reason);
    if (code != 0) {
        if (c->state == CONN_OPEN)
            send_close(c, code, reason);
        conn_end(c);
    }
    keep_reader(c, r);
}

void ws_sweep(struct conn *c, uint32_t now_s)
{
    const uint32_t idle_s = conn_gateway(c)->idle_s, silent_s = now_s - c->heard_s;

    if (c->state != CONN_OPEN)
        return;
    if (silent_s >= idle_s) {
        ws_close(c, FRAME_STATUS_GOING_AWAY, "no sign of life");
        conn_end(c);
    } else if (silent_s >= (c->pings + 1u) * idle_s / 3 && c->pings < 2) {
        c->pings++;
        send_control(c, FRAME_PING, NULL, 0);
    }
}

/* ---- the handshake ---- */

static bool key_valid(struct slice key)
{
    if (key.len != 24 || key.data[22] != '=' || key.data[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++) {
        const uint8_t k = key.data[i];

        if (!((k >= 'A' && k <= 'Z') || (k >= 'a' && k <= 'z') || (k >= '0' && k <= '9') || k == '+' || k == '/'))
            return false;
    }
    return true;
}

/* What is wrong with the request, in the order of contract 7; false: it was answered. */
static bool acceptable(struct conn *c, const struct http_request *req)
{
    static const char how[] = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    struct gateway *g = conn_gateway(c);
    const struct slice origin = req->header[HTTP_ORIGIN];

    if (origin.data != NULL && !origins_allow(&g->origins, (const char *)origin.data, origin.len))
        http_error(c, 403, NULL, "this Origin is not allowed: see TROUPE_ORIGINS", NULL, NULL, true);
    else if (!session_user(g->env->master, req, wall_ms(), &c->peer.viewer.user))
        http_error(c, 401, NULL, "no valid token: POST /api/session gives one", NULL, "WWW-Authenticate: Bearer\r\n",
                   true);
    else if (!req->upgrade || req->method != HTTP_GET)
        http_error(c, 426, NULL, "this path speaks WebSocket alone", NULL, how, true);
    else if (!req->has_version)
        http_error(c, 426, NULL, "Sec-WebSocket-Version must be 13", "sec-websocket-version", how, true);
    else if (!key_valid(req->header[HTTP_WS_KEY]))
        http_error(c, 400, NULL, "must be 16 bytes in base64", "sec-websocket-key", NULL, true);
    else if (!req->has_protocol)
        http_error(c, 400, NULL, "the subprotocol troupe.v1 is missing", "sec-websocket-protocol", NULL, true);
    else if (req->content_length > 0)
        http_error(c, 400, NULL, "no body is expected", "content-length", NULL, true);
    else if (g->draining)
        http_error(c, 503, NULL, RESTARTS, NULL, "Retry-After: 1\r\n", true);
    else
        return true;
    return false;
}

void ws_upgrade(struct conn *c, const struct http_request *req)
{
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Protocol: troupe.v1\r\nSec-WebSocket-Accept: ";
    const struct slice key = req->header[HTTP_WS_KEY];
    char accept[FRAME_ACCEPT_TEXT];
    struct http_conn *h = c->http;

    if (!acceptable(c, req))
        return;
    frame_accept((const char *)key.data, key.len, accept);
    conn_write(c, head, sizeof head - 1);
    conn_write(c, accept, sizeof accept - 1);
    conn_write(c, "\r\n\r\n", 4);
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_OPEN;
    c->until_s = 0;
    c->http = NULL; /* ours now: frames may have come with the request */
    if (h->in.len > req->head_len)
        ws_read(c, h->in.data + req->head_len, h->in.len - req->head_len);
    buf_wipe(&h->in);
    free(h);
}
