/* What S3 answers: elements lie within the answer, the reading goes on and ends, texts fit and hold no 0. */
#include "fuzz.h"

#include "adapter/s3/impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const tags[] = {"Contents", "Key", "Upload", "Code", "K"};
    const struct slice doc = {data, size};
    char small[8], large[256];

    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        struct slice text = {0};
        size_t at = 0, before = 0;

        while (s3_xml_next(doc, tags[i], &at, &text)) {
            FUZZ_CHECK(text.data >= data && text.data + text.len <= data + size && at > before && at <= size);
            before = at;
            if (s3_xml_text(text, "Key", large, sizeof large))
                FUZZ_CHECK(strlen(large) < sizeof large);
        }
        FUZZ_CHECK(at == before);
        if (s3_xml_text(doc, tags[i], small, sizeof small)) { /* what fits the small fits the large, and is the same */
            FUZZ_CHECK(s3_xml_text(doc, tags[i], large, sizeof large) && strcmp(small, large) == 0);
            (void)s3_xml_time(small);
        }
    }
    if (size < sizeof large) {
        memcpy(large, data, size);
        large[size] = '\0';
        FUZZ_CHECK(s3_xml_time(large) % 1000 == 0);
    }
    return 0;
}
