/* The S3 media against servers that misbehave: cut, busy, refusing, answering what nobody asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "contract/media_fixture.h"
#include "unit/adapter/s3_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A store on a server that answers so. */
static void start(s3_answers *answers)
{
    struct tr_err err = {0};

    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    if (media_s3_open(loop, "s3://bucket/pre.fix", s3_server_start(loop, answers), "very-secret", &store, &err) !=
        TR_OK)
        fail_msg("%s", err.msg);
}

/* How many it was asked. */
static size_t end(void)
{
    size_t n;

    store->ops->close(store);
    store = NULL;
    n = s3_server_stop();
    support_for(loop, 1);
    media_close();
    (void)got_new();
    return n;
}

#define SIZE 100000
static char body[SIZE + 1];

static enum s3_then cut_three_times(const struct s3_asked *a, struct buf *out)
{
    buf_printf(out, "HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes 0-%d/%d\r\n\r\n", SIZE,
               SIZE - 1, SIZE);
    buf_add(out, body, a->n < 3 ? 1000 * a->n : SIZE);
    return a->n < 3 ? S3_THEN_CLOSE : S3_THEN_STAY;
}

static void cut_in_mid_download(void **state)
{
    struct got *g = NULL;

    (void)state;
    memset(body, 'b', SIZE);
    start(cut_three_times);
    assert_int_equal(read_at(object(1), 0, SIZE, &g), TR_OK);
    assert_int_equal(g->data.len, SIZE);
    assert_memory_equal(g->data.data, body, SIZE);
    assert_int_equal(g->size, SIZE);
    assert_int_equal(end(), 4);
}

static enum s3_then busy_twice(const struct s3_asked *a, struct buf *out)
{
    if (a->n < 2)
        s3_say(out, a->n == 0 ? "503 Slow Down" : "500 Internal Server Error", "",
               "<Error><Code>SlowDown</Code></Error>");
    else
        s3_say(out, "200 OK", "ETag: \"x\"\r\n", "");
    return S3_THEN_STAY;
}

static void is_busy(void **state)
{
    (void)state;
    start(busy_twice);
    assert_int_equal(put_all(object(1), 1, 1000, 1000, NULL), TR_OK);
    assert_int_equal(end(), 3);
    start(busy_twice);
    assert_int_equal(mark(mark_of(1, 1, 1)), TR_OK);
    assert_int_equal(end(), 3);
}

static const char *error_code, *error_status;

static enum s3_then refuses_so(const struct s3_asked *a, struct buf *out)
{
    char text[256];

    (void)a;
    snprintf(text, sizeof text, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>very-secret</Message></Error>",
             error_code);
    s3_say(out, error_status, "", text);
    return S3_THEN_STAY;
}

/* The same at every other operation; init and check go by the words, for who runs the server reads them. */
static void refuses_all(enum tr_rc want)
{
    const bool absent = want == TR_NOT_FOUND;
    struct got *g = NULL;
    struct wait w = {0};

    start(refuses_so);
    if (!absent) {
        assert_int_equal(mark(mark_of(1, 1, 1)), want);
        assert_int_equal(put_all(object(1), 1, 1000, 1000, NULL), want);
        assert_int_equal(put_all(object(1), 1, 6 << 20, 1 << 20, NULL), want);
        assert_int_equal(list(USER "/", "", 10, &g), want);
    }
    assert_int_equal(remove_name(object(1)), absent ? TR_OK : want);
    w.loop = loop;
    if (strncmp(error_status, "404", 3) != 0)
        assert_int_equal(wait_end(&w, store->ops->init(store, wait_done, &w, &w.op, &w.err)), TR_INVALID);
    end();
}

