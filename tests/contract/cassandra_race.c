/*
 * cassandra_race - two adapters, as two processes have them: each remembers its own guesses.  Exactly one wins, and the other
 * is told; over months, too, and while a third reads.
 */
#include "cassandra_race.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MONTH (31 * 86400000ull)

struct store *store_beside(struct store *s)
{
    struct store *t = calloc(1, sizeof *t);
    struct tr_err err = {0};

    assert_non_null(t);
    t->loop = s->loop;
    if (adapter->open(t->loop, s->path, &t->h, &err) != TR_OK)
        fail_msg("%s", tr_err_text(&err));
    return t;
}

void store_beside_free(struct store *t)
{
    t->h->ops->close(t->h);
    free(t);
}

static void start_accept(struct store *s, const struct history_accept *acc, struct answer *a)
{
    answer_release(a);
    *a = (struct answer){.w = {.loop = s->loop}};
    wait_started(&a->w, s->h->ops->accept(s->h, acc, on_accept_answer, a, &a->w.op, &a->w.err));
    assert_int_equal(a->w.rc, TR_OK);
}

static void start_append(struct store *s, const struct turn_row *row, struct answer *a)
{
    answer_release(a);
    *a = (struct answer){.w = {.loop = s->loop}};
    wait_started(&a->w, s->h->ops->append(s->h, row, 1, on_append_answer, a, &a->w.op, &a->w.err));
    assert_int_equal(a->w.rc, TR_OK);
}

static void await(struct answer *a)
{
    support_count(a->w.loop, &a->w.calls, 1);
    if (a->w.rc != TR_OK)
        fail_msg("%s: %s", tr_rc_name(a->w.rc), tr_err_text(&a->w.err));
}

static void move_on(struct history_chat *chat, const struct answer *a)
{
    chat->head = a->accepted.head;
    chat->index = a->accepted.index;
    chat->change = a->accepted.change;
}

/* Two accepts at once: one is done, the other sees that the head moved; under one client id, it sees the turn. */
static void race_accept(struct store *const s[2], struct history_chat *chat, uint64_t ms, unsigned round, bool same)
{
    static struct answer a[2];
    struct history_accept acc[2];
    char client[17];
    int done = -1;

    for (int i = 0; i < 2; i++) {
        snprintf(client, sizeof client, "%u%s", round, i == 1 && !same ? "b" : "");
        acc[i] = an_accept(chat, ms, client, "words");
        start_accept(s[i], &acc[i], &a[i]);
    }
    for (int i = 0; i < 2; i++) {
        await(&a[i]);
        if (a[i].accepted.outcome == ACCEPT_DONE) {
            assert_int_equal(done, -1);
            done = i;
        }
    }
    assert_true(done >= 0);
    assert_int_equal(a[1 - done].accepted.outcome, same ? ACCEPT_KNOWN : ACCEPT_MOVED);
    assert_true(uuid_eq(&a[1 - done].accepted.head, &acc[done].row.turn));
    if (same)
        assert_true(uuid_eq(&a[1 - done].accepted.turn, &acc[done].row.turn));
    assert_int_equal(a[done].accepted.index, chat->index + 1);
    assert_true(a[done].accepted.change > chat->change);
    move_on(chat, &a[done]);
}

/* Two attempts at one variant: one is stored, the other is given it. */
static void race_append(struct store *const s[2], struct history_chat *chat, const struct uuid *turn, int32_t part)
{
    static struct answer a[2];
    int mine = -1;

    for (int i = 0; i < 2; i++) {
        struct turn_row row = a_row(chat, *turn, part, i == 0 ? "the one" : "the other");

        row.attempt = (uint64_t)i + 1;
        start_append(s[i], &row, &a[i]);
    }
    for (int i = 0; i < 2; i++) {
        await(&a[i]);
        if (a[i].mine) {
            assert_int_equal(mine, -1);
            mine = i;
        }
    }
    assert_true(mine >= 0);
    assert_int_equal(a[1 - mine].rows[0].attempt, mine + 1);
    assert_int_equal(a[1 - mine].rows[0].change, a[mine].change);
    assert_true(a[mine].change > chat->change);
    chat->change = a[mine].change;
}

