/*
 * support - what the contract suites share: a fresh folder, a loop that runs until something is so, and the waiting for
 * ONE callback, which checks the rules of base/op.h on the way (exactly one callback, never before the start returned).
 * Include after <cmocka.h> and what that needs.  Everything fails the running test by itself.
 */
#ifndef TESTS_CONTRACT_SUPPORT_H
#define TESTS_CONTRACT_SUPPORT_H

#include "base/buf.h"
#include "base/loop.h"
#include "base/op.h"

#define SUPPORT_LIMIT_MS 20000 /* nothing that a test waits for takes longer */

/* A fresh folder under $TMPDIR (or /tmp); one a program, made at the first call, removed at exit.  Borrowed. */
const char *support_folder(void);
/* "<folder>/<name>", fresh for every call with another `name`; owned: free(). */
char *support_path(const char *name);
/* Do these bytes stand anywhere in the files of the folder whose names begin with `name`? */
bool support_on_disk(const char *name, const void *bytes, size_t len);

/*
 * The URL of a real server, from the environment (tests/servers/lib.sh); NULL: there is none.  TROUPE_TEST_REAL is the list of
 * those variables that must be there: one that is missing fails the program.  support_real(): only they are tested now.
 */
const char *support_server(const char *variable);
bool support_real(void);
/* Run tests/servers/<name>.sh with this verb and the folder of `dir_variable` (and node, 0: all); fails the test if it fails. */
void support_server_do(const char *name, const char *dir_variable, const char *verb, int node);

/* Run the loop until cond(ctx), at most `ms`; false: it never was so. */
bool support_until(struct loop *loop, bool (*cond)(void *ctx), void *ctx, uint64_t ms);
/* Run the loop for so long. */
void support_for(struct loop *loop, uint64_t ms);
/* Run until *counter >= want; fails the test past SUPPORT_LIMIT_MS. */
void support_count(struct loop *loop, const size_t *counter, size_t want);

/*
 * One operation that is waited for:
 *     struct wait w = {.loop = loop};
 *     rc = wait_end(&w, q->ops->declare(q, &spec, wait_done, &w, &w.op, &w.err));
 * A callback with results is one of the suite's own: wait_called(ctx, rc, err) first, then copy what it got.  Its
 * context then begins with a struct wait.
 */
struct wait {
    struct loop *loop;
    struct tr_op *op;
    struct tr_err err; /* of the start or of the callback */
    enum tr_rc rc;
    bool started; /* set by wait_started()/wait_end(): callbacks may come from here on */
    size_t calls;
};

void wait_called(struct wait *w, enum tr_rc rc, const struct tr_err *err);
void wait_done(void *ctx, enum tr_rc rc, const struct tr_err *err); /* ctx: struct wait */
/* The start function has returned start_rc; does not run the loop. */
void wait_started(struct wait *w, enum tr_rc start_rc);
/* The same, then run the loop until the callback has come.  Returns start_rc if not TR_OK, else what it came with. */
enum tr_rc wait_end(struct wait *w, enum tr_rc start_rc);

/*
 * Run fn(ctx) in a child process with nothing of ours in it (call it before any loop lives in this process); fn leaves
 * by support_child_end().  Returns the raw wait status.
 */
int support_child(void (*fn)(void *ctx), void *ctx);
/* In the child: how it ends. */
enum support_end { SUPPORT_EXIT_OK, SUPPORT_EXIT_FAILED, SUPPORT_KILL };
void support_child_end(enum support_end end) __attribute__((noreturn));

/* Many operations at once, whose ends are counted: the callback of those that bring nothing but their end. */
struct support_many {
    size_t done, failed;
};
void support_many_done(void *ctx, enum tr_rc rc, const struct tr_err *err);

#endif
