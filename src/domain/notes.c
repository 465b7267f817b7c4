/* notes - see notes.h.  "TN", version 1, then fields (field.h); the spans are one field of 9 bytes each. */
#include "domain/notes.h"

#include <assert.h>
#include <string.h>

#include "domain/field.h"
#include "domain/message.h"

#define VERSION 1
#define HEAD 3
#define SPAN_BYTES 9
enum { TAG_REV = 1, TAG_LANGUAGE, TAG_RAW, TAG_NORMALISED, TAG_SPANS, TAG_MEDIA, TAG_END };

enum tr_rc notes_encode(const struct notes *notes, struct buf *out)
{
    size_t before = out->len;

    assert(notes->spans_n <= NOTES_SPANS_MAX);
    if (buf_reserve(out, 128 + notes->media.len + notes->raw.len + notes->normalised.len +
                             notes->spans_n * SPAN_BYTES) == NULL)
        return TR_NOMEM;
    buf_add(out, "TN", 2);
    buf_add_u8(out, VERSION);
    if (notes->rev != 0) {
        field_head(out, TAG_REV, 4);
        buf_add_be32(out, (uint32_t)notes->rev);
    }
    if (notes->language[0] != '\0')
        field_add(out, TAG_LANGUAGE, notes->language, strnlen(notes->language, sizeof notes->language - 1));
    if (notes->raw.data != NULL)
        field_add(out, TAG_RAW, notes->raw.data, notes->raw.len);
    if (notes->normalised.data != NULL)
        field_add(out, TAG_NORMALISED, notes->normalised.data, notes->normalised.len);
    if (notes->media.len > 0)
        field_add(out, TAG_MEDIA, notes->media.data, notes->media.len);
    if (notes->spans_n > 0) {
        field_head(out, TAG_SPANS, notes->spans_n * SPAN_BYTES);
        for (size_t i = 0; i < notes->spans_n; i++) {
            buf_add_u8(out, (uint8_t)notes->spans[i].kind);
            buf_add_be32(out, notes->spans[i].start);
            buf_add_be32(out, notes->spans[i].len);
        }
    }
    if (out->failed) {
        out->len = before;
        return TR_NOMEM;
    }
    return TR_OK;
}

static const char *decode_spans(struct slice v, struct notes *notes)
{
    size_t n = v.len / SPAN_BYTES;

    if (v.len % SPAN_BYTES != 0)
        return "wrong length";
    if (n > NOTES_SPANS_MAX)
        return "too many";
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = v.data + i * SPAN_BYTES;

        if (p[0] == 0)
            return "unknown kind";
        if (p[0] > PERSONAL_CARD)
            continue; /* of a newer version */
        notes->spans[notes->spans_n++] = (struct personal_span){
            .kind = (enum personal_kind)p[0],
            .start = (uint32_t)field_uint(p + 1, 4),
            .len = (uint32_t)field_uint(p + 5, 4),
        };
    }
    return NULL;
}

static const char *decode_field(uint8_t tag, struct slice v, struct notes *notes)
{
    switch (tag) {
    case TAG_REV:
        if (v.len != 4)
            return "rev: wrong length";
        notes->rev = (int32_t)(uint32_t)field_uint(v.data, 4);
        return notes->rev < 0 ? "rev: negative" : NULL;
    case TAG_LANGUAGE:
        if (v.len >= sizeof notes->language)
            return "language: too long";
        if (!field_plain(v))
            return "language: control characters";
        memcpy(notes->language, v.data, v.len);
        return NULL;
    case TAG_RAW:
        notes->raw = v;
        return NULL;
    case TAG_NORMALISED:
        notes->normalised = v;
        return NULL;
    case TAG_MEDIA:
        notes->media = v;
        return v.len % sizeof(struct message_media) == 0 && v.len <= MESSAGE_MEDIA_MAX * sizeof(struct message_media)
                   ? NULL
                   : "media: wrong length";
    default:
        return decode_spans(v, notes);
    }
}

/* In order, apart, and inside the text. */
static bool spans_fit(const struct notes *notes)
{
    uint64_t end = 0;

    for (size_t i = 0; i < notes->spans_n; i++) {
        const struct personal_span *s = &notes->spans[i];

        if (s->len == 0 || s->start < end)
            return false;
        end = (uint64_t)s->start + s->len;
    }
    return end <= notes->normalised.len;
}

enum tr_rc notes_decode(const void *data, size_t len, struct notes *ret_notes, struct tr_err *err)
{
    const uint8_t *head = data;
    struct field_reader r;
    struct notes notes;
    unsigned seen = 0;

    if (len < HEAD || head[0] != 'T' || head[1] != 'N')
        return tr_fail(err, TR_INVALID, "notes: not any");
    if (head[2] != VERSION)
        return tr_fail(err, TR_INVALID, "notes: unknown version %d", head[2]);
    memset(&notes, 0, sizeof notes);
    r = (struct field_reader){head + HEAD, len - HEAD};
    while (r.left > 0) {
        struct slice value;
        const char *cause;
        uint8_t tag;

        if (!field_next(&r, &tag, &value))
            return tr_fail(err, TR_INVALID, "notes: cut at byte %zu", len - r.left);
        if (tag == 0 || tag >= TAG_END)
            continue; /* of a newer version */
        if ((seen & 1U << tag) != 0)
            return tr_fail(err, TR_INVALID, "notes: field %d: twice", tag);
        seen |= 1U << tag;
        cause = decode_field(tag, value, &notes);
        if (cause != NULL)
            return tr_fail(err, TR_INVALID, "notes: %s%s", tag == TAG_SPANS ? "spans: " : "", cause);
    }
    if (!spans_fit(&notes))
        return tr_fail(err, TR_INVALID, "notes: spans: outside of the text or out of order");
    *ret_notes = notes;
    return TR_OK;
}
