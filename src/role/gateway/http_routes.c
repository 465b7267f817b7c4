/* http_routes - what each path answers (contract 6).  Comes from http.c, goes to the desk. */
#include "role/gateway/gateway_impl.h"

#include "base/metrics.h"
#include "role/common/watch.h"
#include "role/gateway/json_out.h"
#include "role/gateway/session.h"

#include <stdio.h>
#include <string.h>

#define TURNS_LIMIT 50
#define TURNS_LIMIT_MAX 200

enum { ALLOW_GET = 1, ALLOW_POST = 2, ALLOW_DELETE = 4 };

/* `id`: what stands in the path's place of "*". */
struct route {
    const char *path;
    int allow;
    bool user; /* needs a valid token */
    bool body; /* takes one as it comes */
    void (*go)(struct conn *c, const struct http_request *req, const char *id);
};

static struct desk *desk(struct conn *c)
{
    return conn_gateway(c)->desk;
}

static void bad_request(struct conn *c, const char *field, const char *message)
{
    char text[160];

    snprintf(text, sizeof text, "%s: %s", field, message);
    http_error(c, 400, NULL, text, field, NULL, false);
}

static void out_of_memory(struct conn *c)
{
    http_error(c, 500, NULL, "out of memory", NULL, NULL, true);
}

/* A desk's callback on a connection that waits for it; false: the connection has gone, or the answer was an error. */
static bool answerable(struct conn *c, const struct desk_error *error)
{
    if (c->state != CONN_BUSY)
        return false;
    if (error != NULL)
        http_desk_error(c, error);
    return error == NULL;
}

/* ---- session ---- */

static void post_session(struct conn *c, const struct http_request *req, const char *id)
{
    struct gateway *g = conn_gateway(c);
    const uint64_t now = wall_ms();
    struct buf json = {0}, headers = {0};
    char token[SEAL_TOKEN_MAX];
    uint8_t random[10];
    struct uuid user;

    (void)id;
    if (!session_user(g->env->master, req, now, &user)) {
        seal_random(random, sizeof random);
        user = uuid_v7(now, random);
        desk_user_made(g->desk, &user);
    }
    seal_token(g->env->master, &user, now + SESSION_SECONDS * 1000, token);
    buf_add_str(&json, "{\"user\":");
    json_uuid(&json, &user);
    buf_add_str(&json, ",\"token\":");
    json_str(&json, token);
    buf_add_str(&json, "}");
    session_cookie(&headers, token);
    http_reply_json(c, 200, &json, buf_str(&headers));
    buf_wipe(&headers);
}

/* ---- characters ---- */

static void on_characters(void *ctx, const struct desk_error *error, const struct desk_character *list, size_t n)
{
    struct conn *c = ctx;
    struct buf json = {0};

    if (!answerable(c, error))
        return;
    json_characters(&json, list, n);
    http_reply_json(c, 200, &json, NULL);
}

static void get_characters(struct conn *c, const struct http_request *req, const char *id)
{
    (void)req;
    (void)id;
    if (!desk_characters(desk(c), &c->peer.viewer, on_characters, c))
        out_of_memory(c);
}

static void on_character(void *ctx, const struct desk_error *error, const struct desk_character *list, size_t n)
{
    struct conn *c = ctx;
    struct buf json = {0};

    if (!answerable(c, error))
        return;
    if (n == 0) {
        http_error(c, 404, NULL, "no such character", NULL, NULL, false);
        return;
    }
    json_character(&json, &list[0]);
    http_reply_json(c, 200, &json, NULL);
}

static void get_character(struct conn *c, const struct http_request *req, const char *id)
{
    (void)req;
    if (!character_id_valid(id, strlen(id)))
        bad_request(c, "character", "must be a character's id: a-z, 0-9 and -, 1 to 64 of them");
    else if (!desk_character(desk(c), &c->peer.viewer, id, on_character, c))
        out_of_memory(c);
}

