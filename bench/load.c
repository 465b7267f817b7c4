/*
 * load - a lean WebSocket client for measuring: many connections on one epoll, no library, so that it costs little beside
 * the server under test.  Prints one line of key=value figures.
 *
 *   load turns HOST:PORT[,HOST:PORT…] CHATS SECONDS PID [RATE]  each chat sends, waits for its reply, sends again, chats in
 *                                               turn at the servers; CPU of PID, or of each NAME of NAME=PID,NAME=PID,…;
 *                                               RATE: so many turns a second of all chats together, in even steps
 *   load idle HOST:PORT CONNECTIONS PID [plain] open them (troupe: session and chat), memory a connection, CPU while idle
 *   load echo HOST:PORT CONNECTIONS MESSAGES PID [plain]   small messages: troupe ping -> pong, plain: an echo
 *   load syncs FOLDER COUNT ROUNDS              COUNT serial write+fdatasync a round: the limit of a durable turn
 *
 * plain: a bare server without sessions (the peers).
 */
#include "cpu.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_MAX (1 << 20)

struct conn {
    int fd;
    char *in;
    size_t in_len;
    char chat[40], token[128];
    uint64_t sent_at; /* paced: when it was to be sent, so that a late sending counts too */
    uint64_t due;     /* paced: the next one */
    uint32_t n;
    bool accepted, replied;
};

#define SERVERS_MAX 16
static struct server {
    struct sockaddr_in addr;
    char host[64];
} servers[SERVERS_MAX];
static size_t servers_n;
static bool plain;

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Private memory of a process, bytes. */
static long memory(int pid)
{
    char path[64], line[256];
    long kib = 0, v;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "Private_Dirty: %ld", &v) == 1)
            kib += v;
    if (f != NULL)
        fclose(f);
    return kib * 1024;
}

/* The slab's objects in use that a connection is made of; 0 where only root may look. */
static long socket_objects(void)
{
    static const char *const names[] = {
        "TCP",           "sock_inode_cache", "filp", "lsm_inode_cache", "lsm_file_cache", "skbuff_head_cache",
        "eventpoll_epi", "eventpoll_pwq"};
    char line[512], name[64];
    long bytes = 0, active, size;
    FILE *f = fopen("/proc/slabinfo", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (sscanf(line, "%63s %ld %*d %ld", name, &active, &size) == 3 && strcmp(name, names[i]) == 0)
                bytes += active * size;
    if (f != NULL)
        fclose(f);
    return bytes;
}

/*
 * What the kernel holds for sockets and files, bytes: their objects and the buffers of TCP.  The slab as a whole, which is
 * all that one may see without being root, also holds what others left free in it, and what they do meanwhile.
 */
static long kernel_memory(void)
{
    char line[256];
    long bytes = socket_objects(), v;
    const bool slab = bytes == 0;
    FILE *f = fopen("/proc/meminfo", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (slab && sscanf(line, "Slab: %ld", &v) == 1)
            bytes += v * 1024;
    if (f != NULL)
        fclose(f);
    f = fopen("/proc/net/sockstat", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "TCP: inuse %*d orphan %*d tw %*d alloc %*d mem %ld", &v) == 1)
            bytes += v * sysconf(_SC_PAGESIZE);
    if (f != NULL)
        fclose(f);
    return bytes;
}

static void write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        const ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EAGAIN) {
            usleep(50);
            continue;
        }
        if (n <= 0)
            die("write");
        p += n;
        len -= (size_t)n;
    }
}

static void send_text(struct conn *c, const char *text)
{
    const size_t len = strlen(text);
    uint8_t head[8 + 4096];
    size_t n = 0;

    head[n++] = 0x81;
    if (len < 126) {
        head[n++] = (uint8_t)(0x80 | len);
    } else {
        head[n++] = 0x80 | 126;
        head[n++] = (uint8_t)(len >> 8);
        head[n++] = (uint8_t)len;
    }
    memset(head + n, 0, 4); /* a mask of zeros leaves the text as it is */
    n += 4;
    memcpy(head + n, text, len);
    write_all(c->fd, head, n + len);
}

