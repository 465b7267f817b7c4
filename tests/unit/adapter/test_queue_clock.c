/* The embedded broker over a restart and a clock that was set back meanwhile: a pause of a moment does not become one of hours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/role/fixture.h"
#include "tests/unit/role/shifted_clock.h"

static void pause_is_bounded(void **state)
{
    struct fixture f;
    struct envelope work = {.kind = ENVELOPE_WORK};
    struct wait w;
    struct buf body = {0};
    struct queue_message msg = {.queue = TOPIC_INCOMING, .delay_ms = 100};
    char *path;

    (void)state;
    setup_env(&f);
    work.turn = work.chat = fresh_uuid();
    assert_int_equal(envelope_encode(&work, &body), TR_OK);
    msg.body = (struct slice){body.data, body.len};
    shifted_s = HOUR_S;
    w = (struct wait){.loop = f.loop};
    assert_int_equal(wait_end(&w, f.env.queue->ops->publish(f.env.queue, &msg, wait_done, &w, &w.op, &w.err)), TR_OK);
    f.env.queue->ops->close(f.env.queue);
    shifted_s = 0;
    path = support_path("queue1.db");
    assert_int_equal(sqlite_queue_open(f.loop, path, &f.env.queue, NULL), TR_OK);
    free(path);
    watch(&f, TOPIC_INCOMING);
    support_for(f.loop, 200);
    assert_int_equal(f.seen_n, 0); /* how much of its pause is over, nobody can tell */
    forward_s += 301;
    support_for(f.loop, 30); /* the loop's clock has jumped then */
    await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
    buf_release(&body);
    teardown_env(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pause_is_bounded)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
