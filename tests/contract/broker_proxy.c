/* broker_proxy - see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS_MAX 16

struct broker_proxy {
    int listener, wake_fd;
    uint16_t port, to_port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t taken;
    enum proxy_mode want, have; /* under the lock */
    bool stop;                  /* under the lock */
    int pair[PAIRS_MAX][2];     /* the thread's; -1: free */
};

static void close_hard(int fd)
{
    const struct linger now = {.l_onoff = 1};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* a reset, not a farewell */
    close(fd);
}

static void close_pair(int pair[2])
{
    close_hard(pair[0]);
    close_hard(pair[1]);
    pair[0] = pair[1] = -1;
}

static void take_new(struct broker_proxy *p, enum proxy_mode mode)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(p->to_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int in = accept(p->listener, NULL, NULL);
    int out;

    if (in < 0)
        return;
    for (int i = 0; mode != PROXY_CUT && i < PAIRS_MAX; i++) {
        if (p->pair[i][0] >= 0)
            continue;
        out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (out < 0 || connect(out, (const struct sockaddr *)&to, sizeof to) != 0) {
            if (out >= 0)
                close(out);
            break;
        }
        p->pair[i][0] = in;
        p->pair[i][1] = out;
        return;
    }
    close_hard(in);
}

/* Frames without the basic.ack ones (class 60, method 80); of what comes in whole frames, as small ones do.  The new length. */
static ssize_t without_acks(uint8_t *data, ssize_t n)
{
    ssize_t at = 0, kept = 0;

    while (at + 8 <= n) {
        const uint8_t *const f = data + at;
        const ssize_t len = 8 + ((ssize_t)f[3] << 24 | f[4] << 16 | f[5] << 8 | f[6]);
        const bool ack = len >= 12 && f[0] == 1 && f[7] == 0 && f[8] == 60 && f[9] == 0 && f[10] == 80;

        if (at + len > n)
            break;
        if (!ack) {
            memmove(data + kept, f, (size_t)len);
            kept += len;
        }
        at += len;
    }
    memmove(data + kept, data + at, (size_t)(n - at));
    return kept + n - at;
}

/* False: this side is gone. */
static bool pass(int from, int to, bool unconfirmed)
{
    uint8_t data[65536];
    const ssize_t got = recv(from, data, sizeof data, 0);
    const ssize_t n = unconfirmed && got > 0 ? without_acks(data, got) : got;

    for (ssize_t at = 0, sent; at < n; at += sent)
        if ((sent = send(to, data + at, (size_t)(n - at), MSG_NOSIGNAL)) <= 0)
            return false;
    return got > 0;
}

static void round_of(struct broker_proxy *p, enum proxy_mode mode)
{
    struct pollfd fds[2 + 2 * PAIRS_MAX] = {{.fd = p->wake_fd, .events = POLLIN},
                                            {.fd = p->listener, .events = POLLIN}};
    uint64_t count;

    for (int i = 0; i < PAIRS_MAX; i++)
        for (int side = 0; side < 2; side++)
            fds[2 + 2 * i + side] = (struct pollfd){
                .fd = mode == PROXY_PASS || mode == PROXY_UNCONFIRMED ? p->pair[i][side] : -1, .events = POLLIN};
    if (poll(fds, sizeof fds / sizeof fds[0], -1) <= 0)
        return;
    if (fds[0].revents != 0 && read(p->wake_fd, &count, sizeof count) < 0)
        return;
    for (int i = 0; i < PAIRS_MAX; i++)
        for (int side = 0; side < 2; side++)
            if (p->pair[i][side] >= 0 && fds[2 + 2 * i + side].revents != 0 &&
                !pass(p->pair[i][side], p->pair[i][!side], side == 1 && mode == PROXY_UNCONFIRMED))
                close_pair(p->pair[i]);
    if (fds[1].revents != 0)
        take_new(p, mode);
}

static void *run(void *arg)
{
    struct broker_proxy *const p = arg;

    for (;;) {
        enum proxy_mode mode;
        bool stop;

        pthread_mutex_lock(&p->lock);
        mode = p->want;
        stop = p->stop;
        for (int i = 0; (mode == PROXY_CUT || stop) && i < PAIRS_MAX; i++)
            if (p->pair[i][0] >= 0)
                close_pair(p->pair[i]);
        p->have = mode;
        pthread_cond_signal(&p->taken);
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        round_of(p, mode);
    }
}

struct broker_proxy *broker_proxy_new(uint16_t to_port)
{
    struct broker_proxy *const p = calloc(1, sizeof *p);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;

    assert_non_null(p);
    memset(p->pair, 0xff, sizeof p->pair);
    p->to_port = to_port;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->listener >= 0);
    assert_int_equal(bind(p->listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(p->listener, 16), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&at, &len), 0);
    p->port = ntohs(at.sin_port);
    p->wake_fd = eventfd(0, EFD_CLOEXEC);
    assert_true(p->wake_fd >= 0);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->taken, NULL);
    assert_int_equal(pthread_create(&p->thread, NULL, run, p), 0);
    return p;
}

static void wake(struct broker_proxy *p)
{
    const uint64_t one = 1;

    assert_int_equal(write(p->wake_fd, &one, sizeof one), sizeof one);
}

void broker_proxy_set(struct broker_proxy *p, enum proxy_mode mode)
{
    pthread_mutex_lock(&p->lock);
    p->want = mode;
    wake(p);
    while (p->have != mode)
        pthread_cond_wait(&p->taken, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

uint16_t broker_proxy_port(const struct broker_proxy *p)
{
    return p->port;
}

void broker_proxy_free(struct broker_proxy *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    wake(p);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    close(p->listener);
    close(p->wake_fd);
    pthread_cond_destroy(&p->taken);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
