/* test_desk - role/chat over the real embedded adapters; the test plays the roles behind it and the front door. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"
#include "role/chat/desk.h"

#define ANSWERS_MAX 64

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
static struct uuid turn_names[64];
static size_t turn_names_n;

/* A small number for each turn, in the order of their first mention. */
static size_t turn_number(const struct uuid *turn)
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

static void on_event_turn(struct desk_viewer *v, const struct desk_turn *t)
{
    note(v, "turn%zu:%.*s ", turn_number(&t->turn), (int)t->len, t->text);
}

static void on_event_status(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn,
                            enum turn_state state, uint32_t position)
{
    (void)chat, (void)position;
    note(v, "status%zu:%d ", turn_number(turn), (int)state);
}

static void on_event_delta(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, int32_t variant,
                           uint64_t attempt, uint64_t offset, const char *text, size_t len)
{
    (void)chat;
    note(v, "delta%zu.%d@%d+%d:%.*s ", turn_number(turn), (int)variant, (int)attempt, (int)offset, (int)len, text);
}

static void on_event_reply(struct desk_viewer *v, const struct desk_reply *r)
{
    note(v, "reply%zu.%d:%.*s ", turn_number(&r->turn), (int)r->variant, (int)r->len, r->text);
}

static void on_event_changed(struct desk_viewer *v, const struct desk_turn *t)
{
    note(v, "changed%zu:%.*s/%zu/%d ", turn_number(&t->turn), (int)t->len, t->text != NULL ? t->text : "",
         t->variants_n, (int)t->chosen);
}

static void on_event_deleted(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn)
{
    (void)chat;
    if (uuid_is_nil(turn))
        note(v, "gone ");
    else
        note(v, "deleted%zu ", turn_number(turn));
}

static void on_event_failed(struct desk_viewer *v, const struct uuid *chat, const struct uuid *turn, const char *code,
                            const char *message)
{
    (void)chat, (void)message;
    note(v, "failed%zu:%s ", turn_number(turn), code);
}

static const struct desk_events events = {on_event_turn,    on_event_status,  on_event_delta, on_event_reply,
                                          on_event_changed, on_event_deleted, on_event_failed};

static void answer_error(struct answer *a, const struct desk_error *e)
{
    a->calls++;
    if (e == NULL)
        return;
    snprintf(a->code, sizeof a->code, "%s", e->code);
    snprintf(a->field, sizeof a->field, "%s", e->field != NULL ? e->field : "");
    assert_true(e->message[0] != '\0');
}

static void on_opened(void *ctx, const struct desk_error *e, const struct desk_opened *o)
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

static void on_accepted_turn(void *ctx, const struct desk_error *e, const struct uuid *turn)
{
    struct answer *a = ctx;

    answer_error(a, e);
    if (e != NULL)
        return;
    a->id = *turn;
    if (a->view != NULL)
        note(&a->view->v, "accepted%zu ", turn_number(turn));
}

static void on_ok(void *ctx, const struct desk_error *e, int32_t variant)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->variant = variant;
    if (e == NULL && a->view != NULL)
        note(&a->view->v, "ok ");
}

static void on_turns_read(void *ctx, const struct desk_error *e, const struct desk_turn *turns, size_t n, bool more)
{
    struct answer *a = ctx;

    (void)turns;
    answer_error(a, e);
    a->turns = n;
    a->more = more;
}

static void on_chats_read(void *ctx, const struct desk_error *e, const struct desk_chat *chats, size_t n)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->turns = n;
    if (n > 0)
        snprintf(a->text, sizeof a->text, "%s", chats[0].name);
}

static void on_characters_read(void *ctx, const struct desk_error *e, const struct desk_character *list, size_t n)
{
    struct answer *a = ctx;

    answer_error(a, e);
    a->turns = n;
    if (n > 0)
        snprintf(a->text, sizeof a->text, "%s", list[0].name);
}

static void on_avatar_read(void *ctx, const struct desk_error *e, struct slice image, const char *type,
                           uint64_t updated_ms)
{
    (void)image, (void)type, (void)updated_ms;
    answer_error(ctx, e);
}

static void on_desk_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    size_t *started = ctx;

    (void)err;
    assert_int_equal(rc, TR_OK);
    (*started)++;
}

static int setup(void **state)
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

static int teardown(void **state)
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

static void view_init(struct view *w)
{
    memset(w, 0, sizeof *w);
    w->v.user = fx.user;
    assert_true(views_n < sizeof views / sizeof views[0]);
    views[views_n++] = w;
}

