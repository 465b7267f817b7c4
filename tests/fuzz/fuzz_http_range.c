/* The Range header: what is taken lies within the thing, and written anew it is the same range. */
#include "fuzz.h"

#include "role/common/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t length = 0, from = 7, to = 3, again_from, again_to;
    enum http_ranged ranged;
    char text[64];

    if (size < 8)
        return 0;
    memcpy(&length, data, 8);
    length %= data[0] % 4 != 0 ? 100 : UINT64_C(1000000000000000000); /* more digits are not read */
    ranged = http_range((struct slice){data + 8, size - 8}, length, &from, &to);
    if (ranged != HTTP_PART) {
        FUZZ_CHECK(from == 7 && to == 3);
        return 0;
    }
    FUZZ_CHECK(from < to && to <= length);
    snprintf(text, sizeof text, "bytes=%llu-%llu", (unsigned long long)from, (unsigned long long)(to - 1));
    FUZZ_CHECK(http_range((struct slice){(const uint8_t *)text, strlen(text)}, length, &again_from, &again_to) ==
               HTTP_PART);
    FUZZ_CHECK(again_from == from && again_to == to);
    return 0;
}
