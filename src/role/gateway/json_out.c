/* json_out - see json_out.h. */
#include "role/gateway/json_out.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* A literal. */
#define LIT(out, text) buf_add((out), (text), sizeof(text) - 1)

static void add_u64(struct buf *out, uint64_t v)
{
    char digits[20];
    size_t n = sizeof digits;

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    buf_add(out, digits + n, sizeof digits - n);
}

static void add_i32(struct buf *out, int32_t v)
{
    if (v < 0)
        LIT(out, "-");
    add_u64(out, v < 0 ? (uint64_t)(-(int64_t)v) : (uint64_t)v);
}

void json_time(struct buf *out, uint64_t unix_ms)
{
    const time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm = {0};
    char text[64];
    int n;

    gmtime_r(&seconds, &tm);
    n = snprintf(text, sizeof text, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03uZ\"", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(unix_ms % 1000));
    buf_add(out, text, (size_t)n);
}

void json_uuid(struct buf *out, const struct uuid *id)
{
    char text[UUID_TEXT];

    uuid_format(id, text);
    LIT(out, "\"");
    buf_add(out, text, UUID_TEXT - 1);
    LIT(out, "\"");
}

void json_str(struct buf *out, const char *text)
{
    if (text == NULL)
        text = "";
    buf_add_json_string(out, text, strlen(text));
}

static void add_text(struct buf *out, const char *text, size_t len)
{
    buf_add_json_string(out, text == NULL ? "" : text, text == NULL ? 0 : len);
}

static void add_variant(struct buf *out, const struct desk_variant *v)
{
    const char *finish = finish_name(v->finish);

    LIT(out, "{\"variant\":");
    add_i32(out, v->variant);
    LIT(out, ",\"text\":");
    add_text(out, v->text, v->len);
    LIT(out, ",\"finish\":");
    if (finish != NULL)
        json_str(out, finish);
    else
        LIT(out, "null");
    LIT(out, ",\"created\":");
    json_time(out, v->created_ms);
    if (v->finish == FINISH_ERROR) {
        LIT(out, ",\"code\":");
        json_str(out, v->code == NULL || v->code[0] == '\0' ? "internal" : v->code);
    }
    if (finish == NULL) {
        LIT(out, ",\"attempt\":");
        add_u64(out, v->attempt);
    }
    LIT(out, "}");
}

/* The ids; where there are any, what each of them is beside them. */
static void add_media(struct buf *out, const struct desk_turn *turn)
{
    LIT(out, ",\"media\":[");
    for (size_t i = 0; i < turn->media_n; i++) {
        if (i > 0)
            LIT(out, ",");
        json_uuid(out, &turn->media[i].id);
    }
    LIT(out, "]");
    if (turn->media_n == 0)
        return;
    LIT(out, ",\"media_types\":[");
    for (size_t i = 0; i < turn->media_n; i++) {
        if (i > 0)
            LIT(out, ",");
        json_str(out, media_type_name((enum media_type)turn->media[i].type));
    }
    LIT(out, "]");
}

void json_turn(struct buf *out, const struct desk_turn *turn)
{
    LIT(out, "{\"turn\":");
    json_uuid(out, &turn->turn);
    LIT(out, ",\"chat\":");
    json_uuid(out, &turn->chat);
    LIT(out, ",\"created\":");
    json_time(out, turn->created_ms);
    if (turn->text != NULL) {
        LIT(out, ",\"text\":");
        add_text(out, turn->text, turn->len);
    }
    add_media(out, turn);
    LIT(out, ",\"variants\":[");
    for (size_t i = 0; i < turn->variants_n; i++) {
        if (i > 0)
            LIT(out, ",");
        add_variant(out, &turn->variants[i]);
    }
    LIT(out, "],\"chosen\":");
    if (turn->chosen < 0)
        LIT(out, "null");
    else
        add_i32(out, turn->chosen);
    LIT(out, "}");
}

void json_turns(struct buf *out, const struct desk_turn *turns, size_t n)
{
    LIT(out, "[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            LIT(out, ",");
        json_turn(out, &turns[i]);
    }
    LIT(out, "]");
}

