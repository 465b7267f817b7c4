/*
 * cassandra_half - a conditional write that is agreed upon, and whose rows only the node that led it has; a read that gives the
 * state alone to a second node; and a reader that asks the two others.  Needs three nodes with links (tests/servers/cassandra.sh):
 * cassandra_half.py makes it so, and leaves node 1, the one that has all, paused.
 */
#ifdef TROUPE_WITH_CASSANDRA
#include "cassandra_half.h"

#include "cassandra_race.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum way { NEWEST, OLDEST, CHANGED_FRESH, CHANGED_KNOWN, WAYS, TOLD };

/* The turn's second variant, as change n + 1, in the half-written state. */
static void half_write(const struct history_chat *chat, uint64_t change)
{
    const char *const scripts = getenv("TROUPE_TEST_SERVERS"), *const dir = getenv("TROUPE_TEST_CASSANDRA3_DIR");
    char command[1024], id[UUID_TEXT], turn[UUID_TEXT];

    uuid_format(&chat->chat, id);
    uuid_format(&chat->head, turn);
    snprintf(command, sizeof command, "'%s/cassandra_half.py' '%s' '%s' %s 202510 %s %llu </dev/null", scripts, dir,
             support_server(adapter->server), id, turn, (unsigned long long)change);
    assert_int_equal(system(command), 0);
}

static bool has_row(const struct answer *a, uint64_t change)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->rows[i].change == change)
            return true;
    return false;
}

static enum tr_rc read_once(struct store *s, enum way way, const struct uuid *chat, uint64_t change, struct answer *a)
{
    switch (way) {
    case TOLD:
        return do_chat_get(s, chat, a);
    case NEWEST:
        return do_turns(s, chat, &(struct history_range){.limit = 50, .newest = true}, a);
    case OLDEST:
        return do_turns(s, chat, &(struct history_range){0}, a);
    default:
        return do_changed(s, chat, change, 64, a);
    }
}

/* As a role does: again, while those that answer are asked for what the paused one has. */
static void read_it(struct store *s, enum way way, const struct uuid *chat, uint64_t change, struct answer *a)
{
    enum tr_rc rc = TR_TRANSIENT;

    for (unsigned tries = 0; rc == TR_TRANSIENT && tries < 12; tries++)
        rc = read_once(s, way, chat, change, a);
    if (rc != TR_OK)
        fail_msg("%s: %s", tr_rc_name(rc), tr_err_text(&a->w.err));
}

static void half_read(struct store *s, enum way way, const struct history_chat *chat, uint64_t change)
{
    struct answer a = {0};
    uint64_t told;

    read_it(s, TOLD, &chat->chat, 0, &a);
    told = a.chat.change;
    assert_int_equal(told, change + 1); /* what is told has to be shown */
    read_it(s, way, &chat->chat, change, &a);
    if (!has_row(&a, told))
        fail_msg("%d: the chat is told to be at change %llu, whose row is not shown", (int)way,
                 (unsigned long long)told);
    answer_release(&a);
}

void test_half_commit(void **state)
{
    struct store *s = store_new("half"), *fresh = store_beside(s);
    struct answer a = {0};

    (void)state;
    if (getenv("CASSANDRA_LINKS") == NULL)
        skip();
    for (unsigned way = 0; way < WAYS; way++) {
        struct history_chat chat = a_chat(an_id(T0), T0);
        struct turn_row row;
        uint64_t change;

        make_chat(s, &chat);
        make_turn(s, &chat, T0 + 10, "client");
        row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "the first");
        assert_int_equal(do_append(s, &row, 1, &a), TR_OK);
        change = a.change;
        if (way == CHANGED_KNOWN) /* an old turn changes: what is read at once can't tell all */
            make_turn(s, &chat, T0 + 20, "later");
        assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
        change = a.chat.change;
        if (way == CHANGED_KNOWN)
            chat.head = row.turn;
        half_write(&chat, change);
        half_read(way == CHANGED_FRESH ? fresh : s, (enum way)way, &chat, change);
        support_server_do("cassandra", "TROUPE_TEST_CASSANDRA3_DIR", "resume", 1);
    }
    answer_release(&a);
    store_beside_free(fresh);
    store_free(s);
}
#else
/* built without the adapter */
typedef int cassandra_half_is_empty;
#endif
