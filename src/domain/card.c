/*
 * card - see card.h.  The parsed JSON is kept whole, and the fields that we use are borrowed from it, so export gives
 * back what import took.  A null counts as an absent field.
 */
#include "domain/card.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "domain/text.h"

#define DEPTH_MAX 64
#define GREETINGS_MAX 32
#define TAGS_MAX 256
#define KEYS_MAX 256
#define NAME_MAX_CHARS 100
#define SCAN_DEPTH_DEFAULT 4
#define SCAN_DEPTH_MAX 100
#define TAGLINE_MAX 200

/* What card_parse() makes: the card first, so that one pointer is both. */
struct card_box {
    struct card card;
    char tagline[TAGLINE_MAX + 1];
};

/* A path of a field, for the err: "data.character_book.entries[3].keys". */
struct path {
    char text[96];
};

static struct path path_of(const char *fmt, ...) TR_PRINTF(1, 2);
static struct path path_of(const char *fmt, ...)
{
    struct path p;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p.text, sizeof p.text, fmt, ap);
    va_end(ap);
    return p;
}

static json_t *member(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);

    return json_is_null(v) ? NULL : v;
}

/* A string of the limit's length; absent: *ret stays as it is. */
static enum tr_rc check_string(const json_t *v, const char *path, const char **ret, struct tr_err *err)
{
    if (v == NULL)
        return TR_OK;
    if (!json_is_string(v))
        return tr_fail(err, TR_INVALID, "%s: must be a string", path);
    if (json_string_length(v) > CARD_FIELD_MAX)
        return tr_fail(err, TR_INVALID, "%s: over %d bytes", path, CARD_FIELD_MAX);
    *ret = json_string_value(v);
    return TR_OK;
}

static enum tr_rc get_string(const json_t *object, const char *prefix, const char *key, const char **ret,
                             struct tr_err *err)
{
    struct path p = path_of("%s.%s", prefix, key);

    return check_string(member(object, key), p.text, ret, err);
}

/* An array of strings; *ret_list is owned by the caller, its strings are borrowed.  Absent: an empty one. */
static enum tr_rc get_strings(const json_t *object, const char *prefix, const char *key, size_t max,
                              const char ***ret_list, size_t *ret_n, struct tr_err *err)
{
    const json_t *array = member(object, key);
    struct path p = path_of("%s.%s", prefix, key);
    size_t n = json_array_size(array);
    const char **list;

    if (array == NULL)
        return TR_OK;
    if (!json_is_array(array))
        return tr_fail(err, TR_INVALID, "%s: must be an array of strings", p.text);
    if (n > max)
        return tr_fail(err, TR_INVALID, "%s: more than %zu", p.text, max);
    list = calloc(n + 1, sizeof list[0]);
    if (list == NULL)
        return tr_fail(err, TR_NOMEM, "%s", p.text);
    for (size_t i = 0; i < n; i++) {
        struct path item = path_of("%s[%zu]", p.text, i);
        enum tr_rc rc = TR_INVALID;

        if (json_is_null(json_array_get(array, i)))
            (void)tr_fail(err, TR_INVALID, "%s: must be a string", item.text);
        else
            rc = check_string(json_array_get(array, i), item.text, &list[i], err);
        if (rc != TR_OK) {
            free(list);
            return rc;
        }
    }
    *ret_list = list;
    *ret_n = n;
    return TR_OK;
}

static enum tr_rc get_bool(const json_t *object, const char *prefix, const char *key, bool *ret, struct tr_err *err)
{
    const json_t *v = member(object, key);

    if (v == NULL)
        return TR_OK;
    if (!json_is_boolean(v))
        return tr_fail(err, TR_INVALID, "%s.%s: must be true or false", prefix, key);
    *ret = json_is_true(v);
    return TR_OK;
}

static enum tr_rc get_int(const json_t *object, const char *prefix, const char *key, int low, int high, int *ret,
                          struct tr_err *err)
{
    const json_t *v = member(object, key);
    double number;

    if (v == NULL)
        return TR_OK;
    if (!json_is_number(v))
        return tr_fail(err, TR_INVALID, "%s.%s: must be a number", prefix, key);
    number = json_number_value(v);
    *ret = number < low ? low : number > high ? high : (int)number;
    return TR_OK;
}

