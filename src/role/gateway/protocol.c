/* protocol - see protocol.h.  Comes from ws.c, goes to role/chat/desk.h and back. */
#include "role/gateway/protocol.h"

#include "base/metrics.h"
#include "domain/text.h"
#include "role/gateway/json_out.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_KEEP (64 * 1024) /* a greater scratch buffer is given back after use */
#define HISTORY_LIMIT 50
#define HISTORY_LIMIT_MAX 200

/* A request under way at the desk, in its peer's list. */
struct protocol_request {
    struct protocol_request *next, *prev;
    struct peer *peer;
    uint16_t ref_len;
    char ref[];
};

static struct metric messages_in =
    METRIC(METRIC_COUNTER, "troupe_gateway_messages_total", "direction=\"in\"", "WebSocket messages.");
static struct metric messages_out =
    METRIC(METRIC_COUNTER, "troupe_gateway_messages_total", "direction=\"out\"", "WebSocket messages.");
#define ERRORS(code)                                                                                                   \
    METRIC(METRIC_COUNTER, "troupe_gateway_errors_total", "code=\"" code "\"", "Errors told to clients.")
static struct metric errors[] = {ERRORS("bad_request"),  ERRORS("not_found"),  ERRORS("too_large"),
                                 ERRORS("rate_limited"), ERRORS("overloaded"), ERRORS("engine_failed"),
                                 ERRORS("conflict"),     ERRORS("internal")};

static void count_error(const char *code)
{
    static const char *const codes[] = {"bad_request", "not_found",     "too_large", "rate_limited",
                                        "overloaded",  "engine_failed", "conflict",  "internal"};
    const size_t n = sizeof codes / sizeof codes[0];
    size_t i = 0;

    while (i < n - 1 && strcmp(codes[i], code) != 0)
        i++;
    metric_add(&errors[i], 1);
}

/* The buffer to write a text into; hand it to out(). */
static struct buf *begin(struct protocol *p)
{
    buf_clear(&p->scratch);
    if (buf_reserve(&p->scratch, p->headroom + 256) != NULL)
        p->scratch.len = p->headroom;
    return &p->scratch;
}

static void out(struct peer *peer)
{
    struct protocol *p = peer->protocol;

    metric_add(&messages_out, 1);
    p->send(peer, &p->scratch); /* a failed buffer is the transport's to notice: a message is lost, it closes */
    if (p->scratch.cap > SCRATCH_KEEP)
        buf_release(&p->scratch);
}

/* ---- answers ---- */

static void refuse(struct peer *peer, const char *ref, size_t ref_len, const struct desk_error *error)
{
    count_error(error->code);
    json_refused(begin(peer->protocol), ref, ref_len, error);
    out(peer);
}

static void refuse_field(struct peer *peer, const char *ref, size_t ref_len, const char *field, const char *message)
{
    struct desk_error error = {.code = "bad_request", .field = field};

    snprintf(error.message, sizeof error.message, "%s%s%s", field != NULL ? field : "", field != NULL ? ": " : "",
             message);
    refuse(peer, ref, ref_len, &error);
}

static void unlink_request(struct protocol_request *r)
{
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        r->peer->requests = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    r->peer->under_way--;
}

/* The text is made: send it, and the request is over. */
static void answered(struct protocol_request *r)
{
    struct peer *peer = r->peer;

    unlink_request(r);
    free(r);
    out(peer);
    if (peer->under_way == 0 && peer->protocol->quiet != NULL)
        peer->protocol->quiet(peer);
}

static bool answer_error(struct protocol_request *r, const struct desk_error *error)
{
    if (error == NULL)
        return false;
    count_error(error->code);
    json_refused(begin(r->peer->protocol), r->ref, r->ref_len, error);
    answered(r);
    return true;
}

static void on_opened(void *ctx, const struct desk_error *error, const struct desk_opened *opened)
{
    struct protocol_request *r = ctx;

    if (answer_error(r, error))
        return;
    json_opened(begin(r->peer->protocol), r->ref, r->ref_len, opened);
    answered(r);
}

static void on_accepted(void *ctx, const struct desk_error *error, const struct uuid *turn)
{
    struct protocol_request *r = ctx;

    if (answer_error(r, error))
        return;
    json_accepted(begin(r->peer->protocol), r->ref, r->ref_len, turn);
    answered(r);
}

static void on_ok(void *ctx, const struct desk_error *error, int32_t variant)
{
    struct protocol_request *r = ctx;

    if (answer_error(r, error))
        return;
    json_ok(begin(r->peer->protocol), r->ref, r->ref_len, variant);
    answered(r);
}

