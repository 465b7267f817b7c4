/* pending - one end each, in time, never inside the caller's own call; and cancelling many costs no more than each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pending.h"
#include "tests/contract/support.h"

#include <stdlib.h>

struct one {
    struct pending base; /* first */
    size_t ends, cancelled;
    struct one *cancels; /* another, from inside its end */
    struct one *starts;
};

static struct loop *loop;
static struct pending_list list;
static size_t ended;

static void give_up(struct pending *p, bool cancelled)
{
    struct one *const o = (struct one *)p;

    pending_end(p);
    ended++;
    o->ends++;
    o->cancelled += cancelled;
    if (o->cancels != NULL)
        tr_op_cancel(&o->cancels->base.op);
    if (o->starts != NULL)
        pending_add(&list, &o->starts->base, 20);
}

static int set_up(void **state)
{
    (void)state;
    ended = 0;
    if (loop_new(&loop, NULL) != TR_OK)
        return -1;
    list = (struct pending_list){.loop = loop, .give_up = give_up};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_drain(loop);
    loop_free(loop);
    return 0;
}

static void by_deadline(void **state)
{
    struct one o[3] = {0};

    (void)state;
    pending_add(&list, &o[0].base, 30);
    pending_add(&list, &o[1].base, 30);
    o[0].starts = &o[2];
    pending_expire(&list);
    assert_int_equal(ended, 0);
    pending_end(&o[1].base); /* answered */
    support_for(loop, 40);
    pending_expire(&list);
    assert_int_equal(ended, 1);
    assert_int_equal(o[0].ends, 1);
    assert_int_equal(o[0].cancelled, 0);
    assert_int_equal(list.n, 1); /* the one that its end began waits its own time */
    support_for(loop, 30);
    pending_expire(&list);
    assert_int_equal(o[2].ends, 1);
    assert_int_equal(o[1].ends, 0);
    assert_int_equal(list.n, 0);
}

static void cancelled_later_and_once(void **state)
{
    struct one o[4] = {0};

    (void)state;
    for (size_t i = 0; i < 4; i++)
        pending_add(&list, &o[i].base, 60000);
    o[2].cancels = &o[0];
    tr_op_cancel(&o[2].base.op);
    tr_op_cancel(&o[2].base.op);
    assert_int_equal(ended, 0); /* not inside the call */
    support_count(loop, &ended, 2);
    assert_int_equal(o[2].ends, 1);
    assert_int_equal(o[0].ends, 1);
    assert_int_equal(o[0].cancelled + o[2].cancelled, 2);
    tr_op_cancel(&o[1].base.op);
    pending_end(&o[1].base); /* the answer came first */
    support_for(loop, 20);
    assert_int_equal(o[1].ends, 0);
    pending_cancel_all(&list);
    assert_int_equal(o[3].ends, 1);
    assert_int_equal(o[3].cancelled, 1);
    assert_int_equal(list.n, 0);
    assert_null(list.oldest);
    assert_null(list.youngest);
}

/* One that is cancelled and past its time at once is told that it was cancelled. */
static void cancelled_before_the_deadline(void **state)
{
    struct one o = {0};

    (void)state;
    pending_add(&list, &o.base, 0);
    support_for(loop, 5);
    tr_op_cancel(&o.base.op);
    pending_expire(&list);
    assert_int_equal(o.ends, 1);
    assert_int_equal(o.cancelled, 1);
}

static void many(void **state)
{
    const size_t n = 200000; /* looking through all of them for each would take minutes */
    struct one *o = calloc(n, sizeof *o);

    (void)state;
    assert_non_null(o);
    for (size_t i = 0; i < n; i++)
        pending_add(&list, &o[i].base, 60000);
    for (size_t i = n; i-- > 0;)
        if (i % 2 == 0)
            tr_op_cancel(&o[i].base.op);
    support_count(loop, &ended, n / 2);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(o[i].ends, i % 2 == 0);
    assert_int_equal(list.n, n / 2);
    pending_cancel_all(&list);
    assert_int_equal(ended, n);
    free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(by_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancelled_later_and_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cancelled_before_the_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
