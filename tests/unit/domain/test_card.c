/* Tests of domain/card and avatar_type(). */
#include "domain/card.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define V2(fields) "{\"spec\":\"chara_card_v2\",\"spec_version\":\"2.0\",\"data\":{" fields "}}"
#define NAMED(fields) V2("\"name\":\"Luna\"," fields)
#define BOOK(entries) NAMED("\"character_book\":{\"entries\":[" entries "]}")

static const struct row {
    const char *name, *json, *cause; /* NULL: taken */
} rows[] = {
    {"smallest", V2("\"name\":\"L\""), NULL},
    {"V1", "{\"name\":\"L\",\"description\":\"d\"}", NULL},
    {"V3", "{\"spec\":\"chara_card_v3\",\"data\":{\"name\":\"L\"}}", NULL},
    {"byte order mark", "\xef\xbb\xbf{\"name\":\"L\"}", NULL},
    {"null is absent", NAMED("\"description\":null,\"tags\":null,\"character_book\":null,\"extensions\":null"), NULL},
    {"no JSON", "{\"name\":", "card: not valid JSON: line 1, column 8"},
    {"empty", "", "card: not valid JSON: line 1, column 0"},
    {"an array", "[]", "card: must be a JSON object"},
    {"a 0 in a text", V2("\"name\":\"L\\u0000x\""), "card: not valid JSON: line 1, column 70"},
    {"invalid UTF-8", "{\"name\":\"\xff\"}", "card: not valid JSON: line 1, column 9"},
    {"other spec", "{\"spec\":\"lorebook\",\"data\":{}}", "spec: must be \"chara_card_v2\""},
    {"spec of another type", "{\"spec\":2,\"data\":{}}", "spec: must be a string"},
    {"no data", "{\"spec\":\"chara_card_v2\"}", "data: must be an object"},
    {"data of another type", "{\"data\":[]}", "data: must be an object"},
    {"no name", "{}", "data.name: missing"},
    {"empty name", V2("\"name\":\"\""), "data.name: empty"},
    {"blank name", V2("\"name\":\"  \""), "data.name: empty"},
    {"name on two lines", V2("\"name\":\"a\\nb\""), "data.name: control characters"},
    {"name of another type", V2("\"name\":7"), "data.name: must be a string"},
    {"first_mes", NAMED("\"first_mes\":[]"), "data.first_mes: must be a string"},
    {"greetings", NAMED("\"alternate_greetings\":\"hi\""), "data.alternate_greetings: must be an array of strings"},
    {"a greeting", NAMED("\"alternate_greetings\":[\"hi\",3]"), "data.alternate_greetings[1]: must be a string"},
    {"a null greeting", NAMED("\"alternate_greetings\":[null]"), "data.alternate_greetings[0]: must be a string"},
    {"tags", NAMED("\"tags\":{}"), "data.tags: must be an array of strings"},
    {"book", NAMED("\"character_book\":[]"), "data.character_book: must be an object"},
    {"entries", NAMED("\"character_book\":{\"entries\":{}}"), "data.character_book.entries: must be an array"},
    {"entry", BOOK("{},5"), "data.character_book.entries[1]: must be an object"},
    {"keys", BOOK("{\"keys\":\"k\"}"), "data.character_book.entries[0].keys: must be an array of strings"},
    {"key", BOOK("{\"keys\":[\"k\",1]}"), "data.character_book.entries[0].keys[1]: must be a string"},
    {"content", BOOK("{\"content\":1}"), "data.character_book.entries[0].content: must be a string"},
    {"enabled", BOOK("{\"enabled\":1}"), "data.character_book.entries[0].enabled: must be true or false"},
    {"order", BOOK("{\"insertion_order\":\"1\"}"), "data.character_book.entries[0].insertion_order: must be a number"},
    {"scan depth", NAMED("\"character_book\":{\"scan_depth\":true}"),
     "data.character_book.scan_depth: must be a number"},
    {"id", NAMED("\"extensions\":{\"troupe\":{\"id\":\"any\"}}"),
     "data.extensions.troupe.id: must be 1 to 64 of a-z, 0-9 and -, and not \"any\""},
    {"extensions", NAMED("\"extensions\":{\"troupe\":1}"), "data.extensions.troupe: must be an object"},
};

