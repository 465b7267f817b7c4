/*
 * cassandra_gone - a process is killed at each step of a deletion (base/fault.h), and whoever meets what it left finishes it:
 * the one that asks again, a reader, and a writer that remembers the chat from before.
 */
#ifdef TROUPE_WITH_CASSANDRA
#include "cassandra_gone.h"

#include "cassandra_fixture.h"
#include "cassandra_race.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MONTH (31 * 86400000ull)
#define MONTHS 3
static const int buckets[MONTHS] = {202510, 202511, 202512}; /* of T0 and the months after it */

/* What a child is to delete, once `go` is set. */
struct doom {
    volatile bool go;
    char point[64]; /* "name:n": it is killed at the n-th passing of it */
    struct history_chat chat;
    struct turn_row event; /* the turn's; event.turn is nil: the whole chat */
};

struct house {
    struct doom *doom;
    pid_t child;
    struct store *s, *other; /* the other one remembers the chat */
    struct cql *cql;
    struct history_chat chat;
    struct uuid turn; /* in two buckets */
    struct history_accept late;
    char id[UUID_TEXT], turn_id[UUID_TEXT];
};

static void child(struct doom *doom)
{
    struct store *s;
    struct answer a = {0};

    for (unsigned ms = 0; !doom->go && ms < SUPPORT_LIMIT_MS; ms++)
        usleep(1000);
    setenv("TROUPE_TEST_KILL", doom->point, 1);
    s = store_new("doomed");
    if (uuid_is_nil(&doom->event.turn))
        (void)do_delete(s, &doom->chat.chat);
    else
        (void)do_append(s, &doom->event, 1, &a);
    support_child_end(SUPPORT_EXIT_FAILED);
}

