/* json_out - what the desk tells, as JSON text (contract 6, 7, 11).  Pure; each function appends to `out`. */
#ifndef GATEWAY_JSON_OUT_H
#define GATEWAY_JSON_OUT_H

#include "role/chat/desk.h"

/* "2026-01-31T12:00:00.000Z", in quotes. */
void json_time(struct buf *out, uint64_t unix_ms);
void json_uuid(struct buf *out, const struct uuid *id); /* in quotes */
void json_str(struct buf *out, const char *text);       /* in quotes, escaped */

void json_turn(struct buf *out, const struct desk_turn *turn);
void json_turns(struct buf *out, const struct desk_turn *turns, size_t n); /* [ ... ] */
/* With its card: description, tags, creator and the number of greetings too. */
void json_character(struct buf *out, const struct desk_character *character);

/* HTTP bodies. */
void json_characters(struct buf *out, const struct desk_character *list, size_t n);
void json_chats(struct buf *out, const struct desk_chat *chats, size_t n);
void json_error(struct buf *out, const char *code, const char *message, const char *field);

/* Answers; ref is the client's, in valid UTF-8. */
void json_opened(struct buf *out, const char *ref, size_t ref_len, const struct desk_opened *opened);
void json_accepted(struct buf *out, const char *ref, size_t ref_len, const struct uuid *turn);
void json_ok(struct buf *out, const char *ref, size_t ref_len, int32_t variant);
void json_history(struct buf *out, const char *ref, size_t ref_len, const struct desk_turn *turns, size_t n, bool more);
void json_pong(struct buf *out, const char *ref, size_t ref_len);
/* ref NULL: the request had no good one. */
void json_refused(struct buf *out, const char *ref, size_t ref_len, const struct desk_error *error);

/* Events. */
void json_event_turn(struct buf *out, const struct desk_turn *turn);
void json_event_status(struct buf *out, const struct uuid *chat, const struct uuid *turn, enum turn_state state,
                       uint32_t position);
void json_event_delta(struct buf *out, const struct uuid *chat, const struct uuid *turn, int32_t variant,
                      uint64_t attempt, uint64_t offset, const char *text, size_t len);
void json_event_reply(struct buf *out, const struct desk_reply *reply);
void json_event_changed(struct buf *out, const struct desk_turn *turn);
void json_event_deleted(struct buf *out, const struct uuid *chat, const struct uuid *turn);
void json_event_failed(struct buf *out, const struct uuid *chat, const struct uuid *turn, const char *code,
                       const char *message);

#endif
