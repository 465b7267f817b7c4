/*
 * seal_master - the master key's versions: the file's text, and the wrapping of data keys.
 *
 * Wrapped bytes: format 1 | version 4 | key id 16 | nonce 24 | ciphertext 32 | tag 16
 * Bound to them: format 1 | version 4 | key id 16 | owner kind 1 | owner id
 *
 * Subkeys (crypto_kdf, context "troupe-1"): 1 wrap, 2 token, 3 client id, 4 check value.
 */
#include "domain/seal_master.h"

#include <sodium.h>
#include <string.h>

#define FORMAT 1
#define HEX_DIGITS 64
#define VERSION_DIGITS_MAX 9
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES
#define BOUND_AT_OWNER 21 /* the head, that both the wrapped and the bound bytes begin with */
#define OWNER_ID_MAX 128
#define WRAPPED_BYTES (BOUND_AT_OWNER + NONCE_BYTES + 32 + TAG_BYTES)

_Static_assert(WRAPPED_BYTES <= SEAL_WRAPPED_MAX, "the byte format");

const struct seal_master_version *seal_master_find(const struct seal_master *master, uint32_t version)
{
    for (size_t i = master->n; i > 0; i--)
        if (master->versions[i - 1].version == version)
            return &master->versions[i - 1];
    return NULL;
}

static void derive(const uint8_t key[32], uint32_t version, struct seal_master_version *ret)
{
    static const char context[crypto_kdf_CONTEXTBYTES] = {'t', 'r', 'o', 'u', 'p', 'e', '-', '1'};

    ret->version = version;
    (void)crypto_kdf_derive_from_key(ret->wrap, sizeof ret->wrap, 1, context, key); /* fails only for a wrong size */
    (void)crypto_kdf_derive_from_key(ret->token, sizeof ret->token, 2, context, key);
    (void)crypto_kdf_derive_from_key(ret->client, sizeof ret->client, 3, context, key);
    (void)crypto_kdf_derive_from_key(ret->check, sizeof ret->check, 4, context, key);
}