static void answered(struct answer *a)
{
    support_count(fx.loop, &a->calls, 1);
    support_for(fx.loop, 5);
    assert_int_equal(a->calls, 1);
}

static struct answer open_chat(struct view *w, const struct uuid *after)
{
    struct answer a = {.view = w};
    const struct desk_open_request req = {.chat = fx.chat, .after = after != NULL ? *after : uuid_nil};

    assert_true(desk_open(desk, &w->v, &req, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "");
    return a;
}

static struct answer send_text(struct view *w, const char *id, const char *text)
{
    struct answer a = {.view = w};

    assert_true(desk_send(desk, &w->v, &fx.chat, id, strlen(id), text, strlen(text), on_accepted_turn, &a));
    answered(&a);
    return a;
}

/* What inference stores; the change of the row. */
static void store_reply(const struct uuid *turn, int32_t variant, const char *text, enum finish finish)
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

static void tell(struct envelope *env, const char *text)
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

static void tell_reply(const struct uuid *turn, const struct uuid *predecessor, int32_t variant, const char *text)
{
    struct envelope env = {.kind = ENVELOPE_REPLY,
                           .chat = fx.chat,
                           .turn = *turn,
                           .predecessor = *predecessor,
                           .variant = variant,
                           .finish = FINISH_STOP,
                           .attempt = 7,
                           .change = 1000000};

    tell(&env, text);
    support_for(fx.loop, 20);
}

static void tell_delta(const struct uuid *turn, int32_t variant, uint64_t attempt, uint64_t offset, const char *text)
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

static void reply_to(const struct uuid *turn, const struct uuid *predecessor, const char *text)
{
    store_reply(turn, 0, text, FINISH_STOP);
    tell_reply(turn, predecessor, 0, text);
}

static void expect_log(struct view *w, const char *want)
{
    support_for(fx.loop, 30);
    assert_string_equal(w->log, want);
    w->log[0] = '\0';
}

/* ---- the tests */

static void a_new_chat(void **state)
{
    static struct view w;
    struct answer a = {0}, again = {0}, unknown = {0}, bad = {0}, list = {0}, chars = {0}, one = {0}, none = {0};
    struct desk_open_request req = {.character = "ada", .id = "first", .id_len = 5};

    (void)state;
    view_init(&w);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "");
    assert_int_equal(a.turns, 1);
    assert_int_equal(a.variants, 1);
    assert_string_equal(a.text, "Hello.");
    assert_true(a.has_card);
    assert_true(desk_open(desk, &w.v, &req, on_opened, &again));
    answered(&again);
    assert_true(uuid_eq(&a.id, &again.id));
    assert_int_equal(again.turns, 1);

    req.character = "nobody";
    assert_true(desk_open(desk, &w.v, &req, on_opened, &unknown));
    answered(&unknown);
    assert_string_equal(unknown.code, "not_found");
    req.character = "No Slug";
    assert_true(desk_open(desk, &w.v, &req, on_opened, &bad));
    answered(&bad);
    assert_string_equal(bad.code, "bad_request");
    assert_string_equal(bad.field, "character");

    assert_true(desk_chats(desk, &w.v, on_chats_read, &list));
    answered(&list);
    assert_int_equal(list.turns, 2);
    assert_string_equal(list.text, "Ada");
    assert_true(desk_characters(desk, &w.v, on_characters_read, &chars));
    answered(&chars);
    assert_int_equal(chars.turns, 1);
    assert_true(desk_character(desk, &w.v, "ada", on_characters_read, &one));
    answered(&one);
    assert_string_equal(one.text, "Ada");
    assert_true(desk_avatar(desk, &w.v, "ada", on_avatar_read, &none));
    answered(&none);
    assert_string_equal(none.code, "not_found");
    desk_viewer_release(desk, &w.v);
}

