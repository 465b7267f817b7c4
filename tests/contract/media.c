/* media - the contract of port/media.h, held against every adapter; what only a folder does: media_disk.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "media_cancel.h"
#include "media_disk.h"
#include "media_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define MIB (1024u * 1024)
#define PART (5 * MIB)
#define HOUR_MS UINT64_C(3600000)

/* ---- objects ---- */

static void whole(void **state)
{
    static const struct {
        uint64_t size;
        size_t piece;
    } rows[] = {
        {1, 1},          {65593, 65593},  {MIB, 300007}, {3 * MIB + 1, MIB},      {PART, 999983},      {PART - 1, MIB},
        {PART + 1, MIB}, {2 * PART, MIB}, {PART, MIB},   {2 * PART - 1, 1000003}, {2 * PART + 7, MIB}, {0, 1},
    };
    char name[MEDIA_NAME_MAX + 1];

    (void)state;
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tr_err err = {0};

        snprintf(name, sizeof name, "%s", object(i));
        assert_absent(name);
        if (put_all(name, i, rows[i].size, rows[i].piece, &err) != TR_OK)
            fail_msg("%llu bytes: %s", (unsigned long long)rows[i].size, err.msg);
        assert_object(name, i, rows[i].size);
    }
    assert_int_equal(subject->left(), 0);
}

static void is_replaced(void **state)
{
    static const uint64_t sizes[] = {100000, 6 * MIB, 7, 6 * MIB};
    struct media_put *put = NULL;
    char name[MEDIA_NAME_MAX + 1];

    (void)state;
    snprintf(name, sizeof name, "%s", object(1));
    assert_int_equal(put_all(name, 99, 50, 50, NULL), TR_OK);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(store->ops->put_start(store, name, sizes[i], &put, NULL), TR_OK);
        for (uint64_t at = 0; at < sizes[i]; at += MIB)
            assert_int_equal(write_piece(put, i, at, sizes[i] - at < MIB ? (size_t)(sizes[i] - at) : MIB, NULL), TR_OK);
        assert_object(name, i == 0 ? 99 : i - 1, i == 0 ? 50 : sizes[i - 1]); /* the old one, until then */
        assert_int_equal(finish(put, NULL), TR_OK);
        assert_object(name, i, sizes[i]);
        store->ops->put_free(put);
        assert_object(name, i, sizes[i]);
    }
}

static void reads(void **state)
{
    const uint64_t size = 3 * MIB + 5;
    static const struct {
        uint64_t from;
        size_t len, want;
    } rows[] = {
        {0, 1, 1},
        {0, MIB, MIB},
        {1, 65593, 65593},
        {MIB - 1, 2, 2},
        {3 * MIB, 5, 5},
        {3 * MIB, MIB, 5},
        {3 * MIB + 4, 1, 1},
        {3 * MIB + 4, 100, 1},
        {3 * MIB + 5, 1, 0},
        {3 * MIB + 5, MIB, 0},
        {3 * MIB + 6, 1, 0},
        {UINT64_C(1) << 40, MIB, 0},
        {12345, 54321, 54321},
    };
    struct got *g = NULL;
    char name[MEDIA_NAME_MAX + 1];

    (void)state;
    snprintf(name, sizeof name, "%s", object(1));
    assert_int_equal(put_all(name, 5, size, MIB, NULL), TR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(read_at(name, rows[i].from, rows[i].len, &g), TR_OK);
        if (g->data.len != rows[i].want || g->size != size)
            fail_msg("row %zu: %zu bytes of %llu", i, g->data.len, (unsigned long long)g->size);
        for (size_t k = 0; k < g->data.len; k++)
            assert_int_equal(g->data.data[k], content_byte(5, rows[i].from + k));
    }
    assert_absent(object(2));
    assert_absent(OTHER_USER "/01890000-0000-7000-9000-000000000001");
}

/* What is not `size` bytes is not there. */
static void wrong_size(void **state)
{
    struct media_put *put = NULL;
    char name[MEDIA_NAME_MAX + 1];
    enum tr_rc rc;

    (void)state;
    snprintf(name, sizeof name, "%s", object(1));
    for (int i = 0; i < 4; i++) {
        const uint64_t size = i < 2 ? 1000 : 6 * MIB;

        assert_int_equal(store->ops->put_start(store, name, i % 2 == 0 ? size + 1 : size - 1, &put, NULL), TR_OK);
        rc = TR_OK;
        for (uint64_t at = 0; rc == TR_OK && at < size; at += MIB)
            rc = write_piece(put, 1, at, size - at < MIB ? (size_t)(size - at) : MIB, NULL);
        if (rc == TR_OK)
            rc = finish(put, NULL);
        assert_int_equal(rc, TR_INVALID);
        store->ops->put_free(put);
        assert_absent(name);
    }
    support_for(loop, 100);
    assert_int_equal(subject->left(), 0);
}

