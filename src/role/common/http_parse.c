/* http_parse - see http_parse.h. */
#include "role/common/http_parse.h"

#include <string.h>
#include <strings.h>

static const char *const header_names[HTTP_HEADER_COUNT] = {
    [HTTP_HOST] = "host",
    [HTTP_CONNECTION] = "connection",
    [HTTP_CONTENT_LENGTH] = "content-length",
    [HTTP_TRANSFER_ENCODING] = "transfer-encoding",
    [HTTP_EXPECT] = "expect",
    [HTTP_ORIGIN] = "origin",
    [HTTP_AUTHORIZATION] = "authorization",
    [HTTP_COOKIE] = "cookie",
    [HTTP_ACCEPT_ENCODING] = "accept-encoding",
    [HTTP_IF_NONE_MATCH] = "if-none-match",
    [HTTP_RANGE] = "range",
    [HTTP_IF_RANGE] = "if-range",
    [HTTP_UPGRADE] = "upgrade",
    [HTTP_WS_KEY] = "sec-websocket-key",
    [HTTP_WS_VERSION] = "sec-websocket-version",
    [HTTP_WS_PROTOCOL] = "sec-websocket-protocol",
};

struct parse {
    struct http_request *req;
    unsigned headers;
    bool connection_close, connection_keep, connection_upgrade, upgrade_websocket;
    const char *message;
};

static unsigned refuse(struct parse *p, unsigned status, const char *message)
{
    p->message = message;
    return status;
}

