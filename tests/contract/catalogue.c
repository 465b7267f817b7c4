/* catalogue - the contract suite of port/catalogue.h, run on every adapter of the table below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/sqlite/catalogue.h"
#include "domain/hrw.h"
#include "postgres_fixture.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define T0 1760000000000

/* A database of its own for each path, made at the first opening, with its schema. */
static enum tr_rc postgres_open(struct loop *loop, const char *path, struct catalogue **ret_catalogue,
                                struct tr_err *err)
{
    char name[64], url[512];

    snprintf(name, sizeof name, "t%016llx", (unsigned long long)hrw_hash(path, strlen(path)));
    postgres_database(name, url, sizeof url);
    return postgres_open_ready(loop, url, ret_catalogue, err);
}

struct adapter {
    const char *name;
    const char *server; /* the variable with its URL; NULL: none is needed */
    enum tr_rc (*open)(struct loop *loop, const char *path, struct catalogue **ret_catalogue, struct tr_err *err);
};
static const struct adapter adapters[] = {
    {"sqlite", NULL, sqlite_catalogue_open},
    {"postgresql", "TROUPE_TEST_PG", postgres_open},
};
static const struct adapter *adapter;

struct store {
    struct loop *loop;
    struct catalogue *c;
    char *path;
};

static void store_open(struct store *s)
{
    struct tr_err err = {0};

    assert_int_equal(loop_new(&s->loop, &err), TR_OK);
    if (adapter->open(s->loop, s->path, &s->c, &err) != TR_OK)
        fail_msg("%s", tr_err_text(&err));
    assert_string_equal(s->c->ops->scheme, adapter->name);
}

static struct store *store_new(const char *name)
{
    struct store *s = calloc(1, sizeof *s);
    char file[96];

    assert_non_null(s);
    snprintf(file, sizeof file, "%s-%s.db", adapter->name, name);
    s->path = support_path(file);
    store_open(s);
    return s;
}

static void store_close(struct store *s)
{
    s->c->ops->close(s->c);
    loop_free(s->loop);
}

static void store_free(struct store *s)
{
    store_close(s);
    free(s->path);
    free(s);
}

/* What a callback brought, copied. */
struct found {
    char id[CHARACTER_ID_MAX + 1], name[128], tagline[128], avatar_type[32];
    uint8_t card[4096], avatar[4096];
    size_t card_len, avatar_len;
    uint64_t updated_ms;
};
struct answer {
    struct wait w; /* first */
    struct found list[128];
    size_t n;
    bool mine;
    char value[256];
};

static void copy_character(struct found *to, const struct catalogue_character *from)
{
    *to = (struct found){.card_len = from->card.len, .avatar_len = from->avatar.len, .updated_ms = from->updated_ms};
    snprintf(to->id, sizeof to->id, "%s", from->id);
    snprintf(to->name, sizeof to->name, "%s", from->name);
    snprintf(to->tagline, sizeof to->tagline, "%s", from->tagline);
    snprintf(to->avatar_type, sizeof to->avatar_type, "%s", from->avatar_type);
    assert_true(from->card.len <= sizeof to->card && from->avatar.len <= sizeof to->avatar);
    if (from->card.len > 0)
        memcpy(to->card, from->card.data, from->card.len);
    if (from->avatar.len > 0)
        memcpy(to->avatar, from->avatar.data, from->avatar.len);
}

static void on_character(void *ctx, enum tr_rc rc, const struct catalogue_character *c, const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    assert_int_equal(c != NULL, rc == TR_OK);
    if (c != NULL)
        copy_character(&a->list[0], c);
}

static void on_characters(void *ctx, enum tr_rc rc, const struct catalogue_character *list, size_t n,
                          const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->n = n;
    assert_true(n <= sizeof a->list / sizeof *a->list);
    for (size_t i = 0; i < n; i++)
        copy_character(&a->list[i], &list[i]);
}

static void on_setting(void *ctx, enum tr_rc rc, bool mine, const char *value, const struct tr_err *err)
{
    struct answer *a = ctx;

    wait_called(&a->w, rc, err);
    a->mine = mine;
    if (rc == TR_OK)
        snprintf(a->value, sizeof a->value, "%s", value);
}

#define RUN(a, call) ((a)->w = (struct wait){.loop = s->loop}, wait_end(&(a)->w, call))
#define TAIL(a) (a), &(a)->w.op, &(a)->w.err

static enum tr_rc do_put(struct store *s, const struct catalogue_character *ch, bool replace)
{
    struct wait w = {.loop = s->loop};

    return wait_end(&w, s->c->ops->character_put(s->c, ch, replace, wait_done, &w, &w.op, &w.err));
}

