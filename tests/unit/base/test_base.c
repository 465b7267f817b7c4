/* Base: buffer, errors, configuration, the loop's order of calls, and what becomes of an offloaded job. */
#include "base/buf.h"
#include "base/config.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "base/offload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void json_strings(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_add_json_string(&b, "a\"b\\c\n\t\x01\x7f é", 12);
    assert_string_equal(buf_str(&b), "\"a\\\"b\\\\c\\n\\t\\u0001\\u007f é\"");
    buf_release(&b);
    assert_string_equal(buf_str(&b), "");
    buf_release(&b);
}

static void errors_are_wrapped_and_cut(void **state)
{
    char long_text[400];
    struct tr_err err = {0};

    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_int_equal(tr_fail(&err, TR_BUSY, "%s", "full"), TR_BUSY);
    assert_int_equal(tr_wrap(&err, TR_BUSY, "queue %d", 3), TR_BUSY);
    assert_string_equal(tr_err_text(&err), "queue 3: full");
    tr_fail(&err, TR_INVALID, "%s", long_text);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    tr_wrap(&err, TR_INVALID, "front");
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_memory_equal(err.msg, "front: xxx", 10);
    assert_int_equal(tr_fail(NULL, TR_NOMEM, "nobody looks"), TR_NOMEM);
}

static void configuration(void **state)
{
    static const struct {
        const char *text, *part; /* part: of the error, NULL: fine */
    } rows[] = {
        {"TROUPE_TEXT_MAX=17\n", NULL},
        {"# a comment\n\n  TROUPE_TEXT_MAX = 5", "unknown key"},
        {"OTHER=x\nTROUPE_TEXT_MAX='17'\n", NULL},
        {"TROUPE_TEXT_MAXX=17\n", "did you mean TROUPE_TEXT_MAX?"},
        {"\nno equals sign\n", "line 2"},
    };
    static const struct {
        const char *key, *value, *part;
    } numbers[] = {
        {"TROUPE_TEXT_MAX", "0", "from 1 to 100000"},
        {"TROUPE_TEXT_MAX", "8000x", "'8000x' is not a whole number"},
        {"TROUPE_TEXT_MAX", "-5", "'-5'"},
        {"TROUPE_LOAD_BOUND_PERCENT", "50", "from 100 to 1000, or 0"},
        {"TROUPE_LOAD_BOUND_PERCENT", "0", NULL},
        {"TROUPE_RATE_USER", "0", NULL},
        {"TROUPE_MEDIA_MAX_MIB", "99999999999999999999", "from 1 to 32768"},
    };
    char path[] = "/tmp/troupe-env-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *c = NULL;
        struct tr_err err = {0};
        uint64_t v = 0;
        enum tr_rc rc;

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, rows[i].text, strlen(rows[i].text), 0), (ssize_t)strlen(rows[i].text));
        rc = config_load(path, &c, &err);
        if (rows[i].part != NULL) {
            assert_int_equal(rc, TR_INVALID);
            assert_non_null(strstr(err.msg, rows[i].part));
            continue;
        }
        assert_int_equal(rc, TR_OK);
        assert_int_equal(config_u64(c, "TROUPE_TEXT_MAX", &v, &err), TR_OK);
        assert_int_equal(v, 17);
        assert_string_equal(config_str(c, "TROUPE_LISTEN"), "127.0.0.1:8080");
        setenv("TROUPE_TEXT_MAX", "99", 1); /* a variable wins over the file */
        config_free(c);
        assert_int_equal(config_load(path, &c, &err), TR_OK);
        assert_string_equal(config_str(c, "TROUPE_TEXT_MAX"), "99");
        unsetenv("TROUPE_TEXT_MAX");
        config_free(c);
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
            setenv(numbers[n].key, numbers[n].value, 1);
            rc = config_load(path, &c, &err);
            unsetenv(numbers[n].key);
            assert_int_equal(rc, numbers[n].part == NULL ? TR_OK : TR_INVALID);
            if (rc == TR_OK)
                config_free(c);
            else
                assert_true(strstr(err.msg, numbers[n].key) == err.msg && strstr(err.msg, numbers[n].part) != NULL);
        }
    }
    close(fd);
    unlink(path);
}

