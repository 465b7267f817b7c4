/*
 * raw_ops - the engine operations of a turn, alone: what a turn through Troupe's roles is measured against.
 *
 *   raw_ops AMQP_HOST:PORT USER PASSWORD CASSANDRA_HOST:PORT REDIS_HOST:PORT PASSWORD AT_ONCE[@RATE] SECONDS [consume] [GROUPS]
 *
 * AT_ONCE "turns" run side by side, each one operation after the other, with nothing in between: a conditional write, two
 * confirmed publishes, a Redis read, a Cassandra read, a conditional write, a confirmed publish, a Redis read, a confirmed
 * publish, a Redis write (3 publishes to RabbitMQ's quorum queues and one to a transient queue, 2 + 1 statements of
 * Cassandra, 5 Redis calls, of which two are not waited for: ours look up a chat's gateways for its status and its deltas, too).
 * RATE: so many turns a second of all together, in even steps; a turn counts from when it was due.
 * consume: each of the published messages is also delivered to a second connection and acknowledged, as in a pipeline.
 * GROUPS: NAME=PID,… as of `load`.  Prints one line of key=value figures; the first second is not counted.
 */
#include "../src/adapter/cassandra/client/cql.h"
#include "cpu.h"

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <hiredis/adapters/libuv.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <uv.h>

#define BODY 600 /* bytes of a message and of a stored row: about an envelope's */
#define TAGS 65536
#define QUEUES 4
#define TO_GATEWAY 3 /* the transient one */

enum { INSERT, READ, STATEMENTS };
static const char *const ddl[] = {
    "CREATE KEYSPACE IF NOT EXISTS raw_ops WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
    "CREATE TABLE IF NOT EXISTS raw_ops.turns (chat uuid, bucket int, turn uuid, part int, rev int, created bigint,"
    " sealed blob, PRIMARY KEY ((chat, bucket), turn, part, rev))",
};
static const char *const statements[STATEMENTS] = {
    [INSERT] = "INSERT INTO raw_ops.turns (chat, bucket, turn, part, rev, created, sealed) VALUES (?, 1, ?, ?, 0, 1, ?)"
               " IF NOT EXISTS",
    [READ] = "SELECT turn, part, rev, created, sealed FROM raw_ops.turns WHERE chat = ? AND bucket = 1 AND turn = ?",
};

struct turn {
    uint8_t chat[16], turn[16];
    char key[40];
    int step;
    uint64_t started;
    uint64_t due; /* paced */
    uv_timer_t timer;
};

static amqp_connection_state_t publisher, consumer;
static struct cql *cql;
static redisAsyncContext *redis;
static struct turn *by_tag[TAGS];
static uint64_t next_tag = 1, acked = 1;
static uint8_t body[BODY];
static uint32_t lat[4000000];
static size_t counted, done;
static uint64_t warm, end, gap; /* microseconds; gap: between the turns of one */
static bool counting;
static uint64_t own; /* at the start of the count */
static uv_loop_t *loop;

static void next(struct turn *t);

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* This process's own time, microseconds. */
static uint64_t own_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void die(const char *what)
{
    fprintf(stderr, "raw_ops: %s\n", what);
    exit(1);
}

static void new_turn(struct turn *t)
{
    /* version 7, as ours: the time, then what is random */
    const uint64_t ms = (uint64_t)time(NULL) * 1000 + now_us() / 1000 % 1000;

    if (getrandom(t->turn, sizeof t->turn, 0) != sizeof t->turn)
        die("getrandom");
    for (int i = 0; i < 6; i++)
        t->turn[i] = (uint8_t)(ms >> (40 - 8 * i));
    t->turn[6] = (uint8_t)(0x70 | (t->turn[6] & 15));
    t->turn[8] = (uint8_t)(0x80 | (t->turn[8] & 63));
    t->step = 0;
    t->started = now_us();
}

static void cassandra_step(struct turn *t, uint32_t statement, uint8_t part)
{
    const uint8_t number[4] = {0, 0, 0, part};
    const struct cql_value values[] = {{t->chat, 16}, {t->turn, 16}, {number, 4}, {body, BODY}};
    const struct cql_call call = {statement, statement == INSERT ? 4 : 2, values};
    const struct cql_request request = {
        .calls = &call, .calls_n = 1, .timeout_ms = 10000, .write = statement == INSERT};

    cql_execute(cql, &request, t);
}

