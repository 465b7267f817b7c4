/* A client's message -> the desk's call or the exact error; what the desk tells -> the exact JSON; small languages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "role/common/address.h"
#include "role/common/http_parse.h"
#include "role/gateway/frame.h"
#include "role/gateway/json_out.h"
#include "role/gateway/protocol.h"
#include "tests/unit/role/fake_desk.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAT "01930000-0000-7000-8000-000000000001"
#define TURN "01930000-0000-7000-8000-000000000002"
#define NIL "00000000-0000-0000-0000-000000000000"
#define ROWS(a) (sizeof(a) / sizeof((a)[0]))

/* ---- protocol ---- */

static char sent[4096];
static unsigned sent_n, quiet_n;

static void take(struct peer *peer, struct buf *text)
{
    (void)peer;
    assert_false(text->failed);
    assert_true(text->len - 10 < sizeof sent);
    memcpy(sent, text->data + 10, text->len - 10);
    sent[text->len - 10] = '\0';
    sent_n++;
}

static void note_quiet(struct peer *peer)
{
    (void)peer;
    quiet_n++;
}

static void begin(struct protocol *p, struct peer *peer)
{
    *p = (struct protocol){.desk = fake_desk_handle(), .send = take, .quiet = note_quiet, .headroom = 10};
    *peer = (struct peer){.protocol = p};
    fake_desk_reset();
    sent[0] = '\0';
    sent_n = quiet_n = 0;
}

#define BAD(ref, message, field)                                                                                       \
    "{\"type\":\"error\"" ref ",\"code\":\"bad_request\",\"message\":\"" message "\"" field "}"
#define REF ",\"ref\":\"r\""
#define FIELD(f) ",\"field\":\"" f "\""

