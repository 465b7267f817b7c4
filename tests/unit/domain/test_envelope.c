/* Tests of domain/envelope. */
#include "domain/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIND "\x01\0\0\0\x01\x02" /* ENVELOPE_STATUS */
#define ROW(name, bytes, rc, cause)                                                                                    \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1, rc, cause                                                                      \
    }

static const struct row {
    const char *name;
    const char *bytes;
    size_t len;
    enum tr_rc want;
    const char *cause;
} rows[] = {
    ROW("smallest", "TE\x01" KIND, TR_OK, NULL),
    ROW("unknown tags are skipped", "TE\x01\xfe\0\0\0\x02xx" KIND "\x00\0\0\0\0\xfd\0\0\0\x01z", TR_OK, NULL),
    ROW("a zero in full", "TE\x01" KIND "\x09\0\0\0\x04\0\0\0\0", TR_OK, NULL),
    ROW("nothing", "", TR_INVALID, "envelope: not one"),
    ROW("no magic", "XE\x01" KIND, TR_INVALID, "envelope: not one"),
    ROW("version 2", "TE\x02" KIND, TR_INVALID, "envelope: unknown version 2"),
    ROW("no kind", "TE\x01", TR_INVALID, "envelope: kind: missing"),
    ROW("kind 0", "TE\x01\x01\0\0\0\x01\0", TR_INVALID, "envelope: kind: missing"),
    ROW("unknown kind", "TE\x01\x01\0\0\0\x01\x0a", TR_INVALID, "envelope: kind: unknown value"),
    ROW("kind twice", "TE\x01" KIND KIND, TR_INVALID, "envelope: kind: twice"),
    ROW("cut in a head", "TE\x01" KIND "\x09\0\0", TR_INVALID, "envelope: cut at byte 9"),
    ROW("cut in a value", "TE\x01" KIND "\x09\0\0\0\x04\0\0\0", TR_INVALID, "envelope: cut at byte 9"),
    ROW("huge length", "TE\x01" KIND "\x19\xff\xff\xff\xffx", TR_INVALID, "envelope: cut at byte 9"),
    ROW("bytes left over", "TE\x01" KIND "x", TR_INVALID, "envelope: cut at byte 9"),
    ROW("short uuid", "TE\x01" KIND "\x02\0\0\0\x01x", TR_INVALID, "envelope: chat: wrong length"),
    ROW("state", "TE\x01" KIND "\x11\0\0\0\x01\x04", TR_INVALID, "envelope: state: unknown value"),
    ROW("finish", "TE\x01" KIND "\x12\0\0\0\x01\x05", TR_INVALID, "envelope: finish: unknown value"),
    ROW("snapshot", "TE\x01" KIND "\x18\0\0\0\x01\x02", TR_INVALID, "envelope: snapshot: unknown value"),
    ROW("trace",
        "TE\x01" KIND "\x07\0\0\0\x21"
        "012345678901234567890123456789012",
        TR_INVALID, "envelope: trace: too long"),
    ROW("a 0 in a text",
        "TE\x01" KIND "\x06\0\0\0\x03"
        "a\0b",
        TR_INVALID, "envelope: character: control characters"),
    ROW("code",
        "TE\x01" KIND "\x13\0\0\0\x18"
        "012345678901234567890123",
        TR_INVALID, "envelope: code: too long"),
};

static void decodes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct envelope env = {.variant = 77};
        struct tr_err err = {0};
        char *exact = malloc(rows[i].len + 1); /* so that a read past the end is caught */
        enum tr_rc rc;

        memcpy(exact, rows[i].bytes, rows[i].len);
        exact = realloc(exact, rows[i].len > 0 ? rows[i].len : 1);
        rc = envelope_decode(exact, rows[i].len, &env, &err);
        if (rc != rows[i].want || (rows[i].cause != NULL && strcmp(err.msg, rows[i].cause) != 0))
            fail_msg("%s: %s, %s", rows[i].name, tr_rc_name(rc), err.msg);
        assert_int_equal(env.variant, rc == TR_OK ? 0 : 77); /* untouched on failure */
        free(exact);
    }
}

static struct envelope full(void)
{
    struct envelope env = {.kind = ENVELOPE_REPLY, .variant = 3, .rev = INT32_MAX, .attempt = UINT64_MAX, .offset = 1};