static void publish_step(struct turn *t, int queue)
{
    char name[32];
    amqp_basic_properties_t props = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
                                     .delivery_mode = queue == TO_GATEWAY ? 1 : 2};

    snprintf(name, sizeof name, "raw-ops.%d", queue);
    by_tag[next_tag++ % TAGS] = t;
    if (amqp_basic_publish(publisher, 1, amqp_empty_bytes, amqp_cstring_bytes(name), 1, 0, &props,
                           (amqp_bytes_t){BODY, body}) != AMQP_STATUS_OK)
        die("publish");
}

static void on_redis(redisAsyncContext *c, void *reply, void *ctx)
{
    (void)c;
    if (reply == NULL || ((redisReply *)reply)->type == REDIS_REPLY_ERROR)
        die("redis");
    if (ctx != NULL)
        next(ctx);
}

static void on_due(uv_timer_t *h)
{
    struct turn *const t = h->data;

    new_turn(t);
    t->started = t->due;
    t->due += gap;
    next(t);
}

/* Begin the next turn, now or when it is due. */
static void again(struct turn *t)
{
    const uint64_t now = now_us();

    if (gap == 0) {
        new_turn(t);
        next(t);
        return;
    }
    uv_update_time(loop);
    uv_timer_start(&t->timer, on_due, t->due > now ? (t->due - now + 500) / 1000 : 0, 0);
}

static void next(struct turn *t)
{
    if (t->step == 11) {
        if (counting && counted < sizeof lat / sizeof lat[0])
            lat[counted++] = (uint32_t)(now_us() - t->started);
        done++;
        again(t);
        return;
    }
    switch (t->step++) {
    case 0:
        cassandra_step(t, INSERT, 0);
        break;
    case 1:
        publish_step(t, 0);
        break;
    case 2:
        publish_step(t, 1);
        break;
    case 3:
        redisAsyncCommand(redis, on_redis, t, "GET raw-ops:context:%s", t->key);
        break;
    case 4:
        cassandra_step(t, READ, 0);
        break;
    case 5:
        cassandra_step(t, INSERT, 1);
        break;
    case 6:
        publish_step(t, 2);
        break;
    case 7:
        for (int i = 0; i < 3; i++)
            redisAsyncCommand(redis, on_redis, i == 2 ? t : NULL, "ZRANGEBYSCORE raw-ops:conn:%s 0 +inf LIMIT 0 16",
                              t->key);
        break;
    case 8:
        publish_step(t, TO_GATEWAY);
        break;
    case 9:
        redisAsyncCommand(redis, on_redis, t, "SET raw-ops:context:%s %b PX 600000", t->key, body, (size_t)BODY);
        break;
    default:
        next(t);
        break;
    }
}

static void on_cassandra(uv_poll_t *h, int status, int events)
{
    struct cql_done answers[64];
    size_t n;

    (void)h, (void)status, (void)events;
    while ((n = cql_poll(cql, answers, 64)) > 0)
        for (size_t i = 0; i < n; i++) {
            if (answers[i].status != CQL_OK)
                die(answers[i].error != NULL ? answers[i].error : "cassandra");
            cql_done_free(&answers[i]);
            next(answers[i].ctx);
        }
}

static void acknowledge(amqp_basic_ack_t *a)
{
    const uint64_t first = a->multiple ? acked : a->delivery_tag;

    for (uint64_t tag = first; tag <= a->delivery_tag; tag++) {
        struct turn *const t = by_tag[tag % TAGS];

        by_tag[tag % TAGS] = NULL;
        if (t != NULL)
            next(t);
    }
    while (acked < next_tag && by_tag[acked % TAGS] == NULL)
        acked++;
}

