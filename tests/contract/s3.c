/*
 * s3 - what only a real S3 server can do to the media store: not there yet, stalled, restarted and killed in the middle of
 * uploads, a wrong secret, no bucket.  Runs where TROUPE_TEST_S3 is set (tests/servers/s3.sh).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/s3/impl.h"
#include "media_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1024u * 1024)

static void server(const char *verb)
{
    support_server_do("s3", "TROUPE_TEST_S3_DIR", verb, 0);
    if (loop != NULL)
        support_for(loop, 1); /* the loop's clock stood still meanwhile */
}

/* How long the loop was held up, at worst. */
static struct {
    struct loop_timer *timer;
    uint64_t last_ns, worst_ns;
} beat;

static void on_beat(void *ctx)
{
    const uint64_t now = mono_ns();

    (void)ctx;
    if (now - beat.last_ns > beat.worst_ns)
        beat.worst_ns = now - beat.last_ns;
    beat.last_ns = now;
}

static void beat_start(void)
{
    beat.last_ns = mono_ns();
    beat.worst_ns = 0;
    assert_int_equal(timer_start(loop, 1, 1, on_beat, NULL, &beat.timer), TR_OK);
}

static void beat_stop(const char *when)
{
    timer_stop(beat.timer);
    print_message("  %s: the loop's longest pause was %.1f ms\n", when, (double)beat.worst_ns / 1e6);
    assert_true(beat.worst_ns < 250 * UINT64_C(1000000)); /* of a sanitizer, on a machine that others use */
}

struct many {
    size_t ended, by_rc[TR_RC_COUNT];
};

static void on_many(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct many *m = ctx;

    (void)err;
    m->ended++;
    m->by_rc[rc]++;
}

static void many_marks(struct many *m, unsigned from, unsigned n)
{
    struct tr_op *op = NULL;

    for (unsigned i = from; i < from + n; i++)
        assert_int_equal(store->ops->mark(store, mark_of(i, 1, 1), on_many, m, &op, NULL), TR_OK);
}

/* ---- check, init ---- */

struct checked {
    struct wait w; /* first */
    struct service_report report;
};

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct checked *c = ctx;

    wait_called(&c->w, rc, err);
    assert_int_equal(report != NULL, rc == TR_OK);
    if (report != NULL)
        c->report = *report;
}

static enum tr_rc check(struct media *m, struct checked *c)
{
    *c = (struct checked){.w.loop = loop};
    return wait_end(&c->w, m->ops->check(m, on_checked, c, &c->w.op, &c->w.err));
}

static struct media *open_other(const char *url, const char *endpoint, const char *secret)
{
    struct media *m = NULL;
    struct tr_err err = {0};

    if (media_s3_open(loop, url, endpoint, secret, &m, &err) != TR_OK)
        fail_msg("%s", err.msg);
    return m;
}

static void assert_says(const struct tr_err *err, const char *words)
{
    if (strstr(err->msg, words) == NULL)
        fail_msg("it does not say '%s': %s", words, err->msg);
}

static void bucket_is_made(void **state)
{
    struct media *m[3] = {NULL};
    struct wait w[3];
    struct checked c;
    char url[128];

    (void)state;
    snprintf(url, sizeof url, "s3://troupe-new-%d", (int)getpid());
    for (size_t i = 0; i < 3; i++)
        m[i] = open_other(url, NULL, NULL);
    assert_int_equal(check(m[0], &c), TR_NOT_FOUND);
    assert_says(&c.w.err, "has no bucket");
    assert_says(&c.w.err, "troupe init");
    for (int round = 0; round < 2; round++) { /* all at once, and twice */
        for (size_t i = 0; i < 3; i++) {
            w[i] = (struct wait){.loop = loop};
            wait_started(&w[i], m[i]->ops->init(m[i], wait_done, &w[i], &w[i].op, &w[i].err));
        }
        for (size_t i = 0; i < 3; i++) {
            support_count(loop, &w[i].calls, 1);
            if (w[i].rc != TR_OK)
                fail_msg("%s", w[i].err.msg);
        }
    }
    assert_int_equal(check(m[0], &c), TR_OK);
    if (strstr(c.report.server, "at 127.0.0.1:") == NULL || strstr(c.report.server, "troupe-new-") == NULL)
        fail_msg("%s", c.report.server);
    assert_true(c.report.clock_ms == 0 || llabs((long long)c.report.clock_ms - (long long)wall_ms()) < 2000);
    for (size_t i = 0; i < 3; i++)
        m[i]->ops->close(m[i]);
}