static enum tr_rc do_get(struct store *s, const char *id, struct answer *a)
{
    return RUN(a, s->c->ops->character_get(s->c, id, on_character, TAIL(a)));
}

static enum tr_rc do_list(struct store *s, struct answer *a)
{
    return RUN(a, s->c->ops->characters(s->c, on_characters, TAIL(a)));
}

static enum tr_rc do_remove(struct store *s, const char *id)
{
    struct wait w = {.loop = s->loop};

    return wait_end(&w, s->c->ops->character_remove(s->c, id, wait_done, &w, &w.op, &w.err));
}

static enum tr_rc do_setting_put(struct store *s, const char *key, const char *value, struct answer *a)
{
    return RUN(a, s->c->ops->setting_put(s->c, key, value, on_setting, TAIL(a)));
}

static enum tr_rc do_setting_get(struct store *s, const char *key, struct answer *a)
{
    return RUN(a, s->c->ops->setting_get(s->c, key, on_setting, TAIL(a)));
}

static enum tr_rc do_user(struct store *s, const struct uuid *user)
{
    struct wait w = {.loop = s->loop};

    return wait_end(&w, s->c->ops->user_put(s->c, user, T0, wait_done, &w, &w.op, &w.err));
}

#define slice_of(s) ((struct slice){(const uint8_t *)(s), strlen(s)})

static struct catalogue_character a_character(const char *id, const char *name)
{
    struct catalogue_character ch = {
        .name = name,
        .tagline = "a line",
        .card = slice_of("{\"spec\":\"chara_card_v2\"}"),
        .avatar = {(const uint8_t *)"\x89PNG\0\1", 6},
        .avatar_type = "image/png",
        .updated_ms = T0,
    };

    strcpy(ch.id, id);
    return ch;
}

static void assert_found(const struct found *got, const struct catalogue_character *want, bool whole)
{
    assert_string_equal(got->id, want->id);
    assert_string_equal(got->name, want->name);
    assert_string_equal(got->tagline, want->tagline);
    assert_string_equal(got->avatar_type, want->avatar_type);
    assert_int_equal(got->card_len, whole ? want->card.len : 0);
    assert_int_equal(got->avatar_len, whole ? want->avatar.len : 0);
    if (whole && want->card.len > 0)
        assert_memory_equal(got->card, want->card.data, want->card.len);
    if (whole && want->avatar.len > 0)
        assert_memory_equal(got->avatar, want->avatar.data, want->avatar.len);
}

static void test_characters(void **state)
{
    struct store *s = store_new("characters");
    struct catalogue_character ada = a_character("ada", "ada"), bo = a_character("bo-2", "Bo"),
                               cy = a_character("a-cy", "Cy");
    struct answer *a = calloc(1, sizeof *a);
    uint64_t updated;

    (void)state;
    assert_non_null(a);
    assert_int_equal(do_get(s, "ada", a), TR_NOT_FOUND);
    assert_int_equal(do_list(s, a), TR_OK);
    assert_int_equal(a->n, 0);
    cy.avatar = (struct slice){0};
    cy.avatar_type = "";
    assert_int_equal(do_put(s, &cy, false), TR_OK);
    assert_int_equal(do_put(s, &bo, true), TR_OK);
    assert_int_equal(do_put(s, &ada, false), TR_OK);
    assert_int_equal(do_put(s, &ada, false), TR_OK); /* issued again: the same */
    assert_int_equal(do_get(s, "ada", a), TR_OK);
    assert_found(&a->list[0], &ada, true);
    assert_int_equal(do_get(s, "a-cy", a), TR_OK);
    assert_found(&a->list[0], &cy, true);

    ada.tagline = "another line";
    assert_int_equal(do_put(s, &ada, false), TR_BUSY); /* there is one */
    assert_int_equal(do_get(s, "ada", a), TR_OK);
    assert_string_equal(a->list[0].tagline, "a line");
    updated = a->list[0].updated_ms;
    assert_int_equal(do_put(s, &ada, true), TR_OK);
    assert_int_equal(do_get(s, "ada", a), TR_OK);
    assert_found(&a->list[0], &ada, true);
    assert_true(a->list[0].updated_ms > updated);

    store_close(s);
    store_open(s);
    assert_int_equal(do_list(s, a), TR_OK); /* by name */
    assert_int_equal(a->n, 3);
    assert_found(&a->list[0], &ada, false);
    assert_found(&a->list[1], &bo, false);
    assert_found(&a->list[2], &cy, false);
    assert_int_equal(do_remove(s, "bo-2"), TR_OK);
    assert_int_equal(do_remove(s, "bo-2"), TR_NOT_FOUND);
    assert_int_equal(do_get(s, "bo-2", a), TR_NOT_FOUND);
    assert_int_equal(do_list(s, a), TR_OK);
    assert_int_equal(a->n, 2);

    assert_int_equal(do_get(s, "any", a), TR_INVALID);
    assert_int_equal(do_get(s, "Ada", a), TR_INVALID);
    strcpy(ada.id, "");
    assert_int_equal(do_put(s, &ada, true), TR_INVALID);
    assert_int_equal(do_remove(s, "no/slug"), TR_INVALID);
    free(a);
    store_free(s);
}

