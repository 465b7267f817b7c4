/* A file's type: told by its beginning alone, never of what could be text, and a type that has a name. */
#include "fuzz.h"

#include "domain/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const enum media_type type = media_sniff(data, size);

    FUZZ_CHECK(type < MEDIA_TYPE_COUNT);
    FUZZ_CHECK((type == MEDIA_NONE) == (media_kind(type) == MEDIA_OTHER));
    if (size > MEDIA_SNIFF)
        FUZZ_CHECK(media_sniff(data, MEDIA_SNIFF) == type);
    if (type == MEDIA_NONE)
        return 0;
    FUZZ_CHECK(strchr("< \t\r\n%{", data[0]) == NULL || data[0] == '\0');
    for (size_t n = 0; n < 4; n++) /* less than that tells nothing */
        FUZZ_CHECK(media_sniff(data, n) == MEDIA_NONE);
    return 0;
}
