/*
 * history_fault - the history's contract where things break or end: SIGKILL, a full disk, erasure, cancellation,
 * closing, bytes that were only borrowed.
 */
#include "history_fault.h"
#include "history_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a child writes and the parent looks at after killing it. */
struct shared {
    struct history_chat chat;
    struct uuid turns[20000];
    volatile size_t answered;
};

static void write_until_killed(void *ctx)
{
    struct shared *sh = ctx;
    struct store *s = store_new("killed");
    char client[17];

    make_chat(s, &sh->chat);
    for (size_t i = 0; i < sizeof sh->turns / sizeof *sh->turns; i++) {
        struct history_chat chat = sh->chat;
        struct turn_row reply;
        struct answer a = {0};

        snprintf(client, sizeof client, "%zu", i);
        sh->turns[i] = make_turn(s, &chat, T0 + i, client);
        reply = a_row(&chat, sh->turns[i], PART_FIRST_VARIANT, "the reply");
        assert_int_equal(do_append(s, &reply, 1, &a), TR_OK);
        sh->chat = chat;
        sh->answered = i + 1;
    }
}

static void check_after_kill(const struct shared *sh)
{
    struct store *s = store_new("killed");
    const size_t answered = sh->answered;
    struct answer a = {0};

    assert_int_equal(do_turns(s, &sh->chat.chat, &(struct history_range){0}, &a), TR_OK);
    assert_true(a.n >= 2 + 2 * answered);
    for (size_t i = 0; i < answered; i++)
        for (size_t part = 0; part < 2; part++) {
            const struct turn_row *row = &a.rows[2 + 2 * i + part];

            assert_true(uuid_eq(&row->turn, &sh->turns[i]));
            assert_int_equal(row->part, part);
        }
    store_free(s);
    answer_release(&a);
}

/* Rule: what was answered is there after SIGKILL, in whatever moment. */
static void test_killed(void **state)
{
    struct shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(sh != MAP_FAILED);
    support_folder();
    for (unsigned round = 0; round < 20; round++) {
        const struct uuid user = an_id(T0);
        pid_t pid;
        int status;

        memset(sh, 0, sizeof *sh);
        sh->chat = a_chat(user, T0 + round);
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            write_until_killed(sh);
            support_child_end(SUPPORT_EXIT_FAILED);
        }
        for (unsigned ms = 0; sh->answered == 0 && ms < SUPPORT_LIMIT_MS; ms++)
            usleep(1000);
        usleep(round * 1700);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_true(sh->answered > 0);
        check_after_kill(sh);
    }
    munmap(sh, sizeof *sh);
}

/* No file may grow past what the store's has now, and a little more; SIZE_MAX: no limit. */
static void limit_files(struct store *s, size_t more)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    struct rlimit r;
    size_t size = 0;

    getrlimit(RLIMIT_FSIZE, &r);
    for (size_t i = 0; i < 3; i++) {
        char path[1024];
        struct stat st;

        snprintf(path, sizeof path, "%s%s", s->path, suffixes[i]);
        if (stat(path, &st) == 0 && (size_t)st.st_size > size)
            size = (size_t)st.st_size;
    }
    r.rlim_cur = more == SIZE_MAX ? r.rlim_max : size + more;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void fill_the_disk(void *ctx)
{
    struct store *s;
    struct history_chat chat;
    struct history_accept a;
    struct answer got = {0};
    char words[4000], client[17];
    enum tr_rc rc = TR_OK;
    size_t done = 0;

    (void)ctx;
    signal(SIGXFSZ, SIG_IGN);
    s = store_new("full");
    chat = a_chat(an_id(T0), T0);
    make_chat(s, &chat);
    memset(words, 'w', sizeof words);
    words[sizeof words - 1] = '\0';
    limit_files(s, 200000);
    while (rc == TR_OK && done < 1000) {
        snprintf(client, sizeof client, "%zu", done);
        a = an_accept(&chat, T0 + done, client, words);
        rc = do_accept(s, &a, &got);
        if (rc == TR_OK) {
            assert_int_equal(got.accepted.outcome, ACCEPT_DONE);
            chat.head = got.accepted.head;
            chat.index = got.accepted.index;
            done++;
        }
    }
    assert_true(done > 0);
    assert_true(rc == TR_TRANSIENT || rc == TR_UNCERTAIN);
    assert_true(strlen(got.w.err.msg) > 0);
    assert_int_equal(do_chat_get(s, &chat.chat, &got), TR_OK); /* reads go on, and see nothing of it */
    if (rc == TR_TRANSIENT)
        assert_true(uuid_eq(&got.chat.head, &chat.head));
    rc = do_accept(s, &a, &got); /* still full */
    assert_true(rc == TR_TRANSIENT || rc == TR_UNCERTAIN);

    limit_files(s, SIZE_MAX);
    assert_int_equal(do_accept(s, &a, &got), TR_OK); /* space again: the same write is settled by issuing it again */
    assert_true(got.accepted.outcome == ACCEPT_DONE || got.accepted.outcome == ACCEPT_KNOWN);
    assert_true(uuid_eq(&got.accepted.turn, &a.row.turn));
    store_close(s);
    store_open(s);
    assert_int_equal(do_turns(s, &chat.chat, &(struct history_range){0}, &got), TR_OK);
    assert_int_equal(got.n, 2 + done + 1);
    answer_release(&got);
    store_free(s);
}

