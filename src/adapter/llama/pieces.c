/* pieces - see pieces.h. */
#include "adapter/llama/pieces.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* The length of the character that s begins with; 0: it is unfinished; -1: no character begins so. */
static int utf8_first(const uint8_t *s, size_t len)
{
    int want = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? -1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : -1;
    uint8_t low = 0x80, high = 0xbf; /* of the second byte: no overlong forms, surrogates, or past U+10FFFF */

    if (want <= 1)
        return want;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    for (int i = 1; i < want; i++) {
        if ((size_t)i == len)
            return 0;
        if (s[i] < low || s[i] > high)
            return -1;
        low = 0x80;
        high = 0xbf;
    }
    return want;
}

/* Put one more byte behind the tail; whole characters go to `held`. */
static void add_byte(struct pieces *p, uint8_t byte)
{
    p->tail[p->tail_len++] = byte;
    while (p->tail_len > 0) {
        int n = utf8_first(p->tail, p->tail_len);

        if (n == 0)
            return;
        if (n < 0) {
            buf_add_str(&p->held, REPLACEMENT);
            n = p->tail_len > 1 ? (int)p->tail_len - 1 : 1; /* the last byte may begin a character of its own */
        } else if (p->tail[0] != 0) {
            buf_add(&p->held, p->tail, (size_t)n);
        }
        p->tail_len -= (size_t)n;
        memmove(p->tail, p->tail + n, p->tail_len);
    }
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* How many of the last bytes of s might be the beginning of `stop`. */
static size_t overlap(const uint8_t *s, size_t len, const char *stop)
{
    size_t n = strlen(stop) - 1;

    if (n > len)
        n = len;
    while (n > 0 && memcmp(s + len - n, stop, n) != 0)
        n--;
    return n;
}

/* Take the first n bytes of `held` away. */
static void held_drop(struct pieces *p, size_t n)
{
    if (n == 0)
        return;
    p->held.len -= n;
    memmove(p->held.data, p->held.data + n, p->held.len);
}

static void skip_leading(struct pieces *p)
{
    size_t n = 0;

    if (p->begun)
        return;
    while (n < p->held.len && is_space(p->held.data[n]))
        n++;
    held_drop(p, n);
    p->begun = p->held.len > 0;
}

static size_t without_trailing(const struct pieces *p, size_t n)
{
    while (n > 0 && is_space(p->held.data[n - 1]))
        n--;
    return n;
}

bool pieces_feed(struct pieces *p, const char *bytes, size_t len, struct buf *out)
{
    size_t keep = 0, n;

    for (size_t i = 0; i < len; i++)
        add_byte(p, (uint8_t)bytes[i]);
    skip_leading(p);
    if (p->held.len == 0)
        return true;
    n = p->held.len;
    for (size_t i = 0; i < p->stops->n; i++) {
        const char *stop = p->stops->text[i];
        const uint8_t *at = memmem(p->held.data, p->held.len, stop, strlen(stop));
        size_t o = overlap(p->held.data, p->held.len, stop);

        if (at != NULL && (size_t)(at - p->held.data) < n)
            n = (size_t)(at - p->held.data);
        keep = o > keep ? o : keep;
    }
    if (n < p->held.len) { /* a stop, whole */
        buf_add(out, p->held.data, without_trailing(p, n));
        p->held.len = p->tail_len = 0;
        return false;
    }
    n = without_trailing(p, n - keep);
    buf_add(out, p->held.data, n);
    held_drop(p, n);
    return true;
}

void pieces_end(struct pieces *p, struct buf *out)
{
    if (p->tail_len > 0)
        buf_add_str(&p->held, REPLACEMENT);
    p->tail_len = 0;
    skip_leading(p);
    if (p->held.len > 0)
        buf_add(out, p->held.data, without_trailing(p, p->held.len));
    p->held.len = 0;
}

void pieces_release(struct pieces *p)
{
    explicit_bzero(p->tail, sizeof p->tail);
    buf_wipe(&p->held);
}
