/* Nothing opens that was not sealed: neither the input itself nor a sealed text with the input laid over it. */
#include "domain/seal.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct seal_bind bind = {.kind = SEAL_HISTORY, .role = 1};
    struct seal_key key = {.key = {1, 2, 3}};
    struct buf sealed = {0}, plain = {0};
    struct uuid id;
    bool changed = false;

    if (seal_init(NULL) != TR_OK)
        return 0;
    FUZZ_CHECK(seal_open(&key, &bind, data, size, &plain, NULL) == TR_INVALID && plain.len == 0);
    FUZZ_CHECK(seal_key_id(data, size, &id) == (size >= SEAL_OVERHEAD));
    FUZZ_CHECK(seal_data(&key, &bind, data, size, &sealed) == TR_OK);
    FUZZ_CHECK(seal_open(&key, &bind, sealed.data, sealed.len, &plain, NULL) == TR_OK);
    FUZZ_CHECK(plain.len == size && (size == 0 || memcmp(plain.data, data, size) == 0));
    for (size_t i = 1; i < size; i++) {
        changed = changed || sealed.data[(data[0] + i) % sealed.len] != data[i];
        sealed.data[(data[0] + i) % sealed.len] = data[i];
    }
    if (changed)
        FUZZ_CHECK(seal_open(&key, &bind, sealed.data, sealed.len, &plain, NULL) == TR_INVALID);
    buf_release(&sealed);
    buf_release(&plain);
    return 0;
}