static const char *write_to(const char *path, const char *text, size_t len)
{
    FILE *const f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
    return path;
}

/* A value from a file: TROUPE_BROKER_FILE for TROUPE_BROKER. */
static void configuration_in_files(void **state)
{
    static const struct {
        const char *secret; /* what is in the file; NULL: there is none */
        size_t len;
        const char *value, *part; /* part: of the error */
    } rows[] = {
#define ROW(text, value, part) {text, sizeof text - 1, value, part}
        ROW("amqp://u:pw@host/", "amqp://u:pw@host/", NULL),
        ROW("amqp://u:pw@host/\r\n\n", "amqp://u:pw@host/", NULL),
        ROW("", "", NULL),
        ROW("pw1\npw2\n", NULL, "more than one line"),
        ROW("pw1\0pw2", NULL, "no text"),
#undef ROW
        {NULL, 0, NULL, "No such file"},
    };
    char dir[] = "/tmp/troupe-conf-XXXXXX", env[64], secret[64], line[160];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(env, sizeof env, "%s/.env", dir);
    snprintf(secret, sizeof secret, "%s/secret", dir);
    snprintf(line, sizeof line, "TROUPE_BROKER_FILE=%s\n", secret);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *c = NULL;
        struct tr_err err = {0};

        if (rows[i].secret != NULL)
            write_to(secret, rows[i].secret, rows[i].len);
        else
            unlink(secret);
        write_to(env, line, strlen(line));
        if (rows[i].part == NULL) {
            assert_int_equal(config_load(env, &c, &err), TR_OK);
            assert_string_equal(config_str(c, "TROUPE_BROKER"), rows[i].value);
            assert_true(config_is_set(c, "TROUPE_BROKER"));
            config_free(c);
            continue;
        }
        assert_int_equal(config_load(env, &c, &err), TR_INVALID);
        assert_non_null(strstr(err.msg, rows[i].part));
        assert_non_null(strstr(err.msg, "TROUPE_BROKER_FILE"));
        assert_null(strstr(err.msg, "pw")); /* nothing of what is in it */
    }
    unlink(env);
    rmdir(dir);
}

static void a_key_and_its_file(void **state)
{
    static const char both[] = "TROUPE_BROKER=a\nTROUPE_BROKER_FILE=/b\n", unknown[] = "TROUPE_BROKR_FILE=/b\n";
    char env[] = "/tmp/troupe-env-XXXXXX", secret[] = "/tmp/troupe-secret-XXXXXX", line[80];
    struct config *c = NULL;
    struct tr_err err = {0};

    (void)state;
    close(mkstemp(env));
    close(mkstemp(secret));
    write_to(secret, "of the file\n", 12);
    assert_int_equal(config_load(write_to(env, both, strlen(both)), &c, &err), TR_INVALID);
    assert_non_null(strstr(err.msg, "TROUPE_BROKER and TROUPE_BROKER_FILE"));
    assert_int_equal(config_load(write_to(env, unknown, strlen(unknown)), &c, &err), TR_INVALID);
    assert_non_null(strstr(err.msg, "TROUPE_BROKR_FILE"));

    write_to(env, "TROUPE_BROKER=a\n", 16); /* the environment wins, in whichever form */
    setenv("TROUPE_BROKER_FILE", secret, 1);
    assert_int_equal(config_load(env, &c, &err), TR_OK);
    assert_string_equal(config_str(c, "TROUPE_BROKER"), "of the file");
    config_free(c);
    setenv("TROUPE_BROKER", "b", 1);
    assert_int_equal(config_load(env, &c, &err), TR_INVALID);
    unsetenv("TROUPE_BROKER_FILE");
    snprintf(line, sizeof line, "TROUPE_BROKER_FILE=%s\n", secret);
    assert_int_equal(config_load(write_to(env, line, strlen(line)), &c, &err), TR_OK);
    assert_string_equal(config_str(c, "TROUPE_BROKER"), "b");
    config_free(c);
    unsetenv("TROUPE_BROKER");

    setenv("TROUPE_MASTER_KEY_FILE", secret, 1); /* is a key itself */
    assert_int_equal(config_load("/nowhere", &c, &err), TR_OK);
    assert_string_equal(config_str(c, "TROUPE_MASTER_KEY_FILE"), secret);
    config_free(c);
    unsetenv("TROUPE_MASTER_KEY_FILE");
    unlink(env);
    unlink(secret);
}