/* Every change up to the chat's has a row, and every row one up to it. */
static void assert_all_changes(struct store *s, const struct history_chat *chat)
{
    struct answer a = {0}, c = {0};
    bool *seen;
    uint64_t change;

    assert_int_equal(do_chat_get(s, &chat->chat, &c), TR_OK);
    change = c.chat.change;
    seen = calloc(change + 1, sizeof *seen);
    assert_non_null(seen);
    assert_int_equal(do_turns(s, &chat->chat, &(struct history_range){0}, &a), TR_OK);
    for (size_t i = 0; i < a.n; i++) {
        assert_true(a.rows[i].change >= 1 && a.rows[i].change <= change);
        seen[a.rows[i].change] = true;
        if (i > 0)
            assert_true(uuid_cmp(&a.rows[i - 1].turn, &a.rows[i].turn) <= 0);
    }
    for (uint64_t n = 1; n <= change; n++)
        if (!seen[n])
            fail_msg("no row of change %llu of %llu", (unsigned long long)n, (unsigned long long)change);
    free(seen);
    answer_release(&a);
}

static void test_races(void **state)
{
    enum { ROUNDS = 500 };
    struct store *s[2] = {store_new("races"), NULL};
    struct history_chat chat = a_chat(an_id(T0), T0);

    (void)state;
    s[1] = store_beside(s[0]);
    make_chat(s[0], &chat);
    for (unsigned i = 0; i < ROUNDS; i++) {
        race_accept(s, &chat, T0 + i, i, i % 3 == 0);
        race_append(s, &chat, &chat.head, PART_FIRST_VARIANT);
    }
    assert_int_equal(chat.index, ROUNDS);
    assert_all_changes(s[1], &chat);
    store_beside_free(s[1]);
    store_free(s[0]);
}

/* The same with a new month in every other round, late answers to old turns, and old client ids that come again. */
static void test_months(void **state)
{
    enum { ROUNDS = 60 };
    static struct uuid turns[ROUNDS];
    struct store *s[2] = {store_new("months"), NULL};
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct answer a = {0};
    char client[17];

    (void)state;
    s[1] = store_beside(s[0]);
    make_chat(s[0], &chat);
    for (unsigned i = 0; i < ROUNDS; i++) {
        race_accept(s, &chat, T0 + (i / 2) * MONTH, i, i % 3 != 0);
        turns[i] = chat.head;
        race_append(s, &chat, &chat.head, PART_FIRST_VARIANT);
        if (i >= 8) {
            struct history_accept again;

            race_append(s, &chat, &turns[i - 8], PART_FIRST_VARIANT + 1); /* months later */
            snprintf(client, sizeof client, "%u", i - 8);
            again = an_accept(&chat, T0 + (i / 2 + i % 2) * MONTH, client, "again");
            assert_int_equal(do_accept(s[i % 2], &again, &a), TR_OK);
            if ((i - 8) % 3 != 0) {
                assert_int_equal(a.accepted.outcome, ACCEPT_KNOWN);
                assert_true(uuid_eq(&a.accepted.turn, &turns[i - 8]));
            } else if (a.accepted.outcome == ACCEPT_DONE) { /* the other one had won under its own */
                move_on(&chat, &a);
            }
        }
    }
    assert_all_changes(s[0], &chat);
    assert_all_changes(s[1], &chat);
    for (unsigned i = 0; i + 8 < ROUNDS; i++) {
        assert_int_equal(do_turn_get(s[i % 2], &chat.chat, &turns[i], &a), TR_OK);
        assert_int_equal(a.n, 3);
    }
    answer_release(&a);
    store_beside_free(s[1]);
    store_free(s[0]);
}

/*
 * While two write to new and old turns over months, a third asks for what changed since the greatest change it has seen.  Rule 5:
 * nothing may come later under a number that it believes it has.
 */
