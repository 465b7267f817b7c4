/* support - folder, loop and waiting for the contract suites. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[512];
static pid_t folder_owner;

static void folder_remove(void)
{
    DIR *dir = folder_owner == getpid() ? opendir(folder) : NULL;
    const struct dirent *e;
    char path[1024];

    if (dir == NULL)
        return;
    while ((e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    closedir(dir);
    rmdir(folder);
}

const char *support_folder(void)
{
    const char *tmp = getenv("TMPDIR");

    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s/troupe-contract-XXXXXX", tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
        if (mkdtemp(folder) == NULL) {
            perror(folder);
            exit(1);
        }
        folder_owner = getpid();
        atexit(folder_remove);
    }
    return folder;
}

char *support_path(const char *name)
{
    char path[1024];
    char *copy;

    snprintf(path, sizeof path, "%s/%s", support_folder(), name);
    copy = strdup(path);
    assert_non_null(copy);
    return copy;
}

static bool file_has(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data;
    size_t n;
    long size;
    bool has;

    if (f == NULL)
        return false;
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    data = malloc((size_t)size + 1);
    assert_non_null(data);
    n = fread(data, 1, (size_t)size, f);
    has = memmem(data, n, bytes, len) != NULL;
    free(data);
    fclose(f);
    return has;
}

bool support_on_disk(const char *name, const void *bytes, size_t len)
{
    DIR *dir = opendir(support_folder());
    const struct dirent *e;
    bool has = false;
    char path[1024];

    assert_non_null(dir);
    while (!has && (e = readdir(dir)) != NULL) {
        if (strncmp(e->d_name, name, strlen(name)) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", support_folder(), e->d_name);
        has = file_has(path, bytes, len);
    }
    closedir(dir);
    return has;
}

struct until {
    struct loop *loop;
    bool (*cond)(void *ctx);
    void *ctx;
    uint64_t end_ns;
    bool is_so;
};

static void on_look(void *ctx)
{
    struct until *u = ctx;

    if (u->cond != NULL)
        u->is_so = u->cond(u->ctx);
    if (u->is_so || mono_ns() >= u->end_ns)
        loop_stop(u->loop);
}

bool support_until(struct loop *loop, bool (*cond)(void *ctx), void *ctx, uint64_t ms)
{
    struct until u = {.loop = loop, .cond = cond, .ctx = ctx, .end_ns = mono_ns() + ms * 1000000};
    struct loop_timer *timer = NULL;

    assert_int_equal(timer_start(loop, 0, 1, on_look, &u, &timer), TR_OK);
    loop_run(loop);
    timer_stop(timer);
    return u.is_so;
}

void support_for(struct loop *loop, uint64_t ms)
{
    support_until(loop, NULL, NULL, ms);
}

struct count {
    const size_t *counter;
    size_t want;
};

static bool count_reached(void *ctx)
{
    const struct count *c = ctx;

    return *c->counter >= c->want;
}

void support_count(struct loop *loop, const size_t *counter, size_t want)
{
    struct count c = {counter, want};

    if (!support_until(loop, count_reached, &c, SUPPORT_LIMIT_MS))
        fail_msg("only %zu of %zu came", *counter, want);
}

void wait_called(struct wait *w, enum tr_rc rc, const struct tr_err *err)
{
    if (!w->started)
        fail_msg("called back before the start function returned");
    if (++w->calls > 1)
        fail_msg("called back %zu times", w->calls);
    w->op = NULL;
    w->rc = rc;
    if (rc == TR_OK)
        return;
    if (err != NULL)
        w->err = *err;
    w->err.rc = rc;
}

void wait_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

void wait_started(struct wait *w, enum tr_rc start_rc)
{
    w->started = true;
    w->rc = start_rc;
    assert_int_equal(w->calls, 0);
}

static bool was_called(void *ctx)
{
    return ((struct wait *)ctx)->calls > 0;
}

enum tr_rc wait_end(struct wait *w, enum tr_rc start_rc)
{
    wait_started(w, start_rc);
    if (start_rc == TR_OK && !support_until(w->loop, was_called, w, SUPPORT_LIMIT_MS))
        fail_msg("no callback within %d ms", SUPPORT_LIMIT_MS);
    return w->rc;
}

int support_child(void (*fn)(void *ctx), void *ctx)
{
    int status = 0;
    pid_t pid;

    support_folder(); /* the parent's: the child must not make and remove one of its own */
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fn(ctx);
        support_child_end(SUPPORT_EXIT_OK);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

void support_child_end(enum support_end end)
{
    if (end == SUPPORT_KILL)
        kill(getpid(), SIGKILL);
    _exit(end == SUPPORT_EXIT_OK ? 0 : 1);
}

bool support_real(void)
{
    return getenv("TROUPE_TEST_REAL") != NULL;
}

const char *support_server(const char *variable)
{
    const char *const url = getenv(variable), *const must = getenv("TROUPE_TEST_REAL");

    if (url == NULL && must != NULL && strstr(must, variable) != NULL) {
        fprintf(stderr, "%s is not set\n", variable);
        exit(1);
    }
    return url;
}

void support_server_do(const char *name, const char *dir_variable, const char *verb, int node)
{
    const char *const scripts = getenv("TROUPE_TEST_SERVERS"), *const dir = getenv(dir_variable);
    char command[1024], number[16] = "";

    assert_non_null(scripts);
    assert_non_null(dir);
    if (node > 0)
        snprintf(number, sizeof number, " %d", node);
    snprintf(command, sizeof command, "'%s/%s.sh' %s '%s'%s </dev/null >/dev/null", scripts, name, verb, dir, number);
    assert_int_equal(system(command), 0);
}

void support_many_done(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct support_many *m = ctx;

    (void)err;
    m->done++;
    m->failed += rc != TR_OK;
}
