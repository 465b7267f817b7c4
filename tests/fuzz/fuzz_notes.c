/* What decode accepts comes back from encode, and its spans lie inside the text. */
#include "domain/notes.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct notes notes, back;
    struct buf once = {0}, twice = {0};

    if (notes_decode(data, size, &notes, NULL) != TR_OK)
        return 0;
    for (size_t i = 0; i < notes.spans_n; i++)
        FUZZ_CHECK((uint64_t)notes.spans[i].start + notes.spans[i].len <= notes.normalised.len);
    FUZZ_CHECK(notes_encode(&notes, &once) == TR_OK);
    FUZZ_CHECK(notes_decode(once.data, once.len, &back, NULL) == TR_OK);
    FUZZ_CHECK(notes_encode(&back, &twice) == TR_OK);
    FUZZ_CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    buf_release(&once);
    buf_release(&twice);
    return 0;
}