static void test_reader_misses_nothing(void **state)
{
    enum { ROUNDS = 120 };
    struct store *s[3] = {store_new("reader"), NULL, NULL};
    struct history_chat chat = a_chat(an_id(T0), T0);
    static struct answer a[2], read;
    static bool seen[ROUNDS * 4 + 10];
    uint64_t known = 0, last = 0;
    struct uuid old;
    size_t reads = 0;

    (void)state;
    memset(seen, 0, sizeof seen);
    s[1] = store_beside(s[0]);
    s[2] = store_beside(s[0]);
    make_chat(s[0], &chat);
    old = make_turn(s[0], &chat, T0 + 1, "old");
    for (unsigned i = 0; i <= ROUNDS; i++) {
        if (i < ROUNDS) {
            char client[17];
            struct turn_row row = a_row(&chat, old, PART_USER, "an edit");
            struct history_accept acc;

            snprintf(client, sizeof client, "%u", i);
            acc = an_accept(&chat, T0 + 2 + i / 10 * MONTH, client, "words");
            row.rev = (int32_t)i + 1;
            start_accept(s[0], &acc, &a[0]);
            start_append(s[1], &row, &a[1]);
        }
        do { /* reads while they are under way */
            assert_int_equal(do_changed(s[2], &chat.chat, known, 0, &read), TR_OK);
            for (size_t r = 0; r < read.n; r++) {
                if (read.rows[r].change > known && seen[read.rows[r].change])
                    fail_msg("change %llu twice", (unsigned long long)read.rows[r].change);
                last = read.rows[r].change > last ? read.rows[r].change : last;
            }
            for (size_t r = 0; r < read.n; r++)
                if (read.rows[r].change > known)
                    seen[read.rows[r].change] = true;
            for (uint64_t n = known + 1; n <= last; n++)
                if (!seen[n])
                    fail_msg("told of change %llu, but not of %llu", (unsigned long long)last, (unsigned long long)n);
            known = last;
            reads++;
        } while (i < ROUNDS && (a[0].w.calls == 0 || a[1].w.calls == 0));
        if (i == ROUNDS)
            break;
        await(&a[0]);
        await(&a[1]);
        assert_int_equal(a[0].accepted.outcome, ACCEPT_DONE);
        assert_true(a[1].mine);
        chat.head = a[0].accepted.head;
        chat.index = a[0].accepted.index;
    }
    print_message("  %zu reads, %llu changes\n", reads, (unsigned long long)known);
    assert_int_equal(known, 2 + 2 * ROUNDS);
    answer_release(&read);
    answer_release(&a[1]);
    store_beside_free(s[2]);
    store_beside_free(s[1]);
    store_free(s[0]);
}

static void random_change(struct store *s, struct history_chat *chat, struct uuid *turns, size_t *n, unsigned step)
{
    struct answer a = {0};
    char client[17];
    const struct uuid turn = turns[(size_t)rand() % *n];
    struct turn_row row;

    snprintf(client, sizeof client, "%u", step);
    switch (step % 80 < 10 || step % 80 >= 70 ? 0 : rand() % 5) { /* only new turns around the end of a month */
    case 0:
    case 1:
        turns[(*n)++] = make_turn(s, chat, T0 + 1 + step / 80 * MONTH + step, client);
        return;
    case 2:
        row = a_row(chat, turn, PART_FIRST_VARIANT + rand() % 3, client);
        break;
    case 3:
        row = a_row(chat, turn, PART_USER, client);
        row.rev = 1 + (int32_t)step;
        break;
    default:
        row = an_event(chat, turn, (int32_t)step,
                       rand() % 8 == 0   ? TURN_EVENT_DELETE
                       : rand() % 2 == 0 ? TURN_EVENT_STOP
                                         : TURN_EVENT_CHOOSE,
                       0);
        break;
    }
    if (do_append(s, &row, 1, &a) != TR_OK)     /* else it is written, or stands already */
        assert_int_equal(a.w.rc, TR_NOT_FOUND); /* the turn is deleted */
    answer_release(&a);
}

