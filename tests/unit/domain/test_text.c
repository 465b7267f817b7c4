/* Tests of domain/text: UTF-8, NFC, the rules of normalising, language. */
#include "domain/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define ROW(name, in, want)                                                                                            \
    {                                                                                                                  \
        name, in, sizeof(in) - 1, want, sizeof(want) - 1                                                               \
    }

static const struct row {
    const char *name;
    const char *in;
    size_t len;
    const char *want;
    size_t want_len;
} rows[] = {
    ROW("plain", "Hello, you!", "Hello, you!"),
    ROW("empty", "", ""),
    ROW("only white", " \t\r\n \xc2\xa0\n", ""),
    ROW("NFC composes", "e\xcc\x81", "\xc3\xa9"),
    ROW("NFC singleton: Angstrom", "\xe2\x84\xab", "\xc3\x85"),
    ROW("NFC orders marks", "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"), /* UAX 15, figure 5 */
    ROW("NFC composition exclusion", "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"),
    ROW("NFC Hangul", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"),
    ROW("NFC keeps ligatures", "\xef\xac\x81", "\xef\xac\x81"),
    ROW("composes over what is dropped", "e\xe2\x80\x8b\xcc\x81", "\xc3\xa9"),
    ROW("CRLF and CR", "a\r\nb\rc\n", "a\nb\nc"),
    ROW("other line ends",
        "a\xc2\x85"
        "b\x0b"
        "c\x0c"
        "d\xe2\x80\xa8"
        "e\xe2\x80\xa9"
        "f",
        "a\nb\nc\nd\ne\nf"),
    ROW("two empty lines stay", "a\n\n\nb", "a\n\n\nb"),
    ROW("more become two", "a\n\n\n\n \n\t\n\nb", "a\n\n\nb"),
    ROW("ends and line ends", "  a  b \t\n  c \xe3\x80\x80\n", "a  b\n  c"),
    ROW("controls", "a\0\x01\x1b[31m\x7f\xc2\x80\tb", "a[31m\tb"),
    ROW("zero width",
        "a\xe2\x80\x8b\xe2\x81\xa0\xef\xbb\xbf\xc2\xad"
        "b",
        "ab"),
    ROW("bidi",
        "a\xe2\x80\xae"
        "txt\xe2\x80\xac\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\x8e\xd8\x9c",
        "atxt"),
    ROW("fillers",
        "\xe3\x85\xa4"
        "a\xe1\x85\x9f\xef\xbe\xa0"
        "b",
        "ab"),
    ROW("tags hide words", "a\xf3\xa0\x81\xa8\xf3\xa0\x81\xa9", "a"),
    ROW("flag of Scotland",
        "\xf0\x9f\x8f\xb4\xf3\xa0\x81\xa7\xf3\xa0\x81\xa2\xf3\xa0\x81\xb3\xf3\xa0\x81\xa3\xf3\xa0\x81\xb4\xf3\xa0\x81"
        "\xbf",
        "\xf0\x9f\x8f\xb4\xf3\xa0\x81\xa7\xf3\xa0\x81\xa2\xf3\xa0\x81\xb3\xf3\xa0\x81\xa3\xf3\xa0\x81\xb4\xf3\xa0\x81"
        "\xbf"),
    ROW("flag without an end", "\xf0\x9f\x8f\xb4\xf3\xa0\x81\xa7\xf3\xa0\x81\xa2", "\xf0\x9f\x8f\xb4"),
    ROW("family stays", "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa6", "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa6"),
    ROW("heart on fire stays", "\xe2\x9d\xa4\xef\xb8\x8f\xe2\x80\x8d\xf0\x9f\x94\xa5",
        "\xe2\x9d\xa4\xef\xb8\x8f\xe2\x80\x8d\xf0\x9f\x94\xa5"),
    ROW("skin tone and joiner", "\xf0\x9f\xa7\x91\xf0\x9f\x8f\xbd\xe2\x80\x8d\xf0\x9f\x9a\x80",
        "\xf0\x9f\xa7\x91\xf0\x9f\x8f\xbd\xe2\x80\x8d\xf0\x9f\x9a\x80"),
    ROW("keycap stays", "1\xef\xb8\x8f\xe2\x83\xa3", "1\xef\xb8\x8f\xe2\x83\xa3"),
    ROW("selector after a digit", "1\xef\xb8\x8f.", "1."),
    ROW("selectors hide bytes", "\xe2\x9d\xa4\xef\xb8\x8f\xef\xb8\x81\xf3\xa0\x84\x80", "\xe2\x9d\xa4\xef\xb8\x8f"),
    ROW("Han variant", "\xe8\x91\x9b\xf3\xa0\x84\x80", "\xe8\x91\x9b\xf3\xa0\x84\x80"),
    ROW("joiners among Latin letters",
        "a\xe2\x80\x8d"
        "b\xe2\x80\x8c"
        "c",
        "abc"),
    ROW("Persian ZWNJ stays", "\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xb1", "\xd9\x85\xdb\x8c\xe2\x80\x8c\xd8\xb1"),
    ROW("only one joiner", "\xd9\x85\xe2\x80\x8c\xe2\x80\x8c\xe2\x80\x8d\xd8\xb1", "\xd9\x85\xe2\x80\x8c\xd8\xb1"),
    ROW("Devanagari ZWJ stays", "\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d", "\xe0\xa4\x95\xe0\xa5\x8d\xe2\x80\x8d"),
    ROW("noncharacters",
        "a\xef\xbf\xbe\xef\xb7\x90"
        "b",
        "ab"),
    ROW("replacement character stays", "\xef\xbf\xbd", "\xef\xbf\xbd"),
};

static void normalises(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf once = {0}, twice = {0};

        assert_int_equal(text_normalise(rows[i].in, rows[i].len, &once, NULL), TR_OK);
        if (once.len != rows[i].want_len || (once.len > 0 && memcmp(once.data, rows[i].want, once.len) != 0))
            fail_msg("%s: '%s'", rows[i].name, buf_str(&once));
        assert_int_equal(text_normalise((const char *)once.data, once.len, &twice, NULL), TR_OK);
        assert_int_equal(twice.len, once.len);
        buf_release(&once);
        buf_release(&twice);
    }
}