static void on_turns(void *ctx, const struct desk_error *error, const struct desk_turn *turns, size_t n, bool more)
{
    struct protocol_request *r = ctx;

    if (answer_error(r, error))
        return;
    json_history(begin(r->peer->protocol), r->ref, r->ref_len, turns, n, more);
    answered(r);
}

/* ---- requests ---- */

/* A request as it is being read; the first wrong field sets `field` and `message`. */
struct reading {
    struct peer *peer;
    json_t *json;
    const char *ref;
    size_t ref_len;
    const char *field, *message;
};

static bool wrong(struct reading *q, const char *field, const char *message)
{
    if (q->message == NULL) {
        q->field = field;
        q->message = message;
    }
    return false;
}

/* A string; NULL (and the request is wrong) if it is not one, or is missing though required. */
static const char *get_string(struct reading *q, const char *field, bool required, size_t *ret_len)
{
    const json_t *v = json_object_get(q->json, field);

    if (v == NULL) {
        if (required)
            wrong(q, field, "missing");
        return NULL;
    }
    if (!json_is_string(v)) {
        wrong(q, field, "must be a string");
        return NULL;
    }
    *ret_len = json_string_length(v);
    return json_string_value(v);
}

static bool get_uuid(struct reading *q, const char *field, bool required, struct uuid *ret_id)
{
    size_t len;
    const char *text = get_string(q, field, required, &len);

    if (text == NULL)
        return false;
    return uuid_parse(text, len, ret_id) || wrong(q, field, "must be a UUID");
}

static bool get_integer(struct reading *q, const char *field, bool required, json_int_t min, json_int_t max,
                        const char *range, json_int_t *ret_value)
{
    const json_t *v = json_object_get(q->json, field);

    if (v == NULL)
        return required ? wrong(q, field, "missing") : false;
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return wrong(q, field, range);
    *ret_value = json_integer_value(v);
    return true;
}

/* A client's own id: 1 to 64 characters. */
static const char *get_id(struct reading *q, const char *field, bool required, size_t *ret_len)
{
    const char *text = get_string(q, field, required, ret_len);

    if (text != NULL && (*ret_len == 0 || text_length(text, *ret_len) > 64)) {
        wrong(q, field, "must have 1 to 64 characters");
        return NULL;
    }
    return text;
}

/* Every field was right: begin a request at the desk, or say why not (then NULL). */
static struct protocol_request *start(struct reading *q)
{
    struct desk_error error = {.code = "rate_limited", .retry_after_ms = 1000};
    struct peer *peer = q->peer;
    struct protocol_request *r;

    if (q->message != NULL) {
        refuse_field(peer, q->ref, q->ref_len, q->field, q->message);
        return NULL;
    }
    if (peer->under_way >= PROTOCOL_UNDER_WAY_MAX) {
        snprintf(error.message, sizeof error.message,
                 "%d requests of this connection are under way: wait for an answer", PROTOCOL_UNDER_WAY_MAX);
        refuse(peer, q->ref, q->ref_len, &error);
        return NULL;
    }
    r = malloc(sizeof *r + q->ref_len);
    if (r == NULL) {
        error = (struct desk_error){.code = "internal", .message = "out of memory"};
        refuse(peer, q->ref, q->ref_len, &error);
        return NULL;
    }
    r->peer = peer;
    r->ref_len = (uint16_t)q->ref_len;
    memcpy(r->ref, q->ref, q->ref_len);
    r->prev = NULL;
    r->next = peer->requests;
    if (r->next != NULL)
        r->next->prev = r;
    peer->requests = r;
    peer->under_way++;
    return r;
}

/* The desk said whether it took the request on. */
static void started(struct protocol_request *r, bool taken)
{
    static const struct desk_error error = {.code = "internal", .message = "out of memory"};

    if (!taken)
        answer_error(r, &error);
}

static void ask_open(struct reading *q)
{
    struct desk_open_request req = {0};
    struct protocol_request *r;
    json_int_t since = 0;
    size_t len = 0;

    req.character = get_string(q, "character", false, &len);
    if (req.character != NULL && !character_id_valid(req.character, len))
        wrong(q, "character", "must be a character's id: a-z, 0-9 and -, 1 to 64 of them");
    if (req.character != NULL && json_object_get(q->json, "chat") != NULL)
        wrong(q, "chat", "either character (a new chat) or chat (an old one), not both");
    if (req.character != NULL) {
        req.id = get_id(q, "id", false, &req.id_len);
    } else if (q->message == NULL) {
        if (json_object_get(q->json, "chat") == NULL)
            wrong(q, "chat", "missing: character (a new chat) or chat (an old one)");
        get_uuid(q, "chat", true, &req.chat);
        get_uuid(q, "after", false, &req.after);
        req.has_since = get_integer(q, "since", false, 0, INT64_MAX, "must be a whole number from 0", &since);
        req.since = (uint64_t)since;
    }
    r = start(q);
    if (r != NULL)
        started(r, desk_open(q->peer->protocol->desk, &q->peer->viewer, &req, on_opened, r));
}