/* A chat of three months, its first turn edited in the last one; two processes know it.  The child is there before any thread. */
static void house_open(struct house *h)
{
    struct turn_row row;
    struct answer a = {0};

    memset(h, 0, sizeof *h);
    h->doom = mmap(NULL, sizeof *h->doom, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(h->doom != MAP_FAILED);
    fflush(NULL);
    h->child = fork();
    assert_true(h->child >= 0);
    if (h->child == 0)
        child(h->doom);
    h->s = store_new("gone");
    h->other = store_beside(h->s);
    h->cql = bare_open(NULL, 0);
    h->chat = a_chat(an_id(T0), T0);
    make_chat(h->s, &h->chat);
    uuid_format(&h->chat.chat, h->id);
    assert_int_equal(do_key_put(h->s, SEAL_OWNER_CHAT, h->id, slice_of("the key"), &a), TR_OK);
    for (unsigned i = 0; i < MONTHS; i++) {
        char client[17];

        snprintf(client, sizeof client, "%u", i);
        make_turn(h->s, &h->chat, T0 + 10 + i * MONTH, client);
        if (i == 0)
            h->turn = h->chat.head;
    }
    row = a_row(&h->chat, h->turn, PART_USER, "edited");
    row.rev = 1;
    assert_int_equal(do_append(h->other, &row, 1, &a), TR_OK);
    uuid_format(&h->turn, h->turn_id);
    h->late = an_accept(&h->chat, T0 + 20 + MONTHS * MONTH, "late", "late");
    answer_release(&a);
}

static void house_close(struct house *h)
{
    cql_close(h->cql);
    store_beside_free(h->other);
    store_free(h->s);
    munmap(h->doom, sizeof *h->doom);
}

static void needs_points(void)
{
#ifndef TROUPE_FAULT_POINTS
    skip();
#endif
}

static void house_kill(struct house *h, const char *point, int nth, const struct turn_row *event)
{
    int status;

    snprintf(h->doom->point, sizeof h->doom->point, "%s:%d", point, nth);
    h->doom->chat = h->chat;
    if (event != NULL)
        h->doom->event = *event;
    h->doom->go = true;
    assert_int_equal(waitpid(h->child, &status, 0), h->child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s was not reached", point);
}

/* Of the turn (NULL: of all), in all buckets. */
static uint64_t texts_left(struct house *h, const char *turn)
{
    uint64_t n = 0;

    for (int i = 0; i < MONTHS; i++)
        n += bare_count(h->cql, "SELECT count(sealed) FROM troupe_test.turns WHERE chat = %s AND bucket = %d%s%s",
                        h->id, buckets[i], turn != NULL ? " AND turn = " : "", turn != NULL ? turn : "");
    return n;
}

/* Nothing of the chat is left that could be read, nor the record that something is to go. */
static void assert_nothing(struct house *h)
{
    char user[UUID_TEXT];

    uuid_format(&h->chat.user, user);
    assert_int_equal(texts_left(h, NULL), 0);
    assert_int_equal(
        bare_count(h->cql, "SELECT count(change) FROM troupe_test.turns WHERE chat = %s AND bucket IN (%d, %d, %d)",
                   h->id, buckets[0], buckets[1], buckets[2]),
        0);
    assert_int_equal(
        bare_count(h->cql, "SELECT count(destroyed) FROM troupe_test.keys WHERE owner = 1 AND id = '%s'", h->id), 1);
    assert_int_equal(bare_count(h->cql, "SELECT count(*) FROM troupe_test.chats_by_user WHERE user = %s", user), 0);
    assert_int_equal(bare_count(h->cql, "SELECT count(*) FROM troupe_test.selected WHERE user = %s", user), 0);
    assert_int_equal(bare_count(h->cql, "SELECT count(deleted) FROM troupe_test.chats WHERE chat = %s", h->id), 1);
    assert_int_equal(bare_count(h->cql, "SELECT count(buckets) FROM troupe_test.chats WHERE chat = %s", h->id), 0);
}

/* Whoever comes next, in one of these ways: gone, and then all of it is. */
static void meet_chat(struct house *h, unsigned way, bool key_is_gone)
{
    const struct turn_row late = a_row(&h->chat, h->turn, PART_FIRST_VARIANT, "late");
    struct answer a = {0};

    switch (way) {
    case 0: /* it is asked for again */
        assert_int_equal(do_delete(h->s, &h->chat.chat), TR_OK);
        break;
    case 1: /* a writer that knows the chat */
        assert_int_equal(do_accept(h->other, &h->late, &a), TR_NOT_FOUND);
        break;
    case 2:
        assert_int_equal(do_append(h->other, &late, 1, &a), TR_NOT_FOUND);
        break;
    case 3: /* the user's list */
        assert_int_equal(do_chats(h->other, &h->chat.user, NULL, 0, &a), TR_OK);
        assert_int_equal(a.n, 0);
        break;
    case 4:
        assert_int_equal(do_turns(h->other, &h->chat.chat, &(struct history_range){0}, &a), TR_NOT_FOUND);
        break;
    case 5: /* whoever wants the key */
        assert_int_equal(do_key_get(h->s, SEAL_OWNER_CHAT, h->id, &a), key_is_gone ? TR_NOT_FOUND : TR_OK);
        if (!key_is_gone)
            assert_int_equal(do_changed(h->other, &h->chat.chat, 0, 0, &a), TR_NOT_FOUND);
        break;
    default:
        assert_int_equal(do_chat_get(h->other, &h->chat.chat, &a), TR_NOT_FOUND);
        break;
    }
    answer_release(&a);
}

static void test_chat_delete_killed(void **state)
{
    static const struct {
        const char *point;
        int nth;
    } rows[] = {
        {"chat_delete.marked", 1}, {"chat_delete.key", 1},    {"chat_delete.row", 1},
        {"chat_delete.bucket", 1}, {"chat_delete.bucket", 2}, {"chat_delete.unlisted", 1},
    };
    static struct house h;
    unsigned kills = 0;

    (void)state;
    needs_points();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (unsigned way = 0; way < 7; way++) {
            struct answer a = {0};

            house_open(&h);
            house_kill(&h, rows[i].point, rows[i].nth, NULL);
            kills++;
            if (way == 3 && i == 5) /* off the list already: whoever looks at the chat itself finds it */
                assert_int_equal(do_chat_get(h.s, &h.chat.chat, &a), TR_NOT_FOUND);
            meet_chat(&h, way, i > 0);
            assert_nothing(&h);
            assert_int_equal(do_delete(h.s, &h.chat.chat), TR_NOT_FOUND);
            assert_int_equal(do_accept(h.other, &h.late, &a), TR_NOT_FOUND);
            assert_nothing(&h);
            house_close(&h);
        }
    }
    print_message("  killed %u times\n", kills);
}

/* A deletion and another process' writes at once, into this month and the next: none comes in behind it. */
static void test_nothing_slips_in(void **state)
{
    static struct house h;
    static struct answer write;
    struct answer a = {0};

    (void)state;
    house_open(&h);
    kill(h.child, SIGKILL);
    waitpid(h.child, NULL, 0);
    for (unsigned i = 0; i < 30; i++) {
        struct history_chat chat = a_chat(h.chat.user, T0);
        struct history_accept acc;
        struct wait w = {.loop = h.s->loop};

        make_chat(h.s, &chat);
        make_turn(h.other, &chat, T0 + 10, "first");
        acc = an_accept(&chat, T0 + 20 + (i % 2) * MONTH, "late", "late");
        write = (struct answer){.w = {.loop = h.s->loop}};
        wait_started(&write.w,
                     h.other->h->ops->accept(h.other->h, &acc, on_accept_answer, &write, &write.w.op, &write.w.err));
        if (i % 3 != 0)
            support_for(h.s->loop, i % 5);
        assert_int_equal(wait_end(&w, h.s->h->ops->chat_delete(h.s->h, &chat.chat, wait_done, &w, &w.op, &w.err)),
                         TR_OK);
        support_count(h.s->loop, &write.w.calls, 1);
        assert_true(write.w.rc == TR_OK || write.w.rc == TR_NOT_FOUND);
        uuid_format(&chat.chat, h.id);
        assert_int_equal(do_accept(h.other, &acc, &a), TR_NOT_FOUND);
        assert_int_equal(texts_left(&h, NULL), 0);
    }
    answer_release(&a);
    house_close(&h);
}

/* What an earlier version left: the key and the row first, no bucket yet. */
static void test_old_deletion(void **state)
{
    static struct house h;
    char text[400];

    (void)state;
    for (unsigned way = 0; way < 7; way++) {
        house_open(&h);
        kill(h.child, SIGKILL);
        waitpid(h.child, NULL, 0);
        snprintf(text, sizeof text,
                 "UPDATE troupe_test.keys SET wrapped = 0x, destroyed = true WHERE owner = 1 AND id = '%s' IF "
                 "destroyed = null",
                 h.id);
        bare_text(h.cql, text);
        snprintf(text, sizeof text, "UPDATE troupe_test.chats SET deleted = 1 WHERE chat = %s IF deleted = null", h.id);
        bare_text(h.cql, text);
        store_beside_free(h.other); /* it remembers the chat, and that it is gone stands in its row alone */
        h.other = store_beside(h.s);
        meet_chat(&h, way, true);
        assert_nothing(&h);
        house_close(&h);
    }
}

static void meet_turn(struct house *h, unsigned way, const struct turn_row *event)
{
    struct answer a = {0};

    switch (way) {
    case 0: /* it is asked for again: answered when the words are gone */
        assert_int_equal(do_append(h->other, event, 1, &a), TR_OK);
        assert_true(a.mine);
        assert_int_equal(texts_left(h, h->turn_id), 0);
        break;
    case 1:
        assert_int_equal(do_turn_get(h->other, &h->chat.chat, &h->turn, &a), TR_OK);
        break;
    case 2:
        assert_int_equal(do_turns(h->other, &h->chat.chat, &(struct history_range){0}, &a), TR_OK);
        break;
    case 3:
        assert_int_equal(do_turns(h->s, &h->chat.chat, &(struct history_range){.limit = 50, .newest = true}, &a),
                         TR_OK);
        break;
    default:
        assert_int_equal(do_changed(h->other, &h->chat.chat, 1, 64, &a), TR_OK);
        break;
    }
    answer_release(&a);
}

static void test_turn_delete_killed(void **state)
{
    static const struct {
        const char *point;
        int nth;
        uint64_t left;
    } rows[] = {{"turn_delete.marked", 1, 2}, {"turn_delete.bucket", 1, 1}};
    static struct house h;
    struct answer a = {0};

    (void)state;
    needs_points();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (unsigned way = 0; way < 5; way++) {
            struct turn_row event, late;

            house_open(&h);
            event = an_event(&h.chat, h.turn, 0, TURN_EVENT_DELETE, 0);
            late = a_row(&h.chat, h.turn, PART_FIRST_VARIANT, "late");
            house_kill(&h, rows[i].point, rows[i].nth, &event);
            assert_int_equal(texts_left(&h, h.turn_id), rows[i].left);
            assert_int_equal(do_append(h.other, &late, 1, &a), TR_NOT_FOUND);
            meet_turn(&h, way, &event);
            for (unsigned tries = 0; texts_left(&h, h.turn_id) > 0; tries++) {
                assert_true(tries < 500);
                support_for(h.s->loop, 10);
            }
            assert_true(texts_left(&h, NULL) > 0); /* the others are whole */
            house_close(&h);
        }
    }
    answer_release(&a);
}

const struct CMUnitTest cassandra_gone_tests[] = {
    cmocka_unit_test(test_chat_delete_killed),
    cmocka_unit_test(test_nothing_slips_in),
    cmocka_unit_test(test_old_deletion),
    cmocka_unit_test(test_turn_delete_killed),
};
const size_t cassandra_gone_tests_n = sizeof cassandra_gone_tests / sizeof *cassandra_gone_tests;
#else
/* built without the adapter */
typedef int cassandra_gone_is_empty;
#endif
