/* test_media_walk - role/chat: when the files of a user are walked over, and what that leaves alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "front.h"

#include "adapter/filesystem/media.h"
#include "role/chat/desk_impl.h"

static struct media *store;
static char folder[64];
static const struct media_ops *real;
static struct media_ops counted;
static size_t lists, removes;
static char marked[MEDIA_NAME_MAX + 1]; /* put when a file's marks are looked at alone; "": nothing */

static void mark_now(const char *name)
{
    struct wait w = {.loop = fx.loop};

    assert_int_equal(wait_end(&w, real->mark(store, name, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* A list that begins when the mark is there. */
static struct late_list {
    char prefix[MEDIA_NAME_MAX + 1];
    media_list_done *done;
    void *ctx;
    struct tr_op **op;
} late;

static void on_late_mark(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct tr_err own = {0};

    (void)ctx, (void)err;
    assert_int_equal(rc, TR_OK);
    assert_int_equal(real->list(store, late.prefix, "", 2, late.done, late.ctx, late.op, &own), TR_OK);
}

static enum tr_rc count_list(struct media *m, const char *prefix, const char *after, uint32_t limit,
                             media_list_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char name[MEDIA_NAME_MAX + 1];

    lists++;
    if (strlen(prefix) != 73 || marked[0] == '\0')
        return real->list(m, prefix, after, limit, done, ctx, ret_op, err);
    memcpy(name, marked, sizeof name);
    marked[0] = '\0';
    late = (struct late_list){.done = done, .ctx = ctx, .op = ret_op};
    memcpy(late.prefix, prefix, strlen(prefix) + 1);
    return real->mark(m, name, on_late_mark, NULL, ret_op, err);
}

static enum tr_rc count_remove(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    removes++;
    return real->remove(m, name, done, ctx, ret_op, err);
}

static int set_up(void **state)
{
    const int rc = setup(state);

    strcpy(folder, "/tmp/troupe-walk-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(filesystem_media_open(fx.loop, folder, &store, NULL), TR_OK);
    real = store->ops;
    counted = *real;
    counted.list = count_list;
    counted.remove = count_remove;
    store->ops = &counted;
    desk->env.media = store;
    lists = removes = 0;
    return rc;
}

static int tear_down(void **state)
{
    char command[96];

    desk_free(desk);
    desk = NULL;
    store->ops = real;
    store->ops->close(store);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    return teardown(state);
}

static bool idle(void *ctx)
{
    return ((struct desk *)ctx)->requests_n == 0;
}

static void walk(void)
{
    desk_media_stored(desk, &fx.user);
    support_until(fx.loop, idle, desk, SUPPORT_LIMIT_MS);
}

/* An empty object does for a file: nobody looks into it here. */
static struct uuid old_file(char name[MEDIA_NAME_MAX + 1])
{
    struct uuid id;
    uint8_t random[10];

    seal_random(random, sizeof random);
    id = uuid_v7(wall_ms() - UINT64_C(2) * 86400000, random);
    media_file_name(&fx.user, &id, name);
    mark_now(name);
    return id;
}

static void once_an_hour(void **state)
{
    const struct uuid other = fresh_uuid();

    (void)state;
    walk();
    assert_int_equal(lists, 1);
    walk();
    assert_int_equal(lists, 1);
    desk_media_stored(desk, &other);
    support_until(fx.loop, idle, desk, SUPPORT_LIMIT_MS);
    assert_int_equal(lists, 2);
    for (size_t i = 0; i < MEDIA_WALKED_MAX; i++) { /* a table of so many users: the oldest is pushed out */
        const struct uuid many = fresh_uuid();

        desk_media_stored(desk, &many);
        support_until(fx.loop, idle, desk, SUPPORT_LIMIT_MS);
    }
    walk();
    assert_int_equal(lists, 3 + MEDIA_WALKED_MAX);
}

static void named_in_that_moment(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    char named[MEDIA_NAME_MAX + 1], unnamed[MEDIA_NAME_MAX + 1];
    const struct uuid id = old_file(named);

    (void)state;
    message_mark_name(&fx.user, &id, &fx.chat, ref, marked);
    walk();
    assert_int_equal(removes, 0);
    desk->walked[0].at_ms = 0; /* an hour later */
    (void)old_file(unnamed);
    walk();
    assert_int_equal(removes, 1);
}

/* A mark whose message is not there may be a message on its way; one of a chat that is gone is not. */
static void what_a_mark_says(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    const struct uuid gone = fresh_uuid();
    char name[MEDIA_NAME_MAX + 1];
    struct uuid id = old_file(name);

    (void)state;
    message_mark_name(&fx.user, &id, &fx.chat, ref, name);
    mark_now(name);
    id = old_file(name);
    message_mark_name(&fx.user, &id, &gone, ref, name);
    mark_now(name);
    walk();
    assert_int_equal(removes, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(once_an_hour), TEST(named_in_that_moment), TEST(what_a_mark_says)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
