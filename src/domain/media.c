/*
 * media - see media.h.  Head, plain: type 1 | reserved 3 (zero) | size of a chunk 4 | bytes 8 | created 8, big endian.
 * Bound: seal_bind of SEAL_MEDIA with chat = owner, turn = id, part = the piece (head -1), rev = 1 for the last chunk.
 */
#include "domain/media.h"

#include "domain/field.h"

#include <assert.h>
#include <string.h>

#define VERSION 1
#define MARK_LEN 4
#define HEAD_PLAIN 24
#define HEAD_PART (-1)

_Static_assert(MEDIA_HEAD == MARK_LEN + SEAL_OVERHEAD + HEAD_PLAIN, "the head's size");
_Static_assert(MEDIA_SIZE_MAX / MEDIA_CHUNK < INT32_MAX, "a chunk's number fits");

static struct seal_bind bind_of(const struct uuid *owner, const struct uuid *id, int32_t part, bool last)
{
    return (struct seal_bind){.kind = SEAL_MEDIA, .chat = *owner, .turn = *id, .part = part, .rev = last ? 1 : 0};
}

void media_file_name(const struct uuid *owner, const struct uuid *id, char ret_name[MEDIA_FILE_NAME + 1])
{
    uuid_format(owner, ret_name);
    ret_name[UUID_TEXT - 1] = '/';
    uuid_format(id, ret_name + UUID_TEXT);
}

uint64_t media_chunks(uint64_t bytes)
{
    return bytes / MEDIA_CHUNK + (bytes % MEDIA_CHUNK != 0);
}

uint64_t media_sealed_size(uint64_t bytes)
{
    return MEDIA_HEAD + bytes + media_chunks(bytes) * SEAL_OVERHEAD;
}

uint64_t media_chunk_at(uint64_t chunk)
{
    return MEDIA_HEAD + chunk * MEDIA_CHUNK_SEALED;
}

size_t media_chunk_len(uint64_t bytes, uint64_t chunk)
{
    const uint64_t n = media_chunks(bytes);

    if (chunk >= n)
        return 0;
    return chunk + 1 < n ? MEDIA_CHUNK : (size_t)(bytes - chunk * MEDIA_CHUNK);
}

enum tr_rc media_seal_head(const struct seal_key *key, const struct uuid *owner, const struct uuid *id,
                           const struct media_head *head, struct buf *out)
{
    const struct seal_bind bind = bind_of(owner, id, HEAD_PART, false);
    const size_t before = out->len;
    struct buf plain = {0};
    enum tr_rc rc;

    assert(head->bytes > 0 && head->bytes <= MEDIA_SIZE_MAX);
    buf_add_be32(&plain, (uint32_t)head->type << 24);
    buf_add_be32(&plain, MEDIA_CHUNK);
    buf_add_be64(&plain, head->bytes);
    buf_add_be64(&plain, head->created_ms);
    buf_add(out, "TRM", 3);
    buf_add_u8(out, VERSION);
    rc = plain.failed || out->failed ? TR_NOMEM : seal_data(key, &bind, plain.data, plain.len, out);
    buf_wipe(&plain);
    if (rc != TR_OK)
        out->len = before;
    return rc;
}

enum tr_rc media_seal_chunk(const struct seal_key *key, const struct uuid *owner, const struct uuid *id, uint64_t bytes,
                            uint64_t chunk, const void *plain, size_t len, struct buf *out)
{
    const struct seal_bind bind = bind_of(owner, id, (int32_t)chunk, chunk + 1 == media_chunks(bytes));

    assert(len == media_chunk_len(bytes, chunk) && len > 0);
    return seal_data(key, &bind, plain, len, out);
}

enum tr_rc media_open_head(const struct seal_key *key, const struct uuid *owner, const struct uuid *id,
                           const void *sealed, size_t len, uint64_t stored, struct media_head *ret_head,
                           struct tr_err *err)
{
    const struct seal_bind bind = bind_of(owner, id, HEAD_PART, false);
    const uint8_t *const from = sealed;
    struct media_head head = {0};
    struct buf plain = {0};
    enum tr_rc rc;

    if (len < MEDIA_HEAD || memcmp(from, "TRM", 3) != 0)
        return tr_fail(err, TR_INVALID, "stored file: not one of ours, or cut");
    if (from[3] != VERSION)
        return tr_fail(err, TR_INVALID, "stored file: unknown version %d", from[3]);
    rc = seal_open(key, &bind, from + MARK_LEN, MEDIA_HEAD - MARK_LEN, &plain, err);
    if (rc == TR_OK && field_uint(plain.data + 4, 4) != MEDIA_CHUNK)
        rc = tr_fail(err, TR_INVALID, "stored file: chunks of an unknown size");
    if (rc == TR_OK) {
        head.type = plain.data[0] < MEDIA_TYPE_COUNT ? (enum media_type)plain.data[0] : MEDIA_NONE;
        head.bytes = field_uint(plain.data + 8, 8);
        head.created_ms = field_uint(plain.data + 16, 8);
        if (head.bytes == 0 || head.bytes > MEDIA_SIZE_MAX || media_sealed_size(head.bytes) != stored)
            rc = tr_fail(err, TR_INVALID, "stored file: cut, or something was put behind it");
    }
    buf_wipe(&plain);
    if (rc == TR_OK)
        *ret_head = head;
    return rc;
}

enum tr_rc media_open_chunk(const struct seal_key *key, const struct uuid *owner, const struct uuid *id, uint64_t bytes,
                            uint64_t chunk, const void *sealed, size_t len, struct buf *out, struct tr_err *err)
{
    const struct seal_bind bind = bind_of(owner, id, (int32_t)chunk, chunk + 1 == media_chunks(bytes));

    if (media_chunk_len(bytes, chunk) == 0 || len != media_chunk_len(bytes, chunk) + SEAL_OVERHEAD)
        return tr_fail(err, TR_INVALID, "stored file: a piece is cut");
    return seal_open(key, &bind, sealed, len, out, err);
}
