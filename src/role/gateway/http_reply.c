/* http_reply - answers: their head, errors as JSON, what every answer carries. */
#include "role/gateway/gateway_impl.h"

#include "base/metrics.h"
#include "role/gateway/json_out.h"

#include <stdio.h>
#include <string.h>

#define BODY_COPIED (16 * 1024) /* a body up to this goes out in one piece with its head */

static struct metric requests[] = {
    METRIC(METRIC_COUNTER, "troupe_http_requests_total", "status=\"1xx\"", "HTTP requests answered."),
    METRIC(METRIC_COUNTER, "troupe_http_requests_total", "status=\"2xx\"", "HTTP requests answered."),
    METRIC(METRIC_COUNTER, "troupe_http_requests_total", "status=\"3xx\"", "HTTP requests answered."),
    METRIC(METRIC_COUNTER, "troupe_http_requests_total", "status=\"4xx\"", "HTTP requests answered."),
    METRIC(METRIC_COUNTER, "troupe_http_requests_total", "status=\"5xx\"", "HTTP requests answered."),
};

static const struct status {
    unsigned status;
    const char *reason, *code;
} statuses[] = {
    {200, "OK", ""},
    {204, "No Content", ""},
    {206, "Partial Content", ""},
    {304, "Not Modified", ""},
    {400, "Bad Request", "bad_request"},
    {401, "Unauthorized", "unauthorized"},
    {403, "Forbidden", "forbidden"},
    {404, "Not Found", "not_found"},
    {405, "Method Not Allowed", "method_not_allowed"},
    {408, "Request Timeout", "timeout"},
    {409, "Conflict", "conflict"},
    {411, "Length Required", "bad_request"},
    {413, "Content Too Large", "too_large"},
    {414, "URI Too Long", "too_large"},
    {415, "Unsupported Media Type", "bad_request"},
    {416, "Range Not Satisfiable", "bad_request"},
    {426, "Upgrade Required", "bad_request"},
    {429, "Too Many Requests", "rate_limited"},
    {431, "Request Header Fields Too Large", "too_large"},
    {503, "Service Unavailable", "overloaded"},
    {502, "Bad Gateway", "engine_failed"},
    {505, "HTTP Version Not Supported", "bad_request"},
    {500, "Internal Server Error", "internal"}, /* last: for whatever is not in this table */
};

static const struct status *find_status(unsigned status)
{
    size_t i = 0;

    while (i < sizeof statuses / sizeof statuses[0] - 1 && statuses[i].status != status)
        i++;
    return &statuses[i];
}

/* The Date header's text, made anew once a second. */
static const char *date(struct gateway *g)
{
    const time_t now = (time_t)(wall_ms() / 1000);
    struct tm tm;

    if (now != g->date_s && gmtime_r(&now, &tm) != NULL) {
        g->date_s = now;
        strftime(g->date, sizeof g->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return g->date;
}

/* The answer's head; false: it doesn't keep the connection. */
static bool add_head(struct conn *c, const struct http_answer *a, struct buf *out)
{
    const struct status *s = find_status(a->status);
    const struct http_request *req = c->http == NULL ? NULL : &c->http->req;
    const bool close = a->close || conn_gateway(c)->draining || req == NULL || !req->keep_alive;

    metric_add(&requests[s->status / 100 - 1], 1);
    buf_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", s->status, s->reason, date(conn_gateway(c)));
    if (a->type != NULL)
        buf_printf(out, "Content-Type: %s\r\n", a->type);
    if (a->status != 204 && a->status != 304)
        buf_printf(out, "Content-Length: %zu\r\n", a->len);
    buf_printf(out, "Cache-Control: %s\r\nContent-Security-Policy: %s\r\n", a->cache == NULL ? "no-store" : a->cache,
               a->csp == NULL ? "default-src 'none'; frame-ancestors 'none'" : a->csp);
    buf_add_str(out, "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
    if (a->headers != NULL)
        buf_add_str(out, a->headers);
    if (close)
        buf_add_str(out, "Connection: close\r\n");
    else if (req->minor == 0)
        buf_add_str(out, "Connection: keep-alive\r\n");
    buf_add_str(out, "\r\n");
    return !close;
}

void http_reply(struct conn *c, const struct http_answer *a)
{
    const struct http_request *req = c->http == NULL ? NULL : &c->http->req;
    const bool head = req != NULL && req->method == HTTP_HEAD;
    struct buf out = {0};
    bool keep;

    if (c->state != CONN_READING && c->state != CONN_BUSY)
        return; /* gone meanwhile */
    keep = add_head(c, a, &out);
    if (!head && a->len <= BODY_COPIED)
        buf_add(&out, a->body, a->len);
    if (out.failed)
        conn_abort(c);
    else if (conn_write(c, out.data, out.len) && !head && a->len > BODY_COPIED)
        conn_write(c, a->body, a->len);
    buf_release(&out);
    if (c->state == CONN_CLOSED)
        return;
    if (keep)
        http_next(c);
    else
        conn_end(c);
}

bool http_begin(struct conn *c, const struct http_answer *a)
{
    struct buf out = {0};

    if (c->state != CONN_BUSY)
        return false;
    c->http->close = !add_head(c, a, &out);
    if (out.failed)
        conn_abort(c);
    else
        conn_write(c, out.data, out.len);
    buf_release(&out);
    return c->state == CONN_BUSY;
}

void http_end(struct conn *c)
{
    if (c->http->close)
        conn_end(c);
    else
        http_next(c);
}

void http_reply_json(struct conn *c, unsigned status, struct buf *json, const char *headers)
{
    struct http_answer a = {.status = status, .type = "application/json", .headers = headers};

    if (json->failed) {
        conn_abort(c);
    } else {
        a.body = json->data;
        a.len = json->len;
        http_reply(c, &a);
    }
    buf_wipe(json);
}

void http_error(struct conn *c, unsigned status, const char *code, const char *message, const char *field,
                const char *headers, bool close)
{
    struct http_answer a = {.status = status, .type = "application/json", .headers = headers, .close = close};
    struct buf json = {0};

    json_error(&json, code == NULL ? find_status(status)->code : code, message, field);
    a.body = json.data;
    a.len = json.len;
    if (json.failed)
        conn_abort(c);
    else
        http_reply(c, &a);
    buf_release(&json);
}

void http_desk_error(struct conn *c, const struct desk_error *error)
{
    static const struct {
        const char *code;
        unsigned status;
    } codes[] = {{"bad_request", 400}, {"not_found", 404},  {"too_large", 413},     {"rate_limited", 429},
                 {"conflict", 409},    {"overloaded", 503}, {"engine_failed", 502}, {"unauthorized", 401}};
    uint64_t seconds = error->retry_after_ms / 1000 + (error->retry_after_ms % 1000 != 0);
    unsigned status = 500;
    char headers[64] = "";

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].code, error->code) == 0)
            status = codes[i].status;
    if (status == 429 || status == 503)
        snprintf(headers, sizeof headers, "Retry-After: %llu\r\n", (unsigned long long)(seconds == 0 ? 1 : seconds));
    http_error(c, status, error->code, error->message, error->field, headers, false);
}
