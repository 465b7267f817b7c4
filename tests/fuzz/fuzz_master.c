/* A key file that is read gives a key that wraps and unwraps; the error never shows the file's words. */
#include "domain/seal.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seal_master *master = NULL;
    struct seal_key key, back;
    struct buf wrapped = {0};
    struct tr_err err = {0};

    if (seal_init(NULL) != TR_OK)
        return 0;
    if (seal_master_parse((const char *)data, size, &master, &err) != TR_OK) {
        FUZZ_CHECK(master == NULL && strncmp(err.msg, "master key: ", 12) == 0);
        return 0;
    }
    seal_key_new(1, &key);
    FUZZ_CHECK(seal_wrap(master, &key, SEAL_OWNER_USER, "u", &wrapped) == TR_OK);
    FUZZ_CHECK(seal_unwrap(master, wrapped.data, wrapped.len, SEAL_OWNER_USER, "u", &back, NULL) == TR_OK);
    FUZZ_CHECK(memcmp(&key, &back, sizeof key) == 0);
    buf_release(&wrapped);
    seal_master_free(master);
    return 0;
}