    for (int i = 0; i < 16; i++) {
        env.chat.b[i] = (uint8_t)(i + 1);
        env.turn.b[i] = (uint8_t)(i + 2);
        env.predecessor.b[i] = (uint8_t)(i + 3);
        env.user.b[i] = (uint8_t)(i + 4);
    }
    memset(env.character, 'c', CHARACTER_ID_MAX);
    memset(env.trace, 't', ENVELOPE_TRACE_MAX);
    memset(env.origin, 'o', ENVELOPE_ORIGIN_MAX);
    memset(env.code, 'e', sizeof env.code - 1);
    env.change = 5;
    env.index = 6;
    env.created_ms = UINT64_C(1700000000000);
    env.position = UINT32_MAX;
    env.state = STATE_WRITING;
    env.finish = FINISH_ERROR;
    env.prompt_tokens = 1;
    env.cached_tokens = 2;
    env.completion_tokens = 3;
    env.ttft_ms = 4;
    env.snapshot = true;
    env.again = true;
    env.sealed = (struct slice){(const uint8_t *)"\0sealed", 7};
    return env;
}

static void comes_back(void **state)
{
    struct envelope env = full(), back;
    struct buf bytes = {0}, again = {0};

    (void)state;
    assert_int_equal(envelope_encode(&env, &bytes), TR_OK);
    assert_int_equal(envelope_decode(bytes.data, bytes.len, &back, NULL), TR_OK);
    assert_int_equal(back.rev, INT32_MAX);
    assert_true(back.attempt == UINT64_MAX && back.created_ms == UINT64_C(1700000000000) && back.snapshot &&
                back.again);
    assert_string_equal(back.origin, env.origin);
    assert_string_equal(back.code, env.code);
    assert_int_equal(back.sealed.len, 7);
    assert_memory_equal(back.sealed.data, "\0sealed", 7);
    assert_int_equal(envelope_encode(&back, &again), TR_OK); /* every field: encoding is a function of them all */
    assert_int_equal(again.len, bytes.len);
    assert_memory_equal(again.data, bytes.data, bytes.len);
    for (size_t cut = 0; cut < bytes.len; cut++) { /* never read past the end; a cut between fields may be one */
        char *part = malloc(cut > 0 ? cut : 1);

        memcpy(part, bytes.data, cut);
        (void)!envelope_decode(part, cut, &back, NULL);
        free(part);
    }
    buf_release(&bytes);
    buf_release(&again);
}

/* It goes behind the bytes of one that has none; a reach of a later version is no reason to refuse the rest. */
static void reach(void **state)
{
    struct envelope env = full(), back;
    struct buf bytes = {0}, marked = {0};

    (void)state;
    assert_int_equal(envelope_encode(&env, &bytes), TR_OK);
    assert_int_equal(envelope_with_reach((struct slice){bytes.data, bytes.len}, REACH_RECORDED, &marked), TR_OK);
    assert_int_equal(envelope_decode(marked.data, marked.len, &back, NULL), TR_OK);
    assert_int_equal(back.reach, REACH_RECORDED);
    assert_string_equal(back.code, env.code);
    assert_memory_equal(back.sealed.data, "\0sealed", 7);
    back.reach = 77;
    buf_clear(&bytes);
    assert_int_equal(envelope_encode(&back, &bytes), TR_OK);
    assert_int_equal(envelope_decode(bytes.data, bytes.len, &back, NULL), TR_OK);
    assert_int_equal(back.reach, 77);
    buf_release(&bytes);
    buf_release(&marked);
}

static void zeros_are_left_out(void **state)
{
    struct envelope env = {.kind = ENVELOPE_STATUS};
    struct buf bytes = {0};

    (void)state;
    assert_int_equal(envelope_encode(&env, &bytes), TR_OK);
    assert_int_equal(bytes.len, 9);
    assert_memory_equal(bytes.data, "TE\x01" KIND, 9);
    buf_release(&bytes);
}

static void limits(void **state)
{
    uint8_t *big = calloc(1, ENVELOPE_BYTES_MAX + 1);
    struct envelope env = full(), back;
    struct buf bytes = {0};
    struct tr_err err;

    (void)state;
    env.sealed = (struct slice){big, ENVELOPE_SEALED_MAX};
    assert_int_equal(envelope_encode(&env, &bytes), TR_OK);
    assert_true(bytes.len <= ENVELOPE_BYTES_MAX);
    assert_int_equal(envelope_decode(bytes.data, bytes.len, &back, NULL), TR_OK);
    env.sealed.len++;
    bytes.len = 3;
    assert_int_equal(envelope_encode(&env, &bytes), TR_INVALID);
    assert_int_equal(bytes.len, 3);
    memcpy(big, "TE\x01" KIND, 9);
    assert_int_equal(envelope_decode(big, ENVELOPE_BYTES_MAX + 1, &back, &err), TR_INVALID);
    assert_string_equal(err.msg, "envelope: over 1048576 bytes");
    buf_release(&bytes);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes), cmocka_unit_test(comes_back),
        cmocka_unit_test(reach),   cmocka_unit_test(zeros_are_left_out),
        cmocka_unit_test(limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
