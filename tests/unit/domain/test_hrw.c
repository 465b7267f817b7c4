/* Tests of domain/hrw: XXH64's published values, and contract 3.5 and 11.12 as properties over random memberships. */
#include "domain/hrw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NODES_MAX 24

static uint64_t seed = 42;
static uint64_t next_random(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seed >> 33 ^ seed << 31;
}

static struct uuid chat_of(uint64_t n)
{
    uint8_t random[10];

    memcpy(random, &n, 8);
    random[8] = random[9] = 0;
    return uuid_v7(1700000000000 + n / 10, random);
}

static size_t make_nodes(struct hrw_node *nodes)
{
    size_t n = 2 + next_random() % (NODES_MAX - 2);

    for (size_t i = 0; i < n; i++) {
        uint64_t name = next_random();

        nodes[i] = (struct hrw_node){hrw_hash(&name, sizeof name), 1U << next_random() % 4, 0};
    }
    return n;
}

static void xxh64_known_answers(void **state)
{
    static const struct {
        const char *text;
        uint64_t want;
    } rows[] = {
        {"", UINT64_C(0xEF46DB3751D8E999)},
        {"a", UINT64_C(0xD24EC4F1A98C6E5B)},
        {"abc", UINT64_C(0x44BC2CF5AD770999)},
        {"Nobody inspects the spammish repetition", UINT64_C(0xFBCEA83C8A378BF1)},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_true(hrw_hash(rows[i].text, strlen(rows[i].text)) == rows[i].want);
}

/* Take one away: only its chats move.  Put it back (elsewhere in the list): all are where they were. */
static void minimal_move(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct hrw_node nodes[NODES_MAX], fewer[NODES_MAX];
        size_t n = make_nodes(nodes), gone = next_random() % n;

        memcpy(fewer, nodes, sizeof nodes);
        fewer[gone] = fewer[n - 1];
        for (uint64_t c = 0; c < 20; c++) {
            struct uuid chat = chat_of(next_random());
            uint64_t before = nodes[hrw_choose(&chat, nodes, n)].id, after = fewer[hrw_choose(&chat, fewer, n - 1)].id;

            if (before != nodes[gone].id)
                assert_true(after == before);
            else
                assert_true(after != before);
        }
    }
}

static void shares_follow_the_weights(void **state)
{
    struct hrw_node nodes[] = {{11, 1, 0}, {12, 1, 0}, {13, 2, 0}, {14, 4, 0}};
    int count[4] = {0};

    (void)state;
    for (uint64_t c = 0; c < 40000; c++) {
        struct uuid chat = chat_of(c);

        count[hrw_choose(&chat, nodes, 4)]++;
    }
    assert_in_range(count[0], 4700, 5300);
    assert_in_range(count[1], 4700, 5300);
    assert_in_range(count[2], 9600, 10400);
    assert_in_range(count[3], 19500, 20500);
}

static void ties_and_order(void **state)
{
    struct hrw_node nodes[] = {{7, 1, 0}, {7, 1, 0}, {3, 1, 0}}, turned[] = {{3, 1, 0}, {7, 1, 0}};

    (void)state;
    for (uint64_t c = 0; c < 1000; c++) {
        struct uuid chat = chat_of(c);

        assert_true(nodes[hrw_choose(&chat, nodes, 3)].id == turned[hrw_choose(&chat, turned, 2)].id);
        assert_int_not_equal(hrw_choose(&chat, nodes, 3), 1); /* the first of two alike */
    }
}

static void bound_holds(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        struct hrw_node nodes[NODES_MAX];
        size_t n = make_nodes(nodes);
        uint64_t weights = 0;

        for (size_t i = 0; i < n; i++)
            weights += nodes[i].weight;
        for (uint64_t c = 1; c <= 1000; c++) {
            struct uuid chat = chat_of(next_random());
            size_t chosen = hrw_choose_bounded(&chat, nodes, n, 125);

            nodes[chosen].load++;
            assert_true((double)nodes[chosen].load < 1.25 * (double)c * nodes[chosen].weight / (double)weights + 1.0);
        }
    }
}

static void bound_off_and_unmet(void **state)
{
    struct hrw_node nodes[] = {{1, 1, 1000}, {2, 1, 0}};
    int first = 0;

    (void)state;
    for (uint64_t c = 0; c < 200; c++) {
        struct uuid chat = chat_of(c);
        size_t free_choice = hrw_choose(&chat, nodes, 2);

        first += free_choice == 0;
        assert_int_equal(hrw_choose_bounded(&chat, nodes, 2, 0), free_choice);
        assert_int_equal(hrw_choose_bounded(&chat, nodes, 2, 125), 1);
        assert_int_equal(hrw_choose_bounded(&chat, nodes, 1, 1), 0); /* none has room: the best */
    }
    assert_in_range(first, 60, 140);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xxh64_known_answers),
        cmocka_unit_test(minimal_move),
        cmocka_unit_test(shares_follow_the_weights),
        cmocka_unit_test(ties_and_order),
        cmocka_unit_test(bound_holds),
        cmocka_unit_test(bound_off_and_unmet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
