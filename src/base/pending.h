/*
 * pending - the operations of an adapter that somebody waits for: each ends by an answer, by its deadline, or by being
 * cancelled, whichever is first; and none inside the caller's own call (base/op.h).  Threads: the loop's.
 */
#ifndef BASE_PENDING_H
#define BASE_PENDING_H

#include "base/loop.h"
#include "base/op.h"

struct pending_list;

struct pending {               /* first member of an adapter's own operation */
    struct tr_op op;           /* first: the caller's handle */
    struct pending_list *list; /* NULL: in none */
    struct pending *older, *younger;
    uint64_t deadline_ms; /* of the loop's clock */
    bool cancelled;
};

struct pending_list { /* zeroed but for these two */
    struct loop *loop;
    /* Its time is over, or its caller gave it up: answer it, which begins with pending_end(). */
    void (*give_up)(struct pending *p, bool cancelled);
    struct pending *oldest, *youngest; /* by deadline; cancelled ones first */
    size_t n;
    struct loop_call cancels;
    bool cancels_posted; /* loop_drain() before the list goes */
};

/* The same timeout for all of a list. */
void pending_add(struct pending_list *list, struct pending *p, uint64_t timeout_ms);
/* It is being answered: no longer in the list. */
void pending_end(struct pending *p);
/* Give up those whose time is over; from a timer. */
void pending_expire(struct pending_list *list);
/* All of them, as cancelled; at close. */
void pending_cancel_all(struct pending_list *list);

#endif