/* Given up before, between and after the pieces. */
static void is_given_up(void **state)
{
    struct media_put *put = NULL;
    char name[MEDIA_NAME_MAX + 1];

    (void)state;
    store->ops->put_free(NULL);
    snprintf(name, sizeof name, "%s", object(1));
    for (unsigned pieces = 0; pieces <= 12; pieces += 3) {
        assert_int_equal(store->ops->put_start(store, name, 12 * MIB, &put, NULL), TR_OK);
        for (unsigned i = 0; i < pieces; i++)
            assert_int_equal(write_piece(put, 1, i * MIB, MIB, NULL), TR_OK);
        assert_absent(name);
        store->ops->put_free(put);
        assert_absent(name);
    }
    media_await_none_left();
}

/* ---- a crash ---- */

static void write_and_die(void *ctx)
{
    struct media_put *put = NULL;

    (void)ctx;
    media_open();
    assert_int_equal(put_all(object(1), 1, 7 * MIB, MIB, NULL), TR_OK);
    assert_int_equal(store->ops->put_start(store, object(2), 12 * MIB, &put, NULL), TR_OK);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(write_piece(put, 2, i * MIB, MIB, NULL), TR_OK);
    assert_int_equal(mark(mark_of(1, 1, 1)), TR_OK);
    support_child_end(SUPPORT_KILL);
}