/* All frames that are there. */
static void read_frames(amqp_connection_state_t c, uint64_t *delivered)
{
    static const struct timeval none = {0, 0};
    amqp_frame_t f;

    for (;;) {
        struct timeval zero = none;
        const int rc = amqp_simple_wait_frame_noblock(c, &f, &zero);

        if (rc == AMQP_STATUS_TIMEOUT)
            break;
        if (rc != AMQP_STATUS_OK)
            die(amqp_error_string2(rc));
        if (f.frame_type == AMQP_FRAME_METHOD) {
            if (f.payload.method.id == AMQP_BASIC_ACK_METHOD)
                acknowledge(f.payload.method.decoded);
            else if (f.payload.method.id == AMQP_BASIC_DELIVER_METHOD)
                *delivered = ((amqp_basic_deliver_t *)f.payload.method.decoded)->delivery_tag;
            else
                die("the broker refused");
        }
        amqp_maybe_release_buffers_on_channel(c, 1);
    }
}

static void on_publisher(uv_poll_t *h, int status, int events)
{
    uint64_t ignored = 0;

    (void)h, (void)status, (void)events;
    read_frames(publisher, &ignored);
}

static void on_consumer(uv_poll_t *h, int status, int events)
{
    static uint64_t settled;
    uint64_t delivered = 0;

    (void)h, (void)status, (void)events;
    read_frames(consumer, &delivered);
    if (delivered > settled && amqp_basic_ack(consumer, 1, delivered, 1) == AMQP_STATUS_OK)
        settled = delivered;
}

/* confirmations that a publish read by the way wait in the client's memory, where no poll sees them */
static void on_check(uv_check_t *h)
{
    uint64_t ignored = 0;

    (void)h;
    while (amqp_frames_enqueued(publisher) || amqp_data_in_buffer(publisher))
        read_frames(publisher, &ignored);
}

static void on_tick(uv_timer_t *h)
{
    const uint64_t now = now_us();

    if (!counting && now >= warm) {
        counting = true;
        warm = now;
        done = counted = 0;
        own = own_us();
        groups_start();
    } else if (now >= end) {
        uv_timer_stop(h);
        uv_stop(loop);
    }
}

static void ok(amqp_connection_state_t c, const char *what)
{
    if (amqp_get_rpc_reply(c).reply_type != AMQP_RESPONSE_NORMAL)
        die(what);
}

static char *split(char *host, int *ret_port)
{
    char *const colon = strrchr(host, ':');

    if (colon == NULL)
        die("HOST:PORT");
    *colon = '\0';
    *ret_port = atoi(colon + 1);
    return host;
}

