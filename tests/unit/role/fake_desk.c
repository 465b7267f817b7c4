/* fake_desk - see fake_desk.h. */
#include "tests/unit/role/fake_desk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ask { ASK_OPEN, ASK_SEND, ASK_OK, ASK_TURNS, ASK_CHATS, ASK_CHARACTERS, ASK_AVATAR };

struct waiting {
    struct waiting *next;
    struct desk_viewer *viewer;
    enum ask ask;
    void (*done)(void);
    void *ctx;
    struct uuid chat;
    int32_t variant;
    unsigned flood;
    bool silent; /* no reply after the flood */
};

struct fake_desk fake_desk = {.ready = true};

static struct waiting *first;
static const struct desk_events *events;
static desk_started *started_cb;
static void *started_ctx;
static char handle;

static const struct uuid a_chat = {{0x01, 0x93, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}};
static const struct uuid a_turn = {{0x01, 0x93, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 2}};

struct desk *fake_desk_handle(void)
{
    return (struct desk *)(void *)&handle;
}

/* Returns what a start function returns. */
static bool asked(struct desk_viewer *v, enum ask ask, void (*done)(void), void *ctx, const char *words)
{
    struct waiting *w, **at = &first;

    snprintf(fake_desk.last, sizeof fake_desk.last, "%s", words);
    fake_desk.calls++;
    if (fake_desk.refuse)
        return false;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return false;
    w->viewer = v;
    w->ask = ask;
    w->done = done;
    w->ctx = ctx;
    w->chat = a_chat;
    w->variant = -1;
    while (*at != NULL)
        at = &(*at)->next;
    *at = w;
    fake_desk.waiting++;
    if (fake_desk.on_call != NULL)
        fake_desk.on_call(fake_desk.ctx);
    return true;
}

static void flood(struct waiting *w)
{
    char piece[1001];
    struct desk_reply reply = {
        .chat = w->chat, .turn = a_turn, .finish = FINISH_STOP, .prompt_tokens = 1, .completion_tokens = 1};
    char *all;

    if (events == NULL)
        return; /* a test without a transport: nobody to flood */
    all = malloc((size_t)w->flood * 1000 + 1);
    memset(piece, 'x', sizeof piece);
    for (unsigned i = 0; i < w->flood; i++)
        events->delta(w->viewer, &w->chat, &a_turn, 0, 1, (uint64_t)i * 1000, piece, 1000);
    if (all != NULL && !w->silent) {
        memset(all, 'x', (size_t)w->flood * 1000);
        reply.text = all;
        reply.len = (size_t)w->flood * 1000;
        events->reply(w->viewer, &reply);
    }
    free(all);
}

static void answer(struct waiting *w)
{
    static const struct desk_variant greeting = {
        .text = "Hello.", .len = 6, .finish = FINISH_STOP, .created_ms = 1732000000123};
    const struct desk_turn turn = {
        .chat = a_chat, .turn = a_turn, .created_ms = 1732000000123, .variants = &greeting, .variants_n = 1};
    static const struct desk_character ada = {
        .id = "ada", .name = "Ada", .tagline = "Counts.", .has_avatar = true, .updated_ms = 5};
    const struct desk_chat chat = {.chat = a_chat, .character = "ada", .name = "Ada", .created_ms = 1, .updated_ms = 2};
    static const char image[] = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>";
    const struct desk_opened opened = {.chat = a_chat, .character = &ada, .turns = &turn, .n = 1, .change = 7};
    const struct desk_error *e = fake_desk.error;

    switch (w->ask) {
    case ASK_OPEN:
        ((desk_opened_done *)w->done)(w->ctx, e, e == NULL ? &opened : NULL);
        break;
    case ASK_SEND:
        ((desk_accepted_done *)w->done)(w->ctx, e, e == NULL ? &a_turn : NULL);
        if (w->flood > 0 && e == NULL)
            flood(w);
        break;
    case ASK_OK:
        ((desk_ok_done *)w->done)(w->ctx, e, w->variant);
        break;
    case ASK_TURNS:
        ((desk_turns_done *)w->done)(w->ctx, e, &turn, 1, false);
        break;
    case ASK_CHATS:
        ((desk_chats_done *)w->done)(w->ctx, e, &chat, 1);
        break;
    case ASK_CHARACTERS:
        ((desk_characters_done *)w->done)(w->ctx, e, &ada, 1);
        break;
    case ASK_AVATAR:
        ((desk_avatar_done *)w->done)(w->ctx, e, (struct slice){(const uint8_t *)image, sizeof image - 1},
                                      "image/svg+xml", 5);
        break;
    }
}

