/* Tests of domain/prompt. */
#include "domain/prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct card *card_of(const char *fields)
{
    struct buf json = {0};
    struct card *card = NULL;
    struct tr_err err = {0};

    buf_printf(&json, "{\"name\":\"Luna\"%s%s}", *fields != '\0' ? "," : "", fields);
    if (card_parse(json.data, json.len, &card, &err) != TR_OK)
        fail_msg("%s", err.msg);
    buf_release(&json);
    return card;
}

#define MESSAGE(speaker, text)                                                                                         \
    {                                                                                                                  \
        speaker, text, sizeof(text) - 1                                                                                \
    }

static void the_system_part(void **state)
{
    static const struct prompt_recent recent[] = {MESSAGE(SPEAKER_CHARACTER, "Hi {{user}}"),
                                                  MESSAGE(SPEAKER_USER, "Who?")};
    struct card *card =
        card_of("\"description\":\"{{char}} is a fox.\",\"personality\":\"sly\",\"scenario\":\" \","
                "\"mes_example\":\"<START>\\n{{user}}: Hi\\n{{char}}: Yip\\n<START>\\n{{user}}: Bye\\n\"");
    struct prompt p;

    (void)state;
    assert_int_equal(prompt_build(card, "Bob", recent, 2, &p), TR_OK);
    assert_int_equal(p.n, 5);
    assert_string_equal(
        p.messages[0].text,
        "You are Luna, a character in a conversation with Bob. Always stay in character: think, feel and "
        "speak as Luna. Write only Luna's next reply. Never write, act or decide for Bob. Answer in the "
        "language that Bob writes in.\n\nAbout Luna:\nLuna is a fox.\n\nLuna's personality:\nsly\n\n"
        "The first messages are an example of how Luna talks. The conversation begins after them.");
    assert_int_equal(p.messages[0].speaker, SPEAKER_SYSTEM);
    assert_true(p.messages[0].fixed && p.messages[1].fixed && p.messages[2].fixed);
    assert_true(!p.messages[3].fixed && p.messages[4].fixed);
    assert_string_equal(p.messages[3].text, "Hi {{user}}"); /* what was said stays as it was */
    assert_string_equal(p.messages[4].text, "Who?");
    assert_int_equal(p.messages[4].len, 4);
    prompt_release(&p);
    assert_null(p.messages);
    assert_int_equal(prompt_build(card, "Bob", NULL, 0, &p), TR_OK);
    assert_int_equal(p.n, 3);
    prompt_release(&p);
    card_free(card);
}

