/* Bytes as tokens bring them, cut anywhere, to whole characters and up to a stop (adapter/llama/pieces). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#ifdef TROUPE_WITH_LLAMA
#include "adapter/llama/pieces.h"
#include "domain/text.h"

#include <string.h>

static void test_pieces(void **state)
{
    static const struct pieces_stops stops = {.text = {"<|end|>", "### User"}, .n = 2};
    static const struct row {
        const char *name, *in, *want;
        bool stopped;
    } rows[] = {
        {"plain", "Hello there", "Hello there", false},
        {"white space at the ends", " \n Hi  there \n\n", "Hi  there", false},
        {"a character in two tokens", "caf\xc3\xa9", "caf\xc3\xa9", false},
        {"four bytes", "\xf0\x9f\x90\xb6!", "\xf0\x9f\x90\xb6!", false},
        {"cut at the end", "ab\xf0\x9f", "ab\xef\xbf\xbd", false},
        {"a lone continuation",
         "a\x80"
         "b",
         "a\xef\xbf\xbd"
         "b",
         false},
        {"lead, then a letter", "a\xe6\xb5z", "a\xef\xbf\xbdz", false},
        {"lead, then a lead", "\xe6\xc3\xa9", "\xef\xbf\xbd\xc3\xa9", false},
        {"a surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", false},
        {"overlong", "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", false},
        {"a stop", "Good night.\n<|end|>more", "Good night.", true},
        {"nearly a stop", "a <|end> b ### Uses", "a <|end> b ### Uses", false},
        {"a stop begun at the end", "so <|en", "so <|en", false},
        {"a stop at once", "### User: hi", "", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t len = strlen(rows[i].in);

        for (size_t step = 1; step <= len; step++) {
            struct pieces p = {.stops = &stops};
            struct buf out = {0};
            bool more = true;

            for (size_t at = 0; more && at < len; at += step) {
                more = pieces_feed(&p, rows[i].in + at, len - at < step ? len - at : step, &out);
                assert_true(text_utf8_valid(out.data, out.len));
            }
            if (more)
                pieces_end(&p, &out);
            if (more == rows[i].stopped || strcmp(buf_str(&out), rows[i].want) != 0)
                fail_msg("%s, by %zu: '%s'", rows[i].name, step, buf_str(&out));
            pieces_release(&p);
            buf_release(&out);
        }
    }
}
#endif

int main(void)
{
#ifdef TROUPE_WITH_LLAMA
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces)};

    return cmocka_run_group_tests_name("llama's pieces", tests, NULL, NULL);
#else
    return 77; /* skipped: this build has no libllama */
#endif
}