/* Every operation says so, in words, and none shows the secret. */
static void wrong_secret(void **state)
{
    struct media *m = open_other(media_s3_place(), NULL, "another-secret"), *const ours = store;
    struct checked c;
    struct wait w = {.loop = loop};
    struct got *g = NULL;
    struct tr_err err = {0};

    (void)state;
    assert_int_equal(check(m, &c), TR_INVALID);
    assert_says(&c.w.err, "S3_SECRET_ACCESS_KEY");
    assert_null(strstr(c.w.err.msg, "another-secret"));
    assert_null(strstr(c.w.err.msg, getenv("TROUPE_TEST_S3_SECRET_KEY")));
    assert_int_equal(wait_end(&w, m->ops->init(m, wait_done, &w, &w.op, &w.err)), TR_INVALID);
    assert_says(&w.err, "S3_SECRET_ACCESS_KEY");
    store = m;
    assert_int_equal(put_all(object(1), 1, 10, 10, &err), TR_TRANSIENT);
    assert_says(&err, "S3_SECRET_ACCESS_KEY");
    assert_int_equal(put_all(object(1), 1, 6 * MIB, MIB, &err), TR_TRANSIENT);
    assert_int_equal(read_at(object(1), 0, 10, &g), TR_TRANSIENT);
    assert_int_equal(mark(mark_of(1, 1, 1)), TR_TRANSIENT);
    assert_int_equal(remove_name(object(1)), TR_TRANSIENT);
    assert_int_equal(list(USER "/", "", 10, &g), TR_TRANSIENT);
    store = ours;
    m->ops->close(m);
    assert_absent(object(1));
}

static void no_bucket(void **state)
{
    struct media *m = open_other("s3://troupe-none", NULL, NULL), *const ours = store;
    struct got *g = NULL;
    struct tr_err err = {0};

    (void)state;
    store = m;
    assert_true(put_all(object(1), 1, 10, 10, &err) != TR_OK);
    assert_says(&err, "troupe init");
    assert_true(put_all(object(1), 1, 6 * MIB, MIB, &err) != TR_OK);
    assert_int_equal(read_at(object(1), 0, 10, &g), TR_TRANSIENT); /* and not: there is no such object */
    assert_int_equal(list(USER "/", "", 10, &g), TR_TRANSIENT);
    assert_int_equal(remove_name(object(1)), TR_TRANSIENT); /* and not: it is gone */
    store = ours;
    m->ops->close(m);
}