struct mark {
    struct loop_call call;
    struct loop *loop;
    char name;
};
static char order[16];

static void on_mark(struct loop_call *call)
{
    struct mark *m = (struct mark *)call;

    order[strlen(order)] = m->name;
    if (m->name == 'c')
        loop_stop(m->loop);
}

struct ticks {
    struct loop *loop;
    uint64_t times[8], last_ms;
    size_t wakeups;
};
struct ticker {
    struct ticks *all;
    size_t which;
};

static void on_ticker(void *ctx)
{
    const struct ticker *t = ctx;
    struct ticks *all = t->all;
    const uint64_t now = loop_now_ms(all->loop);

    all->wakeups += now != all->last_ms;
    all->last_ms = now;
    if (++all->times[t->which] == 20 && t->which == 0)
        loop_stop(all->loop);
}

/* Timers of one period that were started at different times come together; those of twice the period with every second. */
static void ticks_share_wakeups(void **state)
{
    struct ticks all = {0};
    struct ticker tickers[8];
    struct loop_timer *timers[8];

    (void)state;
    assert_int_equal(loop_new(&all.loop, NULL), TR_OK);
    for (size_t i = 0; i < 8; i++) {
        tickers[i] = (struct ticker){&all, i};
        assert_int_equal(timer_start(all.loop, i * 3, i < 4 ? 20 : 40, on_ticker, &tickers[i], &timers[i]), TR_OK);
    }
    loop_run(all.loop);
    for (size_t i = 0; i < 8; i++) {
        assert_in_range(all.times[i], i < 4 ? 18 : 9, i < 4 ? 21 : 12);
        timer_stop(timers[i]);
    }
    assert_in_range(all.wakeups, 19, 8 + 19 + 6); /* first ones apart; 118 if all were */
    loop_free(all.loop);
}

static void calls_come_in_order(void **state)
{
    struct loop *loop = NULL;
    struct mark a = {.call.fn = on_mark, .name = 'a'}, b = {.call.fn = on_mark, .name = 'b'},
                c = {.call.fn = on_mark, .name = 'c'};

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    c.loop = loop;
    loop_defer(loop, &a.call);
    loop_defer(loop, &b.call);
    loop_defer(loop, &c.call);
    assert_string_equal(order, "");
    loop_run(loop);
    assert_string_equal(order, "abc");
    loop_free(loop);
}

struct job {
    struct offload_job job;
    struct loop *loop;
    unsigned sleep_ms;
    int done, released;
    enum tr_rc rc;
    bool worked, last;
};
static bool fail_batch;

static enum tr_rc work(struct offload_job *job, void *state)
{
    (void)state;
    usleep(((struct job *)job)->sleep_ms * 1000);
    return TR_OK;
}

static void on_done(struct offload_job *job, enum tr_rc rc, const struct tr_err *err)
{
    struct job *j = (struct job *)job;

    assert_true(rc == TR_OK ? err == NULL : true);
    j->done++;
    j->rc = rc;
    j->worked = job->worked;
}

static void on_release(struct offload_job *job)
{
    struct job *j = (struct job *)job;

    assert_int_equal(j->done, 1);
    j->released++;
    if (j->last)
        loop_stop(j->loop);
}

static enum tr_rc end(void *state, bool any_write, struct tr_err *err)
{
    (void)state;
    (void)any_write;
    return fail_batch ? tr_fail(err, TR_TRANSIENT, "commit") : TR_OK;
}

static struct job new_job(struct loop *loop, unsigned sleep_ms, bool write, bool last)
{
    return (struct job){.job = {.work = work, .done = on_done, .release = on_release, .write = write},
                        .loop = loop,
                        .sleep_ms = sleep_ms,
                        .last = last};
}

