/*
 * The Redis registry against a server that misbehaves as it is told to: odd answers, refusals, silence, cut replies.
 * The server runs on the same loop; what a real Redis does is in tests/contract/redis.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapter/redis/impl.h"
#include "redis_server.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct loop *loop;
static struct registry *reg;

static int set_up(void **state)
{
    char url[128];

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), TR_OK);
    fake_start(loop);
    snprintf(url, sizeof url, "redis://:tr-secret@127.0.0.1:%d/0", fake.port);
    assert_int_equal(redis_registry_open(loop, url, &reg, NULL), TR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (reg != NULL)
        reg->ops->close(reg);
    reg = NULL;
    fake_stop();
    support_for(loop, 1);
    loop_drain(loop);
    loop_free(loop);
    return 0;
}

/* ---- operations ---- */

struct got {
    struct wait w; /* first */
    uint64_t number;
    size_t n;
    struct registry_worker first;
};

static void on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->number = number;
}

static void on_rate(void *ctx, enum tr_rc rc, uint64_t ms, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct got *)ctx)->number = ms;
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct got *g = ctx;

    wait_called(&g->w, rc, err);
    g->n = n;
    if (n > 0)
        g->first = list[0];
}

static void on_names(void *ctx, enum tr_rc rc, const char *const *names, size_t n, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    for (size_t i = 0; i < n; i++)
        assert_true(strlen(names[i]) > 0);
    ((struct got *)ctx)->n = n;
}

static void on_context(void *ctx, enum tr_rc rc, const struct registry_context *context, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    if (rc == TR_OK)
        ((struct got *)ctx)->n = context->sealed.len;
}

static void on_checked(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    assert_true((report != NULL) == (rc == TR_OK));
}

enum kind { WORKERS, REGISTER, REFRESH, REMOVE, NAMES, PUT, RENEW, CONTEXT, CONTEXT_PUT, RATE, CHECK };

static enum tr_rc begin(enum kind kind, struct got *g)
{
    static const struct uuid chat = {{0x01, 0x90, 7}};
    static const struct registry_worker w = {.character = "any", .id = "a", .weight = 1, .number = 1};
    const struct registry_context c = {.sealed = {(const uint8_t *)"bytes", 5}};

    *g = (struct got){.w.loop = loop};
    switch (kind) {
    case WORKERS:
        return reg->ops->workers(reg, "any", on_workers, g, &g->w.op, &g->w.err);
    case REGISTER:
        return reg->ops->worker_register(reg, &w, 5000, on_number, g, &g->w.op, &g->w.err);
    case REFRESH:
        return reg->ops->worker_refresh(reg, &w, 5000, wait_done, g, &g->w.op, &g->w.err);
    case REMOVE:
        return reg->ops->worker_remove(reg, &w, wait_done, g, &g->w.op, &g->w.err);
    case NAMES:
        return reg->ops->conns(reg, &chat, on_names, g, &g->w.op, &g->w.err);
    case PUT:
        return reg->ops->conn_put(reg, &chat, "gateway.1", 5000, wait_done, g, &g->w.op, &g->w.err);
    case RENEW:
        return reg->ops->conn_renew(reg, &chat, "gateway.1", 5000, wait_done, g, &g->w.op, &g->w.err);
    case CONTEXT:
        return reg->ops->context_get(reg, &chat, on_context, g, &g->w.op, &g->w.err);
    case CONTEXT_PUT:
        return reg->ops->context_put(reg, &chat, &c, 5000, wait_done, g, &g->w.op, &g->w.err);
    case RATE:
        return reg->ops->rate_take(reg, "user:a", 60, on_rate, g, &g->w.op, &g->w.err);
    case CHECK:
        break;
    }
    return reg->ops->check(reg, on_checked, g, &g->w.op, &g->w.err);
}

static enum tr_rc call(enum kind kind, struct got *g)
{
    return wait_end(&g->w, begin(kind, g));
}

/* ---- odd answers ---- */

#define HEAD24 "0123456789abcdef\0\0\0\0\0\0\0\7"
#define NO_LIMIT "$12\r\nmaxmemory:0\n\r\n"
#define INFO7 "$20\r\nredis_version:7.0.1\n\r\n"
#define MASTER "$11\r\nrole:master\r\n"