/* What the example dialogue becomes: "U:…" and "C:…" a message; where it is no dialogue, it stands in the system part. */
static void the_example_dialogue(void **state)
{
    static const struct {
        const char *examples, *want;
    } rows[] = {
        {"<START>\\n{{user}}: Hi\\n{{char}}: Yip\\n<START>\\n{{user}}: Bye\\n", "U:Hi|C:Yip|"},
        {"{{user}}: Hi\\r\\n{{char}}:  Yip\\r\\n\\r\\nyap \\r\\n", "U:Hi|C:Yip\r\n\r\nyap|"},
        {"Bob: one\\nBob: two\\nLuna: three\\n<start>\\n<BOT>: four", "U:two|C:three|C:four|"},
        {"{{char}}:\\n{{char}}: Yip", "C:Yip|"},
        {"<START> \\n \\n", ""},
        {"She barks: loud.", "S"},
        {"<START>\\nA prologue.\\n{{user}}: Hi\\n{{char}}: Yip", "S"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf fields = {0}, got = {0};
        struct card *card;
        struct prompt p;

        buf_printf(&fields, "\"mes_example\":\"%s\"", rows[i].examples);
        card = card_of(buf_str(&fields));
        assert_int_equal(prompt_build(card, "Bob", NULL, 0, &p), TR_OK);
        for (size_t k = 1; k < p.n; k++) {
            assert_true(p.messages[k].fixed);
            buf_printf(&got, "%c:%s|", p.messages[k].speaker == SPEAKER_USER ? 'U' : 'C', p.messages[k].text);
        }
        if (strstr(p.messages[0].text, "How Luna talks") != NULL)
            buf_add_u8(&got, 'S');
        assert_string_equal(buf_str(&got), rows[i].want);
        prompt_release(&p);
        card_free(card);
        buf_release(&fields);
        buf_release(&got);
    }
}

static void the_cards_own_instructions(void **state)
{
    static const struct prompt_recent recent[] = {MESSAGE(SPEAKER_USER, "Who?"), MESSAGE(SPEAKER_USER, "")};
    struct card *card = card_of(
        "\"system_prompt\":\"Be {{char}}! {{ORIGINAL}}\",\"post_history_instructions\":\"Be short, {{char}}.\"");
    struct prompt p;

    (void)state;
    assert_int_equal(prompt_build(card, "Bob", recent, 2, &p), TR_OK);
    assert_true(strncmp(p.messages[0].text, "Be Luna! You are Luna, a character", 34) == 0);
    assert_string_equal(p.messages[1].text, "Who?");
    assert_string_equal(p.messages[2].text, "\n\n[Be short, Luna.]");
    prompt_release(&p);
    card_free(card);
}

static const char book[] =
    "\"character_book\":{\"scan_depth\":2,\"entries\":["
    "{\"keys\":[\"dragon\"],\"content\":\"Dragons fear {{char}}.\",\"insertion_order\":5},"
    "{\"keys\":[\"Rome\"],\"content\":\"Rome fell.\",\"case_sensitive\":true,\"insertion_order\":1},"
    "{\"keys\":[\"\"],\"content\":\"never\"},"
    "{\"keys\":[\"dragon\"],\"content\":\"off\",\"enabled\":false},"
    "{\"keys\":[\"\\u00c4PFEL\",\"x1\"],\"content\":\"Apples.\",\"insertion_order\":5},"
    "{\"constant\":true,\"content\":\"The sky is green.\"}]}";

static void lore(void **state)
{
    static const struct {
        const char *old, *before, *last, *want;
    } rows[] = {
        {"", "", "hello", "hello"},
        {"", "", "a DRAGON!", "[Good to know: Dragons fear Luna.]\n\na DRAGON!"},
        {"", "the dragon", "and Rome", "[Good to know: Rome fell.\nDragons fear Luna.]\n\nand Rome"},
        {"the dragon", "", "rome", "rome"}, /* past the depth; the wrong case */
        {"", "", "ein \xc3\xa4pfelchen", "[Good to know: Apples.]\n\nein \xc3\xa4pfelchen"},
    };
    struct card *card = card_of(book);

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct prompt_recent recent[] = {{SPEAKER_USER, rows[i].old, strlen(rows[i].old)},
                                         {SPEAKER_CHARACTER, rows[i].before, strlen(rows[i].before)},
                                         {SPEAKER_USER, rows[i].last, strlen(rows[i].last)}};
        struct prompt p, again;

        assert_int_equal(prompt_build(card, "Bob", recent, 3, &p), TR_OK);
        assert_string_equal(p.messages[3].text, rows[i].want);
        assert_non_null(strstr(p.messages[0].text, "\n\nGood to know:\nThe sky is green."));
        assert_null(strstr(p.messages[0].text, "never"));
        assert_int_equal(prompt_build(card, "Bob", recent, 3, &again), TR_OK); /* the same bytes again */
        for (size_t k = 0; k < p.n; k++)
            assert_string_equal(p.messages[k].text, again.messages[k].text);
        prompt_release(&p);
        prompt_release(&again);
    }
    card_free(card);
}

