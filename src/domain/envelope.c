/*
 * envelope - see envelope.h.  "TE", version 1, then fields (field.h).  The table is the format: a tag is never used
 * again for something else, a number has its full width, a zero or empty field is left out.
 */
#include "domain/envelope.h"

#include <assert.h>
#include <string.h>

#include "domain/field.h"

#define VERSION 1
#define HEAD 3
#define REACH_TAG 26
static_assert(sizeof(enum envelope_kind) == sizeof(unsigned), "enums are read and written as unsigned");

enum type { TYPE_ENUM, TYPE_BOOL, TYPE_U32, TYPE_U64, TYPE_UUID, TYPE_TEXT, TYPE_SEALED };

struct field {
    const char *name;
    uint8_t tag;
    enum type type;
    size_t offset;
    size_t limit; /* TYPE_ENUM: the first value that is unknown; TYPE_TEXT: bytes */
};

#define FIELD(tag, member, type, limit)                                                                                \
    {                                                                                                                  \
#member, tag, type, offsetof(struct envelope, member), limit                                                   \
    }

static const struct field fields[] = {
    FIELD(1, kind, TYPE_ENUM, ENVELOPE_KIND_COUNT),
    FIELD(2, chat, TYPE_UUID, 0),
    FIELD(3, turn, TYPE_UUID, 0),
    FIELD(4, predecessor, TYPE_UUID, 0),
    FIELD(5, user, TYPE_UUID, 0),
    FIELD(6, character, TYPE_TEXT, CHARACTER_ID_MAX),
    FIELD(7, trace, TYPE_TEXT, ENVELOPE_TRACE_MAX),
    FIELD(8, origin, TYPE_TEXT, ENVELOPE_ORIGIN_MAX),
    FIELD(9, variant, TYPE_U32, 0),
    FIELD(10, rev, TYPE_U32, 0),
    FIELD(11, attempt, TYPE_U64, 0),
    FIELD(12, offset, TYPE_U64, 0),
    FIELD(13, change, TYPE_U64, 0),
    FIELD(14, index, TYPE_U64, 0),
    FIELD(15, created_ms, TYPE_U64, 0),
    FIELD(16, position, TYPE_U32, 0),
    FIELD(17, state, TYPE_ENUM, STATE_WRITING + 1),
    FIELD(18, finish, TYPE_ENUM, FINISH_ERROR + 1),
    FIELD(19, code, TYPE_TEXT, sizeof((struct envelope *)0)->code - 1),
    FIELD(20, prompt_tokens, TYPE_U32, 0),
    FIELD(21, cached_tokens, TYPE_U32, 0),
    FIELD(22, completion_tokens, TYPE_U32, 0),
    FIELD(23, ttft_ms, TYPE_U32, 0),
    FIELD(24, snapshot, TYPE_BOOL, 0),
    FIELD(25, sealed, TYPE_SEALED, 0),
    FIELD(REACH_TAG, reach, TYPE_U32, 0),
    FIELD(27, again, TYPE_BOOL, 0),
};
#define FIELDS (sizeof fields / sizeof fields[0])

static void encode_field(const struct field *f, const struct envelope *env, struct buf *out)
{
    const uint8_t *at = (const uint8_t *)env + f->offset;
    unsigned number;
    uint64_t wide;
    struct slice sealed;

    switch (f->type) {
    case TYPE_ENUM:
        memcpy(&number, at, sizeof number);
        assert(number < f->limit);
        if (number != 0)
            field_add(out, f->tag, &(uint8_t){(uint8_t)number}, 1);
        break;
    case TYPE_BOOL:
        if (*(const bool *)at)
            field_add(out, f->tag, &(uint8_t){1}, 1);
        break;
    case TYPE_U32:
        memcpy(&number, at, sizeof number);
        if (number != 0) {
            field_head(out, f->tag, 4);
            buf_add_be32(out, number);
        }
        break;
    case TYPE_U64:
        memcpy(&wide, at, sizeof wide);
        if (wide != 0) {
            field_head(out, f->tag, 8);
            buf_add_be64(out, wide);
        }
        break;
    case TYPE_UUID:
        if (memcmp(at, uuid_nil.b, sizeof uuid_nil.b) != 0)
            field_add(out, f->tag, at, sizeof uuid_nil.b);
        break;
    case TYPE_TEXT:
        if (at[0] != '\0')
            field_add(out, f->tag, at, strnlen((const char *)at, f->limit));
        break;
    case TYPE_SEALED:
        memcpy(&sealed, at, sizeof sealed);
        if (sealed.len != 0)
            field_add(out, f->tag, sealed.data, sealed.len);
        break;
    }
}