/* What changed, as one who remembers the chat is told in one read or after it, and as one who knows nothing of it is told. */
static void test_changed_both_ways(void **state)
{
    enum { STEPS = 400 }; /* a month has more rows than one read takes */
    struct store *s[3] = {store_new("both-ways"), NULL, NULL};
    struct history_chat chat = a_chat(an_id(T0), T0);
    static struct uuid turns[STEPS + 1];
    struct answer a = {0}, b = {0}, now = {0};
    size_t n = 0, told = 0;

    (void)state;
    srand(20261124);
    s[1] = store_beside(s[0]); /* remembers */
    make_chat(s[0], &chat);
    turns[n++] = make_turn(s[0], &chat, T0 + 1, "first");
    for (unsigned step = 1; step < STEPS; step++) {
        random_change(s[0], &chat, turns, &n, step);
        assert_int_equal(do_chat_get(s[0], &chat.chat, &now), TR_OK);
        for (int k = 0; k < (step % 4 == 0 ? 4 : 0); k++) {
            const uint64_t back = (uint64_t)rand() % (k % 2 == 0 ? 6 : now.chat.change + 1);
            const uint64_t since = now.chat.change - back;
            const uint32_t limit = rand() % 2 == 0 ? 0 : 1 + (uint32_t)rand() % 4;

            s[2] = store_beside(s[0]); /* knows nothing: it goes the long way */
            assert_int_equal(do_changed(s[1], &chat.chat, since, limit, &a), TR_OK);
            assert_int_equal(do_changed(s[2], &chat.chat, since, limit, &b), TR_OK);
            store_beside_free(s[2]);
            assert_int_equal(a.n, b.n);
            assert_int_equal(a.more, b.more);
            for (size_t i = 0; i < a.n; i++) {
                assert_int_equal(a.rows[i].change, b.rows[i].change);
                assert_row_equal(&a.rows[i], &b.rows[i]);
            }
            told += a.n;
        }
    }
    print_message("  %zu turns, %llu changes, %zu rows told\n", n, (unsigned long long)now.chat.change, told);
    assert_true(told > STEPS && now.chat.change > STEPS / 2);
    answer_release(&a);
    answer_release(&b);
    store_beside_free(s[1]);
    store_free(s[0]);
}

/* What another one remembers of a chat does not help it once that is deleted. */
static void test_deleted_elsewhere(void **state)
{
    struct store *s[2] = {store_new("deleted"), NULL};
    struct answer a = {0};

    (void)state;
    s[1] = store_beside(s[0]);
    for (unsigned i = 0; i < 30; i++) {
        struct history_chat chat = a_chat(an_id(T0), T0);
        static struct answer write;
        struct turn_row row;
        struct history_accept acc;
        struct wait w = {.loop = s[0]->loop};

        make_chat(s[0], &chat);
        make_turn(s[1], &chat, T0 + 1, "first");
        acc = an_accept(&chat, T0 + 2 + (i % 3) * MONTH, "late", "late"); /* in this month, and in a later one */
        row = a_row(&chat, chat.head, PART_FIRST_VARIANT, "late");
        if (i % 2 == 0)
            start_accept(s[1], &acc, &write);
        else
            start_append(s[1], &row, &write);
        assert_int_equal(wait_end(&w, s[0]->h->ops->chat_delete(s[0]->h, &chat.chat, wait_done, &w, &w.op, &w.err)), 0);
        support_count(s[0]->loop, &write.w.calls, 1);
        assert_true(write.w.rc == TR_OK || write.w.rc == TR_NOT_FOUND);
        answer_release(&write);
        assert_int_equal(do_accept(s[1], &acc, &a), TR_NOT_FOUND);
        assert_int_equal(do_append(s[1], &row, 1, &a), TR_NOT_FOUND);
        assert_int_equal(do_chat_get(s[1], &chat.chat, &a), TR_NOT_FOUND);
        assert_int_equal(do_turn_get(s[1], &chat.chat, &chat.head, &a), TR_NOT_FOUND);
        assert_int_equal(do_turns(s[1], &chat.chat, &(struct history_range){0}, &a), TR_NOT_FOUND);
    }
    store_beside_free(s[1]);
    store_free(s[0]);
}

