/* Tests of domain/turn: contract 11.8 and 11.9 as tables of rows. */
#include "domain/turn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define USER(r)                                                                                                        \
    {                                                                                                                  \
        .part = PART_USER, .rev = r, .created_ms = 100 + (r), .change = 1 + (r)                                        \
    }
#define VARIANT(v)                                                                                                     \
    {                                                                                                                  \
        .part = PART_FIRST_VARIANT + (v), .created_ms = 200 + (v), .change = 10 + (v), .finish = FINISH_STOP           \
    }
#define EVENT(r, e, v, k)                                                                                              \
    {                                                                                                                  \
        .part = PART_STATE, .rev = r, .event = e, .variant = v, .known = k, .change = 50 + (r)                         \
    }
#define REGEN(r, v) EVENT(r, TURN_EVENT_REGENERATE, v, 0)
#define CHOOSE(r, v, k) EVENT(r, TURN_EVENT_CHOOSE, v, k)
#define ATTEMPT(r, v) EVENT(r, TURN_EVENT_ATTEMPT, v, 77)
#define UNKNOWN(r, v) EVENT(r, (enum turn_event)99, v, 77)
#define STOP(r, v) EVENT(r, TURN_EVENT_STOP, v, 0)
#define ROWS_MAX 8

static const struct row {
    const char *name;
    struct turn_row rows[ROWS_MAX];
    size_t n;
    int variants, wanted, chosen, user_rev, next_rev;
    bool stop, running, deleted;
} rows[] = {
    {"no rows", {USER(0)}, 0, 0, 0, -1, -1, 0, false, false, false},
    {"accepted", {USER(0)}, 1, 0, 1, -1, 0, 0, false, true, false},
    {"answered", {USER(0), VARIANT(0)}, 2, 1, 1, 0, 0, 0, false, false, false},
    {"edited", {USER(1), USER(0), VARIANT(0)}, 3, 1, 1, 0, 1, 0, false, false, false},
    {"stopped while it runs", {USER(0), STOP(0, 0)}, 2, 0, 1, -1, 0, 1, true, true, false},
    {"stopped too late", {USER(0), STOP(0, 0), VARIANT(0)}, 3, 1, 1, 0, 0, 1, false, false, false},
    {"an old stop does not stop the next",
     {USER(0), STOP(0, 0), VARIANT(0), REGEN(1, 1)},
     4,
     1,
     2,
     0,
     0,
     2,
     false,
     true,
     false},
    {"the next is stopped", {USER(0), STOP(2, 1), VARIANT(0), REGEN(1, 1)}, 4, 1, 2, 0, 0, 3, true, true, false},
    {"regenerated twice over", {USER(0), VARIANT(0), REGEN(0, 1), REGEN(1, 1)}, 4, 1, 2, 0, 0, 2, false, true, false},
    {"the newest is chosen", {USER(0), VARIANT(1), VARIANT(0), REGEN(0, 1)}, 4, 2, 2, 1, 0, 1, false, false, false},
    {"chosen by hand",
     {USER(0), VARIANT(1), VARIANT(0), REGEN(0, 1), CHOOSE(1, 0, 2)},
     5,
     2,
     2,
     0,
     0,
     2,
     false,
     false,
     false},
    {"chosen before the newest was known",
     {USER(0), VARIANT(1), VARIANT(0), REGEN(0, 1), CHOOSE(1, 0, 1)},
     5,
     2,
     2,
     1,
     0,
     2,
     false,
     false,
     false},
    {"the newest choice counts",
     {USER(0), VARIANT(1), VARIANT(0), CHOOSE(2, 1, 2), CHOOSE(1, 0, 2)},
     5,
     2,
     2,
     1,
     0,
     3,
     false,
     false,
     false},
    {"a choice of none is ignored",
     {USER(0), VARIANT(1), VARIANT(0), CHOOSE(2, 7, 9), CHOOSE(1, 0, 2)},
     5,
     2,
     2,
     0,
     0,
     3,
     false,
     false,
     false},
    {"deleted", {USER(0), EVENT(0, TURN_EVENT_DELETE, 0, 0)}, 2, 0, 1, -1, 0, 1, false, false, true},
    {"attempted again", {USER(0), ATTEMPT(0, 0), ATTEMPT(1, 0)}, 3, 0, 1, -1, 0, 2, false, true, false},
    {"and answered", {USER(0), ATTEMPT(0, 0), VARIANT(0)}, 3, 1, 1, 0, 0, 1, false, false, false},
    {"an event of a later version", {USER(0), UNKNOWN(0, 0), VARIANT(0)}, 3, 1, 1, 0, 0, 1, false, false, false},
    {"greeting", {VARIANT(0)}, 1, 1, 1, 0, -1, 0, false, false, false},
    {"greeting with alternates", {VARIANT(0), VARIANT(1), VARIANT(2)}, 3, 3, 3, 0, -1, 0, false, false, false},
    {"alternate chosen", {VARIANT(0), VARIANT(1), CHOOSE(0, 1, 2)}, 3, 2, 2, 1, -1, 1, false, false, false},
    {"greeting regenerated", {VARIANT(0), VARIANT(1), REGEN(0, 2)}, 3, 2, 3, 0, -1, 1, false, true, false},
    {"and stored", {VARIANT(0), VARIANT(1), REGEN(0, 2), VARIANT(2)}, 4, 3, 3, 2, -1, 1, false, false, false},
    {"a gap", {USER(0), VARIANT(1)}, 2, 0, 1, -1, 0, 0, false, true, false},
    {"past the limit",
     {USER(0), VARIANT(TURN_VARIANTS_MAX), REGEN(0, TURN_VARIANTS_MAX), REGEN(1, -1)},
     4,
     0,
     1,
     -1,
     0,
     2,
     false,
     true,
     false},
};