/* The ids of a message's media; how many. */
static size_t get_media(struct reading *q, struct uuid ids[MESSAGE_MEDIA_MAX])
{
    const json_t *media = json_object_get(q->json, "media");
    const size_t n = json_array_size(media);

    if (media != NULL && !json_is_null(media) && !json_is_array(media))
        wrong(q, "media", "must be a list");
    if (n > MESSAGE_MEDIA_MAX) {
        wrong(q, "media", "more than 8 in one message");
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(media, i);

        if (!json_is_string(id) || !uuid_parse(json_string_value(id), json_string_length(id), &ids[i]))
            wrong(q, "media", "each must be a UUID");
        for (size_t k = 0; q->message == NULL && k < i; k++)
            if (uuid_eq(&ids[k], &ids[i]))
                wrong(q, "media", "one stands there twice");
    }
    return q->message == NULL ? n : 0;
}

static void ask_send(struct reading *q)
{
    struct uuid media[MESSAGE_MEDIA_MAX], chat;
    struct protocol_request *r;
    const char *id, *text;
    size_t id_len = 0, len = 0, media_n;

    get_uuid(q, "chat", true, &chat);
    id = get_id(q, "id", true, &id_len);
    media_n = get_media(q, media);
    text = get_string(q, "text", media_n == 0, &len);
    r = start(q);
    if (r != NULL)
        started(r, desk_send(q->peer->protocol->desk, &q->peer->viewer, &chat, id, id_len, text != NULL ? text : "",
                             len, media, media_n, on_accepted, r));
}

static void ask_stop(struct reading *q)
{
    struct protocol_request *r;
    struct uuid turn;

    get_uuid(q, "turn", true, &turn);
    r = start(q);
    if (r != NULL)
        started(r, desk_stop(q->peer->protocol->desk, &q->peer->viewer, &turn, on_ok, r));
}

static void ask_regenerate(struct reading *q)
{
    struct protocol_request *r;
    json_int_t expected = -1;
    struct uuid turn;

    get_uuid(q, "turn", true, &turn);
    get_integer(q, "variant", false, 0, INT32_MAX, "must be a whole number from 0", &expected);
    r = start(q);
    if (r != NULL)
        started(r, desk_regenerate(q->peer->protocol->desk, &q->peer->viewer, &turn, (int32_t)expected, on_ok, r));
}

static void ask_choose(struct reading *q)
{
    struct protocol_request *r;
    json_int_t variant = 0;
    struct uuid turn;

    get_uuid(q, "turn", true, &turn);
    get_integer(q, "variant", true, 0, INT32_MAX, "must be a whole number from 0", &variant);
    r = start(q);
    if (r != NULL)
        started(r, desk_choose(q->peer->protocol->desk, &q->peer->viewer, &turn, (int32_t)variant, on_ok, r));
}

static void ask_edit(struct reading *q)
{
    struct protocol_request *r;
    const char *text;
    struct uuid turn;
    size_t len = 0;

    get_uuid(q, "turn", true, &turn);
    text = get_string(q, "text", true, &len);
    r = start(q);
    if (r != NULL)
        started(r, desk_edit(q->peer->protocol->desk, &q->peer->viewer, &turn, text, len, on_ok, r));
}

static void ask_delete(struct reading *q)
{
    struct protocol_request *r;
    struct uuid turn;

    get_uuid(q, "turn", true, &turn);
    r = start(q);
    if (r != NULL)
        started(r, desk_delete(q->peer->protocol->desk, &q->peer->viewer, &turn, on_ok, r));
}

static void ask_history(struct reading *q)
{
    json_int_t limit = HISTORY_LIMIT;
    struct protocol_request *r;
    struct uuid chat, before = uuid_nil;

    get_uuid(q, "chat", true, &chat);
    get_uuid(q, "before", false, &before);
    get_integer(q, "limit", false, 1, INT64_MAX, "must be a whole number from 1 to 200", &limit);
    if (limit > HISTORY_LIMIT_MAX)
        limit = HISTORY_LIMIT_MAX;
    r = start(q);
    if (r != NULL)
        started(r,
                desk_history(q->peer->protocol->desk, &q->peer->viewer, &chat, &before, (uint32_t)limit, on_turns, r));
}

