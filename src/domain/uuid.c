/* uuid - see uuid.h.  Layout of a v7: 48 bits of milliseconds, version, 12 random bits, variant, 62 random bits. */
#include "domain/uuid.h"

#include <string.h>

#define MS_MAX ((UINT64_C(1) << 48) - 1)
#define RANDOM_A_MAX 0xfff
#define RANDOM_B_MAX ((UINT64_C(1) << 62) - 1)

const struct uuid uuid_nil;

static struct uuid pack(uint64_t ms, uint64_t a, uint64_t b)
{
    struct uuid id;

    for (int i = 0; i < 6; i++)
        id.b[i] = (uint8_t)(ms >> (40 - 8 * i));
    id.b[6] = (uint8_t)(0x70 | a >> 8);
    id.b[7] = (uint8_t)a;
    for (int i = 0; i < 8; i++)
        id.b[8 + i] = (uint8_t)(b >> (56 - 8 * i));
    id.b[8] = (uint8_t)(0x80 | (id.b[8] & 0x3f));
    return id;
}

struct uuid uuid_v7(uint64_t unix_ms, const uint8_t random[10])
{
    uint64_t b = 0;

    for (int i = 2; i < 10; i++)
        b = b << 8 | random[i];
    return pack(unix_ms < MS_MAX ? unix_ms : MS_MAX, (uint64_t)(random[0] & 0xf) << 8 | random[1], b & RANDOM_B_MAX);
}

struct uuid uuid_v7_after(const struct uuid *after, uint64_t unix_ms, const uint8_t random[10])
{
    uint64_t ms = uuid_ms(after), a = (uint64_t)(after->b[6] & 0xf) << 8 | after->b[7], b = after->b[8] & 0x3f;
    struct uuid id;

    if (unix_ms > ms && ms < MS_MAX)
        return uuid_v7(unix_ms, random);
    for (int i = 9; i < 16; i++)
        b = b << 8 | after->b[i];
    if (b++ == RANDOM_B_MAX) {
        b = 0;
        if (a++ == RANDOM_A_MAX) {
            a = 0;
            if (ms == MS_MAX) /* the last one of all, in the year 10889 */
                return *after;
            ms++;
        }
    }
    id = pack(ms, a, b);
    if (uuid_cmp(&id, after) <= 0 && ms < MS_MAX) /* `after` was no v7: its version or variant stands higher */
        id = pack(ms + 1, 0, 0);
    return id;
}

uint64_t uuid_ms(const struct uuid *id)
{
    uint64_t ms = 0;

    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id->b[i];
    return ms;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool dash_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_parse(const char *text, size_t len, struct uuid *ret_id)
{
    struct uuid id;
    size_t n = 0;

    if (len != UUID_TEXT - 1)
        return false;
    for (size_t i = 0; i < len;) {
        int high, low;

        if (dash_at(i)) {
            if (text[i++] != '-')
                return false;
            continue;
        }
        high = hex_value(text[i]);
        low = hex_value(text[i + 1]); /* groups are of even length: i + 1 is in the same one */
        if (high < 0 || low < 0)
            return false;
        id.b[n++] = (uint8_t)(high << 4 | low);
        i += 2;
    }
    *ret_id = id;
    return true;
}

void uuid_format(const struct uuid *id, char ret_text[UUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;

    for (size_t n = 0; n < 16; n++) {
        if (dash_at(at))
            ret_text[at++] = '-';
        ret_text[at++] = digits[id->b[n] >> 4];
        ret_text[at++] = digits[id->b[n] & 0xf];
    }
    ret_text[at] = '\0';
}

int uuid_cmp(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

bool uuid_is_nil(const struct uuid *id)
{
    return uuid_eq(id, &uuid_nil);
}

bool character_id_valid(const char *text, size_t len)
{
    if (len == 0 || len > CHARACTER_ID_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') || text[i] == '-'))
            return false;
    return !(len == 3 && memcmp(text, "any", 3) == 0);
}