static void check(const struct row *want, const struct turn_row *in)
{
    struct turn_view v;

    turn_fold(in, want->n, &v);
    if (v.exists != (want->n > 0) || v.variants != want->variants || v.wanted != want->wanted ||
        v.chosen != want->chosen || v.user_rev != want->user_rev || v.next_rev != want->next_rev ||
        v.stop != want->stop || turn_running(&v) != want->running || v.deleted != want->deleted)
        fail_msg("%s: variants %d wanted %d chosen %d user_rev %d next_rev %d stop %d running %d deleted %d",
                 want->name, v.variants, v.wanted, v.chosen, v.user_rev, v.next_rev, v.stop, turn_running(&v),
                 v.deleted);
    for (int i = 0; i < v.variants; i++)
        assert_int_equal(v.variant[i]->part, PART_FIRST_VARIANT + i);
}

static void folds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct turn_row backwards[ROWS_MAX];

        for (size_t k = 0; k < rows[i].n; k++)
            backwards[k] = rows[i].rows[rows[i].n - 1 - k];
        check(&rows[i], rows[i].rows);
        check(&rows[i], backwards);
    }
}

static void facts_of_the_rows(void **state)
{
    struct turn_row in[] = {USER(1),
                            VARIANT(0),
                            USER(0),
                            REGEN(3, 1),
                            {.part = PART_NOTES, .rev = 0},
                            {.part = PART_NOTES, .rev = 1, .created_ms = 1}};
    struct turn_view v;

    (void)state;
    in[0].turn.b[3] = 9;
    turn_fold(in, 6, &v);
    assert_true(uuid_eq(&v.turn, &in[0].turn));
    assert_true(v.change == 53);
    assert_true(v.created_ms == 100); /* not the edit's, not the notes' */
    assert_ptr_equal(v.user, &in[0]);
    assert_ptr_equal(v.notes, &in[5]);
    turn_fold(in + 1, 1, &v);
    assert_true(v.created_ms == 200);
}

static void counts_attempts(void **state)
{
    const struct turn_row in[] = {USER(0),       ATTEMPT(0, 0), VARIANT(0),   REGEN(1, 1),
                                  ATTEMPT(2, 1), STOP(3, 1),    ATTEMPT(4, 1)};
    struct turn_view v;

    (void)state;
    turn_fold(in, 2, &v);
    assert_true(v.attempts == 1 && v.last_attempt == 0);
    turn_fold(in, 4, &v); /* the first variant's count no more */
    assert_true(v.attempts == 0 && v.last_attempt == -1);
    turn_fold(in, 7, &v);
    assert_true(v.attempts == 2 && v.last_attempt == 4 && v.stop && v.next_rev == 5);
}

static void finish_names(void **state)
{
    enum finish f = FINISH_NONE;

    (void)state;
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++) {
        assert_true(finish_parse(finish_name((enum finish)i), &f));
        assert_int_equal(f, i);
    }
    assert_string_equal(finish_name(FINISH_STOPPED), "stopped");
    assert_null(finish_name(FINISH_NONE));
    assert_null(finish_name((enum finish)99));
    assert_false(finish_parse("", &f));
    assert_false(finish_parse("stop ", &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folds),
        cmocka_unit_test(facts_of_the_rows),
        cmocka_unit_test(counts_attempts),
        cmocka_unit_test(finish_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