static const struct bad_row {
    const char *name, *in, *out;
} bad_rows[] = {
    {"empty", "",
     BAD("", "not JSON that is taken here: broken, a name twice in one object, a number too large, or nested too deep",
         "")},
    {"cut", "{\"type\":",
     BAD("", "not JSON that is taken here: broken, a name twice in one object, a number too large, or nested too deep",
         "")},
    {"more behind", "{} {}",
     BAD("", "not JSON that is taken here: broken, a name twice in one object, a number too large, or nested too deep",
         "")},
    {"a name twice", "{\"ref\":\"r\",\"ref\":\"s\"}",
     BAD("", "not JSON that is taken here: broken, a name twice in one object, a number too large, or nested too deep",
         "")},
    {"a list", "[1]", BAD("", "not a JSON object", "")},
    {"no ref", "{\"type\":\"ping\"}", BAD("", "ref: missing", FIELD("ref"))},
    {"ref a number", "{\"type\":\"ping\",\"ref\":1}", BAD("", "ref: must be a string", FIELD("ref"))},
    {"ref empty", "{\"type\":\"ping\",\"ref\":\"\"}", BAD("", "ref: must have 1 to 64 characters", FIELD("ref"))},
    {"ref of 65", "{\"type\":\"ping\",\"ref\":\"0123456789012345678901234567890123456789012345678901234567890123x\"}",
     BAD("", "ref: must have 1 to 64 characters", FIELD("ref"))},
    {"no type", "{\"ref\":\"r\"}", BAD(REF, "type: missing", FIELD("type"))},
    {"type null", "{\"type\":null,\"ref\":\"r\"}", BAD(REF, "type: must be a string", FIELD("type"))},
    {"type unknown", "{\"type\":\"shout\",\"ref\":\"r\"}", BAD(REF, "type: unknown", FIELD("type"))},
    {"open nothing", "{\"type\":\"open\",\"ref\":\"r\"}",
     BAD(REF, "chat: missing: character (a new chat) or chat (an old one)", FIELD("chat"))},
    {"open both", "{\"type\":\"open\",\"ref\":\"r\",\"character\":\"a\",\"chat\":\"" CHAT "\"}",
     BAD(REF, "chat: either character (a new chat) or chat (an old one), not both", FIELD("chat"))},
    {"open no slug", "{\"type\":\"open\",\"ref\":\"r\",\"character\":\"A b\"}",
     BAD(REF, "character: must be a character's id: a-z, 0-9 and -, 1 to 64 of them", FIELD("character"))},
    {"open character's id empty", "{\"type\":\"open\",\"ref\":\"r\",\"character\":\"a\",\"id\":\"\"}",
     BAD(REF, "id: must have 1 to 64 characters", FIELD("id"))},
    {"open no uuid", "{\"type\":\"open\",\"ref\":\"r\",\"chat\":\"x\"}",
     BAD(REF, "chat: must be a UUID", FIELD("chat"))},
    {"open after no uuid", "{\"type\":\"open\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"after\":\"\"}",
     BAD(REF, "after: must be a UUID", FIELD("after"))},
    {"open since text", "{\"type\":\"open\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"since\":\"1\"}",
     BAD(REF, "since: must be a whole number from 0", FIELD("since"))},
    {"send no chat", "{\"type\":\"send\",\"ref\":\"r\",\"id\":\"i\",\"text\":\"t\"}",
     BAD(REF, "chat: missing", FIELD("chat"))},
    {"send no id", "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"text\":\"t\"}",
     BAD(REF, "id: missing", FIELD("id"))},
    {"send no text", "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\"}",
     BAD(REF, "text: missing", FIELD("text"))},
    {"send text a list", "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"text\":[]}",
     BAD(REF, "text: must be a string", FIELD("text"))},
    {"send media no uuid",
     "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"text\":\"t\",\"media\":[\"" TURN "\",7]}",
     BAD(REF, "media: each must be a UUID", FIELD("media"))},
    {"send media twice",
     "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"media\":[\"" TURN "\",\"" TURN "\"]}",
     BAD(REF, "media: one stands there twice", FIELD("media"))},
    {"send 9 media",
     "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT
     "\",\"id\":\"i\",\"text\":\"t\",\"media\":[1,2,3,4,5,6,7,8,9]}",
     BAD(REF, "media: more than 8 in one message", FIELD("media"))},
    {"send no media and no text", "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"media\":[]}",
     BAD(REF, "text: missing", FIELD("text"))},
    {"send media null and no text",
     "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"media\":null}",
     BAD(REF, "text: missing", FIELD("text"))},
    {"send media text",
     "{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"text\":\"t\",\"media\":\"x\"}",
     BAD(REF, "media: must be a list", FIELD("media"))},
    {"stop no turn", "{\"type\":\"stop\",\"ref\":\"r\"}", BAD(REF, "turn: missing", FIELD("turn"))},
    {"choose no variant", "{\"type\":\"choose\",\"ref\":\"r\",\"turn\":\"" TURN "\"}",
     BAD(REF, "variant: missing", FIELD("variant"))},
    {"choose a half", "{\"type\":\"choose\",\"ref\":\"r\",\"turn\":\"" TURN "\",\"variant\":0.5}",
     BAD(REF, "variant: must be a whole number from 0", FIELD("variant"))},
    {"regenerate below", "{\"type\":\"regenerate\",\"ref\":\"r\",\"turn\":\"" TURN "\",\"variant\":-1}",
     BAD(REF, "variant: must be a whole number from 0", FIELD("variant"))},
    {"edit no text", "{\"type\":\"edit\",\"ref\":\"r\",\"turn\":\"" TURN "\"}",
     BAD(REF, "text: missing", FIELD("text"))},
    {"delete a number", "{\"type\":\"delete\",\"ref\":\"r\",\"turn\":7}",
     BAD(REF, "turn: must be a string", FIELD("turn"))},
    {"history of 0", "{\"type\":\"history\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"limit\":0}",
     BAD(REF, "limit: must be a whole number from 1 to 200", FIELD("limit"))},
};

static void test_bad_requests(void **state)
{
    struct protocol p;
    struct peer peer;

    (void)state;
    begin(&p, &peer);
    for (size_t i = 0; i < ROWS(bad_rows); i++) {
        protocol_message(&peer, bad_rows[i].in, strlen(bad_rows[i].in));
        if (strcmp(sent, bad_rows[i].out) != 0)
            fail_msg("%s: %s", bad_rows[i].name, sent);
        assert_int_equal(sent_n, i + 1);
    }
    assert_int_equal(fake_desk.calls, 0); /* bad input changes nothing */
    peer_release(&peer);
    protocol_release(&p);
}

