/*
 * seal_token - what the master key vouches for: session tokens, the check value, hashes of client ids.
 * Token: base64url of format 1 | version 4 | user 16 | expiry 8 | HMAC-SHA512-256 of these 32   (numbers big endian)
 */
#include <sodium.h>
#include <string.h>

#include "domain/field.h"
#include "domain/seal_master.h"

#define FORMAT 1
#define SIGNED_BYTES 29
#define TOKEN_BYTES (SIGNED_BYTES + crypto_auth_BYTES)
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

_Static_assert(sodium_base64_ENCODED_LEN(TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING) <= SEAL_TOKEN_MAX,
               "a token fits");

static void put_uint(uint8_t *p, size_t bytes, uint64_t v)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

void seal_token(const struct seal_master *master, const struct uuid *user, uint64_t expires_ms,
                char ret_text[SEAL_TOKEN_MAX])
{
    const struct seal_master_version *v = &master->versions[master->n - 1];
    uint8_t bytes[TOKEN_BYTES];

    bytes[0] = FORMAT;
    put_uint(bytes + 1, 4, v->version);
    memcpy(bytes + 5, user->b, 16);
    put_uint(bytes + 21, 8, expires_ms);
    crypto_auth(bytes + SIGNED_BYTES, bytes, SIGNED_BYTES, v->token);
    sodium_bin2base64(ret_text, SEAL_TOKEN_MAX, bytes, sizeof bytes, BASE64);
}

enum tr_rc seal_token_check(const struct seal_master *master, const char *text, size_t len, uint64_t now_ms,
                            struct uuid *ret_user, uint64_t *ret_expires_ms)
{
    const struct seal_master_version *v;
    uint8_t bytes[TOKEN_BYTES];
    size_t bytes_len = 0;
    uint64_t expires_ms;

    if (sodium_base642bin(bytes, sizeof bytes, text, len, NULL, &bytes_len, NULL, BASE64) != 0 ||
        bytes_len != sizeof bytes || bytes[0] != FORMAT)
        return TR_INVALID;
    v = seal_master_find(master, (uint32_t)field_uint(bytes + 1, 4));
    if (v == NULL || crypto_auth_verify(bytes + SIGNED_BYTES, bytes, SIGNED_BYTES, v->token) != 0)
        return TR_INVALID;
    expires_ms = field_uint(bytes + 21, 8);
    if (expires_ms <= now_ms)
        return TR_INVALID;
    memcpy(ret_user->b, bytes + 5, 16);
    *ret_expires_ms = expires_ms;
    return TR_OK;
}

/* Of the oldest version, so that it stays the same when a new one is added. */
void seal_check_value(const struct seal_master *master, char ret_hex[33])
{
    static const uint8_t label[] = "troupe master key check value";
    uint8_t hash[16];

    crypto_generichash(hash, sizeof hash, label, sizeof label - 1, master->versions[0].check,
                       sizeof master->versions[0].check);
    sodium_bin2hex(ret_hex, 33, hash, sizeof hash);
}

void seal_client_id(const struct seal_master *master, const struct uuid *scope, const char *id, size_t len,
                    uint8_t ret_hash[16])
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, master->versions[0].client, sizeof master->versions[0].client, 16);
    crypto_generichash_update(&state, scope->b, sizeof scope->b);
    crypto_generichash_update(&state, (const uint8_t *)id, len);
    crypto_generichash_final(&state, ret_hash, 16);
    sodium_memzero(&state, sizeof state);
}