static enum tr_rc get_object(const json_t *object, const char *prefix, const char *key, json_t **ret,
                             struct tr_err *err)
{
    json_t *v = member(object, key);

    if (v != NULL && !json_is_object(v))
        return tr_fail(err, TR_INVALID, "%s.%s: must be an object", prefix, key);
    *ret = v;
    return TR_OK;
}

static enum tr_rc parse_entry(const json_t *json, const char *path, struct card_entry *e, struct tr_err *err)
{
    enum tr_rc rc;

    if (!json_is_object(json))
        return tr_fail(err, TR_INVALID, "%s: must be an object", path);
    e->content = "";
    e->enabled = true;
    rc = get_strings(json, path, "keys", KEYS_MAX, &e->keys, &e->keys_n, err);
    if (rc == TR_OK)
        rc = get_string(json, path, "content", &e->content, err);
    if (rc == TR_OK)
        rc = get_bool(json, path, "enabled", &e->enabled, err);
    if (rc == TR_OK)
        rc = get_bool(json, path, "constant", &e->constant, err);
    if (rc == TR_OK)
        rc = get_bool(json, path, "case_sensitive", &e->case_sensitive, err);
    if (rc == TR_OK)
        rc = get_int(json, path, "insertion_order", -1000000000, 1000000000, &e->order, err);
    return rc;
}

static enum tr_rc parse_book(const json_t *data, struct card *card, struct tr_err *err)
{
    const json_t *entries;
    json_t *book = NULL;
    size_t n;
    enum tr_rc rc;

    card->lore_scan_depth = SCAN_DEPTH_DEFAULT;
    rc = get_object(data, "data", "character_book", &book, err);
    if (rc != TR_OK || book == NULL)
        return rc;
    rc = get_int(book, "data.character_book", "scan_depth", 0, SCAN_DEPTH_MAX, &card->lore_scan_depth, err);
    if (rc != TR_OK)
        return rc;
    entries = member(book, "entries");
    if (entries == NULL)
        return TR_OK;
    if (!json_is_array(entries))
        return tr_fail(err, TR_INVALID, "data.character_book.entries: must be an array");
    n = json_array_size(entries);
    if (n > CARD_LORE_MAX)
        return tr_fail(err, TR_INVALID, "data.character_book.entries: more than %d", CARD_LORE_MAX);
    card->lore = calloc(n + 1, sizeof card->lore[0]);
    if (card->lore == NULL)
        return tr_fail(err, TR_NOMEM, "data.character_book.entries");
    card->lore_n = n;
    for (size_t i = 0; i < n; i++) {
        struct path p = path_of("data.character_book.entries[%zu]", i);

        rc = parse_entry(json_array_get(entries, i), p.text, &card->lore[i], err);
        if (rc != TR_OK)
            return rc;
    }
    return TR_OK;
}

static enum tr_rc parse_name(const json_t *data, struct card *card, struct tr_err *err)
{
    enum tr_rc rc = get_string(data, "data", "name", &card->name, err);
    size_t chars;

    if (rc != TR_OK)
        return rc;
    if (member(data, "name") == NULL)
        return tr_fail(err, TR_INVALID, "data.name: missing");
    chars = text_length(card->name, strlen(card->name));
    if (chars == 0 || card->name[strspn(card->name, " ")] == '\0')
        return tr_fail(err, TR_INVALID, "data.name: empty");
    if (chars > NAME_MAX_CHARS)
        return tr_fail(err, TR_INVALID, "data.name: over %d characters", NAME_MAX_CHARS);
    for (const char *c = card->name; *c != '\0'; c++)
        if ((uint8_t)*c < 0x20 || *c == 0x7f)
            return tr_fail(err, TR_INVALID, "data.name: control characters");
    return TR_OK;
}

/* A slug of the name: compatible small letters without their accents, everything else a dash. */
static enum tr_rc make_slug(const char *name, char ret_id[CHARACTER_ID_MAX + 1])
{
    utf8proc_uint8_t *plain = NULL;
    size_t n = 0;

