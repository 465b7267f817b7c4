/* test_inference_key - role/inference: a chat's data key that is lost, forgotten, or old. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/role/inference_house.h"

/* The chat is there and its key is not: tried for a while, then an error is the reply.  Nothing that was accepted is dropped. */
static void test_key_lost(void **state)
{
    struct house h;
    struct envelope work;
    const struct seen *s;
    const char *topic;

    (void)state;
    house_open(&h, "", NULL);
    topic = topic_notify(&h.f.chat);
    do { /* in the partition that is watched */
        make_chat_of(&h.f, true);
    } while (topic_notify(&h.f.chat) != topic);
    accept(&h.f, "sealed for good", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    s = await_seen(&h.f, ENVELOPE_REPLY, &work.turn, 1);
    assert_int_equal(s->env.finish, FINISH_ERROR);
    assert_string_equal(s->env.code, "internal");
    assert_int_equal(s->env.sealed.len, 0);
    assert_int_equal(generated, 0);
    assert_int_equal(settle_retries, 4);
    support_count(h.f.loop, &settle_dead, 1);
    house_close(&h);
}

/* A deleted chat's key is forgotten where the deletion is heard of, and where the history tells of it. */
static void test_key_forgotten(void **state)
{
    const struct envelope gone = {.kind = ENVELOPE_DELETED};
    struct house h;
    struct envelope work, env = gone;
    struct wait w;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "one", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: one", FINISH_STOP);
    assert_non_null(keyring_peek(h.f.env.keyring, &h.f.chat));
    env.chat = h.f.chat;
    publish(&h.f, TOPIC_CONTROL, &env, true);
    for (unsigned i = 0; keyring_peek(h.f.env.keyring, &h.f.chat) != NULL; i++) {
        assert_true(i < 1000);
        support_for(h.f.loop, 5);
    }
    accept(&h.f, "two", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: two", FINISH_STOP);
    accept(&h.f, "three", &work);
    w = (struct wait){.loop = h.f.loop};
    assert_int_equal(wait_end(&w, history_inner->chat_delete(h.f.env.history, &h.f.chat, wait_done, &w, &w.op, &w.err)),
                     TR_OK);
    assert_non_null(keyring_peek(h.f.env.keyring, &h.f.chat)); /* nobody has told */
    publish(&h.f, WORKER_QUEUE, &work, false);
    for (unsigned i = 0; keyring_peek(h.f.env.keyring, &h.f.chat) != NULL; i++) {
        assert_true(i < 1000);
        support_for(h.f.loop, 5);
    }
    assert_int_equal(count_seen(&h.f, ENVELOPE_REPLY, &work.turn), 0);
    house_close(&h);
}

/* And where nobody hears of anything, it is read again after ten minutes. */
static void test_key_expires(void **state)
{
    struct house h;
    struct envelope work;
    uint64_t now;

    (void)state;
    house_open(&h, "", NULL);
    accept(&h.f, "one", &work);
    publish(&h.f, WORKER_QUEUE, &work, false);
    reply_is(&h.f, &work.turn, "Ada heard: one", FINISH_STOP);
    now = loop_now_ms(h.f.loop);
    keyring_expire(h.f.env.keyring, now + 500000);
    assert_non_null(keyring_peek(h.f.env.keyring, &h.f.chat));
    keyring_expire(h.f.env.keyring, now + 600000);
    assert_null(keyring_peek(h.f.env.keyring, &h.f.chat));
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_lost),
        cmocka_unit_test(test_key_forgotten),
        cmocka_unit_test(test_key_expires),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
