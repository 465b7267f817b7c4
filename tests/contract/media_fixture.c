/* media_fixture - see media_fixture.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "media_fixture.h"

#include "adapter/filesystem/media.h"
#include "adapter/s3/impl.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct media_adapter *subject;
struct loop *loop;
struct media *store;
static unsigned test_n;

/* ---- places ---- */

const char *media_folder(void)
{
    static char path[600];

    snprintf(path, sizeof path, "%s.media/%u", support_folder(), test_n);
    return path;
}

static enum tr_rc open_folder(struct loop *l, struct media **ret_media, struct tr_err *err)
{
    return filesystem_media_open(l, media_folder(), ret_media, err);
}

static size_t left_in_folder(void)
{
    const struct dirent *e;
    char path[700];
    size_t n = 0;
    DIR *dir;

    snprintf(path, sizeof path, "%s/.uploads", media_folder());
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

const char *media_s3_place(void)
{
    static char url[128];
    static int first; /* a child's place is its parent's */

    first = first == 0 ? (int)getpid() : first;
    snprintf(url, sizeof url, "s3://troupe-test-%d/Test_%u.x/", first, test_n);
    return url;
}

enum tr_rc media_s3_open(struct loop *l, const char *url, const char *endpoint, const char *secret,
                         struct media **ret_media, struct tr_err *err)
{
    const char *const ours = getenv("TROUPE_TEST_S3_SECRET_KEY"), *const key = getenv("TROUPE_TEST_S3_ACCESS_KEY");
    const struct s3_options options = {.endpoint = endpoint != NULL ? endpoint : getenv("TROUPE_TEST_S3"),
                                       .region = "us-east-1",
                                       .access_key = key != NULL ? key : "key",
                                       .secret_key = secret != NULL ? secret
                                                     : ours != NULL ? ours
                                                                    : "secret"};

    return s3_media_open(l, url, &options, ret_media, err);
}

static enum tr_rc open_s3(struct loop *l, struct media **ret_media, struct tr_err *err)
{
    struct wait w = {.loop = l};
    enum tr_rc rc = media_s3_open(l, media_s3_place(), NULL, NULL, ret_media, err);

    if (rc != TR_OK)
        return rc;
    rc = wait_end(&w, (*ret_media)->ops->init(*ret_media, wait_done, &w, &w.op, &w.err));
    if (rc != TR_OK) {
        *err = w.err;
        (*ret_media)->ops->close(*ret_media);
    }
    return rc;
}

struct uploads {
    struct wait w; /* first */
    size_t n;
};

static void on_uploads(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct uploads *u = ctx;
    struct slice text;
    size_t at = 0;

    wait_called(&u->w, rc, err);
    while (rc == TR_OK && s3_xml_next(reply->body, "Upload", &at, &text))
        u->n++;
}

static size_t left_in_bucket(void)
{
    struct s3_media *const s3 = (struct s3_media *)store;
    struct uploads u = {.w.loop = loop};
    struct s3_ask ask = {.method = "GET"};
    struct buf query = {0};

    s3_query(&query, "prefix", s3->prefix);
    s3_query(&query, "uploads", "");
    ask.query = buf_str(&query);
    assert_int_equal(wait_end(&u.w, s3_start(s3, &ask, on_uploads, &u, &u.w.op, &u.w.err)), TR_OK);
    buf_release(&query);
    return u.n;
}

const struct media_adapter media_adapters[2] = {
    {"file", NULL, open_folder, left_in_folder},
    {"S3", "TROUPE_TEST_S3", open_s3, left_in_bucket},
};

void media_open(void)
{
    struct tr_err err = {0};

    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    if (subject->open(loop, &store, &err) != TR_OK)
        fail_msg("%s", err.msg);
}

void media_close(void)
{
    if (store != NULL)
        store->ops->close(store);
    store = NULL;
    if (loop != NULL) {
        loop_drain(loop);
        loop_free(loop);
    }
    loop = NULL;
}

int media_set_up(void **state)
{
    (void)state;
    test_n++;
    media_open();
    return 0;
}

static void remove_folder(void)
{
    char command[800];

    snprintf(command, sizeof command, "rm -rf '%s.media'", support_folder());
    (void)!system(command);
}

int media_tear_down(void **state)
{
    (void)state;
    media_close();
    (void)got_new(); /* releases what the last one held */
    if (subject->server == NULL)
        remove_folder();
    return 0;
}

void media_await_none_left(void)
{
    const uint64_t end = mono_ns() + SUPPORT_LIMIT_MS * UINT64_C(1000000);

    while (subject->left() > 0) { /* it may run the loop itself: no condition for support_until() */
        if (mono_ns() > end)
            fail_msg("%zu uploads are left", subject->left());
        support_for(loop, 10);
    }
}

/* ---- names, contents ---- */

static char *next_name(void)
{
    static char names[8][MEDIA_NAME_MAX + 1];
    static unsigned n;

    return names[n++ % 8];
}

const char *object(unsigned n)
{
    char *name = next_name();

    snprintf(name, MEDIA_NAME_MAX + 1, USER "/01890000-0000-7000-9000-%012x", n);
    return name;
}

const char *mark_of(unsigned n, unsigned chat, unsigned ref)
{
    char *name = next_name();

    snprintf(name, MEDIA_NAME_MAX + 1, "%s.01890000-0000-7000-a000-%012x.%032x", object(n), chat, ref);
    return name;
}

uint8_t content_byte(unsigned seed, uint64_t at)
{
    return (uint8_t)(((at + seed) * UINT64_C(0x9e3779b97f4a7c15)) >> 40);
}

void content(unsigned seed, uint64_t at, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = content_byte(seed, at + i);
}

/* ---- operations ---- */

struct got *got_new(void)
{
    static struct got *g;

    if (g != NULL)
        buf_release(&g->data);
    free(g);
    g = NULL;
    if (loop == NULL)
        return NULL;
    g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->w.loop = loop;
    return g;
}

void on_read(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    if (data.len > 0)
        buf_add(&g->data, data.data, data.len);
    g->size = size;
}

void on_list(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    assert_true(n <= MEDIA_LIST_MAX);
    for (size_t i = 0; i < n; i++)
        snprintf(g->names[i], sizeof g->names[i], "%s", names[i]);
    g->n = n;
    g->more = more;
}

static enum tr_rc with_err(enum tr_rc rc, const struct wait *w, struct tr_err *err)
{
    if (rc != TR_OK && err != NULL)
        *err = w->err;
    return rc;
}

enum tr_rc write_piece(struct media_put *put, unsigned seed, uint64_t at, size_t len, struct tr_err *err)
{
    struct wait w = {.loop = loop};
    uint8_t *bytes = malloc(len + 1);
    enum tr_rc rc;

    assert_non_null(bytes);
    content(seed, at, bytes, len);
    rc = store->ops->put_write(put, bytes, len, wait_done, &w, &w.op, &w.err);
    memset(bytes, 0xdd, len); /* they were copied */
    free(bytes);
    return with_err(wait_end(&w, rc), &w, err);
}

enum tr_rc finish(struct media_put *put, struct tr_err *err)
{
    struct wait w = {.loop = loop};

    return with_err(wait_end(&w, store->ops->put_finish(put, wait_done, &w, &w.op, &w.err)), &w, err);
}

enum tr_rc put_all(const char *name, unsigned seed, uint64_t size, size_t piece, struct tr_err *err)
{
    struct media_put *put = NULL;
    enum tr_rc rc = store->ops->put_start(store, name, size, &put, err);

    for (uint64_t at = 0; rc == TR_OK && at < size; at += piece)
        rc = write_piece(put, seed, at, size - at < piece ? (size_t)(size - at) : piece, err);
    if (rc == TR_OK)
        rc = finish(put, err);
    store->ops->put_free(put);
    return rc;
}

enum tr_rc read_at(const char *name, uint64_t from, size_t len, struct got **ret_got)
{
    struct got *g = got_new();

    *ret_got = g;
    return wait_end(&g->w, store->ops->read(store, name, from, len, on_read, g, &g->w.op, &g->w.err));
}

void assert_object(const char *name, unsigned seed, uint64_t size)
{
    struct got *g = NULL;
    uint64_t at = 0;

    do {
        if (read_at(name, at, MEDIA_READ_MAX, &g) != TR_OK)
            fail_msg("at %llu: %s", (unsigned long long)at, g->w.err.msg);
        assert_int_equal(g->size, size);
        assert_int_equal(g->data.len, size - at < MEDIA_READ_MAX ? size - at : MEDIA_READ_MAX);
        for (size_t i = 0; i < g->data.len; i++)
            if (g->data.data[i] != content_byte(seed, at + i))
                fail_msg("%s: byte %llu is another", name, (unsigned long long)(at + i));
        at += g->data.len;
    } while (at < size);
}

void assert_absent(const char *name)
{
    struct got *g = NULL;

    assert_int_equal(read_at(name, 0, 1, &g), TR_NOT_FOUND);
    assert_int_equal(g->data.len, 0);
}

enum tr_rc mark(const char *name)
{
    struct wait w = {.loop = loop};

    return wait_end(&w, store->ops->mark(store, name, wait_done, &w, &w.op, &w.err));
}

enum tr_rc remove_name(const char *name)
{
    struct wait w = {.loop = loop};

    return wait_end(&w, store->ops->remove(store, name, wait_done, &w, &w.op, &w.err));
}

enum tr_rc sweep(uint64_t age_ms)
{
    struct wait w = {.loop = loop};

    return wait_end(&w, store->ops->sweep(store, age_ms, wait_done, &w, &w.op, &w.err));
}

enum tr_rc list(const char *prefix, const char *after, uint32_t limit, struct got **ret_got)
{
    struct got *g = got_new();

    *ret_got = g;
    return wait_end(&g->w, store->ops->list(store, prefix, after, limit, on_list, g, &g->w.op, &g->w.err));
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

size_t allocated(void)
{
    struct mallinfo2 m;

    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    m = mallinfo2();
    return m.uordblks + m.hblkhd;
}