static void test_settings_and_users(void **state)
{
    struct store *s = store_new("settings");
    struct answer *a = calloc(1, sizeof *a);
    uint8_t random[10] = {1, 2, 3};
    const struct uuid user = uuid_v7(T0, random);

    (void)state;
    assert_non_null(a);
    assert_int_equal(do_setting_get(s, "check", a), TR_NOT_FOUND);
    assert_int_equal(do_setting_put(s, "check", "first", a), TR_OK);
    assert_true(a->mine);
    assert_string_equal(a->value, "first");
    assert_int_equal(do_setting_put(s, "check", "first", a), TR_OK);
    assert_true(a->mine);
    assert_int_equal(do_setting_put(s, "check", "second", a), TR_OK);
    assert_false(a->mine);
    assert_string_equal(a->value, "first");
    assert_int_equal(do_setting_put(s, "empty", "", a), TR_OK);
    assert_int_equal(do_user(s, &user), TR_OK);
    assert_int_equal(do_user(s, &user), TR_OK);
    store_close(s);
    store_open(s);
    assert_int_equal(do_setting_get(s, "check", a), TR_OK);
    assert_string_equal(a->value, "first");
    assert_int_equal(do_setting_get(s, "empty", a), TR_OK);
    assert_string_equal(a->value, "");
    free(a);
    store_free(s);
}

struct keys {
    struct wait w;  /* first */
    char text[512]; /* joined by spaces */
    size_t n;
};

static void on_keys(void *ctx, enum tr_rc rc, const char *const *keys, size_t n, const struct tr_err *err)
{
    struct keys *k = ctx;

    wait_called(&k->w, rc, err);
    k->n = n;
    for (size_t i = 0; i < n; i++)
        snprintf(k->text + strlen(k->text), sizeof k->text - strlen(k->text), "%s ", keys[i]);
}

static const char *do_settings(struct store *s, const char *prefix, struct keys *k)
{
    *k = (struct keys){.w.loop = s->loop};
    assert_int_equal(wait_end(&k->w, s->c->ops->settings(s->c, prefix, on_keys, k, &k->w.op, &k->w.err)), TR_OK);
    return k->text;
}

static enum tr_rc do_setting_remove(struct store *s, const char *key)
{
    struct wait w = {.loop = s->loop};

    return wait_end(&w, s->c->ops->setting_remove(s->c, key, wait_done, &w, &w.op, &w.err));
}

static void test_setting_list(void **state)
{
    static const char *const keys[] = {"queue:b", "queue:a%", "queues", "Queue:a", "queue:", "queue:a"};
    struct store *s = store_new("list");
    struct answer *a = calloc(1, sizeof *a);
    struct keys k;

    (void)state;
    assert_non_null(a);
    assert_string_equal(do_settings(s, "queue:", &k), "");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_int_equal(do_setting_put(s, keys[i], "1", a), TR_OK);
    assert_string_equal(do_settings(s, "queue:", &k), "queue: queue:a queue:a% queue:b ");
    assert_string_equal(do_settings(s, "queue:a%", &k), "queue:a% ");
    assert_string_equal(do_settings(s, "%", &k), "");
    (void)do_settings(s, "", &k);
    assert_int_equal(k.n, 6);
    assert_int_equal(do_setting_remove(s, "queue:a"), TR_OK);
    assert_int_equal(do_setting_remove(s, "queue:a"), TR_OK); /* there or not */
    assert_string_equal(do_settings(s, "queue:", &k), "queue: queue:a% queue:b ");
    assert_int_equal(do_setting_get(s, "queue:a", a), TR_NOT_FOUND);
    assert_int_equal(do_setting_put(s, "queue:a", "2", a), TR_OK);
    assert_true(a->mine);
    free(a);
    store_free(s);
}

