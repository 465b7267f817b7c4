/*
 * history - the contract suite of port/history.h, run on every adapter of the table below.
 * Here: what the operations do.  Many at once: history_race.c.  Where things break: history_fault.c.
 */
#ifdef TROUPE_WITH_CASSANDRA
#include "adapter/cassandra/history.h"
#endif
#include "adapter/sqlite/history.h"
#include "history_fault.h"
#include "history_fixture.h"
#include "history_race.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct adapter adapters[] = {
    {"sqlite", NULL, sqlite_history_open},
#ifdef TROUPE_WITH_CASSANDRA
    {"cassandra", "TROUPE_TEST_CASSANDRA", cassandra_history_open},
#endif
};

static void assert_chat_equal(const struct history_chat *got, const struct history_chat *want)
{
    assert_true(uuid_eq(&got->chat, &want->chat));
    assert_true(uuid_eq(&got->user, &want->user));
    assert_string_equal(got->character, want->character);
    assert_int_equal(got->created_ms, want->created_ms);
    assert_true(uuid_eq(&got->head, &want->head));
    assert_int_equal(got->index, want->index);
}

static void test_chat_create(void **state)
{
    const uint8_t hash[16] = "a client's hash";
    struct store *s = store_new("create");
    const struct history_chat chat = a_chat(an_id(T0), T0), twin = a_chat(chat.user, T0 + 1),
                              other = a_chat(an_id(T0), T0);
    const struct turn_row greeting[] = {a_row(&chat, chat.head, 1, "hello"), a_row(&chat, chat.head, 2, "good day")};
    const struct turn_row stray = a_row(&chat, an_id(T0), 1, "elsewhere");
    struct answer a = {0};

    (void)state;
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_NOT_FOUND);
    assert_int_equal(do_create(s, &chat, hash, &stray, 1, &a), TR_INVALID);
    assert_int_equal(do_create(s, &chat, hash, greeting, 2, &a), TR_OK);
    assert_true(a.mine);
    assert_chat_equal(&a.chat, &chat);
    assert_true(a.chat.change > 0);
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
    assert_chat_equal(&a.chat, &chat);
    assert_int_equal(a.chat.updated_ms, chat.updated_ms);

    assert_int_equal(do_create(s, &chat, hash, greeting, 2, &a), TR_OK); /* the same again */
    assert_true(a.mine);
    assert_int_equal(do_create(s, &twin, hash, NULL, 0, &a), TR_OK); /* another one under the same client id */
    assert_false(a.mine);
    assert_chat_equal(&a.chat, &chat);
    assert_int_equal(do_chat_get(s, &twin.chat, &a), TR_NOT_FOUND);
    assert_int_equal(do_create(s, &other, hash, NULL, 0, &a), TR_OK); /* another user's client id is another's */
    assert_true(a.mine);
    assert_int_equal(do_create(s, &twin, NULL, NULL, 0, &a), TR_OK);
    assert_true(a.mine);
    assert_int_equal(do_turns(s, &twin.chat, &(struct history_range){0}, &a), TR_OK);
    assert_int_equal(a.n, 0);

    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
    assert_int_equal(a.n, 2);
    assert_row_equal(&a.rows[0], &greeting[0]);
    assert_row_equal(&a.rows[1], &greeting[1]);
    answer_release(&a);
    store_free(s);
}

static void test_chats_of_user(void **state)
{
    struct store *s = store_new("chats");
    const struct uuid user = an_id(T0);
    struct history_chat chats[10];
    struct answer a = {0};

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        chats[i] = a_chat(i == 5 ? an_id(T0) : user, T0 + i);
        make_chat(s, &chats[i]);
    }
    assert_int_equal(do_chats(s, &user, NULL, 4, &a), TR_OK);
    assert_int_equal(a.n, 4);
    assert_true(a.more);
    for (unsigned i = 0; i < 4; i++)
        assert_chat_equal(&a.chats[i], &chats[9 - i]);
    assert_int_equal(do_chats(s, &user, &chats[6].chat, 5, &a), TR_OK);
    assert_int_equal(a.n, 5);
    assert_false(a.more);
    assert_chat_equal(&a.chats[0], &chats[4]);
    assert_chat_equal(&a.chats[4], &chats[0]);
    assert_int_equal(do_chats(s, &chats[5].user, &uuid_nil, 10, &a), TR_OK);
    assert_int_equal(a.n, 1);
    assert_int_equal(do_chats(s, &chats[0].chat, NULL, 10, &a), TR_OK);
    assert_int_equal(a.n, 0);
    store_free(s);
}

