/* preprocess - the role over the real embedded adapters: notes, routing, what can't be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "role/preprocess/preprocess.h"
#include "role/preprocess/router.h"
#include "tests/unit/role/fixture.h"

static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

static void on_worker(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    (void)number;
    wait_called(ctx, rc, err);
}

/* A living worker whose queue is watched. */
static struct registry_worker add_worker(struct fixture *f, const char *character, uint32_t number, bool declared)
{
    struct wait w = {.loop = f->loop};
    struct registry *r = f->env.registry;
    struct registry_worker worker = {.slots = 1, .weight = 1};

    strcpy(worker.character, character);
    snprintf(worker.id, sizeof worker.id, "w%u", (unsigned)number);
    worker.number = number;
    topic_inference(character, number, worker.queue);
    assert_int_equal(wait_end(&w, r->ops->worker_register(r, &worker, 60000, on_worker, &w, &w.op, &w.err)), TR_OK);
    if (declared) {
        declare(f, worker.queue, QUEUE_DURABLE);
        watch(f, worker.queue);
    }
    return worker;
}

static struct preprocess *start(struct fixture *f)
{
    struct preprocess *role = NULL;
    struct wait w = {0};

    setup_env(f);
    spy_on_queue(f);
    w.loop = f->loop;
    assert_int_equal(wait_end(&w, preprocess_start(&f->env, on_started, &w, &role, &w.err)), TR_OK);
    return role;
}

static void end(struct fixture *f, struct preprocess *role)
{
    preprocess_free(role);
    teardown_env(f);
}

/* A call to work with raw text, as role/chat sends it; *out holds the sealed bytes. */
static struct envelope work_with(struct fixture *f, const char *text, struct buf *out)
{
    struct envelope work;
    struct notes notes = {.raw = {(const uint8_t *)text, strlen(text)}};
    struct seal_bind bind = {.kind = SEAL_QUEUE, .chat = f->chat, .part = PART_USER, .role = SPEAKER_USER};
    struct buf encoded = {0};

    accept(f, "as in the history", &work);
    bind.turn = work.turn;
    assert_int_equal(notes_encode(&notes, &encoded), TR_OK);
    buf_clear(out);
    assert_int_equal(seal_data(&f->key, &bind, encoded.data, encoded.len, out), TR_OK);
    buf_release(&encoded);
    work.sealed = (struct slice){out->data, out->len};
    return work;
}

static void test_notes(void **state)
{
    static const char raw[] = "  Please write to me,\r\nmy address is jo@example.org and I am looking forward to it!  ";
    static const char clean[] = "Please write to me,\nmy address is jo@example.org and I am looking forward to it!";
    struct fixture f;
    struct preprocess *role = start(&f);
    struct buf sealed = {0}, plain = {0};
    struct envelope work;
    const struct seen *s;
    struct notes notes;
    struct seal_bind bind = {.kind = SEAL_QUEUE, .part = PART_USER, .role = SPEAKER_USER};

    (void)state;
    add_worker(&f, "any", 1, true);
    work = work_with(&f, raw, &sealed);
    publish(&f, TOPIC_INCOMING, &work, false);
    s = await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
    assert_string_equal(s->env.trace, work.trace);
    assert_true(uuid_eq(&s->env.predecessor, &work.predecessor));
    bind.chat = work.chat;
    bind.turn = work.turn;
    assert_int_equal(seal_open(&f.key, &bind, s->env.sealed.data, s->env.sealed.len, &plain, NULL), TR_OK);
    assert_int_equal(notes_decode(plain.data, plain.len, &notes, NULL), TR_OK);
    assert_int_equal(notes.raw.len, sizeof raw - 1);
    assert_memory_equal(notes.raw.data, raw, sizeof raw - 1);
    assert_int_equal(notes.normalised.len, sizeof clean - 1);
    assert_memory_equal(notes.normalised.data, clean, sizeof clean - 1);
    assert_string_equal(notes.language, "en");
    assert_int_equal(notes.spans_n, 1);
    assert_int_equal(notes.spans[0].kind, PERSONAL_EMAIL);
    support_count(f.loop, &settle_acks, 2); /* the role's and the watcher's */
    assert_int_equal(queue_length_of(&f, TOPIC_INCOMING), 0);
    buf_release(&plain);
    buf_release(&sealed);
    end(&f, role);
}