void fake_desk_answer(void)
{
    while (first != NULL) {
        struct waiting *w = first;

        first = w->next;
        fake_desk.waiting--;
        answer(w);
        free(w);
    }
    if (started_cb != NULL) {
        desk_started *cb = started_cb;

        started_cb = NULL;
        cb(started_ctx, TR_OK, NULL);
    }
}

void fake_desk_reset(void)
{
    while (first != NULL) {
        struct waiting *w = first;

        first = w->next;
        free(w);
    }
    fake_desk = (struct fake_desk){.ready = true};
}

enum tr_rc desk_start(const struct role_env *env, const struct desk_events *ev, desk_started *started, void *ctx,
                      struct desk **ret_desk, struct tr_err *err)
{
    (void)env;
    (void)err;
    events = ev;
    started_cb = started;
    started_ctx = ctx;
    *ret_desk = fake_desk_handle();
    if (fake_desk.on_call != NULL)
        fake_desk.on_call(fake_desk.ctx);
    return TR_OK;
}

void desk_drain(struct desk *d, void (*drained)(void *ctx), void *ctx)
{
    (void)d;
    drained(ctx);
}

void desk_free(struct desk *d)
{
    (void)d;
}

bool desk_ready(const struct desk *d)
{
    (void)d;
    return fake_desk.ready;
}

void desk_viewer_release(struct desk *d, struct desk_viewer *v)
{
    (void)d;
    fake_desk.released++;
    for (struct waiting **at = &first; *at != NULL;) {
        struct waiting *w = *at;

        if (w->viewer != v) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        fake_desk.waiting--;
        free(w);
    }
}

static const char *uuid_words(const struct uuid *id)
{
    static char text[4][UUID_TEXT];
    static unsigned n;

    uuid_format(id, text[++n % 4]);
    return text[n % 4];
}

bool desk_open(struct desk *d, struct desk_viewer *v, const struct desk_open_request *req, desk_opened_done *done,
               void *ctx)
{
    char words[512];

    (void)d;
    snprintf(words, sizeof words, "open character=%s id=%.*s chat=%s after=%s since=%llu/%d",
             req->character == NULL ? "" : req->character, (int)req->id_len, req->id == NULL ? "" : req->id,
             uuid_words(&req->chat), uuid_words(&req->after), (unsigned long long)req->since, req->has_since);
    return asked(v, ASK_OPEN, (void (*)(void))done, ctx, words);
}

bool desk_send(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const char *id, size_t id_len,
               const char *text, size_t len, const struct uuid *media, size_t media_n, desk_accepted_done *done,
               void *ctx)
{
    char words[512];
    struct waiting *w;

    (void)d;
    snprintf(words, sizeof words, "send chat=%s id=%.*s text=%.*s", uuid_words(chat), (int)id_len, id, (int)len, text);
    for (size_t i = 0; i < media_n; i++) {
        const size_t at = strlen(words);

        snprintf(words + at, sizeof words - at, " media=%s", uuid_words(&media[i]));
    }
    if (!asked(v, ASK_SEND, (void (*)(void))done, ctx, words))
        return false;
    for (w = first; w != NULL && w->next != NULL; w = w->next)
        continue;
    if (w != NULL && len > 6 && len < 20 && (memcmp(text, "flood ", 6) == 0 || memcmp(text, "trail ", 6) == 0)) {
        char number[16] = "";

        w->silent = text[0] == 't';
        memcpy(number, text + 6, len - 6);
        w->flood = (unsigned)strtoul(number, NULL, 10);
    }
    return true;
}