static void refuses(void **state)
{
    static const struct {
        const char *status, *code, *words;
        enum tr_rc rc;
    } rows[] = {
        {"403 Forbidden", "SignatureDoesNotMatch", "S3_SECRET_ACCESS_KEY", TR_TRANSIENT},
        {"403 Forbidden", "InvalidAccessKeyId", "S3_ACCESS_KEY_ID", TR_TRANSIENT},
        {"403 Forbidden", "AccessDenied", "give this access key the right", TR_TRANSIENT},
        {"403 Forbidden", "RequestTimeTooSkewed", "clock", TR_TRANSIENT},
        {"403 Forbidden", "SomethingNew", "SomethingNew", TR_TRANSIENT},
        {"400 Bad Request", "AuthorizationHeaderMalformed", "S3_REGION", TR_TRANSIENT},
        {"409 Conflict", "BucketAlreadyExists", "TROUPE_MEDIA", TR_TRANSIENT},
        {"301 Moved Permanently", "PermanentRedirect", "S3_REGION", TR_TRANSIENT},
        {"307 Temporary Redirect", "TemporaryRedirect", "307 TemporaryRedirect", TR_TRANSIENT},
        {"404 Not Found", "NoSuchBucket", "troupe init", TR_TRANSIENT},
        {"404 Not Found", "NoSuchKey", "no such object", TR_NOT_FOUND},
        {"405 Method Not Allowed", "\x1b[31m very\nodd", "answered 405", TR_TRANSIENT},
    };
    struct got *g = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        error_status = rows[i].status;
        error_code = rows[i].code;
        start(refuses_so);
        assert_int_equal(read_at(object(1), 0, 10, &g), rows[i].rc);
        if (strstr(g->w.err.msg, rows[i].words) == NULL || strstr(g->w.err.msg, "very-secret") != NULL ||
            strpbrk(g->w.err.msg, "\x1b\n") != NULL)
            fail_msg("%s: %s", rows[i].code, g->w.err.msg);
        assert_int_equal(end(), 1); /* what is refused is not tried again */
        refuses_all(rows[i].rc);
    }
}

/* Whatever stands there answers 200 with a page: nothing is believed. */
static enum s3_then some_web_server(const struct s3_asked *a, struct buf *out)
{
    (void)a;
    s3_say(out, "200 OK", "Content-Type: text/html\r\n", "<html><title>Welcome</title></html>");
    return S3_THEN_STAY;
}

static void no_s3(void **state)
{
    struct got *g = NULL;
    struct wait w = {0};

    (void)state;
    start(some_web_server);
    assert_int_equal(put_all(object(1), 1, 1000, 1000, NULL), TR_TRANSIENT);
    assert_int_equal(put_all(object(1), 1, 6 << 20, 1 << 20, NULL), TR_TRANSIENT);
    assert_int_equal(list(USER "/", "", 10, &g), TR_TRANSIENT);
    assert_int_equal(read_at(object(1), 70000, 10, &g), TR_TRANSIENT);
    assert_int_equal(sweep(wall_ms()), TR_TRANSIENT);
    w.loop = loop;
    assert_int_equal(wait_end(&w, store->ops->init(store, wait_done, &w, &w.op, &w.err)), TR_INVALID);
    end();
}

static enum s3_then no_ranges(const struct s3_asked *a, struct buf *out)
{
    (void)a;
    buf_printf(out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE);
    buf_add(out, body, SIZE);
    return S3_THEN_STAY;
}

static void takes_no_ranges(void **state)
{
    struct got *g = NULL;

    (void)state;
    memset(body, 'b', SIZE);
    start(no_ranges);
    assert_int_equal(read_at(object(1), 0, SIZE, &g), TR_OK); /* all that there is */
    assert_int_equal(g->data.len, SIZE);
    assert_int_equal(read_at(object(1), 1, SIZE, &g), TR_TRANSIENT);
    assert_int_equal(read_at(object(1), 0, 1000, &g), TR_TRANSIENT); /* more than was asked for is not kept */
    assert_int_equal(end(), 3);
}

/* Its clock is an hour ahead: check tells it. */
static enum s3_then ahead(const struct s3_asked *a, struct buf *out)
{
    const time_t t = time(NULL) + 3600;
    struct tm tm;
    char date[64];

