/* Tests of text_personal().  In a row, what is to be found stands as kind:words, apart by '|'. */
#include "domain/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *text, *want;
} rows[] = {
    {"", ""},
    {"nothing here", ""},
    /* e-mail */
    {"write to Bob.Smith+chat@mail.example.org.", "e:Bob.Smith+chat@mail.example.org"},
    {"<a@b.de>, 'c_d@e-f.co.uk'!", "e:a@b.de|e:c_d@e-f.co.uk"},
    {"a@b", ""},
    {"a@b.c", ""},
    {"@b.org", ""},
    {"a.@b.org", ""},
    {"a..b@c.org", "e:b@c.org"},
    {"x@-bad.org", ""},
    {"x@bad-.org", ""},
    {"x@127.0.0.1", ""},
    {"a@b.org@c.org", "e:a@b.org"},
    {"schreib an j\xc3\xbcrgen@m\xc3\xbcller.de", "e:rgen@m\xc3\xbcller.de"},
    {"1234567890123456789012345678901234567890123456789012345678901234@x.org",
     "e:1234567890123456789012345678901234567890123456789012345678901234@x.org"},
    {"x1234567890123456789012345678901234567890123456789012345678901234@x.org", ""},
    {"4111111111111111@x.org", "e:4111111111111111@x.org"},
    /* cards: the numbers that payment providers publish for tests */
    {"my card: 4111 1111 1111 1111, 12/27", "c:4111 1111 1111 1111"},
    {"5555-5555-5555-4444", "c:5555-5555-5555-4444"},
    {"378282246310005", "c:378282246310005"},
    {"3782 822463 10005", "c:3782 822463 10005"},
    {"30569309025904 and 6011111111111117", "c:30569309025904|c:6011111111111117"},
    {"4222222222222", "c:4222222222222"},
    {"4111 1111 1111 1112", ""},
    {"4111-1111 1111-1111", ""},
    {"41111111111111111111", ""},
    {"x4111111111111111", ""},
    {"1700000000000", ""},
    /* phones */
    {"call +49 30 1234567 now", "p:+49 30 1234567"},
    {"tel:+4930123456", "p:+4930123456"},
    {"+1 (555) 123-4567", "p:+1 (555) 123-4567"},
    {"(555) 123-4567", "p:(555) 123-4567"},
    {"555-123-4567 or 555-1234", "p:555-123-4567|p:555-1234"},
    {"06 12 34 56 78", "p:06 12 34 56 78"},
    {"030/1234567", "p:030/1234567"},
    {"01701234567", "p:01701234567"},
    {"138 1234 5678", "p:138 1234 5678"},
    {"8 (912) 345-67-89", "p:8 (912) 345-67-89"},
    {"+123456", ""},
    {"+1234567890123456", ""},
    {"5551234567", ""},
    /* what looks like one */
    {"2024-01-01", ""},
    {"01.02.2024 10:30", ""},
    {"01/02/2024", ""},
    {"2024-01-01T10:20:30.123456Z", ""},
    {"2024-01-01 2024-01-02", ""},
    {"192.168.100.200", ""},
    {"10.0.0.1:8080", ""},
    {"0.12345678", ""},
    {"1 234 567", ""},
    {"123 456 789", ""},
    {"v1.2.3-20240101", ""},
    {"#555-123-4567", ""},
    {"018f22e2-79b0-7cc3-98c4-dc0c0c07398f", ""},
    {"DE89 3704 0044 0532 0130 00", ""},
    {"1, 2, 3, 1000000", ""},
    {"12345678901234567890", ""},
    /* in order */
    {"+49 30 1234567, a@b.org, 4111111111111111", "p:+49 30 1234567|e:a@b.org|c:4111111111111111"},
};

static void found(const char *text, size_t max, char ret[512])
{
    static const char letters[] = "?epc";
    struct personal_span spans[8];
    size_t n = text_personal(text, strlen(text), spans, max), at = 0;

    ret[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(ret + at, 512 - at, "%s%c:%.*s", i > 0 ? "|" : "", letters[spans[i].kind],
                               (int)spans[i].len, text + spans[i].start);
}

static void finds(void **state)
{
    char got[512];
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        found(rows[i].text, 8, got);
        if (strcmp(got, rows[i].want) != 0) {
            print_error("%s: found '%s', not '%s'\n", rows[i].text, got, rows[i].want);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void at_most(void **state)
{
    char got[512];

    (void)state;
    found("a@b.org c@d.org e@f.org", 2, got);
    assert_string_equal(got, "e:a@b.org|e:c@d.org");
    found("a@b.org", 0, got);
    assert_string_equal(got, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds), cmocka_unit_test(at_most)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