static void parses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct card *card = NULL;
        struct tr_err err = {0};
        enum tr_rc rc = card_parse(rows[i].json, strlen(rows[i].json), &card, &err);

        if (rc != (rows[i].cause == NULL ? TR_OK : TR_INVALID) ||
            strcmp(err.msg, rows[i].cause ? rows[i].cause : "") != 0)
            fail_msg("%s: %s, %s", rows[i].name, tr_rc_name(rc), err.msg);
        assert_true((card != NULL) == (rc == TR_OK));
        card_free(card);
    }
}

static struct card *card_of(const char *json)
{
    struct card *card = NULL;
    struct tr_err err = {0};

    if (card_parse(json, strlen(json), &card, &err) != TR_OK)
        fail_msg("%s", err.msg);
    return card;
}

static void every_field(void **state)
{
    struct card *card = card_of(NAMED(
        "\"description\":\"d\",\"personality\":\"p\",\"scenario\":\"s\",\"first_mes\":\"f\",\"mes_example\":\"m\","
        "\"system_prompt\":\"sys\",\"post_history_instructions\":\"post\",\"creator\":\"c\",\"character_version\":"
        "\"v\","
        "\"creator_notes\":\" A fox. She is sly.\\nmore\",\"alternate_greetings\":[\"g0\",\"g1\"],\"tags\":[\"t\"],"
        "\"character_book\":{\"scan_depth\":9,\"entries\":[{\"keys\":[\"a\",\"b\"],\"content\":\"x\",\"enabled\":false,"
        "\"constant\":true,\"case_sensitive\":true,\"insertion_order\":-5},{\"insertion_order\":1e300}]}"));

    (void)state;
    assert_string_equal(card->id, "luna");
    assert_string_equal(card->description, "d");
    assert_string_equal(card->personality, "p");
    assert_string_equal(card->scenario, "s");
    assert_string_equal(card->first_message, "f");
    assert_string_equal(card->example_dialogue, "m");
    assert_string_equal(card->system_prompt, "sys");
    assert_string_equal(card->post_history, "post");
    assert_string_equal(card->creator, "c");
    assert_string_equal(card->version, "v");
    assert_string_equal(card->tagline, "A fox.");
    assert_int_equal(card->greetings_n, 2);
    assert_string_equal(card->greetings[1], "g1");
    assert_int_equal(card->tags_n, 1);
    assert_int_equal(card->lore_scan_depth, 9);
    assert_int_equal(card->lore_n, 2);
    assert_int_equal(card->lore[0].keys_n, 2);
    assert_string_equal(card->lore[0].keys[1], "b");
    assert_true(!card->lore[0].enabled && card->lore[0].constant && card->lore[0].case_sensitive);
    assert_int_equal(card->lore[0].order, -5);
    assert_true(card->lore[1].enabled && !card->lore[1].constant);
    assert_string_equal(card->lore[1].content, "");
    card_free(card);
    card = card_of(NAMED("\"x\":1"));
    assert_string_equal(card->first_message, "");
    assert_string_equal(card->tagline, "");
    assert_int_equal(card->lore_scan_depth, 4);
    card_free(card);
    card = card_of(NAMED("\"extensions\":{\"troupe\":{\"id\":\"moon-2\",\"tagline\":\"hey\"}}"));
    assert_string_equal(card->id, "moon-2");
    assert_string_equal(card->tagline, "hey");
    card_free(card);
}

static void slugs(void **state)
{
    static const struct {
        const char *name, *want;
    } names[] = {
        {"Luna", "luna"},
        {"  Dr. Who?! ", "dr-who"},
        {"\xc3\x89lodie", "elodie"},
        {"Any", "any-1"},
        {"\xe6\x9c\x88", "character"},
        {"\xef\xbc\xa1\xef\xbc\x91", "a1"},
        {"--", "character"},
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg hhh",
         "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *json = json_pack("{s:s}", "name", names[i].name);
        char *text = json_dumps(json, 0);
        struct card *card = card_of(text);

        assert_string_equal(card->id, names[i].want);
        assert_true(character_id_valid(card->id, strlen(card->id)));
        card_free(card);
        free(text);
        json_decref(json);
    }
}

