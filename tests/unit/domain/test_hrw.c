/* Tests of domain/hrw: XXH64's published values, and contract 3.5 and 11.12 as properties over random memberships. */
#include "domain/hrw.h"

#include <math.h>
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

        nodes[i] = (struct hrw_node){hrw_hash(&name, sizeof name), 1U << next_random() % 4, 0, 0};
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

/*
 * Any change of the set at once: some workers go, some come.  The theoretical minimum exactly: a chat moves if its worker
 * is gone, or to one that is new, and for no other reason.  Back to the old set (in another order): the old map.
 */
static void any_change_moves_the_minimum(void **state)
{
    size_t moved = 0, stayed = 0;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct hrw_node nodes[NODES_MAX], now[2 * NODES_MAX], back[NODES_MAX];
        size_t n = make_nodes(nodes), n_now = 0, kept, shift = next_random() % n;

        for (size_t i = 0; i < n; i++) {
            back[(i + shift) % n] = nodes[i];
            if (next_random() % 4 != 0)
                now[n_now++] = nodes[i];
        }
        kept = n_now;
        for (uint64_t more = next_random() % 4; more > 0 || n_now == 0; more -= more > 0) {
            uint64_t name = next_random();

            now[n_now++] = (struct hrw_node){hrw_hash(&name, sizeof name), 1U << next_random() % 4, 0, 0};
        }
        for (uint64_t c = 0; c < 20; c++) {
            struct uuid chat = chat_of(next_random());
            uint64_t before = nodes[hrw_choose(&chat, nodes, n)].id;
            size_t after = hrw_choose(&chat, now, n_now);
            bool lives = false;

            for (size_t i = 0; i < kept; i++)
                lives = lives || now[i].id == before;
            if (lives && after < kept)
                assert_true(now[after].id == before);
            else
                assert_true(now[after].id != before);
            moved += now[after].id != before;
            stayed += now[after].id == before;
            assert_true(back[hrw_choose(&chat, back, n)].id == before);
        }
    }
    assert_true(moved > 1000 && stayed > 1000); /* both were looked at */
}

/* How many move is as many as the weights say: to a new worker w/(W + w) of all, from a lost one w/W; within 5 sigma. */
static void moved_share_is_the_weights(void **state)
{
    double came = 0, went = 0, came_want = 0, went_want = 0, came_var = 0, went_var = 0;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct hrw_node nodes[NODES_MAX];
        size_t n = make_nodes(nodes);
        double all = 0, share;

        for (size_t i = 0; i < n; i++)
            all += nodes[i].weight;
        share = nodes[n - 1].weight / all; /* the last one is new, or lost */
        for (uint64_t c = 0; c < 50; c++) {
            struct uuid chat = chat_of(next_random());
            size_t with = hrw_choose(&chat, nodes, n), without = hrw_choose(&chat, nodes, n - 1);

            if (round % 2 == 0)
                came += with != without;
            else
                went += with != without;
        }
        *(round % 2 == 0 ? &came_want : &went_want) += 50 * share;
        *(round % 2 == 0 ? &came_var : &went_var) += 50 * share * (1 - share);
    }
    assert_true(fabs(came - came_want) < 5 * sqrt(came_var));
    assert_true(fabs(went - went_want) < 5 * sqrt(went_var));
}

/* Over random memberships every worker has its share: Pearson's chi-squared, within 6 sigma of its mean. */
static void every_share_is_right(void **state)
{
    double chi = 0, freedom = 0;

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct hrw_node nodes[NODES_MAX];
        size_t n = make_nodes(nodes), chats = 2000, count[NODES_MAX] = {0};
        double all = 0;

        for (size_t i = 0; i < n; i++)
            all += nodes[i].weight;
        for (size_t c = 0; c < chats; c++) {
            struct uuid chat = chat_of(next_random());

            count[hrw_choose(&chat, nodes, n)]++;
        }
        for (size_t i = 0; i < n; i++) {
            double want = (double)chats * nodes[i].weight / all;

            chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
        }
        freedom += (double)n - 1;
    }
    assert_true(fabs(chi - freedom) < 6 * sqrt(2 * freedom));
}

static void shares_follow_the_weights(void **state)
{
    struct hrw_node nodes[] = {{11, 1, 0, 0}, {12, 1, 0, 0}, {13, 2, 0, 0}, {14, 4, 0, 0}};
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
    struct hrw_node nodes[] = {{7, 1, 0, 0}, {7, 1, 0, 0}, {3, 1, 0, 0}}, turned[] = {{3, 1, 0, 0}, {7, 1, 0, 0}};

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
    struct hrw_node nodes[] = {{1, 1, 1000, 0}, {2, 1, 0, 0}};
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

/* Below its slots nobody waits: the bound counts from there on. */
static void bound_begins_past_the_slots(void **state)
{
    struct hrw_node nodes[] = {{1, 1, 3, 4}, {2, 1, 0, 4}};

    (void)state;
    for (uint64_t c = 0; c < 200; c++) {
        struct uuid chat = chat_of(c);

        nodes[0].load = 3;
        assert_int_equal(hrw_choose_bounded(&chat, nodes, 2, 125), hrw_choose(&chat, nodes, 2));
        nodes[0].load = 4; /* 125 % of an even share of 4 and this one: 3.1 */
        assert_int_equal(hrw_choose_bounded(&chat, nodes, 2, 125), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xxh64_known_answers),
        cmocka_unit_test(minimal_move),
        cmocka_unit_test(any_change_moves_the_minimum),
        cmocka_unit_test(moved_share_is_the_weights),
        cmocka_unit_test(every_share_is_right),
        cmocka_unit_test(shares_follow_the_weights),
        cmocka_unit_test(ties_and_order),
        cmocka_unit_test(bound_holds),
        cmocka_unit_test(bound_off_and_unmet),
        cmocka_unit_test(bound_begins_past_the_slots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
