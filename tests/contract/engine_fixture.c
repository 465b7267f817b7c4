/* engine_fixture - see engine_fixture.h. */
#include "engine_fixture.h"

#include "domain/text.h"

#include <string.h>

size_t gen_done_all;

static void on_start(void *ctx)
{
    struct engine_gen *g = ctx;

    assert_true(g->started);
    assert_int_equal(g->done, 0);
    assert_int_equal(g->pieces, 0);
    g->starts++;
}

static void on_position(void *ctx, uint32_t position)
{
    struct engine_gen *g = ctx;

    assert_true(g->started);
    assert_int_equal(g->starts, 0);
    assert_true(position >= 1);
    assert_true(g->positions == 0 || position < g->position); /* the line only moves on */
    g->positions++;
    g->position = position;
}

static void on_text(void *ctx, const char *text, size_t len)
{
    struct engine_gen *g = ctx;

    assert_true(g->started);
    assert_int_equal(g->starts, 1);
    assert_int_equal(g->done, 0);
    assert_true(len > 0);
    assert_true(text_utf8_valid(text, len));
    buf_add(&g->text, text, len);
    g->pieces++;
    if (g->pieces == g->stop_after)
        g->f->engine->ops->stop(g->f->engine, g->job);
    if (g->pieces == g->cancel_after)
        g->f->engine->ops->cancel(g->f->engine, g->job);
}

static void on_done(void *ctx, enum tr_rc rc, const struct engine_result *result, const struct tr_err *err)
{
    struct engine_gen *g = ctx;

    assert_true(g->started);
    g->done++;
    assert_int_equal(g->done, 1);
    g->job = NULL;
    g->rc = rc;
    if (rc == TR_OK)
        g->result = *result;
    else
        g->err = *err;
    g->order = ++gen_done_all;
}

static const struct engine_callbacks callbacks = {on_start, on_position, on_text, on_done};

void gen_say(struct engine_gen *g, enum speaker speaker, const char *text, bool fixed)
{
    assert_true(g->prompt.n < 128);
    g->messages[g->prompt.n++] =
        (struct prompt_message){.speaker = speaker, .text = text, .len = strlen(text), .fixed = fixed};
    g->prompt.messages = g->messages;
}

void gen_init(struct engine_gen *g, struct engine_fixture *f, uint8_t chat, const char *text)
{
    *g = (struct engine_gen){.f = f, .max_tokens = 24, .seed = 7};
    g->chat.b[15] = chat;
    gen_say(g, SPEAKER_SYSTEM, "You are Mira, a lighthouse keeper. You answer in long, friendly sentences.", true);
    if (text != NULL)
        gen_say(g, SPEAKER_USER, text, true);
}

enum tr_rc gen_start(struct engine_gen *g)
{
    const struct prompt_message *last = &g->messages[g->prompt.n - 1];
    const struct engine_request req = {.chat = g->chat,
                                       .said = {(const uint8_t *)last->text, last->len},
                                       .character_name = "Mira",
                                       .prompt = &g->prompt,
                                       .max_tokens = g->max_tokens,
                                       .temperature = g->temperature,
                                       .top_p = 0.95f,
                                       .min_p = 0.05f,
                                       .seed = g->seed,
                                       .timeout_ms = 60000};
    enum tr_rc rc = g->f->engine->ops->generate(g->f->engine, &req, &callbacks, g, &g->job, &g->err);

    g->started = true;
    return rc;
}

void gen_wait(struct engine_gen *g)
{
    support_count(g->f->loop, &g->done, 1);
}

void gen_run(struct engine_gen *g)
{
    assert_int_equal(gen_start(g), TR_OK);
    gen_wait(g);
}

void gen_ok(struct engine_gen *g)
{
    gen_run(g);
    if (g->rc != TR_OK)
        fail_msg("%s", tr_err_text(&g->err));
}

void engine_setup(struct engine_fixture *f, void **state, bool slow)
{
    struct tr_err err = {0};

    *f = (struct engine_fixture){.adapter = *state};
    assert_int_equal(loop_new(&f->loop, NULL), TR_OK);
    if (f->adapter->open(f->loop, slow, &f->engine, &err) != TR_OK)
        fail_msg("open: %s", tr_err_text(&err));
}

void engine_teardown(struct engine_fixture *f)
{
    if (f->engine != NULL)
        f->engine->ops->close(f->engine);
    loop_free(f->loop);
}