    if (utf8proc_map((const utf8proc_uint8_t *)name, 0, &plain,
                     UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_STRIPMARK |
                         UTF8PROC_CASEFOLD) < 0)
        return TR_NOMEM;
    for (const utf8proc_uint8_t *c = plain; *c != '\0' && n < CHARACTER_ID_MAX; c++) {
        if ((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9'))
            ret_id[n++] = (char)*c;
        else if (n > 0 && ret_id[n - 1] != '-')
            ret_id[n++] = '-';
    }
    free(plain);
    while (n > 0 && ret_id[n - 1] == '-')
        n--;
    ret_id[n] = '\0';
    if (n == 0)
        memcpy(ret_id, "character", sizeof "character");
    else if (strcmp(ret_id, "any") == 0)
        memcpy(ret_id, "any-1", sizeof "any-1");
    return TR_OK;
}

/* The first sentence, on one line, cut between characters. */
static void first_sentence(const char *text, char ret[TAGLINE_MAX + 1])
{
    size_t len;

    text += strspn(text, " \t\r\n");
    len = strcspn(text, "\r\n");
    for (size_t i = 0; i < len; i++) {
        if (strchr(".!?", text[i]) != NULL && (i + 1 == len || text[i + 1] == ' ')) {
            len = i + 1;
            break;
        }
    }
    if (len > TAGLINE_MAX)
        len = text_utf8_prefix(text, TAGLINE_MAX);
    memcpy(ret, text, len);
    ret[len] = '\0';
}

static enum tr_rc parse_extensions(const json_t *data, struct card_box *box, struct tr_err *err)
{
    json_t *extensions = NULL, *ours = NULL;
    const char *id = NULL;
    enum tr_rc rc = get_object(data, "data", "extensions", &extensions, err);

    if (rc == TR_OK)
        rc = get_object(extensions, "data.extensions", "troupe", &ours, err);
    if (rc == TR_OK)
        rc = get_string(ours, "data.extensions.troupe", "id", &id, err);
    if (rc == TR_OK)
        rc = get_string(ours, "data.extensions.troupe", "tagline", &box->card.tagline, err);
    if (rc != TR_OK)
        return rc;
    if (box->card.tagline == NULL) {
        first_sentence(box->card.creator_notes, box->tagline);
        box->card.tagline = box->tagline;
    }
    if (id == NULL)
        return make_slug(box->card.name, box->card.id);
    if (!character_id_valid(id, strlen(id)))
        return tr_fail(err, TR_INVALID, "data.extensions.troupe.id: must be 1 to %d of a-z, 0-9 and -, and not \"any\"",
                       CHARACTER_ID_MAX);
    memcpy(box->card.id, id, strlen(id) + 1);
    return TR_OK;
}

static enum tr_rc parse_data(const json_t *data, struct card_box *box, struct tr_err *err)
{
    struct card *card = &box->card;
    const struct {
        const char *key;
        const char **to;
    } strings[] = {
        {"description", &card->description},
        {"personality", &card->personality},
        {"scenario", &card->scenario},
        {"first_mes", &card->first_message},
        {"mes_example", &card->example_dialogue},
        {"system_prompt", &card->system_prompt},
        {"post_history_instructions", &card->post_history},
        {"creator", &card->creator},
        {"creator_notes", &card->creator_notes},
        {"character_version", &card->version},
    };
    enum tr_rc rc = parse_name(data, card, err);

    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        *strings[i].to = "";
        if (rc == TR_OK)
            rc = get_string(data, "data", strings[i].key, strings[i].to, err);
    }
    if (rc == TR_OK)
        rc = get_strings(data, "data", "alternate_greetings", GREETINGS_MAX, &card->greetings, &card->greetings_n, err);
    if (rc == TR_OK)
        rc = get_strings(data, "data", "tags", TAGS_MAX, &card->tags, &card->tags_n, err);
    if (rc == TR_OK)
        rc = parse_book(data, card, err);
    if (rc == TR_OK)
        rc = parse_extensions(data, box, err);
    return rc;
}

static bool deeper_than(json_t *v, int depth)
{
    json_t *item;
    size_t i;

    if (depth < 0)
        return true;
    if (json_is_array(v)) {
        json_array_foreach(v, i, item) if (deeper_than(item, depth - 1)) return true;
    } else if (json_is_object(v)) {
        for (void *at = json_object_iter(v); at != NULL; at = json_object_iter_next(v, at))
            if (deeper_than(json_object_iter_value(at), depth - 1))
                return true;
    }
    return false;
}

/* The V2 card that *json is, or that it is wrapped into (V1: the fields stand at the top).  *json is replaced. */
static enum tr_rc take_version(json_t **json, struct tr_err *err)
{
    const json_t *spec = member(*json, "spec");
    json_t *whole;

