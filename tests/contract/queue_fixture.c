/* queue_fixture - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct queue_adapter *queue_adapter;

void bench_open(struct bench *b)
{
    struct tr_err err = {0};

    assert_int_equal(loop_new(&b->loop, &err), TR_OK);
    if (queue_adapter->open(b->loop, b->place, &b->q, &err) != TR_OK)
        fail_msg("%s", err.msg);
}

void bench_close(struct bench *b)
{
    b->q->ops->close(b->q);
    b->q = NULL;
    loop_drain(b->loop);
    loop_free(b->loop);
    b->loop = NULL;
}

struct bench bench_new(const char *name)
{
    struct bench b = {0};
    char file[96];

    snprintf(file, sizeof file, "%s-%s.db", queue_adapter->name, name);
    b.place = support_path(file);
    bench_open(&b);
    return b;
}

void bench_end(struct bench *b)
{
    bench_close(b);
    free(b->place);
}

enum tr_rc bench_declare(struct bench *b, const char *name, enum queue_kind kind, uint64_t max, bool single)
{
    const struct queue_spec spec = {.name = name, .kind = kind, .max_length = max, .single_active = single};
    struct wait w = {.loop = b->loop};

    return wait_end(&w, b->q->ops->declare(b->q, &spec, wait_done, &w, &w.op, &w.err));
}

enum tr_rc bench_publish_start(struct bench *b, struct wait *w, const struct queue_message *msg)
{
    const enum tr_rc rc = b->q->ops->publish(b->q, msg, wait_done, w, &w->op, &w->err);

    wait_started(w, rc);
    return rc;
}

enum tr_rc bench_publish_msg(struct bench *b, const struct queue_message *msg)
{
    struct wait w = {.loop = b->loop};

    return wait_end(&w, bench_publish_start(b, &w, msg));
}

enum tr_rc bench_publish(struct bench *b, const char *queue, const char *text)
{
    const struct queue_message msg = {.queue = queue, .body = {(const uint8_t *)text, strlen(text)}};

    return bench_publish_msg(b, &msg);
}

struct length_wait {
    struct wait w;
    uint64_t length;
};

static void on_length(void *ctx, enum tr_rc rc, uint64_t n, const struct tr_err *err)
{
    struct length_wait *l = ctx;

    wait_called(&l->w, rc, err);
    l->length = n;
}

uint64_t bench_length(struct bench *b, const char *queue)
{
    struct length_wait l = {.w.loop = b->loop};

    if (wait_end(&l.w, b->q->ops->length(b->q, queue, on_length, &l, &l.w.op, &l.w.err)) != TR_OK)
        fail_msg("%s", l.w.err.msg);
    return l.length;
}

void bench_expect_length(struct bench *b, const char *queue, uint64_t want)
{
    for (int i = 0; i < 400 && !queue_adapter->embedded && bench_length(b, queue) != want; i++)
        support_for(b->loop, 5);
    assert_int_equal(bench_length(b, queue), want);
}

enum tr_rc bench_remove(struct bench *b, const char *queue)
{
    struct wait w = {.loop = b->loop};

    return wait_end(&w, b->q->ops->remove(b->q, queue, wait_done, &w, &w.op, &w.err));
}

void taker_on_message(void *ctx, const struct queue_incoming *msg)
{
    struct taker *t = ctx;
    const size_t cut = msg->body.len < sizeof t->text[0] - 1 ? msg->body.len : sizeof t->text[0] - 1;

    assert_non_null(t->c); /* never before consume has returned */
    if (t->n < TAKEN_MAX) {
        memcpy(t->text[t->n], msg->body.data, cut);
        t->attempts[t->n] = msg->attempts;
        t->again[t->n] = msg->again;
        t->transient[t->n] = msg->delivery == NULL;
    }
    t->n++;
    t->bytes += msg->body.len;
    if (msg->delivery == NULL)
        return;
    if (t->act == ACK)
        t->b->q->ops->ack(t->b->q, msg->delivery);
    else if (t->act == KEEP)
        t->hand[t->hand_n++ % TAKEN_MAX] = msg->delivery;
    else
        t->b->q->ops->retry(t->b->q, msg->delivery, t->act == RETRY_COUNTED, t->delay_ms, "it failed");
}

void taker_start(struct taker *t, struct bench *b, const char *queue, uint32_t prefetch, enum act act)
{
    struct tr_err err = {0};

    *t = (struct taker){.b = b, .act = act};
    if (b->q->ops->consume(b->q, queue, prefetch, taker_on_message, NULL, t, &t->c, &err) != TR_OK)
        fail_msg("%s", err.msg);
}

void taker_stop(struct taker *t)
{
    t->b->q->ops->consumer_stop(t->b->q, t->c);
    t->c = NULL;
}
