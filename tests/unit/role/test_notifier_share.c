/* notifier_share - several notifiers at once: a partition is of one at a time, each has its share, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/role/notifier_house.h"

static size_t confirmed;

static void on_confirmed(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)err;
    assert_int_equal(rc, TR_OK);
    confirmed++;
}

/* Replies number from .. to - 1, each of a chat of its own, so in all partitions; nobody waits for them. */
static void burst(struct fixture *f, size_t from, size_t to)
{
    struct queue *q = f->env.queue;

    for (size_t i = from; i < to; i++) {
        const struct envelope env = {
            .kind = ENVELOPE_REPLY, .chat = fresh_uuid(), .offset = i, .finish = FINISH_STOP, .created_ms = wall_ms()};
        struct buf body = {0};
        struct queue_message msg = {.queue = topic_notify(&env.chat)};
        struct tr_op *op;

        assert_int_equal(envelope_encode(&env, &body), TR_OK);
        msg.body = (struct slice){body.data, body.len};
        assert_int_equal(q->ops->publish(q, &msg, on_confirmed, NULL, &op, NULL), TR_OK);
        buf_release(&body);
    }
}

static size_t times_seen(const struct fixture *f, uint64_t offset)
{
    size_t n = 0;

    for (size_t s = 0; s < f->seen_n; s++)
        n += f->seen[s].env.offset == offset;
    return n;
}

struct all_of {
    const struct fixture *f;
    size_t n;
};

static bool all_seen(void *ctx)
{
    const struct all_of *all = ctx;

    for (size_t i = 0; i < all->n; i++)
        if (times_seen(all->f, i) == 0)
            return false;
    return true;
}

/*
 * Two notifiers: a partition is of one at a time.  The first to come has them all and the other stands by: nothing comes
 * twice.  What the first holds when it ends goes out through the second.
 */
static void test_two_notifiers(void **state)
{
    struct fixture f;
    struct notifier *first, *standby;
    struct all_of all = {&f, 100};

    (void)state;
    setup_env(&f);
    spy_on_queue(&f);
    confirmed = 0;
    first = start_notifier(&f, &f.env);
    standby = start_notifier(&f, &f.env);
    add_gateway(&f, "gateway.a", false, true);
    burst(&f, 0, 100);
    assert_true(support_until(f.loop, all_seen, &all, SUPPORT_LIMIT_MS));
    support_count(f.loop, &settle_acks, 100);
    assert_int_equal(f.seen_n, 100);

    all.n = 200;
    burst(&f, 100, 200);
    while (f.seen_n == 100) /* the first of them is out: the others are in hand, or on their way */
        support_for(f.loop, 1);
    notifier_free(first);
    burst(&f, 200, 220);
    all.n = 220;
    assert_true(support_until(f.loop, all_seen, &all, SUPPORT_LIMIT_MS));
    support_count(f.loop, &confirmed, 220);
    support_for(f.loop, 50);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(times_seen(&f, i), 1);
    for (size_t i = 200; i < 220; i++)
        assert_int_equal(times_seen(&f, i), 1);
    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++)
        assert_int_equal(queue_length_of(&f, topic_notify_number(i)), 0);
    end(&f, standby);
}

/* --- who was given what --- */

static struct {
    enum tr_rc (*consume)(struct queue *q, const char *name, uint32_t prefetch, queue_on_message *on_message,
                          queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer, struct tr_err *err);
    struct notifier *role[2];
    queue_on_message *on_message;
    size_t took[2][NOTIFY_PARTITIONS];
} shared;

static void tap_message(void *ctx, const struct queue_incoming *msg)
{
    for (unsigned p = 0; p < NOTIFY_PARTITIONS; p++)
        shared.took[ctx == shared.role[1]][p] += strcmp(msg->queue, topic_notify_number(p)) == 0;
    shared.on_message(ctx, msg);
}

static enum tr_rc tap_consume(struct queue *q, const char *name, uint32_t prefetch, queue_on_message *on_message,
                              queue_on_gap *on_gap, void *ctx, struct queue_consumer **ret_consumer, struct tr_err *err)
{
    const bool notify = strncmp(name, "notify.", 7) == 0;

    if (notify)
        shared.on_message = on_message;
    return shared.consume(q, name, prefetch, notify ? tap_message : on_message, on_gap, ctx, ret_consumer, err);
}

/* A reply of a chat of every partition; all are seen. */
static void a_round(struct fixture *f, const struct uuid chats[NOTIFY_PARTITIONS])
{
    const struct uuid turn = fresh_uuid();

    for (unsigned p = 0; p < NOTIFY_PARTITIONS; p++) {
        const struct envelope env = {.kind = ENVELOPE_REPLY, .chat = chats[p], .turn = turn, .finish = FINISH_STOP};

        publish(f, topic_notify_number(p), &env, false);
    }
    await_seen(f, ENVELOPE_REPLY, &turn, NOTIFY_PARTITIONS);
}

static size_t partitions_of(size_t which)
{
    size_t n = 0;

    for (unsigned p = 0; p < NOTIFY_PARTITIONS; p++)
        n += shared.took[which][p] > 0;
    return n;
}

/* Rounds until one notifier had so many partitions in one of them, and the other the rest. */
static void until_shared(struct fixture *f, const struct uuid chats[NOTIFY_PARTITIONS], size_t first)
{
    size_t rounds = 0;

    do {
        assert_true(++rounds < 30);
        memset(shared.took, 0, sizeof shared.took);
        a_round(f, chats);
        support_for(f->loop, 60);
    } while (partitions_of(0) != first || partitions_of(1) != NOTIFY_PARTITIONS - first);
}

/* The first has all; a second one gets half of them; the first has all again when that one goes.  Nothing is lost. */
static void test_share(void **state)
{
    static struct queue_ops ops;
    struct uuid chats[NOTIFY_PARTITIONS] = {0};
    struct fixture f;
    struct role_env other;

    (void)state;
    setenv("TROUPE_WORKER_TTL_MS", "300", 1);
    memset(&shared, 0, sizeof shared);
    setup_env(&f);
    unsetenv("TROUPE_WORKER_TTL_MS");
    ops = *f.env.queue->ops;
    shared.consume = ops.consume;
    ops.consume = tap_consume;
    f.env.queue->ops = &ops;
    add_gateway(&f, "gateway.a", false, true);
    for (unsigned found = 0; found < NOTIFY_PARTITIONS;) {
        const struct uuid chat = fresh_uuid();

        for (unsigned p = 0; p < NOTIFY_PARTITIONS; p++)
            if (uuid_is_nil(&chats[p]) && strcmp(topic_notify(&chat), topic_notify_number(p)) == 0) {
                chats[p] = chat;
                found++;
            }
    }
    shared.role[0] = start_notifier(&f, &f.env);
    until_shared(&f, chats, NOTIFY_PARTITIONS);
    other = f.env;
    other.instance = "zzz";
    shared.role[1] = start_notifier(&f, &other);
    until_shared(&f, chats, NOTIFY_PARTITIONS / 2);
    support_for(f.loop, 400);
    memset(shared.took, 0, sizeof shared.took);
    a_round(&f, chats); /* and so it stays */
    assert_int_equal(partitions_of(0), NOTIFY_PARTITIONS / 2);
    notifier_free(shared.role[1]);
    until_shared(&f, chats, NOTIFY_PARTITIONS);
    support_for(f.loop, 400);
    memset(shared.took, 0, sizeof shared.took);
    a_round(&f, chats);
    assert_int_equal(partitions_of(0), NOTIFY_PARTITIONS);
    end(&f, shared.role[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_notifiers),
        cmocka_unit_test(test_share),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
