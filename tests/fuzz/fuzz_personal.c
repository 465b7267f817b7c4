/* Spans are in order, apart, inside the text, and of the shape of their kind; a smaller maximum gives a prefix of them. */
#include "domain/text.h"
#include "fuzz.h"

static size_t digits_of(const uint8_t *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += s[i] >= '0' && s[i] <= '9';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct personal_span spans[16], few[2];
    size_t n = text_personal((const char *)data, size, spans, 16), end = 0, few_n;

    FUZZ_CHECK(n <= 16);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *s = data + spans[i].start;
        size_t digits = digits_of(s, spans[i].len);

        FUZZ_CHECK(spans[i].len > 0 && spans[i].start >= end);
        end = (size_t)spans[i].start + spans[i].len;
        FUZZ_CHECK(end <= size);
        if (spans[i].kind == PERSONAL_EMAIL)
            FUZZ_CHECK(memchr(s, '@', spans[i].len) != NULL && spans[i].len <= 64 + 1 + 253);
        else if (spans[i].kind == PERSONAL_PHONE)
            FUZZ_CHECK(digits >= 7 && digits <= 15);
        else
            FUZZ_CHECK(digits >= 13 && digits <= 19);
    }
    few_n = text_personal((const char *)data, size, few, 2);
    FUZZ_CHECK(few_n == (n < 2 ? n : 2) && memcmp(few, spans, few_n * sizeof few[0]) == 0);
    return 0;
}