static const struct row {
    const char *name;
    enum kind kind;
    struct answer answer;
    enum tr_rc want;
    size_t n; /* of what came, where it is a list or bytes */
} rows[] = {
    {"workers: none", WORKERS, RAW("*1\r\n$1\r\n5\r\n"), TR_OK, 0},
    {"workers: empty array", WORKERS, RAW("*0\r\n"), TR_INVALID, 0},
    {"workers: nil", WORKERS, RAW("$-1\r\n"), TR_INVALID, 0},
    {"workers: nil array", WORKERS, RAW("*-1\r\n"), TR_INVALID, 0},
    {"workers: number", WORKERS, RAW(":1\r\n"), TR_INVALID, 0},
    {"workers: status", WORKERS, RAW("+OK\r\n"), TR_INVALID, 0},
    {"workers: a number without a record", WORKERS, RAW("*2\r\n$1\r\n5\r\n$1\r\n1\r\n"), TR_INVALID, 0},
    {"workers: nil record", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$-1\r\n"), TR_INVALID, 0},
    {"workers: array for a record", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n*0\r\n"), TR_INVALID, 0},
    {"workers: error inside", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n-ERR x\r\n"), TR_INVALID, 0},
    {"workers: one", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$15\r\n3\nid=a\nweight=1\r\n"), TR_OK, 1},
    {"workers: of a newer version", WORKERS,
     RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$33\r\n3\nid=a\nweight=1\nmood=fine\nx=\nid2==\r\n"), TR_OK, 1},
    {"workers: number 0", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n0\r\n$15\r\n3\nid=a\nweight=1\r\n"), TR_OK, 0},
    {"workers: number -1", WORKERS, RAW("*3\r\n$1\r\n5\r\n$2\r\n-1\r\n$15\r\n3\nid=a\nweight=1\r\n"), TR_OK, 0},
    {"workers: number 2^33", WORKERS, RAW("*3\r\n$1\r\n5\r\n$10\r\n8589934592\r\n$15\r\n3\nid=a\nweight=1\r\n"), TR_OK,
     0},
    {"workers: weight -1", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$16\r\n3\nid=a\nweight=-1\r\n"), TR_OK, 0},
    {"workers: weight 0", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$15\r\n3\nid=a\nweight=0\r\n"), TR_OK, 0},
    {"workers: no id", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$10\r\n3\nweight=1\r\n"), TR_OK, 0},
    {"workers: 0 byte in the id", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$16\r\n3\nid=a\0\nweight=1\r\n"), TR_OK, 0},
    {"workers: empty record", WORKERS, RAW("*3\r\n$1\r\n5\r\n$1\r\n1\r\n$0\r\n\r\n"), TR_OK, 0},
    {"workers: rubbish beside a good one", WORKERS,
     RAW("*5\r\n$1\r\n5\r\n$1\r\n1\r\n$3\r\nxyz\r\n$1\r\n2\r\n$15\r\n3\nid=a\nweight=1\r\n"), TR_OK, 1},
    {"register: 3", REGISTER, RAW(":3\r\n"), TR_OK, 0},
    {"register: 0", REGISTER, RAW(":0\r\n"), TR_INVALID, 0},
    {"register: -1", REGISTER, RAW(":-1\r\n"), TR_INVALID, 0},
    {"register: past 32 bits", REGISTER, RAW(":5000000000\r\n"), TR_INVALID, 0},
    {"register: text", REGISTER, RAW("$1\r\n3\r\n"), TR_INVALID, 0},
    {"refresh: gone", REFRESH, RAW(":0\r\n"), TR_NOT_FOUND, 0},
    {"refresh: nil", REFRESH, RAW("$-1\r\n"), TR_INVALID, 0},
    {"put", PUT, RAW("*2\r\n:2\r\n$4\r\n99.5\r\n"), TR_OK, 0},
    {"put: number", PUT, RAW(":1\r\n"), TR_INVALID, 0},
    {"put: no end", PUT, RAW("*1\r\n:1\r\n"), TR_INVALID, 0},
    {"put: nil end", PUT, RAW("*2\r\n:1\r\n$-1\r\n"), TR_INVALID, 0},
    {"put: 0", PUT, RAW("*2\r\n:0\r\n$4\r\n99.5\r\n"), TR_INVALID, 0},
    {"renew", RENEW, RAW("*2\r\n:1\r\n$4\r\n99.5\r\n"), TR_OK, 0},
    {"renew: it was gone", RENEW, RAW("*2\r\n:2\r\n$4\r\n99.5\r\n"), TR_NOT_FOUND, 0},
    {"names: none", NAMES, RAW("*0\r\n"), TR_OK, 0},
    {"names: two", NAMES, RAW("*2\r\n$1\r\na\r\n$1\r\nb\r\n"), TR_OK, 2},
    {"names: nil among them", NAMES, RAW("*2\r\n$1\r\na\r\n$-1\r\n"), TR_INVALID, 0},
    {"names: empty, and with a 0 byte", NAMES, RAW("*3\r\n$0\r\n\r\n$3\r\na\0b\r\n$1\r\nb\r\n"), TR_OK, 1},
    {"names: no array", NAMES, RAW("$1\r\na\r\n"), TR_INVALID, 0},
    {"context: none", CONTEXT, RAW("$-1\r\n"), TR_NOT_FOUND, 0},
    {"context: head alone", CONTEXT, RAW("$24\r\n" HEAD24 "\r\n"), TR_OK, 0},
    {"context: bytes", CONTEXT, RAW("$28\r\n" HEAD24 "\0\1\2\3\r\n"), TR_OK, 4},
    {"context: short of its head", CONTEXT, RAW("$23\r\n0123456789abcdef\0\0\0\0\0\0\0\r\n"), TR_INVALID, 0},
    {"context: number", CONTEXT, RAW(":24\r\n"), TR_INVALID, 0},
    {"rate: wait", RATE, RAW(":900\r\n"), TR_OK, 0},
    {"rate: below 0", RATE, RAW(":-5\r\n"), TR_INVALID, 0},
    {"check", CHECK, RAW("*5\r\n" INFO7 "$1\r\n5\r\n$1\r\n6\r\n" MASTER NO_LIMIT), TR_OK, 0},
    {"check: a replica", CHECK, RAW("*5\r\n" INFO7 "$1\r\n5\r\n$1\r\n6\r\n$10\r\nrole:slave\r\n" NO_LIMIT), TR_INVALID,
     0},
    {"check: too old", CHECK, RAW("*5\r\n$20\r\nredis_version:5.0.1\n\r\n$1\r\n5\r\n$1\r\n6\r\n" MASTER NO_LIMIT),
     TR_INVALID, 0},
    {"check: three", CHECK, RAW("*3\r\n" INFO7 "$1\r\n5\r\n$1\r\n6\r\n"), TR_INVALID, 0},
    {"check: nil inside", CHECK, RAW("*5\r\n" INFO7 "$-1\r\n$1\r\n6\r\n" MASTER NO_LIMIT), TR_INVALID, 0},

    {"loading", NAMES, RAW("-LOADING Redis is loading the dataset in memory\r\n"), TR_TRANSIENT, 0},
    {"loading, a write", PUT, RAW("-LOADING Redis is loading the dataset in memory\r\n"), TR_TRANSIENT, 0},
    {"out of memory", PUT, RAW("-OOM command not allowed when used memory > 'maxmemory'.\r\n"), TR_BUSY, 0},
    {"out of memory, a plain command", CONTEXT_PUT, RAW("-OOM command not allowed\r\n"), TR_BUSY, 0},
    {"out of memory, before Redis 7", PUT,
     RAW("-ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed\r\n"),
     TR_BUSY, 0},
    {"a replica", REGISTER, RAW("-READONLY You can't write against a read only replica.\r\n"), TR_TRANSIENT, 0},
    {"a replica, before Redis 7", REGISTER,
     RAW("-ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -READONLY You can't\r\n"),
     TR_TRANSIENT, 0},
    {"cannot save", PUT, RAW("-MISCONF Redis is configured to save RDB snapshots\r\n"), TR_TRANSIENT, 0},
    {"busy with a script", NAMES, RAW("-BUSY Redis is busy running a script.\r\n"), TR_TRANSIENT, 0},
    {"the password was changed", NAMES, RAW("-NOAUTH Authentication required.\r\n"), TR_INVALID, 0},
    {"no rights", REMOVE, RAW("-NOPERM this user has no permissions\r\n"), TR_INVALID, 0},
    {"a script that is never known", NAMES, RAW("-NOSCRIPT No matching script.\r\n"), TR_TRANSIENT, 0},
    {"wrong type", CONTEXT, RAW("-WRONGTYPE Operation against a key\r\n"), TR_INVALID, 0},
    {"empty error", NAMES, RAW("-\r\n"), TR_INVALID, 0},

    {"no Redis: a read", NAMES, RAW("HTTP/1.1 400 Bad Request\r\n\r\n"), TR_TRANSIENT, 0},
    {"no Redis: a write", PUT, RAW("HTTP/1.1 400 Bad Request\r\n\r\n"), TR_UNCERTAIN, 0},
    {"cut in an array", WORKERS, CUT("*3\r\n$1\r\n5\r\n"), TR_TRANSIENT, 0},
    {"cut in a text", CONTEXT, CUT("$100\r\nabc"), TR_TRANSIENT, 0},
    {"cut in a number", PUT, CUT(":"), TR_UNCERTAIN, 0},
    {"cut before anything", REGISTER, CUT(""), TR_UNCERTAIN, 0},
};

/* Each odd answer means what it should, and the next operation is none the worse for it. */
static void odd_answers(void **state)
{
    struct got g;
    size_t wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *const row = &rows[i];
        enum tr_rc rc;

        fake.asked = 0;
        fake.answers_max = strncmp(row->answer.bytes, "-NOSCRIPT", 9) == 0 ? 2 : 1;
        fake.answer = row->answer;
        rc = call(row->kind, &g);
        if (rc != row->want || (rc == TR_OK && g.n != row->n)) {
            print_error("%s: %s with %zu, not %s with %zu: %s\n", row->name, tr_rc_name(rc), g.n, tr_rc_name(row->want),
                        row->n, g.w.err.msg);
            wrong++;
        }
        assert_int_equal(call(PUT, &g), TR_OK);
    }
    assert_int_equal(wrong, 0);
}

static void newer_record(void **state)
{
    struct got g;

    (void)state;
    fake.answer = (struct answer)RAW("*3\r\n$4\r\n1500\r\n$1\r\n7\r\n$71\r\n1000\nid=a\nmodel=m=1\nnew=\1\2\nslots="
                                     "3\nweight=4\nload=2\nzz=9\n===\ndraining=1\n\r\n");
    assert_int_equal(call(WORKERS, &g), TR_OK);
    assert_int_equal(g.n, 1);
    assert_string_equal(g.first.id, "a");
    assert_string_equal(g.first.model, "m=1");
    assert_string_equal(g.first.queue, "inference.any.7");
    assert_string_equal(g.first.character, "any");
    assert_true(g.first.slots == 3 && g.first.weight == 4 && g.first.load == 2 && g.first.age_ms == 500 &&
                g.first.draining);
}

/* Nothing that was sent comes back in an error: not a password, not a chat's bytes. */
static void errors_tell_no_secrets(void **state)
{
    struct got g;

    (void)state;
    fake.refused_greetings = 1;
    fake.greeting = (struct answer)RAW("-ERR unknown command 'AUTH', with args beginning with: 'tr-secret' \r\n");
    assert_int_equal(call(CHECK, &g), TR_INVALID);
    assert_null(strstr(g.w.err.msg, "tr-secret"));
    assert_non_null(strstr(g.w.err.msg, "unknown command 'AUTH'"));
    fake.refused_greetings = 0;
    fake.answers_max = 1;
    fake.answer = (struct answer)RAW("-ERR unknown command 'SET', with args beginning with: 'troupe:x' 'bytes' \r\n");
    assert_int_equal(call(CONTEXT_PUT, &g), TR_INVALID);
    assert_null(strstr(g.w.err.msg, "bytes"));
}

/* ---- greetings ---- */

static void is_loading(void **state)
{
    struct got g, waits;

    (void)state;
    fake.refused_greetings = 3;
    fake.greeting = (struct answer)RAW("-LOADING Redis is loading the dataset in memory\r\n");
    fake.answer = fake.after;
    wait_started(&waits.w, begin(PUT, &waits)); /* waits until it is read */
    assert_int_equal(call(CHECK, &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "reading its data"));
    support_count(loop, &waits.w.calls, 1);
    assert_int_equal(waits.w.rc, TR_OK);
    assert_int_equal(fake.connections, 4);
}

static void hangs_up_at_the_greeting(void **state)
{
    const uint64_t start = mono_ns();
    struct got g;

    (void)state;
    fake.refused_greetings = 1;
    fake.greeting = (struct answer)CUT("");
    assert_int_equal(call(CHECK, &g), TR_TRANSIENT);
    assert_non_null(strstr(g.w.err.msg, "cannot reach Redis at 127.0.0.1"));
    assert_true(mono_ns() - start < UINT64_C(1000000000));
    fake.answer = fake.after;
    assert_int_equal(call(PUT, &g), TR_OK);
}

static bool second_connection(void *ctx)
{
    (void)ctx;
    return fake.connections >= 2;
}

/* It accepts and says nothing: an operation ends at its deadline as never sent, and another connection is tried. */
static void is_silent_at_the_greeting(void **state)
{
    struct got g;

    (void)state;
    fake.refused_greetings = 1;
    fake.greeting = silence;
    assert_int_equal(call(PUT, &g), TR_TRANSIENT);
    assert_true(support_until(loop, second_connection, NULL, 5000));
    fake.answer = fake.after;
    assert_int_equal(call(PUT, &g), TR_OK);
}

/* It refuses the password, does not answer the rest and does not hang up either. */
static void is_half_silent(void **state)
{
    struct got g;

    (void)state;
    fake.refused_greetings = 1;
    fake.greeting = (struct answer)RAW("-WRONGPASS invalid\r\n");
    fake.greeting_once = true;
    wait_started(&g.w, begin(CHECK, &g));
    assert_true(support_until(loop, second_connection, NULL, 6000));
    support_count(loop, &g.w.calls, 1);
    fake.answer = fake.after;
    assert_int_equal(call(PUT, &g), TR_OK);
}

/* ---- a connection that dies in silence ---- */

struct again {
    size_t tries;
    enum tr_rc rc;
    size_t ended;
};

static void on_again(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct again *const a = ctx;
    static const struct uuid chat = {{1}};

    (void)err;
    a->rc = rc;
    if (rc != TR_OK && a->tries++ < 10 &&
        reg->ops->conn_put(reg, &chat, "gateway.1", 5000, on_again, a, NULL, NULL) == TR_OK)
        return;
    a->ended++;
}

static void stops_answering(void **state)
{
    struct redis_registry *const r = (struct redis_registry *)reg;
    struct got g, many[100];
    struct again again = {0}; /* tries again while the connection is given up */
    bool healed;

    (void)state;
    fake.answer = fake.after;
    assert_int_equal(call(PUT, &g), TR_OK);
    fake.silent = 1;
    for (size_t i = 0; i < 100; i++)
        wait_started(&many[i].w, begin(i % 2 == 0 ? PUT : NAMES, &many[i]));
    assert_int_equal(call(PUT, &g), TR_UNCERTAIN);
    for (size_t i = 0; i < 100; i++) {
        support_count(loop, &many[i].w.calls, 1);
        assert_int_equal(many[i].w.rc, i % 2 == 0 ? TR_UNCERTAIN : TR_TRANSIENT);
    }
    assert_int_equal(r->awaited, 101); /* the connection still owes them */
    assert_int_equal(reg->ops->conn_put(reg, &(struct uuid){{1}}, "gateway.1", 5000, on_again, &again, NULL, NULL),
                     TR_OK);
    healed = support_until(loop, second_connection, NULL, RR_STUCK_MS + 2000);
    assert_true(healed);
    assert_in_range(r->awaited, 0, 1); /* what tries again may be on its way */
    assert_int_equal(call(PUT, &g), TR_OK);
    support_count(loop, &again.ended, 1);
    assert_int_equal(again.rc, TR_OK);
    assert_in_range(again.tries, 2, 5);
}

/* A caller that tries again from inside the callback that told of the loss. */
static void tries_again_inside(void **state)
{
    static const struct uuid chat = {{1}};
    struct again a[50] = {0};

    (void)state;
    fake.answers_max = 3;
    fake.answer = (struct answer)CUT(":1");
    for (size_t i = 0; i < 50; i++)
        assert_int_equal(reg->ops->conn_put(reg, &chat, "gateway.1", 5000, on_again, &a[i], NULL, NULL), TR_OK);
    for (size_t i = 0; i < 50; i++) {
        support_count(loop, &a[i].ended, 1);
        assert_int_equal(a[i].rc, TR_OK);
    }
}

static void on_gap(void *ctx)
{
    ++*(size_t *)ctx;
}

/* A new connection is a gap: once each, and not the first; whoever has gone is not told. */
static void a_new_connection_is_a_gap(void **state)
{
    size_t gaps = 0, others = 0;
    struct registry_gap gap = {.fn = on_gap, .ctx = &gaps}, other = {.fn = on_gap, .ctx = &others};
    struct got g;

    (void)state;
    registry_gap_add(reg, &gap);
    registry_gap_add(reg, &other);
    fake.answer = fake.after;
    assert_int_equal(call(PUT, &g), TR_OK);
    assert_int_equal(gaps, 0);
    for (size_t round = 1; round <= 3; round++) {
        fake.asked = 0;
        fake.answers_max = 1;
        fake.answer = (struct answer)CUT("");
        assert_int_equal(call(PUT, &g), TR_UNCERTAIN);
        support_count(loop, &gaps, round);
        assert_int_equal(call(PUT, &g), TR_OK);
        assert_int_equal(gaps, round);
        assert_int_equal(others, 1);
        registry_gap_remove(reg, &other);
    }
    registry_gap_remove(reg, &gap);
}

static size_t checks_made;
static void on_check_again(void *ctx, enum tr_rc rc, const struct service_report *report, const struct tr_err *err)
{
    (void)report, (void)err;
    checks_made++;
    if (rc == TR_TRANSIENT)
        (void)!reg->ops->check(reg, on_check_again, ctx, NULL, NULL);
}

/* A check that is started from a failed one's callback waits for the next try: it does not spin. */
static void check_does_not_spin(void **state)
{
    (void)state;
    checks_made = 0;
    fake.refused_greetings = SIZE_MAX;
    fake.greeting = (struct answer)CUT("");
    assert_int_equal(reg->ops->check(reg, on_check_again, NULL, NULL, NULL), TR_OK);
    support_for(loop, 500);
    assert_in_range(checks_made, 1, 20);
}

static void on_count(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)err;
    assert_int_equal(rc, TR_CANCELLED);
    ++*(size_t *)ctx;
}

/* What waits is bounded, and closing answers all of it. */
static void waiting_is_bounded(void **state)
{
    static const struct uuid chat = {{1}};
    size_t ended = 0, n = 0;
    struct tr_err err;
    enum tr_rc rc;

    (void)state;
    while ((rc = reg->ops->conn_put(reg, &chat, "gateway.1", 5000, on_count, &ended, NULL, &err)) == TR_OK)
        n++;
    assert_int_equal(rc, TR_BUSY);
    assert_int_equal(n, RR_OPS_MAX);
    assert_int_equal(ended, 0);
    reg->ops->close(reg);
    reg = NULL;
    assert_int_equal(ended, n);
}

static void urls(void **state)
{
    static const char *const bad[] = {
        "redis://127.0.0.1:1/x",
        "redis://127.0.0.1:1/-1",
        "redis://127.0.0.1:1/99999999999",
        "redis://a:1,b:2/0",
        "http://127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?prefix=0123456789012345678901234567890123456789012345678901234567890123",
    };
    struct registry *other = NULL;
    struct tr_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (redis_registry_open(loop, bad[i], &other, &err) != TR_INVALID)
            fail_msg("%s", bad[i]);
        assert_null(other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(odd_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(newer_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_tell_no_secrets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_loading, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hangs_up_at_the_greeting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_silent_at_the_greeting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_half_silent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stops_answering, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tries_again_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(check_does_not_spin, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_new_connection_is_a_gap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(urls, set_up, tear_down),
    };

    signal(SIGPIPE, SIG_IGN); /* as main() does */
    return cmocka_run_group_tests_name("the Redis registry's link", tests, NULL, NULL);
}
