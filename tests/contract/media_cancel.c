/* media_cancel - operations given up at every stage, and a store that closes over them; tests of media.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "media_cancel.h"
#include "media_fixture.h"

#include <string.h>

#define MIB (1024u * 1024)
#define HOUR_MS UINT64_C(3600000)

enum kind { WRITE, FINISH, READ, MARK, REMOVE, LIST, SWEEP, KINDS };

/* One of each kind begins; put: for the first two. */
static enum tr_rc begin(enum kind kind, struct got *g, struct media_put *put)
{
    static uint8_t bytes[MIB];

    content(1, 0, bytes, sizeof bytes);
    switch (kind) {
    case WRITE:
        return store->ops->put_write(put, bytes, sizeof bytes, wait_done, g, &g->w.op, &g->w.err);
    case FINISH:
        return store->ops->put_finish(put, wait_done, g, &g->w.op, &g->w.err);
    case READ:
        return store->ops->read(store, object(1), 0, MIB, on_read, g, &g->w.op, &g->w.err);
    case MARK:
        return store->ops->mark(store, mark_of(1, 1, 1), wait_done, g, &g->w.op, &g->w.err);
    case REMOVE:
        return store->ops->remove(store, object(3), wait_done, g, &g->w.op, &g->w.err);
    case LIST:
        return store->ops->list(store, USER "/", "", 100, on_list, g, &g->w.op, &g->w.err);
    case SWEEP:
        return store->ops->sweep(store, HOUR_MS, wait_done, g, &g->w.op, &g->w.err);
    default:
        return TR_INVALID;
    }
}

static void cancel_one(enum kind kind, uint64_t after_ms, bool by_free)
{
    struct media_put *put = NULL;
    struct got *g;

    if (kind <= FINISH) { /* the sixth piece ends a part of S3's */
        assert_int_equal(store->ops->put_start(store, object(2), (kind == WRITE ? 7 : 6) * MIB, &put, NULL), TR_OK);
        for (unsigned i = 0; i < (kind == WRITE ? 4 : 6); i++)
            assert_int_equal(write_piece(put, 1, i * MIB, MIB, NULL), TR_OK);
    }
    g = got_new();
    wait_started(&g->w, begin(kind, g, put));
    assert_int_equal(g->w.rc, TR_OK);
    if (after_ms > 0)
        support_for(loop, after_ms);
    if (g->w.calls == 0 && !by_free) {
        const size_t before = g->w.calls;

        tr_op_cancel(g->w.op);
        if (g->w.op != NULL)
            tr_op_cancel(g->w.op); /* twice is one */
        assert_int_equal(g->w.calls, before);
        support_count(loop, &g->w.calls, 1);
        assert_int_equal(g->w.rc, TR_CANCELLED);
    }
    store->ops->put_free(put);
    if (by_free) {
        support_count(loop, &g->w.calls, 1);
        assert_true(g->w.rc == TR_CANCELLED || (after_ms > 0 && g->w.rc == TR_OK));
    }
    support_for(loop, 20);
    assert_int_equal(g->w.calls, 1);
}

void media_cancels(void **state)
{
    struct got *g = NULL;

    (void)state;
    assert_int_equal(put_all(object(1), 1, 2 * MIB, MIB, NULL), TR_OK);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint64_t after = 0; after <= 24; after = after * 2 + (after < 3))
            cancel_one((enum kind)kind, after, false);
    for (int kind = WRITE; kind <= FINISH; kind++)
        for (uint64_t after = 0; after <= 24; after = after * 2 + (after < 3))
            cancel_one((enum kind)kind, after, true);
    assert_int_equal(read_at(object(2), 0, 1, &g) == TR_OK ? TR_NOT_FOUND : g->w.rc, TR_NOT_FOUND);
    if (g->w.rc == TR_OK)
        assert_object(object(2), 1, 6 * MIB); /* whole or not at all */
    assert_object(object(1), 1, 2 * MIB);
}

void media_closes(void **state)
{
    static struct got gots[KINDS * 3];
    struct media_put *puts[6];

    (void)state;
    assert_int_equal(put_all(object(1), 1, 2 * MIB, MIB, NULL), TR_OK);
    memset(gots, 0, sizeof gots);
    for (unsigned i = 0; i < KINDS * 3; i++) {
        struct got *const g = &gots[i];
        struct media_put *put = NULL;

        g->w.loop = loop;
        if (i % KINDS <= FINISH) {
            assert_int_equal(store->ops->put_start(store, object(10 + i), MIB, &put, NULL), TR_OK);
            if (i % KINDS == FINISH)
                assert_int_equal(write_piece(put, 1, 0, MIB, NULL), TR_OK);
            puts[i / KINDS * 2 + i % KINDS] = put;
        }
    }
    for (unsigned i = 0; i < KINDS * 3; i++) {
        struct media_put *const put = i % KINDS <= FINISH ? puts[i / KINDS * 2 + i % KINDS] : NULL;

        wait_started(&gots[i].w, begin((enum kind)(i % KINDS), &gots[i], put));
        assert_int_equal(gots[i].w.rc, TR_OK);
    }
    for (size_t i = 0; i < 6; i++)
        store->ops->put_free(puts[i]);
    for (unsigned i = 0; i < KINDS * 3; i++)
        assert_int_equal(gots[i].w.calls, 0);
    store->ops->close(store);
    store = NULL;
    for (unsigned i = 0; i < KINDS * 3; i++) {
        assert_int_equal(gots[i].w.calls, 1);
        assert_int_equal(gots[i].w.rc, TR_CANCELLED);
        buf_release(&gots[i].data);
    }
}

/* What is called back while the store closes begins another: that is refused, and nothing hangs. */
static void on_closing(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct got *const g = ctx;
    struct tr_op *op = NULL;

    (void)data, (void)size;
    wait_called(&g->w, rc, err);
    g->n = store->ops->read(store, object(1), 0, 1, on_closing, g, &op, NULL);
}

void media_begins_while_closing(void **state)
{
    struct got *g = got_new();

    (void)state;
    wait_started(&g->w, store->ops->read(store, object(1), 0, 1, on_closing, g, &g->w.op, &g->w.err));
    store->ops->close(store);
    store = NULL;
    assert_int_equal(g->w.calls, 1);
    assert_int_equal(g->n, TR_CANCELLED);
}
