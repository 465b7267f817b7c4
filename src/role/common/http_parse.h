/*
 * http_parse - one request's head (HTTP/1.0, 1.1) out of a run of bytes, and the small languages inside it: query,
 * cookie, lists of tokens, entity tags.  Pure: no I/O, no clock, no logging.
 * Strict where leniency lets requests be smuggled: CRLF only, no folds, one Content-Length, no Transfer-Encoding.
 */
#ifndef ROLE_COMMON_HTTP_PARSE_H
#define ROLE_COMMON_HTTP_PARSE_H

#include "base/buf.h"

#define HTTP_HEAD_MAX (16 * 1024) /* request line and headers */
#define HTTP_TARGET_MAX 4096
#define HTTP_HEADERS_MAX 100
#define HTTP_PATH_MAX 256 /* ours are all shorter: a longer one is not found */

enum http_method { HTTP_OTHER, HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_DELETE };

/* The headers that we look at; the rest is checked for its form only. */
enum http_header {
    HTTP_HOST,
    HTTP_CONNECTION,
    HTTP_CONTENT_LENGTH,
    HTTP_TRANSFER_ENCODING,
    HTTP_EXPECT,
    HTTP_ORIGIN,
    HTTP_AUTHORIZATION,
    HTTP_COOKIE,
    HTTP_ACCEPT_ENCODING,
    HTTP_IF_NONE_MATCH,
    HTTP_RANGE,
    HTTP_IF_RANGE,
    HTTP_UPGRADE,
    HTTP_WS_KEY,
    HTTP_WS_VERSION,
    HTTP_WS_PROTOCOL,
    HTTP_HEADER_COUNT
};

/* Slices are borrowed from the bytes that were read; data NULL: the header is absent. */
struct http_request {
    enum http_method method;
    char path[HTTP_PATH_MAX + 1]; /* decoded */
    struct slice query;           /* as it came, without the "?" */
    struct slice
        header[HTTP_HEADER_COUNT];  /* of several lines of one name the first; they are joined for Connection alike */
    unsigned minor;                 /* HTTP/1.<minor> */
    bool keep_alive, upgrade;       /* Connection says so; upgrade: and Upgrade names websocket */
    bool deflate_gzip;              /* Accept-Encoding takes gzip */
    bool has_version, has_protocol; /* Sec-WebSocket-Version has 13, -Protocol has troupe.v1 */
    uint64_t content_length;
    size_t head_len; /* bytes of the head: the body begins behind them */
};

/* How long the head is, up to and with its empty line; 0: it is not whole yet. */
size_t http_head_end(const uint8_t *data, size_t len, size_t from);

/* Read the whole head.  0: *ret_request is filled; else the HTTP status, and *ret_message (static) why. */
unsigned http_parse(const uint8_t *data, size_t len, struct http_request *ret_request, const char **ret_message);

/*
 * The value of `name` in a query, percent-decoded (and + as a space) into out[0..size).
 * 1: found, *ret_len bytes and a 0; 0: absent; -1: not well encoded, too long, or given twice.
 */
int http_query(struct slice query, const char *name, char *out, size_t size, size_t *ret_len);

/* The next value of the cookie `name`, from *at on (0 at first). */
bool http_cookie(struct slice header, const char *name, size_t *at, struct slice *ret_value);

/* Does a comma-separated list name this token (case ignored; parameters after ";" are not looked at)? */
bool http_list_has(struct slice list, const char *token);

/* Does If-None-Match (weak comparison) name this strong tag, quotes and all, or "*"? */
bool http_etag_matches(struct slice header, const char *etag);

/*
 * Which bytes of a thing of `size` bytes does the Range header ask for?  One range of bytes alone is heard; anything else
 * (no header, several ranges, other units, not well written) means the whole, as RFC 9110 has it.
 */
enum http_ranged { HTTP_WHOLE, HTTP_PART, HTTP_UNSATISFIABLE };
/* HTTP_PART: *ret_from to *ret_to, which is exclusive; else they are untouched. */
enum http_ranged http_range(struct slice header, uint64_t size, uint64_t *ret_from, uint64_t *ret_to);

#endif