static const struct good_row {
    const char *in, *call, *out;
} good_rows[] = {
    {"{\"type\":\"open\",\"ref\":\"r\",\"character\":\"ada\",\"id\":\"i\"}",
     "open character=ada id=i chat=" NIL " after=" NIL " since=0/0", NULL},
    {"{\"type\":\"open\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"after\":\"" TURN "\",\"since\":9}",
     "open character= id= chat=" CHAT " after=" TURN " since=9/1", NULL},
    {"{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT
     "\",\"id\":\"i\",\"text\":\"h\\u00e9\",\"media\":[],\"new\":1}",
     "send chat=" CHAT " id=i text=h\xc3\xa9", "{\"type\":\"accepted\",\"ref\":\"r\",\"turn\":\"" TURN "\"}"},
    {"{\"type\":\"send\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"id\":\"i\",\"media\":[\"" TURN "\",\"" CHAT "\"]}",
     "send chat=" CHAT " id=i text= media=" TURN " media=" CHAT,
     "{\"type\":\"accepted\",\"ref\":\"r\",\"turn\":\"" TURN "\"}"},
    {"{\"type\":\"stop\",\"ref\":\"r\",\"turn\":\"" TURN "\"}", "stop turn=" TURN " variant=-1",
     "{\"type\":\"ok\",\"ref\":\"r\"}"},
    {"{\"type\":\"regenerate\",\"ref\":\"r\",\"turn\":\"" TURN "\",\"variant\":2}",
     "regenerate turn=" TURN " variant=2", "{\"type\":\"ok\",\"ref\":\"r\"}"},
    {"{\"type\":\"choose\",\"ref\":\"r\",\"turn\":\"" TURN "\",\"variant\":1}", "choose turn=" TURN " variant=1",
     "{\"type\":\"ok\",\"ref\":\"r\"}"},
    {"{\"type\":\"edit\",\"ref\":\"r\",\"turn\":\"" TURN "\",\"text\":\"t\"}", "edit turn=" TURN " text=t",
     "{\"type\":\"ok\",\"ref\":\"r\"}"},
    {"{\"type\":\"delete\",\"ref\":\"r\",\"turn\":\"" TURN "\"}", "delete turn=" TURN " variant=-1",
     "{\"type\":\"ok\",\"ref\":\"r\"}"},
    {"{\"type\":\"history\",\"ref\":\"r\",\"chat\":\"" CHAT "\",\"limit\":999}",
     "history chat=" CHAT " before=" NIL " limit=200", NULL},
};

static void test_good_requests(void **state)
{
    struct protocol p;
    struct peer peer;

    (void)state;
    begin(&p, &peer);
    for (size_t i = 0; i < ROWS(good_rows); i++) {
        protocol_message(&peer, good_rows[i].in, strlen(good_rows[i].in));
        assert_string_equal(fake_desk.last, good_rows[i].call);
        assert_int_equal(peer.under_way, 1);
        assert_int_equal(sent_n, i); /* not before the desk answers */
        fake_desk_answer();
        assert_int_equal(peer.under_way, 0);
        assert_int_equal(sent_n, i + 1);
        assert_int_equal(quiet_n, i + 1);
        if (good_rows[i].out != NULL)
            assert_string_equal(sent, good_rows[i].out);
    }
    protocol_message(&peer, "{\"type\":\"ping\",\"ref\":\"\\u0000\\\"\"}", 32);
    assert_string_equal(sent, "{\"type\":\"pong\",\"ref\":\"\\u0000\\\"\"}");
    peer_release(&peer);
    protocol_release(&p);
}

