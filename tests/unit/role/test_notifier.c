/*
 * notifier - the role over the real embedded adapters: who gets an event, in which order, and what is never lost.  Of
 * several notifiers: test_notifier_share.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/notifier/lonely.h"
#include "tests/unit/role/notifier_house.h"
#include "tests/unit/role/shifted_clock.h"

static const struct registry_ops *registry_inner;
static bool registry_down;

static enum tr_rc spy_conns(struct registry *r, const struct uuid *chat, registry_gateways_done *done, void *ctx,
                            struct tr_op **ret_op, struct tr_err *err)
{
    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    return registry_inner->conns(r, chat, done, ctx, ret_op, err);
}

static enum tr_rc spy_gateways(struct registry *r, registry_gateways_done *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    return registry_inner->gateways(r, done, ctx, ret_op, err);
}

static struct notifier *start(struct fixture *f)
{
    static struct registry_ops ops;

    setup_env(f);
    spy_on_queue(f);
    registry_inner = f->env.registry->ops;
    ops = *registry_inner;
    ops.conns = spy_conns;
    ops.gateways = spy_gateways;
    f->env.registry->ops = &ops;
    registry_down = false;
    shifted_s = 0;
    return start_notifier(f, &f->env);
}

static struct envelope event(const struct fixture *f, enum envelope_kind kind, uint64_t offset)
{
    return (struct envelope){.kind = kind, .chat = f->chat, .turn = f->head, .offset = offset, .finish = FINISH_STOP};
}

static size_t seen_at(const struct fixture *f, const char *queue)
{
    size_t n = 0;

    for (size_t i = 0; i < f->seen_n; i++)
        n += strcmp(f->seen[i].queue, queue) == 0;
    return n;
}

static void notify(struct fixture *f, enum envelope_kind kind, uint64_t offset)
{
    const struct envelope env = event(f, kind, offset);

    publish(f, topic_notify(&f->chat), &env, kind != ENVELOPE_REPLY);
}

static void test_holders(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    add_gateway(&f, "gateway.a", true, true);
    add_gateway(&f, "gateway.b", false, true);
    add_gateway(&f, "gateway.c", true, true);
    notify(&f, ENVELOPE_REPLY, 0);
    await_seen(&f, ENVELOPE_REPLY, NULL, 2);
    support_for(f.loop, 30);
    assert_int_equal(seen_at(&f, "gateway.a"), 1);
    assert_int_equal(seen_at(&f, "gateway.b"), 0);
    assert_int_equal(seen_at(&f, "gateway.c"), 1);
    assert_int_equal(settle_acks, 1);
    assert_int_equal(queue_length_of(&f, topic_notify(&f.chat)), 0);
    end(&f, role);
}

static void test_no_record(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    add_gateway(&f, "gateway.a", false, true);
    add_gateway(&f, "gateway.b", false, true);
    notify(&f, ENVELOPE_REPLY, 0);
    await_seen(&f, ENVELOPE_REPLY, NULL, 2);
    assert_int_equal(seen_at(&f, "gateway.a"), 1);
    assert_int_equal(seen_at(&f, "gateway.b"), 1);
    end(&f, role);
}

/* Nobody is there at all, and nobody comes: the history has it. */
static void test_nobody(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    notify(&f, ENVELOPE_REPLY, 0);
    notify(&f, ENVELOPE_DELTA, 0);
    support_count(f.loop, &settle_retries, 5); /* it waits */
    assert_int_equal(settle_acks, 0);
    forward_s += LONELY_MS / 1000;
    support_for(f.loop, 30); /* the loop's clock has jumped then */
    support_count(f.loop, &settle_acks, 1);
    assert_int_equal(queue_length_of(&f, topic_notify(&f.chat)), 0);
    end(&f, role);
}

/* The worker that stored the reply, an hour ahead or behind: the reply waits as long, and a gateway that comes gets it. */
static void test_nobody_by_its_own_clock(void **state)
{
    static const time_t ahead[] = {HOUR_S, -HOUR_S};

    (void)state;
    for (size_t i = 0; i < sizeof ahead / sizeof ahead[0]; i++) {
        struct fixture f;
        struct notifier *role = start(&f);
        struct envelope env = event(&f, ENVELOPE_REPLY, 0);

        shifted_s = ahead[i];
        env.created_ms = wall_ms();
        shifted_s = 0;
        publish(&f, topic_notify(&f.chat), &env, false);
        support_count(f.loop, &settle_retries, 5);
        assert_int_equal(settle_acks, 0);
        add_gateway(&f, "gateway.late", true, true);
        await_seen(&f, ENVELOPE_REPLY, NULL, 1);
        support_count(f.loop, &settle_acks, 1);
        end(&f, role);
    }
}

