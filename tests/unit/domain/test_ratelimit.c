/* Tests of domain/ratelimit. */
#include "domain/ratelimit.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define START UINT64_C(1700000000000000)

static void burst_then_steady(void **state)
{
    uint64_t tat = 0, wait;

    (void)state;
    for (int i = 0; i < 15; i++) /* 60 a minute: bursts of 15 */
        assert_int_equal(ratelimit_take(&tat, 60, START), 0);
    wait = ratelimit_take(&tat, 60, START);
    assert_int_equal(wait, 1000);
    assert_int_equal(ratelimit_take(&tat, 60, START), 1000); /* a refusal costs nothing */
    assert_int_equal(ratelimit_take(&tat, 60, START + 999000), 1);
    assert_int_equal(ratelimit_take(&tat, 60, START + 1000000), 0);
    assert_int_equal(ratelimit_take(&tat, 60, START + 1000000), 1000);
    for (int i = 0; i < 15; i++) /* after a long rest the burst is whole again, and no more than whole */
        assert_int_equal(ratelimit_take(&tat, 60, START + 3600000000U), 0);
    assert_int_not_equal(ratelimit_take(&tat, 60, START + 3600000000U), 0);
}

static void burst_sizes(void **state)
{
    static const struct {
        uint32_t per_minute;
        int burst;
    } rows[] = {{1, 1}, {3, 3}, {5, 5}, {8, 5}, {20, 5}, {24, 6}, {60, 15}, {600, 150}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t tat = 0;
        int n = 0;

        while (n < 1000 && ratelimit_take(&tat, rows[i].per_minute, START) == 0)
            n++;
        assert_int_equal(n, rows[i].burst);
    }
}

static void never_more_than_the_rate(void **state)
{
    uint64_t tat = 0;
    int taken = 0;

    (void)state;
    for (uint64_t ms = 0; ms < 600000; ms += 10)
        taken += ratelimit_take(&tat, 60, START + ms * 1000) == 0;
    assert_in_range(taken, 600, 600 + 15);
}

static void off_and_clock_steps(void **state)
{
    uint64_t tat = 0;

    (void)state;
    for (int i = 0; i < 10000; i++)
        assert_int_equal(ratelimit_take(&tat, 0, START), 0);
    assert_int_equal(tat, 0);
    for (int i = 0; i < 15; i++)
        assert_int_equal(ratelimit_take(&tat, 60, START), 0);
    assert_int_equal(ratelimit_take(&tat, 60, START - 86400000000U), 1000); /* a day back: not a day's wait */
    assert_int_equal(ratelimit_take(&tat, UINT32_MAX, START), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(burst_then_steady),
        cmocka_unit_test(burst_sizes),
        cmocka_unit_test(never_more_than_the_rate),
        cmocka_unit_test(off_and_clock_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