static void unknown_fields_are_kept(void **state)
{
    static const char json[] =
        NAMED("\"z\":[1,2.5,{\"deep\":null}],\"a\":\"\xc3\xa9\",\"extensions\":{\"other\":{\"x\":true}}");
    struct card *card = card_of(json), *again;
    struct buf text = {0}, text2 = {0};
    json_t *was = json_loads(json, 0, NULL);

    (void)state;
    assert_int_equal(card_print(card, &text), TR_OK);
    again = card_of(buf_str(&text));
    assert_true(json_equal(again->json, was));
    assert_int_equal(card_print(again, &text2), TR_OK);
    assert_string_equal(buf_str(&text), buf_str(&text2));
    assert_true(strstr(buf_str(&text), "\"z\"") < strstr(buf_str(&text), "\"a\"")); /* sorted as it came */
    assert_non_null(strstr(buf_str(&text), "\n  \"data\": {\n"));
    card_free(card);
    card_free(again);
    card = card_of("{\"name\":\"L\",\"odd\":5}"); /* V1 becomes V2 */
    text.len = 0;
    assert_int_equal(card_print(card, &text), TR_OK);
    assert_non_null(strstr(buf_str(&text), "\"spec\": \"chara_card_v2\""));
    assert_non_null(strstr(buf_str(&text), "\"odd\": 5"));
    card_free(card);
    json_decref(was);
    buf_release(&text);
    buf_release(&text2);
}

/* `before`, `unit` n times, `after` */
static void check_limit(const char *before, const char *unit, size_t n, const char *after, const char *cause)
{
    struct buf text = {0};
    struct card *card = NULL;
    struct tr_err err = {0};

    buf_add_str(&text, before);
    for (size_t i = 0; i < n; i++)
        buf_add_str(&text, unit);
    buf_add_str(&text, after);
    assert_int_equal(card_parse(text.data, text.len, &card, &err), cause == NULL ? TR_OK : TR_INVALID);
    assert_string_equal(err.msg, cause == NULL ? "" : cause);
    card_free(card);
    buf_release(&text);
}

static void limits(void **state)
{
    (void)state;
    check_limit("{\"name\":\"", "\xc3\xa9", 100, "\"}", NULL);
    check_limit("{\"name\":\"", "\xc3\xa9", 101, "\"}", "data.name: over 100 characters");
    check_limit("{\"name\":\"L\",\"scenario\":\"", "x", CARD_FIELD_MAX, "\"}", NULL);
    check_limit("{\"name\":\"L\",\"scenario\":\"", "x", CARD_FIELD_MAX + 1, "\"}", "data.scenario: over 65536 bytes");
    check_limit("{\"name\":\"L\",\"alternate_greetings\":[", "\"g\",", 31, "\"g\"]}", NULL);
    check_limit("{\"name\":\"L\",\"alternate_greetings\":[", "\"g\",", 32, "\"g\"]}",
                "data.alternate_greetings: more than 32");
    check_limit("{\"name\":\"L\",\"character_book\":{\"entries\":[", "{},", 511, "{}]}}", NULL);
    check_limit("{\"name\":\"L\",\"character_book\":{\"entries\":[", "{},", 512, "{}]}}",
                "data.character_book.entries: more than 512");
    check_limit("{\"name\":\"L\"", " ", CARD_BYTES_MAX - 12, "}", NULL);
    check_limit("{\"name\":\"L\"", " ", CARD_BYTES_MAX - 11, "}", "card: over 1048576 bytes");
    check_limit("{\"name\":\"L\",\"x\":", "[", 500, "", "card: not valid JSON: line 1, column 516");
    check_limit("{\"name\":\"L\",\"x\":", "{\"a\":", 70,
                "1"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}}}}}}}}}}"
                "}",
                "card: nested deeper than 64");
}

static void expands(void **state)
{
    static const struct {
        const char *text, *want;
    } texts[] = {
        {"", ""},
        {"{{char}} and {{user}}", "Luna and Bob"},
        {"{{CHAR}}{{User}}<USER><bot><Char>", "LunaBobBobLunaLuna"},
        {"{{char} {user}} {{ char }} {{x}} <", "{{char} {user}} {{ char }} {{x}} <"},
        {"{{{char}}}", "{Luna}"},
    };
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        out.len = 0;
        card_expand(texts[i].text, "Luna", "Bob", &out);
        assert_string_equal(buf_str(&out), texts[i].want);
    }
    out.len = 0;
    card_expand("{{user}}", "Luna", "{{char}}", &out); /* what is put in is not read again */
    assert_string_equal(buf_str(&out), "{{char}}");
    buf_release(&out);
}

#define SVG(inner) "<svg xmlns=\"http://www.w3.org/2000/svg\">" inner "</svg>"

