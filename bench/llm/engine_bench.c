/*
 * engine_bench MODEL [ROUNDS] - the llama engine through its port, without a server: how long it takes to open, and the
 * time to the first token and tokens a second on turns 1 and 10, with the chat's state kept and forgotten, interleaved.
 * Prints Markdown rows of medians.
 */
#include "adapter/llama/engine.h"
#include "domain/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TURNS 10
#define ROUNDS_MAX 64
#define MAX_TOKENS 64

static const char system_text[] = "You are Mira, the patient night-shift companion of a small seaside lighthouse "
                                  "museum. You speak in short warm sentences, "
                                  "you remember what visitors tell you, and you never invent facts about the visitor. "
                                  "Keep every answer under three sentences.";
static const char *const users[TURNS] = {
    "Hello, I am Tomas. I came by the late ferry with my sister and we have a question about the brass telescope.",
    "It was the one with the cracked lens. She thinks it was a captain's, called Harlow.",
    "We also brought our dog, called Biscuit. He is not allowed upstairs, is he? He usually sleeps under the table.",
    "My sister is a violin maker in Porto. She wonders whether salt air damages spruce and maple as quickly as brass.",
    "Tomorrow we want to walk along the northern cliffs before the low tide. Which path is the safest after rain?",
    "Our grandfather kept a log of the weather for forty years. He wrote every line with a green pen.",
    "I would like to find the page about the storm of 1953. He said that the lamp went out for eleven minutes.",
    "Do you think that the keeper fell asleep? Or was the oil frozen? My sister believes it was done on purpose.",
    "We have sandwiches and two apples. Is there a place where we may sit inside, because the wind is strong?",
    "Before we leave: what did I say my sister does for a living, and what is the name of our dog?",
};

struct talk {
    struct loop *loop;
    struct engine *engine;
    struct uuid chat;
    struct prompt_message messages[2 * TURNS + 1];
    struct prompt prompt;
    struct buf text;
    uint64_t start_ns, first_ns, end_ns;
    struct engine_result result;
    enum tr_rc rc;
};

static void on_text(void *ctx, const char *text, size_t len)
{
    struct talk *t = ctx;

    if (t->first_ns == 0)
        t->first_ns = mono_ns();
    buf_add(&t->text, text, len);
}

static void on_done(void *ctx, enum tr_rc rc, const struct engine_result *result, const struct tr_err *err)
{
    struct talk *t = ctx;

    t->end_ns = mono_ns();
    t->rc = rc;
    if (rc == TR_OK)
        t->result = *result;
    else
        fprintf(stderr, "%s\n", tr_err_text(err));
    loop_stop(t->loop);
}

static void add(struct talk *t, enum speaker speaker, const char *text)
{
    t->messages[t->prompt.n++] = (struct prompt_message){.speaker = speaker, .text = text, .len = strlen(text)};
    t->prompt.messages = t->messages;
}

static bool run(struct talk *t)
{
    static const struct engine_callbacks callbacks = {.on_text = on_text, .on_done = on_done};
    const struct engine_request req = {
        .chat = t->chat, .character_name = "Mira", .prompt = &t->prompt, .max_tokens = MAX_TOKENS, .timeout_ms = 60000};
    struct engine_job *job = NULL;
    struct tr_err err = {0};

    buf_clear(&t->text);
    t->first_ns = 0;
    t->start_ns = mono_ns();
    if (t->engine->ops->generate(t->engine, &req, &callbacks, t, &job, &err) != TR_OK) {
        fprintf(stderr, "%s\n", tr_err_text(&err));
        return false;
    }
    loop_run(t->loop);
    return t->rc == TR_OK && t->first_ns != 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n == 0 ? 0 : v[n / 2];
}

/* Ten turns; then the tenth again, with nothing kept. */
static bool one_round(struct talk *t, double *first1, double *kept, double *full, double *rate)
{
    char *replies[TURNS] = {0};
    bool ok = true;

    t->prompt.n = 0;
    add(t, SPEAKER_SYSTEM, system_text);
    for (int i = 0; ok && i < TURNS; i++) {
        add(t, SPEAKER_USER, users[i]);
        ok = run(t);
        if (i == 0)
            *first1 = (double)(t->first_ns - t->start_ns) / 1e6;
        replies[i] = strdup(buf_str(&t->text));
        ok = ok && replies[i] != NULL;
        if (ok && i + 1 < TURNS)
            add(t, SPEAKER_CHARACTER, replies[i]);
    }
    if (ok) {
        *kept = (double)(t->first_ns - t->start_ns) / 1e6;
        *rate = (t->result.completion_tokens - 1) / ((double)(t->end_ns - t->first_ns) / 1e9);
        fprintf(stderr, "turn 10: %u tokens, %u kept\n", t->result.prompt_tokens, t->result.cached_tokens);
        t->engine->ops->forget(t->engine, &t->chat);
        ok = run(t);
        *full = (double)(t->first_ns - t->start_ns) / 1e6;
        if (ok && strcmp(buf_str(&t->text), replies[TURNS - 1]) != 0)
            fprintf(stderr, "the reply differs from the one with kept state\n");
    }
    t->engine->ops->forget(t->engine, &t->chat); /* the next round's chat would take its beginning over */
    for (int i = 0; i < TURNS; i++)
        free(replies[i]);
    return ok;
}

int main(int argc, char **argv)
{
    double first1[ROUNDS_MAX], kept[ROUNDS_MAX], full[ROUNDS_MAX], rate[ROUNDS_MAX];
    int rounds = argc > 2 ? atoi(argv[2]) : 5, n = 0;
    struct tr_err err = {0};
    struct talk t = {0};
    uint64_t start;
    bool ok = true;

    if (argc < 2 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: engine_bench MODEL.gguf [1..%d rounds]\n", ROUNDS_MAX);
        return 2;
    }
    if (loop_new(&t.loop, &err) != TR_OK) {
        fprintf(stderr, "%s\n", tr_err_text(&err));
        return 1;
    }
    start = mono_ns();
    if (llama_engine_open(t.loop, argv[1], NULL, &t.engine, &err) != TR_OK) {
        fprintf(stderr, "%s\n", tr_err_text(&err));
        loop_free(t.loop);
        return 1;
    }
    printf("| open (%s, %s) | %.0f ms |\n", t.engine->ops->info(t.engine)->model, t.engine->ops->info(t.engine)->device,
           (double)(mono_ns() - start) / 1e6);
    for (; ok && n < rounds; n++) {
        t.chat.b[15] = (uint8_t)(n + 1);
        ok = one_round(&t, &first1[n], &kept[n], &full[n], &rate[n]);
    }
    if (ok) {
        printf("| first token, turn 1 | %.0f ms |\n", median(first1, (size_t)n));
        printf("| first token, turn 10, kept / full | %.0f / %.0f ms |\n", median(kept, (size_t)n),
               median(full, (size_t)n));
        printf("| tokens/s, turn 10 | %.0f |\n", median(rate, (size_t)n));
    }
    t.engine->ops->close(t.engine);
    buf_release(&t.text);
    loop_free(t.loop);
    return ok ? 0 : 1;
}