static bool ok(struct desk_viewer *v, const char *what, const struct uuid *turn, int32_t variant, desk_ok_done *done,
               void *ctx)
{
    char words[512];

    snprintf(words, sizeof words, "%s turn=%s variant=%d", what, uuid_words(turn), (int)variant);
    return asked(v, ASK_OK, (void (*)(void))done, ctx, words);
}

bool desk_stop(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx)
{
    (void)d;
    return ok(v, "stop", turn, -1, done, ctx);
}

bool desk_regenerate(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t expected,
                     desk_ok_done *done, void *ctx)
{
    (void)d;
    return ok(v, "regenerate", turn, expected, done, ctx);
}

bool desk_choose(struct desk *d, struct desk_viewer *v, const struct uuid *turn, int32_t variant, desk_ok_done *done,
                 void *ctx)
{
    (void)d;
    return ok(v, "choose", turn, variant, done, ctx);
}

bool desk_edit(struct desk *d, struct desk_viewer *v, const struct uuid *turn, const char *text, size_t len,
               desk_ok_done *done, void *ctx)
{
    char words[512];

    (void)d;
    snprintf(words, sizeof words, "edit turn=%s text=%.*s", uuid_words(turn), (int)len, text);
    return asked(v, ASK_OK, (void (*)(void))done, ctx, words);
}

bool desk_delete(struct desk *d, struct desk_viewer *v, const struct uuid *turn, desk_ok_done *done, void *ctx)
{
    (void)d;
    return ok(v, "delete", turn, -1, done, ctx);
}

bool desk_history(struct desk *d, struct desk_viewer *v, const struct uuid *chat, const struct uuid *before,
                  uint32_t limit, desk_turns_done *done, void *ctx)
{
    char words[512];

    (void)d;
    snprintf(words, sizeof words, "history chat=%s before=%s limit=%u", uuid_words(chat), uuid_words(before),
             (unsigned)limit);
    return asked(v, ASK_TURNS, (void (*)(void))done, ctx, words);
}

bool desk_chats(struct desk *d, struct desk_viewer *v, desk_chats_done *done, void *ctx)
{
    (void)d;
    return asked(v, ASK_CHATS, (void (*)(void))done, ctx, "chats");
}

bool desk_chat_delete(struct desk *d, struct desk_viewer *v, const struct uuid *chat, desk_ok_done *done, void *ctx)
{
    (void)d;
    return ok(v, "chat_delete", chat, -1, done, ctx);
}

bool desk_media_delete(struct desk *d, struct desk_viewer *v, const struct uuid *media, desk_ok_done *done, void *ctx)
{
    (void)d;
    return ok(v, "media_delete", media, -1, done, ctx);
}

void desk_media_stored(struct desk *d, const struct uuid *user)
{
    (void)d;
    (void)user;
}

bool desk_characters(struct desk *d, struct desk_viewer *v, desk_characters_done *done, void *ctx)
{
    (void)d;
    return asked(v, ASK_CHARACTERS, (void (*)(void))done, ctx, "characters");
}

bool desk_character(struct desk *d, struct desk_viewer *v, const char *id, desk_characters_done *done, void *ctx)
{
    char words[128];

    (void)d;
    snprintf(words, sizeof words, "character %s", id);
    return asked(v, ASK_CHARACTERS, (void (*)(void))done, ctx, words);
}

bool desk_avatar(struct desk *d, struct desk_viewer *v, const char *id, desk_avatar_done *done, void *ctx)
{
    char words[128];

    (void)d;
    snprintf(words, sizeof words, "avatar %s", id);
    return asked(v, ASK_AVATAR, (void (*)(void))done, ctx, words);
}

void desk_user_made(struct desk *d, const struct uuid *user)
{
    (void)d;
    (void)user;
}