    (void)a;
    gmtime_r(&t, &tm);
    strftime(date, sizeof date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
    s3_say(out, "200 OK", date, "<ListBucketResult></ListBucketResult>");
    return S3_THEN_STAY;
}

struct checked {
    struct wait w; /* first */
    uint64_t clock_ms;
};

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    struct checked *c = ctx;

    wait_called(&c->w, rc, err);
    c->clock_ms = report != NULL ? report->clock_ms : 0;
}

static void clock_is_told(void **state)
{
    struct checked c = {0};

    (void)state;
    start(ahead);
    c.w.loop = loop;
    assert_int_equal(wait_end(&c.w, store->ops->check(store, on_checked, &c, &c.w.op, &c.w.err)), TR_OK);
    assert_true(llabs((long long)(c.clock_ms - wall_ms()) - 3600000) < 3000);
    end();
}

/* ---- uploads in parts ---- */

static __attribute__((noinline)) bool has(const struct s3_asked *a, const char *method, const char *what)
{
    return strcmp(a->method, method) == 0 && strstr(a->target, what) != NULL;
}

static unsigned completes, heads, aborts, parts;
static size_t stands;

#define ID "a&amp;b+c/=?&#34;"
#define ID_ENCODED "uploadId=a%26b%2Bc%2F%3D%3F%22"

/* The first completion's answer is lost although it was done; the second one finds no upload. */
static enum s3_then loses_completion(const struct s3_asked *a, struct buf *out)
{
    char length[128];

