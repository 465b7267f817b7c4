/* What parses is, formatted, the same text in small letters; the one after it is greater and a v7. */
#include "domain/uuid.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t random[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct uuid id, after;
    char text[UUID_TEXT];

    if (size >= 24) { /* any bytes as an id, the next 8 as a time */
        uint64_t ms;

        memcpy(id.b, data, 16);
        memcpy(&ms, data + 16, 8);
        after = uuid_v7_after(&id, ms, random);
        if (uuid_ms(&id) < (UINT64_C(1) << 48) - 1)
            FUZZ_CHECK(uuid_cmp(&after, &id) > 0 && after.b[6] >> 4 == 7 && after.b[8] >> 6 == 2);
    }
    if (!uuid_parse((const char *)data, size, &id))
        return 0;
    uuid_format(&id, text);
    FUZZ_CHECK(size == 36 && strlen(text) == 36);
    for (size_t i = 0; i < 36; i++)
        FUZZ_CHECK(text[i] == (data[i] >= 'A' && data[i] <= 'F' ? data[i] + 32 : data[i]));
    return 0;
}
