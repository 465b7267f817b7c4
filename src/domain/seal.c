/*
 * seal - data under an owner's key: see seal.h; master keys are in seal_master.c, tokens in seal_token.c.
 *
 * Sealed bytes:  format 1 | key id 16 | nonce 24 | ciphertext | tag 16
 * Bound to them: format 1 | kind 1 | chat 16 | turn 16 | part 4 | rev 4 | role 1 | key id 16   (numbers big endian)
 */
#include "domain/seal.h"

#include <sodium.h>
#include <string.h>

#define FORMAT 1
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES
#define ID_AT 1
#define NONCE_AT 17
#define TEXT_AT 41
#define BOUND_BYTES 59

_Static_assert(SEAL_OVERHEAD == TEXT_AT + TAG_BYTES && NONCE_AT + NONCE_BYTES == TEXT_AT, "the byte format");
_Static_assert(sizeof((struct seal_key *)0)->key == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "the key size");

enum tr_rc seal_init(struct tr_err *err)
{
    return sodium_init() < 0 ? tr_fail(err, TR_TRANSIENT, "libsodium: no source of randomness") : TR_OK;
}

/*
 * Nonces and ids come from a pool: a system call for each would be several a turn.  What is handed out is overwritten in
 * it.  Keys come from the system itself.
 */
void seal_random(void *out, size_t len)
{
    static _Thread_local uint8_t pool[1024];
    static _Thread_local size_t left;

    if (len > sizeof pool / 4) {
        randombytes_buf(out, len);
        return;
    }
    if (left < len) {
        randombytes_buf(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= len;
    memcpy(out, pool + left, len);
    sodium_memzero(pool + left, len);
}

void seal_key_new(uint64_t unix_ms, struct seal_key *ret_key)
{
    uint8_t random[10];

    randombytes_buf(random, sizeof random);
    ret_key->id = uuid_v7(unix_ms, random);
    randombytes_buf(ret_key->key, sizeof ret_key->key);
}

void seal_key_wipe(struct seal_key *key)
{
    sodium_memzero(key, sizeof *key);
}

static uint8_t *put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
    return p + 4;
}

static void bound_bytes(const struct seal_bind *bind, const struct uuid *key_id, uint8_t ret[BOUND_BYTES])
{
    uint8_t *p = ret;

    *p++ = FORMAT;
    *p++ = (uint8_t)bind->kind;
    memcpy(p, bind->chat.b, 16);
    memcpy(p + 16, bind->turn.b, 16);
    p = put_be32(p + 32, (uint32_t)bind->part);
    p = put_be32(p, (uint32_t)bind->rev);
    *p++ = bind->role;
    memcpy(p, key_id->b, 16);
}

enum tr_rc seal_data(const struct seal_key *key, const struct seal_bind *bind, const void *plain, size_t len,
                     struct buf *out)
{
    uint8_t bound[BOUND_BYTES];
    uint8_t *to = buf_reserve(out, len + SEAL_OVERHEAD);

    if (to == NULL)
        return TR_NOMEM;
    bound_bytes(bind, &key->id, bound);
    to[0] = FORMAT;
    memcpy(to + ID_AT, key->id.b, 16);
    seal_random(to + NONCE_AT, NONCE_BYTES);
    crypto_aead_xchacha20poly1305_ietf_encrypt(to + TEXT_AT, NULL, plain, len, bound, sizeof bound, NULL, to + NONCE_AT,
                                               key->key);
    out->len += len + SEAL_OVERHEAD;
    return TR_OK;
}

enum tr_rc seal_open(const struct seal_key *key, const struct seal_bind *bind, const void *sealed, size_t len,
                     struct buf *out, struct tr_err *err)
{
    const uint8_t *from = sealed;
    uint8_t bound[BOUND_BYTES];
    uint8_t *to;

    if (len < SEAL_OVERHEAD)
        return tr_fail(err, TR_INVALID, "sealed data: cut");
    if (from[0] != FORMAT)
        return tr_fail(err, TR_INVALID, "sealed data: unknown format %d", from[0]);
    if (memcmp(from + ID_AT, key->id.b, 16) != 0)
        return tr_fail(err, TR_INVALID, "sealed data: sealed with another key");
    to = buf_reserve(out, len - SEAL_OVERHEAD + 1); /* never 0 bytes */
    if (to == NULL)
        return tr_fail(err, TR_NOMEM, "sealed data");
    bound_bytes(bind, &key->id, bound);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(to, NULL, NULL, from + TEXT_AT, len - TEXT_AT, bound, sizeof bound,
                                                   from + NONCE_AT, key->key) != 0)
        return tr_fail(err, TR_INVALID, "sealed data: altered, or not of this place");
    out->len += len - SEAL_OVERHEAD;
    return TR_OK;
}

bool seal_key_id(const void *sealed, size_t len, struct uuid *ret_id)
{
    if (len < SEAL_OVERHEAD)
        return false;
    memcpy(ret_id->b, (const uint8_t *)sealed + ID_AT, 16);
    return true;
}