static bool is_token(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != 0 && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-decoding; -1: not well encoded, a 0 byte, or longer than size - 1. */
static int decode(const uint8_t *s, size_t len, bool plus, char *out, size_t size, size_t *ret_len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int c = s[i];

        if (c == '%') {
            if (len - i < 3 || hex(s[i + 1]) < 0 || hex(s[i + 2]) < 0)
                return -1;
            c = hex(s[i + 1]) * 16 + hex(s[i + 2]);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == 0 || n + 1 >= size)
            return -1;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    *ret_len = n;
    return 0;
}

size_t http_head_end(const uint8_t *data, size_t len, size_t from)
{
    const uint8_t *p;

    from = from > 3 ? from - 3 : 0;
    p = len > from ? memmem(data + from, len - from, "\r\n\r\n", 4) : NULL;
    return p == NULL ? 0 : (size_t)(p - data) + 4;
}

static bool slice_is(struct slice s, const char *text)
{
    return s.len == strlen(text) && strncasecmp((const char *)s.data, text, s.len) == 0;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Take the next item of a list off `rest`; false at its end. */
static bool next_item(struct slice *rest, char separator, struct slice *ret_item)
{
    const uint8_t *end;

    if (rest->len == 0)
        return false;
    end = memchr(rest->data, separator, rest->len);
    ret_item->data = rest->data;
    ret_item->len = end == NULL ? rest->len : (size_t)(end - rest->data);
    if (end == NULL) {
        rest->len = 0;
    } else {
        rest->len -= ret_item->len + 1;
        rest->data = end + 1;
    }
    *ret_item = trim(*ret_item);
    return true;
}

bool http_list_has(struct slice list, const char *token)
{
    struct slice item, name;

    while (next_item(&list, ',', &item))
        if (next_item(&item, ';', &name) && slice_is(name, token))
            return true;
    return false;
}

/* Accept-Encoding: gzip, unless with q=0. */
static bool takes_gzip(struct slice list)
{
    struct slice item, part;

    while (next_item(&list, ',', &item)) {
        bool named = next_item(&item, ';', &part) && (slice_is(part, "gzip") || slice_is(part, "x-gzip"));

        while (named && next_item(&item, ';', &part))
            if (part.len >= 3 && (part.data[0] | 0x20) == 'q' && part.data[1] == '=') {
                named = false; /* q=0, q=0.0 */
                for (size_t i = 2; i < part.len; i++)
                    named = named || (part.data[i] >= '1' && part.data[i] <= '9');
            }
        if (named)
            return true;
    }
    return false;
}

static unsigned parse_target(struct parse *p, struct slice target)
{
    const uint8_t *mark;
    size_t len;

    if (target.len > HTTP_TARGET_MAX)
        return refuse(p, 414, "the request target is over 4096 bytes");
    for (size_t i = 0; i < target.len; i++)
        if (target.data[i] <= ' ' || target.data[i] == 0x7f)
            return refuse(p, 400, "bad request target");
    if (target.len >= 7 && strncasecmp((const char *)target.data, "http://", 7) == 0) { /* as sent to a proxy */
        mark = memchr(target.data + 7, '/', target.len - 7);
        if (mark == NULL)
            return refuse(p, 400, "bad request target");
        target.len -= (size_t)(mark - target.data);
        target.data = mark;
    }
    if (slice_is(target, "*")) {
        memcpy(p->req->path, "*", 2);
        return 0;
    }
    if (target.len == 0 || target.data[0] != '/')
        return refuse(p, 400, "bad request target");
    mark = memchr(target.data, '?', target.len);
    if (mark != NULL) {
        p->req->query.data = mark + 1;
        p->req->query.len = target.len - (size_t)(mark - target.data) - 1;
        target.len = (size_t)(mark - target.data);
    }
    if (target.len > HTTP_PATH_MAX)
        memcpy(p->req->path, "/?", 3); /* a path that is none of ours */
    else if (decode(target.data, target.len, false, p->req->path, sizeof p->req->path, &len) != 0)
        return refuse(p, 400, "the path is not well percent-encoded");
    return 0;
}

static unsigned parse_request_line(struct parse *p, struct slice line)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {{"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"POST", HTTP_POST}, {"DELETE", HTTP_DELETE}};
    const uint8_t *first = memchr(line.data, ' ', line.len);
    const uint8_t *last = memrchr(line.data, ' ', line.len);
    size_t method_len;
    struct slice target, version;

    if (first == NULL || first == last || first == line.data)
        return refuse(p, 400, "malformed request line");
    method_len = (size_t)(first - line.data);
    target = (struct slice){first + 1, (size_t)(last - first) - 1};
    version = (struct slice){last + 1, line.len - (size_t)(last - line.data) - 1};
    for (size_t i = 0; i < method_len; i++)
        if (!is_token(line.data[i]))
            return refuse(p, 400, "malformed request line");
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.' || version.data[5] < '0' ||
        version.data[5] > '9' || version.data[7] < '0' || version.data[7] > '9')
        return refuse(p, 400, "malformed request line");
    if (version.data[5] != '1')
        return refuse(p, 505, "HTTP/1.1 is what is spoken here");
    p->req->minor = version.data[7] == '0' ? 0 : 1;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strlen(methods[i].name) == method_len && memcmp(methods[i].name, line.data, method_len) == 0)
            p->req->method = methods[i].method;
    return parse_target(p, target);
}

static unsigned take_content_length(struct parse *p, struct slice value)
{
    uint64_t n = 0;

    if (value.len == 0 || value.len > 18)
        return refuse(p, 400, "bad Content-Length");
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return refuse(p, 400, "bad Content-Length");
        n = n * 10 + (uint64_t)(value.data[i] - '0');
    }
    p->req->content_length = n;
    return 0;
}