/* The next whole frame's text, or NULL.  It is taken out by the next call. */
static char *next_frame(struct conn *c, size_t *at)
{
    uint8_t *p = (uint8_t *)c->in + *at;
    const size_t have = c->in_len - *at;
    size_t len, head = 2;

    if (have < 2)
        return NULL;
    len = p[1] & 127;
    if (len == 126) {
        if (have < 4)
            return NULL;
        len = (size_t)p[2] << 8 | p[3];
        head = 4;
    } else if (len == 127) {
        if (have < 10)
            return NULL;
        len = (size_t)p[6] << 24 | (size_t)p[7] << 16 | (size_t)p[8] << 8 | p[9];
        head = 10;
    }
    if (have < head + len)
        return NULL;
    if ((p[0] & 15) == 8) {
        fprintf(stderr, "load: closed by the server: %d\n", len >= 2 ? p[head] << 8 | p[head + 1] : 0);
        exit(1);
    }
    *at += head + len;
    memmove(p, p + head, len); /* over the header, so that there is room for a final 0 */
    p[len] = '\0';
    return (char *)p;
}

static void read_some(struct conn *c)
{
    ssize_t n;

    if (c->in == NULL)
        c->in = malloc(IN_MAX);
    if (c->in == NULL)
        die("memory");
    n = read(c->fd, c->in + c->in_len, IN_MAX - 1 - c->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        die("read");
    c->in_len += (size_t)n;
}

static void take(struct conn *c, size_t at)
{
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    if (c->in_len == 0) { /* an idle connection costs nothing here */
        free(c->in);
        c->in = NULL;
    }
}

static int dial(const struct server *s)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;

    if (fd < 0 || connect(fd, (const struct sockaddr *)&s->addr, sizeof s->addr) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* A blocking HTTP exchange up to the end of headers (and of a body with Content-Length). */
static void exchange(int fd, const char *request, char *out, size_t size)
{
    size_t n = 0;

    write_all(fd, request, strlen(request));
    for (;;) {
        const ssize_t r = read(fd, out + n, size - 1 - n);
        char *end, *length;

        if (r <= 0)
            die("http");
        n += (size_t)r;
        out[n] = '\0';
        end = strstr(out, "\r\n\r\n");
        if (end == NULL)
            continue;
        length = strcasestr(out, "content-length:");
        if (strstr(out, " 101 ") != NULL || length == NULL || strlen(end + 4) >= strtoul(length + 15, NULL, 10))
            return;
    }
}

static void copy_field(const char *from, const char *key, char *to, size_t size)
{
    const char *p = strstr(from, key), *end;

    if (p == NULL) {
        fprintf(stderr, "load: no %s in %.300s\n", key, from);
        exit(1);
    }
    p += strlen(key);
    end = strchr(p, '"');
    snprintf(to, size, "%.*s", (int)(end - p), p);
}

static char *wait_frame(struct conn *c, const char *type)
{
    for (;;) {
        size_t at = 0;
        char *frame;

        if (c->in_len > 0)
            while ((frame = next_frame(c, &at)) != NULL)
                if (strstr(frame, type) != NULL) {
                    char *copy = strdup(frame);
                    take(c, at);
                    return copy;
                }
        read_some(c);
    }
}

static void open_conn(struct conn *c, const struct server *s, bool chat)
{
    char request[1024], answer[8192], *frame;

    if (!plain) {
        c->fd = dial(s);
        snprintf(request, sizeof request,
                 "POST /api/session HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", s->host);
        exchange(c->fd, request, answer, sizeof answer);
        copy_field(answer, "\"token\":\"", c->token, sizeof c->token);
        close(c->fd);
    }
    c->fd = dial(s);
    snprintf(request, sizeof request,
             "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
             "dGhlIHNhbXBsZSBub25jZQ==\r\n"
             "Sec-WebSocket-Version: 13\r\n%s%s%s\r\n",
             s->host, plain ? "" : "Sec-WebSocket-Protocol: troupe.v1\r\nAuthorization: Bearer ", plain ? "" : c->token,
             plain ? "" : "\r\n");
    exchange(c->fd, request, answer, sizeof answer);
    if (strstr(answer, " 101 ") == NULL) {
        fprintf(stderr, "load: %.200s\n", answer);
        exit(1);
    }
    if (chat) {
        send_text(c, "{\"type\":\"open\",\"ref\":\"o\",\"character\":\"mira\"}");
        frame = wait_frame(c, "\"type\":\"opened\"");
        copy_field(frame, "\"chat\":\"", c->chat, sizeof c->chat);
        free(frame);
    }
}

static struct conn *open_all(size_t n, bool chat, int *ret_epoll)
{
    struct conn *all = calloc(n, sizeof *all);
    const int ep = epoll_create1(EPOLL_CLOEXEC);

    if (all == NULL || ep < 0)
        die("set up");
    for (size_t i = 0; i < n; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &all[i]};

        open_conn(&all[i], &servers[i % servers_n], chat);
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &ev);
    }
    *ret_epoll = ep;
    return all;
}

