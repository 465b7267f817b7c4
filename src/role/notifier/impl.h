/* impl - what notifier.c, notice.c and book.c share; for nobody else. */
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

/* notice - one event in hand, a message: first in its chat's line, then in r->sending. */
struct notice {
    struct notifier *r; /* NULL: the role is gone, and the delivery settled */
    struct uuid chat;
    struct uuid turn; /* of a reply, with variant and trace: for the log; nil: it is something else */
    int32_t variant;
    char trace[ENVELOPE_TRACE_MAX + 1];
    unsigned gateways;               /* that have it */
    bool marked;                     /* whoever gets it and has not the chat open sends it back */
    bool all;                        /* it is for all living gateways */
    bool recorded;                   /* it went to those of the chat's record */
    struct queue_delivery *delivery; /* NULL: transient */
    uint32_t attempts;
    bool nobody;   /* no gateway has it */
    uint8_t *body; /* owned: of a transient one; else borrowed from the delivery */
    size_t len;
    size_t pending; /* publishes that are not confirmed, and 1 while they are being started */
    struct tr_err failed;
    struct notice *prev, *next;
};

#define BACKOFF_FIRST_MS 500 /* of what failed */

/* In no list yet; until notice_send() its delivery is the caller's to settle.  NULL: no memory. */
struct notice *notice_new(struct notifier *r, const struct queue_incoming *msg, const struct envelope *env);
/* Without settling it; NULL is fine. */
void notice_free(struct notice *e);
/*
 * Publish it, which is in no list, to these gateways of the chat's record; or (recorded: false, or it is for all) to all
 * living gateways and to these, which may be younger than the book.  It is in r->sending until all have answered.  Then it
 * is settled and freed, and notifier_ended_one() is called: perhaps before this returns.
 */
void notice_send(struct notice *e, const char *const *names, size_t n, bool recorded);

struct notifier {
    struct role_env env;
    struct queue_consumer *consumers[NOTIFY_PARTITIONS];
    struct line *lines;     /* of the chats that have events waiting */
    struct notice *sending; /* published, not confirmed */
    size_t in_hand;
    struct book book;
    struct lonely *lonely;
    struct share *share;
    struct start *starting;
    struct loop_timer *timer; /* runs while draining: until its end */
    bool draining;
    void (*drained)(void *ctx);
    void *drained_ctx;
};

/* One of those in hand is settled. */
void notifier_ended_one(struct notifier *r);

#endif