static void an_offloaded_job_ends_once(void **state)
{
    const struct offload_hooks hooks = {.end = end, .timeout_ms = 300};
    struct loop *loop = NULL;
    struct offload *o = NULL;
    struct job slow, late, cancelled, fine, failed;

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    assert_int_equal(offload_start(loop, "test", &hooks, &o, NULL), TR_OK);

    slow = new_job(loop, 900, true, false); /* past its deadline while it runs: a write may have landed */
    late = new_job(loop, 0, false, true);   /* past its deadline while it waits: a read is as if never made */
    cancelled = new_job(loop, 0, true, false);
    assert_int_equal(offload_submit(o, &slow.job), TR_OK);
    usleep(20000); /* so that it is a batch of its own */
    assert_int_equal(offload_submit(o, &cancelled.job), TR_OK);
    assert_int_equal(offload_submit(o, &late.job), TR_OK);
    tr_op_cancel(&cancelled.job.op);
    tr_op_cancel(&cancelled.job.op);
    assert_int_equal(cancelled.done, 0); /* never from inside the call */
    loop_run(loop);
    assert_int_equal(slow.rc, TR_UNCERTAIN);
    assert_int_equal(late.rc, TR_TRANSIENT);
    assert_int_equal(cancelled.rc, TR_CANCELLED);
    assert_true(slow.released == 1 && late.released == 1 && cancelled.released == 1);
    assert_false(slow.worked);

    fine = new_job(loop, 0, true, true);
    assert_int_equal(offload_submit(o, &fine.job), TR_OK);
    loop_run(loop);
    assert_true(fine.rc == TR_OK && fine.worked);

    fail_batch = true;
    failed = new_job(loop, 0, true, false);
    assert_int_equal(offload_submit(o, &failed.job), TR_OK);
    offload_stop(o); /* runs what waits */
    assert_true(failed.rc == TR_TRANSIENT && !failed.worked && failed.released == 1);
    loop_free(loop);
}

static void metrics_text(void **state)
{
    static struct metric a = METRIC(METRIC_COUNTER, "t_total", "x=\"1\"", "A count.");
    static struct metric other = METRIC(METRIC_GAUGE, "t_now", NULL, "A gauge.");
    static struct metric b = METRIC(METRIC_COUNTER, "t_total", "x=\"2\"", "A count.");
    static struct metric h = METRIC(METRIC_HISTOGRAM, "t_seconds", NULL, "A time.");
    static struct metric none = METRIC(METRIC_COUNTER, "t_none_total", NULL, "Nothing yet.");
    struct buf out = {0};
    const char *text;

    (void)state;
    metric_add(&a, 2);
    metric_set(&other, 7);
    metric_add(&b, 3);
    metric_observe_us(&h, 1500);
    metric_observe_us(&h, 400000000);
    metric_show(&none);
    metrics_render(&out);
    text = buf_str(&out);
    assert_non_null(strstr(text, "# TYPE t_total counter\nt_total{x=\"1\"} 2\nt_total{x=\"2\"} 3\n"));
    assert_non_null(strstr(text, "t_now 7\n"));
    assert_non_null(strstr(text, "t_seconds_bucket{le=\"0.001\"} 0\nt_seconds_bucket{le=\"0.002\"} 1\n"));
    assert_non_null(strstr(text, "t_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 400.001500\nt_seconds_count 2\n"));
    assert_non_null(strstr(text, "t_none_total 0\n"));
    assert_non_null(strstr(text, "\nprocess_open_fds "));
    assert_non_null(strstr(text, "troupe_build_info{version="));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_strings),        cmocka_unit_test(errors_are_wrapped_and_cut),
        cmocka_unit_test(configuration),       cmocka_unit_test(configuration_in_files),
        cmocka_unit_test(a_key_and_its_file),  cmocka_unit_test(ticks_share_wakeups),
        cmocka_unit_test(calls_come_in_order), cmocka_unit_test(an_offloaded_job_ends_once),
        cmocka_unit_test(metrics_text),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