static void test_disk_full(void **state)
{
    int status;

    (void)state;
    status = support_child(fill_the_disk, NULL);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Do these bytes stand in the store's files, where those are ours to look at? */
static void assert_on_disk(const struct store *s, const char *bytes, bool want)
{
    if (adapter->server == NULL && support_on_disk(s->name, bytes, strlen(bytes)) != want)
        fail_msg("%s: %s", bytes, want ? "not there" : "still there");
}

static void assert_forgotten(struct store *s, struct history_chat *chat, const struct history_accept *late)
{
    const struct turn_row reply = a_row(chat, chat->head, PART_FIRST_VARIANT, "late");
    char id[UUID_TEXT];
    struct answer a = {0};

    uuid_format(&chat->chat, id);
    assert_int_equal(do_chat_get(s, &chat->chat, &a), TR_NOT_FOUND);
    assert_int_equal(do_turns(s, &chat->chat, &(struct history_range){0}, &a), TR_NOT_FOUND);
    assert_int_equal(do_changed(s, &chat->chat, 0, 0, &a), TR_NOT_FOUND);
    assert_int_equal(do_turn_get(s, &chat->chat, &chat->head, &a), TR_NOT_FOUND);
    assert_int_equal(do_accept(s, late, &a), TR_NOT_FOUND);
    assert_int_equal(do_append(s, &reply, 1, &a), TR_NOT_FOUND);
    assert_int_equal(do_key_get(s, SEAL_OWNER_CHAT, id, &a), TR_NOT_FOUND);
    assert_int_equal(do_key_put(s, SEAL_OWNER_CHAT, id, slice_of("another key"), &a), TR_NOT_FOUND);
    assert_int_equal(do_create(s, chat, NULL, NULL, 0, &a), TR_NOT_FOUND);
    assert_int_equal(do_chats(s, &chat->user, NULL, 0, &a), TR_OK);
    assert_int_equal(a.n, 0);
}

/* Rule 8, and that nothing of it is left in the files. */
static void test_chat_delete(void **state)
{
    static const char key_bytes[] = "THE-WRAPPED-KEY-OF-THE-CHAT-0123456789";
    static const char words[] = "THE-SEALED-WORDS-OF-THE-CHAT-0123456789";
    struct store *s = store_new("delete");
    struct history_chat chat = a_chat(an_id(T0), T0), other = a_chat(an_id(T0), T0);
    struct turn_row reply;
    struct history_accept late;
    struct answer a = {0};
    char id[UUID_TEXT];

    (void)state;
    assert_int_equal(do_delete(s, &chat.chat), TR_NOT_FOUND);
    make_chat(s, &chat);
    make_chat(s, &other);
    make_turn(s, &chat, T0 + 10, "client-1");
    make_turn(s, &other, T0 + 10, "client-1");
    reply = a_row(&chat, chat.head, PART_FIRST_VARIANT, words);
    assert_int_equal(do_append(s, &reply, 1, &a), TR_OK);
    uuid_format(&chat.chat, id);
    assert_int_equal(do_key_put(s, SEAL_OWNER_CHAT, id, slice_of(key_bytes), &a), TR_OK);
    assert_on_disk(s, key_bytes, true);
    assert_on_disk(s, words, true);
    late = an_accept(&chat, T0 + 20, "client-2", "late");

    assert_int_equal(do_delete(s, &chat.chat), TR_OK);
    assert_on_disk(s, key_bytes, false);
    assert_on_disk(s, words, false);
    assert_forgotten(s, &chat, &late);
    assert_int_equal(do_delete(s, &chat.chat), TR_NOT_FOUND);
    store_close(s);
    store_open(s);
    assert_forgotten(s, &chat, &late);
    make_turn(s, &other, T0 + 30, "client-2"); /* the neighbour is whole */
    assert_int_equal(do_turns(s, &other.chat, &(struct history_range){0}, &a), TR_OK);
    assert_int_equal(a.n, 4);
    answer_release(&a);
    store_free(s);
}

/* Keys come and go among others, so that the store moves them about: no copy of a destroyed one may stay behind. */
static void test_no_copy_stays(void **state)
{
    enum { CHATS = 300 };
    static struct history_chat chats[CHATS];
    struct store *s = store_new("copies");
    struct answer a = {0};
    char id[UUID_TEXT], key[101];

    (void)state;
    for (unsigned i = 0; i < CHATS; i++) {
        chats[i] = a_chat(an_id(T0), T0 + (i * 7919) % 1000);
        make_chat(s, &chats[i]);
        uuid_format(&chats[i].chat, id);
        memset(key, 'k', sizeof key);
        snprintf(key, sizeof key, "KEY-%06u-OF-A-CHAT", i);
        assert_int_equal(do_key_put(s, SEAL_OWNER_CHAT, id, (struct slice){(uint8_t *)key, 100}, &a), TR_OK);
    }
    for (unsigned i = 0; i < CHATS; i += 3)
        assert_int_equal(do_delete(s, &chats[i].chat), TR_OK);
    for (unsigned i = 0; i < CHATS; i++) {
        const int n = snprintf(key, sizeof key, "KEY-%06u-OF-A-CHAT", i);

        if (support_on_disk(s->name, key, (size_t)n) != (i % 3 != 0))
            fail_msg("key %u", i);
    }
    store_free(s);
}

/* A deleted turn's words go, its rows stay; what comes late is dropped. */
static void test_turn_delete(void **state)
{
    static const char words[] = "THE-SEALED-WORDS-OF-THE-TURN-0123456789";
    struct store *s = store_new("turn-delete");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct history_accept again, next;
    struct turn_row reply, gone, edit, stop;
    struct turn_view view;
    struct answer a = {0};

    (void)state;
    make_chat(s, &chat);
    again = an_accept(&chat, T0 + 10, "client-1", words);
    assert_int_equal(do_accept(s, &again, &a), TR_OK);
    chat.head = again.row.turn;
    chat.index = 1;
    gone = an_event(&chat, chat.head, 0, TURN_EVENT_DELETE, 0);
    assert_int_equal(do_append(s, &gone, 1, &a), TR_OK);
    assert_true(a.mine);
    assert_int_equal(do_append(s, &gone, 1, &a), TR_OK);
    assert_true(a.mine);

    reply = a_row(&chat, chat.head, PART_FIRST_VARIANT, "late");
    assert_int_equal(do_append(s, &reply, 1, &a), TR_NOT_FOUND);
    edit = a_row(&chat, chat.head, PART_USER, "late");
    edit.rev = 1;
    assert_int_equal(do_append(s, &edit, 1, &a), TR_NOT_FOUND);
    stop = an_event(&chat, chat.head, 1, TURN_EVENT_STOP, 0);
    assert_int_equal(do_append(s, &stop, 1, &a), TR_NOT_FOUND);
    stop.rev = 0;
    assert_int_equal(do_append(s, &stop, 1, &a), TR_OK); /* somebody else's event stands there */
    assert_false(a.mine);
    assert_int_equal(a.rows[0].event, TURN_EVENT_DELETE);

    assert_int_equal(do_turn_get(s, &chat.chat, &chat.head, &a), TR_OK);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.rows[1].part, PART_USER);
    assert_int_equal(a.rows[1].sealed_len, 0);
    turn_fold(a.rows, a.n, &view);
    assert_true(view.deleted);
    assert_int_equal(do_accept(s, &again, &a), TR_OK); /* the client id is remembered */
    assert_int_equal(a.accepted.outcome, ACCEPT_KNOWN);
    next = an_accept(&chat, T0 + 30, "client-2", "next");
    assert_int_equal(do_accept(s, &next, &a), TR_OK);
    assert_int_equal(a.accepted.outcome, ACCEPT_DONE);
    answer_release(&a);
    store_close(s);
    assert_on_disk(s, words, false);
    store_free(s);
}