static void test_without_text(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct envelope work;

    (void)state;
    add_worker(&f, "any", 1, true);
    accept(&f, "hello", &work);
    work.variant = 3;
    publish(&f, TOPIC_INCOMING, &work, false);
    assert_int_equal(await_seen(&f, ENVELOPE_WORK, &work.turn, 1)->env.variant, 3);
    assert_int_equal(find_seen(&f, ENVELOPE_WORK, NULL, 0)->env.sealed.len, 0);
    end(&f, role);
}

/* A character's own workers come first; a chat stays with its worker. */
static void test_choice(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct envelope work;

    (void)state;
    add_worker(&f, "any", 1, true);
    add_worker(&f, "ada", 1, true);
    add_worker(&f, "ada", 2, true);
    for (int i = 0; i < 5; i++) {
        accept(&f, "hello", &work);
        publish(&f, TOPIC_INCOMING, &work, false);
    }
    await_seen(&f, ENVELOPE_WORK, NULL, 5);
    assert_memory_equal(f.seen[0].queue, "inference.ada.", 14);
    for (size_t i = 1; i < 5; i++) {
        assert_string_equal(f.seen[i].queue, f.seen[0].queue);
        assert_true(uuid_cmp(&f.seen[i].env.turn, &f.seen[i - 1].env.turn) > 0); /* in order */
    }
    end(&f, role);
}

static void test_no_worker(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct envelope work;

    (void)state;
    accept(&f, "hello", &work);
    publish(&f, TOPIC_INCOMING, &work, false);
    support_for(f.loop, 200);
    assert_true(settle_retries > 0);
    assert_false(settle_counted);
    add_worker(&f, "any", 1, true);
    await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
    end(&f, role);
}

/* The worker's record is there before its queue is. */
static void test_queue_not_there(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct envelope work;
    struct registry_worker worker;

    (void)state;
    worker = add_worker(&f, "any", 1, false);
    accept(&f, "hello", &work);
    publish(&f, TOPIC_INCOMING, &work, false);
    support_for(f.loop, 100);
    declare(&f, worker.queue, QUEUE_DURABLE);
    watch(&f, worker.queue);
    await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
    support_for(f.loop, 100);
    assert_int_equal(f.seen_n, 1);
    end(&f, role);
}

static void test_unread(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct buf sealed = {0};
    struct envelope work;

    (void)state;
    add_worker(&f, "any", 1, true);
    publish_bytes(&f, TOPIC_INCOMING, "no envelope");
    support_count(f.loop, &settle_dead, 1);
    assert_int_equal(f.seen_n, 0);

    work = work_with(&f, "hello", &sealed);
    sealed.data[sealed.len - 1] ^= 1;
    publish(&f, TOPIC_INCOMING, &work, false);
    assert_int_equal(await_seen(&f, ENVELOPE_WORK, &work.turn, 1)->env.sealed.len, 0); /* goes on without notes */
    support_count(f.loop, &settle_dead, 2);

    work.chat = fresh_uuid(); /* no key: forgotten or lost, which is not for this role to say */
    work.turn = fresh_uuid();
    publish(&f, TOPIC_INCOMING, &work, false);
    assert_int_equal(await_seen(&f, ENVELOPE_WORK, &work.turn, 1)->env.sealed.len, 0);
    support_for(f.loop, 50);
    assert_int_equal(settle_dead, 2);
    assert_int_equal(queue_length_of(&f, TOPIC_INCOMING), 0);
    buf_release(&sealed);
    end(&f, role);
}

static void on_drained(void *ctx)
{
    size_t *n = ctx;

    ++*n;
}

static void test_drain(void **state)
{
    struct fixture f;
    struct preprocess *role = start(&f);
    struct envelope work;
    size_t drained = 0;

    (void)state;
    add_worker(&f, "any", 1, true);
    accept(&f, "hello", &work);
    publish(&f, TOPIC_INCOMING, &work, false);
    preprocess_drain(role, on_drained, &drained);
    assert_int_equal(drained, 0);
    support_count(f.loop, &drained, 1);
    accept(&f, "late", &work);
    publish(&f, TOPIC_INCOMING, &work, false);
    support_for(f.loop, 50);
    assert_true(queue_length_of(&f, TOPIC_INCOMING) >= 1);
    assert_int_equal(drained, 1);
    end(&f, role);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_notes),     cmocka_unit_test(test_without_text),    cmocka_unit_test(test_choice),
        cmocka_unit_test(test_no_worker), cmocka_unit_test(test_queue_not_there), cmocka_unit_test(test_unread),
        cmocka_unit_test(test_drain),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