static const struct {
    const char *bytes;
    bool svg;
} svgs[] = {
    {"<svg/>", true},
    {SVG("<rect width=\"1\" fill=\"url(#g)\" style='fill:red'/><text>a &amp; b</text>"), true},
    {"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- made by hand -->\n" SVG(""), true},
    {SVG("<style>.a{fill:url(#g)}</style><use xlink:href=\"#a\"/>"), true},
    {SVG("<image href=\"data:image/png;base64,AAAA\"/>"), true},
    {SVG("<animate attributeName=\"opacity\" values=\"0;1\"/>"), true},
    {"svg", false},
    {"<svgx/>", false},
    {"<html><svg/></html>", false},
    {SVG("<script>alert(1)</script>"), false},
    {SVG("<x:SCRIPT xmlns:x=\"http://www.w3.org/2000/svg\"/>"), false},
    {"<svg onload=\"alert(1)\"/>", false},
    {"<svg\nONLOAD = 'alert(1)'/>", false},
    {"<svg a=\"b\"onload=\"alert(1)\"/>", false},
    {SVG("<foreignObject/>"), false},
    {SVG("<a href=\"javascript:alert(1)\"/>"), false},
    {SVG("<a href=\" javascript:alert(1)\"/>"), false},
    {SVG("<a xlink:href=\"java&#115;cript:alert(1)\"/>"), false},
    {SVG("<use href=\"https://evil.example/x.svg#a\"/>"), false},
    {SVG("<image href=\"//evil.example/x.png\"/>"), false},
    {SVG("<image href=\"data:image/svg+xml;base64,AAAA\"/>"), false},
    {SVG("<image src=\"x.png\"/>"), false},
    {SVG("<set attributeName=\"href\" to=\"x\"/>"), false},
    {SVG("<set attributeName=\"onclick\" to=\"x\"/>"), false},
    {SVG("<rect fill=\"url(https://evil.example/#a)\"/>"), false},
    {SVG("<rect fill=\"URL( 'http://evil.example/')\"/>"), false},
    {SVG("<style>@import 'https://evil.example/a.css';</style>"), false},
    {SVG("<style>a{background:u\\72l(x)}</style>"), false},
    {SVG("<style>a{fill:url(x.svg#g)}</style>"), false},
    {SVG("<rect style=\"background:image-set('https:/x' 1x)\"/>"), false},
    {"<!DOCTYPE svg [<!ENTITY x \"y\">]><svg>&x;</svg>", false},
    {SVG("<!ENTITY x \"y\">"), false},
    {SVG("&x;"), false},
    {"<?xml-stylesheet href=\"https://evil.example/a.css\"?><svg/>", false},
    {"<?xml version=\"1.0\" encoding=\"UTF-7\"?><svg/>", false},
    {SVG("<![CDATA[<script>]]>"), false},
    {SVG("<!--><script>alert(1)</script>-->"), false},
    {SVG("<g xml:base=\"https://evil.example/\"/>"), false},
    {"<svg", false},
    {"<svg a=\"", false},
    {"<svg a=b/>", false},
    {"<svg><!-- ", false},
    {"<svg>\xff</svg>", false},
};

static void avatars(void **state)
{
    (void)state;
    assert_string_equal(avatar_type("\x89PNG\r\n\x1a\n....", 12), "image/png");
    assert_string_equal(avatar_type("\xff\xd8\xff\xe0", 4), "image/jpeg");
    assert_string_equal(avatar_type("RIFF\1\2\3\4WEBPVP8 ", 16), "image/webp");
    assert_null(avatar_type("RIFF\1\2\3\4WAVE", 12));
    assert_null(avatar_type("GIF89a", 6));
    assert_null(avatar_type("\x89PNG", 4));
    assert_null(avatar_type("", 0));
    assert_null(avatar_type("<svg>\0</svg>", 12));
    for (size_t i = 0; i < sizeof svgs / sizeof svgs[0]; i++) {
        const char *type = avatar_type(svgs[i].bytes, strlen(svgs[i].bytes));

        if ((type != NULL && strcmp(type, "image/svg+xml") == 0) != svgs[i].svg)
            fail_msg("%s: %s", svgs[i].bytes, type != NULL ? type : "none");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),  cmocka_unit_test(every_field),
        cmocka_unit_test(slugs),   cmocka_unit_test(unknown_fields_are_kept),
        cmocka_unit_test(limits),  cmocka_unit_test(expands),
        cmocka_unit_test(avatars),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