static void on_avatar(void *ctx, const struct desk_error *error, struct slice image, const char *type,
                      uint64_t updated_ms)
{
    struct conn *c = ctx;
    struct http_answer a = {.status = 200, .type = type, .body = image.data, .len = image.len};
    char headers[96], etag[48];
    size_t len = 0;
    char v[24];

    if (!answerable(c, error))
        return;
    snprintf(etag, sizeof etag, "\"%llx-%zx\"", (unsigned long long)updated_ms, image.len);
    snprintf(headers, sizeof headers, "ETag: %s\r\n", etag);
    a.headers = headers;
    a.csp = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    a.cache = "no-cache";
    if (http_query(c->http->req.query, "v", v, sizeof v, &len) == 1)
        a.cache = "public, max-age=31536000, immutable"; /* the address changes with the picture */
    if (http_etag_matches(c->http->req.header[HTTP_IF_NONE_MATCH], etag)) {
        a.status = 304;
        a.type = NULL;
        a.len = 0;
    }
    http_reply(c, &a);
}

static void get_avatar(struct conn *c, const struct http_request *req, const char *id)
{
    (void)req;
    if (!character_id_valid(id, strlen(id)))
        bad_request(c, "character", "must be a character's id: a-z, 0-9 and -, 1 to 64 of them");
    else if (!desk_avatar(desk(c), &c->peer.viewer, id, on_avatar, c))
        out_of_memory(c);
}

/* ---- chats ---- */

static void on_chats(void *ctx, const struct desk_error *error, const struct desk_chat *chats, size_t n)
{
    struct conn *c = ctx;
    struct buf json = {0};

    if (!answerable(c, error))
        return;
    json_chats(&json, chats, n);
    http_reply_json(c, 200, &json, NULL);
}

static void get_chats(struct conn *c, const struct http_request *req, const char *id)
{
    (void)req;
    (void)id;
    if (!desk_chats(desk(c), &c->peer.viewer, on_chats, c))
        out_of_memory(c);
}

static void on_turns(void *ctx, const struct desk_error *error, const struct desk_turn *turns, size_t n, bool more)
{
    struct conn *c = ctx;
    struct buf json = {0};

    if (!answerable(c, error))
        return;
    buf_add_str(&json, "{\"turns\":");
    json_turns(&json, turns, n);
    buf_printf(&json, ",\"more\":%s}", more ? "true" : "false");
    http_reply_json(c, 200, &json, NULL);
}

/* 1 to 200; larger ones are cut, whatever their length. */
static bool parse_limit(const char *text, size_t len, uint32_t *ret_limit)
{
    uint32_t limit = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        limit = limit * 10 + (uint32_t)(text[i] - '0');
        if (limit > TURNS_LIMIT_MAX)
            limit = TURNS_LIMIT_MAX;
    }
    if (limit == 0)
        return false;
    *ret_limit = limit;
    return true;
}

static void get_turns(struct conn *c, const struct http_request *req, const char *id)
{
    struct uuid chat, before = uuid_nil;
    uint32_t limit = TURNS_LIMIT;
    char text[128];
    size_t len = 0;
    int found;

    if (!uuid_parse(id, strlen(id), &chat)) {
        bad_request(c, "chat", "must be a UUID");
        return;
    }
    found = http_query(req->query, "before", text, sizeof text, &len);
    if (found < 0 || (found > 0 && !uuid_parse(text, len, &before))) {
        bad_request(c, "before", "must be a UUID");
        return;
    }
    found = http_query(req->query, "limit", text, sizeof text, &len);
    if (found < 0 || (found > 0 && !parse_limit(text, len, &limit))) {
        bad_request(c, "limit", "must be a whole number from 1 to 200");
        return;
    }
    if (!desk_history(desk(c), &c->peer.viewer, &chat, &before, limit, on_turns, c))
        out_of_memory(c);
}

static void on_chat_deleted(void *ctx, const struct desk_error *error, int32_t variant)
{
    static const struct http_answer gone = {.status = 204};

    (void)variant;
    if (answerable(ctx, error))
        http_reply(ctx, &gone);
}

