/*
 * front - a front door for the tests of role/chat: views that log what they are told as text, requests that are waited
 * for, and the words of the roles behind the desk.  Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_UNIT_ROLE_FRONT_H
#define TESTS_UNIT_ROLE_FRONT_H

#include "fixture.h"
#include "role/chat/desk.h"

/* A connection: what it was told, as text. */
struct view {
    struct desk_viewer v; /* first */
    char log[8192];
    bool second; /* at the second desk */
};

/* The answer to one request. */
struct answer {
    size_t calls;
    char code[24], field[24];
    struct uuid id; /* turn or chat */
    int32_t variant;
    size_t turns, variants; /* opened: turns, and the variants of the last one */
    char text[256];         /* of the last turn's last variant */
    uint64_t change;
    bool more, has_card;
    struct view *view; /* where "A" is logged when it comes */
};

static struct fixture fx;
static struct desk *desk, *second;
static struct view *views[8]; /* of this test: let go of by teardown where it failed */
static size_t views_n;
static struct uuid turn_names[512];
static size_t turn_names_n;

/* A small number for each turn, in the order of their first mention. */
FIXTURE static size_t turn_number(const struct uuid *turn)
{
    for (size_t i = 0; i < turn_names_n; i++)
        if (uuid_eq(&turn_names[i], turn))
            return i + 1;
    turn_names[turn_names_n++] = *turn;
    return turn_names_n;
}

static void __attribute__((format(printf, 2, 3))) note(struct desk_viewer *v, const char *fmt, ...)
{
    struct view *view = (struct view *)v;
    const size_t len = strlen(view->log);
    va_list args;

    va_start(args, fmt);
    vsnprintf(view->log + len, sizeof view->log - len, fmt, args);
    va_end(args);
}

FIXTURE static void on_event_turn(struct desk_viewer *v, const struct desk_turn *t)
{
    note(v, "turn%zu:%.*s ", turn_number(&t->turn), (int)t->len, t->text);
}

FIXTURE static void on_event_status(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn,
                                    enum turn_state state, uint32_t position)
{
    (void)chat, (void)position;
    note(v, "status%zu:%d ", turn_number(turn), (int)state);
}

FIXTURE static void on_event_delta(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn,
                                   int32_t variant, uint64_t attempt, uint64_t offset, const char *text, size_t len)
{
    (void)chat;
    note(v, "delta%zu.%d@%d+%d:%.*s ", turn_number(turn), (int)variant, (int)attempt, (int)offset, (int)len, text);
}

FIXTURE static void on_event_reply(struct desk_viewer *v, const struct desk_reply *r)
{
    note(v, "reply%zu.%d:%.*s ", turn_number(&r->turn), (int)r->variant, (int)r->len, r->text);
}

FIXTURE static void on_event_changed(struct desk_viewer *v, const struct desk_turn *t)
{
    note(v, "changed%zu:%.*s/%zu/%d ", turn_number(&t->turn), (int)t->len, t->text != NULL ? t->text : "",
         t->variants_n, (int)t->chosen);
}

FIXTURE static void on_event_deleted(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn)
{
    (void)chat;
    if (uuid_is_nil(turn))
        note(v, "gone ");
    else
        note(v, "deleted%zu ", turn_number(turn));
}

FIXTURE static void on_event_failed(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn,
                                    const char *code, const char *message)
{
    (void)chat, (void)message;
    note(v, "failed%zu:%s ", turn_number(turn), code);
}

static const struct desk_events events = {on_event_turn,    on_event_status,  on_event_delta, on_event_reply,
                                          on_event_changed, on_event_deleted, on_event_failed};

FIXTURE static void answer_error(struct answer *a, const struct desk_error *e)
{
    a->calls++;
    if (e == NULL)
        return;
    snprintf(a->code, sizeof a->code, "%s", e->code);
    snprintf(a->field, sizeof a->field, "%s", e->field != NULL ? e->field : "");
    assert_true(e->message[0] != '\0');
}