static void ask_ping(struct reading *q)
{
    json_pong(begin(q->peer->protocol), q->ref, q->ref_len);
    out(q->peer);
}

static const struct {
    const char *type;
    void (*ask)(struct reading *q);
} requests[] = {{"ping", ask_ping},       {"send", ask_send}, {"open", ask_open},
                {"history", ask_history}, {"stop", ask_stop}, {"regenerate", ask_regenerate},
                {"choose", ask_choose},   {"edit", ask_edit}, {"delete", ask_delete}};

static void read_request(struct reading *q)
{
    const char *type, *ref;
    size_t type_len = 0, ref_len = 0;

    ref = get_id(q, "ref", true, &ref_len);
    if (ref != NULL) {
        q->ref = ref;
        q->ref_len = ref_len;
    }
    type = get_string(q, "type", true, &type_len);
    for (size_t i = 0; q->message == NULL && i < sizeof requests / sizeof requests[0]; i++)
        if (strlen(requests[i].type) == type_len && memcmp(requests[i].type, type, type_len) == 0) {
            requests[i].ask(q);
            return;
        }
    wrong(q, "type", "unknown");
    refuse_field(q->peer, q->ref, q->ref_len, q->field, q->message);
}

void protocol_message(struct peer *peer, const char *text, size_t len)
{
    struct reading q = {.peer = peer};

    metric_add(&messages_in, 1);
    q.json = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (q.json == NULL)
        refuse_field(
            peer, NULL, 0, NULL,
            "not JSON that is taken here: broken, a name twice in one object, a number too large, or nested too deep");
    else if (!json_is_object(q.json))
        refuse_field(peer, NULL, 0, NULL, "not a JSON object");
    else
        read_request(&q);
    json_decref(q.json);
}

void protocol_delta(struct peer *peer, const struct peer_delta *d)
{
    json_event_delta(begin(peer->protocol), d->chat, d->turn, d->variant, d->attempt, d->offset, d->text, d->len);
    out(peer);
}

void protocol_release(struct protocol *p)
{
    buf_wipe(&p->scratch);
}

void peer_release(struct peer *peer)
{
    if (peer->protocol->desk != NULL)
        desk_viewer_release(peer->protocol->desk, &peer->viewer);
    while (peer->requests != NULL) {
        struct protocol_request *r = peer->requests;

        unlink_request(r);
        free(r);
    }
}

/* ---- events ---- */

static struct peer *peer_of(struct desk_viewer *v)
{
    return (struct peer *)((char *)v - offsetof(struct peer, viewer));
}

static void settled(struct peer *peer, const struct uuid *turn, int32_t variant)
{
    if (peer->protocol->settled != NULL)
        peer->protocol->settled(peer, turn, variant);
}

static void on_turn(struct desk_viewer *v, const struct desk_turn *turn)
{
    json_event_turn(begin(peer_of(v)->protocol), turn);
    out(peer_of(v));
}

static void on_status(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, enum turn_state state,
                      uint32_t position)
{
    json_event_status(begin(peer_of(v)->protocol), chat, turn, state, position);
    out(peer_of(v));
}

static void on_delta(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, int32_t variant,
                     uint64_t attempt, uint64_t offset, const char *text, size_t len)
{
    const struct peer_delta delta = {chat, turn, variant, attempt, offset, text, len};
    struct peer *peer = peer_of(v);

    if (peer->protocol->delta == NULL || peer->protocol->delta(peer, &delta))
        protocol_delta(peer, &delta);
}

static void on_reply(struct desk_viewer *v, const struct desk_reply *reply)
{
    settled(peer_of(v), &reply->turn, reply->variant);
    json_event_reply(begin(peer_of(v)->protocol), reply);
    out(peer_of(v));
}

static void on_changed(struct desk_viewer *v, const struct desk_turn *turn)
{
    json_event_changed(begin(peer_of(v)->protocol), turn);
    out(peer_of(v));
}

static void on_deleted(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn)
{
    settled(peer_of(v), turn, -1);
    json_event_deleted(begin(peer_of(v)->protocol), chat, turn);
    out(peer_of(v));
}

static void on_failed(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, const char *code,
                      const char *message)
{
    settled(peer_of(v), turn, -1);
    count_error(code);
    json_event_failed(begin(peer_of(v)->protocol), chat, turn, code, message);
    out(peer_of(v));
}

const struct desk_events protocol_events = {
    .turn = on_turn,
    .status = on_status,
    .delta = on_delta,
    .reply = on_reply,
    .changed = on_changed,
    .deleted = on_deleted,
    .failed = on_failed,
};
