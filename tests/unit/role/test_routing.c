/*
 * routing - a popular character's own workers and the shared pool (contract 8): who gets which chats, what becomes of
 * them when the last own worker dies and when it returns.  Preprocess and inference over the real embedded adapters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/role/routing_house.h"

/* Its own workers first, every other character to the pool, and only the chats of a lost worker move. */
static void own_workers_and_the_pool(void **state)
{
    static char ada[CHATS][QUEUE_NAME_MAX + 1], bob[CHATS][QUEUE_NAME_MAX + 1], again[CHATS][QUEUE_NAME_MAX + 1];
    struct uuid chats[CHATS];
    struct registry_worker one, two;

    (void)state;
    for (size_t i = 0; i < CHATS; i++)
        chats[i] = fresh_uuid();
    add_record("any", 1);
    add_record("any", 2);
    one = add_record("ada", 1);
    two = add_record("ada", 2);
    route(chats, "ada", ada);
    all_at(ada, "inference.ada.");
    route(chats, "bob", bob);
    all_at(bob, "inference.any.");

    remove_record(&one);
    let_the_router_look("ada");
    route(chats, "ada", again);
    only_moved_from(ada, again, one.queue);
    all_at(again, "inference.ada.");
    remove_record(&two); /* the last of its own: the pool, by the pool's own choice */
    let_the_router_look("ada");
    route(chats, "ada", again);
    assert_memory_equal(again, bob, sizeof bob);
    put_record(&one);
    put_record(&two);
    let_the_router_look("ada");
    route(chats, "ada", again); /* both are back: every chat is where it was */
    assert_memory_equal(again, ada, sizeof ada);
    route(chats, "bob", again); /* who was not concerned never moved */
    assert_memory_equal(again, bob, sizeof bob);
}

/* The last own worker dies with turns in its queue: the pool answers them, in order; it returns: the chat moves back. */
static void the_pool_takes_over_and_gives_back(void **state)
{
    enum { AT_ADA, LEFT, BETWEEN, AFTER, TURNS = 12 };
    struct envelope turns[TURNS];
    uint64_t died_ms, ended_ms, drained_ms;
    size_t n = 0, own, pool;

    (void)state;
    watch(&f, topic_notify(&f.chat));
    run(0, "ada");
    run(1, "any");
    say(&turns[n++], "at ada");
    answered_in_order(turns, n);
    assert_int_equal(runners[0].generated, 1);
    assert_int_equal(runners[1].generated, 0);

    for (; n < 5; n++)
        say(&turns[n], "left behind");
    while (queue_length_of(&f, TOPIC_INCOMING) > 0) /* they are in its queue, the first of them begun */
        support_for(f.loop, 1);
    die(0);
    died_ms = loop_now_ms(f.loop);
    assert_in_range(queue_length_of(&f, "inference.ada.1"), 3, 4);
    for (; n < 7; n++)
        say(&turns[n], "behind these"); /* routed to the dead one's queue, as long as its record lasts */
    while (living("ada") > 0)
        assert_true(loop_now_ms(f.loop) - died_ms < SUPPORT_LIMIT_MS);
    ended_ms = loop_now_ms(f.loop);
    while (queue_length_of(&f, "inference.ada.1") > 0)
        assert_true(loop_now_ms(f.loop) - ended_ms < SUPPORT_LIMIT_MS);
    drained_ms = loop_now_ms(f.loop);
    print_message("TTL %d ms: the record ended %u ms after the death, the queue was drained %u ms later\n", TTL_MS,
                  (unsigned)(ended_ms - died_ms), (unsigned)(drained_ms - ended_ms));
    assert_true(drained_ms - ended_ms < TTL_MS + 300); /* a busy machine's timers are late: see the figure */
    answered_in_order(turns, n);
    assert_int_equal(queue_length_of(&f, "inference.ada.1"), 0);
    pool = runners[1].generated;
    assert_in_range(pool, 5, 6);

    say(&turns[n++], "straight to the pool");
    answered_in_order(turns, n);
    assert_int_equal(runners[1].generated, ++pool);

    own = runners[0].generated;
    run(0, "ada"); /* number 1 is free: the same queue */
    for (; n < 10; n++)
        say(&turns[n], "on the way back"); /* while nobody may know yet, and the drainer still holds the queue */
    answered_in_order(turns, n);
    support_for(f.loop, 700);
    pool = runners[1].generated;
    for (; n < TURNS; n++)
        say(&turns[n], "at home again");
    answered_in_order(turns, n);
    assert_int_equal(runners[1].generated, pool);
    assert_true(runners[0].generated >= own + 2);
    assert_in_range(runners[0].generated + runners[1].generated, TURNS, TURNS + 1); /* one was begun where it died */
}

