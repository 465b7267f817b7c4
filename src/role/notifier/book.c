/* book - see impl.h. */
#include "role/notifier/impl.h"

#include <stdlib.h>
#include <string.h>

struct book_read {
    struct book *book; /* NULL: the book is gone */
    struct tr_op *op;
};

static void take(struct book *b, const char *const *names, size_t n)
{
    char(*copy)[QUEUE_NAME_MAX + 1] = calloc(n > 0 ? n : 1, sizeof *copy);
    size_t kept = 0;

    if (copy == NULL)
        return; /* the old ones stay */
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) > QUEUE_NAME_MAX)
            continue;
        strcpy(copy[kept++], names[i]);
    }
    free(b->names);
    b->names = copy;
    b->n = kept;
}

static void on_gateways(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    struct book_read *reading = ctx;
    struct book *b = reading->book;

    (void)err; /* who asks goes on with what is known */
    free(reading);
    if (b == NULL)
        return;
    b->reading = NULL;
    b->read = true;
    b->read_ms = loop_now_ms(b->loop);
    if (rc == TR_OK)
        take(b, names, n);
    b->on_read(b->ctx);
}

static bool start_reading(struct book *b)
{
    struct book_read *reading = calloc(1, sizeof *reading);

    if (reading == NULL)
        return false;
    reading->book = b;
    if (b->registry->ops->gateways(b->registry, on_gateways, reading, &reading->op, NULL) != TR_OK) {
        free(reading);
        return false;
    }
    b->reading = reading;
    return true;
}

bool book_ask(struct book *b)
{
    if (b->read && loop_now_ms(b->loop) - b->read_ms < BOOK_FRESH_MS)
        return true;
    if (b->reading == NULL && !start_reading(b)) {
        b->read = true; /* no memory or no registry: with what is known, and again later */
        b->read_ms = loop_now_ms(b->loop);
        return true;
    }
    return false;
}

bool book_has(const struct book *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->names[i], name) == 0)
            return true;
    return false;
}

void book_release(struct book *b)
{
    if (b->reading != NULL) {
        struct tr_op *op = b->reading->op;

        b->reading->book = NULL;
        b->reading = NULL;
        tr_op_cancel(op);
    }
    free(b->names);
    b->names = NULL;
    b->n = 0;
}