    if (!json_is_object(*json))
        return tr_fail(err, TR_INVALID, "card: must be a JSON object");
    if (spec != NULL && !json_is_string(spec))
        return tr_fail(err, TR_INVALID, "spec: must be a string");
    if (spec != NULL && strcmp(json_string_value(spec), "chara_card_v2") != 0 &&
        strcmp(json_string_value(spec), "chara_card_v3") != 0)
        return tr_fail(err, TR_INVALID, "spec: must be \"chara_card_v2\"");
    if (spec != NULL || member(*json, "data") != NULL)
        return json_is_object(member(*json, "data")) ? TR_OK : tr_fail(err, TR_INVALID, "data: must be an object");
    whole = json_pack("{s:s, s:s, s:O}", "spec", "chara_card_v2", "spec_version", "2.0", "data", *json);
    if (whole == NULL)
        return tr_fail(err, TR_NOMEM, "card");
    json_decref(*json);
    *json = whole;
    return TR_OK;
}

enum tr_rc card_parse(const void *data, size_t len, struct card **ret_card, struct tr_err *err)
{
    const char *text = data;
    struct card_box *box = NULL;
    json_t *json = NULL;
    json_error_t cause;
    enum tr_rc rc;

    if (len > CARD_BYTES_MAX)
        return tr_fail(err, TR_INVALID, "card: over %d bytes", CARD_BYTES_MAX);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark, as some editors write */
        text += 3;
        len -= 3;
    }
    json = json_loadb(text, len, 0, &cause);
    if (json == NULL) {
        rc = json_error_code(&cause) == json_error_out_of_memory
                 ? tr_fail(err, TR_NOMEM, "card")
                 : tr_fail(err, TR_INVALID, "card: not valid JSON: line %d, column %d", cause.line, cause.column);
        goto out;
    }
    if (deeper_than(json, DEPTH_MAX)) {
        rc = tr_fail(err, TR_INVALID, "card: nested deeper than %d", DEPTH_MAX);
        goto out;
    }
    rc = take_version(&json, err);
    if (rc != TR_OK)
        goto out;
    box = calloc(1, sizeof *box);
    if (box == NULL) {
        rc = tr_fail(err, TR_NOMEM, "card");
        goto out;
    }
    box->card.json = json;
    json = NULL;
    rc = parse_data(member(box->card.json, "data"), box, err);
    if (rc != TR_OK)
        goto out;
    *ret_card = &box->card;
    box = NULL;
out:
    json_decref(json);
    card_free(box != NULL ? &box->card : NULL);
    return rc;
}

void card_free(struct card *card)
{
    if (card == NULL)
        return;
    for (size_t i = 0; i < card->lore_n; i++)
        free(card->lore[i].keys);
    free(card->lore);
    free(card->greetings);
    free(card->tags);
    json_decref(card->json);
    free(card); /* the whole box */
}

static int print_to_buf(const char *text, size_t len, void *out)
{
    buf_add(out, text, len);
    return 0;
}

enum tr_rc card_print(const struct card *card, struct buf *out)
{
    size_t before = out->len;

    if (json_dump_callback(card->json, print_to_buf, out, JSON_INDENT(2)) != 0)
        out->failed = true;
    buf_add_u8(out, '\n');
    if (out->failed) {
        out->len = before;
        return TR_NOMEM;
    }
    return TR_OK;
}

void card_expand(const char *text, const char *character, const char *user, struct buf *out)
{
    const struct {
        const char *macro;
        const char *value;
    } macros[] = {
        {"{{char}}", character}, {"{{user}}", user}, {"<char>", character}, {"<bot>", character}, {"<user>", user}};

    while (*text != '\0') {
        size_t plain = strcspn(text, "{<");
        bool found = false;

        buf_add(out, text, plain);
        text += plain;
        for (size_t i = 0; *text != '\0' && !found && i < sizeof macros / sizeof macros[0]; i++) {
            size_t len = strlen(macros[i].macro);

            if (strncasecmp(text, macros[i].macro, len) == 0) {
                buf_add_str(out, macros[i].value);
                text += len;
                found = true;
            }
        }
        if (*text != '\0' && !found)
            buf_add_u8(out, (uint8_t)*text++);
    }
}
