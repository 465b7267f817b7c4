/* url - URLs of the configuration taken apart, and what is wrong with broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/url.h"

#include <string.h>

static void whole(void **state)
{
    struct url u;
    struct tr_err err = {0};
    uint64_t n = 0;

    (void)state;
    assert_int_equal(
        url_parse("postgresql://a%40b:p%3aw%25@db1,[::1]:6432,db3:7/a%20base?x=1&flag&y=a%26b", 5432, &u, &err), TR_OK);
    assert_string_equal(u.scheme, "postgresql");
    assert_string_equal(u.user, "a@b");
    assert_string_equal(u.password, "p:w%");
    assert_int_equal(u.hosts, 3);
    assert_string_equal(u.host[0].name, "db1");
    assert_int_equal(u.host[0].port, 5432);
    assert_string_equal(u.host[1].name, "::1");
    assert_int_equal(u.host[1].port, 6432);
    assert_int_equal(u.host[2].port, 7);
    assert_string_equal(u.path, "a base");
    assert_string_equal(url_query(&u, "y"), "a&b");
    assert_string_equal(url_query(&u, "flag"), "");
    assert_null(url_query(&u, "z"));
    assert_int_equal(url_query_u64(&u, "x", 9, 0, 5, &n, &err), TR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(url_query_u64(&u, "z", 9, 0, 5, &n, &err), TR_OK);
    assert_int_equal(n, 9);
    assert_int_equal(url_query_u64(&u, "x", 9, 2, 5, &n, &err), TR_INVALID);
    assert_int_equal(url_query_u64(&u, "y", 9, 2, 5, &n, &err), TR_INVALID);
    url_release(&u);
    url_release(&u);
}

static void small(void **state)
{
    struct url u;

    (void)state;
    assert_int_equal(url_parse("redis://h", 6379, &u, NULL), TR_OK);
    assert_null(u.user);
    assert_null(u.password);
    assert_string_equal(u.path, "");
    url_release(&u);
    assert_int_equal(url_parse("s3://bucket/pre/fix?a=", 443, &u, NULL), TR_OK);
    assert_string_equal(u.host[0].name, "bucket");
    assert_string_equal(u.path, "pre/fix");
    url_release(&u);
    assert_int_equal(url_parse("x://?a=1", 1, &u, NULL), TR_OK);
    assert_int_equal(u.hosts, 0);
    url_release(&u);
}

static void broken(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"host:1", "scheme"},
        {"://h", "scheme"},
        {"a://h:0", "port"},
        {"a://h:65536", "port"},
        {"a://h:1x", "port"},
        {"a://h:", "port"},
        {"a://h:123456789", "port"},
        {"a://u:secret@,h", "host is missing"},
        {"a://[::1", "]"},
        {"a://[::1]x", "port"},
        {"a://u:secret%4@h", "%XX"},
        {"a://u:secret%zz@h", "%XX"},
        {"a://u:secret%00@h", "%XX"},
        {"a://h/%", "%XX"},
        {"a://h?a=%1", "%XX"},
        {"a://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "hosts"},
        {"a-scheme-that-is-far-too-long://h", "scheme"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct url u = {.hosts = 77};
        struct tr_err err = {0};

        assert_int_equal(url_parse(rows[i].text, 1, &u, &err), TR_INVALID);
        if (strstr(err.msg, rows[i].says) == NULL || strstr(err.msg, "secret") != NULL)
            fail_msg("%s: %s", rows[i].text, err.msg);
        assert_int_equal(u.hosts, 77);
    }
}

static void shown(void **state)
{
    char out[64];

    (void)state;
    url_shown("amqp://me:se:cret@h:1/v", out, sizeof out);
    assert_string_equal(out, "amqp://me:***@h:1/v");
    url_shown("redis://:se@cret@h", out, sizeof out);
    assert_string_equal(out, "redis://:***@h");
    url_shown("redis://me@h/a:b@c", out, sizeof out);
    assert_string_equal(out, "redis://me@h/a:b@c");
    url_shown("sqlite:data/q.db", out, sizeof out);
    assert_string_equal(out, "sqlite:data/q.db");
    url_shown("amqp://me:secret@a-long-name", out, 12);
    assert_string_equal(out, "amqp://me:*");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shown), cmocka_unit_test(whole), cmocka_unit_test(small),
                                       cmocka_unit_test(broken)};

    return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
