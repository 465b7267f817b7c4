/* frame - see frame.h. */
#include "role/gateway/frame.h"

#include <string.h>

bool frame_utf8_feed(struct frame_utf8 *u, const uint8_t *data, size_t len)
{
    size_t i = 0;

    while (i < len) {
        const uint8_t c = data[i];

        if (u->left > 0) {
            if (c < u->low || c > u->high)
                return false;
            u->left--;
            u->low = 0x80;
            u->high = 0xbf;
        } else if (c >= 0x80) {
            if (c < 0xc2 || c > 0xf4)
                return false;
            u->left = (uint8_t)(c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3);
            u->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
            u->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        } else {
            uint64_t eight;

            while (i + 8 <= len && (memcpy(&eight, data + i, 8), (eight & 0x8080808080808080u) == 0))
                i += 8;
            if (i < len && data[i] < 0x80)
                i++;
            continue;
        }
        i++;
    }
    return true;
}

void frame_reader_release(struct frame_reader *r)
{
    buf_wipe(&r->message);
    *r = (struct frame_reader){0};
}

bool frame_reader_idle(const struct frame_reader *r)
{
    return r->head_n == 0 && !r->in_payload && !r->in_message;
}

bool frame_close_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

size_t frame_head(uint8_t out[FRAME_HEAD_MAX], enum frame_opcode opcode, size_t len)
{
    out[0] = (uint8_t)(0x80 | opcode);
    if (len < 126) {
        out[1] = (uint8_t)len;
        return 2;
    }
    if (len < 65536) {
        out[1] = 126;
        out[2] = (uint8_t)(len >> 8);
        out[3] = (uint8_t)len;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)((uint64_t)len >> (56 - 8 * i));
    return 10;
}

/* How many bytes the head will have, as far as its first two tell. */
static size_t head_size(const struct frame_reader *r)
{
    const unsigned n = r->head[1] & 0x7f;

    return 6 + (n == 126 ? 2u : n == 127 ? 8u : 0u);
}

static unsigned fail(const char **ret_reason, unsigned code, const char *reason)
{
    *ret_reason = reason;
    return code;
}

/* The first two bytes are there: what can't be right is refused before more is waited for. */
static unsigned check_start(struct frame_reader *r, const char **ret_reason)
{
    const unsigned opcode = r->head[0] & 0x0f;
    const bool fin = (r->head[0] & 0x80) != 0;

    if ((r->head[0] & 0x70) != 0)
        return fail(ret_reason, FRAME_STATUS_PROTOCOL, "reserved bit set");
    if ((r->head[1] & 0x80) == 0)
        return fail(ret_reason, FRAME_STATUS_PROTOCOL, "frame not masked");
    if (opcode >= 8) {
        if (opcode > FRAME_PONG)
            return fail(ret_reason, FRAME_STATUS_PROTOCOL, "unknown opcode");
        if (!fin)
            return fail(ret_reason, FRAME_STATUS_PROTOCOL, "control frame fragmented");
        if ((r->head[1] & 0x7f) > FRAME_CONTROL_MAX)
            return fail(ret_reason, FRAME_STATUS_PROTOCOL, "control frame too long");
    } else if (opcode > FRAME_BINARY) {
        return fail(ret_reason, FRAME_STATUS_PROTOCOL, "unknown opcode");
    } else if (opcode == FRAME_CONTINUATION ? !r->in_message : r->in_message) {
        return fail(ret_reason, FRAME_STATUS_PROTOCOL, r->in_message ? "continuation expected" : "nothing to continue");
    } else if (opcode == FRAME_BINARY) {
        return fail(ret_reason, FRAME_STATUS_UNSUPPORTED, "text only");
    }
    return 0;
}

/* The whole head is there: r->left and what the payload is to be. */
static unsigned take_head(struct frame_reader *r, const char **ret_reason)
{
    const unsigned n = r->head[1] & 0x7f;
    uint64_t len = n;

    if (n >= 126) {
        len = 0;
        for (unsigned i = 0; i < (n == 126 ? 2u : 8u); i++)
            len = len << 8 | r->head[2 + i];
        if (len >> 63 != 0 || len < (n == 126 ? 126u : 65536u))
            return fail(ret_reason, FRAME_STATUS_PROTOCOL, "bad length");
    }
    r->opcode = r->head[0] & 0x0f;
    r->fin = r->head[0] >> 7;
    if (r->opcode < 8) {
        if (len > FRAME_MESSAGE_MAX - r->message.len)
            return fail(ret_reason, FRAME_STATUS_TOO_BIG, "message over 131072 bytes");
        r->in_message = 1;
    }
    /* The mask moves to the head's front: head_n = 0 says that the next frame's head is to come. */
    memmove(r->head, r->head + r->head_n - 4, 4);
    r->head_n = 0;
    r->mask_at = 0;
    r->left = len;
    r->in_payload = 1;
    r->control_n = 0;
    return 0;
}

