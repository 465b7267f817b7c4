/*
 * The sealed pieces of a file: what comes in opens as none of them, and one of ours that the input is laid over opens no
 * more; what was sealed opens as itself, at its place alone.
 */
#include "fuzz.h"

#include "domain/media.h"

static const struct seal_key key = {.key = {1, 2, 3}};
static const struct uuid owner = {{1}}, id = {{2}};

static void overlay(struct buf *b, const uint8_t *data, size_t size, bool *ret_changed)
{
    *ret_changed = false;
    for (size_t i = 1; i < size; i++) {
        uint8_t *const at = &b->data[(data[0] + i) % b->len];

        *ret_changed = *ret_changed || *at != data[i];
        *at = data[i];
    }
}

static void head_of(const uint8_t *data, size_t size)
{
    struct media_head head = {.type = MEDIA_PNG, .bytes = 1, .created_ms = 3}, got = {0};
    struct buf sealed = {0};
    uint64_t stored;
    bool changed;

    if (size >= 8)
        memcpy(&head.bytes, data, 8);
    head.bytes = head.bytes % MEDIA_SIZE_MAX + 1;
    stored = media_sealed_size(head.bytes);
    FUZZ_CHECK(media_open_head(&key, &owner, &id, data, size, size, &got, NULL) == TR_INVALID);
    FUZZ_CHECK(media_seal_head(&key, &owner, &id, &head, &sealed) == TR_OK && sealed.len == MEDIA_HEAD);
    FUZZ_CHECK(media_open_head(&key, &owner, &id, sealed.data, sealed.len, stored, &got, NULL) == TR_OK);
    FUZZ_CHECK(got.type == head.type && got.bytes == head.bytes && got.created_ms == 3);
    FUZZ_CHECK(media_open_head(&key, &owner, &id, sealed.data, sealed.len, stored + 1, &got, NULL) == TR_INVALID);
    overlay(&sealed, data, size, &changed);
    FUZZ_CHECK((media_open_head(&key, &owner, &id, sealed.data, sealed.len, stored, &got, NULL) == TR_OK) != changed);
    buf_release(&sealed);
}

static void chunk_of(const uint8_t *data, size_t size)
{
    const uint64_t bytes = MEDIA_CHUNK + size; /* the input is the last one */
    struct buf sealed = {0}, plain = {0};
    bool changed;

    FUZZ_CHECK(media_open_chunk(&key, &owner, &id, bytes, 1, data, size, &plain, NULL) == TR_INVALID);
    FUZZ_CHECK(media_seal_chunk(&key, &owner, &id, bytes, 1, data, size, &sealed) == TR_OK);
    FUZZ_CHECK(media_open_chunk(&key, &owner, &id, bytes, 1, sealed.data, sealed.len, &plain, NULL) == TR_OK);
    FUZZ_CHECK(plain.len == size && memcmp(plain.data, data, size) == 0);
    FUZZ_CHECK(media_open_chunk(&key, &owner, &id, size, 0, sealed.data, sealed.len, &plain, NULL) == TR_INVALID);
    FUZZ_CHECK(media_open_chunk(&key, &id, &owner, bytes, 1, sealed.data, sealed.len, &plain, NULL) == TR_INVALID);
    overlay(&sealed, data, size, &changed);
    if (changed)
        FUZZ_CHECK(media_open_chunk(&key, &owner, &id, bytes, 1, sealed.data, sealed.len, &plain, NULL) == TR_INVALID);
    buf_release(&sealed);
    buf_release(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (seal_init(NULL) != TR_OK || size < 2 || size > MEDIA_CHUNK)
        return 0;
    if (data[0] % 2 == 0)
        head_of(data + 1, size - 1);
    else
        chunk_of(data + 1, size - 1);
    return 0;
}
