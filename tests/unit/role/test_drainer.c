/*
 * drainer - when the queue of a worker that is long gone is removed, and its name: a queue that is there is named, also where a
 * worker comes back at that very moment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/preprocess/drainer.h"
#include "tests/unit/role/fixture.h"

#define TTL_MS 300
#define GONE "inference.any.1"
#define NAME "queue:" GONE

static struct fixture f;
static const struct catalogue_ops *inner;
static const struct queue_ops *queue_inner;
static size_t removed, asked; /* names; for a queue's removal */
static bool comes_back;

static void on_nothing(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err;
}

/* The queue is removed, its name not yet: a worker that found the name standing declares it. */
static enum tr_rc spy_remove(struct catalogue *c, const char *key, catalogue_done *done, void *ctx,
                             struct tr_op **ret_op, struct tr_err *err)
{
    const struct queue_spec spec = {.name = GONE, .kind = QUEUE_DURABLE, .single_active = true};
    struct queue *q = f.env.queue;
    struct tr_op *op;

    removed++;
    if (comes_back)
        assert_int_equal(q->ops->declare(q, &spec, on_nothing, NULL, &op, NULL), TR_OK);
    comes_back = false;
    return inner->setting_remove(c, key, done, ctx, ret_op, err);
}

static enum tr_rc spy_queue_remove(struct queue *q, const char *name, queue_done *done, void *ctx,
                                   struct tr_op **ret_op, struct tr_err *err)
{
    asked++;
    return queue_inner->remove(q, name, done, ctx, ret_op, err);
}

struct names {
    struct wait w;
    size_t n;
};

static void on_names(void *ctx, enum tr_rc rc, const char *const *keys, size_t n, const struct tr_err *err)
{
    (void)keys;
    ((struct names *)ctx)->n = n;
    wait_called(ctx, rc, err);
}

static bool is_named(void)
{
    struct names got = {.w = {.loop = f.loop}};
    struct catalogue *c = f.env.catalogue;

    assert_int_equal(wait_end(&got.w, c->ops->settings(c, NAME, on_names, &got, &got.w.op, &got.w.err)), TR_OK);
    return got.n > 0;
}

static void on_put(void *ctx, enum tr_rc rc, bool first, const char *value, const struct tr_err *err)
{
    (void)first, (void)value;
    wait_called(ctx, rc, err);
}

static void on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    (void)number;
    wait_called(ctx, rc, err);
}

static void on_there(void *ctx, enum tr_rc rc, uint64_t length, const struct tr_err *err)
{
    (void)length;
    wait_called(ctx, rc, err);
}

static bool is_there(void)
{
    struct wait w = {.loop = f.loop};
    struct queue *q = f.env.queue;

    return wait_end(&w, q->ops->length(q, GONE, on_there, &w, &w.op, &w.err)) == TR_OK;
}

static void on_message(void *ctx, const struct queue_incoming *msg)
{
    (void)ctx;
    f.env.queue->ops->retry(f.env.queue, msg->delivery, false, 100, NULL); /* nobody takes it */
}

static void until_removed(size_t n)
{
    support_count(f.loop, &removed, n);
    support_for(f.loop, 50);
}

/* The queue and the name of a worker that is gone, another that lives, and a drainer. */
static struct drainer *begin(uint64_t forget_ms)
{
    static struct catalogue_ops ops;
    static struct queue_ops queue_ops;
    const struct queue_spec spec = {.name = GONE, .kind = QUEUE_DURABLE, .single_active = true};
    const struct registry_worker other = {.character = "any", .id = "other", .number = 2, .slots = 1, .weight = 1};
    struct drainer *d;
    struct wait w;

    setup_env(&f);
    inner = f.env.catalogue->ops;
    ops = *inner;
    ops.setting_remove = spy_remove;
    f.env.catalogue->ops = &ops;
    queue_inner = f.env.queue->ops;
    queue_ops = *queue_inner;
    queue_ops.remove = spy_queue_remove;
    f.env.queue->ops = &queue_ops;
    removed = asked = 0;
    w = (struct wait){.loop = f.loop};
    assert_int_equal(wait_end(&w, inner->setting_put(f.env.catalogue, NAME, "", on_put, &w, &w.op, &w.err)), TR_OK);
    w = (struct wait){.loop = f.loop};
    assert_int_equal(wait_end(&w, f.env.queue->ops->declare(f.env.queue, &spec, wait_done, &w, &w.op, &w.err)), TR_OK);
    w = (struct wait){.loop = f.loop};
    assert_int_equal(wait_end(&w, f.env.registry->ops->worker_register(f.env.registry, &other, 600000, on_number, &w,
                                                                       &w.op, &w.err)),
                     TR_OK);
    assert_int_equal(drainer_new(&f.env, TTL_MS, forget_ms, on_message, NULL, &d, NULL), TR_OK);
    return d;
}

/*
 * Unsettled or ready: it stays, and its name.  Nobody asks for its removal: for that the drainer would first let go of what it
 * holds, and whether that is back in the queue before a remote broker looks is a matter of luck.
 */
static void one_with_messages_stays(void **state)
{
    struct drainer *d = begin(1000); /* the message comes round ten times in it */

    (void)state;
    publish_bytes(&f, GONE, "held");
    support_for(f.loop, 3000);
    assert_true(is_there());
    assert_true(is_named());
    assert_int_equal(removed, 0);
    assert_int_equal(asked, 0);
    drainer_free(d);
    support_for(f.loop, 150);
    teardown_env(&f);
}

static void one_that_comes_back_then_keeps_its_name(void **state)
{
    struct drainer *d = begin(200);

    (void)state;
    comes_back = true;
    until_removed(1);
    assert_true(is_there());
    assert_true(is_named());
    until_removed(2); /* nobody has come for good: both go */
    assert_false(is_there());
    assert_false(is_named());
    drainer_free(d);
    teardown_env(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_with_messages_stays),
        cmocka_unit_test(one_that_comes_back_then_keeps_its_name),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
