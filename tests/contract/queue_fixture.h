/* queue_fixture - a broker for one test, and a consumer that notes what it gets; for queue.c and queue_fault.c. */
#ifndef TESTS_CONTRACT_QUEUE_FIXTURE_H
#define TESTS_CONTRACT_QUEUE_FIXTURE_H

#include "port/queue.h"
#include "support.h"

struct queue_adapter {
    const char *name;
    /* `place` tells one broker from another: a file's path, or a prefix of names; opened again it has what it had. */
    enum tr_rc (*open)(struct loop *loop, const char *place, struct queue **ret_queue, struct tr_err *err);
    /* How many dead letters with this cause the (closed) place holds. */
    size_t (*dead)(const char *place, const char *cause);
    bool embedded;      /* in this process: it can be killed, its files looked into, its disk be full */
    const char *server; /* the variable with its URL; NULL: none is needed */
};

extern const struct queue_adapter *queue_adapter; /* the one that is tested now */

/* One broker, opened for one test. */
struct bench {
    struct loop *loop;
    struct queue *q;
    char *place;
};

void bench_open(struct bench *b);  /* b->place is set */
void bench_close(struct bench *b); /* the place stays */
struct bench bench_new(const char *name);
void bench_end(struct bench *b);

/* Operations that are waited for; their rc, wherever it came from. */
enum tr_rc bench_declare(struct bench *b, const char *name, enum queue_kind kind, uint64_t max, bool single);
enum tr_rc bench_publish_msg(struct bench *b, const struct queue_message *msg);
enum tr_rc bench_publish(struct bench *b, const char *queue, const char *text);
uint64_t bench_length(struct bench *b, const char *queue);
/* The length is or becomes `want`: a broker elsewhere counts a moment later. */
void bench_expect_length(struct bench *b, const char *queue, uint64_t want);
enum tr_rc bench_remove(struct bench *b, const char *queue);
/* Started only. */
enum tr_rc bench_publish_start(struct bench *b, struct wait *w, const struct queue_message *msg);

#define TAKEN_MAX 32

/* A consumer that notes what comes, and settles it as `act` says. */
enum act { KEEP, ACK, RETRY_COUNTED, RETRY };
struct taker {
    struct bench *b;
    struct queue_consumer *c;
    enum act act;
    uint64_t delay_ms;
    size_t n; /* deliveries so far */
    size_t hand_n;
    struct queue_delivery *hand[TAKEN_MAX];
    uint32_t attempts[TAKEN_MAX];
    bool again[TAKEN_MAX];
    char text[TAKEN_MAX][32]; /* of the first ones */
    bool transient[TAKEN_MAX];
    size_t bytes;
};

void taker_on_message(void *ctx, const struct queue_incoming *msg); /* ctx: struct taker */
void taker_start(struct taker *t, struct bench *b, const char *queue, uint32_t prefetch, enum act act);
void taker_stop(struct taker *t);

/* queue_fault.c: kills, a full disk, numbers.  Those that fork are to run before any thread lives. */
void fault_survives_sigkill(void **state);
void fault_full_disk(void **state);
void fault_one_owner(void **state);
void fault_ten_thousand(void **state);

#endif
