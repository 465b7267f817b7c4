/* impl - what notifier.c and book.c share; for nobody else. */
#ifndef ROLE_NOTIFIER_IMPL_H
#define ROLE_NOTIFIER_IMPL_H

#include "role/notifier/notifier.h"

/*
 * book - the names of all living gateways, read from the registry when asked for and older than BOOK_FRESH_MS.
 * While the registry does not answer, the names known last go on being used.
 */
struct book {
    struct registry *registry;
    struct loop *loop;
    char (*names)[QUEUE_NAME_MAX + 1]; /* owned */
    size_t n;
    uint64_t read_ms;
    bool read; /* the registry has answered at least once */
    struct book_read *reading;
    void (*on_read)(void *ctx); /* after every reading, also a failed one */
    void *ctx;
};

#define BOOK_FRESH_MS 500

/* True: names/n may be used now.  False: on_read will be called, and they may be used then. */
bool book_ask(struct book *b);
/* Is this one among them? */
bool book_has(const struct book *b, const char *name);
void book_release(struct book *b);

#endif