/* No pool: a character's messages wait for its own workers, wherever they lie. */
static void no_pool_at_all(void **state)
{
    struct envelope turns[4];
    size_t n = 0;

    (void)state;
    watch(&f, topic_notify(&f.chat));
    run(0, "ada");
    say(&turns[n++], "one");
    answered_in_order(turns, n);
    die(0);
    for (; n < 3; n++)
        say(&turns[n], "nobody is there");
    support_for(f.loop, 3 * TTL_MS);
    assert_int_equal(count_seen(&f, ENVELOPE_REPLY, NULL), 1);
    assert_int_equal(queue_length_of(&f, "inference.ada.1") + queue_length_of(&f, TOPIC_INCOMING), 2);
    run(0, "ada");
    say(&turns[n++], "back");
    answered_in_order(turns, n);
}

static size_t count_at(char queues[CHATS][QUEUE_NAME_MAX + 1], const char *queue)
{
    size_t n = 0;

    for (size_t i = 0; i < CHATS; i++)
        n += strcmp(queues[i], queue) == 0;
    return n;
}

static void report_load(struct registry_worker *worker, uint32_t load)
{
    struct wait w = {.loop = f.loop};
    struct registry *r = f.env.registry;

    worker->load = load;
    assert_int_equal(wait_end(&w, r->ops->worker_refresh(r, worker, 60000, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* A full worker gets no chat that has no place yet; one that has its place stays, however the load changes. */
static void the_load_bound_places_and_never_moves(void **state)
{
    static char first[CHATS][QUEUE_NAME_MAX + 1], placed[CHATS][QUEUE_NAME_MAX + 1], again[CHATS][QUEUE_NAME_MAX + 1];
    struct registry_worker worker[3];
    struct uuid old[CHATS], chats[CHATS];
    size_t displaced = 0;

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        worker[i] = add_record("any", i + 1);
    fresh_chats(old);
    route(old, "bob", first); /* all idle */
    report_load(&worker[0], 1000);
    let_the_router_look("bob");
    route(old, "bob", again); /* they had their places before it was full */
    assert_memory_equal(again, first, sizeof first);
    fresh_chats(chats);
    route(chats, "bob", placed);
    assert_int_equal(count_at(placed, worker[0].queue), 0);
    assert_in_range(count_at(placed, worker[1].queue), 10, 50);

    report_load(&worker[0], 0);
    let_the_router_look("bob");
    route(chats, "bob", again); /* it has room again: they stay all the same */
    assert_memory_equal(again, placed, sizeof placed);

    remove_record(&worker[0]); /* the first choice of those that were placed elsewhere goes: nothing to them */
    let_the_router_look("bob");
    route(chats, "bob", again);
    assert_memory_equal(again, placed, sizeof placed);
    put_record(&worker[0]); /* one comes that is their first choice: they go there, and nobody else moves */
    let_the_router_look("bob");
    route(chats, "bob", placed);
    for (size_t i = 0; i < CHATS; i++)
        if (strcmp(placed[i], worker[0].queue) != 0)
            assert_string_equal(placed[i], again[i]);
    assert_in_range(count_at(placed, worker[0].queue), 5, 40);

    remove_record(&worker[1]); /* its chats move, nobody else */
    let_the_router_look("bob");
    route(chats, "bob", again);
    only_moved_from(placed, again, worker[1].queue);
    for (size_t i = 0; i < CHATS; i++)
        displaced += strcmp(placed[i], worker[1].queue) == 0 && strcmp(again[i], worker[0].queue) == 0;
    assert_in_range(displaced, 1, CHATS); /* now there was room for them */
}

/* Sixty that come at once, before any worker has told of its load.  By hashing alone a round in three breaks the bound. */
static void the_bound_holds_in_a_rush(void **state)
{
    static char queues[CHATS][QUEUE_NAME_MAX + 1];
    struct uuid chats[CHATS];
    struct registry_worker worker[4];

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        worker[i] = add_record("any", i + 1);
    for (int round = 0; round < 8; round++) {
        struct wait w = {.loop = f.loop};

        preprocess_free(role); /* a new one, that has placed nobody yet */
        role = NULL;
        assert_int_equal(wait_end(&w, preprocess_start(&f.env, on_started, &w, &role, &w.err)), TR_OK);
        fresh_chats(chats);
        route(chats, "bob", queues);
        for (size_t i = 0; i < 4; i++)
            assert_in_range(count_at(queues, worker[i].queue), 1, 19); /* 125 % of 60 / 4, whole chats */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(own_workers_and_the_pool, setup, teardown),
        cmocka_unit_test_setup_teardown(the_pool_takes_over_and_gives_back, setup, teardown),
        cmocka_unit_test_setup_teardown(no_pool_at_all, setup, teardown),
        cmocka_unit_test_prestate_setup_teardown(the_load_bound_places_and_never_moves, setup, teardown, "125"),
        cmocka_unit_test_prestate_setup_teardown(the_bound_holds_in_a_rush, setup, teardown, "125"),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