/* Each by its own time; those that were never taken up again are forgotten, not kept for ever. */
static void test_lonely(void **state)
{
    const struct uuid turn = fresh_uuid(), other = fresh_uuid();
    struct lonely *list = NULL;

    (void)state;
    assert_true(lonely_waits(&list, &turn, 0, 1000));
    assert_true(lonely_waits(&list, &turn, 1, 9000));
    assert_true(lonely_waits(&list, &turn, 0, 1000 + LONELY_MS - 1));
    assert_false(lonely_waits(&list, &turn, 0, 1000 + LONELY_MS));
    assert_true(lonely_waits(&list, &turn, 1, 9000 + LONELY_MS - 1));
    lonely_forget(&list, &turn, 1);
    lonely_forget(&list, &other, 1);
    assert_null(list);
    assert_true(lonely_waits(&list, &turn, 0, 1000));
    assert_true(lonely_waits(&list, &other, 0, 1000 + 10 * LONELY_MS));
    assert_true(lonely_waits(&list, &turn, 0, 1000 + 10 * LONELY_MS)); /* anew */
    lonely_release(&list);
    assert_null(list);
}

static void test_order(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);
    struct queue *q;

    (void)state;
    add_gateway(&f, "gateway.a", true, true);
    q = f.env.queue;
    for (uint64_t i = 0; i < 100; i++) {
        const struct envelope env = event(&f, ENVELOPE_DELTA, i);
        struct buf body = {0};
        struct queue_message msg = {.queue = topic_notify(&f.chat), .transient = true};

        assert_int_equal(envelope_encode(&env, &body), TR_OK);
        msg.body = (struct slice){body.data, body.len};
        assert_int_equal(q->ops->publish(q, &msg, NULL, NULL, NULL, NULL), TR_OK);
        buf_release(&body);
        if (i % 10 == 0)
            support_for(f.loop, 1);
    }
    notify(&f, ENVELOPE_REPLY, 100);
    await_seen(&f, ENVELOPE_REPLY, NULL, 1);
    assert_int_equal(f.seen_n, 101);
    for (size_t i = 0; i < f.seen_n; i++)
        assert_int_equal(f.seen[i].env.offset, i);
    end(&f, role);
}

