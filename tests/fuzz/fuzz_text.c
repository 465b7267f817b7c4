/*
 * Normalising: refuses just what is not UTF-8; gives valid UTF-8 in NFC, without what must go; twice is once.  The length in
 * NFC is that of utf8proc's own NFC.
 */
#include <utf8proc.h>

#include "domain/text.h"
#include "fuzz.h"

static void check_result(const struct buf *b)
{
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n = utf8proc_map(b->data, (utf8proc_ssize_t)b->len, &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);

    FUZZ_CHECK(n >= 0 && (size_t)n == b->len && (n == 0 || memcmp(nfc, b->data, b->len) == 0));
    free(nfc);
    for (size_t i = 0; i < b->len; i++)
        FUZZ_CHECK((b->data[i] >= 0x20 && b->data[i] != 0x7f) || b->data[i] == '\n' || b->data[i] == '\t');
    FUZZ_CHECK(memmem(b->data, b->len, "\n\n\n\n", 4) == NULL && memmem(b->data, b->len, " \n", 2) == NULL);
    FUZZ_CHECK(memmem(b->data, b->len, "\xe2\x80\xae", 3) == NULL &&
               memmem(b->data, b->len, "\xe2\x80\x8b", 3) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    struct buf once = {0}, twice = {0};
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n;
    size_t length = 0;
    char code[8];
    bool valid = text_utf8_valid(data, size);

    FUZZ_CHECK(text_utf8_prefix(s, size) <= size);
    if (text_normalise(s, size, &once, NULL) != TR_OK) {
        FUZZ_CHECK(!valid && once.len == 0);
        return 0;
    }
    FUZZ_CHECK(valid);
    for (size_t cut = 0; cut < size; cut += 7)
        FUZZ_CHECK(text_utf8_valid(s, text_utf8_prefix(s, cut)));
    if (once.len > 0)
        check_result(&once);
    FUZZ_CHECK(text_normalise((const char *)once.data, once.len, &twice, NULL) == TR_OK);
    FUZZ_CHECK(once.len == twice.len && (once.len == 0 || memcmp(once.data, twice.data, once.len) == 0));
    n = utf8proc_map(data, (utf8proc_ssize_t)size, &nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    FUZZ_CHECK(text_nfc_length(s, size, &length, NULL) == TR_OK);
    FUZZ_CHECK(n >= 0 && length == text_length((const char *)nfc, (size_t)n));
    text_language(s, size, code);
    FUZZ_CHECK(strlen(code) < 8);
    free(nfc);
    buf_release(&once);
    buf_release(&twice);
    return 0;
}