static void unmask(struct frame_reader *r, uint8_t *data, size_t len)
{
    uint8_t mask[8];
    uint64_t wide, word;
    size_t i = 0;

    for (unsigned k = 0; k < 8; k++)
        mask[k] = r->head[(r->mask_at + k) & 3];
    memcpy(&wide, mask, 8);
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < len; i++)
        data[i] ^= mask[i & 7];
    r->mask_at = (uint8_t)((r->mask_at + len) & 3);
}

/* A control frame is whole.  *stop: the callback wants no more. */
static unsigned take_control(struct frame_reader *r, const struct frame_events *events, void *ctx, bool *stop,
                             const char **ret_reason)
{
    struct frame_utf8 utf8 = {0};
    unsigned code = FRAME_STATUS_NONE;

    r->in_payload = 0;
    if (r->opcode != FRAME_CLOSE) {
        *stop = !events->control(ctx, (enum frame_opcode)r->opcode, r->control, r->control_n);
        return 0;
    }
    *stop = true;
    if (r->control_n == 1)
        return fail(ret_reason, FRAME_STATUS_PROTOCOL, "close frame of one byte");
    if (r->control_n >= 2) {
        code = (unsigned)r->control[0] << 8 | r->control[1];
        if (!frame_close_code_valid(code))
            return fail(ret_reason, FRAME_STATUS_PROTOCOL, "bad close code");
        if (!frame_utf8_feed(&utf8, r->control + 2, r->control_n - 2u) || utf8.left != 0)
            return fail(ret_reason, FRAME_STATUS_NOT_UTF8, "close reason is not UTF-8");
    }
    events->closed(ctx, code);
    return 0;
}

/* A piece of a data frame's payload, unmasked. */
static unsigned take_data(struct frame_reader *r, const uint8_t *data, size_t n, const struct frame_events *events,
                          void *ctx, bool *stop, const char **ret_reason)
{
    const bool last = r->left == 0 && r->fin;
    const char *text = (const char *)data;
    size_t len = n;

    if (!frame_utf8_feed(&r->utf8, data, n) || (last && r->utf8.left != 0))
        return fail(ret_reason, FRAME_STATUS_NOT_UTF8, "not UTF-8");
    if (!last || r->message.len > 0) { /* else the message is all in this piece: not copied */
        if (n > 0 && r->message.len == 0 && r->fin)
            buf_reserve(&r->message, n + (size_t)r->left);
        buf_add(&r->message, data, n);
        if (r->message.failed)
            return fail(ret_reason, FRAME_STATUS_INTERNAL, "out of memory");
        text = (const char *)r->message.data;
        len = r->message.len;
    }
    if (r->left == 0)
        r->in_payload = 0;
    if (last) {
        struct buf message = r->message;

        r->message = (struct buf){0};
        r->in_message = 0;
        *stop = !events->text(ctx, len == 0 ? "" : text, len);
        buf_wipe(&message);
    }
    return 0;
}

unsigned frame_read(struct frame_reader *r, uint8_t *data, size_t len, const struct frame_events *events, void *ctx,
                    const char **ret_reason)
{
    bool stop = false;
    unsigned code = 0;

    while (code == 0 && !stop && (len > 0 || (r->in_payload && r->left == 0))) {
        if (!r->in_payload) {
            r->head[r->head_n++] = *data++;
            len--;
            if (r->head_n == 2)
                code = check_start(r, ret_reason);
            if (code == 0 && r->head_n >= 2 && r->head_n == head_size(r))
                code = take_head(r, ret_reason);
        } else {
            const size_t n = len < r->left ? len : (size_t)r->left;

            unmask(r, data, n);
            r->left -= n;
            if (r->opcode < 8) {
                code = take_data(r, data, n, events, ctx, &stop, ret_reason);
            } else {
                memcpy(r->control + r->control_n, data, n);
                r->control_n = (uint8_t)(r->control_n + n);
                if (r->left == 0)
                    code = take_control(r, events, ctx, &stop, ret_reason);
            }
            data += n;
            len -= n;
        }
    }
    return code;
}