/* Keep the versions rising. */
static void insert(struct seal_master *m, const uint8_t key[32], uint32_t version)
{
    size_t at = m->n;

    while (at > 0 && m->versions[at - 1].version > version) {
        m->versions[at] = m->versions[at - 1];
        at--;
    }
    derive(key, version, &m->versions[at]);
    m->n++;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* One line without its end.  The cause, or NULL. */
static const char *parse_line(const char *s, size_t len, struct seal_master *m)
{
    uint8_t key[32];
    const char *cause = NULL;
    uint32_t version = 0;
    size_t digits = 0, key_len = 0;

    while (len > 0 && blank(s[len - 1]))
        len--;
    while (len > 0 && blank(s[0])) {
        s++;
        len--;
    }
    if (len == 0 || s[0] == '#')
        return NULL;
    while (digits < len && digits < VERSION_DIGITS_MAX && s[digits] >= '0' && s[digits] <= '9')
        version = version * 10 + (uint32_t)(s[digits++] - '0');
    if (digits == 0 || digits == len || s[digits] != ':' || version == 0)
        return "must be version:64 hex digits, the version from 1";
    if (len - digits - 1 != HEX_DIGITS)
        return "the key must have 64 hex digits";
    if (sodium_hex2bin(key, sizeof key, s + digits + 1, HEX_DIGITS, NULL, &key_len, NULL) != 0 || key_len != sizeof key)
        cause = "the key must have 64 hex digits";
    else if (sodium_is_zero(key, sizeof key))
        cause = "the key is all zeros";
    else if (seal_master_find(m, version) != NULL)
        cause = "this version stands there twice";
    else if (m->n == SEAL_MASTER_VERSIONS_MAX)
        cause = "too many versions";
    else
        insert(m, key, version);
    sodium_memzero(key, sizeof key);
    return cause;
}

enum tr_rc seal_master_parse(const char *text, size_t len, struct seal_master **ret_master, struct tr_err *err)
{
    struct seal_master *m = sodium_malloc(sizeof *m);
    size_t at = 0, line = 1;
    enum tr_rc rc;

    if (m == NULL)
        return tr_fail(err, TR_NOMEM, "master key");
    m->n = 0;
    for (; at < len; line++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end != NULL ? (size_t)(end - (text + at)) : len - at;
        const char *cause = parse_line(text + at, line_len, m);

        if (cause != NULL) {
            rc = tr_fail(err, TR_INVALID, "master key: line %zu: %s", line, cause);
            goto out;
        }
        at += line_len + 1;
    }
    if (m->n == 0) {
        rc = tr_fail(err, TR_INVALID, "master key: no version in it");
        goto out;
    }
    (void)sodium_mprotect_readonly(m); /* a second lock on the door: fine without */
    *ret_master = m;
    m = NULL;
    rc = TR_OK;
out:
    seal_master_free(m);
    return rc;
}

enum tr_rc seal_master_generate(struct buf *ret_text)
{
    uint8_t key[32];
    char hex[HEX_DIGITS + 1];
    size_t before = ret_text->len;

    randombytes_buf(key, sizeof key);
    sodium_bin2hex(hex, sizeof hex, key, sizeof key);
    if (buf_reserve(ret_text, 512) != NULL) { /* no second allocation that would leave a copy behind */
        buf_add_str(ret_text,
                    "# Troupe's master key: version:key, one a line; the highest version wraps new data keys.\n"
                    "# Whoever has it reads every chat; without it no chat is readable.  Keep a copy safe.\n1:");
        buf_add_str(ret_text, hex);
        buf_add_str(ret_text, "\n");
    }
    sodium_memzero(key, sizeof key);
    sodium_memzero(hex, sizeof hex);
    if (ret_text->failed) {
        ret_text->len = before;
        return TR_NOMEM;
    }
    return TR_OK;
}

void seal_master_free(struct seal_master *master)
{
    if (master != NULL)
        sodium_free(master); /* overwrites it first */
}

/* The bound bytes; `head` are the first BOUND_AT_OWNER of the wrapped ones.  0: the owner's id is too long. */
static size_t bound_bytes(const uint8_t *head, enum seal_owner owner, const char *owner_id,
                          uint8_t ret[BOUND_AT_OWNER + 1 + OWNER_ID_MAX])
{
    size_t id_len = strlen(owner_id);

    if (id_len > OWNER_ID_MAX)
        return 0;
    memcpy(ret, head, BOUND_AT_OWNER);
    ret[BOUND_AT_OWNER] = (uint8_t)owner;
    memcpy(ret + BOUND_AT_OWNER + 1, owner_id, id_len);
    return BOUND_AT_OWNER + 1 + id_len;
}

enum tr_rc seal_wrap(const struct seal_master *master, const struct seal_key *key, enum seal_owner owner,
                     const char *owner_id, struct buf *out)
{
    const struct seal_master_version *v = &master->versions[master->n - 1];
    uint8_t bound[BOUND_AT_OWNER + 1 + OWNER_ID_MAX];
    uint8_t *to = buf_reserve(out, WRAPPED_BYTES);
    size_t bound_len;

    if (to == NULL)
        return TR_NOMEM;
    to[0] = FORMAT;
    for (int i = 0; i < 4; i++)
        to[1 + i] = (uint8_t)(v->version >> (24 - 8 * i));
    memcpy(to + 5, key->id.b, 16);
    bound_len = bound_bytes(to, owner, owner_id, bound);
    if (bound_len == 0)
        return TR_INVALID;
    randombytes_buf(to + BOUND_AT_OWNER, NONCE_BYTES);
    crypto_aead_xchacha20poly1305_ietf_encrypt(to + BOUND_AT_OWNER + NONCE_BYTES, NULL, key->key, sizeof key->key,
                                               bound, bound_len, NULL, to + BOUND_AT_OWNER, v->wrap);
    out->len += WRAPPED_BYTES;
    return TR_OK;
}

enum tr_rc seal_unwrap(const struct seal_master *master, const void *wrapped, size_t len, enum seal_owner owner,
                       const char *owner_id, struct seal_key *ret_key, struct tr_err *err)
{
    const uint8_t *from = wrapped;
    const struct seal_master_version *v;
    uint8_t bound[BOUND_AT_OWNER + 1 + OWNER_ID_MAX];
    uint8_t key[32];
    uint32_t version = 0;
    size_t bound_len;

    if (len != WRAPPED_BYTES || from[0] != FORMAT)
        return tr_fail(err, TR_INVALID, "wrapped key: cut or of an unknown format");
    for (int i = 0; i < 4; i++)
        version = version << 8 | from[1 + i];
    v = seal_master_find(master, version);
    if (v == NULL)
        return tr_fail(err, TR_INVALID, "wrapped key: version %u of the master key is not in the key file", version);
    bound_len = bound_bytes(from, owner, owner_id, bound);
    if (bound_len == 0 || crypto_aead_xchacha20poly1305_ietf_decrypt(
                              key, NULL, NULL, from + BOUND_AT_OWNER + NONCE_BYTES, sizeof key + TAG_BYTES, bound,
                              bound_len, from + BOUND_AT_OWNER, v->wrap) != 0)
        return tr_fail(err, TR_INVALID, "wrapped key: altered, of another owner, or of another master key");
    memcpy(ret_key->id.b, from + 5, 16);
    memcpy(ret_key->key, key, sizeof key);
    sodium_memzero(key, sizeof key);
    return TR_OK;
}