FIXTURE static void on_opened(void *ctx, const struct desk_error *e, const struct desk_opened *o)
{
    struct answer *a = ctx;

    answer_error(a, e);
    if (e != NULL)
        return;
    a->id = o->chat;
    a->turns = o->n;
    a->change = o->change;
    a->more = o->more;
    a->has_card = o->character->card != NULL;
    for (size_t i = 0; i < o->n; i++)
        turn_number(&o->turns[i].turn);
    if (o->n > 0) {
        const struct desk_turn *t = &o->turns[o->n - 1];

        a->variants = t->variants_n;
        if (t->variants_n > 0)
            snprintf(a->text, sizeof a->text, "%.*s", (int)t->variants[t->variants_n - 1].len,
                     t->variants[t->variants_n - 1].text);
    }
    if (a->view != NULL)
        note(&a->view->v, "opened ");
}

FIXTURE static void on_accepted_turn(void *ctx, const struct desk_error *e, const struct uuid *turn)
{
    struct answer *a = ctx;

    answer_error(a, e);
    if (e != NULL)
        return;
    a->id = *turn;
    if (a->view != NULL)
        note(&a->view->v, "accepted%zu ", turn_number(turn));
}

FIXTURE static void on_ok(void *ctx, const struct desk_error *e, int32_t variant)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->variant = variant;
    if (e == NULL && a->view != NULL)
        note(&a->view->v, "ok ");
}

FIXTURE static void on_turns_read(void *ctx, const struct desk_error *e, const struct desk_turn *turns, size_t n,
                                  bool more)
{
    struct answer *a = ctx;

    (void)turns;
    answer_error(a, e);
    a->turns = n;
    a->more = more;
}

FIXTURE static void on_chats_read(void *ctx, const struct desk_error *e, const struct desk_chat *chats, size_t n)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->turns = n;
    if (n > 0)
        snprintf(a->text, sizeof a->text, "%s", chats[0].name);
}

FIXTURE static void on_characters_read(void *ctx, const struct desk_error *e, const struct desk_character *list,
                                       size_t n)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->turns = n;
    if (n > 0)
        snprintf(a->text, sizeof a->text, "%s", list[0].name);
}

FIXTURE static void on_avatar_read(void *ctx, const struct desk_error *e, struct slice image, const char *type,
                                   uint64_t updated_ms)
{
    (void)image, (void)type, (void)updated_ms;
    answer_error(ctx, e);
}

FIXTURE static void on_desk_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    size_t *started = ctx;

    (void)err;
    assert_int_equal(rc, TR_OK);
    (*started)++;
}

FIXTURE static int setup(void **state)
{
    size_t started = 0;

    (void)state;
    setup_env(&fx);
    turn_names_n = 0;
    assert_int_equal(desk_start(&fx.env, &events, on_desk_started, &started, &desk, NULL), TR_OK);
    support_count(fx.loop, &started, 1);
    watch(&fx, TOPIC_INCOMING);
    watch(&fx, TOPIC_CONTROL);
    return 0;
}

FIXTURE static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < views_n; i++)
        desk_viewer_release(views[i]->second ? second : desk, &views[i]->v);
    views_n = 0;
    desk_free(second);
    desk_free(desk);
    desk = second = NULL;
    teardown_env(&fx);
    return 0;
}

FIXTURE static void view_init(struct view *w)
{
    memset(w, 0, sizeof *w);
    w->v.user = fx.user;
    assert_true(views_n < sizeof views / sizeof views[0]);
    views[views_n++] = w;
}

FIXTURE static void answered(struct answer *a)
{
    support_count(fx.loop, &a->calls, 1);
    support_for(fx.loop, 5);
    assert_int_equal(a->calls, 1);
}