/* A gateway that the chat's record names, and that is not among the living. */
static void record_of(struct fixture *f, const char *name)
{
    struct registry *r = f->env.registry;
    struct wait w = {.loop = f->loop};

    assert_int_equal(wait_end(&w, r->ops->conn_put(r, &f->chat, name, 60000, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* Its record is still there and its queue is gone, or neither is: the event goes to all living, as if there were no record. */
static void test_gateways_gone(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    add_gateway(&f, "gateway.gone", true, false);
    notify(&f, ENVELOPE_REPLY, 0);
    support_count(f.loop, &settle_retries, 1); /* nobody is there at all */
    forward_s += LONELY_MS / 1000;
    support_for(f.loop, 30);
    support_count(f.loop, &settle_acks, 1);
    add_gateway(&f, "gateway.a", false, true);
    support_for(f.loop, 600); /* as long as the list of the living is used */
    notify(&f, ENVELOPE_REPLY, 1);
    notify(&f, ENVELOPE_DELTA, 2);
    await_seen(&f, ENVELOPE_REPLY, NULL, 1);
    await_seen(&f, ENVELOPE_DELTA, NULL, 1);
    end(&f, role);
}

static void test_record_of_the_dead(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    add_gateway(&f, "gateway.a", false, true);
    add_gateway(&f, "gateway.b", false, true);
    declare(&f, "gateway.dead", QUEUE_TRANSIENT); /* the broker has not noticed yet */
    watch(&f, "gateway.dead");
    record_of(&f, "gateway.dead");
    notify(&f, ENVELOPE_REPLY, 0);
    notify(&f, ENVELOPE_CHANGED, 1);
    await_seen(&f, ENVELOPE_REPLY, NULL, 3);
    await_seen(&f, ENVELOPE_CHANGED, NULL, 3);
    assert_int_equal(seen_at(&f, "gateway.a"), 2);
    assert_int_equal(seen_at(&f, "gateway.b"), 2);
    assert_int_equal(seen_at(&f, "gateway.dead"), 2); /* it may be younger than the list of the living */
    for (size_t i = 0; i < f.seen_n; i++)
        assert_int_equal(f.seen[i].env.reach, REACH_HOLDERS); /* it went to all: nobody is to pass it on */
    end(&f, role);
}

/* Who gets an event by the record can tell; what comes back for all goes to all, once, whatever the record says. */
static void test_reach(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);
    struct envelope env;

    (void)state;
    add_gateway(&f, "gateway.a", true, true);
    add_gateway(&f, "gateway.b", false, true);
    notify(&f, ENVELOPE_REPLY, 0);
    notify(&f, ENVELOPE_DELTA, 1);
    assert_int_equal(await_seen(&f, ENVELOPE_REPLY, NULL, 1)->env.reach, REACH_RECORDED);
    assert_int_equal(await_seen(&f, ENVELOPE_DELTA, NULL, 1)->env.reach, REACH_HOLDERS);
    env = event(&f, ENVELOPE_REPLY, 2);
    env.reach = REACH_ALL;
    publish(&f, topic_notify(&f.chat), &env, false);
    await_seen(&f, ENVELOPE_REPLY, NULL, 3);
    support_for(f.loop, 30);
    assert_int_equal(seen_at(&f, "gateway.a"), 3);
    assert_int_equal(seen_at(&f, "gateway.b"), 1);
    assert_int_equal(find_seen(&f, ENVELOPE_REPLY, NULL, 1)->env.reach, REACH_ALL);
    assert_int_equal(find_seen(&f, ENVELOPE_REPLY, NULL, 2)->env.reach, REACH_ALL);
    end(&f, role);
}

/* More gateways than anybody would count on: each is told. */
static void test_many_gateways(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);
    struct registry *r = f.env.registry;
    char name[32];

    (void)state;
    for (int i = 0; i < 100; i++) {
        struct wait w = {.loop = f.loop};

        snprintf(name, sizeof name, "gateway.g%d", i);
        if (i < 99) {
            assert_int_equal(wait_end(&w, r->ops->gateway_refresh(r, name, 60000, wait_done, &w, &w.op, &w.err)),
                             TR_NOT_FOUND);
        } else {
            add_gateway(&f, name, false, true);
        }
    }
    notify(&f, ENVELOPE_REPLY, 0);
    await_seen(&f, ENVELOPE_REPLY, NULL, 1);
    for (int i = 0; i < 99; i++) {
        snprintf(name, sizeof name, "gateway.g%d", i);
        record_of(&f, name);
    }
    record_of(&f, "gateway.g99");
    notify(&f, ENVELOPE_REPLY, 1);
    await_seen(&f, ENVELOPE_REPLY, NULL, 2);
    end(&f, role);
}

static void test_registry_down(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    add_gateway(&f, "gateway.a", false, true);
    notify(&f, ENVELOPE_REPLY, 0); /* now it knows the gateways */
    await_seen(&f, ENVELOPE_REPLY, NULL, 1);
    registry_down = true;
    support_for(f.loop, 600);
    notify(&f, ENVELOPE_REPLY, 1);
    notify(&f, ENVELOPE_DELTA, 2);
    await_seen(&f, ENVELOPE_REPLY, NULL, 2);
    await_seen(&f, ENVELOPE_DELTA, NULL, 1);
    end(&f, role);
}

static void test_undecodable(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);

    (void)state;
    publish_bytes(&f, topic_notify(&f.chat), "no envelope");
    support_count(f.loop, &settle_dead, 1);
    end(&f, role);
}

static void on_drained(void *ctx)
{
    size_t *n = ctx;

    ++*n;
}

static void test_drain(void **state)
{
    struct fixture f;
    struct notifier *role = start(&f);
    size_t drained = 0;

    (void)state;
    add_gateway(&f, "gateway.a", true, true);
    notify(&f, ENVELOPE_REPLY, 0);
    notifier_drain(role, on_drained, &drained);
    support_count(f.loop, &drained, 1);
    notify(&f, ENVELOPE_REPLY, 1);
    support_for(f.loop, 30);
    assert_null(find_seen(&f, ENVELOPE_REPLY, NULL, 1));
    assert_int_equal(queue_length_of(&f, topic_notify(&f.chat)), 2 - f.seen_n);
    end(&f, role);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holders),       cmocka_unit_test(test_no_record),
        cmocka_unit_test(test_nobody),        cmocka_unit_test(test_order),
        cmocka_unit_test(test_gateways_gone), cmocka_unit_test(test_record_of_the_dead),
        cmocka_unit_test(test_reach),         cmocka_unit_test(test_many_gateways),
        cmocka_unit_test(test_registry_down), cmocka_unit_test(test_undecodable),
        cmocka_unit_test(test_drain),         cmocka_unit_test(test_nobody_by_its_own_clock),
        cmocka_unit_test(test_lonely),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