/* A cancelled write may land; issued again it is settled. */
static void test_cancel(void **state)
{
    struct store *s = store_new("cancel");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct history_accept acc;
    struct answer write = {0}, read = {0}, a = {0};

    (void)state;
    make_chat(s, &chat);
    acc = an_accept(&chat, T0 + 10, "client-1", "words");
    write.w.loop = read.w.loop = s->loop;
    wait_started(&write.w, s->h->ops->accept(s->h, &acc, on_accept_answer, &write, &write.w.op, &write.w.err));
    wait_started(&read.w,
                 s->h->ops->turn_get(s->h, &chat.chat, &chat.head, on_rows_answer, &read, &read.w.op, &read.w.err));
    tr_op_cancel(write.w.op);
    tr_op_cancel(write.w.op);
    tr_op_cancel(read.w.op);
    assert_int_equal(write.w.calls, 0); /* not from inside the call */
    support_count(s->loop, &write.w.calls, 1);
    support_count(s->loop, &read.w.calls, 1);
    assert_int_equal(write.w.rc, TR_CANCELLED);
    assert_int_equal(read.w.rc, TR_CANCELLED);
    assert_int_equal(do_accept(s, &acc, &a), TR_OK);
    assert_true(a.accepted.outcome == ACCEPT_DONE || a.accepted.outcome == ACCEPT_KNOWN);
    assert_true(uuid_eq(&a.accepted.turn, &acc.row.turn));
    assert_int_equal(write.w.calls, 1);
    store_free(s);
}

