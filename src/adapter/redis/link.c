/*
 * link - the connection to Redis.
 *
 *   DOWN       -> RESOLVING   rr_link_tick   it is time to try (again)
 *   RESOLVING  -> CONNECTING  on_resolved    an address; no name is looked up on the loop
 *   CONNECTING -> GREETING    on_connect     AUTH, SELECT, the scripts are loaded
 *   GREETING   -> UP          on_greeting    all answered; what waited in line is sent; not the first: a gap is told
 *   any        -> DOWN        link_down      an error, no answer for RR_STUCK_MS, the server went; tried again after a pause
 */
#include "adapter/redis/impl.h"

#include "base/log.h"
#include "base/metrics.h"
#include "base/resolve.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 500
#define CONNECT_MS 3000

static struct metric reconnections = METRIC(METRIC_COUNTER, "troupe_reconnections_total", "service=\"registry\"",
                                            "Connections made anew after the first one.");

/*
 * hiredis on libuv: which events it wants of its socket.  hiredis' own adapter ignores an error of the poll, which is how
 * libuv tells of a refused connection, so that one was never noticed.
 */
struct rr_socket {
    uv_poll_t poll;        /* first */
    redisAsyncContext *ac; /* NULL: hiredis is done with it */
    int events;
};

static void on_socket(uv_poll_t *handle, int status, int events)
{
    struct rr_socket *const s = (struct rr_socket *)handle;

    if (status < 0)
        events = UV_READABLE | UV_WRITABLE; /* hiredis finds the error itself */
    if (s->ac != NULL && (events & UV_WRITABLE) != 0)
        redisAsyncHandleWrite(s->ac);
    if (s->ac != NULL && (events & UV_READABLE) != 0)
        redisAsyncHandleRead(s->ac);
}

static void want(struct rr_socket *s, int events)
{
    if (s->events == events)
        return;
    s->events = events;
    if (events != 0)
        uv_poll_start(&s->poll, events, on_socket);
    else
        uv_poll_stop(&s->poll);
}

static void add_read(void *data)
{
    want(data, ((struct rr_socket *)data)->events | UV_READABLE);
}

static void del_read(void *data)
{
    want(data, ((struct rr_socket *)data)->events & ~UV_READABLE);
}

static void add_write(void *data)
{
    want(data, ((struct rr_socket *)data)->events | UV_WRITABLE);
}

static void del_write(void *data)
{
    want(data, ((struct rr_socket *)data)->events & ~UV_WRITABLE);
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle); /* the poll is the struct's first member */
}

static void cleanup(void *data)
{
    struct rr_socket *const s = data;

    s->ac = NULL;
    uv_close((uv_handle_t *)&s->poll, on_socket_closed);
}

static bool attach(struct redis_registry *r, redisAsyncContext *ac)
{
    struct rr_socket *const s = calloc(1, sizeof *s);

    if (s == NULL || uv_poll_init(loop_uv(r->loop), &s->poll, ac->c.fd) != 0) {
        free(s);
        return false;
    }
    s->ac = ac;
    ac->ev.data = s;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = cleanup;
    return true;
}

const char *rr_where(const struct redis_registry *r, char out[96])
{
    snprintf(out, 96, "%.80s:%u", r->url.host[0].name, (unsigned)r->url.host[0].port);
    return out;
}

static void trouble(struct redis_registry *r, enum tr_rc rc, const char *what)
{
    char where[96];

    r->trouble = tr_fail(&r->trouble_err, rc, "cannot reach Redis at %s: %.120s", rr_where(r, where), what);
}

