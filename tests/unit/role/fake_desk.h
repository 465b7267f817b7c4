/*
 * fake_desk - a desk (role/chat/desk.h) that keeps nothing: it notes what it was asked, and answers when it is told to.
 * For tests of the front doors, and for fuzzing them.
 */
#ifndef FAKE_DESK_H
#define FAKE_DESK_H

#include "role/chat/desk.h"

struct fake_desk {
    char last[512]; /* the newest call, in words: "send chat=… id=… text=…" */
    unsigned calls, waiting, released;
    const struct desk_error *error; /* answer with this */
    bool refuse;                    /* start functions return false */
    bool ready;
    void (*on_call)(void *ctx); /* a request waits: call fake_desk_answer() some time later */
    void *ctx;
};

extern struct fake_desk fake_desk;

/* A desk that is no real one, for struct protocol. */
struct desk *fake_desk_handle(void);
/* Answer everything that waits.  A `send` of "flood N" is followed by N deltas of 1,000 bytes and
 * the whole reply, of "trail N" by the deltas alone. */
void fake_desk_answer(void);
/* Forget everything that waits, and the record. */
void fake_desk_reset(void);

#endif