/* Closing ends what is under way. */
static void test_close(void **state)
{
    enum { OPS = 200 };
    static struct answer answers[OPS];
    struct store *s = store_new("close");
    struct history_chat chat = a_chat(an_id(T0), T0);
    char client[17];

    (void)state;
    memset(answers, 0, sizeof answers);
    make_chat(s, &chat);
    for (unsigned i = 0; i < OPS; i++) {
        struct answer *a = &answers[i];

        if (i % 2 == 0) {
            snprintf(client, sizeof client, "%u", i);
            const struct history_accept acc = an_accept(&chat, T0 + 10, client, "words");

            wait_started(&a->w, s->h->ops->accept(s->h, &acc, on_accept_answer, a, &a->w.op, &a->w.err));
        } else {
            wait_started(&a->w,
                         s->h->ops->turn_get(s->h, &chat.chat, &chat.head, on_rows_answer, a, &a->w.op, &a->w.err));
        }
        assert_int_equal(a->w.rc, TR_OK);
    }
    store_close(s);
    for (unsigned i = 0; i < OPS; i++) {
        assert_int_equal(answers[i].w.calls, 1);
        assert_int_equal(answers[i].w.rc, TR_CANCELLED);
        answer_release(&answers[i]);
    }
    store_free(s);
}