static void test_refusals_of_the_desk(void **state)
{
    static const char stop[] = "{\"type\":\"stop\",\"ref\":\"r\",\"turn\":\"" TURN "\"}";
    static const struct desk_error busy = {.code = "overloaded", .message = "later", .retry_after_ms = 1500};
    struct protocol p;
    struct peer peer;

    (void)state;
    begin(&p, &peer);
    fake_desk.error = &busy;
    protocol_message(&peer, stop, sizeof stop - 1);
    fake_desk_answer();
    assert_string_equal(
        sent,
        "{\"type\":\"error\",\"ref\":\"r\",\"code\":\"overloaded\",\"message\":\"later\",\"retry_after_ms\":1500}");
    fake_desk.error = NULL;
    fake_desk.refuse = true;
    protocol_message(&peer, stop, sizeof stop - 1);
    assert_string_equal(sent, "{\"type\":\"error\",\"ref\":\"r\",\"code\":\"internal\",\"message\":\"out of memory\"}");
    assert_int_equal(peer.under_way, 0);

    /* A bound on what one connection has under way; a connection that goes forgets it all. */
    fake_desk.refuse = false;
    for (int i = 0; i < PROTOCOL_UNDER_WAY_MAX; i++)
        protocol_message(&peer, stop, sizeof stop - 1);
    assert_int_equal(sent_n, 2);
    protocol_message(&peer, stop, sizeof stop - 1);
    assert_non_null(strstr(sent, "\"code\":\"rate_limited\""));
    assert_int_equal(fake_desk.waiting, PROTOCOL_UNDER_WAY_MAX);
    peer_release(&peer);
    assert_int_equal(fake_desk.waiting, 0);
    assert_null(peer.requests);
    protocol_release(&p);
}

/* ---- JSON ---- */

static void want(struct buf *b, const char *text)
{
    assert_string_equal(buf_str(b), text);
    buf_release(b);
}

static void test_json(void **state)
{
    const struct desk_variant variants[] = {
        {.variant = 0, .text = "a\"\n", .len = 3, .finish = FINISH_ERROR, .code = "engine_failed", .created_ms = 0},
        {.variant = 1, .text = NULL, .len = 0, .finish = FINISH_NONE, .created_ms = 951827696789, .attempt = 4},
    };
    struct desk_turn turn = {.created_ms = 1, .text = "", .variants = variants, .variants_n = 2, .chosen = -1};
    struct desk_reply reply = {.variant = 2,
                               .text = "hi",
                               .len = 2,
                               .finish = FINISH_LENGTH,
                               .prompt_tokens = 1,
                               .cached_tokens = 2,
                               .completion_tokens = 3,
                               .ttft_ms = 4};
    struct buf b = {0};

    (void)state;
    assert_true(uuid_parse(CHAT, 36, &turn.chat) && uuid_parse(TURN, 36, &turn.turn));
    reply.chat = turn.chat;
    reply.turn = turn.turn;
    json_turn(&b, &turn);
    want(&b, "{\"turn\":\"" TURN "\",\"chat\":\"" CHAT
             "\",\"created\":\"1970-01-01T00:00:00.001Z\",\"text\":\"\",\"media\":[],"
             "\"variants\":[{\"variant\":0,\"text\":\"a\\\"\\n\",\"finish\":\"error\",\"created\":\"1970-01-01T00:00:"
             "00.000Z\","
             "\"code\":\"engine_failed\"},{\"variant\":1,\"text\":\"\",\"finish\":null,"
             "\"created\":\"2000-02-29T12:34:56.789Z\",\"attempt\":4}],\"chosen\":null}");
    json_event_reply(&b, &reply);
    want(&b, "{\"type\":\"reply\",\"chat\":\"" CHAT "\",\"turn\":\"" TURN "\",\"variant\":2,\"text\":\"hi\","
             "\"finish\":\"length\",\"usage\":{\"prompt_tokens\":1,\"cached_tokens\":2,\"completion_tokens\":3},\"ttft_"
             "ms\":4}");
    json_event_delta(&b, &turn.chat, &turn.turn, 0, UINT64_MAX, 10, "x", 1);
    want(&b, "{\"type\":\"delta\",\"chat\":\"" CHAT "\",\"turn\":\"" TURN "\",\"variant\":0,"
             "\"attempt\":18446744073709551615,\"offset\":10,\"text\":\"x\"}");
    json_event_deleted(&b, &turn.chat, &uuid_nil);
    want(&b, "{\"type\":\"deleted\",\"chat\":\"" CHAT "\"}");
    json_event_status(&b, &turn.chat, &turn.turn, STATE_QUEUED, 3);
    want(&b, "{\"type\":\"status\",\"chat\":\"" CHAT "\",\"turn\":\"" TURN "\",\"state\":\"queued\",\"position\":3}");
    json_event_failed(&b, &turn.chat, &turn.turn, "internal", "m");
    want(&b,
         "{\"type\":\"error\",\"chat\":\"" CHAT "\",\"turn\":\"" TURN "\",\"code\":\"internal\",\"message\":\"m\"}");
    json_error(&b, "bad_request", "m", "f");
    want(&b, "{\"error\":{\"code\":\"bad_request\",\"message\":\"m\",\"field\":\"f\"}}");
}