static void test_accept(void **state)
{
    struct store *s = store_new("accept");
    struct history_chat chat = a_chat(an_id(T0), T0), before = chat;
    struct history_accept first, second, stale, again, strange;
    struct answer a = {0};

    (void)state;
    strange = an_accept(&chat, T0 + 10, "client-1", "one");
    assert_int_equal(do_accept(s, &strange, &a), TR_NOT_FOUND);
    make_chat(s, &chat);
    first = an_accept(&chat, T0 + 10, "client-1", "one");
    assert_int_equal(do_accept(s, &first, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_DONE);
    assert_true(uuid_eq(&a.accepted.head, &first.row.turn));
    assert_int_equal(a.accepted.index, 1);
    assert_int_equal(a.accepted.change, 2);
    chat.head = first.row.turn;
    chat.index = 1;

    assert_int_equal(do_accept(s, &first, &a), TR_OK); /* the same write again */
    assert_int_equal(a.accepted.outcome, ACCEPT_KNOWN);
    assert_true(uuid_eq(&a.accepted.turn, &first.row.turn));
    again = an_accept(&chat, T0 + 20, "client-1", "other words under the same id");
    assert_int_equal(do_accept(s, &again, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_KNOWN);
    assert_true(uuid_eq(&a.accepted.turn, &first.row.turn));

    stale = an_accept(&before, T0 + 30, "client-2", "two");
    assert_int_equal(do_accept(s, &stale, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_MOVED);
    assert_true(uuid_eq(&a.accepted.head, &first.row.turn));
    assert_int_equal(a.accepted.index, 1);
    assert_int_equal(do_turn_get(s, &chat.chat, &stale.row.turn, &a), TR_NOT_FOUND);
    second = an_accept(&chat, T0 + 30, "client-2", "two"); /* it is not remembered as known */
    assert_int_equal(do_accept(s, &second, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_DONE);
    assert_int_equal(a.accepted.change, 3);

    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
    assert_true(uuid_eq(&a.chat.head, &second.row.turn));
    assert_int_equal(a.chat.index, 2);
    assert_int_equal(a.chat.change, 3);
    assert_int_equal(a.chat.updated_ms, T0 + 30);
    assert_int_equal(do_turn_get(s, &chat.chat, &first.row.turn, &a), TR_OK);
    assert_int_equal(a.n, 1);
    assert_row_equal(&a.rows[0], &first.row);
    assert_int_equal(a.rows[0].change, 2);

    strange.row.part = PART_FIRST_VARIANT;
    assert_int_equal(do_accept(s, &strange, &a), TR_INVALID);
    second.row.turn = chat.head; /* not after the head */
    assert_int_equal(do_accept(s, &second, &a), TR_INVALID);
    answer_release(&a);
    store_free(s);
}

/* Upon HISTORY_NO_HEAD it is a question: has this client id a turn?  Nothing is written, whatever the answer. */
static void test_ask(void **state)
{
    struct store *s = store_new("ask");
    struct history_chat chat = a_chat(an_id(T0), T0);
    const struct history_accept first = an_accept(&chat, T0 + 10, "client-1", "one");
    struct history_accept known, unknown;
    struct answer a = {0};

    (void)state;
    unknown = an_accept(&chat, T0 + 20, "client-2", "?");
    unknown.head = HISTORY_NO_HEAD;
    assert_int_equal(do_accept(s, &unknown, &a), TR_NOT_FOUND); /* no such chat */
    make_chat(s, &chat);
    assert_int_equal(do_accept(s, &first, &a), TR_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(do_accept(s, &unknown, &a), TR_OK);
        assert_int_equal(a.accepted.outcome, ACCEPT_MOVED);
        assert_int_equal(do_turn_get(s, &chat.chat, &unknown.row.turn, &a), TR_NOT_FOUND);
    }
    known = an_accept(&chat, T0 + 30, "client-1", "?");
    known.head = HISTORY_NO_HEAD;
    assert_int_equal(do_accept(s, &known, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_KNOWN);
    assert_true(uuid_eq(&a.accepted.turn, &first.row.turn));
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
    assert_true(uuid_eq(&a.chat.head, &first.row.turn));
    assert_int_equal(a.chat.index, 1);
    assert_int_equal(a.chat.change, 2);
    chat.head = first.row.turn;
    chat.index = 1;
    unknown = an_accept(&chat, T0 + 40, "client-2", "two"); /* the question did not claim the id */
    assert_int_equal(do_accept(s, &unknown, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_DONE);
    answer_release(&a);
    store_free(s);
}

static void fill_row(struct turn_row *row)
{
    strcpy(row->language, "de-CH");
    strcpy(row->code, "engine_failed");
    row->attempt = UINT64_MAX - 5;
    row->finish = FINISH_ERROR;
    row->prompt_tokens = 4000000000;
    row->cached_tokens = 2;
    row->completion_tokens = 3;
    row->ttft_ms = 4;
    row->index = 5;
    row->predecessor = an_id(T0);
    row->created_ms = 99999999999999;
    row->known = 7;
    row->variant = -2;
}

/* What goes in comes out, field by field, over a restart, for every kind of part. */
static void test_round_trip(void **state)
{
    struct store *s = store_new("round-trip");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct turn_row notes, event, edit, reply;
    uint8_t *large = malloc(100000);
    struct answer a = {0};

    (void)state;
    assert_non_null(large);
    for (size_t i = 0; i < 100000; i++)
        large[i] = (uint8_t)(i * 31);
    make_chat(s, &chat);
    make_turn(s, &chat, T0 + 10, "client-1");
    notes = a_row(&chat, chat.head, PART_NOTES, "notes");
    event = an_event(&chat, chat.head, 0, TURN_EVENT_CHOOSE, 1);
    edit = a_row(&chat, chat.head, PART_USER, "edited");
    edit.rev = 1;
    reply = a_row(&chat, chat.head, PART_FIRST_VARIANT, "");
    fill_row(&reply);
    memset(reply.character, 'c', CHARACTER_ID_MAX);
    reply.sealed = large;
    reply.sealed_len = 100000;
    assert_int_equal(do_append(s, &reply, 1, &a), TR_OK);
    assert_int_equal(do_append(s, &event, 1, &a), TR_OK);
    assert_int_equal(do_append(s, &edit, 1, &a), TR_OK);
    assert_int_equal(do_append(s, &notes, 1, &a), TR_OK);
    store_close(s);
    store_open(s);
    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
    assert_int_equal(a.n, 5);
    assert_row_equal(&a.rows[0], &notes);
    assert_row_equal(&a.rows[1], &event);
    assert_int_equal(a.rows[2].rev, 0);
    assert_row_equal(&a.rows[3], &edit);
    assert_row_equal(&a.rows[4], &reply);
    assert_int_equal(a.rows[4].change, 3);
    assert_int_equal(a.rows[0].change, 6);
    answer_release(&a);
    free(large);
    store_free(s);
}

static void test_append_first_wins(void **state)
{
    struct store *s = store_new("append");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct turn_row mine, theirs, stray, event, edit;
    struct answer a = {0};

    (void)state;
    make_chat(s, &chat);
    make_turn(s, &chat, T0 + 10, "client-1");
    mine = a_row(&chat, chat.head, PART_FIRST_VARIANT, "mine");
    mine.attempt = 7;
    theirs = a_row(&chat, chat.head, PART_FIRST_VARIANT, "theirs");
    theirs.attempt = 8;
    assert_int_equal(do_append(s, &mine, 1, &a), TR_OK);
    assert_true(a.mine);
    assert_int_equal(a.change, 3);
    assert_int_equal(do_append(s, &mine, 1, &a), TR_OK); /* issued again */
    assert_true(a.mine);
    assert_int_equal(a.change, 3);
    assert_int_equal(do_append(s, &theirs, 1, &a), TR_OK);
    assert_false(a.mine);
    assert_true(a.has_standing);
    assert_row_equal(&a.rows[0], &mine);
    assert_int_equal(a.rows[0].change, 3);

    event = an_event(&chat, chat.head, 0, TURN_EVENT_STOP, 0);
    assert_int_equal(do_append(s, &event, 1, &a), TR_OK);
    assert_true(a.mine);
    event.created_ms++; /* the same said by somebody else counts as said */
    assert_int_equal(do_append(s, &event, 1, &a), TR_OK);
    assert_true(a.mine);
    event.event = TURN_EVENT_CHOOSE;
    assert_int_equal(do_append(s, &event, 1, &a), TR_OK);
    assert_false(a.mine);
    assert_int_equal(a.rows[0].event, TURN_EVENT_STOP);
    edit = a_row(&chat, chat.head, PART_USER, "edited");
    edit.rev = 1;
    assert_int_equal(do_append(s, &edit, 1, &a), TR_OK);
    assert_int_equal(do_append(s, &edit, 1, &a), TR_OK);
    assert_true(a.mine);
    edit.sealed = (const uint8_t *)"EDITED";
    assert_int_equal(do_append(s, &edit, 1, &a), TR_OK);
    assert_false(a.mine);

    stray = a_row(&chat, an_id(T0 + 10), PART_FIRST_VARIANT, "no such turn");
    assert_int_equal(do_append(s, &stray, 1, &a), TR_NOT_FOUND);
    stray.chat = an_id(T0);
    assert_int_equal(do_append(s, &stray, 1, &a), TR_NOT_FOUND);
    assert_int_equal(do_append(s, NULL, 0, &a), TR_INVALID);
    stray = a_row(&chat, a_chat(chat.user, T0).head, PART_FIRST_VARIANT, "");
    assert_int_equal(do_append(s, (struct turn_row[]){mine, stray}, 2, &a), TR_INVALID);
    assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
    assert_int_equal(a.chat.change, 5); /* only what was written counts */
    answer_release(&a);
    store_free(s);
}

/* Several rows go with the first one: all of them or none, and none over what stands. */
static void test_append_several(void **state)
{
    struct store *s = store_new("several");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct turn_row rows[3], other[2];
    struct answer a = {0};

    (void)state;
    make_chat(s, &chat);
    make_turn(s, &chat, T0 + 10, "client-1");
    rows[0] = a_row(&chat, chat.head, PART_NOTES, "notes");
    rows[1] = a_row(&chat, chat.head, PART_USER, "must not replace the user's words");
    rows[2] = an_event(&chat, chat.head, 0, TURN_EVENT_STOP, 0);
    assert_int_equal(do_append(s, rows, 3, &a), TR_OK);
    assert_true(a.mine);
    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
    assert_int_equal(a.n, 3);
    assert_int_equal(a.rows[0].change, a.rows[1].change);
    assert_int_equal(a.rows[2].sealed_len, strlen("words"));
    other[0] = a_row(&chat, chat.head, PART_NOTES, "others");
    other[1] = a_row(&chat, chat.head, PART_FIRST_VARIANT, "goes along");
    assert_int_equal(do_append(s, other, 2, &a), TR_OK);
    assert_false(a.mine);
    assert_row_equal(&a.rows[0], &rows[0]);
    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
    assert_int_equal(a.n, 3);
    answer_release(&a);
    store_free(s);
}

/* Turns in order, whole: `first` … with one row more (a reply) on every third turn. */
static void assert_page(const struct answer *a, const struct uuid *ids, size_t first, size_t n)
{
    size_t at = 0;

    for (size_t i = first; i < first + n; i++) {
        const size_t parts = i % 3 == 0 ? 2 : 1;

        for (size_t part = 0; part < parts; part++, at++) {
            assert_true(at < a->n);
            assert_true(uuid_eq(&a->rows[at].turn, &ids[i]));
            assert_int_equal(a->rows[at].part, part);
        }
    }
    assert_int_equal(at, a->n);
}

/* 1,200 turns over 40 months, paged both ways. */
static void test_paging(void **state)
{
    enum { TURNS = 1200, PAGE = 50 };
    static struct uuid ids[TURNS];
    const uint64_t step = 86400000; /* a day */
    struct store *s = store_new("paging");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct history_range range = {.limit = PAGE};
    struct answer a = {0};
    char client[17];

    (void)state;
    assert_int_equal(do_create(s, &chat, NULL, NULL, 0, &a), TR_OK);
    for (size_t i = 0; i < TURNS; i++) {
        snprintf(client, sizeof client, "%zu", i);
        ids[i] = make_turn(s, &chat, T0 + i * step, client);
        if (i % 3 == 0) {
            const struct turn_row reply = a_row(&chat, ids[i], PART_FIRST_VARIANT, "reply");

            assert_int_equal(do_append(s, &reply, 1, &a), TR_OK);
        }
    }
    for (size_t first = 0; first < TURNS; first += PAGE) {
        assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
        assert_page(&a, ids, first, PAGE);
        assert_int_equal(a.more, first + PAGE < TURNS);
        range.after = ids[first + PAGE - 1];
    }
    assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
    assert_int_equal(a.n, 0);
    assert_false(a.more);
    range = (struct history_range){.limit = PAGE, .newest = true};
    for (size_t end = TURNS; end > 0; end -= PAGE) {
        assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
        assert_page(&a, ids, end - PAGE, PAGE);
        assert_int_equal(a.more, end > PAGE);
        range.before = ids[end - PAGE];
    }
    range = (struct history_range){.after = ids[99], .before = ids[300]}; /* both bounds, no limit */
    assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
    assert_page(&a, ids, 100, 200);
    assert_false(a.more);
    range.limit = 7;
    range.newest = true;
    assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
    assert_page(&a, ids, 293, 7);
    assert_true(a.more);
    range = (struct history_range){.newest = true};
    assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_OK);
    assert_page(&a, ids, 0, TURNS);
    chat.chat = an_id(T0);
    assert_int_equal(do_turns(s, &chat.chat, &range, &a), TR_NOT_FOUND);
    answer_release(&a);
    store_free(s);
}

static void test_changed(void **state)
{
    struct store *s = store_new("changed");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct uuid ids[5];
    struct turn_row reply, event;
    struct answer a = {0};
    char client[17];
    uint64_t since;

    (void)state;
    make_chat(s, &chat);
    for (size_t i = 0; i < 5; i++) {
        snprintf(client, sizeof client, "%zu", i);
        ids[i] = make_turn(s, &chat, T0 + 10 + i * 40 * 86400000ull, client);
    }
    since = chat.change;
    assert_int_equal(do_changed(s, &chat.chat, since, 0, &a), TR_OK);
    assert_int_equal(a.n, 0);
    assert_int_equal(do_changed(s, &chat.chat, UINT64_MAX, 0, &a), TR_OK);
    assert_int_equal(a.n, 0);
    event = an_event(&chat, ids[3], 0, TURN_EVENT_STOP, 0);
    assert_int_equal(do_append(s, &event, 1, &a), TR_OK);
    assert_int_equal(a.change, since + 1);
    reply = a_row(&chat, ids[1], PART_FIRST_VARIANT, "reply");
    assert_int_equal(do_append(s, &reply, 1, &a), TR_OK);
    assert_int_equal(a.change, since + 2);

    assert_int_equal(do_changed(s, &chat.chat, since, 0, &a), TR_OK); /* whole turns, the oldest turn first */
    assert_int_equal(a.n, 4);
    assert_false(a.more);
    assert_true(uuid_eq(&a.rows[0].turn, &ids[1]));
    assert_int_equal(a.rows[0].part, PART_USER);
    assert_int_equal(a.rows[1].part, PART_FIRST_VARIANT);
    assert_true(uuid_eq(&a.rows[2].turn, &ids[3]));
    assert_int_equal(a.rows[2].part, PART_STATE);
    assert_int_equal(do_changed(s, &chat.chat, since, 1, &a), TR_OK);
    assert_int_equal(a.n, 2);
    assert_true(a.more);
    assert_int_equal(do_changed(s, &chat.chat, since + 1, 1, &a), TR_OK);
    assert_int_equal(a.n, 2);
    assert_false(a.more);
    assert_int_equal(do_changed(s, &chat.chat, 0, 0, &a), TR_OK);
    assert_int_equal(a.n, 2 + 5 + 2);
    chat.chat = an_id(T0);
    assert_int_equal(do_changed(s, &chat.chat, 0, 0, &a), TR_NOT_FOUND);
    answer_release(&a);
    store_free(s);
}

static void test_keys(void **state)
{
    struct store *s = store_new("keys");
    const struct uuid id = an_id(T0);
    struct answer a = {0};
    char someone[UUID_TEXT];

    (void)state;
    uuid_format(&id, someone); /* a server's keys outlive a run */
    assert_int_equal(do_key_get(s, SEAL_OWNER_USER, someone, &a), TR_NOT_FOUND);
    assert_int_equal(do_key_put(s, SEAL_OWNER_USER, someone, slice_of("first"), &a), TR_OK);
    assert_true(a.mine);
    assert_memory_equal(a.wrapped, "first", a.wrapped_len);
    assert_int_equal(do_key_put(s, SEAL_OWNER_USER, someone, slice_of("first"), &a), TR_OK);
    assert_true(a.mine);
    assert_int_equal(do_key_put(s, SEAL_OWNER_USER, someone, slice_of("second!"), &a), TR_OK);
    assert_false(a.mine);
    assert_int_equal(a.wrapped_len, 5);
    assert_memory_equal(a.wrapped, "first", 5);
    assert_int_equal(do_key_put(s, SEAL_OWNER_CHARACTER, someone, slice_of("third"), &a), TR_OK);
    assert_true(a.mine);
    store_close(s);
    store_open(s);
    assert_int_equal(do_key_get(s, SEAL_OWNER_USER, someone, &a), TR_OK);
    assert_int_equal(a.wrapped_len, 5);
    assert_memory_equal(a.wrapped, "first", 5);
    assert_int_equal(do_key_get(s, SEAL_OWNER_CHAT, someone, &a), TR_NOT_FOUND);
    assert_int_equal(do_key_put(s, SEAL_OWNER_USER, "none", (struct slice){0}, &a), TR_INVALID);
    store_free(s);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_chat_create),
    cmocka_unit_test(test_chats_of_user),
    cmocka_unit_test(test_accept),
    cmocka_unit_test(test_ask),
    cmocka_unit_test(history_race_accept),
    cmocka_unit_test(test_round_trip),
    cmocka_unit_test(test_append_first_wins),
    cmocka_unit_test(test_append_several),
    cmocka_unit_test(history_race_append),
    cmocka_unit_test(test_paging),
    cmocka_unit_test(test_changed),
    cmocka_unit_test(test_keys),
};

int main(void)
{
    int failed = 0;

    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        adapter = &adapters[i];
        if (adapter->server == NULL ? support_real() : support_server(adapter->server) == NULL)
            continue;
        if (adapter->server != NULL)
            store_init();
        failed += _cmocka_run_group_tests(adapter->name, tests, sizeof tests / sizeof *tests, NULL, NULL);
        failed += _cmocka_run_group_tests(adapter->name, history_fault_tests, history_fault_tests_n, NULL, NULL);
        if (adapter->server == NULL)
            failed += _cmocka_run_group_tests(adapter->name, history_file_tests, history_file_tests_n, NULL, NULL);
    }
    return failed != 0;
}
