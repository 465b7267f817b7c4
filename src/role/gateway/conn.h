/*
 * conn - one client's connection: bytes in, bytes out, its end.  What they mean is http.c's and ws.c's.
 *
 *   READING    -> BUSY        http_read       a request is at the desk
 *   BUSY       -> READING     http_reply      answered; the next one is read
 *   READING    -> OPEN        ws_upgrade      a WebSocket from now on
 *   OPEN       -> CLOSING     ws_close        our close frame is out, the peer's is waited for
 *   any        -> ENDING      conn_end        what waits is written, then our side is closed, the rest read away
 *   any        -> CLOSED      conn_abort      the handle is being closed; freed by on_closed
 */
#ifndef GATEWAY_CONN_H
#define GATEWAY_CONN_H

#include "role/gateway/frame.h"
#include "role/gateway/protocol.h"

#include <uv.h>

struct gateway;
struct http_conn;
struct out_queue;

enum conn_state { CONN_READING, CONN_BUSY, CONN_OPEN, CONN_CLOSING, CONN_ENDING, CONN_CLOSED };

/* There are ten thousand of these: what is needed only while something is under way hangs on a pointer. */
struct conn {
    uv_tcp_t tcp; /* tcp.data: the gateway */
    struct peer peer;
    struct conn *next, *prev;
    struct http_conn *http;      /* owned: a request being read or answered */
    struct frame_reader *reader; /* owned: a WebSocket message that has come in part */
    struct out_queue *out;       /* owned: what the socket has not taken yet */
    uint32_t heard_s;            /* when something came last */
    uint32_t until_s;            /* when to give it up; 0: no such time */
    uint8_t state;
    uint8_t pings;  /* sent since heard_s */
    bool limited;   /* counted against the connections allowed */
    bool finishing; /* to be ended when its requests are answered */
};

/* Accept a connection; false: there was none, or no memory. */
bool conn_accept(struct gateway *g, uv_stream_t *listener);
static inline struct gateway *conn_gateway(const struct conn *c)
{
    return c->tcp.data;
}
uint32_t conn_now_s(const struct conn *c);

/* Write, now or when the socket takes it.  Copied.  False: the connection is at its end. */
bool conn_write(struct conn *c, const void *data, size_t len);
/*
 * Does more wait than may?  The greatest piece isn't counted: a long answer must get through to a client that reads.
 */
bool conn_overfull(const struct conn *c);
/* Forget what waits and has not begun to be written. */
void conn_drop_waiting(struct conn *c);

/* Write what waits, then end the connection in good order; nothing is read any more. */
void conn_end(struct conn *c);
/* End it at once. */
void conn_abort(struct conn *c);
/* What it holds of the desk and of memory, in the gateway's own end; the handle is closed. */
void conn_discard(struct conn *c);

/* Stop and go on reading from the socket. */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c);

/* ---- deltas kept back for a slow reader (slow.c) ---- */

struct kept_delta;
/* May the delta go out now?  False: it was joined with what is kept back. */
bool slow_delta(struct peer *peer, const struct peer_delta *delta);
/* Forget what is kept back of a turn's variant (-1: of any). */
void slow_settled(struct peer *peer, const struct uuid *turn, int32_t variant);
/* The socket takes more: send what is kept back, if there is room. */
void slow_drained(struct conn *c);
void slow_release(struct out_queue *q);

struct out_item;
struct out_queue {
    uv_write_t req;
    struct out_item *flight;       /* being written */
    struct out_item *first, *last; /* behind it */
    size_t bytes;                  /* of all three, and of what is kept */
    struct kept_delta *kept;
    size_t kept_bytes;
    size_t greatest; /* piece since it was empty */
    bool ending;     /* conn_end() once it is empty */
};

#endif