/* ---- addresses, origins ---- */

static void test_address(void **state)
{
    static const char *const bad[] = {"",          "8080",    "127.0.0.1",     ":8080",       "127.0.0.1:",
                                      "1.2.3:80",  "[::1]",   "::1:80",        "[::1]:65536", "127.0.0.1:-1",
                                      "[::1:8080", "host:80", "127.0.0.1: 80", "[]:80",       "127.0.0.1:000080"};
    static const char *const good[] = {"127.0.0.1:8080", "0.0.0.0:0", "[::1]:65535", "[::]:1"};
    struct sockaddr_storage address;
    char text[ADDRESS_TEXT];
    uint8_t bytes[16];
    struct tr_err err;

    (void)state;
    for (size_t i = 0; i < ROWS(bad); i++)
        if (address_parse(bad[i], &address, &err) != TR_INVALID)
            fail_msg("'%s' was taken", bad[i]);
    for (size_t i = 0; i < ROWS(good); i++) {
        assert_int_equal(address_parse(good[i], &address, &err), TR_OK);
        address_format(&address, text);
        assert_string_equal(text, good[i]);
    }
    assert_int_equal(address_parse("localhost:80", &address, &err), TR_OK);
    address_bytes(&address, bytes);
    assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
}

static bool allows(const struct origins *o, const char *text)
{
    return origins_allow(o, text, strlen(text));
}

static void test_origins(void **state)
{
    struct origins o;
    struct tr_err err;

    (void)state;
    assert_int_equal(origins_parse("", 8080, NULL, &o, &err), TR_OK);
    assert_true(allows(&o, "http://127.0.0.1:8080") && allows(&o, "http://LOCALHOST:8080") &&
                allows(&o, "http://[::1]:8080"));
    assert_false(allows(&o, "https://127.0.0.1:8080") || allows(&o, "http://127.0.0.1:8081") || allows(&o, "null") ||
                 allows(&o, "") || allows(&o, "http://127.0.0.1:8080.evil.example") || allows(&o, "http://localhost"));
    origins_release(&o);
    assert_int_equal(origins_parse(" https://Chat.example/ ,http://a:80", 8080, NULL, &o, &err), TR_OK);
    assert_true(allows(&o, "https://chat.example") && allows(&o, "https://chat.example:443") && allows(&o, "http://a"));
    assert_false(allows(&o, "http://chat.example") || allows(&o, "http://localhost:8080"));
    origins_release(&o);
    assert_int_equal(origins_parse("*", 8080, NULL, &o, &err), TR_INVALID);
    assert_int_equal(origins_parse("http://::1:80", 8080, NULL, &o, &err), TR_INVALID);
    assert_int_equal(origins_parse("https://a/path", 8080, NULL, &o, &err), TR_INVALID);
}

/* ---- requests ---- */

