/*
 * leaving - a worker that goes says so first, and one that comes back is as old as it was: who gets its chats, and when
 * (contract 3.5).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/role/routing_house.h"

static void report_draining(struct registry_worker *worker)
{
    struct wait w = {.loop = f.loop};
    struct registry *r = f.env.registry;

    worker->draining = true;
    assert_int_equal(wait_end(&w, r->ops->worker_refresh(r, worker, 60000, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/*
 * One that says it leaves gets nothing new, only its chats move, and it makes nobody too young: whoever serves is chosen,
 * also when all the old ones leave at once.  Where all leave, messages wait for the first that comes.
 */
static void who_leaves_gets_nothing(void **state)
{
    static char before[CHATS][QUEUE_NAME_MAX + 1], after[CHATS][QUEUE_NAME_MAX + 1];
    struct envelope work = {.kind = ENVELOPE_WORK, .turn = fresh_uuid(), .character = "bob", .created_ms = wall_ms()};
    struct registry_worker old[3];
    struct uuid chats[CHATS];

    (void)state;
    fresh_chats(chats);
    for (uint32_t i = 0; i < 3; i++)
        old[i] = add_aged("any", i + 1, 3600000);
    route(chats, "bob", before);
    report_draining(&old[0]);
    let_the_router_look("bob");
    route(chats, "bob", after);
    only_moved_from(before, after, old[0].queue);

    add_record("any", 4); /* young, and the only one that stays */
    report_draining(&old[1]);
    report_draining(&old[2]);
    let_the_router_look("bob");
    route(chats, "bob", after);
    all_at(after, "inference.any.4");

    for (uint32_t i = 0; i < 3; i++)
        remove_record(&old[i]);
    old[0] = (struct registry_worker){.character = "any", .id = "any4", .queue = "inference.any.4", .number = 4};
    report_draining(&old[0]);   /* now nobody serves */
    let_the_router_look("bob"); /* this one still goes there */
    work.chat = fresh_uuid();
    publish(&f, TOPIC_INCOMING, &work, false);
    support_for(f.loop, 2 * ROUTER_FRESH_MS);
    assert_int_equal(count_seen(&f, ENVELOPE_WORK, &work.turn), 0);
    add_record("any", 5);
    await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
    assert_string_equal(f.seen[f.seen_n - 1].queue, "inference.any.5");
}

/* A worker whose record was lost is as old as it was: its chats stay, where one that came anew would get none for a while. */
static void a_lost_record_moves_nobody(void **state)
{
    static char before[CHATS][QUEUE_NAME_MAX + 1], after[CHATS][QUEUE_NAME_MAX + 1];
    struct registry_worker worker[2];
    struct uuid chats[CHATS];

    (void)state;
    fresh_chats(chats);
    for (uint32_t i = 0; i < 2; i++)
        worker[i] = add_aged("any", i + 1, 3600000);
    route(chats, "bob", before);
    remove_record(&worker[0]);
    put_record(&worker[0]);
    let_the_router_look("bob");
    route(chats, "bob", after);
    assert_memory_equal(after, before, sizeof before);
    remove_record(&worker[0]);
    worker[0].age_ms = 0; /* a new process */
    put_record(&worker[0]);
    let_the_router_look("bob");
    route(chats, "bob", after);
    all_at(after, worker[1].queue);
}

/* A real worker loses its record; it puts it again with its age. */
static void a_real_worker_keeps_its_age(void **state)
{
    struct wait_workers g;
    struct registry_worker lost = {.character = "any", .number = 1};
    uint64_t age;

    (void)state;
    run(0, "any");
    support_for(f.loop, 400);
    living_in("any", &g);
    assert_int_equal(g.n, 1);
    age = g.first.age_ms;
    assert_true(age >= 350);
    strcpy(lost.id, g.first.id);
    remove_record(&lost);
    living_in("any", &g);
    assert_int_equal(g.n, 0);
    for (uint64_t began = loop_now_ms(f.loop); g.n == 0; living_in("any", &g))
        assert_true(loop_now_ms(f.loop) - began < SUPPORT_LIMIT_MS);
    assert_int_equal(g.first.number, 1);
    assert_true(g.first.age_ms >= age);
}

struct wait_names {
    struct wait w;
    size_t n;
};

static void on_setting_names(void *ctx, enum tr_rc rc, const char *const *keys, size_t n, const struct tr_err *err)
{
    (void)keys;
    ((struct wait_names *)ctx)->n = n;
    wait_called(ctx, rc, err);
}

static size_t names(void)
{
    struct wait_names got = {.w = {.loop = f.loop}};
    struct catalogue *c = f.env.catalogue;

    assert_int_equal(wait_end(&got.w, c->ops->settings(c, "queue:", on_setting_names, &got, &got.w.op, &got.w.err)),
                     TR_OK);
    return got.n;
}

