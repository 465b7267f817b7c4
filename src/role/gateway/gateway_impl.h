/* gateway_impl - what the gateway's own files share. */
#ifndef GATEWAY_IMPL_H
#define GATEWAY_IMPL_H

#include "port/media.h"
#include "role/common/address.h"
#include "role/common/http_parse.h"
#include "role/gateway/conn.h"
#include "role/gateway/gateway.h"

#include <time.h>

#define GATEWAY_READ_SIZE (64 * 1024)
#define GATEWAY_OVER_LIMIT 64 /* connections past the allowed ones that are told so; the rest is closed */

#define HEAD_SECONDS 10       /* for a request's head and body */
#define KEEP_ALIVE_SECONDS 60 /* between two requests */
#define REPLY_SECONDS 120     /* for a client to take a reply in */
#define CLOSING_SECONDS 5     /* for a peer's close frame */
#define ENDING_SECONDS 2      /* for a peer's end of the connection */

struct gateway {
    const struct role_env *env;
    struct desk *desk;
    struct protocol protocol;
    struct origins origins;
    struct sockaddr_storage address; /* with the port that was given */
    uv_tcp_t *listener;              /* owned: frees itself when closed; NULL: not listening */
    struct loop_timer *sweep;
    struct loop_timer *drain_timer;
    uint64_t drain_until_ms;

    struct conn *conns;
    size_t conns_n, limited_n, conns_max;
    size_t send_max; /* bytes that may wait for a WebSocket */
    uint32_t idle_s;

    struct conn *corked;     /* what it writes is collected in cork */
    struct conn *processing; /* its requests are being read: http_reply() leaves the next one to that loop */
    struct buf cork;
    uint8_t *read_buffer;

    struct upload *uploads; /* those whose clients are there */
    uint64_t media_max;     /* bytes */
    uint64_t swept_s;       /* when what was left of uploads was last swept; 0: never */

    time_t date_s;
    char date[40];
    bool started, waiting, draining, desk_drained; /* waiting: a connection came before `started` */
    gateway_started *started_cb;
    void *started_ctx;
    void (*drained_cb)(void *ctx);
    void *drained_ctx;
};

/* gateway.c */
void gateway_conn_gone(struct gateway *g, struct conn *c);

/* http.c, http_routes.c */
struct http_conn {
    struct buf in;
    size_t scanned;          /* no end of a head before this */
    struct http_request req; /* borrows from `in`, while BUSY */
    bool continued;          /* 100 Continue is out */
    bool close;              /* http_begin(): the connection ends with the answer */
    struct upload *upload;   /* the request's body on its way to the store; owned by upload.c */
    struct download *download;
};
void http_read(struct conn *c, const uint8_t *data, size_t len);
/* The request is answered: read the next one, which may be here already. */
void http_next(struct conn *c);
/* The answers have been taken: go on. */
void http_flushed(struct conn *c);
void http_timeout(struct conn *c);
void http_release(struct conn *c);
void http_over_limit(struct conn *c);

/* Is it for one of our paths, with a method it has?  False: it was answered. */
bool http_known(struct conn *c, const struct http_request *req);
/* Does the path take a body as it comes (then it is not waited for)? */
bool http_streams(const struct http_request *req);
/* Do it: http_known(), and its body is there. */
void http_route(struct conn *c, const struct http_request *req);

/* http_reply.c */
struct http_answer {
    unsigned status;
    const char *type; /* NULL: no body, and none announced */
    const void *body;
    size_t len;
    const char *headers; /* more lines, each with its CRLF; may be NULL */
    const char *csp;     /* NULL: nothing is allowed */
    const char *cache;   /* NULL: no-store */
    bool close;
};
void http_reply(struct conn *c, const struct http_answer *answer);
/* The head alone, of a body of a->len bytes which comes by conn_write(); then http_end().  False: the connection is gone. */
bool http_begin(struct conn *c, const struct http_answer *answer);
void http_end(struct conn *c);
void http_reply_json(struct conn *c, unsigned status, struct buf *json, const char *headers); /* releases json */
/* code NULL: the status's own. */
void http_error(struct conn *c, unsigned status, const char *code, const char *message, const char *field,
                const char *headers, bool close);
void http_desk_error(struct conn *c, const struct desk_error *error);

/* http_static.c: false: there is no such file. */
bool http_static(struct conn *c, const struct http_request *req);
bool http_static_has(const char *path);

/* upload.c: POST /api/media */
void upload_begin(struct conn *c, const struct http_request *req);
void upload_feed(struct conn *c);     /* more of the body has come */
void upload_gone(struct upload *u);   /* the connection is gone; NULL is fine */
void upload_sweep(struct gateway *g); /* now and then: what was left of uploads that a kill cut */

/* download.c: GET and HEAD /api/media/ID */
void download_begin(struct conn *c, const struct http_request *req, const struct uuid *id);
void download_drained(struct conn *c);  /* the client has taken what was written */
void download_gone(struct download *d); /* NULL is fine */

/* What a failure of the media store means to a client; logged.  `what`: for the log. */
void media_failed(struct conn *c, const char *what, const struct uuid *id, enum tr_rc rc, const struct tr_err *err);

/* ws.c */
void ws_upgrade(struct conn *c, const struct http_request *req);
void ws_read(struct conn *c, uint8_t *data, size_t len);
void ws_send(struct peer *peer, struct buf *text);
void ws_quiet(struct peer *peer);
void ws_sweep(struct conn *c, uint32_t now_s);
/* Send a close frame, and wait a little for the peer's. */
void ws_close(struct conn *c, unsigned code, const char *reason);
/* The gateway drains: close once the requests under way are answered. */
void ws_finish(struct conn *c);
static inline struct conn *conn_of(struct peer *peer)
{
    return (struct conn *)((char *)peer - offsetof(struct conn, peer));
}

extern struct metric gateway_connections, gateway_bytes_in, gateway_bytes_out, gateway_joined, gateway_slow;

#endif