enum tr_rc rr_error(const char *text, struct tr_err *err)
{
    static const struct {
        const char *begins;
        enum tr_rc rc;
        const char *says;
    } known[] = {
        {"NOSCRIPT", TR_TRANSIENT, "Redis has lost a script"},
        {"ERR max number of clients", TR_TRANSIENT, "Redis has too many clients: raise maxclients"},
        {"LOADING", TR_TRANSIENT, "Redis is reading its data from the disk"},
        {"BUSY", TR_TRANSIENT, "Redis is busy with a script"},
        {"OOM", TR_BUSY, "Redis is out of memory: raise maxmemory, or choose an eviction policy (volatile-lru)"},
        {"READONLY", TR_TRANSIENT, "this Redis is a replica: name the primary"},
        {"MASTERDOWN", TR_TRANSIENT, "this Redis is a replica without its primary"},
        {"MISCONF", TR_TRANSIENT, "Redis refuses writes because it cannot save: look at its disk and log"},
        {"NOAUTH", TR_INVALID, "Redis wants a password: redis://:password@host"},
        {"WRONGPASS", TR_INVALID, "Redis refuses the password"},
        {"ERR invalid password", TR_INVALID, "Redis refuses the password"},
        {"ERR AUTH", TR_INVALID, "Redis has no password set, and the URL has one"},
        {"ERR Client sent AUTH", TR_INVALID, "Redis has no password set, and the URL has one"},
        {"ERR DB index", TR_INVALID, "Redis has no database of this number"},
        {"NOPERM", TR_INVALID, "the Redis user may not use the commands or keys that Troupe needs"},
    };

    const char *inner;

    /* before Redis 7 a script's own error stands inside of another one */
    if (strncmp(text, "ERR Error running script", 24) == 0 && (inner = strstr(text, ": -")) != NULL)
        text = inner + 3;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(text, known[i].begins, strlen(known[i].begins)) == 0)
            return tr_fail(err, known[i].rc, "%s", known[i].says);
    /* "… with args beginning with: …" would repeat what was sent: a password, a chat's bytes */
    inner = strstr(text, ", with args");
    return tr_fail(err, TR_INVALID, "Redis: %.*s", inner != NULL && inner - text < 100 ? (int)(inner - text) : 100,
                   text);
}

static void later(struct redis_registry *r)
{
    r->pause_ms = r->pause_ms == 0 ? PAUSE_FIRST_MS : r->pause_ms * 2;
    if (r->pause_ms > PAUSE_MAX_MS)
        r->pause_ms = PAUSE_MAX_MS;
    r->retry_ms = loop_now_ms(r->loop) + r->pause_ms / 2 + mono_ns() / 1000 % (r->pause_ms / 2 + 1);
}

/* The link is gone; hiredis has called, or calls, everything that was sent with NULL. */
static void link_down(struct redis_registry *r)
{
    r->ac = NULL;
    r->link = RR_DOWN;
    r->awaited = 0;
    if (r->closing)
        return;
    later(r);
    if (r->trouble != TR_OK)
        rr_fail_checks(r);
}

static void drop(struct redis_registry *r)
{
    redisAsyncContext *const ac = r->ac;

    if (ac == NULL)
        return;
    ac->data = NULL;
    r->ac = NULL;
    r->link = RR_DOWN; /* before the callbacks of what was sent, which may start others */
    redisAsyncFree(ac);
    link_down(r);
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    struct redis_registry *const r = ac->data;

    if (r == NULL)
        return;
    if (status != REDIS_OK && r->link != RR_DOWN) /* DOWN: told in on_greeting() */
        trouble(r, TR_TRANSIENT, ac->errstr);
    log_event(LOG_DEBUG, "redis.lost", "cause=%Q", ac->errstr != NULL ? ac->errstr : "");
    link_down(r);
}

static void on_greeting(redisAsyncContext *ac, void *data, void *privdata)
{
    struct redis_registry *const r = ac->data;
    const redisReply *const reply = data;
    char *const sha = privdata;
    struct tr_err err = {0};
    char where[96];

    if (r == NULL || reply == NULL || r->link != RR_GREETING)
        return;
    if (reply->type == REDIS_REPLY_ERROR) {
        const enum tr_rc rc = rr_error(reply->str, &err);

        r->trouble = tr_fail(&r->trouble_err, rc, "Redis at %s: %.180s", rr_where(r, where), err.msg);
        r->link = RR_DOWN;
        redisAsyncDisconnect(ac); /* the other answers come first */
        return;
    }
    if (sha != NULL && reply->type == REDIS_REPLY_STRING && reply->len == 40)
        memcpy(sha, reply->str, 41);
    if (--r->greetings > 0)
        return;
    r->link = RR_UP;
    r->pause_ms = 0;
    r->trouble = TR_OK;
    log_event(LOG_DEBUG, "redis.connected", "server=%s", rr_where(r, where));
    rr_send_line(r);
    if (r->ever) {
        metric_add(&reconnections, 1);
        registry_gap_tell(&r->base);
    }
    r->ever = true;
}