/* The name of its queue is lost (a removal that was under way when it came, a catalogue that lags): it is written again. */
static void a_lost_name_is_written_again(void **state)
{
    struct catalogue *c = f.env.catalogue;
    struct wait w = {.loop = f.loop};

    (void)state;
    run(0, "any");
    assert_int_equal(names(), 1);
    assert_int_equal(wait_end(&w, c->ops->setting_remove(c, "queue:inference.any.1", wait_done, &w, &w.op, &w.err)),
                     TR_OK);
    assert_int_equal(names(), 0);
    for (uint64_t began = loop_now_ms(f.loop); names() == 0; support_for(f.loop, 20))
        assert_true(loop_now_ms(f.loop) - began < SUPPORT_LIMIT_MS);
}

static void on_worker_drained(void *ctx)
{
    ++*(size_t *)ctx;
}

/*
 * SIGTERM to a worker that writes: its record says so at once, what it held back goes to the other without waiting for a
 * TTL, the reply that it writes is finished, and its number stays its own until it has left.
 */
static void one_leaves_while_it_writes(void **state)
{
    enum { WRITTEN, HELD, STALE, NEW, TURNS };
    struct envelope turns[TURNS];
    struct wait_workers g;
    size_t left = 0, n = 0;

    (void)state;
    engine = "?delay_ms=1500";
    watch(&f, topic_notify(&f.chat));
    run(0, "any");
    engine = "?delay_ms=1";
    say(&turns[n++], "written where it was");
    say(&turns[n++], "held back");
    support_count(f.loop, &runners[0].generated, 1);
    while (queue_length_of(&f, TOPIC_INCOMING) > 0)
        support_for(f.loop, 1);
    inference_drain(runners[0].role, on_worker_drained, &left);
    say(&turns[n++], "sent by the list of a moment ago");
    for (living_in("any", &g); !g.first.draining; living_in("any", &g))
        assert_int_equal(left, 0);
    run(1, "any");
    assert_int_equal(left, 0); /* it writes, and its number is taken */
    living_in("any", &g);
    assert_int_equal(g.n, 2);
    support_for(f.loop, ROUTER_FRESH_MS + 50);
    say(&turns[n++], "new");
    answered_in_order(turns, n);
    support_count(f.loop, &left, 1);
    assert_int_equal(runners[0].generated, 1);
    assert_int_equal(runners[1].generated, TURNS - 1);
    for (living_in("any", &g); g.n > 1; living_in("any", &g))
        support_for(f.loop, 1);
    assert_int_equal(g.first.number, 2);
}

/* One that had nothing to finish is gone before anybody saw it leave: what comes to its queue is taken over all the same. */
static void one_leaves_at_once(void **state)
{
    struct envelope turns[2];
    struct wait_workers g;
    size_t left = 0;

    (void)state;
    engine = "?delay_ms=1";
    watch(&f, topic_notify(&f.chat));
    run(0, "any");
    run(1, "any");
    say(&turns[0], "both are known");
    answered_in_order(turns, 1);
    inference_drain(runners[0].role, on_worker_drained, &left);
    support_count(f.loop, &left, 1);
    living_in("any", &g);
    assert_int_equal(g.n, 1);
    accept(&f, "by an old list", &turns[1]);
    publish(&f, "inference.any.1", &turns[1], false);
    support_for(f.loop, ROUTER_FRESH_MS + 50);
    publish(&f, TOPIC_INCOMING, &turns[0], false); /* the list is read */
    answered_in_order(turns, 2);
}

/* --- a registration whose answer is held back --- */

static struct {
    struct tr_op op;
    registry_worker_done *done;
    void *ctx;
    uint32_t number;
    size_t asked;
} held;

static void held_cancel(struct tr_op *op)
{
    (void)op;
    held.done(held.ctx, TR_CANCELLED, 0, NULL);
}

static void on_held(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    (void)ctx, (void)err;
    assert_int_equal(rc, TR_OK);
    held.number = number;
    held.asked++;
}

static const struct registry_ops *registry_inner;

static enum tr_rc hold_register(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                                registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct tr_op *op;

    held.done = done;
    held.ctx = ctx;
    held.op.cancel = held_cancel;
    *ret_op = &held.op;
    return registry_inner->worker_register(r, w, ttl_ms, on_held, NULL, &op, err);
}

static void on_nothing(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)err;
}

/* SIGTERM while its registration is under way: the record that comes of it does not stay for a TTL with nobody behind it. */
static void leaves_while_it_registers(void **state)
{
    struct registry_ops ops = *f.env.registry->ops;
    struct inference *worker;
    struct engine *stub;
    size_t left = 0;

    (void)state;
    memset(&held, 0, sizeof held);
    registry_inner = f.env.registry->ops;
    ops.worker_register = hold_register;
    f.env.registry->ops = &ops;
    assert_int_equal(stub_engine_open(f.loop, "", &stub, NULL), TR_OK);
    assert_int_equal(inference_start(&f.env, &stub, 1, "any", on_nothing, NULL, &worker, NULL), TR_OK);
    support_count(f.loop, &held.asked, 1);
    assert_int_equal(living("any"), 1);
    inference_drain(worker, on_worker_drained, &left);
    support_for(f.loop, 20);
    if (left == 0)
        held.done(held.ctx, TR_OK, held.number, NULL);
    support_count(f.loop, &left, 1);
    assert_int_equal(living("any"), 0);
    f.env.registry->ops = registry_inner;
    inference_free(worker);
    support_for(f.loop, 10);
    stub->ops->close(stub);
}