static void delete_chat(struct conn *c, const struct http_request *req, const char *id)
{
    struct uuid chat;

    (void)req;
    if (!uuid_parse(id, strlen(id), &chat))
        bad_request(c, "chat", "must be a UUID");
    else if (!desk_chat_delete(desk(c), &c->peer.viewer, &chat, on_chat_deleted, c))
        out_of_memory(c);
}

/* ---- media ---- */

static void post_media(struct conn *c, const struct http_request *req, const char *id)
{
    (void)id;
    upload_begin(c, req);
}

static void on_media_deleted(void *ctx, const struct desk_error *error, int32_t variant)
{
    on_chat_deleted(ctx, error, variant);
}

static void on_media(struct conn *c, const struct http_request *req, const char *id)
{
    struct uuid media;

    if (!uuid_parse(id, strlen(id), &media))
        bad_request(c, "media", "must be a UUID");
    else if (conn_gateway(c)->env->media == NULL)
        http_error(c, 404, NULL, "there is no store of media here", NULL, NULL, false);
    else if (req->method != HTTP_DELETE)
        download_begin(c, req, &media);
    else if (!desk_media_delete(desk(c), &c->peer.viewer, &media, on_media_deleted, c))
        out_of_memory(c);
}

/* ---- the house ---- */

static void get_healthz(struct conn *c, const struct http_request *req, const char *id)
{
    struct buf json = {0};

    (void)req;
    (void)id;
    buf_add_str(&json, "{\"status\":\"alive\"}");
    http_reply_json(c, 200, &json, NULL);
}

static void get_readyz(struct conn *c, const struct http_request *req, const char *id)
{
    struct gateway *g = conn_gateway(c);
    const char *key = NULL;
    struct buf json = {0}, why = {0};

    (void)req;
    (void)id;
    if (g->draining) {
        http_error(c, 503, "overloaded", "draining: this server is about to stop", NULL, "Retry-After: 5\r\n", true);
    } else if (g->env->watch != NULL && !watch_reached(g->env->watch, false, &key, &why)) {
        buf_add_str(&json, "not reached: ");
        buf_add(&json, why.data, why.len);
        http_error(c, 503, "overloaded", buf_str(&json), key, "Retry-After: 2\r\n", false);
        buf_release(&json);
    } else if (!g->started || !desk_ready(g->desk)) {
        http_error(c, 503, "overloaded", "not ready: a store or a queue does not answer, or too many turns wait", NULL,
                   "Retry-After: 2\r\n", false);
    } else {
        buf_add_str(&json, "{\"status\":\"ready\"");
        if (why.len > 0) { /* it serves without these */
            buf_add_str(&json, ",\"degraded\":");
            json_str(&json, buf_str(&why));
        }
        buf_add_str(&json, "}");
        http_reply_json(c, 200, &json, NULL);
    }
    buf_release(&why);
}

static void get_metrics(struct conn *c, const struct http_request *req, const char *id)
{
    struct http_answer a = {.status = 200, .type = "text/plain; version=0.0.4; charset=utf-8"};
    struct buf text = {0};

    (void)req;
    (void)id;
    metrics_render(&text);
    a.body = text.data;
    a.len = text.len;
    if (text.failed)
        out_of_memory(c);
    else
        http_reply(c, &a);
    buf_release(&text);
}

static void get_ws(struct conn *c, const struct http_request *req, const char *id)
{
    (void)id;
    ws_upgrade(c, req);
}

static void get_file(struct conn *c, const struct http_request *req, const char *id)
{
    (void)id;
    http_static(c, req); /* http_known() has looked it up */
}

static const struct route routes[] = {
    {"/ws", ALLOW_GET, false, false, get_ws},
    {"/api/session", ALLOW_POST, false, false, post_session},
    {"/api/characters", ALLOW_GET, false, false, get_characters},
    {"/api/characters/*/avatar", ALLOW_GET, false, false, get_avatar},
    {"/api/characters/*", ALLOW_GET, false, false, get_character},
    {"/api/chats", ALLOW_GET, true, false, get_chats},
    {"/api/chats/*/turns", ALLOW_GET, true, false, get_turns},
    {"/api/chats/*", ALLOW_DELETE, true, false, delete_chat},
    {"/api/media", ALLOW_POST, true, true, post_media},
    {"/api/media/*", ALLOW_GET | ALLOW_DELETE, true, false, on_media},
    {"/healthz", ALLOW_GET, false, false, get_healthz},
    {"/readyz", ALLOW_GET, false, false, get_readyz},
    {"/metrics", ALLOW_GET, false, false, get_metrics},
};
static const struct route file_route = {"", ALLOW_GET, false, false, get_file};