static void add_avatar(struct buf *out, const char *character, bool has_avatar, uint64_t updated_ms)
{
    LIT(out, ",\"avatar\":");
    if (!has_avatar) {
        LIT(out, "null");
        return;
    }
    LIT(out, "\"/api/characters/");
    buf_add_str(out, character); /* a slug: nothing to escape */
    LIT(out, "/avatar");
    if (updated_ms > 0) {
        LIT(out, "?v=");
        add_u64(out, updated_ms);
    }
    LIT(out, "\"");
}

void json_character(struct buf *out, const struct desk_character *c)
{
    LIT(out, "{\"id\":");
    json_str(out, c->id);
    LIT(out, ",\"name\":");
    json_str(out, c->name);
    LIT(out, ",\"tagline\":");
    json_str(out, c->tagline);
    add_avatar(out, c->id, c->has_avatar, c->updated_ms);
    if (c->card != NULL) {
        LIT(out, ",\"description\":");
        json_str(out, c->card->description);
        LIT(out, ",\"creator\":");
        json_str(out, c->card->creator);
        LIT(out, ",\"tags\":[");
        for (size_t i = 0; i < c->card->tags_n; i++) {
            if (i > 0)
                LIT(out, ",");
            json_str(out, c->card->tags[i]);
        }
        LIT(out, "],\"greetings\":");
        add_u64(out, c->card->greetings_n + (c->card->first_message != NULL && c->card->first_message[0] != '\0'));
    }
    LIT(out, "}");
}

void json_characters(struct buf *out, const struct desk_character *list, size_t n)
{
    LIT(out, "{\"characters\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            LIT(out, ",");
        json_character(out, &list[i]);
    }
    LIT(out, "]}");
}

void json_chats(struct buf *out, const struct desk_chat *chats, size_t n)
{
    LIT(out, "{\"chats\":[");
    for (size_t i = 0; i < n; i++) {
        const struct desk_chat *c = &chats[i];

        if (i > 0)
            LIT(out, ",");
        LIT(out, "{\"chat\":");
        json_uuid(out, &c->chat);
        LIT(out, ",\"character\":");
        json_str(out, c->character);
        LIT(out, ",\"name\":");
        json_str(out, c->name == NULL ? c->character : c->name);
        add_avatar(out, c->character, c->has_avatar, 0);
        LIT(out, ",\"created\":");
        json_time(out, c->created_ms);
        LIT(out, ",\"updated\":");
        json_time(out, c->updated_ms);
        LIT(out, "}");
    }
    LIT(out, "]}");
}

void json_error(struct buf *out, const char *code, const char *message, const char *field)
{
    LIT(out, "{\"error\":{\"code\":");
    json_str(out, code);
    LIT(out, ",\"message\":");
    json_str(out, message);
    if (field != NULL) {
        LIT(out, ",\"field\":");
        json_str(out, field);
    }
    LIT(out, "}}");
}

/* {"type":TYPE,"ref":REF, without the closing brace. */
static void add_answer(struct buf *out, const char *type, const char *ref, size_t ref_len)
{
    LIT(out, "{\"type\":\"");
    buf_add_str(out, type);
    LIT(out, "\"");
    if (ref != NULL) {
        LIT(out, ",\"ref\":");
        buf_add_json_string(out, ref, ref_len);
    }
}

void json_opened(struct buf *out, const char *ref, size_t ref_len, const struct desk_opened *opened)
{
    add_answer(out, "opened", ref, ref_len);
    LIT(out, ",\"chat\":");
    json_uuid(out, &opened->chat);
    LIT(out, ",\"change\":");
    add_u64(out, opened->change);
    LIT(out, ",\"more\":");
    buf_add_str(out, opened->more ? "true" : "false");
    LIT(out, ",\"character\":");
    json_character(out, opened->character);
    LIT(out, ",\"turns\":");
    json_turns(out, opened->turns, opened->n);
    LIT(out, "}");
}

void json_accepted(struct buf *out, const char *ref, size_t ref_len, const struct uuid *turn)
{
    add_answer(out, "accepted", ref, ref_len);
    LIT(out, ",\"turn\":");
    json_uuid(out, turn);
    LIT(out, "}");
}

void json_ok(struct buf *out, const char *ref, size_t ref_len, int32_t variant)
{
    add_answer(out, "ok", ref, ref_len);
    if (variant >= 0) {
        LIT(out, ",\"variant\":");
        add_i32(out, variant);
    }
    LIT(out, "}");
}