static enum tr_rc refuse_refresh(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                                 registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)r, (void)w, (void)ttl_ms, (void)done, (void)ctx, (void)ret_op;
    return tr_fail(err, TR_TRANSIENT, "down");
}

static size_t refused;

static enum tr_rc refuse_register(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                                  registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)r, (void)w, (void)ttl_ms, (void)done, (void)ctx, (void)ret_op;
    refused++;
    return tr_fail(err, TR_TRANSIENT, "down");
}

/* The registry does not answer until the worker has stopped consuming. */
static void until_fenced(struct registry_ops *ops)
{
    registry_inner = f.env.registry->ops;
    *ops = *registry_inner;
    ops->worker_refresh = refuse_refresh;
    ops->worker_register = refuse_register;
    f.env.registry->ops = ops;
    refused = 0;
    support_count(f.loop, &refused, 1);
    assert_int_equal(living("any"), 0);
}

/* SIGTERM to a worker that comes back and still writes: it takes nothing, and the record that it has just put says so. */
static void leaves_while_it_comes_back(void **state)
{
    static struct registry_ops ops;
    struct envelope turns[2];
    struct wait_workers g;
    size_t left = 0;

    (void)state;
    memset(&held, 0, sizeof held);
    engine = "?delay_ms=3000";
    watch(&f, topic_notify(&f.chat));
    run(0, "any");
    engine = "?delay_ms=1";
    say(&turns[0], "written where it was");
    support_count(f.loop, &runners[0].generated, 1);
    until_fenced(&ops);
    ops.worker_register = hold_register;
    support_count(f.loop, &held.asked, 1);
    ops = *registry_inner;
    inference_drain(runners[0].role, on_worker_drained, &left);
    held.done(held.ctx, TR_OK, held.number, NULL);
    for (living_in("any", &g); !g.first.draining; living_in("any", &g))
        assert_int_equal(left, 0);
    accept(&f, "not for it", &turns[1]);
    publish(&f, "inference.any.1", &turns[1], false);
    support_for(f.loop, 100);
    assert_int_equal(left, 0);
    run(1, "any");
    answered_in_order(turns, 2);
    support_count(f.loop, &left, 1);
    assert_int_equal(runners[0].generated, 1);
    f.env.registry->ops = registry_inner;
}

static struct tr_op unanswered;
static catalogue_setting_done *unanswered_done;
static void *unanswered_ctx;

static void unanswered_cancel(struct tr_op *op)
{
    (void)op;
    unanswered_done(unanswered_ctx, TR_CANCELLED, false, NULL, NULL);
}

static enum tr_rc swallow_put(struct catalogue *c, const char *key, const char *value, catalogue_setting_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)c, (void)key, (void)value, (void)err;
    unanswered.cancel = unanswered_cancel;
    unanswered_done = done;
    unanswered_ctx = ctx;
    *ret_op = &unanswered;
    return TR_OK;
}

/* It comes back while the catalogue does not answer: its record is no promise that nobody keeps. */
static void comes_back_without_a_catalogue(void **state)
{
    const struct catalogue_ops *inner = f.env.catalogue->ops;
    static struct catalogue_ops silent;
    static struct registry_ops ops;
    struct envelope turns[2];

    (void)state;
    engine = "?delay_ms=1";
    watch(&f, topic_notify(&f.chat));
    run(0, "any");
    say(&turns[0], "before");
    answered_in_order(turns, 1);
    until_fenced(&ops);
    silent = *inner;
    silent.setting_put = swallow_put;
    f.env.catalogue->ops = &silent;
    f.env.registry->ops = registry_inner;
    say(&turns[1], "after");
    answered_in_order(turns, 2);
    f.env.catalogue->ops = inner;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_leaves_gets_nothing, setup_long, teardown),
        cmocka_unit_test_setup_teardown(a_lost_record_moves_nobody, setup_long, teardown),
        cmocka_unit_test_setup_teardown(a_real_worker_keeps_its_age, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_name_is_written_again, setup, teardown),
        cmocka_unit_test_setup_teardown(leaves_while_it_registers, setup_long, teardown),
        cmocka_unit_test_setup_teardown(leaves_while_it_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(comes_back_without_a_catalogue, setup, teardown),
        cmocka_unit_test_setup_teardown(one_leaves_at_once, setup_long, teardown),
        cmocka_unit_test_setup_teardown(one_leaves_while_it_writes, setup_long, teardown),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
