/* No text is a token but the one that was made: the input is laid over a good token, and only no change is taken. */
#include "domain/seal.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char file[] = "1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    static struct seal_master *master;
    struct uuid user = {{9}}, back;
    uint64_t expires;
    char token[SEAL_TOKEN_MAX], changed[SEAL_TOKEN_MAX];
    size_t len;

    if (master == NULL &&
        (seal_init(NULL) != TR_OK || seal_master_parse(file, sizeof file - 1, &master, NULL) != TR_OK))
        abort();
    seal_token(master, &user, 1000, token);
    len = strlen(token);
    FUZZ_CHECK(seal_token_check(master, token, len, 999, &back, &expires) == TR_OK && uuid_eq(&user, &back));
    if (seal_token_check(master, (const char *)data, size, 999, &back, &expires) == TR_OK)
        FUZZ_CHECK(size == len && memcmp(data, token, len) == 0);
    memcpy(changed, token, sizeof changed);
    for (size_t i = 1; i < size; i++) /* the first byte: where it is laid */
        changed[(data[0] + i) % len] = (char)data[i];
    if (memcmp(changed, token, len) != 0)
        FUZZ_CHECK(seal_token_check(master, changed, len, 999, &back, &expires) == TR_INVALID);
    return 0;
}