static void crash(void **state)
{
    struct got *g = NULL;
    int status;

    (void)state;
    media_close();
    status = support_child(write_and_die, NULL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    media_open();
    assert_object(object(1), 1, 7 * MIB);
    assert_absent(object(2));
    assert_int_equal(list(USER "/", "", 100, &g), TR_OK);
    assert_int_equal(g->n, 2);
    assert_int_equal(subject->left(), 1);
    assert_int_equal(sweep(HOUR_MS), TR_OK); /* too young */
    assert_int_equal(subject->left(), 1);
    assert_int_equal(sweep(0), TR_OK);
    assert_int_equal(subject->left(), 0);
    assert_object(object(1), 1, 7 * MIB);
    assert_int_equal(sweep(0), TR_OK);
    assert_int_equal(put_all(object(2), 3, 100, 100, NULL), TR_OK);
    assert_object(object(2), 3, 100);
}

/* ---- marks, lists ---- */

static void marks(void **state)
{
    struct got *g = NULL;

    (void)state;
    assert_int_equal(put_all(object(1), 1, 70000, 70000, NULL), TR_OK);
    assert_int_equal(mark(mark_of(1, 2, 7)), TR_OK);
    assert_int_equal(mark(mark_of(1, 2, 7)), TR_OK); /* again */
    assert_int_equal(mark(mark_of(1, 1, 9)), TR_OK);
    assert_int_equal(mark(mark_of(2, 1, 9)), TR_OK); /* of an object that isn't there */
    assert_int_equal(list(object(1), "", 10, &g), TR_OK);
    assert_int_equal(g->n, 3);
    assert_string_equal(g->names[0], object(1));
    assert_string_equal(g->names[1], mark_of(1, 1, 9));
    assert_string_equal(g->names[2], mark_of(1, 2, 7));
    assert_int_equal(read_at(mark_of(1, 2, 7), 0, 10, &g), TR_OK);
    assert_int_equal(g->size, 0);
    assert_int_equal(g->data.len, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(remove_name(mark_of(1, 1, 9)), TR_OK);
    assert_int_equal(list(object(1), "", 10, &g), TR_OK);
    assert_int_equal(g->n, 2);
    assert_object(object(1), 1, 70000);
    for (int i = 0; i < 2; i++)
        assert_int_equal(remove_name(object(1)), TR_OK);
    assert_absent(object(1));
    assert_int_equal(list(object(1), "", 10, &g), TR_OK);
    assert_int_equal(g->n, 1); /* its mark stays */
    assert_int_equal(remove_name(OTHER_USER "/01890000-0000-7000-9000-000000000001"), TR_OK);
    assert_int_equal(list(OTHER_USER "/", "", 10, &g), TR_OK);
    assert_int_equal(g->n, 0);
    assert_false(g->more);
}

struct got_age {
    struct wait w;
    uint64_t age_ms;
};

static void on_age(void *ctx, enum tr_rc rc, uint64_t age_ms, const struct tr_err *err)
{
    struct got_age *g = ctx;

    g->age_ms = age_ms;
    wait_called(&g->w, rc, err);
}

static enum tr_rc age_of(const char *name, uint64_t *ret_ms)
{
    struct got_age g = {.w = {.loop = loop}};
    const enum tr_rc rc = wait_end(&g.w, store->ops->age(store, name, on_age, &g, &g.w.op, &g.w.err));

    *ret_ms = g.age_ms;
    return rc;
}

/* By the store's own clock, some to the second alone; what is put again is young again. */
static void ages(void **state)
{
    const uint64_t end = mono_ns() + SUPPORT_LIMIT_MS * UINT64_C(1000000);
    uint64_t ms = 0;

    (void)state;
    assert_int_equal(age_of(object(1), &ms), TR_NOT_FOUND);
    assert_int_equal(put_all(object(1), 1, 70000, 70000, NULL), TR_OK);
    assert_int_equal(mark(mark_of(1, 1, 9)), TR_OK);
    assert_int_equal(age_of(object(1), &ms), TR_OK);
    assert_true(ms < HOUR_MS);
    for (ms = 0; ms <= 2900 && mono_ns() < end; support_for(loop, 100))
        assert_int_equal(age_of(mark_of(1, 1, 9), &ms), TR_OK);
    assert_true(ms > 2900);
    assert_int_equal(mark(mark_of(1, 1, 9)), TR_OK);
    assert_int_equal(age_of(mark_of(1, 1, 9), &ms), TR_OK);
    assert_true(ms < 2900);
}

#define NAMES 1203u

static void make_names(void)
{
    struct tr_op *op = NULL;
    struct support_many m = {0};

    for (unsigned i = 0; i < NAMES; i++) { /* not in their order */
        const char *const name = mark_of(i * 7 % NAMES, 1, i % 3);

        assert_int_equal(store->ops->mark(store, name, support_many_done, &m, &op, NULL), TR_OK);
        if (i % 100 == 99)
            support_count(loop, &m.done, i + 1);
    }
    support_count(loop, &m.done, NAMES);
    assert_int_equal(m.failed, 0);
    assert_int_equal(mark(OTHER_USER "/01890000-0000-7000-9000-000000000001"), TR_OK);
}

static void lists(void **state)
{
    static const uint32_t limits[] = {1000, 1, 601, 602, 1000};
    char after[MEDIA_NAME_MAX + 1] = "", last[MEDIA_NAME_MAX + 1] = "";
    struct got *g = NULL;
    size_t seen = 0;

    (void)state;
    make_names();
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(list(USER "/", after, limits[i], &g), TR_OK);
        for (size_t k = 0; k < g->n; k++) {
            assert_true(strcmp(last, g->names[k]) < 0);
            assert_int_equal(strncmp(g->names[k], USER "/", 37), 0);
            memcpy(last, g->names[k], sizeof last);
        }
        seen += g->n;
        if (i == 0) { /* from the first again */
            assert_int_equal(g->n, 1000);
            seen = 0;
            last[0] = '\0';
            assert_true(g->more);
            continue;
        }
        assert_int_equal(g->n, i == 3 ? NAMES - 602 : i == 4 ? 0 : limits[i]);
        assert_int_equal(g->more, i < 3);
        memcpy(after, last, sizeof after);
    }
    assert_int_equal(seen, NAMES);
    /* as many as there are: nothing more */
    assert_int_equal(list(USER "/01890000-0000-7000-9000-00000000000", "", 16, &g), TR_OK);
    assert_int_equal(g->n, 16);
    assert_false(g->more);
    assert_int_equal(list(USER "/01890000-0000-7000-9000-00000000000", "", 15, &g), TR_OK);
    assert_int_equal(g->n, 15);
    assert_true(g->more);
    /* behind a name that isn't there */
    assert_int_equal(list(object(5), object(5), 10, &g), TR_OK);
    assert_int_equal(g->n, 1);
    assert_int_equal(list(object(5), object(6), 10, &g), TR_OK);
    assert_int_equal(g->n, 0);
}

/* ---- much at once ---- */

struct stream {
    struct media_put *put;
    struct tr_op *op;
    unsigned seed;
    uint64_t size, at;
    size_t piece, *over;
    bool finishing;
};

static void stream_next(struct stream *s);

static void on_stream(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct stream *s = ctx;

    if (rc != TR_OK)
        fail_msg("%s", tr_err_text(err));
    if (s->finishing)
        ++*s->over;
    else
        stream_next(s);
}

static void stream_next(struct stream *s)
{
    static uint8_t bytes[MIB];
    const size_t n = s->size - s->at < s->piece ? (size_t)(s->size - s->at) : s->piece;

    s->finishing = n == 0;
    if (s->finishing) {
        assert_int_equal(store->ops->put_finish(s->put, on_stream, s, &s->op, NULL), TR_OK);
        return;
    }
    content(s->seed, s->at, bytes, n);
    s->at += n;
    assert_int_equal(store->ops->put_write(s->put, bytes, n, on_stream, s, &s->op, NULL), TR_OK);
}

static void fifty_at_once(void **state)
{
    struct stream streams[50] = {0};
    size_t over = 0;

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        struct stream *const s = &streams[i];

        s->seed = i;
        s->size = i % 10 == 0 ? 6 * MIB + i : 200000 + i;
        s->piece = 65593;
        s->over = &over;
        assert_int_equal(store->ops->put_start(store, object(i), s->size, &s->put, NULL), TR_OK);
    }
    for (unsigned i = 0; i < 50; i++)
        stream_next(&streams[i]);
    support_count(loop, &over, 50);
    for (unsigned i = 0; i < 50; i++) {
        store->ops->put_free(streams[i].put);
        assert_object(object(i), i, streams[i].size);
    }
}

