/*
 * frame - WebSocket frames (RFC 6455) out of a run of bytes, and the heads of frames to be sent.
 * Pure: no I/O, no clock, no logging.  A message's size is bounded, its UTF-8 is checked as it comes in.
 */
#ifndef GATEWAY_FRAME_H
#define GATEWAY_FRAME_H

#include "base/buf.h"

#define FRAME_MESSAGE_MAX 131072 /* bytes of a message, its fragments together (contract 7) */
#define FRAME_CONTROL_MAX 125
#define FRAME_HEAD_MAX 10 /* of a frame that we send */

enum frame_opcode {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

enum frame_status {
    FRAME_STATUS_NONE = 1005, /* a close frame without a code; never on the wire */
    FRAME_STATUS_NORMAL = 1000,
    FRAME_STATUS_GOING_AWAY = 1001,
    FRAME_STATUS_PROTOCOL = 1002,
    FRAME_STATUS_UNSUPPORTED = 1003,
    FRAME_STATUS_NOT_UTF8 = 1007,
    FRAME_STATUS_TOO_BIG = 1009,
    FRAME_STATUS_INTERNAL = 1011,
    FRAME_STATUS_RESTART = 1012,
    FRAME_STATUS_TRY_LATER = 1013
};

/* What UTF-8 validation knows between two pieces; zeroed: at a character's beginning. */
struct frame_utf8 {
    uint8_t left, low, high; /* bytes still to come, and the bounds of the next one */
};
/* False: these bytes can't be part of valid UTF-8. */
bool frame_utf8_feed(struct frame_utf8 *u, const uint8_t *data, size_t len);

/* What is known of frames that have come in part; zeroed: between two messages, nothing begun. */
struct frame_reader {
    struct buf message; /* owned: the data message so far */
    uint64_t left;      /* bytes still to come of the frame's payload */
    struct frame_utf8 utf8;
    uint8_t head[14], head_n; /* of the frame, until it is whole */
    uint8_t mask_at;
    uint8_t opcode, fin; /* of the frame */
    uint8_t in_payload, in_message;
    uint8_t control_n, control[FRAME_CONTROL_MAX];
};
void frame_reader_release(struct frame_reader *r);
/* Nothing of a frame or message has come in. */
bool frame_reader_idle(const struct frame_reader *r);

struct frame_events {
    /* A whole text message of valid UTF-8.  Borrowed.  False: read no further. */
    bool (*text)(void *ctx, const char *text, size_t len);
    /* FRAME_PING or FRAME_PONG. */
    bool (*control)(void *ctx, enum frame_opcode opcode, const uint8_t *data, size_t len);
    /* The peer's close frame: its code, FRAME_STATUS_NONE without one. */
    void (*closed)(void *ctx, unsigned code);
};

/*
 * Read frames from a client out of data[0..len), which is unmasked in place.
 * 0: all went well (or a callback said stop); else the code to close with, and *ret_reason (static) says why.
 */
unsigned frame_read(struct frame_reader *r, uint8_t *data, size_t len, const struct frame_events *events, void *ctx,
                    const char **ret_reason);

/* The head of an unmasked, final frame; returns its length. */
size_t frame_head(uint8_t out[FRAME_HEAD_MAX], enum frame_opcode opcode, size_t len);
/* May a peer send this code in a close frame? */
bool frame_close_code_valid(unsigned code);

#define FRAME_ACCEPT_TEXT 29
/* Sec-WebSocket-Accept of a Sec-WebSocket-Key. */
void frame_accept(const char *key, size_t len, char ret_text[FRAME_ACCEPT_TEXT]);

#endif
