/* pending - see pending.h.  A cancelled operation goes to the list's front, so that a round looks at no other. */
#include "base/pending.h"

#include <stddef.h>

static void unlink_it(struct pending *p)
{
    struct pending_list *const list = p->list;

    if (p->older != NULL)
        p->older->younger = p->younger;
    else
        list->oldest = p->younger;
    if (p->younger != NULL)
        p->younger->older = p->older;
    else
        list->youngest = p->older;
    p->older = p->younger = NULL;
}

static void to_the_front(struct pending *p)
{
    struct pending_list *const list = p->list;

    unlink_it(p);
    p->younger = list->oldest;
    if (list->oldest != NULL)
        list->oldest->older = p;
    else
        list->youngest = p;
    list->oldest = p;
}

static void give_up_cancelled(struct pending_list *list)
{
    while (list->oldest != NULL && list->oldest->cancelled)
        list->give_up(list->oldest, true);
}

static void on_cancels(struct loop_call *call)
{
    struct pending_list *const list = (struct pending_list *)((char *)call - offsetof(struct pending_list, cancels));

    list->cancels_posted = false;
    give_up_cancelled(list);
}

static void cancel(struct tr_op *op)
{
    struct pending *const p = (struct pending *)op;
    struct pending_list *const list = p->list;

    if (list == NULL || p->cancelled)
        return;
    p->cancelled = true;
    to_the_front(p);
    if (list->cancels_posted)
        return;
    list->cancels_posted = true;
    list->cancels.fn = on_cancels;
    loop_defer(list->loop, &list->cancels);
}

void pending_add(struct pending_list *list, struct pending *p, uint64_t timeout_ms)
{
    p->op.cancel = cancel;
    p->list = list;
    p->deadline_ms = loop_now_ms(list->loop) + timeout_ms;
    p->older = list->youngest;
    p->younger = NULL;
    if (list->youngest != NULL)
        list->youngest->younger = p;
    else
        list->oldest = p;
    list->youngest = p;
    list->n++;
}

void pending_end(struct pending *p)
{
    unlink_it(p);
    p->list->n--;
    p->list = NULL;
}

void pending_expire(struct pending_list *list)
{
    const uint64_t now = loop_now_ms(list->loop);

    give_up_cancelled(list);
    while (list->oldest != NULL && !list->oldest->cancelled && list->oldest->deadline_ms <= now)
        list->give_up(list->oldest, false);
}

void pending_cancel_all(struct pending_list *list)
{
    while (list->oldest != NULL) {
        list->oldest->cancelled = true;
        list->give_up(list->oldest, true);
    }
}
