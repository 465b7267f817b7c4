/* What decode accepts, encode gives back as bytes that decode to the same (a second encoding is byte for byte the first). */
#include "domain/envelope.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct envelope env, back;
    struct buf once = {0}, twice = {0};

    if (envelope_decode(data, size, &env, NULL) != TR_OK || env.sealed.len > ENVELOPE_SEALED_MAX)
        return 0;
    FUZZ_CHECK(envelope_encode(&env, &once) == TR_OK);
    FUZZ_CHECK(once.len <= size);
    FUZZ_CHECK(envelope_decode(once.data, once.len, &back, NULL) == TR_OK);
    FUZZ_CHECK(envelope_encode(&back, &twice) == TR_OK);
    FUZZ_CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    FUZZ_CHECK(env.sealed.len == back.sealed.len && env.attempt == back.attempt && env.kind == back.kind);
    buf_release(&once);
    buf_release(&twice);
    return 0;
}
