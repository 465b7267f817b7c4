/*
 * The rules of port/engine.h, held against every adapter.  llama takes part when TROUPE_TEST_MODEL names a GGUF; what can
 * be asked of it alone is in engine_llama.c.
 */
#include "engine_fixture.h"

#include "adapter/stub/engine.h"
#include "domain/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum tr_rc open_stub(struct loop *loop, bool slow, struct engine **ret_engine, struct tr_err *err)
{
    return stub_engine_open(loop, slow ? "?delay_ms=20&gap_ms=5" : "", ret_engine, err);
}

static void test_one(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, false);
    gen_init(&g, &f, 1, "Please tell me about the sea.");
    gen_ok(&g);
    assert_int_equal(g.starts, 1);
    assert_true(g.pieces > 1 || f.adapter->has_model);
    assert_true(g.text.len > 0);
    assert_true(g.result.finish == FINISH_STOP || g.result.finish == FINISH_LENGTH);
    assert_true(g.result.prompt_tokens > 0);
    assert_true(g.result.completion_tokens > 0);
    if (f.adapter->has_model)
        assert_true(g.result.completion_tokens <= g.max_tokens);
    else
        assert_string_equal(buf_str(&g.text), "Mira heard: Please tell me about the sea.");
    buf_release(&g.text);
    engine_teardown(&f);
}

static void test_info(void **state)
{
    struct engine_fixture f;
    const struct engine_info *info;

    engine_setup(&f, state, false);
    info = f.engine->ops->info(f.engine);
    assert_string_equal(info->engine, f.adapter->name);
    assert_true(info->model[0] != 0 && info->device[0] != 0);
    assert_true(info->slots >= 1 && info->context_tokens >= 256);
    engine_teardown(&f);
}

/* No callback has come when generate() returns, however long the loop has had nothing to do. */
static void test_not_before(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, false);
    gen_init(&g, &f, 1, "Hello!");
    assert_int_equal(gen_start(&g), TR_OK);
    usleep(50000);
    assert_int_equal(g.starts + g.pieces + g.done, 0);
    gen_wait(&g);
    buf_release(&g.text);
    engine_teardown(&f);
}

static void test_stop(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, true);
    gen_init(&g, &f, 1, "Please tell me a very long story about the sea and the wind and the gulls and the old lamp.");
    g.max_tokens = 400;
    g.stop_after = 3;
    gen_ok(&g);
    assert_int_equal(g.result.finish, FINISH_STOPPED);
    assert_true(g.pieces >= 3 && g.pieces <= 5); /* one token more, and what was held back */
    assert_true(g.result.completion_tokens < 40);
    buf_release(&g.text);
    engine_teardown(&f);
}

static void test_cancel(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, true);
    gen_init(&g, &f, 1, "Please tell me a very long story about the sea and the wind and the gulls and the old lamp.");
    g.max_tokens = 400;
    g.cancel_after = 3;
    gen_run(&g);
    assert_int_equal(g.rc, TR_CANCELLED);
    assert_int_equal(g.pieces, 3);
    buf_release(&g.text);
    engine_teardown(&f);
}

static void test_stop_and_cancel_at_once(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, true);
    gen_init(&g, &f, 1, "Hello there, how are you?");
    assert_int_equal(gen_start(&g), TR_OK);
    f.engine->ops->stop(f.engine, g.job);
    gen_wait(&g);
    assert_int_equal(g.rc, TR_OK);
    assert_int_equal(g.result.finish, FINISH_STOPPED);
    buf_release(&g.text);
    gen_init(&g, &f, 2, "Hello there, how are you?");
    assert_int_equal(gen_start(&g), TR_OK);
    f.engine->ops->stop(f.engine, g.job);
    f.engine->ops->cancel(f.engine, g.job);
    gen_wait(&g);
    assert_int_equal(g.rc, TR_CANCELLED);
    assert_int_equal(g.pieces, 0);
    buf_release(&g.text);
    engine_teardown(&f);
}

#define MANY 6

/* They come to their end in order; those that wait are told where they stand, or all run at once. */
static void test_line(void **state)
{
    struct engine_fixture f;
    struct engine_gen g[MANY];

    engine_setup(&f, state, true);
    gen_done_all = 0;
    for (uint8_t i = 0; i < MANY; i++) {
        gen_init(&g[i], &f, i, "Please count to three.");
        g[i].max_tokens = 6;
        assert_int_equal(gen_start(&g[i]), TR_OK);
    }
    f.engine->ops->stop(f.engine, g[3].job);
    f.engine->ops->cancel(f.engine, g[4].job);
    for (size_t i = 0; i < MANY; i++)
        gen_wait(&g[i]);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(g[i].rc, i == 4 ? TR_CANCELLED : TR_OK);
        assert_int_equal(g[i].starts, i == 3 || i == 4 ? 0 : 1);
        if (f.adapter->has_line && i != 0 && i != 3 && i != 4)
            assert_true(g[i].positions > 0 && g[i].position == 1);
        buf_release(&g[i].text);
    }
    assert_int_equal(g[3].result.finish, FINISH_STOPPED);
    assert_true(g[0].order < g[1].order && g[1].order < g[2].order && g[2].order < g[5].order);
    assert_true(g[3].order < g[1].order); /* nobody waits for the line to be told that he left it */
    engine_teardown(&f);
}

