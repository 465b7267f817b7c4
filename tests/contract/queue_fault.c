/* queue_fault - the queue's contract under kills, a full disk, two owners and ten thousand messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void child_publish(void *ctx)
{
    struct bench b = {.place = ctx};
    struct taker t;

    alarm(60);
    bench_open(&b);
    if (bench_declare(&b, "a", QUEUE_DURABLE, 0, false) != TR_OK)
        support_child_end(SUPPORT_EXIT_FAILED);
    for (int i = 0; i < 50; i++)
        if (bench_publish(&b, "a", "confirmed") != TR_OK)
            support_child_end(SUPPORT_EXIT_FAILED);
    taker_start(&t, &b, "a", 10, KEEP); /* some are in somebody's hand */
    support_count(b.loop, &t.n, 10);
    support_child_end(SUPPORT_KILL);
}

void fault_survives_sigkill(void **state)
{
    struct bench b = {.place = support_path("killed.db")};
    struct taker t;
    int status;

    (void)state;
    for (int round = 1; round <= 5; round++) {
        status = support_child(child_publish, b.place);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    bench_open(&b);
    if (queue_adapter->embedded)
        bench_expect_length(&b, "a", 250);
    taker_start(&t, &b, "a", 0, ACK);
    support_count(b.loop, &t.n, 250);
    assert_int_equal(t.attempts[0], 0);
    bench_end(&b);
}

struct full {
    char *place, *count; /* count: a file to leave a number in */
};

/* In a child: a disk that is full beyond 400 KiB a file, then has room again. */
static void child_full_disk(void *ctx)
{
    struct rlimit limit = {400 * 1024, RLIM_INFINITY};
    const struct full *full = ctx;
    struct bench b = {.place = full->place};
    uint8_t body[8000];
    const struct queue_message msg = {.queue = "a", .body = {body, sizeof body}};
    size_t confirmed = 0;
    enum tr_rc rc = TR_OK;
    struct taker t;
    FILE *f;

    alarm(60);
    signal(SIGXFSZ, SIG_IGN);
    memset(body, 'F', sizeof body);
    bench_open(&b);
    if (bench_declare(&b, "a", QUEUE_DURABLE, 0, false) != TR_OK)
        support_child_end(SUPPORT_EXIT_FAILED);
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 500 && rc == TR_OK; i++) {
        rc = bench_publish_msg(&b, &msg);
        confirmed += rc == TR_OK;
    }
    if (rc != TR_TRANSIENT || confirmed == 0 || bench_length(&b, "a") != confirmed)
        support_child_end(SUPPORT_EXIT_FAILED);
    taker_start(&t, &b, "a", 3, KEEP); /* acks while the disk is full */
    support_count(b.loop, &t.n, 3);
    b.q->ops->ack(b.q, t.hand[0]);
    b.q->ops->dead_letter(b.q, t.hand[1], "full");
    b.q->ops->retry(b.q, t.hand[2], true, 1, "full");
    taker_stop(&t);
    support_for(b.loop, 300);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    support_for(b.loop, 300);
    if (bench_publish_msg(&b, &msg) != TR_OK || bench_length(&b, "a") != confirmed - 1)
        support_child_end(SUPPORT_EXIT_FAILED);
    f = fopen(full->count, "w");
    if (f == NULL || fprintf(f, "%zu", confirmed - 1) < 0 || fclose(f) != 0)
        support_child_end(SUPPORT_EXIT_FAILED);
    support_child_end(SUPPORT_KILL);
}

void fault_full_disk(void **state)
{
    struct bench b = {0};
    struct full full = {0};
    unsigned long want = 0;
    struct taker t;
    FILE *f;
    int status;

    (void)state;
    if (!queue_adapter->embedded)
        skip();
    full.place = b.place = support_path("full.db");
    full.count = support_path("full.count");
    status = support_child(child_full_disk, &full);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    f = fopen(full.count, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &want), 1);
    fclose(f);
    bench_open(&b);
    bench_expect_length(&b, "a", want); /* what was confirmed and not settled, no more, no less */
    taker_start(&t, &b, "a", 0, ACK);
    support_count(b.loop, &t.n, want);
    bench_close(&b);
    assert_int_equal(queue_adapter->dead(b.place, "full"), 1);
    free(full.count);
    free(b.place);
}

void fault_ten_thousand(void **state)
{
    const size_t n = 10000;
    struct bench b = bench_new("many");
    struct support_many m = {0};
    struct taker t;
    uint64_t start, middle;

    (void)state;
    assert_int_equal(bench_declare(&b, "a", QUEUE_DURABLE, 0, false), TR_OK);
    start = mono_ns();
    for (size_t i = 0; i < n; i++) {
        char text[16];
        struct queue_message msg = {.queue = "a", .body = {(const uint8_t *)text, 0}};

        msg.body.len = (size_t)snprintf(text, sizeof text, "%zu", i);
        assert_int_equal(b.q->ops->publish(b.q, &msg, support_many_done, &m, NULL, NULL), TR_OK);
    }
    support_count(b.loop, &m.done, n);
    middle = mono_ns();
    assert_int_equal(m.failed, 0);
    bench_expect_length(&b, "a", n);
    bench_close(&b);
    bench_open(&b);
    taker_start(&t, &b, "a", 100, ACK);
    support_count(b.loop, &t.n, n);
    print_message("  %zu confirmed in %llu ms, read back and taken in %llu ms\n", n,
                  (unsigned long long)((middle - start) / 1000000),
                  (unsigned long long)((mono_ns() - middle) / 1000000));
    if (!queue_adapter->embedded) /* a broker may lose the last acks of a connection that ends (rule 5) */
        bench_expect_length(&b, "a", 0);
    bench_close(&b);
    bench_open(&b);
    bench_expect_length(&b, "a", 0);
    bench_end(&b);
}

void fault_one_owner(void **state)
{
    struct bench b;
    struct queue *other = NULL;
    struct tr_err err = {0};

    (void)state;
    if (!queue_adapter->embedded)
        skip();
    b = bench_new("owner");
    assert_int_not_equal(queue_adapter->open(b.loop, b.place, &other, &err), TR_OK);
    assert_null(other);
    assert_non_null(strstr(err.msg, "in use"));
    bench_end(&b);
}