static void trims(void **state)
{
    static const struct {
        const char *name, *shape; /* S system, U user, C character; small letters: may go */
        uint32_t cost, budget;
        enum tr_rc want;
        size_t drop;
        const char *cause;
    } rows[] = {
        {"fits", "SucucU", 10, 60, TR_OK, 0, NULL},
        {"one too many: half the room, and whole pairs", "SucucU", 10, 59, TR_OK, 4, NULL},
        {"steps of half the room", "SucucucucucU", 10, 90, TR_OK, 4, NULL}, /* 110 over 80: 40 */
        {"room for the last only", "SucU", 10, 20, TR_OK, 2, NULL},
        {"the fixed do not fit", "SucU", 10, 19, TR_INVALID, 0, "prompt: the fixed part takes 20 of 19 tokens"},
        {"nothing", "", 10, 0, TR_OK, 0, NULL},
        {"greeting first", "ScucU", 10, 40, TR_OK, 3, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(rows[i].shape), drop = 77;
        uint32_t cost[16];
        bool fixed[16];
        enum speaker speakers[16];
        struct tr_err err = {0};
        enum tr_rc rc;

        for (size_t k = 0; k < n; k++) {
            char c = rows[i].shape[k];

            cost[k] = rows[i].cost;
            fixed[k] = c < 'a';
            speakers[k] = c == 'S' ? SPEAKER_SYSTEM : c == 'u' || c == 'U' ? SPEAKER_USER : SPEAKER_CHARACTER;
        }
        rc = prompt_trim(cost, fixed, speakers, n, rows[i].budget, &drop, &err);
        if (rc != rows[i].want || drop != (rc == TR_OK ? rows[i].drop : 77) ||
            (rows[i].cause != NULL && strcmp(err.msg, rows[i].cause) != 0))
            fail_msg("%s: %s, %zu, %s", rows[i].name, tr_rc_name(rc), drop, err.msg);
    }
}

/* A chat grows message by message: the rest always fits, and the beginning moves at most once in half the room. */
static void the_beginning_is_steady(void **state)
{
    static uint32_t cost[2000];
    static bool fixed[2000];
    static enum speaker speakers[2000];

    (void)state;
    srand(7);
    for (int round = 0; round < 20; round++) {
        uint32_t budget = 1000 + (uint32_t)(rand() % 4000), system = (uint32_t)(rand() % 500),
                 step = (budget - system) / 2;
        uint64_t growth = 0;
        size_t last_drop = 0, changes = 0;

        cost[0] = system;
        fixed[0] = true;
        speakers[0] = SPEAKER_SYSTEM;
        for (size_t n = 1; n < 1200; n++) {
            uint64_t kept = 0;
            size_t drop = 0, gone = 0;

            cost[n] = 1 + (uint32_t)(rand() % 120);
            speakers[n] = n % 2 == 1 ? SPEAKER_USER : SPEAKER_CHARACTER;
            growth += cost[n];
            if (n % 2 == 0)
                continue; /* a turn is asked for behind a user's message */
            fixed[n] = true;
            assert_int_equal(prompt_trim(cost, fixed, speakers, n + 1, budget, &drop, NULL), TR_OK);
            fixed[n] = false;
            for (size_t i = 0; i <= n; i++)
                if (i == 0 || i == n || gone++ >= drop)
                    kept += cost[i];
            assert_true(kept <= budget);
            assert_true(drop >= last_drop && drop % 2 == 0);
            changes += drop != last_drop;
            last_drop = drop;
        }
        assert_true(changes > 0 && changes <= growth / step + 1);
    }
}

static void recent_starts(void **state)
{
    static const struct {
        uint64_t total, keep, want;
    } rows[] = {{0, 20, 0},
                {20, 20, 0},
                {40, 20, 0},
                {41, 20, 20},
                {59, 20, 20},
                {60, 20, 40},
                {61, 20, 40},
                {80, 20, 60},
                {7, 0, 7},
                {3, 1, 2},
                {UINT64_MAX, UINT64_MAX, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_true(prompt_recent_start(rows[i].total, rows[i].keep) == rows[i].want);
    for (uint64_t keep = 1; keep < 30; keep++) {
        for (uint64_t total = 0; total < 500; total++) {
            uint64_t kept = total - prompt_recent_start(total, keep);

            assert_true(kept <= 2 * keep && (kept >= keep || kept == total));
            assert_true(prompt_recent_start(total + 1, keep) >= prompt_recent_start(total, keep));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_system_part),
        cmocka_unit_test(the_example_dialogue),
        cmocka_unit_test(the_cards_own_instructions),
        cmocka_unit_test(lore),
        cmocka_unit_test(trims),
        cmocka_unit_test(the_beginning_is_steady),
        cmocka_unit_test(recent_starts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