/* One runs, one waits, one was just stopped. */
static void test_close_with_work(void **state)
{
    struct engine_fixture f;
    struct engine_gen g[3];

    engine_setup(&f, state, true);
    for (uint8_t i = 0; i < 3; i++) {
        gen_init(&g[i], &f, i, "Please tell me a very long story.");
        g[i].max_tokens = 400;
        assert_int_equal(gen_start(&g[i]), TR_OK);
    }
    support_count(f.loop, &g[0].pieces, 2);
    f.engine->ops->stop(f.engine, g[1].job);
    f.engine->ops->close(f.engine);
    f.engine = NULL;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(g[i].done, 1);
        assert_int_equal(g[i].rc, TR_CANCELLED);
        buf_release(&g[i].text);
    }
    engine_teardown(&f);
}

static void test_other_scripts(void **state)
{
    struct engine_fixture f;
    struct engine_gen g;

    engine_setup(&f, state, false);
    gen_init(&g, &f, 1,
             "Answer only with these: \xf0\x9f\x90\xb6 \xe6\xb5\xb7 \xd0\xbc\xd0\xbe\xd1\x80\xd0\xb5 \xf0\x9f\x8c\x8a");
    g.temperature = 1.5f; /* whatever it writes, on_text checks the boundaries */
    g.max_tokens = 60;
    gen_ok(&g);
    assert_true(text_utf8_valid(g.text.data, g.text.len));
    buf_release(&g.text);
    engine_teardown(&f);
}

static void test_forget(void **state)
{
    struct engine_fixture f;
    struct engine_gen g, h;

    engine_setup(&f, state, false);
    gen_init(&g, &f, 1, "Hello!");
    gen_ok(&g);
    f.engine->ops->forget(f.engine, &g.chat);
    gen_init(&h, &f, 1, "Hello!");
    gen_ok(&h);
    assert_int_equal(h.result.cached_tokens, 0);
    assert_string_equal(buf_str(&g.text), buf_str(&h.text));
    for (int i = 0; i < 1000; i++)
        f.engine->ops->forget(f.engine, &g.chat);
    buf_release(&g.text);
    buf_release(&h.text);
    engine_teardown(&f);
}

static void test_stub_parameters(void **state)
{
    static const char *const bad[] = {
        "?delay=1", "?delay_ms=", "?delay_ms=-1", "?delay_ms=1x", "?gap_ms=99999999999999999999",
        "x",        "?gap_ms",    "?fail_after=a"};
    static const char *const good[] = {"", "?", "?delay_ms=0&gap_ms=0", "?gap_ms=3&", "?fail_word=oops&fail_after=2"};
    struct loop *loop = NULL;
    struct engine *e = NULL;

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tr_err err = {0};

        assert_int_equal(stub_engine_open(loop, bad[i], &e, &err), TR_INVALID);
        assert_null(e);
        assert_true(err.msg[0] != 0);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(stub_engine_open(loop, good[i], &e, NULL), TR_OK);
        e->ops->close(e);
        e = NULL;
    }
    loop_free(loop);
}

static void test_stub_fails_on_wish(void **state)
{
    struct engine_fixture f = {0};
    struct engine_gen g;

    (void)state;
    assert_int_equal(loop_new(&f.loop, NULL), TR_OK);
    assert_int_equal(stub_engine_open(f.loop, "?fail_word=oops&fail_after=2", &f.engine, NULL), TR_OK);
    gen_init(&g, &f, 1, "say oops now");
    gen_run(&g);
    assert_int_equal(g.rc, TR_TRANSIENT);
    assert_string_equal(buf_str(&g.text), "Mira heard: ");
    buf_release(&g.text);
    gen_init(&g, &f, 1, "all is well");
    gen_ok(&g);
    assert_string_equal(buf_str(&g.text), "Mira heard: all is well");
    buf_release(&g.text);
    engine_teardown(&f);
}

#define COMMON(a)                                                                                                      \
    {"one generation", test_one, NULL, NULL, (a)}, {"info", test_info, NULL, NULL, (a)},                               \
        {"nothing before generate returned", test_not_before, NULL, NULL, (a)},                                        \
        {"stop within a token", test_stop, NULL, NULL, (a)}, {"cancel", test_cancel, NULL, NULL, (a)},                 \
        {"stop and cancel at once", test_stop_and_cancel_at_once, NULL, NULL, (a)},                                    \
        {"the line", test_line, NULL, NULL, (a)}, {"close with work", test_close_with_work, NULL, NULL, (a)},          \
        {"UTF-8 boundaries", test_other_scripts, NULL, NULL, (a)},                                                     \
    {                                                                                                                  \
        "forget", test_forget, NULL, NULL, (a)                                                                         \
    }

int main(void)
{
    static struct engine_adapter stub = {.name = "stub", .open = open_stub};
    const struct CMUnitTest stub_tests[] = {
        COMMON(&stub),
        cmocka_unit_test(test_stub_parameters),
        cmocka_unit_test(test_stub_fails_on_wish),
    };
    int failed = cmocka_run_group_tests_name("engine: stub", stub_tests, NULL, NULL);

#ifdef TROUPE_WITH_LLAMA
    static struct engine_adapter llama = {
        .name = "llama", .open = engine_llama_open, .has_line = true, .has_model = true};
    const struct CMUnitTest llama_tests[] = {COMMON(&llama)};

    if (getenv("TROUPE_TEST_MODEL") != NULL) {
        failed += cmocka_run_group_tests_name("engine: llama", llama_tests, NULL, NULL);
        failed += engine_llama_run(&llama);
    } else {
        puts("engine: llama is left out: TROUPE_TEST_MODEL names no model");
    }
#endif
    return failed != 0;
}
