/* history_fixture - see history_fixture.h. */
#include "history_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const struct adapter *adapter;

struct store *store_new(const char *name)
{
    struct store *s = calloc(1, sizeof *s);

    assert_non_null(s);
    snprintf(s->name, sizeof s->name, "%s-%s.db", adapter->name, name);
    s->path = adapter->server == NULL ? support_path(s->name) : strdup(support_server(adapter->server));
    assert_non_null(s->path);
    store_open(s);
    return s;
}

void store_open(struct store *s)
{
    struct tr_err err = {0};

    assert_int_equal(loop_new(&s->loop, &err), TR_OK);
    if (adapter->open(s->loop, s->path, &s->h, &err) != TR_OK)
        fail_msg("%s", tr_err_text(&err));
    assert_string_equal(s->h->ops->scheme, adapter->name);
}

void store_close(struct store *s)
{
    if (s->h == NULL)
        return;
    s->h->ops->close(s->h);
    s->h = NULL;
    loop_free(s->loop);
    s->loop = NULL;
}

void store_free(struct store *s)
{
    store_close(s);
    free(s->path);
    free(s);
}

static bool init_called(void *ctx)
{
    return ((struct wait *)ctx)->calls > 0;
}

void store_init(void)
{
    struct store *s = store_new("init");
    struct wait w = {.loop = s->loop};

    /* tables on several nodes of a busy machine take longer than anything else */
    wait_started(&w, s->h->ops->init(s->h, wait_done, &w, &w.op, &w.err));
    if (w.rc != TR_OK || !support_until(s->loop, init_called, &w, 8ul * SUPPORT_LIMIT_MS) || w.rc != TR_OK)
        fail_msg("init: %s", tr_err_text(&w.err));
    store_free(s);
}

void answer_release(struct answer *a)
{
    for (size_t i = 0; a->rows != NULL && i < a->n; i++)
        free((void *)(uintptr_t)a->rows[i].sealed);
    free(a->rows);
    a->rows = NULL;
    a->n = 0;
}

static void copy_rows(struct answer *a, const struct turn_row *rows, size_t n)
{
    a->rows = calloc(n + 1, sizeof *rows);
    assert_non_null(a->rows);
    a->n = n;
    for (size_t i = 0; i < n; i++) {
        uint8_t *sealed = rows[i].sealed_len > 0 ? malloc(rows[i].sealed_len) : NULL;

        if (sealed != NULL)
            memcpy(sealed, rows[i].sealed, rows[i].sealed_len);
        a->rows[i] = rows[i];
        a->rows[i].sealed = sealed;
    }
}

void on_chat_answer(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->mine = mine;
    if (rc == TR_OK)
        a->chat = *chat;
}

static void on_chats_answer(void *ctx, enum tr_rc rc, const struct history_chat *chats, size_t n, bool more,
                            const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->more = more;
    a->n = n;
    assert_true(n <= sizeof a->chats / sizeof *a->chats);
    if (n > 0)
        memcpy(a->chats, chats, n * sizeof *chats);
}

void on_accept_answer(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    if (rc == TR_OK)
        a->accepted = *res;
}

void on_append_answer(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                      const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->mine = mine;
    a->change = change;
    a->has_standing = standing != NULL;
    if (standing != NULL)
        copy_rows(a, standing, 1);
}

void on_rows_answer(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->more = more;
    if (rc == TR_OK)
        copy_rows(a, rows, n);
}

static void on_key_answer(void *ctx, enum tr_rc rc, bool mine, struct slice wrapped, const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->mine = mine;
    a->wrapped_len = wrapped.len;
    if (rc == TR_OK)
        memcpy(a->wrapped, wrapped.data, wrapped.len);
}

/* Forget what it held; run one operation to its answer. */
#define RUN(a, call) (answer_release(a), *(a) = (struct answer){.w = {.loop = s->loop}}, wait_end(&(a)->w, call))
#define TAIL(a) (a), &(a)->w.op, &(a)->w.err

enum tr_rc do_create(struct store *s, const struct history_chat *chat, const uint8_t *client,
                     const struct turn_row *rows, size_t n, struct answer *ret)
{
    return RUN(ret, s->h->ops->chat_create(s->h, chat, client, rows, n, on_chat_answer, TAIL(ret)));
}

enum tr_rc do_chat_get(struct store *s, const struct uuid *chat, struct answer *ret)
{
    return RUN(ret, s->h->ops->chat_get(s->h, chat, on_chat_answer, TAIL(ret)));
}

enum tr_rc do_chats(struct store *s, const struct uuid *user, const struct uuid *before, uint32_t limit,
                    struct answer *ret)
{
    return RUN(ret, s->h->ops->chats_of_user(s->h, user, before, limit, on_chats_answer, TAIL(ret)));
}

enum tr_rc do_delete(struct store *s, const struct uuid *chat)
{
    struct wait w = {.loop = s->loop};

    return wait_end(&w, s->h->ops->chat_delete(s->h, chat, wait_done, &w, &w.op, &w.err));
}

enum tr_rc do_accept(struct store *s, const struct history_accept *a, struct answer *ret)
{
    return RUN(ret, s->h->ops->accept(s->h, a, on_accept_answer, TAIL(ret)));
}

enum tr_rc do_append(struct store *s, const struct turn_row *rows, size_t n, struct answer *ret)
{
    return RUN(ret, s->h->ops->append(s->h, rows, n, on_append_answer, TAIL(ret)));
}

enum tr_rc do_turn_get(struct store *s, const struct uuid *chat, const struct uuid *turn, struct answer *ret)
{
    return RUN(ret, s->h->ops->turn_get(s->h, chat, turn, on_rows_answer, TAIL(ret)));
}