static bool greet(struct redis_registry *r)
{
    redisAsyncContext *const ac = r->ac;
    int failed = 0;

    r->greetings = RR_SCRIPTS;
    if (r->url.password != NULL) {
        r->greetings++;
        if (r->url.user != NULL && r->url.user[0] != '\0')
            failed |= redisAsyncCommand(ac, on_greeting, NULL, "AUTH %s %s", r->url.user, r->url.password);
        else
            failed |= redisAsyncCommand(ac, on_greeting, NULL, "AUTH %s", r->url.password);
    }
    if (r->db != 0) {
        r->greetings++;
        failed |= redisAsyncCommand(ac, on_greeting, NULL, "SELECT %u", r->db);
    }
    for (int i = 0; i < RR_SCRIPTS; i++)
        failed |= redisAsyncCommand(ac, on_greeting, r->sha[i], "SCRIPT LOAD %s", rr_scripts[i]);
    return failed == REDIS_OK;
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_registry *const r = ac->data;
    const int on = 1;

    if (r == NULL)
        return;
    if (status != REDIS_OK) { /* hiredis frees it */
        trouble(r, TR_TRANSIENT, ac->errstr != NULL && *ac->errstr != '\0' ? ac->errstr : "no connection");
        link_down(r);
        return;
    }
    (void)setsockopt(ac->c.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(ac->c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    r->link = RR_GREETING;
    if (!greet(r))
        trouble(r, TR_TRANSIENT, "out of memory");
}

static void connect_to(struct redis_registry *r, const char *address)
{
    redisAsyncContext *const ac = redisAsyncConnect(address, r->url.host[0].port);

    if (ac == NULL || ac->err != 0) {
        trouble(r, TR_TRANSIENT, ac != NULL ? ac->errstr : "out of memory");
        if (ac != NULL)
            redisAsyncFree(ac);
        link_down(r);
        return;
    }
    ac->data = r;
    r->ac = ac;
    r->link = RR_CONNECTING;
    if (!attach(r, ac) || redisAsyncSetConnectCallback(ac, on_connect) != REDIS_OK ||
        redisAsyncSetDisconnectCallback(ac, on_disconnect) != REDIS_OK) {
        trouble(r, TR_TRANSIENT, "out of memory");
        drop(r);
    }
}

static void on_resolved(void *ctx, const char *address, const char *why)
{
    struct redis_registry *const r = ctx;

    r->resolving = NULL;
    if (address != NULL) {
        connect_to(r, address);
        return;
    }
    trouble(r, TR_TRANSIENT, why);
    link_down(r);
}

static void begin(struct redis_registry *r)
{
    r->began_ms = loop_now_ms(r->loop);
    r->link = RR_RESOLVING;
    if (resolve_start(r->loop, r->url.host[0].name, on_resolved, r, &r->resolving, NULL) == TR_OK)
        return;
    trouble(r, TR_TRANSIENT, "the name cannot be looked up");
    link_down(r);
}

void rr_link_tick(struct redis_registry *r, uint64_t now_ms)
{
    if (r->link == RR_DOWN && r->ac == NULL && now_ms >= r->retry_ms) {
        begin(r);
    } else if ((r->link == RR_CONNECTING || r->link == RR_GREETING) && now_ms - r->began_ms >= CONNECT_MS) {
        trouble(r, TR_TRANSIENT, "no answer: does it stall, or is a firewall between?");
        drop(r);
    } else if (r->ac != NULL && r->awaited > 0 && now_ms - r->heard_ms >= RR_STUCK_MS) {
        trouble(r, TR_TRANSIENT, "it stopped answering");
        drop(r);
    } else if (r->ac != NULL && r->link == RR_DOWN && now_ms - r->began_ms >= CONNECT_MS) {
        drop(r); /* refused at the greeting, and the rest of the answers never came */
    }
}

void rr_link_close(struct redis_registry *r)
{
    resolve_stop(r->resolving);
    r->resolving = NULL;
    drop(r);
}