static const struct head_row {
    const char *head;
    unsigned status;
} head_rows[] = {
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"GET / HTTP/1.0\r\n\r\n", 0},
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET /\r\nHost: a\r\n\r\n", 400},
    {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
    {"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
    {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
};

static void test_request_heads(void **state)
{
    struct http_request req;
    const char *message = NULL;

    (void)state;
    for (size_t i = 0; i < ROWS(head_rows); i++) {
        const char *head = head_rows[i].head;
        const unsigned status = http_parse((const uint8_t *)head, strlen(head), &req, &message);

        assert_int_equal(http_head_end((const uint8_t *)head, strlen(head), 0), strlen(head));
        if (status != head_rows[i].status)
            fail_msg("%s: %u", head, status);
    }
}

static struct slice slice(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

static void test_request_fields(void **state)
{
    struct slice value = {NULL, 0};
    char out[16];
    size_t at = 0, len = 0;

    (void)state;
    assert_true(http_cookie(slice("a=b; xtroupe=1; troupe=one ;troupe=\"two\""), "troupe", &at, &value));
    assert_true(value.len == 3 && memcmp(value.data, "one", 3) == 0);
    assert_true(http_cookie(slice("a=b; xtroupe=1; troupe=one ;troupe=\"two\""), "troupe", &at, &value));
    assert_true(value.len == 3 && memcmp(value.data, "two", 3) == 0);
    assert_false(http_cookie(slice("a=b; xtroupe=1; troupe=one ;troupe=\"two\""), "troupe", &at, &value));
    at = 0;
    assert_false(http_cookie((struct slice){NULL, 0}, "troupe", &at, &value));

    assert_int_equal(http_query(slice("a=1&limit=%320&b"), "limit", out, sizeof out, &len), 1);
    assert_string_equal(out, "20");
    assert_int_equal(http_query(slice("a=1"), "limit", out, sizeof out, &len), 0);
    assert_int_equal(http_query(slice("limit=1&limit=2"), "limit", out, sizeof out, &len), -1);
    assert_int_equal(http_query(slice("limit=%4"), "limit", out, sizeof out, &len), -1);
    assert_int_equal(http_query(slice("limit=0123456789012345"), "limit", out, sizeof out, &len), -1);

    assert_true(http_etag_matches(slice("\"a\", W/\"b\""), "\"b\"") && http_etag_matches(slice("*"), "\"b\""));
    assert_false(http_etag_matches(slice("\"ab\""), "\"b\"") || http_etag_matches(slice("b"), "\"b\""));
    assert_true(http_list_has(slice("keep-alive , Upgrade"), "upgrade") &&
                !http_list_has(slice("upgraded"), "upgrade"));
}

/* ---- frames ---- */

static void test_frame_parts(void **state)
{
    static const struct {
        const char *bytes;
        bool valid;
    } utf8[] = {{"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", true},
                {"\xc0\x80", false},
                {"\xed\xa0\x80", false},
                {"\xf4\x90\x80\x80", false},
                {"\xe0\x80\x80", false},
                {"\x80", false},
                {"0123456789abcdef\xff", false},
                {"\xf0\x8f\xbf\xbf", false},
                {"\xef\xbf\xbf", true}};
    char accept[FRAME_ACCEPT_TEXT];
    uint8_t head[FRAME_HEAD_MAX];

    (void)state;
    for (size_t i = 0; i < ROWS(utf8); i++) {
        struct frame_utf8 whole = {0}, bytes = {0};
        const uint8_t *s = (const uint8_t *)utf8[i].bytes;
        bool ok = true;

        assert_int_equal(frame_utf8_feed(&whole, s, strlen(utf8[i].bytes)) && whole.left == 0, utf8[i].valid);
        for (size_t k = 0; ok && s[k] != 0; k++)
            ok = frame_utf8_feed(&bytes, s + k, 1);
        assert_int_equal(ok && bytes.left == 0, utf8[i].valid);
    }
    frame_accept("dGhlIHNhbXBsZSBub25jZQ==", 24, accept); /* RFC 6455's own example */
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_int_equal(frame_head(head, FRAME_TEXT, 125), 2);
    assert_int_equal(frame_head(head, FRAME_TEXT, 126), 4);
    assert_int_equal(frame_head(head, FRAME_TEXT, 65536), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_good_requests),
        cmocka_unit_test(test_refusals_of_the_desk),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_request_heads),
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_frame_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
