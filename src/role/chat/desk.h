/*
 * desk - what every front door (gateway, telegram) needs of chats, apart from sockets and HTTP: opening, accepting
 * messages (limits, ids, order, sealing, publishing), changing turns, following replies.  DESIGN.md tells the rules.
 *
 *   front door  --requests-->  desk  --history, queue, registry-->
 *   front door  <--events----  desk  <--[gateway:<id>]--
 *
 * A viewer is one connection of one user; it has any number of chats open.  Events of a chat come to each viewer that
 * has it open, after its `opened`, each reply once.  Threads: all on the loop's thread.
 *
 * Requests: a start function that returns true calls `done` exactly once, later; after desk_viewer_release() of its
 * viewer never.  false: out of memory, done is never called.  Everything handed to a callback is borrowed until it
 * returns.
 */
#ifndef ROLE_CHAT_DESK_H
#define ROLE_CHAT_DESK_H

#include "domain/card.h"
#include "domain/message.h"
#include "role/common/role.h"

struct desk;
struct desk_follow;
struct desk_request;

/* Embed in a connection.  Set user and address, zero the rest; desk_viewer_release() before it goes. */
struct desk_viewer {
    struct uuid user;
    uint8_t address[16];           /* IPv6 or v4-mapped, for the rate limit */
    struct desk_follow *follows;   /* the desk's own: the chats it has open */
    struct desk_request *requests; /* the desk's own */
};

/* Why a request was refused: for people and programs. */
struct desk_error {
    const char *code; /* bad_request, not_found, too_large, rate_limited, overloaded, conflict, internal */
    char message[200];
    const char *field; /* or NULL */
    uint64_t retry_after_ms;
};

struct desk_variant {
    int32_t variant;
    const char *text;
    size_t len;
    enum finish finish; /* FINISH_NONE: still running, the text is what there is so far */
    const char *code;   /* with FINISH_ERROR */
    uint64_t created_ms, attempt;
};
struct desk_turn {
    struct uuid chat, turn;
    uint64_t created_ms;
    const char *text; /* the user's; NULL: the greeting */
    size_t len;
    const struct desk_variant *variants; /* a running one stands last */
    size_t variants_n;
    int32_t chosen;                    /* -1: none yet */
    const struct message_media *media; /* that go with the user's words */
    size_t media_n;
};
struct desk_character {
    char id[CHARACTER_ID_MAX + 1];
    const char *name, *tagline;
    bool has_avatar;
    uint64_t updated_ms;
    const struct card *card; /* NULL in lists */
};
struct desk_opened {
    struct uuid chat;
    const struct desk_character *character; /* id alone where the character has been removed meanwhile (name = id) */
    const struct desk_turn *turns;          /* oldest first */
    size_t n;
    bool more; /* there are newer ones to be fetched by another open with `after` */
    uint64_t change;
};
struct desk_reply {
    struct uuid chat, turn;
    int32_t variant;
    const char *text;
    size_t len;
    enum finish finish;
    uint32_t prompt_tokens, cached_tokens, completion_tokens, ttft_ms;
};
struct desk_chat {
    struct uuid chat;
    char character[CHARACTER_ID_MAX + 1];
    const char *name; /* the character's, or its id where it is gone */
    bool has_avatar;
    uint64_t created_ms, updated_ms;
};

/* Events, as in contract 7. */
struct desk_events {
    void (*turn)(struct desk_viewer *v, const struct desk_turn *turn);
    void (*status)(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, enum turn_state state,
                   uint32_t position);
    void (*delta)(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, int32_t variant,
                  uint64_t attempt, uint64_t offset, const char *text, size_t len);
    void (*reply)(struct desk_viewer *v, const struct desk_reply *reply);
    void (*changed)(struct desk_viewer *v, const struct desk_turn *turn);
    void (*deleted)(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn); /* nil turn: the chat */
    void (*failed)(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, const char *code,
                   const char *message);
};

typedef void desk_opened_done(void *ctx, const struct desk_error *error, const struct desk_opened *opened);
typedef void desk_accepted_done(void *ctx, const struct desk_error *error, const struct uuid *turn);
typedef void desk_ok_done(void *ctx, const struct desk_error *error,
                          int32_t variant); /* variant: regenerate's, else -1 */