static void invalid_utf8(void **state)
{
    static const struct {
        const char *bytes, *cause;
    } bad[] = {
        {"ab\xff", "not valid UTF-8 at byte 2"},           {"\xc3", "not valid UTF-8 at byte 0"},
        {"a\xc0\x80", "not valid UTF-8 at byte 1"},        {"\xed\xa0\x80", "not valid UTF-8 at byte 0"},
        {"\xf4\x90\x80\x80", "not valid UTF-8 at byte 0"}, {"\xe0\x80\xaf", "not valid UTF-8 at byte 0"},
        {"abc\x80", "not valid UTF-8 at byte 3"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf out = {0};
        struct tr_err err = {0};
        size_t chars = 77;

        assert_false(text_utf8_valid(bad[i].bytes, strlen(bad[i].bytes)));
        assert_int_equal(text_normalise(bad[i].bytes, strlen(bad[i].bytes), &out, &err), TR_INVALID);
        assert_string_equal(err.msg, bad[i].cause);
        assert_int_equal(text_nfc_length(bad[i].bytes, strlen(bad[i].bytes), &chars, NULL), TR_INVALID);
        assert_int_equal(chars, 77);
        assert_int_equal(out.len, 0);
        buf_release(&out);
    }
    assert_true(text_utf8_valid("\xf4\x8f\xbf\xbf\0z", 6));
}

static void lengths_and_prefixes(void **state)
{
    static const char s[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    static const size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    size_t n;

    (void)state;
    for (size_t len = 0; len < sizeof s; len++)
        assert_int_equal(text_utf8_prefix(s, len), want[len]);
    assert_int_equal(text_length(s, sizeof s - 1), 4);
    assert_int_equal(text_nfc_length("e\xcc\x81\xcc\x81", 5, &n, NULL), TR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(text_nfc_length("", 0, &n, NULL), TR_OK);
    assert_int_equal(n, 0);
}

/* A frame full of marks in the worst order must not hold up a gateway. */
static void marks_take_linear_time(void **state)
{
    struct buf s = {0};
    clock_t start;
    size_t n;

    (void)state;
    buf_add_str(&s, "a");
    for (int i = 0; i < 32000; i++)
        buf_add_str(&s, i % 2 == 0 ? "\xcc\x81" : "\xcc\xa3");
    start = clock();
    assert_int_equal(text_nfc_length((const char *)s.data, s.len, &n, NULL), TR_OK);
    assert_int_equal(n, 32000); /* a and the dot below compose */
    assert_true(clock() - start < CLOCKS_PER_SEC / 4);
    buf_release(&s);
}

static void languages(void **state)
{
    static const struct {
        const char *text, *want;
    } known[] = {
        {"Good evening! I have been walking through the old town all day and would love a cup of tea.", "en"},
        {"Guten Abend! Ich bin den ganzen Tag durch die Altstadt gelaufen und hätte gern eine Tasse Tee.", "de"},
        {"Bonsoir ! J'ai marché toute la journée dans la vieille ville et je voudrais une tasse de thé.", "fr"},
        {"Добрый вечер! Я весь день гулял по старому городу и хотел бы выпить чашку чая.", "ru"},
        {"こんばんは。一日中旧市街を歩いていたので、お茶を一杯いただきたいです。", "ja"},
        {"ערב טוב! הלכתי כל היום בעיר העתיקה ואשמח לכוס תה.", "he"},
        {"ok", ""},
        {"", ""},
        {"1234 5678 !!!", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char code[8] = "?";

        text_language(known[i].text, strlen(known[i].text), code);
        if (strcmp(code, known[i].want) != 0)
            fail_msg("%s: '%s', not '%s'", known[i].text, code, known[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalises),
        cmocka_unit_test(invalid_utf8),
        cmocka_unit_test(lengths_and_prefixes),
        cmocka_unit_test(marks_take_linear_time),
        cmocka_unit_test(languages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