/* One client id, two adapters, two chats: one of them is made, and both are told which. */
static void test_create_race(void **state)
{
    struct store *s[2] = {store_new("create-race"), NULL};
    static struct answer a[2];
    struct answer got = {0};

    (void)state;
    s[1] = store_beside(s[0]);
    for (unsigned i = 0; i < 50; i++) {
        const struct uuid user = an_id(T0);
        const uint8_t hash[16] = "the same";
        struct history_chat chat[2] = {a_chat(user, T0), a_chat(user, T0)};

        for (int k = 0; k < 2; k++) {
            const struct turn_row greeting = a_row(&chat[k], chat[k].head, 1, "hello");

            a[k] = (struct answer){.w = {.loop = s[0]->loop}};
            wait_started(&a[k].w, s[k]->h->ops->chat_create(s[k]->h, &chat[k], hash, &greeting, 1, on_chat_answer,
                                                            &a[k], &a[k].w.op, &a[k].w.err));
        }
        await(&a[0]);
        await(&a[1]);
        assert_true(uuid_eq(&a[0].chat.chat, &a[1].chat.chat));
        assert_true(a[0].mine != a[1].mine);
        assert_int_equal(do_chats(s[0], &user, NULL, 10, &got), TR_OK);
        assert_int_equal(got.n, 1);
        assert_int_equal(do_chat_get(s[0], &chat[a[0].mine ? 1 : 0].chat, &got), TR_NOT_FOUND);
        assert_int_equal(do_delete(s[0], &a[0].chat.chat), TR_OK);
        chat[0] = a_chat(user, T0);
        assert_int_equal(do_create(s[1], &chat[0], hash, NULL, 0, &got), TR_OK); /* the client id is free again */
        assert_true(got.mine);
    }
    store_beside_free(s[1]);
    store_free(s[0]);
}

struct shared {
    struct history_chat chat;
    volatile size_t answered;
    struct uuid turns[4000];
};

static void roll_until_killed(void *ctx)
{
    struct shared *sh = ctx;
    struct store *s = store_new("rolling");
    char client[17];

    for (size_t i = sh->answered; i < sizeof sh->turns / sizeof *sh->turns; i++) {
        struct history_chat chat = sh->chat;

        snprintf(client, sizeof client, "%zu", i);
        sh->turns[i] = make_turn(s, &chat, T0 + i * MONTH, client);
        sh->chat = chat;
        sh->answered = i + 1;
    }
    support_child_end(SUPPORT_EXIT_FAILED);
}

/* A new month with every turn, and SIGKILL at any moment of it: the next one goes on from there, and nothing is lost. */
static void test_killed_between_months(void **state)
{
    struct shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct store *s = store_new("rolled");
    struct answer a = {0};

    (void)state;
    assert_true(sh != MAP_FAILED);
    make_chat(s, &chat);
    sh->chat = chat;
    store_close(s); /* no thread of ours while we fork */
    for (unsigned round = 0; round < 30; round++) {
        const size_t before = sh->answered;
        int status;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            roll_until_killed(sh);
        for (unsigned ms = 0; sh->answered == before && ms < SUPPORT_LIMIT_MS; ms++)
            usleep(1000);
        usleep(round * 1731);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_true(sh->answered > before);
        store_open(s);
        assert_int_equal(do_chat_get(s, &sh->chat.chat, &a), TR_OK);
        assert_true(a.chat.index == sh->answered || a.chat.index == sh->answered + 1);
        if (a.chat.index > sh->answered) { /* written, but not answered: it counts */
            sh->turns[sh->answered] = a.chat.head;
            sh->answered++;
        }
        sh->chat = a.chat;
        store_close(s);
    }
    store_open(s);
    assert_int_equal(do_turns(s, &sh->chat.chat, &(struct history_range){0}, &a), TR_OK);
    assert_int_equal(a.n, sh->answered + 2); /* the greeting's two rows before them */
    for (size_t i = 0; i < sh->answered; i++)
        assert_true(uuid_eq(&a.rows[i + 2].turn, &sh->turns[i]));
    print_message("  %zu months\n", sh->answered);
    answer_release(&a);
    store_free(s);
    munmap(sh, sizeof *sh);
}

const struct CMUnitTest cassandra_race_tests[] = {
    cmocka_unit_test(test_races),
    cmocka_unit_test(test_months),
    cmocka_unit_test(test_reader_misses_nothing),
    cmocka_unit_test(test_changed_both_ways),
    cmocka_unit_test(test_deleted_elsewhere),
    cmocka_unit_test(test_create_race),
    cmocka_unit_test(test_killed_between_months),
};
const size_t cassandra_race_tests_n = sizeof cassandra_race_tests / sizeof *cassandra_race_tests;
