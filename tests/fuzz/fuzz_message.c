/* A user's message as it rests: whatever decode accepts, encode gives back byte for byte; what lies in it lies within. */
#include "fuzz.h"

#include "domain/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message m;
    struct buf again = {0}, told = {0};

    if (message_decode(data, size, &m, NULL) != TR_OK) {
        FUZZ_CHECK(size > 0 && data[0] == 0xff); /* text is never refused: old rows are nothing else */
        return 0;
    }
    FUZZ_CHECK(m.media_n <= MESSAGE_MEDIA_MAX && m.len <= size && (m.media_n > 0 || m.len == size));
    FUZZ_CHECK(message_encode(&m, &again) == TR_OK);
    FUZZ_CHECK(again.len == size && (size == 0 || memcmp(again.data, data, size) == 0));
    message_tell(m.media, m.media_n, m.text, m.len, &told);
    FUZZ_CHECK(!told.failed && told.len >= m.len && (m.media_n > 0) == (told.len > m.len));
    FUZZ_CHECK(m.len == 0 || memcmp(told.data + told.len - m.len, m.text, m.len) == 0);
    buf_release(&again);
    buf_release(&told);
    return 0;
}