/* What a known header says; lists may come on several lines. */
static unsigned take_header(struct parse *p, enum http_header h, struct slice value)
{
    const bool again = p->req->header[h].data != NULL;

    if (again && (h == HTTP_HOST || h == HTTP_CONTENT_LENGTH || h == HTTP_ORIGIN || h == HTTP_AUTHORIZATION ||
                  h == HTTP_WS_KEY || h == HTTP_RANGE))
        return refuse(p, 400, "a header that may stand once stands twice");
    if (!again)
        p->req->header[h] = value;
    switch (h) {
    case HTTP_CONTENT_LENGTH:
        return take_content_length(p, value);
    case HTTP_CONNECTION:
        p->connection_close = p->connection_close || http_list_has(value, "close");
        p->connection_keep = p->connection_keep || http_list_has(value, "keep-alive");
        p->connection_upgrade = p->connection_upgrade || http_list_has(value, "upgrade");
        break;
    case HTTP_UPGRADE:
        p->upgrade_websocket = p->upgrade_websocket || http_list_has(value, "websocket");
        break;
    case HTTP_ACCEPT_ENCODING:
        p->req->deflate_gzip = p->req->deflate_gzip || takes_gzip(value);
        break;
    case HTTP_WS_VERSION:
        p->req->has_version = p->req->has_version || http_list_has(value, "13");
        break;
    case HTTP_WS_PROTOCOL:
        p->req->has_protocol = p->req->has_protocol || http_list_has(value, "troupe.v1");
        break;
    default:
        break;
    }
    return 0;
}

static unsigned parse_header(struct parse *p, struct slice line)
{
    const uint8_t *colon = memchr(line.data, ':', line.len);
    struct slice name, value;

    if (++p->headers > HTTP_HEADERS_MAX)
        return refuse(p, 431, "more than 100 headers");
    if (colon == NULL || colon == line.data)
        return refuse(p, 400, "malformed header");
    name = (struct slice){line.data, (size_t)(colon - line.data)};
    value = trim((struct slice){colon + 1, line.len - name.len - 1});
    for (size_t i = 0; i < name.len; i++)
        if (!is_token(name.data[i]))
            return refuse(p, 400, "malformed header");
    for (size_t i = 0; i < value.len; i++)
        if ((value.data[i] < ' ' && value.data[i] != '\t') || value.data[i] == 0x7f)
            return refuse(p, 400, "malformed header");
    for (int h = 0; h < HTTP_HEADER_COUNT; h++)
        if (slice_is(name, header_names[h]))
            return take_header(p, (enum http_header)h, value);
    return 0;
}

static unsigned finish(struct parse *p)
{
    struct http_request *req = p->req;

    if (req->header[HTTP_TRANSFER_ENCODING].data != NULL)
        return req->header[HTTP_CONTENT_LENGTH].data != NULL
                   ? refuse(p, 400, "Transfer-Encoding and Content-Length exclude each other")
                   : refuse(p, 411, "a body needs a Content-Length");
    if (req->minor >= 1 && req->header[HTTP_HOST].data == NULL)
        return refuse(p, 400, "no Host header");
    req->keep_alive = !p->connection_close && (req->minor >= 1 || p->connection_keep);
    req->upgrade = p->connection_upgrade && p->upgrade_websocket && req->minor >= 1;
    return 0;
}

unsigned http_parse(const uint8_t *data, size_t len, struct http_request *ret_request, const char **ret_message)
{
    struct http_request req = {.head_len = len};
    struct parse p = {.req = &req};
    unsigned status = 0;
    size_t at = 0;

    while (status == 0 && at + 2 < len) { /* up to the empty line */
        const uint8_t *end = memmem(data + at, len - at, "\r\n", 2);
        struct slice line = {data + at, end == NULL ? len - at : (size_t)(end - data) - at};

        if (end == NULL)
            status = refuse(&p, 400, "malformed header");
        else if (at == 0)
            status = parse_request_line(&p, line);
        else
            status = parse_header(&p, line);
        at += line.len + 2;
    }
    if (status == 0)
        status = at == 0 ? refuse(&p, 400, "malformed request line") : finish(&p);
    if (status == 0)
        *ret_request = req;
    else
        *ret_message = p.message;
    return status;
}

