/* Tests of domain/notes. */
#include "domain/notes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT "\x04\0\0\0\x05hello"
#define SPAN(kind, start, len) kind "\0\0\0" start "\0\0\0" len
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
    ROW("empty", "TN\x01", TR_OK, NULL),
    ROW("a span before its text", "TN\x01\x05\0\0\0\x09" SPAN("\x01", "\x01", "\x04") TEXT, TR_OK, NULL),
    ROW("unknown tag", "TN\x01" TEXT "\x77\0\0\0\x01z", TR_OK, NULL),
    ROW("span of a newer kind", "TN\x01" TEXT "\x05\0\0\0\x09" SPAN("\x09", "\xff", "\xff"), TR_OK, NULL),
    ROW("no magic", "TE\x01", TR_INVALID, "notes: not any"),
    ROW("version", "TN\x02", TR_INVALID, "notes: unknown version 2"),
    ROW("cut", "TN\x01\x04\0\0\0\x05hell", TR_INVALID, "notes: cut at byte 3"),
    ROW("twice", "TN\x01" TEXT TEXT, TR_INVALID, "notes: field 4: twice"),
    ROW("negative rev", "TN\x01\x01\0\0\0\x04\xff\xff\xff\xff", TR_INVALID, "notes: rev: negative"),
    ROW("language",
        "TN\x01\x02\0\0\0\x08"
        "zh-Hanta",
        TR_INVALID, "notes: language: too long"),
    ROW("span cut", "TN\x01" TEXT "\x05\0\0\0\x08\x01\0\0\0\0\0\0\0", TR_INVALID, "notes: spans: wrong length"),
    ROW("span kind 0", "TN\x01" TEXT "\x05\0\0\0\x09" SPAN("\0", "\0", "\x01"), TR_INVALID,
        "notes: spans: unknown kind"),
    ROW("span outside", "TN\x01" TEXT "\x05\0\0\0\x09" SPAN("\x01", "\x01", "\x05"), TR_INVALID,
        "notes: spans: outside of the text or out of order"),
    ROW("span without a text", "TN\x01\x05\0\0\0\x09" SPAN("\x01", "\0", "\x01"), TR_INVALID,
        "notes: spans: outside of the text or out of order"),
    ROW("overlapping", "TN\x01" TEXT "\x05\0\0\0\x12" SPAN("\x01", "\0", "\x02") SPAN("\x01", "\x01", "\x02"),
        TR_INVALID, "notes: spans: outside of the text or out of order"),
    ROW("a huge span", "TN\x01" TEXT "\x05\0\0\0\x09\x01\xff\xff\xff\xff\xff\xff\xff\xff", TR_INVALID,
        "notes: spans: outside of the text or out of order"),
};

static void decodes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct notes notes = {.rev = 5};
        struct tr_err err = {0};
        enum tr_rc rc = notes_decode(rows[i].bytes, rows[i].len, &notes, &err);

        if (rc != rows[i].want || (rows[i].cause != NULL && strcmp(err.msg, rows[i].cause) != 0))
            fail_msg("%s: %s, %s", rows[i].name, tr_rc_name(rc), err.msg);
        assert_int_equal(notes.rev, rc == TR_OK ? 0 : 5);
    }
}

static void comes_back(void **state)
{
    struct notes notes = {.rev = 2,
                          .language = "zh-Hant",
                          .raw = {(const uint8_t *)"a\0b", 3},
                          .normalised = {(const uint8_t *)"mail me: a@b.org or +4930123456", 31},
                          .spans_n = 2};
    struct notes back;
    struct buf bytes = {0};

    (void)state;
    notes.spans[0] = (struct personal_span){PERSONAL_EMAIL, 9, 7};
    notes.spans[1] = (struct personal_span){PERSONAL_PHONE, 20, 11};
    assert_int_equal(notes_encode(&notes, &bytes), TR_OK);
    assert_int_equal(notes_decode(bytes.data, bytes.len, &back, NULL), TR_OK);
    assert_int_equal(back.rev, 2);
    assert_string_equal(back.language, "zh-Hant");
    assert_int_equal(back.raw.len, 3);
    assert_memory_equal(back.raw.data, "a\0b", 3);
    assert_int_equal(back.normalised.len, 31);
    assert_int_equal(back.spans_n, 2);
    assert_int_equal(back.spans[1].kind, PERSONAL_PHONE);
    assert_int_equal(back.spans[1].start, 20);
    assert_int_equal(back.spans[1].len, 11);
    bytes.len = 0;
    notes.raw.data = NULL; /* absent is not empty */
    notes.raw.len = 0;
    assert_int_equal(notes_encode(&notes, &bytes), TR_OK);
    assert_int_equal(notes_decode(bytes.data, bytes.len, &back, NULL), TR_OK);
    assert_null(back.raw.data);
    buf_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decodes), cmocka_unit_test(comes_back)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
