/* Tests of domain/uuid. */
#include "domain/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t zeros[10];

static void rfc_9562_example(void **state)
{
    /* appendix A.6: 2022-02-22 19:22:22 UTC */
    static const uint8_t random[10] = {0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    struct uuid id = uuid_v7(UINT64_C(1645557742000), random), parsed;
    char text[UUID_TEXT];

    (void)state;
    uuid_format(&id, text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    assert_true(uuid_ms(&id) == UINT64_C(1645557742000));
    assert_true(uuid_parse("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", 36, &parsed));
    assert_true(uuid_eq(&id, &parsed));
}

static void parse_is_strict(void **state)
{
    static const struct {
        const char *text;
        bool want;
    } rows[] = {
        {"00000000-0000-0000-0000-000000000000", true},   {"ffffffff-ffff-ffff-ffff-ffffffffffff", true},
        {"017f22e2-79b0-4cc3-98c4-dc0c0c07398f", true},   {"", false},
        {"017f22e279b07cc398c4dc0c0c07398f", false},      {"017f22e2-79b0-7cc3-98c4-dc0c0c07398", false},
        {"017f22e2-79b0-7cc3-98c4-dc0c0c07398ff", false}, {"{17f22e2-79b0-7cc3-98c4-dc0c0c07398}", false},
        {"017f22e2-79b0-7cc3-98c4-dc0c0c07398g", false},  {"017f22e27-9b0-7cc3-98c4-dc0c0c07398f", false},
        {"017f22e2_79b0-7cc3-98c4-dc0c0c07398f", false},  {"017f22e2-79b0-7cc3-98c4-dc0c0c07 98f", false},
    };
    struct uuid id;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        memset(&id, 0x5a, sizeof id);
        if (uuid_parse(rows[i].text, strlen(rows[i].text), &id) != rows[i].want)
            fail_msg("%s", rows[i].text);
        if (!rows[i].want)
            assert_int_equal(id.b[0], 0x5a); /* untouched */
    }
}

static void after_is_always_greater(void **state)
{
    struct uuid id = uuid_v7(1000, zeros), next;
    char text[UUID_TEXT];

    (void)state;
    next = uuid_v7_after(&id, 1001, zeros); /* the clock is ahead */
    assert_true(uuid_ms(&next) == 1001 && uuid_cmp(&next, &id) > 0);
    next = uuid_v7_after(&id, 1000, zeros); /* the same millisecond */
    assert_true(uuid_ms(&next) == 1000 && uuid_cmp(&next, &id) > 0);
    next = uuid_v7_after(&id, 5, zeros); /* the clock stepped back */
    uuid_format(&next, text);
    assert_string_equal(text, "00000000-03e8-7000-8000-000000000001");

    assert_true(uuid_parse("00000000-03e8-7fff-bfff-ffffffffffff", 36, &id)); /* carries into the time */
    next = uuid_v7_after(&id, 0, zeros);
    uuid_format(&next, text);
    assert_string_equal(text, "00000000-03e9-7000-8000-000000000000");
    assert_true(uuid_parse("00000000-03e8-7000-bfff-ffffffffffff", 36, &id));
    next = uuid_v7_after(&id, 0, zeros);
    uuid_format(&next, text);
    assert_string_equal(text, "00000000-03e8-7001-8000-000000000000");
    assert_true(uuid_parse("00000000-03e8-f000-ffff-ffffffffffff", 36, &id)); /* no v7 at all */
    next = uuid_v7_after(&id, 0, zeros);
    assert_true(uuid_cmp(&next, &id) > 0);
    for (int i = 0; i < 10000; i++) {
        struct uuid before = next;

        next = uuid_v7_after(&before, (uint64_t)(i * 7919 % 2000), zeros);
        assert_true(uuid_cmp(&next, &before) > 0);
        assert_int_equal(next.b[6] >> 4, 7);
        assert_int_equal(next.b[8] >> 6, 2);
    }
}

static void character_ids(void **state)
{
    char long_id[66];

    (void)state;
    memset(long_id, 'a', sizeof long_id);
    assert_true(character_id_valid("luna-2", 6));
    assert_true(character_id_valid("anyone", 6));
    assert_true(character_id_valid(long_id, 64));
    assert_false(character_id_valid(long_id, 65));
    assert_false(character_id_valid("", 0));
    assert_false(character_id_valid("any", 3));
    assert_false(character_id_valid("Luna", 4));
    assert_false(character_id_valid("a_b", 3));
    assert_false(character_id_valid("a\0b", 3));
    assert_true(uuid_is_nil(&uuid_nil));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_9562_example),
        cmocka_unit_test(parse_is_strict),
        cmocka_unit_test(after_is_always_greater),
        cmocka_unit_test(character_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
