/*
 * history_fixture - what the history's contract suite works with: a fresh store a test, and every operation as one call
 * that waits for its answer and copies it.
 */
#ifndef TESTS_CONTRACT_HISTORY_FIXTURE_H
#define TESTS_CONTRACT_HISTORY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"
#include "port/history.h"
#include "support.h"

/* An adapter under test: a row in history.c's table. */
struct adapter {
    const char *name;
    const char *server; /* the variable with its URL; NULL: embedded, a file of the test's own */
    enum tr_rc (*open)(struct loop *loop, const char *path, struct history **ret_history, struct tr_err *err);
};
extern const struct adapter *adapter; /* the one that is being tested */

struct store {
    struct loop *loop;
    struct history *h;
    char *path;
    char name[64];
};
struct store *store_new(const char *name); /* a fresh, open one; "…/<adapter>-<name>.db", or the server's */
void store_open(struct store *s);          /* the same file again */
void store_close(struct store *s);         /* the file stays */
void store_free(struct store *s);
void store_init(void); /* a server's schema */

/* What an operation's callback brought, copied. */
struct answer {
    struct wait w; /* first */
    bool mine, more;
    uint64_t change;
    struct history_chat chat;
    struct history_chat chats[64];
    size_t n;
    struct history_accepted accepted;
    struct turn_row *rows; /* owned, each with a sealed text of its own: answer_release() */
    bool has_standing;
    uint8_t wrapped[SEAL_WRAPPED_MAX];
    size_t wrapped_len;
};
void answer_release(struct answer *a);

enum tr_rc do_create(struct store *s, const struct history_chat *chat, const uint8_t *client,
                     const struct turn_row *rows, size_t n, struct answer *ret);
enum tr_rc do_chat_get(struct store *s, const struct uuid *chat, struct answer *ret);
enum tr_rc do_chats(struct store *s, const struct uuid *user, const struct uuid *before, uint32_t limit,
                    struct answer *ret);
enum tr_rc do_delete(struct store *s, const struct uuid *chat);
enum tr_rc do_accept(struct store *s, const struct history_accept *a, struct answer *ret);
enum tr_rc do_append(struct store *s, const struct turn_row *rows, size_t n, struct answer *ret);
enum tr_rc do_turn_get(struct store *s, const struct uuid *chat, const struct uuid *turn, struct answer *ret);
enum tr_rc do_turns(struct store *s, const struct uuid *chat, const struct history_range *range, struct answer *ret);
enum tr_rc do_changed(struct store *s, const struct uuid *chat, uint64_t since, uint32_t limit, struct answer *ret);
enum tr_rc do_key_put(struct store *s, enum seal_owner owner, const char *id, struct slice wrapped, struct answer *ret);
enum tr_rc do_key_get(struct store *s, enum seal_owner owner, const char *id, struct answer *ret);

/* Callbacks of the above, for operations that a test starts by itself; ctx: struct answer, w.loop set. */
void on_chat_answer(void *ctx, enum tr_rc rc, const struct history_chat *chat, bool mine, const struct tr_err *err);
void on_accept_answer(void *ctx, enum tr_rc rc, const struct history_accepted *res, const struct tr_err *err);
void on_append_answer(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                      const struct tr_err *err);
void on_rows_answer(void *ctx, enum tr_rc rc, const struct turn_row *rows, size_t n, bool more,
                    const struct tr_err *err);

/* Material. */
#define T0 1760000000000 /* 2025-10-09 */
struct uuid an_id(uint64_t ms);
struct history_chat a_chat(struct uuid user, uint64_t ms); /* head: a greeting's id */
struct turn_row a_row(const struct history_chat *chat, struct uuid turn, int32_t part, const char *sealed);
struct turn_row an_event(const struct history_chat *chat, struct uuid turn, int32_t rev, enum turn_event event,
                         int32_t variant);
/* The next turn of the chat: after chat->head, at `ms`, with the client id `client`. */
struct history_accept an_accept(const struct history_chat *chat, uint64_t ms, const char *client, const char *sealed);
/* Create the chat with a greeting "hello" and two variants. */
void make_chat(struct store *s, const struct history_chat *chat);
/* Accept a turn and move *chat on. */
struct uuid make_turn(struct store *s, struct history_chat *chat, uint64_t ms, const char *client);
void assert_row_equal(const struct turn_row *got, const struct turn_row *want);
#define slice_of(s) ((struct slice){(const uint8_t *)(s), strlen(s)})

#endif