typedef void desk_turns_done(void *ctx, const struct desk_error *error, const struct desk_turn *turns, size_t n,
                             bool more);
typedef void desk_chats_done(void *ctx, const struct desk_error *error, const struct desk_chat *chats, size_t n);
typedef void desk_characters_done(void *ctx, const struct desk_error *error, const struct desk_character *list,
                                  size_t n);
typedef void desk_avatar_done(void *ctx, const struct desk_error *error, struct slice image, const char *type,
                              uint64_t updated_ms);

typedef void desk_started(void *ctx, enum tr_rc rc, const struct tr_err *err);

/* Declare and consume this instance's queue ("gateway.<instance>"), register as a gateway.  started: once, later. */
enum tr_rc desk_start(const struct role_env *env, const struct desk_events *events, desk_started *started, void *ctx,
                      struct desk **ret_desk, struct tr_err *err) TR_MUST_CHECK;
/* Nothing new is accepted from now on (`overloaded` with retry_after_ms); drained when no request is under way. */
void desk_drain(struct desk *d, void (*drained)(void *ctx), void *ctx);
void desk_free(struct desk *d); /* with no viewer left; NULL is fine */
/* The queues and stores answer and there is room for turns: for /readyz. */
bool desk_ready(const struct desk *d);

/* Closes what it has open and forgets its requests. */
void desk_viewer_release(struct desk *d, struct desk_viewer *v);

struct desk_open_request {
    const char *character; /* a new chat with it, or NULL */
    const char *id;        /* a new chat's client id, or NULL */
    size_t id_len;
    struct uuid chat;  /* resume, where character is NULL */
    struct uuid after; /* nil: none */
    uint64_t since;    /* with has_since: older turns changed meanwhile come as events after `opened` */
    bool has_since;
};
bool desk_open(struct desk *d, struct desk_viewer *v, const struct desk_open_request *req, desk_opened_done *done,
               void *ctx);
/*
 * text: any bytes of valid UTF-8, copied; may be empty where there are media.  media: the user's own, at most
 * MESSAGE_MEDIA_MAX, each once; copied.
 */
bool desk_send(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const char *id, size_t id_len,
               const char *text, size_t len, const struct uuid *media, size_t media_n, desk_accepted_done *done,
               void *ctx);
/* A turn is looked for in the chats that the viewer has open. */
bool desk_stop(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx);
/* expected: the variant the client means to get (contract 11.9), or -1. */
bool desk_regenerate(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t expected,
                     desk_ok_done *done, void *ctx);
bool desk_choose(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t variant, desk_ok_done *done,
                 void *ctx);
bool desk_edit(struct desk *d, struct desk_viewer *v, const struct uuid *turn, const char *text, size_t len,
               desk_ok_done *done, void *ctx);
bool desk_delete(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx);
/* limit: 1 to 200.  before: nil = from the newest.  The viewer need not have the chat open. */
bool desk_history(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const struct uuid *before,
                  uint32_t limit, desk_turns_done *done, void *ctx);
bool desk_chats(struct desk *d, struct desk_viewer *v, desk_chats_done *done, void *ctx);
bool desk_chat_delete(struct desk *d, struct desk_viewer *v, const struct uuid *chat, desk_ok_done *done, void *ctx);
bool desk_characters(struct desk *d, struct desk_viewer *v, desk_characters_done *done, void *ctx);
bool desk_character(struct desk *d, struct desk_viewer *v, const char *id, desk_characters_done *done,
                    void *ctx); /* n = 1 */
bool desk_avatar(struct desk *d, struct desk_viewer *v, const char *id, desk_avatar_done *done, void *ctx);
/* A stored file goes away, whatever names it. */
bool desk_media_delete(struct desk *d, struct desk_viewer *v, const struct uuid *media, desk_ok_done *done, void *ctx);
/* The user has sent a file: a time to let go of old ones of the user's that no message names.  Nobody waits. */
void desk_media_stored(struct desk *d, const struct uuid *user);
/* The registry's key of an address's rate (rate_take): messages and files together. */
#define DESK_ADDRESS_KEY (8 + 2 * 16)
void desk_address_key(const uint8_t address[16], char ret_key[DESK_ADDRESS_KEY + 1]);
/* A new user is noted in the catalogue; nobody waits. */
void desk_user_made(struct desk *d, const struct uuid *user);

#endif
