/*
 * pieces - a reply out of the bytes that the tokens stand for: whole UTF-8 characters (a broken one becomes U+FFFD),
 * without white space at its ends, cut where the model begins to write somebody else's part.  Pure.
 */
#ifndef ADAPTER_LLAMA_PIECES_H
#define ADAPTER_LLAMA_PIECES_H

#include "base/buf.h"

#define PIECES_STOPS_MAX 8
#define PIECES_STOP_LEN 64

/* Texts that end a reply; each begins with an ASCII character. */
struct pieces_stops {
    char text[PIECES_STOPS_MAX][PIECES_STOP_LEN];
    size_t n;
};

struct pieces {
    const struct pieces_stops *stops; /* borrowed */
    uint8_t tail[4];                  /* an unfinished character */
    size_t tail_len;
    struct buf held; /* characters that may not go out yet: white space, the beginning of a stop */
    bool begun;      /* something other than white space has come */
};

/* Feed what one token stands for; what may go out is added to `out`.  False: the reply ends here. */
bool pieces_feed(struct pieces *p, const char *bytes, size_t len, struct buf *out);
/* The reply is over: what was held back goes out, too. */
void pieces_end(struct pieces *p, struct buf *out);
void pieces_release(struct pieces *p);

#endif
