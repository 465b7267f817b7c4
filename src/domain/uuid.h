/* uuid - UUIDv7 (RFC 9562): ids of chats, turns, users and media.  Pure: time and randomness are handed in. */
#ifndef DOMAIN_UUID_H
#define DOMAIN_UUID_H

#include "base/result.h"

#define UUID_TEXT 37 /* with the final 0 */

struct uuid {
    uint8_t b[16]; /* network order: memcmp() sorts by time */
};

extern const struct uuid uuid_nil;

struct uuid uuid_v7(uint64_t unix_ms, const uint8_t random[10]);
/* A v7 greater than `after` in any case: of unix_ms where that is later, else `after` + 1 (contract 11.1). */
struct uuid uuid_v7_after(const struct uuid *after, uint64_t unix_ms, const uint8_t random[10]);
uint64_t uuid_ms(const struct uuid *id); /* the time in it */
/* Exactly the 36 characters of the canonical form, either case, any version; false: not a UUID. */
bool uuid_parse(const char *text, size_t len, struct uuid *ret_id);
void uuid_format(const struct uuid *id, char ret_text[UUID_TEXT]);
int uuid_cmp(const struct uuid *a, const struct uuid *b);
bool uuid_is_nil(const struct uuid *id);
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return uuid_cmp(a, b) == 0;
}

#define CHARACTER_ID_MAX 64
/* [a-z0-9-]{1,64}, and not "any" (contract 11.18). */
bool character_id_valid(const char *text, size_t len);

#endif