static int compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void say(struct conn *c, uint64_t at)
{
    char text[512];

    c->accepted = c->replied = false;
    c->sent_at = at;
    snprintf(text, sizeof text,
             "{\"type\":\"send\",\"ref\":\"s\",\"chat\":\"%s\",\"id\":\"%u\",\"text\":\"how is the tide tonight %u\"}",
             c->chat, c->n, c->n);
    c->n++;
    send_text(c, text);
}

/* rate > 0: send what is due of every chat that is not busy; the time until the next is due, at most 1 s. */
static uint64_t send_due(struct conn *all, size_t chats, uint64_t gap)
{
    const uint64_t now = now_us();
    uint64_t next = now + 1000000;

    for (size_t i = 0; i < chats; i++) {
        struct conn *c = &all[i];

        if (c->due <= now && c->accepted && c->replied) {
            say(c, c->due);
            c->due += gap;
        }
        if (c->accepted && c->replied && c->due < next)
            next = c->due;
    }
    return next > now ? next - now : 0;
}

static int run_turns(size_t chats, double seconds, int pid, double rate)
{
    static uint32_t lat[4000000];
    const uint64_t gap = rate > 0 ? (uint64_t)(1e6 * (double)chats / rate) : 0;
    struct epoll_event ev[256];
    size_t done = 0, counted = 0;
    uint64_t warm, end, cpu = 0;
    bool counting = false;
    struct conn *all;
    int ep;

    all = open_all(chats, true, &ep);
    warm = now_us() + 1000000; /* the first second is not counted */
    end = warm + (uint64_t)(seconds * 1e6);
    for (size_t i = 0; i < chats; i++) {
        all[i].due = now_us() + gap * i / chats;
        all[i].accepted = all[i].replied = true;
        if (gap == 0)
            say(&all[i], now_us());
    }
    while (now_us() < end) {
        const uint64_t wait = gap > 0 ? send_due(all, chats, gap) : 1000000;
        const struct timespec t = {(time_t)(wait / 1000000), (long)(wait % 1000000) * 1000};
        const int n = epoll_pwait2(ep, ev, 256, &t, NULL);

        if (!counting && now_us() >= warm) {
            counting = true;
            cpu = cpu_us(pid);
            groups_start();
            warm = now_us();
            done = counted = 0;
        }
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            size_t at = 0;
            char *frame;

            read_some(c);
            while (c->in_len > 0 && (frame = next_frame(c, &at)) != NULL) {
                if (strncmp(frame, "{\"type\":\"error\"", 15) == 0) {
                    fprintf(stderr, "load: %s\n", frame);
                    return 1;
                }
                if (strncmp(frame, "{\"type\":\"accepted\"", 18) == 0)
                    c->accepted = true;
                if (strncmp(frame, "{\"type\":\"reply\"", 15) == 0) {
                    c->replied = true;
                    if (counted < sizeof lat / sizeof lat[0])
                        lat[counted++] = (uint32_t)(now_us() - c->sent_at);
                    done++;
                }
            }
            take(c, at);
            if (gap == 0 && c->accepted && c->replied)
                say(c, now_us());
        }
    }
    seconds = (double)(now_us() - warm) / 1e6;
    cpu = cpu_us(pid) - cpu;
    qsort(lat, counted, sizeof lat[0], compare);
    printf("chats=%zu turns=%zu turns_per_s=%.0f p50_us=%u p99_us=%u cpu_us_per_turn=%.0f", chats, done,
           (double)done / seconds, counted > 0 ? lat[counted / 2] : 0, counted > 0 ? lat[counted * 99 / 100] : 0,
           done > 0 ? (double)cpu / (double)done : 0);
    groups_tell(done);
    puts("");
    return 0;
}

static int run_idle(size_t n, int pid)
{
    long before, kernel, after, kernel_after;
    struct conn *all;
    uint64_t cpu;
    int ep;

    free(open_all(64, !plain, &ep)); /* what is made once is made before the count */
    before = memory(pid);
    kernel = kernel_memory();
    all = open_all(n, !plain, &ep);
    sleep(2);
    after = memory(pid);
    kernel_after = kernel_memory();
    cpu = cpu_us(pid);
    sleep(10);
    cpu = cpu_us(pid) - cpu;
    /* The kernel holds both ends of a connection; the server's is half of it. */
    printf("connections=%zu process_bytes=%.0f kernel_bytes=%.0f idle_cpu_percent=%.2f\n", n,
           (double)(after - before) / (double)n, (double)(kernel_after - kernel) / (double)n / 2, (double)cpu / 1e5);
    free(all);
    return 0;
}

