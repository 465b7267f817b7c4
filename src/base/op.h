/*
 * op - an asynchronous operation under way: what a caller may do with it.
 *
 * Every port's start function hands one out.  The rules, for all of them:
 *  - a start that returns TR_OK calls its callback exactly once, later, on the loop's thread, and never before the
 *    start function has returned; a start that returns anything else never calls it;
 *  - tr_op_cancel() makes that callback arrive with TR_CANCELLED (unless it is on its way already); a write may still land;
 *  - the operation has a deadline: past it, a read ends with TR_TRANSIENT, a write with TR_UNCERTAIN;
 *  - the handle is borrowed: it is valid until the callback begins, so a callback's first line forgets it.
 */
#ifndef BASE_OP_H
#define BASE_OP_H

#include "base/result.h"

struct tr_op {
    void (*cancel)(struct tr_op *op); /* set by the implementer */
};

/* Give the operation up.  NULL is fine. */
static inline void tr_op_cancel(struct tr_op *op)
{
    if (op != NULL)
        op->cancel(op);
}

#endif