static void memory_is_bounded(void **state)
{
    const uint64_t size = 128 * MIB;
    struct media_put *put = NULL;
    const size_t before = allocated();
    struct got *g = NULL;
    size_t most = 0;

    (void)state;
    assert_int_equal(store->ops->put_start(store, object(1), size, &put, NULL), TR_OK);
    for (uint64_t at = 0; at < size; at += MIB) {
        const size_t now = allocated();

        most = now > before && now - before > most ? now - before : most;
        assert_int_equal(write_piece(put, 1, at, MIB, NULL), TR_OK);
    }
    assert_int_equal(finish(put, NULL), TR_OK);
    store->ops->put_free(put);
    for (uint64_t at = 0; at < size; at += 16 * MIB + 1) {
        assert_int_equal(read_at(object(1), at, MIB, &g), TR_OK);
        assert_int_equal(g->size, size);
        assert_int_equal(g->data.data[77], content_byte(1, at + 77));
    }
    print_message("  %zu KiB at most for 128 MiB\n", most / 1024);
    assert_true(most < 24 * MIB);
    support_for(loop, 300);
    assert_true(allocated() < before + 4 * MIB);
}

static void names(void **state)
{
    static const struct {
        const char *name;
        bool valid;
    } rows[] = {
        {USER "/01890000-0000-7000-9000-000000000001", true},
        {USER
         "/01890000-0000-7000-9000-000000000001.01890000-0000-7000-a000-000000000001.00000000000000000000000000000001",
         true},
        {USER "/0", true},
        {"", false},
        {USER, false},
        {USER "/", false},
        {USER "//", false},
        {USER "/.uploads", false},
        {USER "/..", false},
        {USER "/a/b", false},
        {"/" USER "/a", false},
        {USER "/A", false},
        {USER "/a%2f", false},
        {USER "/a b", false},
        {USER "/a+b", false},
        {USER "/\xc3\xa4", false},
        {USER "/a\n", false},
        {".1890000-0000-7000-8000-0000000000aa/a", false},
        {"../90000-0000-7000-8000-0000000000aa/a", false},
    };
    char long_name[MEDIA_NAME_MAX + 3];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (media_name_valid(rows[i].name) != rows[i].valid)
            fail_msg("%s", rows[i].name);
    memset(long_name, 'a', sizeof long_name);
    long_name[36] = '/';
    long_name[MEDIA_NAME_MAX + 1] = '\0';
    assert_false(media_name_valid(long_name));
    long_name[MEDIA_NAME_MAX] = '\0';
    assert_true(media_name_valid(long_name));
    assert_int_equal(mark(long_name), TR_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, media_set_up, media_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(whole),         TEST(is_replaced),   TEST(reads),
        TEST(wrong_size),    TEST(is_given_up),   TEST(crash),
        TEST(marks),         TEST(ages),          TEST(lists),
        TEST(names),         TEST(fifty_at_once), TEST(memory_is_bounded),
        TEST(media_cancels), TEST(media_closes),  TEST(media_begins_while_closing),
    };
    const struct CMUnitTest folder_tests[] = {
        TEST(media_disk_is_full),
        TEST(media_disk_has_no_space),
        TEST(media_disk_refused),
        TEST(media_disk_foreign_files),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof media_adapters / sizeof media_adapters[0]; i++) {
        subject = &media_adapters[i];
        if (subject->server == NULL ? support_real() : support_server(subject->server) == NULL)
            continue;
        failed += cmocka_run_group_tests_name(subject->name, tests, NULL, NULL);
        if (subject->server == NULL)
            failed += cmocka_run_group_tests_name("a folder", folder_tests, NULL, NULL);
    }
    return failed != 0;
}