    if (has(a, "POST", "?uploads=")) {
        s3_say(out, "200 OK", "", "<Result><UploadId>" ID "</UploadId></Result>");
    } else if (has(a, "PUT", ID_ENCODED)) {
        parts++;
        s3_say(out, "200 OK", "ETag: \"0123\"\r\n", "");
    } else if (has(a, "POST", ID_ENCODED)) {
        if (completes++ == 0)
            return S3_THEN_CLOSE;
        s3_say(out, "404 Not Found", "", "<Error><Code>NoSuchUpload</Code></Error>");
    } else if (strcmp(a->method, "HEAD") == 0) {
        heads++;
        if (stands == 0) {
            buf_add_str(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        } else {
            snprintf(length, sizeof length, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", stands);
            buf_add_str(out, length);
        }
    } else if (has(a, "DELETE", ID_ENCODED)) {
        aborts++;
        s3_say(out, "204 No Content", "", "");
    } else {
        fail_msg("%s %s", a->method, a->target);
    }
    return S3_THEN_STAY;
}

static void completion_is_lost(void **state)
{
    const size_t size = (6 << 20) + 1;

    (void)state;
    completes = heads = aborts = parts = 0;
    stands = size;
    start(loses_completion);
    assert_int_equal(put_all(object(1), 1, size, 1 << 20, NULL), TR_OK);
    support_for(loop, 20);
    assert_int_equal(parts, 2);
    assert_int_equal(completes, 2);
    assert_int_equal(heads, 1);
    assert_int_equal(aborts, 0);
    end();
    stands = 0; /* it was not done */
    completes = heads = 0;
    start(loses_completion);
    assert_int_equal(put_all(object(1), 1, size, 1 << 20, NULL), TR_TRANSIENT);
    support_for(loop, 50);
    assert_int_equal(heads, 1);
    assert_int_equal(aborts, 1);
    end();
}

static enum s3_then fails_in_200(const struct s3_asked *a, struct buf *out)
{
    if (has(a, "POST", ID_ENCODED) && completes++ == 0) {
        s3_say(out, "200 OK", "", "<Error><Code>InternalError</Code></Error>");
        return S3_THEN_STAY;
    }
    if (has(a, "POST", ID_ENCODED)) {
        s3_say(out, "200 OK", "", "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>");
        return S3_THEN_STAY;
    }
    return loses_completion(a, out);
}

static void error_in_200(void **state)
{
    (void)state;
    completes = heads = 0;
    start(fails_in_200);
    assert_int_equal(put_all(object(1), 1, 6 << 20, 1 << 20, NULL), TR_OK);
    assert_int_equal(completes, 2);
    assert_int_equal(heads, 0);
    end();
}

/* What is refused in the middle is let go of. */
static enum s3_then refuses_part_two(const struct s3_asked *a, struct buf *out)
{
    if (has(a, "PUT", "partNumber=2&")) {
        s3_say(out, "403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>");
        return S3_THEN_STAY;
    }
    return loses_completion(a, out);
}

static void part_is_refused(void **state)
{
    struct tr_err err = {0};

    (void)state;
    aborts = 0;
    start(refuses_part_two);
    assert_int_equal(put_all(object(1), 1, 11 << 20, 1 << 20, &err), TR_TRANSIENT);
    assert_non_null(strstr(err.msg, "denied"));
    support_for(loop, 50);
    assert_int_equal(aborts, 1);
    end();
}

/* ---- lists ---- */

static const char *listing;

static enum s3_then lists_so(const struct s3_asked *a, struct buf *out)
{
    (void)a;
    s3_say(out, "200 OK", "", listing);
    return S3_THEN_STAY;
}

#define KEY "pre.fix/" USER "/01890000-0000-7000-9000-000000000001"

static void odd_lists(void **state)
{
    static const struct {
        const char *xml;
        enum tr_rc rc;
        size_t n;
        bool more;
    } rows[] = {
        {"<ListBucketResult/>", TR_OK, 0, false},
        {"<ListBucketResult><Contents><Key>" KEY "</Key></Contents></ListBucketResult>", TR_OK, 1, false},
        {"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>" KEY "</Key></Contents></ListBucketResult>",
         TR_OK, 1, true},
        {"<ListBucketResult><Contents><Key>other/" USER "/0</Key></Contents><Contents><Key>" KEY "/x</Key></Contents>"
         "<Contents><Key>../../etc</Key></Contents><Contents><Size>1</Size></Contents></ListBucketResult>",
         TR_OK, 0, false},
        {"<ListBucketResult><Contents><Key>" KEY "</Key></Contents>", TR_TRANSIENT, 0, false}, /* cut */
        {"", TR_TRANSIENT, 0, false},
        {"<Error/>", TR_TRANSIENT, 0, false},
    };
    struct got *g = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        listing = rows[i].xml;
        start(lists_so);
        if (list(USER "/", "", 10, &g) != rows[i].rc || g->n != rows[i].n || g->more != rows[i].more)
            fail_msg("row %zu: %d, %zu names", i, g->w.rc, g->n);
        end();
    }
}

/* ---- never an answer ---- */

static enum s3_then says_nothing(const struct s3_asked *a, struct buf *out)
{
    (void)a, (void)out;
    return S3_THEN_SILENT;
}

/* Closed, and given up, while all of them wait. */
static void closes_in_silence(void **state)
{
    struct wait w[40];
    struct media_put *put = NULL;

    (void)state;
    start(says_nothing);
    for (size_t i = 0; i < 40; i++) {
        w[i] = (struct wait){.loop = loop};
        wait_started(&w[i], store->ops->mark(store, mark_of(1, 1, (unsigned)i), wait_done, &w[i], &w[i].op, NULL));
    }
    assert_int_equal(store->ops->put_start(store, object(1), 0, &put, NULL), TR_OK);
    support_for(loop, 50);
    store->ops->put_free(put);
    for (size_t i = 0; i < 20; i++)
        tr_op_cancel(w[i].op);
    end();
    for (size_t i = 0; i < 40; i++) {
        assert_int_equal(w[i].calls, 1);
        assert_int_equal(w[i].rc, TR_CANCELLED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_in_mid_download),
        cmocka_unit_test(is_busy),
        cmocka_unit_test(refuses),
        cmocka_unit_test(no_s3),
        cmocka_unit_test(takes_no_ranges),
        cmocka_unit_test(clock_is_told),
        cmocka_unit_test(completion_is_lost),
        cmocka_unit_test(error_in_200),
        cmocka_unit_test(part_is_refused),
        cmocka_unit_test(odd_lists),
        cmocka_unit_test(closes_in_silence),
    };

    return cmocka_run_group_tests_name("an odd S3", tests, NULL, NULL);
}