/* Rules 4 and 7: a read that is started in a write's callback sees it; what was handed in may be gone at once. */
struct chain {
    struct answer write, read; /* write first: it is the write's context */
    struct store *s;
    struct uuid chat, turn;
};

static void on_written(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err)
{
    struct chain *c = ctx;

    on_accept_answer(&c->write, rc, res, err);
    c->read.w.loop = c->s->loop;
    wait_started(&c->read.w, c->s->h->ops->turn_get(c->s->h, &c->chat, &c->turn, on_rows_answer, &c->read,
                                                    &c->read.w.op, &c->read.w.err));
}

static void test_read_after_write(void **state)
{
    struct store *s = store_new("chain");
    struct history_chat chat = a_chat(an_id(T0), T0);
    char client[17];

    (void)state;
    make_chat(s, &chat);
    for (unsigned i = 0; i < 300; i++) {
        char *words = strdup("borrowed words");
        struct chain c = {.s = s, .chat = chat.chat, .write = {.w = {.loop = s->loop}}};
        struct history_accept acc;

        snprintf(client, sizeof client, "%u", i);
        acc = an_accept(&chat, T0 + i, client, words);
        c.turn = acc.row.turn;
        wait_started(&c.write.w, s->h->ops->accept(s->h, &acc, on_written, &c, &c.write.w.op, &c.write.w.err));
        memset(words, 0, strlen(words));
        free(words);
        memset(&acc, 0, sizeof acc);
        support_count(s->loop, &c.read.w.calls, 1);
        assert_int_equal(c.read.w.rc, TR_OK);
        assert_int_equal(c.read.n, 1);
        assert_memory_equal(c.read.rows[0].sealed, "borrowed words", 14);
        answer_release(&c.read);
        chat.head = c.turn;
        chat.index++;
    }
    store_free(s);
}

/* What is hinted of the chat's change may be right, old, of a chat that was never so far, or nothing: it is a hint. */
static void test_wrong_hints(void **state)
{
    static const uint64_t hints[] = {0, 1, 2, 5, 6, 1000, INT64_MAX, UINT64_MAX, 3, 0};
    struct store *s = store_new("hints");
    struct history_chat chat = a_chat(an_id(T0), T0);
    struct answer a = {0};

    (void)state;
    make_chat(s, &chat);
    for (unsigned i = 0; i < sizeof hints / sizeof *hints; i++) {
        struct history_accept acc;
        char client[17];

        snprintf(client, sizeof client, "%u", i);
        acc = an_accept(&chat, T0 + i, client, "words");
        acc.change = hints[i];
        for (int k = 0; k < 2; k++) { /* and the same once more */
            assert_int_equal(do_accept(s, &acc, &a), TR_OK);
            assert_int_equal(a.accepted.outcome, k == 0 ? ACCEPT_DONE : ACCEPT_KNOWN);
            assert_true(uuid_eq(&a.accepted.head, &acc.row.turn));
        }
        assert_int_equal(do_chat_get(s, &chat.chat, &a), TR_OK);
        assert_int_equal(a.chat.change, i + 2);
        assert_int_equal(a.chat.index, i + 1);
        chat.head = a.chat.head;
        chat.index = a.chat.index;
    }
    store_free(s);
}

const struct CMUnitTest history_fault_tests[] = {
    cmocka_unit_test(test_wrong_hints),      cmocka_unit_test(test_killed), cmocka_unit_test(test_chat_delete),
    cmocka_unit_test(test_turn_delete),      cmocka_unit_test(test_cancel), cmocka_unit_test(test_close),
    cmocka_unit_test(test_read_after_write),
};
const size_t history_fault_tests_n = sizeof history_fault_tests / sizeof *history_fault_tests;
const struct CMUnitTest history_file_tests[] = {
    cmocka_unit_test(test_disk_full),
    cmocka_unit_test(test_no_copy_stays),
};
const size_t history_file_tests_n = sizeof history_file_tests / sizeof *history_file_tests;