void json_history(struct buf *out, const char *ref, size_t ref_len, const struct desk_turn *turns, size_t n, bool more)
{
    add_answer(out, "history", ref, ref_len);
    LIT(out, ",\"turns\":");
    json_turns(out, turns, n);
    LIT(out, ",\"more\":");
    buf_add_str(out, more ? "true" : "false");
    LIT(out, "}");
}

void json_pong(struct buf *out, const char *ref, size_t ref_len)
{
    add_answer(out, "pong", ref, ref_len);
    LIT(out, "}");
}

void json_refused(struct buf *out, const char *ref, size_t ref_len, const struct desk_error *error)
{
    add_answer(out, "error", ref, ref_len);
    LIT(out, ",\"code\":");
    json_str(out, error->code);
    LIT(out, ",\"message\":");
    json_str(out, error->message);
    if (error->field != NULL) {
        LIT(out, ",\"field\":");
        json_str(out, error->field);
    }
    if (error->retry_after_ms > 0) {
        LIT(out, ",\"retry_after_ms\":");
        add_u64(out, error->retry_after_ms);
    }
    LIT(out, "}");
}

/* {"type":TYPE,"chat":CHAT,"turn":TURN, without the closing brace. */
static void add_event(struct buf *out, const char *type, const struct uuid *chat, const struct uuid *turn)
{
    add_answer(out, type, NULL, 0);
    LIT(out, ",\"chat\":");
    json_uuid(out, chat);
    if (turn != NULL && !uuid_is_nil(turn)) {
        LIT(out, ",\"turn\":");
        json_uuid(out, turn);
    }
}

void json_event_turn(struct buf *out, const struct desk_turn *turn)
{
    LIT(out, "{\"type\":\"turn\",\"turn\":");
    json_turn(out, turn);
    LIT(out, "}");
}

void json_event_status(struct buf *out, const struct uuid *chat, const struct uuid *turn, enum turn_state state,
                       uint32_t position)
{
    add_event(out, "status", chat, turn);
    LIT(out, ",\"state\":");
    json_str(out, state == STATE_WRITING ? "writing" : state == STATE_THINKING ? "thinking" : "queued");
    if (position > 0) {
        LIT(out, ",\"position\":");
        add_u64(out, position);
    }
    LIT(out, "}");
}

void json_event_delta(struct buf *out, const struct uuid *chat, const struct uuid *turn, int32_t variant,
                      uint64_t attempt, uint64_t offset, const char *text, size_t len)
{
    add_event(out, "delta", chat, turn);
    LIT(out, ",\"variant\":");
    add_i32(out, variant);
    LIT(out, ",\"attempt\":");
    add_u64(out, attempt);
    LIT(out, ",\"offset\":");
    add_u64(out, offset);
    LIT(out, ",\"text\":");
    add_text(out, text, len);
    LIT(out, "}");
}

void json_event_reply(struct buf *out, const struct desk_reply *reply)
{
    const char *finish = finish_name(reply->finish);

    add_event(out, "reply", &reply->chat, &reply->turn);
    LIT(out, ",\"variant\":");
    add_i32(out, reply->variant);
    LIT(out, ",\"text\":");
    add_text(out, reply->text, reply->len);
    LIT(out, ",\"finish\":");
    json_str(out, finish == NULL ? "stop" : finish);
    LIT(out, ",\"usage\":{\"prompt_tokens\":");
    add_u64(out, reply->prompt_tokens);
    LIT(out, ",\"cached_tokens\":");
    add_u64(out, reply->cached_tokens);
    LIT(out, ",\"completion_tokens\":");
    add_u64(out, reply->completion_tokens);
    LIT(out, "},\"ttft_ms\":");
    add_u64(out, reply->ttft_ms);
    LIT(out, "}");
}

void json_event_changed(struct buf *out, const struct desk_turn *turn)
{
    add_event(out, "changed", &turn->chat, NULL);
    LIT(out, ",\"turn\":");
    json_turn(out, turn);
    LIT(out, "}");
}

void json_event_deleted(struct buf *out, const struct uuid *chat, const struct uuid *turn)
{
    add_event(out, "deleted", chat, turn);
    LIT(out, "}");
}

void json_event_failed(struct buf *out, const struct uuid *chat, const struct uuid *turn, const char *code,
                       const char *message)
{
    add_event(out, "error", chat, turn);
    LIT(out, ",\"code\":");
    json_str(out, code);
    LIT(out, ",\"message\":");
    json_str(out, message);
    LIT(out, "}");
}
