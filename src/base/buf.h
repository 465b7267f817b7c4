/* buf - a growable run of bytes.  A zeroed struct is an empty buffer. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/result.h"

struct buf {
    uint8_t *data; /* NULL while empty; not terminated, see buf_str() */
    size_t len, cap;
    bool failed; /* an append ran out of memory: the contents are cut, check once at the end */
};

/* A borrowed run of bytes. */
struct slice {
    const uint8_t *data;
    size_t len;
};

void buf_release(struct buf *b); /* frees; b is empty again */
void buf_wipe(struct buf *b);    /* overwrite the contents, then release */
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
}
/* Room for `more` bytes; NULL (and b->failed) when there is no memory.  Write there, then add to b->len yourself. */
uint8_t *buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_str(struct buf *b, const char *s);
void buf_add_u8(struct buf *b, uint8_t v);
void buf_add_be16(struct buf *b, uint16_t v);
void buf_add_be32(struct buf *b, uint32_t v);
void buf_add_be64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) TR_PRINTF(2, 3);
/* The contents as a C string (a 0 is put behind them, uncounted); "" when empty or out of memory. */
const char *buf_str(struct buf *b);

/* JSON text: `"…"` with the escapes of RFC 8259; bytes must be valid UTF-8. */
void buf_add_json_string(struct buf *b, const char *s, size_t len);

#endif