static void accepted_then_answered(void **state)
{
    static struct view w, other;
    struct answer a;
    const struct seen *work;

    (void)state;
    view_init(&w);
    view_init(&other);
    a = open_chat(&w, NULL);
    assert_int_equal(a.turns, 1);
    open_chat(&other, NULL);
    a = send_text(&w, "one", "Hi there");
    work = await_seen(&fx, ENVELOPE_WORK, &a.id, 1);
    assert_true(uuid_eq(&work->env.predecessor, &fx.head));
    assert_int_equal(work->env.index, 1);
    assert_string_equal(work->env.character, "ada");
    assert_int_equal(strlen(work->env.trace), 16);
    tell_delta(&a.id, 0, 1, 0, "Good");
    reply_to(&a.id, &fx.head, "Good day");
    tell_reply(&a.id, &fx.head, 0, "Good day"); /* delivered twice */
    tell_delta(&a.id, 0, 1, 4, " day");         /* late */
    expect_log(&w, "opened accepted2 delta2.0@1+0:Good reply2.0:Good day ");
    expect_log(&other, "opened turn2:Hi there delta2.0@1+0:Good reply2.0:Good day ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* The work is done and told of before the broker's confirmation of the WORK comes back. */
static void on_eager(void *ctx, const struct queue_incoming *msg)
{
    const struct fixture *f = &fx;
    struct envelope env, reply = {.kind = ENVELOPE_REPLY, .finish = FINISH_STOP, .change = 1000000};
    struct seal_bind bind;
    struct buf sealed = {0}, body = {0};
    struct queue_message out = {.queue = "gateway.test1", .transient = true};

    (void)ctx;
    assert_int_equal(envelope_decode(msg->body.data, msg->body.len, &env, NULL), TR_OK);
    reply.chat = env.chat;
    reply.turn = env.turn;
    reply.predecessor = env.predecessor;
    bind = (struct seal_bind){
        .kind = SEAL_QUEUE, .chat = env.chat, .turn = env.turn, .part = 1, .role = SPEAKER_CHARACTER};
    assert_int_equal(seal_data(&f->key, &bind, "quick", 5, &sealed), TR_OK);
    reply.sealed = (struct slice){sealed.data, sealed.len};
    assert_int_equal(envelope_encode(&reply, &body), TR_OK);
    out.body = (struct slice){body.data, body.len};
    assert_int_equal(f->env.queue->ops->publish(f->env.queue, &out, NULL, NULL, NULL, NULL), TR_OK);
    buf_release(&sealed);
    buf_release(&body);
    f->env.queue->ops->ack(f->env.queue, msg->delivery);
}

static void accepted_comes_first(void **state)
{
    static struct view w;
    struct answer answers[10];
    char want[512] = "opened ";

    (void)state;
    fx.env.queue->ops->consumer_stop(fx.env.queue, fx.watches[0]);
    assert_int_equal(
        fx.env.queue->ops->consume(fx.env.queue, TOPIC_INCOMING, 0, on_eager, NULL, NULL, &fx.watches[0], NULL), TR_OK);
    view_init(&w);
    open_chat(&w, NULL);
    memset(answers, 0, sizeof answers);
    for (size_t i = 0; i < 10; i++) {
        char id[24];

        answers[i].view = &w;
        snprintf(id, sizeof id, "id%zu", i);
        assert_true(desk_send(desk, &w.v, &fx.chat, id, strlen(id), "text", 4, on_accepted_turn, &answers[i]));
        snprintf(want + strlen(want), sizeof want - strlen(want), "accepted%zu reply%zu.0:quick ", i + 2, i + 2);
    }
    for (size_t i = 0; i < 10; i++)
        answered(&answers[i]);
    expect_log(&w, want);
    desk_viewer_release(desk, &w.v);
}

static void deltas_are_mended(void **state)
{
    static struct view w;
    struct answer a;
    struct envelope env = {.kind = ENVELOPE_DELTA, .snapshot = true, .attempt = 1};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    tell_delta(&a.id, 0, 1, 0, "ab");
    tell_delta(&a.id, 0, 1, 4, "ef"); /* cd was lost */
    assert_non_null(await_seen(&fx, ENVELOPE_TEXT, &a.id, 1));
    env.chat = fx.chat;
    env.turn = a.id;
    tell(&env, "abcdefg");
    tell_delta(&a.id, 0, 1, 6, "gh"); /* overlaps */
    tell_delta(&a.id, 0, 2, 0, "new");
    tell_delta(&a.id, 0, 1, 8, "old");
    tell_delta(&a.id, 0, 2, 3, "er");
    expect_log(&w,
               "opened accepted2 delta2.0@1+0:ab delta2.0@1+2:cdefg delta2.0@1+7:h delta2.0@2+0:new delta2.0@2+3:er ");
    desk_viewer_release(desk, &w.v);
}

static void a_running_text_in_opened(void **state)
{
    static struct view w, other;
    struct answer a, o;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    tell_delta(&a.id, 0, 1, 0, "so far");
    o = open_chat(&other, NULL);
    assert_int_equal(o.turns, 2);
    assert_int_equal(o.variants, 1);
    assert_string_equal(o.text, "so far");
    tell_delta(&a.id, 0, 1, 6, ", so good");
    expect_log(&other, "opened delta2.0@1+6:, so good ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* While an open waits for a running text, the reply comes: it follows `opened`, once. */
static void a_reply_before_opened(void **state)
{
    static struct view w, other;
    struct answer a, o = {.view = &other};
    const struct desk_open_request req = {.chat = fx.chat};

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    assert_true(desk_open(desk, &other.v, &req, on_opened, &o));
    assert_non_null(await_seen(&fx, ENVELOPE_TEXT, &a.id, 1));
    reply_to(&a.id, &fx.head, "done");
    answered(&o);
    tell_reply(&a.id, &fx.head, 0, "done");
    expect_log(&other, "opened reply2.0:done ");
    expect_log(&w, "opened accepted2 reply2.0:done ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

/* A reply is stored but its notification is lost: the next one brings both, in order. */
static void a_lost_reply(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "two", "y");
    store_reply(&a.id, 0, "first", FINISH_STOP);
    reply_to(&b.id, &a.id, "second");
    expect_log(&w, "opened accepted2 accepted3 reply2.0:first reply3.0:second ");
    desk_viewer_release(desk, &w.v);
}

/* A turn that came in at another gateway, and whose TURN was lost: its first event brings it. */
static void a_turn_from_elsewhere(void **state)
{
    static struct view w;
    struct envelope work, turn = {.kind = ENVELOPE_TURN, .origin = "gateway.other"};
    struct uuid head = fx.head;
    struct answer a;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    accept(&fx, "from my phone", &work);
    tell_delta(&work.turn, 0, 1, 0, "so");
    expect_log(&w, "opened turn2:from my phone delta2.0@1+0:so ");
    reply_to(&work.turn, &head, "so it is");
    expect_log(&w, "reply2.0:so it is ");
    head = work.turn;
    accept(&fx, "again", &work);
    turn.chat = fx.chat;
    turn.turn = work.turn;
    turn.index = work.index;
    tell(&turn, NULL);
    expect_log(&w, "turn3:again ");
    store_reply(&work.turn, 0, "", FINISH_ERROR);
    desk_viewer_release(desk, &w.v);
    view_init(&w);
    a = open_chat(&w, &head);
    assert_int_equal(a.turns, 1);
    expect_log(&w, "opened ");
    a = send_text(&w, "new", "next"); /* the cached head was another one */
    assert_string_equal(a.code, "");
    desk_viewer_release(desk, &w.v);
}

static void the_same_id_again(void **state)
{
    static struct view w;
    struct answer a, b;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    b = send_text(&w, "one", "another text");
    assert_true(uuid_eq(&a.id, &b.id));
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, &a.id), 2); /* not settled: called to work again */
    assert_int_equal(await_seen(&fx, ENVELOPE_WORK, &a.id, 2)->env.sealed.len, 0);
    reply_to(&a.id, &fx.head, "done");
    b = send_text(&w, "one", "x");
    assert_true(uuid_eq(&a.id, &b.id));
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, &a.id), 2);
    expect_log(&w, "opened accepted2 accepted2 reply2.0:done accepted2 ");
    desk_viewer_release(desk, &w.v);
}

static void what_is_refused(void **state)
{
    static char huge[8002];
    static struct view w, stranger;
    struct answer a;
    const struct {
        const char *id, *text, *code, *field;
    } rows[] = {
        {"", "x", "bad_request", "id"},
        {"0123456789012345678901234567890123456789012345678901234567890123x", "x", "bad_request", "id"},
        {"a", "", "bad_request", "text"},
        {"a", " \n ", "bad_request", "text"},
        {"a", "\xe2\x80\x8b", "bad_request", "text"},
        {"a", "\xff", "bad_request", "text"},
        {"a", huge, "too_large", "text"},
    };

    (void)state;
    memset(huge, 'x', 8001);
    view_init(&w);
    open_chat(&w, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        a = send_text(&w, rows[i].id, rows[i].text);
        assert_string_equal(a.code, rows[i].code);
        assert_string_equal(a.field, rows[i].field);
    }
    huge[8000] = '\0';
    a = send_text(&w, "a", huge);
    assert_string_equal(a.code, "");
    view_init(&stranger);
    stranger.v.user = fresh_uuid();
    a = send_text(&stranger, "a", "x");
    assert_string_equal(a.code, "not_found");
    a = (struct answer){0};
    assert_true(desk_open(desk, &stranger.v, &(struct desk_open_request){.chat = fx.chat}, on_opened, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    assert_null(stranger.v.follows);
    a = (struct answer){0};
    assert_true(desk_history(desk, &stranger.v, &fx.chat, &uuid_nil, 10, on_turns_read, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    a = (struct answer){0};
    assert_true(desk_chat_delete(desk, &stranger.v, &fx.chat, on_ok, &a));
    answered(&a);
    assert_string_equal(a.code, "not_found");
    for (int i = 0; i < 30 && a.code[0] != 'r'; i++) {
        char id[24];

        snprintf(id, sizeof id, "r%d", i);
        a = send_text(&w, id, "x");
    }
    assert_string_equal(a.code, "rate_limited");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &stranger.v);
}

#define CHANGE(call)                                                                                                   \
    do {                                                                                                               \
        a = (struct answer){.view = &w};                                                                               \
        assert_true(call);                                                                                             \
        answered(&a);                                                                                                  \
    } while (0)

static void regenerating(void **state)
{
    static struct view w, other;
    struct answer a, t;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    t = send_text(&w, "one", "x");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, -1, on_ok, &a));
    assert_string_equal(a.code, "conflict"); /* the first one is under way */
    reply_to(&t.id, &fx.head, "one");
    CHANGE(desk_regenerate(desk, &w.v, &fx.head, -1, on_ok, &a));
    assert_string_equal(a.code, "bad_request");
    assert_string_equal(a.field, "turn");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 2, on_ok, &a));
    assert_string_equal(a.code, "conflict");
    expect_log(&other, "opened turn2:x reply2.0:one ");
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a));
    assert_string_equal(a.code, "");
    assert_int_equal(a.variant, 1);
    assert_int_equal(await_seen(&fx, ENVELOPE_WORK, &t.id, 2)->env.variant, 1);
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a)); /* the answer was lost */
    assert_int_equal(a.variant, 1);
    assert_non_null(await_seen(&fx, ENVELOPE_WORK, &t.id, 3));
    CHANGE(desk_regenerate(desk, &w.v, &t.id, -1, on_ok, &a));
    assert_string_equal(a.code, "conflict");
    tell_delta(&t.id, 1, 1, 0, "tw");
    store_reply(&t.id, 1, "two", FINISH_STOP);
    tell_reply(&t.id, &fx.head, 1, "two");
    tell_reply(&t.id, &fx.head, 1, "two");
    expect_log(&w, "opened accepted2 reply2.0:one ok ok delta2.1@1+0:tw reply2.1:two changed2:x/2/1 ");
    expect_log(&other, "changed2:x/2/0 delta2.1@1+0:tw reply2.1:two changed2:x/2/1 ");
    CHANGE(desk_choose(desk, &w.v, &t.id, 0, on_ok, &a));
    CHANGE(desk_choose(desk, &w.v, &t.id, 2, on_ok, &a));
    assert_string_equal(a.code, "bad_request");
    assert_string_equal(a.field, "variant");
    expect_log(&w, "ok ");
    expect_log(&other, "changed2:x/2/0 ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

static void changing(void **state)
{
    static struct view w, other;
    struct answer a, t, o;

    (void)state;
    view_init(&w);
    view_init(&other);
    open_chat(&w, NULL);
    open_chat(&other, NULL);
    t = send_text(&w, "one", "x");
    CHANGE(desk_stop(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    assert_non_null(await_seen(&fx, ENVELOPE_STOP, &t.id, 1));
    reply_to(&t.id, &fx.head, "");
    CHANGE(desk_stop(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    CHANGE(desk_edit(desk, &w.v, &t.id, "  ", 2, on_ok, &a));
    assert_string_equal(a.field, "text");
    CHANGE(desk_edit(desk, &w.v, &fx.head, "y", 1, on_ok, &a));
    assert_string_equal(a.field, "turn");
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    CHANGE(desk_edit(desk, &w.v, &t.id, "z", 1, on_ok, &a));
    expect_log(&other, "opened turn2:x reply2.0: changed2:y/1/0 changed2:z/1/0 ");
    o = open_chat(&w, NULL);
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "not_found");
    expect_log(&other, "deleted2 ");
    expect_log(&w, "opened accepted2 ok reply2.0: ok ok ok opened ok ");
    a = (struct answer){.view = &w};
    assert_true(desk_open(
        desk, &w.v, &(struct desk_open_request){.chat = fx.chat, .after = t.id, .since = o.change, .has_since = true},
        on_opened, &a));
    answered(&a);
    assert_int_equal(a.turns, 0);
    expect_log(&w, "opened deleted2 ");
    CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
    expect_log(&w, "ok gone ");
    expect_log(&other, "gone ");
    assert_null(w.v.follows);
    a = send_text(&w, "late", "x");
    assert_string_equal(a.code, "not_found");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(desk, &other.v);
}

static void resuming(void **state)
{
    static struct view w;
    struct answer a, first, o;
    struct envelope work;
    struct uuid ids[60], before = fx.head;

    (void)state;
    view_init(&w);
    for (size_t i = 0; i < 60; i++) {
        accept(&fx, "m", &work);
        ids[i] = work.turn;
        store_reply(&work.turn, 0, "r", FINISH_STOP);
    }
    o = open_chat(&w, NULL);
    assert_int_equal(o.turns, 50);
    assert_false(o.more);
    first = open_chat(&w, &before);
    assert_int_equal(first.turns, 50);
    assert_true(first.more);
    first = open_chat(&w, &ids[49]);
    assert_int_equal(first.turns, 10);
    assert_false(first.more);
    a = (struct answer){0};
    assert_true(desk_history(desk, &w.v, &fx.chat, &ids[30], 200, on_turns_read, &a));
    answered(&a);
    assert_int_equal(a.turns, 31); /* and the greeting */
    w.log[0] = '\0';
    CHANGE(desk_edit(desk, &w.v, &ids[3], "edited", 6, on_ok, &a));
    CHANGE(desk_edit(desk, &w.v, &ids[59], "edited", 6, on_ok, &a));
    w.log[0] = '\0';
    turn_names_n = 0;
    a = (struct answer){.view = &w};
    assert_true(
        desk_open(desk, &w.v,
                  &(struct desk_open_request){.chat = fx.chat, .after = ids[58], .since = o.change, .has_since = true},
                  on_opened, &a));
    answered(&a);
    assert_int_equal(a.turns, 1);
    expect_log(&w, "opened changed2:edited/1/0 ");
    desk_viewer_release(desk, &w.v);
}

static void an_error_is_told_once(void **state)
{
    static struct view w;
    struct answer a;
    struct envelope env = {.kind = ENVELOPE_REPLY, .finish = FINISH_ERROR, .code = "engine_failed", .change = 99};

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    a = send_text(&w, "one", "x");
    store_reply(&a.id, 0, "", FINISH_ERROR);
    env.chat = fx.chat;
    env.turn = a.id;
    env.predecessor = fx.head;
    tell(&env, "");
    tell(&env, "");
    expect_log(&w, "opened accepted2 failed2:engine_failed ");
    desk_viewer_release(desk, &w.v);
}

static void leaving_in_the_middle(void **state)
{
    struct answer ignored[8];
    static struct view w;

    (void)state;
    memset(ignored, 0, sizeof ignored);
    for (int i = 0; i < 6; i++) {
        views_n = 0;
        view_init(&w);
        assert_true(desk_open(desk, &w.v, &(struct desk_open_request){.chat = fx.chat}, on_opened, &ignored[0]));
        assert_true(desk_open(desk, &w.v, &(struct desk_open_request){.character = "ada"}, on_opened, &ignored[1]));
        assert_true(desk_send(desk, &w.v, &fx.chat, "a", 1, "x", 1, on_accepted_turn, &ignored[2]));
        assert_true(desk_send(desk, &w.v, &fx.chat, "b", 1, "x", 1, on_accepted_turn, &ignored[3]));
        assert_true(desk_chats(desk, &w.v, on_chats_read, &ignored[4]));
        assert_true(desk_history(desk, &w.v, &fx.chat, &uuid_nil, 5, on_turns_read, &ignored[5]));
        support_for(fx.loop, (uint64_t)i);
        memset(ignored, 0, sizeof ignored);
        desk_viewer_release(desk, &w.v);
        if (i == 5)
            break;
        support_for(fx.loop, 5);
        for (size_t k = 0; k < 8; k++)
            assert_int_equal(ignored[k].calls, 0);
    }
    /* teardown frees the desk with all that under way */
}

/* A history whose writes land while their answers are lost, and a registry that is down. */
struct flaky {
    struct history history; /* first */
    struct history *real;
    history_accept_done *accept_done;
    history_append_done *append_done;
    void *ctx;
    size_t lost, calls;
};
static struct flaky flaky;

static void on_flaky_accept(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    (void)ctx;
    if (flaky.lost > 0) {
        flaky.lost--;
        flaky.accept_done(flaky.ctx, TR_UNCERTAIN, NULL, err);
    } else {
        flaky.accept_done(flaky.ctx, rc, res, err);
    }
}

static enum tr_rc flaky_accept(struct history *h, const struct history_accept *a, history_accept_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    flaky.calls++;
    flaky.accept_done = done;
    flaky.ctx = ctx;
    return flaky.real->ops->accept(flaky.real, a, on_flaky_accept, NULL, ret_op, err);
}

static void on_flaky_append(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                            const struct tr_err *err)
{
    (void)ctx;
    if (flaky.lost > 0) {
        flaky.lost--;
        flaky.append_done(flaky.ctx, TR_UNCERTAIN, false, 0, NULL, err);
    } else {
        flaky.append_done(flaky.ctx, rc, mine, change, standing, err);
    }
}

static enum tr_rc flaky_append(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done,
                               void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    flaky.calls++;
    flaky.append_done = done;
    flaky.ctx = ctx;
    return flaky.real->ops->append(flaky.real, rows, n, on_flaky_append, NULL, ret_op, err);
}

static enum tr_rc flaky_turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn,
                                 history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->turn_get(flaky.real, chat, turn, done, ctx, ret_op, err);
}

static enum tr_rc flaky_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->turns(flaky.real, chat, range, done, ctx, ret_op, err);
}

static enum tr_rc flaky_chat_get(struct history *h, const struct uuid *chat, history_chat_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    (void)h;
    return flaky.real->ops->chat_get(flaky.real, chat, done, ctx, ret_op, err);
}

static enum tr_rc down_rate(struct registry *r, const char *key, uint32_t per_minute, registry_rate_done *done,
                            void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    (void)r, (void)key, (void)per_minute, (void)done, (void)ctx, (void)ret_op;
    return tr_fail(err, TR_TRANSIENT, "down");
}

/* setup(), with the flaky ones in front. */
static int setup_flaky(void **state)
{
    static const struct history_ops ops = {.accept = flaky_accept,
                                           .append = flaky_append,
                                           .turn_get = flaky_turn_get,
                                           .turns = flaky_turns,
                                           .chat_get = flaky_chat_get};
    static struct registry_ops registry_ops;
    size_t started = 0;

    (void)state;
    setup_env(&fx);
    turn_names_n = 0;
    flaky = (struct flaky){.history = {.ops = &ops}, .real = fx.env.history};
    registry_ops = *fx.env.registry->ops;
    registry_ops.rate_take = down_rate;
    fx.env.history = &flaky.history;
    fx.env.registry->ops = &registry_ops;
    assert_int_equal(desk_start(&fx.env, &events, on_desk_started, &started, &desk, NULL), TR_OK);
    fx.env.history = flaky.real;
    support_count(fx.loop, &started, 1);
    watch(&fx, TOPIC_INCOMING);
    watch(&fx, TOPIC_CONTROL);
    return 0;
}

static void lost_answers(void **state)
{
    static struct view w;
    struct answer a, t;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    flaky.lost = 3;
    t = send_text(&w, "one", "x");
    assert_string_equal(t.code, "");
    assert_int_equal(flaky.calls, 4);
    assert_int_equal(count_seen(&fx, ENVELOPE_WORK, NULL), 1);
    reply_to(&t.id, &fx.head, "r");
    flaky.lost = 2;
    CHANGE(desk_regenerate(desk, &w.v, &t.id, 1, on_ok, &a));
    assert_int_equal(a.variant, 1);
    flaky.lost = 1;
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    assert_string_equal(a.code, "");
    flaky.lost = 1;
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    assert_string_equal(a.code, "");
    flaky.lost = 1;
    t = send_text(&w, "two", "x");
    assert_string_equal(t.code, "");
    expect_log(&w, "opened accepted2 reply2.0:r ok ok ok accepted3 ");
    desk_viewer_release(desk, &w.v);
}

/* Two gateways: what one publishes to [notify] the test brings to both, as the notifier does. */
static void on_notify(void *ctx, const struct queue_incoming *msg)
{
    static const char *const gateways[] = {"gateway.test1", "gateway.test2"};
    struct queue *q = fx.env.queue;

    (void)ctx;
    for (size_t i = 0; i < 2; i++) {
        const struct queue_message out = {.queue = gateways[i], .body = msg->body, .transient = true};

        assert_int_equal(q->ops->publish(q, &out, NULL, NULL, NULL, NULL), TR_OK);
    }
    if (msg->delivery != NULL)
        q->ops->ack(q, msg->delivery);
}

static int setup_two(void **state)
{
    struct role_env env;
    size_t started = 0;

    setup(state);
    env = fx.env;
    env.instance = "test2";
    assert_int_equal(desk_start(&env, &events, on_desk_started, &started, &second, NULL), TR_OK);
    support_count(fx.loop, &started, 1);
    for (unsigned i = 0; i < NOTIFY_PARTITIONS; i++)
        assert_int_equal(fx.env.queue->ops->consume(fx.env.queue, topic_notify_number(i), 0, on_notify, NULL, NULL,
                                                    &fx.watches[fx.watches_n++], NULL),
                         TR_OK);
    support_for(fx.loop, 2500); /* they know of each other */
    return 0;
}

static void two_gateways(void **state)
{
    static struct view w, other;
    struct answer a = {0}, t;
    struct desk *first = desk;

    (void)state;
    view_init(&w);
    view_init(&other);
    other.second = true;
    open_chat(&w, NULL);
    desk = second;
    open_chat(&other, NULL);
    desk = first;
    t = send_text(&w, "one", "x");
    expect_log(&w, "opened accepted2 ");
    expect_log(&other, "opened turn2:x ");
    store_reply(&t.id, 0, "r", FINISH_STOP);
    CHANGE(desk_edit(desk, &w.v, &t.id, "y", 1, on_ok, &a));
    expect_log(&w, "ok ");
    expect_log(&other, "changed2:y/1/0 ");
    desk = second;
    t = send_text(&other, "two", "z");
    desk = first;
    expect_log(&w, "reply2.0:r turn3:z "); /* the first one's reply was never told: found on the way */
    expect_log(&other, "accepted3 ");
    t = send_text(&w, "three", "3"); /* the head is known from the other's TURN */
    assert_string_equal(t.code, "");
    CHANGE(desk_delete(desk, &w.v, &t.id, on_ok, &a));
    expect_log(&w, "accepted4 ok ");
    expect_log(&other, "reply2.0:r turn4:3 deleted4 ");
    CHANGE(desk_chat_delete(desk, &w.v, &fx.chat, on_ok, &a));
    expect_log(&w, "ok gone ");
    expect_log(&other, "gone ");
    desk_viewer_release(desk, &w.v);
    desk_viewer_release(second, &other.v);
}

static int setup_small(void **state)
{
    int rc;

    setenv("TROUPE_QUEUE_MAX", "3", 1);
    rc = setup(state);
    unsetenv("TROUPE_QUEUE_MAX");
    return rc;
}

static void no_room(void **state)
{
    static struct view w;
    struct answer a;
    size_t accepted = 0;

    (void)state;
    fx.hold = true; /* nothing is settled */
    view_init(&w);
    open_chat(&w, NULL);
    for (int i = 0; i < 5; i++) {
        char id[24];

        snprintf(id, sizeof id, "%d", i);
        a = send_text(&w, id, "x");
        accepted += a.code[0] == '\0';
    }
    assert_int_equal(accepted, 3);
    assert_string_equal(a.code, "overloaded");
    support_for(fx.loop, 1000); /* the lengths say the same */
    a = send_text(&w, "5", "x");
    assert_string_equal(a.code, "overloaded");
    assert_false(desk_ready(desk));
    desk_viewer_release(desk, &w.v);
}

static void on_drained(void *ctx)
{
    (*(size_t *)ctx)++;
}

static void draining(void **state)
{
    static struct view w;
    struct answer a = {.view = &w}, late;
    size_t drained = 0;

    (void)state;
    view_init(&w);
    open_chat(&w, NULL);
    assert_true(desk_ready(desk));
    assert_true(desk_send(desk, &w.v, &fx.chat, "a", 1, "x", 1, on_accepted_turn, &a));
    support_for(fx.loop, 1);
    desk_drain(desk, on_drained, &drained);
    assert_false(desk_ready(desk));
    late = send_text(&w, "b", "x");
    assert_string_equal(late.code, "overloaded");
    support_count(fx.loop, &drained, 1);
    assert_int_equal(a.calls, 1);
    assert_string_equal(a.code, "");
    desk_viewer_release(desk, &w.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_chat, setup, teardown),
        cmocka_unit_test_setup_teardown(accepted_then_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(accepted_comes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(deltas_are_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_running_text_in_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reply_before_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(a_turn_from_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_id_again, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(regenerating, setup, teardown),
        cmocka_unit_test_setup_teardown(changing, setup, teardown),
        cmocka_unit_test_setup_teardown(resuming, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(leaving_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_answers, setup_flaky, teardown),
        cmocka_unit_test_setup_teardown(two_gateways, setup_two, teardown),
        cmocka_unit_test_setup_teardown(no_room, setup_small, teardown),
        cmocka_unit_test_setup_teardown(draining, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