static amqp_connection_state_t dial(const char *host, int port, const char *user, const char *password)
{
    const amqp_connection_state_t c = amqp_new_connection();
    const int one = 1;

    if (amqp_socket_open(amqp_tcp_socket_new(c), host, port) != AMQP_STATUS_OK)
        die("connect to RabbitMQ");
    setsockopt(amqp_get_sockfd(c), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (amqp_login(c, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, user, password).reply_type != AMQP_RESPONSE_NORMAL)
        die("log in to RabbitMQ");
    amqp_channel_open(c, 1);
    ok(c, "channel");
    return c;
}

static void watch(uv_poll_t *h, int fd, uv_poll_cb cb)
{
    uv_poll_init(loop, h, fd);
    uv_poll_start(h, UV_READABLE, cb);
}

static void open_rabbitmq(char **argv, bool consume)
{
    static uv_poll_t handles[2];
    static uv_check_t check;
    amqp_table_entry_t type = {amqp_cstring_bytes("x-queue-type"), {.kind = AMQP_FIELD_KIND_UTF8}};
    const amqp_table_t args = {1, &type};
    int port;
    char *const host = split(argv[1], &port);

    type.value.value.bytes = amqp_cstring_bytes("quorum");
    publisher = dial(host, port, argv[2], argv[3]);
    amqp_confirm_select(publisher, 1);
    ok(publisher, "confirms");
    for (int i = 0; i < QUEUES; i++) {
        char name[32];

        snprintf(name, sizeof name, "raw-ops.%d", i);
        if (i == TO_GATEWAY)
            amqp_queue_declare(publisher, 1, amqp_cstring_bytes(name), 0, 0, 0, 1, amqp_empty_table);
        else
            amqp_queue_declare(publisher, 1, amqp_cstring_bytes(name), 0, 1, 0, 0, args);
        ok(publisher, "declare");
        amqp_queue_purge(publisher, 1, amqp_cstring_bytes(name));
        ok(publisher, "purge");
    }
    watch(&handles[0], amqp_get_sockfd(publisher), on_publisher);
    uv_check_init(loop, &check);
    uv_check_start(&check, on_check);
    if (!consume)
        return;
    consumer = dial(host, port, argv[2], argv[3]);
    amqp_basic_qos(consumer, 1, 0, 256, 0);
    ok(consumer, "prefetch");
    for (int i = 0; i < QUEUES; i++) {
        char name[32];

        snprintf(name, sizeof name, "raw-ops.%d", i);
        amqp_basic_consume(consumer, 1, amqp_cstring_bytes(name), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
        ok(consumer, "consume");
    }
    watch(&handles[1], amqp_get_sockfd(consumer), on_consumer);
}

static void open_cassandra(const char *host)
{
    static uv_poll_t handle;
    struct cql_config config = {.hosts = &host, .hosts_n = 1, .statements = statements, .statements_n = STATEMENTS};

    cql = cql_open(&config);
    if (cql == NULL)
        die("cassandra");
    for (size_t i = 0; i < sizeof ddl / sizeof ddl[0]; i++) {
        const struct cql_request request = {.text = ddl[i], .timeout_ms = 20000, .write = true};
        struct cql_done answer;

        cql_execute(cql, &request, NULL);
        while (cql_poll(cql, &answer, 1) == 0)
            (void)nanosleep(&(struct timespec){0, 1000000}, NULL);
        if (answer.status != CQL_OK)
            die(answer.error);
        cql_done_free(&answer);
    }
    watch(&handle, cql_fd(cql), on_cassandra);
}

static void on_auth(redisAsyncContext *c, void *reply, void *ctx)
{
    (void)c, (void)ctx;
    if (reply == NULL || ((redisReply *)reply)->type == REDIS_REPLY_ERROR)
        die("log in to Redis");
}

static void open_redis(char *where, const char *password)
{
    int port;
    char *const host = split(where, &port);

    redis = redisAsyncConnect(host, port);
    if (redis == NULL || redis->err != 0)
        die("connect to Redis");
    redisLibuvAttach(redis, loop);
    redisAsyncCommand(redis, on_auth, NULL, "AUTH %s", password);
}

static int compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    const bool consume = argc > 9 && strcmp(argv[9], "consume") == 0;
    static uv_timer_t tick;
    struct turn *turns;
    double seconds;
    char *rate;
    size_t n;

    if (argc < 9) {
        fputs("usage: see the head of raw_ops.c\n", stderr);
        return 2;
    }
    n = strtoul(argv[7], &rate, 10);
    if (*rate == '@')
        gap = (uint64_t)(1e6 * (double)n / atof(rate + 1));
    if (argc > 9 + consume && !groups_read(argv[9 + consume]))
        die("NAME=PID,…");
    loop = uv_default_loop();
    open_rabbitmq(argv, consume);
    open_cassandra(argv[4]);
    open_redis(argv[5], argv[6]);
    turns = calloc(n, sizeof *turns);
    if (turns == NULL)
        die("memory");
    warm = now_us() + 1000000;
    end = warm + (uint64_t)(atof(argv[8]) * 1e6);
    uv_timer_init(loop, &tick);
    uv_timer_start(&tick, on_tick, 10, 10);
    for (size_t i = 0; i < n; i++) {
        if (getrandom(turns[i].chat, 16, 0) != 16)
            die("getrandom");
        snprintf(turns[i].key, sizeof turns[i].key, "%016lx", *(unsigned long *)(void *)turns[i].chat);
        turns[i].timer.data = &turns[i];
        uv_timer_init(loop, &turns[i].timer);
        turns[i].due = now_us() + gap * i / n;
        again(&turns[i]);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    seconds = (double)(now_us() - warm) / 1e6;
    qsort(lat, counted, sizeof lat[0], compare);
    printf("at_once=%zu turns=%zu turns_per_s=%.0f p50_us=%u p99_us=%u cpu_self=%.0f", n, done, (double)done / seconds,
           counted > 0 ? lat[counted / 2] : 0, counted > 0 ? lat[counted * 99 / 100] : 0,
           done > 0 ? (double)(own_us() - own) / (double)done : 0);
    groups_tell(done);
    puts("");
    return 0;
}