static int run_echo(size_t conns, size_t messages, int pid)
{
    static const char ping[] = "{\"type\":\"ping\",\"ref\":\"r\"}";
    struct epoll_event ev[256];
    size_t sent = 0, got = 0;
    uint64_t cpu, start;
    struct conn *all;
    int ep;

    all = open_all(conns, !plain, &ep);
    cpu = cpu_us(pid);
    start = now_us();
    for (size_t i = 0; i < conns; i++, sent++)
        send_text(&all[i], ping);
    while (got < messages) {
        const int n = epoll_wait(ep, ev, 256, 2000);

        if (n == 0)
            die("no answer");
        for (int i = 0; i < n; i++) {
            struct conn *c = ev[i].data.ptr;
            size_t at = 0;

            read_some(c);
            while (c->in_len > 0 && next_frame(c, &at) != NULL) {
                got++;
                if (sent < messages) {
                    send_text(c, ping);
                    sent++;
                }
            }
            take(c, at);
        }
    }
    printf("messages=%zu per_s=%.0f cpu_s_per_100k=%.3f\n", got, (double)got / ((double)(now_us() - start) / 1e6),
           (double)(cpu_us(pid) - cpu) / 1e6 / (double)got * 100000);
    free(all);
    return 0;
}

static int run_syncs(const char *folder, int count, size_t rounds)
{
    static uint32_t lat[100000];
    char path[4096], block[4096] = {1};
    int fd;

    snprintf(path, sizeof path, "%s/syncs.tmp", folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path);
    for (int i = 0; i < 64; i++)
        if (pwrite(fd, block, sizeof block, i * 4096) != sizeof block)
            die("write");
    fsync(fd);
    for (size_t r = 0; r < rounds && r < 100000; r++) {
        const uint64_t start = now_us();

        for (int i = 0; i < count; i++)
            if (pwrite(fd, block, sizeof block, (off_t)((r + (size_t)i) % 64) * 4096) != sizeof block ||
                fdatasync(fd) != 0)
                die("sync");
        lat[r] = (uint32_t)(now_us() - start);
    }
    unlink(path);
    qsort(lat, rounds, sizeof lat[0], compare);
    printf("syncs=%d p50_us=%u p99_us=%u\n", count, lat[rounds / 2], lat[rounds * 99 / 100]);
    return 0;
}

/* "HOST:PORT,HOST:PORT,…" */
static void read_servers(char *text)
{
    char *rest = NULL;

    for (char *word = strtok_r(text, ",", &rest); word != NULL && servers_n < SERVERS_MAX;
         word = strtok_r(NULL, ",", &rest)) {
        struct server *const s = &servers[servers_n++];
        char *const colon = strrchr(word, ':');

        if (colon == NULL)
            die("HOST:PORT");
        snprintf(s->host, sizeof s->host, "%s", word);
        *colon = '\0';
        s->addr.sin_family = AF_INET;
        s->addr.sin_port = htons((uint16_t)atoi(colon + 1));
        inet_pton(AF_INET, word, &s->addr.sin_addr);
    }
    if (servers_n == 0)
        die("HOST:PORT");
}

int main(int argc, char **argv)
{
    struct rlimit lim;

    if (argc >= 5 && strcmp(argv[1], "syncs") == 0)
        return run_syncs(argv[2], atoi(argv[3]), strtoul(argv[4], NULL, 10));
    if (argc < 5) {
        fputs("usage: load turns|idle|echo|syncs ...: see the head of load.c\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    plain = strcmp(argv[argc - 1], "plain") == 0;
    read_servers(argv[2]);
    if (argc >= 6 && strchr(argv[5], '=') != NULL)
        if (!groups_read(argv[5]))
            die("NAME=PID,…");
    if (strcmp(argv[1], "turns") == 0 && argc >= 6)
        return run_turns(strtoul(argv[3], NULL, 10), atof(argv[4]), atoi(argv[5]), argc > 6 ? atof(argv[6]) : 0);
    if (strcmp(argv[1], "idle") == 0)
        return run_idle(strtoul(argv[3], NULL, 10), atoi(argv[4]));
    if (strcmp(argv[1], "echo") == 0 && argc >= 6)
        return run_echo(strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), atoi(argv[5]));
    return 2;
}