enum tr_rc do_turns(struct store *s, const struct uuid *chat, const struct history_range *range, struct answer *ret)
{
    return RUN(ret, s->h->ops->turns(s->h, chat, range, on_rows_answer, TAIL(ret)));
}

enum tr_rc do_changed(struct store *s, const struct uuid *chat, uint64_t since, uint32_t limit, struct answer *ret)
{
    return RUN(ret, s->h->ops->changed(s->h, chat, since, limit, on_rows_answer, TAIL(ret)));
}

enum tr_rc do_key_put(struct store *s, enum seal_owner owner, const char *id, struct slice wrapped, struct answer *ret)
{
    return RUN(ret, s->h->ops->key_put(s->h, owner, id, wrapped, on_key_answer, TAIL(ret)));
}

enum tr_rc do_key_get(struct store *s, enum seal_owner owner, const char *id, struct answer *ret)
{
    return RUN(ret, s->h->ops->key_get(s->h, owner, id, on_key_answer, TAIL(ret)));
}

struct uuid an_id(uint64_t ms)
{
    uint8_t random[10];

    assert_int_equal(getrandom(random, sizeof random, 0), sizeof random);
    return uuid_v7(ms, random);
}

struct history_chat a_chat(struct uuid user, uint64_t ms)
{
    struct history_chat chat = {.chat = an_id(ms), .user = user, .created_ms = ms, .updated_ms = ms, .head = an_id(ms)};

    strcpy(chat.character, "ada-of-the-lake");
    return chat;
}

struct turn_row a_row(const struct history_chat *chat, struct uuid turn, int32_t part, const char *sealed)
{
    struct turn_row row = {
        .chat = chat->chat,
        .turn = turn,
        .part = part,
        .speaker = part == PART_USER ? SPEAKER_USER : SPEAKER_CHARACTER,
        .user = chat->user,
        .created_ms = T0 + 5,
        .sealed = (const uint8_t *)sealed,
        .sealed_len = strlen(sealed),
    };

    memcpy(row.character, chat->character, sizeof row.character);
    return row;
}

struct turn_row an_event(const struct history_chat *chat, struct uuid turn, int32_t rev, enum turn_event event,
                         int32_t variant)
{
    struct turn_row row = a_row(chat, turn, PART_STATE, "");

    row.sealed = NULL;
    row.rev = rev;
    row.event = event;
    row.variant = variant;
    return row;
}

struct history_accept an_accept(const struct history_chat *chat, uint64_t ms, const char *client, const char *sealed)
{
    struct history_accept a = {.head = chat->head};
    uint8_t random[10];

    assert_int_equal(getrandom(random, sizeof random, 0), sizeof random);
    a.row = a_row(chat, uuid_v7_after(&chat->head, ms, random), PART_USER, sealed);
    a.row.predecessor = chat->head;
    a.row.index = chat->index + 1;
    a.row.created_ms = ms;
    memcpy(a.client_hash, client, strnlen(client, sizeof a.client_hash));
    return a;
}

void make_chat(struct store *s, const struct history_chat *chat)
{
    const struct turn_row greeting[] = {a_row(chat, chat->head, PART_FIRST_VARIANT, "hello"),
                                        a_row(chat, chat->head, PART_FIRST_VARIANT + 1, "good day")};
    struct answer a = {0};

    assert_int_equal(do_create(s, chat, NULL, greeting, 2, &a), TR_OK);
    assert_true(a.mine);
}

struct uuid make_turn(struct store *s, struct history_chat *chat, uint64_t ms, const char *client)
{
    const struct history_accept a = an_accept(chat, ms, client, "words");
    struct answer got = {0};

    assert_int_equal(do_accept(s, &a, &got), TR_OK);
    assert_int_equal(got.accepted.outcome, ACCEPT_DONE);
    assert_true(uuid_eq(&got.accepted.turn, &a.row.turn));
    chat->head = got.accepted.head;
    chat->index = got.accepted.index;
    chat->change = got.accepted.change;
    return a.row.turn;
}

void assert_row_equal(const struct turn_row *got, const struct turn_row *want)
{
    assert_memory_equal(&got->chat, &want->chat, sizeof got->chat);
    assert_memory_equal(&got->turn, &want->turn, sizeof got->turn);
    assert_int_equal(got->part, want->part);
    assert_int_equal(got->rev, want->rev);
    assert_int_equal(got->speaker, want->speaker);
    assert_string_equal(got->character, want->character);
    assert_memory_equal(&got->user, &want->user, sizeof got->user);
    assert_int_equal(got->created_ms, want->created_ms);
    assert_memory_equal(&got->predecessor, &want->predecessor, sizeof got->predecessor);
    assert_int_equal(got->index, want->index);
    assert_string_equal(got->language, want->language);
    assert_int_equal(got->attempt, want->attempt);
    assert_int_equal(got->finish, want->finish);
    assert_string_equal(got->code, want->code);
    assert_int_equal(got->prompt_tokens, want->prompt_tokens);
    assert_int_equal(got->cached_tokens, want->cached_tokens);
    assert_int_equal(got->completion_tokens, want->completion_tokens);
    assert_int_equal(got->ttft_ms, want->ttft_ms);
    assert_int_equal(got->event, want->event);
    assert_int_equal(got->variant, want->variant);
    assert_int_equal(got->known, want->known);
    assert_int_equal(got->sealed_len, want->sealed_len);
    if (want->sealed_len > 0)
        assert_memory_equal(got->sealed, want->sealed, want->sealed_len);
}
