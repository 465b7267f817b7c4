/* broker_flood - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker_flood.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_flood(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct flood *f = ctx;

    (void)err;
    f->ended++;
    f->by_rc[rc]++;
}

void flood(struct bench *b, struct flood *f, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++) {
        char text[24];
        struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)text, 0}};
        struct tr_op *op = NULL;

        msg.body.len = (size_t)snprintf(text, sizeof text, "%zu", i);
        assert_int_equal(b->q->ops->publish(b->q, &msg, on_flood, f, &op, NULL), TR_OK);
    }
}

static void on_read(void *ctx, const struct queue_incoming *msg)
{
    struct reader *r = ctx;
    char text[24] = "";
    size_t i;

    memcpy(text, msg->body.data, msg->body.len < sizeof text ? msg->body.len : sizeof text - 1);
    i = strtoul(text, NULL, 10);
    assert_true(i < r->max);
    r->distinct += !r->seen[i];
    r->seen[i] = true;
    r->n++;
    r->b->q->ops->ack(r->b->q, msg->delivery);
}

static void on_reader_gap(void *ctx)
{
    struct reader *r = ctx;

    r->gaps++;
}

void reader_start(struct reader *r, struct bench *b, size_t max)
{
    *r = (struct reader){.b = b, .seen = calloc(max, sizeof(bool)), .max = max};
    assert_int_equal(b->q->ops->consume(b->q, "a", 500, on_read, on_reader_gap, r, &r->c, NULL), TR_OK);
}
