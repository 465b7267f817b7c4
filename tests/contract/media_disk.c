/* media_disk - what only a folder can be held to: a disk that is full, a path that is none, files of others; tests of media.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "media_disk.h"
#include "media_fixture.h"

#include "adapter/filesystem/media.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB (1024u * 1024)

/* A file may not grow beyond a size: the disk's end for whoever writes it. */
void media_disk_is_full(void **state)
{
    struct rlimit old, small;
    struct tr_err err = {0};

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 3 * MIB / 2;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(put_all(object(1), 1, 3 * MIB, MIB, &err), TR_BUSY);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_absent(object(1));
    media_await_none_left();
    assert_int_equal(put_all(object(1), 1, 3 * MIB, MIB, &err), TR_OK);
    assert_object(object(1), 1, 3 * MIB);
}

/* From here on in this process the kernel has no room for a write of 4 KiB or more: "No space left on device". */
static bool no_room(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 4096, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* In a child, as what it sets stays: a file finds no room, leaves nothing behind, and a small one has room still. */
static void child_no_room(void *ctx)
{
    struct tr_err err = {0};

    (void)ctx;
    alarm(60);
    assert_true(no_room());
    media_open();
    if (put_all(object(2), 2, 3 * MIB, MIB, &err) != TR_BUSY || strstr(err.msg, "No space left") == NULL ||
        put_all(object(3), 3, MIB / 64, 1000, NULL) != TR_OK)
        support_child_end(SUPPORT_EXIT_FAILED);
    media_await_none_left(); /* what was written went away */
    media_close();
}

void media_disk_has_no_space(void **state)
{
    struct got *g = NULL;

    (void)state;
    assert_int_equal(put_all(object(1), 1, MIB, MIB, NULL), TR_OK);
    media_close();
    assert_int_equal(support_child(child_no_room, NULL), 0);
    media_open();
    assert_object(object(1), 1, MIB);
    assert_object(object(3), 3, MIB / 64);
    assert_int_equal(list(USER "/", "", 10, &g), TR_OK);
    assert_int_equal(g->n, 2);
}

void media_disk_refused(void **state)
{
    struct media *m = NULL;
    struct tr_err err = {0};
    char path[700];
    FILE *f;

    (void)state;
    snprintf(path, sizeof path, "%s/file", media_folder());
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(filesystem_media_open(loop, path, &m, &err), TR_INVALID);
    if (strstr(err.msg, path) == NULL || strstr(err.msg, "give it to this user, or set another path") == NULL)
        fail_msg("%s", err.msg);
    assert_int_equal(filesystem_media_open(loop, "", &m, &err), TR_INVALID);
    assert_int_equal(filesystem_media_open(loop, "/proc/none/media", &m, &err), TR_INVALID);
}

/* Another's files beside ours, by somebody's hand or a file system's. */
void media_disk_foreign_files(void **state)
{
    struct got *g = NULL;
    char command[900];

    (void)state;
    assert_int_equal(put_all(object(1), 1, 10, 10, NULL), TR_OK);
    snprintf(command, sizeof command,
             "cd '%s' && mkdir lost+found && touch .DS_Store " USER "/.DS_Store '" USER "/Thumbs.db' && mkdir " USER
             "/0a && ln -s /etc/passwd " USER "/0b && mkdir .uploads/folder",
             media_folder());
    assert_int_equal(system(command), 0);
    assert_int_equal(list(USER "/", "", 10, &g), TR_OK);
    assert_true(g->n >= 1);
    assert_int_equal(sweep(0), TR_OK);
    assert_true(read_at(USER "/0a", 0, 10, &g) != TR_OK);
    assert_true(read_at(USER "/0b", 0, 10, &g) != TR_OK); /* no link is followed */
    assert_object(object(1), 1, 10);
}