int http_query(struct slice query, const char *name, char *out, size_t size, size_t *ret_len)
{
    struct slice pair, key;
    char decoded[64];
    size_t n;
    int found = 0;

    while (query.len > 0) {
        const uint8_t *end = memchr(query.data, '&', query.len);
        const uint8_t *eq;

        pair = (struct slice){query.data, end == NULL ? query.len : (size_t)(end - query.data)};
        query.data += end == NULL ? query.len : pair.len + 1;
        query.len -= end == NULL ? query.len : pair.len + 1;
        eq = pair.len == 0 ? NULL : memchr(pair.data, '=', pair.len);
        key = (struct slice){pair.data, eq == NULL ? pair.len : (size_t)(eq - pair.data)};
        if (decode(key.data, key.len, true, decoded, sizeof decoded, &n) != 0 || strcmp(decoded, name) != 0)
            continue;
        if (found != 0)
            return -1;
        found = 1;
        if (eq == NULL) {
            out[0] = '\0';
            *ret_len = 0;
        } else if (decode(eq + 1, pair.len - key.len - 1, true, out, size, ret_len) != 0) {
            return -1;
        }
    }
    return found;
}

bool http_cookie(struct slice header, const char *name, size_t *at, struct slice *ret_value)
{
    const size_t name_len = strlen(name);
    struct slice rest, pair;

    if (header.data == NULL || *at >= header.len)
        return false;
    rest = (struct slice){header.data + *at, header.len - *at};
    while (next_item(&rest, ';', &pair)) {
        if (pair.len <= name_len || memcmp(pair.data, name, name_len) != 0 || pair.data[name_len] != '=')
            continue;
        *ret_value = (struct slice){pair.data + name_len + 1, pair.len - name_len - 1};
        if (ret_value->len >= 2 && ret_value->data[0] == '"' && ret_value->data[ret_value->len - 1] == '"') {
            ret_value->data++;
            ret_value->len -= 2;
        }
        *at = header.len - rest.len;
        return true;
    }
    return false;
}

bool http_etag_matches(struct slice header, const char *etag)
{
    struct slice item;

    while (next_item(&header, ',', &item)) {
        if (slice_is(item, "*"))
            return true;
        if (item.len > 2 && item.data[0] == 'W' && item.data[1] == '/') {
            item.data += 2;
            item.len -= 2;
        }
        if (item.len == strlen(etag) && memcmp(item.data, etag, item.len) == 0)
            return true;
    }
    return false;
}

/* Digits alone; false: none, others, or too many. */
static bool read_number(struct slice s, uint64_t *ret_n)
{
    uint64_t n = 0;

    if (s.len == 0 || s.len > 18)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s.data[i] - '0');
    }
    *ret_n = n;
    return true;
}

enum http_ranged http_range(struct slice header, uint64_t size, uint64_t *ret_from, uint64_t *ret_to)
{
    static const char unit[] = "bytes=";
    const size_t unit_len = sizeof unit - 1;
    struct slice first, last;
    const uint8_t *dash;
    uint64_t from = 0, to = 0;

    if (header.data == NULL || header.len <= unit_len || strncasecmp((const char *)header.data, unit, unit_len) != 0)
        return HTTP_WHOLE;
    header = trim((struct slice){header.data + unit_len, header.len - unit_len});
    dash = header.len == 0 ? NULL : memchr(header.data, '-', header.len);
    if (dash == NULL)
        return HTTP_WHOLE;
    first = trim((struct slice){header.data, (size_t)(dash - header.data)});
    last = trim((struct slice){dash + 1, header.len - (size_t)(dash - header.data) - 1});
    if (first.len == 0) { /* so many at the end */
        if (!read_number(last, &to))
            return HTTP_WHOLE;
        if (to == 0 || size == 0)
            return HTTP_UNSATISFIABLE;
        *ret_from = to >= size ? 0 : size - to;
        *ret_to = size;
        return HTTP_PART;
    }
    if (!read_number(first, &from) || (last.len > 0 && (!read_number(last, &to) || to < from)))
        return HTTP_WHOLE;
    if (from >= size)
        return HTTP_UNSATISFIABLE;
    *ret_from = from;
    *ret_to = last.len == 0 || to >= size - 1 ? size : to + 1;
    return HTTP_PART;
}
