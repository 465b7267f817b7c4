/*
 * seal - how words rest: XChaCha20-Poly1305 (libsodium) with a random nonce under an owner's data key, which rests
 * wrapped by a version of the master key.  Contract 10 and 11.15; the byte format is in seal.c.
 * Sealed bytes open only where they were meant to: kind, chat, turn, part, revision, role and key id are bound to them.
 */
#ifndef DOMAIN_SEAL_H
#define DOMAIN_SEAL_H

#include "base/buf.h"
#include "domain/uuid.h"

enum seal_kind { SEAL_HISTORY = 1, SEAL_QUEUE, SEAL_DELTA, SEAL_CONTEXT, SEAL_STATE, SEAL_MEDIA };
enum seal_owner { SEAL_OWNER_CHAT = 1, SEAL_OWNER_USER, SEAL_OWNER_CHARACTER };

struct seal_bind {
    enum seal_kind kind;
    struct uuid chat, turn;
    int32_t part, rev;
    uint8_t role; /* enum speaker, domain/turn.h */
};

/* A data key in the open: only ever in memory, wiped when done with. */
struct seal_key {
    struct uuid id;
    uint8_t key[32];
};

#define SEAL_OVERHEAD (1 + 16 + 24 + 16) /* bytes that sealing adds */
#define SEAL_WRAPPED_MAX 128

enum tr_rc seal_init(struct tr_err *err) TR_MUST_CHECK; /* libsodium; once a process, before all else */

/* A new data key; `id` is a UUIDv7 of unix_ms. */
void seal_key_new(uint64_t unix_ms, struct seal_key *ret_key);
void seal_key_wipe(struct seal_key *key);

/* Append the sealed bytes to `out`.  TR_OK or TR_NOMEM. */
enum tr_rc seal_data(const struct seal_key *key, const struct seal_bind *bind, const void *plain, size_t len,
                     struct buf *out) TR_MUST_CHECK;
/* Append the plain bytes to `out`.  TR_INVALID: altered, cut, of another key, or moved from elsewhere; out untouched. */
enum tr_rc seal_open(const struct seal_key *key, const struct seal_bind *bind, const void *sealed, size_t len,
                     struct buf *out, struct tr_err *err) TR_MUST_CHECK;
/* Which data key it was sealed with; false if it is too short to tell. */
bool seal_key_id(const void *sealed, size_t len, struct uuid *ret_id);

/* The master key: one or more numbered versions; the newest wraps, any opens. */
struct seal_master;

/* The text of the key file: lines `version:64 hex digits`, `#` comments.  TR_INVALID names the line, never the key. */
enum tr_rc seal_master_parse(const char *text, size_t len, struct seal_master **ret_master,
                             struct tr_err *err) TR_MUST_CHECK;
/* The text of a new key file with version 1. */
enum tr_rc seal_master_generate(struct buf *ret_text) TR_MUST_CHECK;
void seal_master_free(struct seal_master *master); /* wipes; NULL is fine */

/* Wrap a data key for its owner (`owner_id`: a UUID's text or a character's id; TR_INVALID: over 128 bytes). */
enum tr_rc seal_wrap(const struct seal_master *master, const struct seal_key *key, enum seal_owner owner,
                     const char *owner_id, struct buf *out) TR_MUST_CHECK;
enum tr_rc seal_unwrap(const struct seal_master *master, const void *wrapped, size_t len, enum seal_owner owner,
                       const char *owner_id, struct seal_key *ret_key, struct tr_err *err) TR_MUST_CHECK;

/* A value that tells whether two processes hold the same master key (of its oldest version), 32 hex digits and a 0. */
void seal_check_value(const struct seal_master *master, char ret_hex[33]);

/* A keyed hash of a client's own id within its chat or user, so that no text of a client rests in the open. */
void seal_client_id(const struct seal_master *master, const struct uuid *scope, const char *id, size_t len,
                    uint8_t ret_hash[16]);

/*
 * Session tokens (contract 11.16): user, expiry and key version under a MAC, no look-up.
 * The text is base64url without padding, at most SEAL_TOKEN_MAX bytes with its 0.
 */
#define SEAL_TOKEN_MAX 96
void seal_token(const struct seal_master *master, const struct uuid *user, uint64_t expires_ms,
                char ret_text[SEAL_TOKEN_MAX]);
/* TR_INVALID: not a token of ours, or past its time. */
enum tr_rc seal_token_check(const struct seal_master *master, const char *text, size_t len, uint64_t now_ms,
                            struct uuid *ret_user, uint64_t *ret_expires_ms) TR_MUST_CHECK;

/* Fill with random bytes: the one source of randomness for the roles. */
void seal_random(void *out, size_t len);

#endif
