/*
 * field - the byte format that envelope and notes share: fields one after another, each a tag, a length (32 bits, big
 * endian) and that many bytes.  Who does not know a tag skips it.
 */
#ifndef DOMAIN_FIELD_H
#define DOMAIN_FIELD_H

#include "base/buf.h"

#define FIELD_HEAD 5 /* tag and length */

struct field_reader {
    const uint8_t *p;
    size_t left;
};

static inline uint64_t field_uint(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* The next field; false: it is cut.  Call only while left > 0. */
static inline bool field_next(struct field_reader *r, uint8_t *ret_tag, struct slice *ret_value)
{
    size_t len;

    if (r->left < FIELD_HEAD)
        return false;
    len = (size_t)field_uint(r->p + 1, 4);
    if (len > r->left - FIELD_HEAD)
        return false;
    *ret_tag = r->p[0];
    *ret_value = (struct slice){r->p + FIELD_HEAD, len};
    r->p += FIELD_HEAD + len;
    r->left -= FIELD_HEAD + len;
    return true;
}

static inline void field_head(struct buf *out, uint8_t tag, size_t len)
{
    buf_add_u8(out, tag);
    buf_add_be32(out, (uint32_t)len);
}

static inline void field_add(struct buf *out, uint8_t tag, const void *data, size_t len)
{
    field_head(out, tag, len);
    if (len > 0)
        buf_add(out, data, len);
}

/* Text for names and codes: no control characters, so neither a 0 nor anything that breaks a log line. */
static inline bool field_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < 0x20 || s.data[i] == 0x7f)
            return false;
    return true;
}

#endif