/* Does the path fit the pattern?  "*" is one segment, not empty; it goes to `id`. */
static bool fits(const char *pattern, const char *path, char id[HTTP_PATH_MAX + 1])
{
    const char *star = strchr(pattern, '*');
    size_t before, len;

    if (star == NULL)
        return strcmp(pattern, path) == 0;
    before = (size_t)(star - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    len = strcspn(path + before, "/");
    if (len == 0 || strcmp(path + before + len, star + 1) != 0)
        return false;
    memcpy(id, path + before, len);
    id[len] = '\0';
    return true;
}

static const struct route *find(const char *path, char id[HTTP_PATH_MAX + 1])
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (fits(routes[i].path, path, id))
            return &routes[i];
    return http_static_has(path) ? &file_route : NULL;
}

static bool allowed(const struct route *r, enum http_method method)
{
    switch (method) {
    case HTTP_GET:
    case HTTP_HEAD:
        return (r->allow & ALLOW_GET) != 0;
    case HTTP_POST:
        return (r->allow & ALLOW_POST) != 0;
    case HTTP_DELETE:
        return (r->allow & ALLOW_DELETE) != 0;
    case HTTP_OTHER:
        break;
    }
    return false;
}

bool http_known(struct conn *c, const struct http_request *req)
{
    const bool close = req->content_length > 0; /* the body isn't read */
    char id[HTTP_PATH_MAX + 1] = "", allow[64];
    const char *methods;
    const struct route *r = find(req->path, id);
    const struct config *config = conn_gateway(c)->env->config;

    if (r != NULL && r->go == get_metrics && *config_str(config, "TROUPE_METRICS_LISTEN") != '\0')
        r = NULL; /* the monitor serves it, and clients see none */
    if (r == NULL) {
        http_error(c, 404, NULL, "no such path", NULL, NULL, close);
        return false;
    }
    if (!allowed(r, req->method)) {
        methods = (r->allow & ALLOW_GET) == 0      ? (r->allow == ALLOW_POST ? "POST" : "DELETE")
                  : (r->allow & ALLOW_DELETE) != 0 ? "GET, HEAD, DELETE"
                                                   : "GET, HEAD";
        snprintf(allow, sizeof allow, "Allow: %s\r\n", methods);
        http_error(c, 405, NULL, "this path has no such method", NULL, allow, close);
        return false;
    }
    return true;
}

bool http_streams(const struct http_request *req)
{
    char id[HTTP_PATH_MAX + 1];
    const struct route *r = req->method == HTTP_POST ? find(req->path, id) : NULL;

    return r != NULL && r->body;
}

void http_route(struct conn *c, const struct http_request *req)
{
    struct gateway *g = conn_gateway(c);
    const struct slice origin = req->header[HTTP_ORIGIN];
    char id[HTTP_PATH_MAX + 1] = "";
    const struct route *r = find(req->path, id);

    if ((req->method == HTTP_POST || req->method == HTTP_DELETE) && origin.data != NULL &&
        !origins_allow(&g->origins, (const char *)origin.data, origin.len)) {
        http_error(c, 403, NULL, "this Origin is not allowed: see TROUPE_ORIGINS", NULL, NULL, r->body);
        return;
    }
    c->peer.viewer.user = uuid_nil;
    if (r->user && !session_user(g->env->master, req, wall_ms(), &c->peer.viewer.user)) {
        http_error(c, 401, NULL, "no valid token: POST /api/session gives one", NULL, "WWW-Authenticate: Bearer\r\n",
                   r->body); /* its body isn't read */
        return;
    }
    r->go(c, req, id);
}