/* 64 at once: one value wins, and all are told it. */
static void test_setting_race(void **state)
{
    enum { RACERS = 64 };
    struct store *s = store_new("race");
    struct answer *answers = calloc(RACERS, sizeof *answers);
    unsigned winners = 0;
    char value[16];

    (void)state;
    assert_non_null(answers);
    for (unsigned i = 0; i < RACERS; i++) {
        struct answer *a = &answers[i];

        snprintf(value, sizeof value, "value-%u", i);
        wait_started(&a->w, s->c->ops->setting_put(s->c, "key", value, on_setting, TAIL(a)));
    }
    for (unsigned i = 0; i < RACERS; i++) {
        support_count(s->loop, &answers[i].w.calls, 1);
        assert_int_equal(answers[i].w.rc, TR_OK);
        winners += answers[i].mine;
        assert_string_equal(answers[i].value, answers[0].value);
    }
    assert_int_equal(winners, 1);
    free(answers);
    store_free(s);
}

static void test_cancel_and_close(void **state)
{
    struct store *s = store_new("cancel");
    const struct catalogue_character ada = a_character("ada", "Ada");
    struct wait cancelled = {.loop = s->loop}, closed = {.loop = s->loop};

    (void)state;
    wait_started(&cancelled,
                 s->c->ops->character_put(s->c, &ada, true, wait_done, &cancelled, &cancelled.op, &cancelled.err));
    tr_op_cancel(cancelled.op);
    assert_int_equal(cancelled.calls, 0);
    support_count(s->loop, &cancelled.calls, 1);
    assert_int_equal(cancelled.rc, TR_CANCELLED);
    wait_started(&closed, s->c->ops->character_put(s->c, &ada, true, wait_done, &closed, &closed.op, &closed.err));
    store_free(s);
    assert_int_equal(closed.calls, 1);
    assert_int_equal(closed.rc, TR_CANCELLED);
    assert_int_equal(cancelled.calls, 1);
}

/* Answered, then SIGKILL. */
static void put_and_die(void *ctx)
{
    struct store *s = store_new("killed");
    struct catalogue_character ch = a_character("ada", "Ada");

    if (do_put(s, &ch, true) != TR_OK)
        support_child_end(SUPPORT_EXIT_FAILED);
    (void)ctx;
    support_child_end(SUPPORT_KILL);
}

static void test_killed(void **state)
{
    const int status = support_child(put_and_die, NULL);
    struct answer *a = calloc(1, sizeof *a);
    struct store *s;

    (void)state;
    assert_non_null(a);
    assert_true(WIFSIGNALED(status));
    s = store_new("killed");
    assert_int_equal(do_get(s, "ada", a), TR_OK);
    assert_string_equal(a->list[0].name, "Ada");
    free(a);
    store_free(s);
}

static void fill_the_disk(void *ctx)
{
    struct store *s;
    struct rlimit r;
    struct catalogue_character ch = a_character("ada", "Ada");
    struct answer *a = calloc(1, sizeof *a);
    uint8_t *card = calloc(1, 4096);
    char id[16];
    enum tr_rc rc = TR_OK;
    unsigned done = 0;

    (void)ctx;
    assert_true(a != NULL && card != NULL);
    signal(SIGXFSZ, SIG_IGN);
    s = store_new("full");
    ch.card = (struct slice){card, 4096};
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = 400000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
    while (rc == TR_OK && done < 1000) {
        snprintf(id, sizeof id, "ada-%03u", done);
        strcpy(ch.id, id);
        rc = do_put(s, &ch, false);
        done += rc == TR_OK;
    }
    assert_true(done > 0);
    assert_true(rc == TR_TRANSIENT || rc == TR_UNCERTAIN);
    assert_int_equal(do_get(s, "ada-000", a), TR_OK);
    r.rlim_cur = r.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
    assert_int_equal(do_put(s, &ch, false), TR_OK);
    assert_int_equal(do_list(s, a), TR_OK);
    assert_int_equal(a->n, done + 1);
    free(card);
    free(a);
    store_free(s);
}

static void test_disk_full(void **state)
{
    int status;

    (void)state;
    if (adapter->server != NULL)
        skip(); /* its disk is the server's affair */
    status = support_child(fill_the_disk, NULL);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_characters),   cmocka_unit_test(test_settings_and_users), cmocka_unit_test(test_setting_list),
    cmocka_unit_test(test_setting_race), cmocka_unit_test(test_cancel_and_close),   cmocka_unit_test(test_killed),
    cmocka_unit_test(test_disk_full),
};

int main(void)
{
    int failed = 0;

    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        adapter = &adapters[i];
        if (adapter->server == NULL ? support_real() : support_server(adapter->server) == NULL)
            continue;
        failed += _cmocka_run_group_tests(adapter->name, tests, sizeof tests / sizeof *tests, NULL, NULL);
    }
    return failed != 0;
}
