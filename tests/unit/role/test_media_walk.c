/* test_media_walk - role/chat: when the files of a user are walked over, and what that leaves alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "front.h"

#include "adapter/filesystem/media.h"
#include "role/chat/desk_impl.h"
#include "role/common/keyring.h"
#include "tests/unit/role/shifted_clock.h"

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

/* A read that begins when the mark is there. */
static struct late_read {
    char name[MEDIA_NAME_MAX + 1];
    size_t len;
    media_read_done *done;
    void *ctx;
    struct tr_op **op;
} late_read;

static char sent_again[MEDIA_NAME_MAX + 1]; /* put when a file is looked into; "": nothing */

static void on_sent_again(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct tr_err own = {0};

    (void)ctx, (void)err;
    assert_int_equal(rc, TR_OK);
    assert_int_equal(
        real->read(store, late_read.name, 0, late_read.len, late_read.done, late_read.ctx, late_read.op, &own), TR_OK);
}

static enum tr_rc send_and_read(struct media *m, const char *name, uint64_t from, size_t len, media_read_done *done,
                                void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char mark[MEDIA_NAME_MAX + 1];

    if (sent_again[0] == '\0')
        return real->read(m, name, from, len, done, ctx, ret_op, err);
    memcpy(mark, sent_again, sizeof mark);
    sent_again[0] = '\0';
    late_read = (struct late_read){.len = len, .done = done, .ctx = ctx, .op = ret_op};
    memcpy(late_read.name, name, strlen(name) + 1);
    return real->mark(m, mark, on_sent_again, NULL, ret_op, err);
}

static enum tr_rc count_remove(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                               struct tr_err *err)
{
    removes++;
    return real->remove(m, name, done, ctx, ret_op, err);
}

static struct seal_key user_key;

struct got_key {
    struct wait w;
};

static void on_user_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct got_key *g = ctx;

    if (rc == TR_OK)
        user_key = *key;
    wait_called(&g->w, rc, err);
}

static void make_user_key(void)
{
    struct got_key g = {.w = {.loop = fx.loop}};

    assert_int_equal(
        wait_end(&g.w, keyring_user(desk->env.keyring, &fx.user, true, on_user_key, &g, &g.w.op, &g.w.err)), TR_OK);
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
    counted.read = send_and_read;
    store->ops = &counted;
    desk->env.media = store;
    lists = removes = 0;
    shifted_s = 0;
    make_user_key();
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

/* A file of one byte, sealed under this key, its id two days old; to the store it is young. */
static struct uuid file_under(const struct seal_key *key, char name[MEDIA_NAME_MAX + 1])
{
    const struct media_head head = {.type = MEDIA_PNG, .bytes = 1, .created_ms = wall_ms()};
    struct wait w = {.loop = fx.loop};
    struct media_put *put = NULL;
    struct buf bytes = {0};
    uint8_t random[10];
    struct uuid id;

    seal_random(random, sizeof random);
    id = uuid_v7(wall_ms() - UINT64_C(2) * 86400000, random);
    media_file_name(&fx.user, &id, name);
    assert_int_equal(media_seal_head(key, &fx.user, &id, &head, &bytes), TR_OK);
    assert_int_equal(media_seal_chunk(key, &fx.user, &id, 1, 0, "x", 1, &bytes), TR_OK);
    assert_int_equal(real->put_start(store, name, bytes.len, &put, NULL), TR_OK);
    assert_int_equal(wait_end(&w, real->put_write(put, bytes.data, bytes.len, wait_done, &w, &w.op, &w.err)), TR_OK);
    w = (struct wait){.loop = fx.loop};
    assert_int_equal(wait_end(&w, real->put_finish(put, wait_done, &w, &w.op, &w.err)), TR_OK);
    real->put_free(put);
    buf_release(&bytes);
    return id;
}

static void age_all(void)
{
    char command[128];

    snprintf(command, sizeof command, "find %s -type f -exec touch -d '2 days ago' {} +", folder);
    assert_int_equal(system(command), 0);
}

static struct uuid old_file(char name[MEDIA_NAME_MAX + 1])
{
    const struct uuid id = file_under(&user_key, name);
    char command[256];

    snprintf(command, sizeof command, "touch -d '2 days ago' %s/%s", folder, name);
    assert_int_equal(system(command), 0);
    return id;
}

static void walk_again(void)
{
    desk->walked[0].at_ms = 0; /* an hour later */
    walk();
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
    (void)old_file(unnamed);
    walk_again();
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

/* A day after its send, which no turn came of, it is on its way no more; sent again, the mark is young again. */
static void a_send_that_was_never_accepted(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    char name[MEDIA_NAME_MAX + 1];
    const struct uuid id = old_file(name);

    (void)state;
    message_mark_name(&fx.user, &id, &fx.chat, ref, name);
    mark_now(name);
    walk();
    age_all();
    mark_now(name);
    walk_again();
    assert_int_equal(removes, 0);
    age_all();
    walk_again();
    assert_int_equal(removes, 2);
}

/* A device that was away for days sends its message again, while another file of its user has begun a walk. */
static void sent_again_in_that_moment(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    char name[MEDIA_NAME_MAX + 1];
    const struct uuid id = old_file(name);

    (void)state;
    message_mark_name(&fx.user, &id, &fx.chat, ref, name);
    mark_now(name);
    age_all();
    memcpy(sent_again, name, sizeof sent_again);
    walk();
    assert_int_equal(sent_again[0], '\0');
    assert_int_equal(removes, 0);
}

/* The user's key is another one, or there is none: nothing that this history does not know goes. */
static void beside_another_history(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    const struct uuid gone = fresh_uuid(), nobody = fresh_uuid(), user = fx.user;
    struct seal_key foreign;
    char name[MEDIA_NAME_MAX + 1];
    struct uuid id;

    (void)state;
    seal_key_new(wall_ms(), &foreign);
    for (int i = 0; i < 3; i++) { /* unnamed; of a chat that is not known; of a send that was never accepted */
        id = file_under(&foreign, name);
        message_mark_name(&fx.user, &id, i == 1 ? &gone : &fx.chat, ref, name);
        if (i > 0)
            mark_now(name);
    }
    age_all();
    walk();
    assert_int_equal(removes, 0);
    id = old_file(name); /* one of ours between them goes all the same */
    walk_again();
    assert_int_equal(removes, 1);
    fx.user = nobody; /* whose key this history never had */
    id = file_under(&foreign, name);
    message_mark_name(&fx.user, &id, &gone, ref, name);
    mark_now(name);
    age_all();
    walk();
    fx.user = user;
    assert_int_equal(removes, 1);
}

/* What is old is told by the store's clock: this machine's is days ahead. */
static void by_the_stores_clock(void **state)
{
    const uint8_t ref[MESSAGE_REF] = {7};
    char name[MEDIA_NAME_MAX + 1];
    struct uuid id = file_under(&user_key, name); /* unnamed, and written a moment ago */

    (void)state;
    id = file_under(&user_key, name);
    message_mark_name(&fx.user, &id, &fx.chat, ref, name); /* its send is on its way */
    mark_now(name);
    shifted_s = 72 * HOUR_S;
    walk();
    assert_int_equal(removes, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(once_an_hour),
                                       TEST(named_in_that_moment),
                                       TEST(what_a_mark_says),
                                       TEST(a_send_that_was_never_accepted),
                                       TEST(beside_another_history),
                                       TEST(by_the_stores_clock),
                                       TEST(sent_again_in_that_moment)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