FIXTURE static struct answer open_chat(struct view *w, const struct uuid *after)
{
    struct answer a = {.view = w};
    const struct desk_open_request req = {.chat = fx.chat, .after = after != NULL ? *after : uuid_nil};

    assert_true(desk_open(desk, &w->v, &req, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "");
    return a;
}

FIXTURE static struct answer send_text(struct view *w, const char *id, const char *text)
{
    struct answer a = {.view = w};

    assert_true(desk_send(desk, &w->v, &fx.chat, id, strlen(id), text, strlen(text), NULL, 0, on_accepted_turn, &a));
    answered(&a);
    return a;
}

/* What inference stores. */
FIXTURE static void store_reply(const struct uuid *turn, int32_t variant, const char *text, enum finish finish)
{
    struct buf sealed = {0};
    struct turn_row row = {.chat = fx.chat,
                           .turn = *turn,
                           .part = PART_FIRST_VARIANT + variant,
                           .speaker = SPEAKER_CHARACTER,
                           .user = fx.user,
                           .created_ms = wall_ms(),
                           .finish = finish,
                           .character = "ada",
                           .attempt = 7};

    if (finish == FINISH_ERROR)
        strcpy(row.code, "engine_failed");
    seal_row(&fx, &row, text, &sealed);
    append(&fx, &row);
    buf_release(&sealed);
}

FIXTURE static void tell(struct envelope *env, const char *text)
{
    const struct seal_bind bind = {.kind = env->kind == ENVELOPE_DELTA ? SEAL_DELTA : SEAL_QUEUE,
                                   .chat = env->chat,
                                   .turn = env->turn,
                                   .part = env->variant + PART_FIRST_VARIANT,
                                   .role = SPEAKER_CHARACTER};
    struct buf sealed = {0};

    if (text != NULL)
        assert_int_equal(seal_data(&fx.key, &bind, text, strlen(text), &sealed), TR_OK);
    env->sealed = (struct slice){sealed.data, sealed.len};
    publish(&fx, "gateway.test1", env, true);
    buf_release(&sealed);
}

/* Of the row that was stored last. */
FIXTURE static void tell_reply(const struct uuid *turn, const struct uuid *predecessor, int32_t variant,
                               const char *text)
{
    struct envelope env = {.kind = ENVELOPE_REPLY,
                           .chat = fx.chat,
                           .turn = *turn,
                           .predecessor = *predecessor,
                           .variant = variant,
                           .finish = FINISH_STOP,
                           .attempt = 7,
                           .change = fx.appended};

    tell(&env, text);
    support_for(fx.loop, 20);
}

FIXTURE static void tell_delta(const struct uuid *turn, int32_t variant, uint64_t attempt, uint64_t offset,
                               const char *text)
{
    struct envelope env = {.kind = ENVELOPE_DELTA,
                           .chat = fx.chat,
                           .turn = *turn,
                           .variant = variant,
                           .attempt = attempt,
                           .offset = offset};

    tell(&env, text);
    support_for(fx.loop, 20);
}

FIXTURE static void reply_to(const struct uuid *turn, const struct uuid *predecessor, const char *text)
{
    store_reply(turn, 0, text, FINISH_STOP);
    tell_reply(turn, predecessor, 0, text);
}

struct expected_log {
    const struct view *view;
    size_t len;
};

FIXTURE static bool is_logged(void *ctx)
{
    const struct expected_log *e = ctx;

    return strlen(e->view->log) >= e->len;
}

/* What the view was told since the last time, exactly: waited for, and then a moment more for what should not come. */
FIXTURE static void expect_log(struct view *w, const char *want)
{
    struct expected_log e = {w, strlen(want)};

    (void)support_until(fx.loop, is_logged, &e, SUPPORT_LIMIT_MS);
    support_for(fx.loop, 30);
    assert_string_equal(w->log, want);
    w->log[0] = '\0';
}

/* One change, waited for; `w` and `a` are the test's. */
#define CHANGE(call)                                                                                                   \
    do {                                                                                                               \
        a = (struct answer){.view = &w};                                                                               \
        assert_true(call);                                                                                             \
        answered(&a);                                                                                                  \
    } while (0)

#endif