static void settings_refused(void **state)
{
    static const struct {
        const char *url, *endpoint, *secret, *words;
    } rows[] = {
        {"s3://", "http://a", "s", "s3://bucket"},
        {"s3://ab", "http://a", "s", "s3://bucket"},
        {"s3://Bucket", "http://a", "s", "s3://bucket"},
        {"s3:bucket", "http://a", "s", "s3://bucket"},
        {"s3://buc%20ket", "http://a", "s", "s3://bucket"},
        {"s3://bucket/a b", "http://a", "s", "prefix"},
        {"s3://bucket/\xc3\xa4", "http://a", "s", "prefix"},
        {"s3://bucket/a%2fb", "http://a", "s", "prefix"},
        {"s3://bucket/a+b", "http://a", "s", "prefix"},
        {"s3://bucket/a?x=1", "http://a", "s", "prefix"},
        {"s3://bucket/../x", "http://a", "s", "prefix"},
        {"s3://bucket//x", "http://a", "s", "prefix"},
        {"s3://bucket", "127.0.0.1:9000", "s", "like http://127.0.0.1:9000"},
        {"s3://bucket", "ftp://a", "s", "S3_ENDPOINT_URL"},
        {"s3://bucket", "http://user:pw@a", "s", "S3_ENDPOINT_URL"},
        {"s3://bucket", "http://a/path", "s", "S3_ENDPOINT_URL"},
        {"s3://bucket", "http://a:99999", "s", "S3_ENDPOINT_URL"},
        {"s3://bucket", "http://a", "", "S3_SECRET_ACCESS_KEY"},
        {"s3://bucket", "http://a", "line\nbreak", "S3_SECRET_ACCESS_KEY"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct media *m = NULL;
        struct tr_err err = {0};

        if (media_s3_open(loop, rows[i].url, rows[i].endpoint, rows[i].secret, &m, &err) != TR_INVALID)
            fail_msg("%s at %s is taken", rows[i].url, rows[i].endpoint);
        assert_says(&err, rows[i].words);
        if (strstr(err.msg, "S3_ENDPOINT_URL") != NULL) /* named once */
            assert_null(strstr(strstr(err.msg, "S3_ENDPOINT_URL") + 1, "S3_ENDPOINT_URL"));
        if (strlen(rows[i].secret) > 1)
            assert_null(strstr(err.msg, rows[i].secret));
        assert_null(strstr(err.msg, ":pw"));
    }
}

/* ---- it is away ---- */

/* Begun while nothing is there: done when it comes; past the deadline TR_TRANSIENT, for nothing was sent. */
static void waits_for_it(void **state)
{
    struct many m = {0};
    struct got *g = NULL;
    struct checked c;
    uint64_t start;

    (void)state;
    assert_int_equal(put_all(object(1), 1, 6 * MIB, MIB, NULL), TR_OK);
    media_close();
    server("kill");
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    assert_int_equal(media_s3_open(loop, media_s3_place(), NULL, NULL, &store, NULL), TR_OK);
    start = mono_ns();
    assert_int_equal(check(store, &c), TR_TRANSIENT);
    assert_says(&c.w.err, "S3 at 127.0.0.1:");
    assert_says(&c.w.err, "is it running");
    assert_true(mono_ns() - start < 5 * UINT64_C(1000000000));
    start = mono_ns();
    assert_int_equal(mark(mark_of(1, 1, 1)), TR_TRANSIENT);
    assert_true(mono_ns() - start > 9 * UINT64_C(1000000000));
    assert_true(mono_ns() - start < 12 * UINT64_C(1000000000));
    many_marks(&m, 100, 200);
    server("start");
    support_count(loop, &m.ended, 200);
    assert_int_equal(m.by_rc[TR_OK], 200);
    assert_object(object(1), 1, 6 * MIB);
    assert_int_equal(list(USER "/", object(2), 1000, &g), TR_OK);
    assert_int_equal(g->n, 200);
    assert_int_equal(check(store, &c), TR_OK);
}

static void stalls(void **state)
{
    struct media_put *put = NULL;
    struct many m = {0};
    struct got *g = NULL;
    struct tr_err err = {0};
    uint64_t start;
    enum tr_rc rc;

    (void)state;
    assert_int_equal(put_all(object(1), 1, 3 * MIB, MIB, NULL), TR_OK);
    assert_int_equal(store->ops->put_start(store, object(2), 12 * MIB, &put, NULL), TR_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(write_piece(put, 2, i * MIB, MIB, NULL), TR_OK);
    server("pause");
    beat_start();
    start = mono_ns();
    many_marks(&m, 100, 100);
    rc = read_at(object(1), 0, MIB, &g);
    assert_int_equal(rc, TR_TRANSIENT);
    support_count(loop, &m.ended, 100);
    assert_true(mono_ns() - start < 12 * UINT64_C(1000000000));
    assert_int_equal(m.by_rc[TR_UNCERTAIN] + m.by_rc[TR_TRANSIENT], 100);
    beat_stop("stalled");
    server("resume");
    assert_object(object(1), 1, 3 * MIB);
    for (unsigned i = 4; i < 12; i++)
        if (write_piece(put, 2, i * MIB, MIB, &err) != TR_OK)
            fail_msg("%s", err.msg);
    assert_int_equal(finish(put, NULL), TR_OK);
    store->ops->put_free(put);
    assert_object(object(2), 2, 12 * MIB);
}

/* In the middle of an upload, between its pieces and while one is on its way: it goes on, and is whole. */
static void goes_in_mid_upload(void **state)
{
    static const char *const verbs[] = {"stop", "kill", "kill"};
    struct media_put *put = NULL;
    static uint8_t bytes[MIB];

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        struct wait w = {.loop = loop};
        struct tr_err err = {0};

        assert_int_equal(store->ops->put_start(store, object(round), 13 * MIB, &put, NULL), TR_OK);
        for (unsigned i = 0; i < 9; i++)
            assert_int_equal(write_piece(put, round, i * MIB, MIB, NULL), TR_OK);
        if (round == 1)
            server(verbs[round]);
        content(round, 9 * MIB, bytes, sizeof bytes);
        wait_started(&w, store->ops->put_write(put, bytes, sizeof bytes, wait_done, &w, &w.op, &w.err)); /* a part */
        assert_int_equal(w.rc, TR_OK);
        if (round != 1) {
            support_for(loop, 3);
            server(verbs[round]);
        }
        support_for(loop, 300); /* it is tried in vain */
        server("start");
        support_count(loop, &w.calls, 1);
        if (w.rc != TR_OK)
            fail_msg("round %u: %s", round, w.err.msg);
        for (unsigned i = 10; i < 13; i++)
            assert_int_equal(write_piece(put, round, i * MIB, MIB, NULL), TR_OK);
        if (finish(put, &err) != TR_OK)
            fail_msg("round %u: %s", round, err.msg);
        store->ops->put_free(put);
        assert_object(object(round), round, 13 * MIB);
    }
}

/* Killed while objects end: each is there whole or not at all, and what was said to be there is. */
static void is_killed(void **state)
{
    struct many m = {0};
    struct got *g = NULL;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        struct media_put *puts[8] = {NULL};
        struct wait w[8];

        for (unsigned i = 0; i < 8; i++) {
            w[i] = (struct wait){.loop = loop};
            assert_int_equal(store->ops->put_start(store, object(i), MIB, &puts[i], NULL), TR_OK);
            assert_int_equal(write_piece(puts[i], i, 0, MIB, NULL), TR_OK);
            wait_started(&w[i], store->ops->put_finish(puts[i], wait_done, &w[i], &w[i].op, &w[i].err));
        }
        many_marks(&m, 100 + round * 100, 100);
        support_for(loop, round * 7);
        server("kill");
        support_for(loop, 300);
        server("start");
        support_count(loop, &m.ended, (round + 1) * 100);
        assert_int_equal(m.by_rc[TR_OK], m.ended); /* it came back within their time */
        for (unsigned i = 0; i < 8; i++) {
            support_count(loop, &w[i].calls, 1);
            if (w[i].rc != TR_OK)
                fail_msg("%s", w[i].err.msg);
            store->ops->put_free(puts[i]);
            assert_object(object(i), i, MIB);
        }
    }
    assert_int_equal(list(USER "/", object(50), 1000, &g), TR_OK);
    assert_int_equal(g->n, 300);
}

static void speed(void **state)
{
    struct tr_err err = {0};
    struct got *g = NULL;
    uint64_t start, wrote;

    (void)state;
    beat_start();
    start = mono_ns();
    if (put_all(object(1), 1, 40 * MIB, MIB, &err) != TR_OK)
        fail_msg("%s", err.msg);
    wrote = mono_ns() - start;
    start = mono_ns();
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(read_at(object(1), i * MIB, MIB, &g), TR_OK);
    print_message("  40 MiB: written in %.2f s, read in %.2f s\n", (double)wrote / 1e9,
                  (double)(mono_ns() - start) / 1e9);
    beat_stop("40 MiB");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, media_set_up, media_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bucket_is_made),     TEST(wrong_secret), TEST(no_bucket),
        TEST(settings_refused),   TEST(waits_for_it), TEST(stalls),
        TEST(goes_in_mid_upload), TEST(is_killed),    TEST(speed),
    };

    if (support_server("TROUPE_TEST_S3") == NULL)
        return 77; /* Meson: skipped */
    subject = &media_adapters[1];
    return cmocka_run_group_tests_name("S3", tests, NULL, NULL);
}