enum tr_rc envelope_encode(const struct envelope *env, struct buf *out)
{
    size_t before = out->len;

    assert(env->kind != 0);
    if (env->sealed.len > ENVELOPE_SEALED_MAX)
        return TR_INVALID;
    if (buf_reserve(out, 512 + env->sealed.len) == NULL) /* one allocation for nearly all */
        return TR_NOMEM;
    buf_add(out, "TE", 2);
    buf_add_u8(out, VERSION);
    for (size_t i = 0; i < FIELDS; i++)
        encode_field(&fields[i], env, out);
    if (out->failed) {
        out->len = before;
        return TR_NOMEM;
    }
    return TR_OK;
}

enum tr_rc envelope_with_reach(struct slice encoded, enum envelope_reach reach, struct buf *out)
{
    const size_t before = out->len;

    buf_add(out, encoded.data, encoded.len);
    field_head(out, REACH_TAG, 4);
    buf_add_be32(out, reach);
    if (out->failed) {
        out->len = before;
        return TR_NOMEM;
    }
    return TR_OK;
}

/* The cause, or NULL where the value was taken. */
static const char *decode_field(const struct field *f, struct slice v, struct envelope *env)
{
    static const uint8_t widths[] = {[TYPE_ENUM] = 1,  [TYPE_BOOL] = 1, [TYPE_U32] = 4,   [TYPE_U64] = 8,
                                     [TYPE_UUID] = 16, [TYPE_TEXT] = 0, [TYPE_SEALED] = 0};
    uint8_t *at = (uint8_t *)env + f->offset;
    unsigned number;
    uint64_t wide;

    if (widths[f->type] != 0 && v.len != widths[f->type])
        return "wrong length";
    switch (f->type) {
    case TYPE_ENUM:
        number = v.data[0];
        if (number >= f->limit)
            return "unknown value";
        memcpy(at, &number, sizeof number);
        break;
    case TYPE_BOOL:
        if (v.data[0] > 1)
            return "unknown value";
        *(bool *)at = v.data[0] == 1;
        break;
    case TYPE_U32:
        number = (unsigned)field_uint(v.data, 4);
        memcpy(at, &number, sizeof number);
        break;
    case TYPE_U64:
        wide = field_uint(v.data, 8);
        memcpy(at, &wide, sizeof wide);
        break;
    case TYPE_UUID:
        memcpy(at, v.data, v.len);
        break;
    case TYPE_TEXT:
        if (v.len > f->limit)
            return "too long";
        if (!field_plain(v))
            return "control characters";
        memcpy(at, v.data, v.len); /* the 0 is there: *env is zeroed */
        break;
    case TYPE_SEALED:
        memcpy(at, &v, sizeof v);
        break;
    }
    return NULL;
}

enum tr_rc envelope_decode(const void *data, size_t len, struct envelope *ret_env, struct tr_err *err)
{
    const uint8_t *head = data;
    struct field_reader r;
    struct envelope env;
    uint32_t seen = 0;

    if (len < HEAD || head[0] != 'T' || head[1] != 'E')
        return tr_fail(err, TR_INVALID, "envelope: not one");
    if (len > ENVELOPE_BYTES_MAX)
        return tr_fail(err, TR_INVALID, "envelope: over %d bytes", ENVELOPE_BYTES_MAX);
    if (head[2] != VERSION)
        return tr_fail(err, TR_INVALID, "envelope: unknown version %d", head[2]);
    memset(&env, 0, sizeof env);
    r = (struct field_reader){head + HEAD, len - HEAD};
    while (r.left > 0) {
        struct slice value;
        const char *cause;
        uint8_t tag;

        if (!field_next(&r, &tag, &value))
            return tr_fail(err, TR_INVALID, "envelope: cut at byte %zu", len - r.left);
        if (tag == 0 || tag > FIELDS)
            continue; /* of a newer version */
        if ((seen & UINT32_C(1) << tag) != 0)
            return tr_fail(err, TR_INVALID, "envelope: %s: twice", fields[tag - 1].name);
        seen |= UINT32_C(1) << tag;
        cause = decode_field(&fields[tag - 1], value, &env); /* the table is in the order of the tags */
        if (cause != NULL)
            return tr_fail(err, TR_INVALID, "envelope: %s: %s", fields[tag - 1].name, cause);
    }
    if (env.kind == 0)
        return tr_fail(err, TR_INVALID, "envelope: kind: missing");
    *ret_env = env;
    return TR_OK;
}
