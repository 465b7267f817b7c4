/*
 * connect - connecting, and declaring and subscribing again what was there before.
 *
 * Trap: a quorum queue that was declared less than about a second before a kill -9 of a single broker never comes back
 * (RabbitMQ 3.10.8, 5 of 5).  Declaring it again, and looking at it, say that all is well; but a publish to it is never
 * confirmed, and basic.consume is never answered.  It can be deleted (that takes 5 s) and declared anew.
 * A queue that has lost its majority for a while looks just the same, and the broker lets us delete it with all that was
 * confirmed in it (tried).  So a queue is deleted after BROKEN_AFTER unanswered subscriptions only where all of this is so:
 * this process made it, and lost the connection within YOUNG_S of that; the URL names one host; the broker knows of no
 * message in it.  New workers get no chats so long where there are older ones (role/preprocess/router.c); what else it
 * may hold are calls to work, which the history knows how to make again.
 * Any other queue is subscribed to again after a growing pause, so that the rest of the process goes on meanwhile, and
 * counted in troupe_broker_stuck_total; it is mended by `rabbitmqctl delete_queue`.
 */
#include "adapter/rabbitmq/impl.h"
#include "base/log.h"
#include "base/metrics.h"

#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECT_S 3
#define RPC_S 5
#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 500
#define RESUBSCRIBE_MS 300
#define BROKEN_AFTER 2
#define YOUNG_S 12
#define DELETE_S 15
#define STUCK_PAUSE_MAX_S 60
#define SECOND_NS UINT64_C(1000000000)
#define PREFETCH_MAX 65535 /* of the protocol */

static struct metric reconnections = METRIC(METRIC_COUNTER, "troupe_reconnections_total", "service=\"broker\"",
                                            "Connections made anew after the first one.");

static struct metric stuck_total = METRIC(METRIC_COUNTER, "troupe_broker_stuck_total", NULL,
                                          "Subscriptions to a queue that the broker did not answer.");
static struct metric remade_total = METRIC(METRIC_COUNTER, "troupe_broker_remade_total", NULL,
                                           "Queues that never came back after a crash of the broker, made anew.");

static void trouble(struct rabbitmq_queue *q, enum tr_rc rc, const char *fmt, ...) TR_PRINTF(3, 4);
static void trouble(struct rabbitmq_queue *q, enum tr_rc rc, const char *fmt, ...)
{
    va_list ap;

    q->trouble.rc = rc;
    va_start(ap, fmt);
    vsnprintf(q->trouble.text, sizeof q->trouble.text, fmt, ap);
    va_end(ap);
}

static void later(struct rabbitmq_queue *q)
{
    uint64_t pause = q->pause_ms != 0 ? q->pause_ms * 2 : PAUSE_FIRST_MS;

    if (pause > PAUSE_MAX_MS)
        pause = PAUSE_MAX_MS;
    q->pause_ms = pause;
    q->retry_ns = mono_ns() + (pause / 2 + mono_ns() / 1000 % (pause / 2 + 1)) * 1000000; /* jittered */
}

static void drop_connection(struct rabbitmq_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->socket_fd = -1;
    pthread_mutex_unlock(&q->lock);
    amqp_destroy_connection(q->conn);
    q->conn = NULL;
    if (q->in.open)
        rmq_delivery_free(q->in.d);
    q->in = q->back = (struct rmq_content){0};
    for (struct rmq_sub *sub = q->subs; sub != NULL; sub = sub->next) {
        sub->gap = sub->gap || sub->durable_on || sub->transient_on;
        sub->durable_on = sub->transient_on = false;
    }
}

void rmq_lost(struct rabbitmq_queue *q, const char *why)
{
    if (q->conn == NULL)
        return;
    log_event(LOG_DEBUG, "rabbitmq.lost", "cause=%Q", why);
    for (struct rmq_spec *spec = q->specs; spec != NULL; spec = spec->hh.next)
        if (spec->born_ns != 0 && mono_ns() - spec->born_ns < YOUNG_S * SECOND_NS)
            spec->young = true;
    drop_connection(q);
    trouble(q, TR_TRANSIENT, "the connection to RabbitMQ at %s:%u was lost: %.120s", q->url.host[q->host].name,
            (unsigned)q->url.host[q->host].port, why);
    rmq_unconfirmed(q, TR_UNCERTAIN, "the broker's connection was lost before it confirmed");
    later(q);
}

void rmq_say_goodbye(struct rabbitmq_queue *q)
{
    const struct timeval soon = {.tv_usec = 500000};

    if (q->conn != NULL) {
        amqp_set_rpc_timeout(q->conn, &soon);
        (void)amqp_connection_close(q->conn, AMQP_REPLY_SUCCESS);
        drop_connection(q);
    }
    rmq_unconfirmed(q, TR_CANCELLED, "broker: closing");
    free(q->confirms);
    q->confirms = NULL;
    q->confirms_cap = 0;
}

/* What the broker said when it sent us away. */
static void refused(struct rabbitmq_queue *q, amqp_rpc_reply_t reply)
{
    const char *const host = q->url.host[q->host].name;
    const unsigned port = q->url.host[q->host].port;
    const char *const user = q->url.user != NULL ? q->url.user : "guest";

    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *const m = reply.reply.decoded;

        if (m->reply_code == 403)
            trouble(q, TR_INVALID,
                    "RabbitMQ at %s:%u refuses the user '%.40s': wrong password, no such user, or no right to the "
                    "vhost; see "
                    "`rabbitmqctl list_users` and `set_permissions`",
                    host, port, user);
        else if (m->reply_code == 530)
            trouble(q, TR_INVALID,
                    "RabbitMQ at %s:%u has no vhost '%.40s' for the user '%.40s': `rabbitmqctl add_vhost`", host, port,
                    q->url.path[0] != '\0' ? q->url.path : "/", user);
        else
            trouble(q, TR_TRANSIENT, "RabbitMQ at %s:%u closed the connection: %d %.*s", host, port, (int)m->reply_code,
                    (int)(m->reply_text.len < 80 ? m->reply_text.len : 80), (const char *)m->reply_text.bytes);
    } else if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        trouble(q, TR_TRANSIENT, "RabbitMQ at %s:%u does not answer: %s", host, port,
                amqp_error_string2(reply.library_error));
    } else {
        trouble(q, TR_TRANSIENT, "RabbitMQ at %s:%u answers out of turn", host, port);
    }
}

static void set_socket(struct rabbitmq_queue *q, int fd)
{
    const int on = 1;
    const unsigned stuck_ms = RPC_S * 1000;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    /* a send that the broker does not take ends by this, and only by this */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stuck_ms, sizeof stuck_ms);
    pthread_mutex_lock(&q->lock);
    q->socket_fd = fd;
    pthread_mutex_unlock(&q->lock);
}

static bool log_in(struct rabbitmq_queue *q)
{
    const char *const host = q->url.host[q->host].name;
    const unsigned port = q->url.host[q->host].port;
    const char *const vhost = q->url.path[0] != '\0' ? q->url.path : "/";
    struct timeval connect = {.tv_sec = CONNECT_S}, rpc = {.tv_sec = RPC_S};
    amqp_socket_t *socket;
    amqp_rpc_reply_t reply;
    int rc;

    q->conn = amqp_new_connection();
    socket = q->conn != NULL ? amqp_tcp_socket_new(q->conn) : NULL;
    if (socket == NULL) {
        trouble(q, TR_NOMEM, "broker: out of memory");
        return false;
    }
    rc = amqp_socket_open_noblock(socket, host, (int)port, &connect);
    if (rc != AMQP_STATUS_OK) {
        trouble(q, TR_TRANSIENT, "cannot reach RabbitMQ at %s:%u (%s): is it running there, and is the port open?",
                host, port, amqp_error_string2(rc));
        return false;
    }
    set_socket(q, amqp_get_sockfd(q->conn));
    if (amqp_set_handshake_timeout(q->conn, &rpc) != AMQP_STATUS_OK ||
        amqp_set_rpc_timeout(q->conn, &rpc) != AMQP_STATUS_OK) {
        trouble(q, TR_NOMEM, "broker: timeouts");
        return false;
    }
    reply =
        amqp_login(q->conn, vhost, 16, 131072, q->heartbeat_s, AMQP_SASL_METHOD_PLAIN,
                   q->url.user != NULL ? q->url.user : "guest", q->url.password != NULL ? q->url.password : "guest");
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        refused(q, reply);
    return reply.reply_type == AMQP_RESPONSE_NORMAL;
}

static bool open_channels(struct rabbitmq_queue *q)
{
    q->publish_channel = CH_PUBLISH;
    for (amqp_channel_t ch = CH_CONSUME; ch <= CH_CONTROL; ch++) {
        amqp_channel_open(q->conn, ch);
        if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL) {
            refused(q, amqp_get_rpc_reply(q->conn));
            return false;
        }
    }
    if (rmq_open_publisher(q))
        return true;
    refused(q, amqp_get_rpc_reply(q->conn));
    return false;
}

static const char *property(const amqp_table_t *table, const char *key, char *out, size_t size)
{
    *out = '\0';
    for (int i = 0; i < table->num_entries; i++) {
        const amqp_table_entry_t *const e = &table->entries[i];

        if (e->key.len == strlen(key) && memcmp(e->key.bytes, key, e->key.len) == 0 &&
            e->value.kind == AMQP_FIELD_KIND_UTF8)
            snprintf(out, size, "%.*s", (int)e->value.value.bytes.len, (const char *)e->value.value.bytes.bytes);
    }
    return out;
}

static void note_server(struct rabbitmq_queue *q)
{
    const amqp_table_t *const table = amqp_get_server_properties(q->conn);
    char product[32], version[32];

    snprintf(q->server, sizeof q->server, "%s %s at %.60s:%u", property(table, "product", product, sizeof product),
             property(table, "version", version, sizeof version), q->url.host[q->host].name,
             (unsigned)q->url.host[q->host].port);
}

/* Everything that this process declared, and the dead-letter queue. */
static bool declare_all(struct rabbitmq_queue *q)
{
    struct rmq_spec dead = {.name = RMQ_DEAD, .kind = QUEUE_DURABLE}, *spec, *next;
    struct tr_err err = {0};
    enum tr_rc rc = rmq_declare(q, &dead, &err);

    if (rc != TR_OK && q->conn != NULL) { /* no right to do so, or a queue of another kind of this name */
        trouble(q, rc == TR_TRANSIENT ? rc : TR_INVALID, "RabbitMQ at %s:%u: the dead-letter queue: %.140s",
                q->url.host[q->host].name, (unsigned)q->url.host[q->host].port, err.msg);
        return false;
    }
    HASH_ITER (hh, q->specs, spec, next) {
        if (q->conn == NULL)
            return false;
        rc = rmq_declare(q, spec, &err);
        if (rc != TR_OK)
            log_event(LOG_DEBUG, "rabbitmq.redeclare", "queue=%s rc=%s cause=%Q", spec->name, tr_rc_name(rc), err.msg);
    }
    return q->conn != NULL;
}

bool rmq_connect(struct rabbitmq_queue *q)
{
    bool ok;

    q->host = (q->host + 1) % (unsigned)q->url.hosts;
    ok = log_in(q) && open_channels(q);
    if (ok) {
        q->conn_epoch++;
        note_server(q);
        ok = declare_all(q);
    }
    if (!ok) {
        log_event(LOG_DEBUG, "rabbitmq.unreached", "rc=%s cause=%Q", tr_rc_name(q->trouble.rc), q->trouble.text);
        if (q->conn != NULL)
            drop_connection(q);
        later(q);
        return false;
    }
    rmq_tell_epoch(q);
    if (q->ever)
        metric_add(&reconnections, 1);
    q->ever = true;
    q->pause_ms = 0;
    q->trouble.rc = TR_OK;
    q->resubscribe = q->subs != NULL;
    log_event(LOG_DEBUG, "rabbitmq.connected", "server=%Q", q->server);
    return rmq_subscribe_all(q);
}

/* ---- subscriptions ---- */

static void note_stuck(struct rmq_sub *sub)
{
    uint64_t pause_s = UINT64_C(1) << (sub->stuck < 8 ? sub->stuck : 8);

    if (pause_s > STUCK_PAUSE_MAX_S)
        pause_s = STUCK_PAUSE_MAX_S;
    sub->stuck++;
    sub->next_ns = mono_ns() + pause_s * SECOND_NS;
    metric_add(&stuck_total, 1);
    log_event(LOG_DEBUG, "rabbitmq.stuck", "queue=%s times=%u", sub->name, sub->stuck);
}

/* See the trap above.  False: the connection was lost over it. */
static bool remake_broken(struct rabbitmq_queue *q, const struct rmq_sub *sub, struct rmq_spec *spec)
{
    const struct timeval long_one = {.tv_sec = DELETE_S}, rpc = {.tv_sec = RPC_S};
    struct tr_err err = {0};
    uint64_t ready = 0;
    enum tr_rc rc;

    if (sub->stuck < BROKEN_AFTER || spec == NULL || !spec->young || q->url.hosts != 1)
        return true;
    if (rmq_look_durable(q, sub->name, &ready, &err) != TR_OK || ready != 0)
        return q->conn != NULL;
    (void)amqp_set_rpc_timeout(q->conn, &long_one);
    rc = rmq_delete_durable(q, sub->name, &err);
    if (rc == TR_OK)
        rc = rmq_declare(q, spec, &err);
    if (q->conn == NULL)
        return false;
    (void)amqp_set_rpc_timeout(q->conn, &rpc);
    log_event(LOG_DEBUG, "rabbitmq.remade", "queue=%s rc=%s", sub->name, tr_rc_name(rc));
    if (rc == TR_OK) {
        metric_add(&remade_total, 1);
        spec->born_ns = mono_ns();
        spec->young = false;
    }
    return true;
}

/* One part of a queue; a fan-out's queue is made for it. */
static bool subscribe(struct rabbitmq_queue *q, struct rmq_sub *sub, bool transient, const char *queue)
{
    const uint32_t prefetch = sub->prefetch == 0 || sub->prefetch > PREFETCH_MAX ? PREFETCH_MAX : sub->prefetch;
    char tag[16];
    amqp_rpc_reply_t reply;

    snprintf(tag, sizeof tag, "%c%u", transient ? 't' : 'd', (unsigned)sub->id);
    amqp_basic_qos(q->conn, CH_CONSUME, 0, (uint16_t)prefetch, false); /* for the consumers that follow, each */
    if (amqp_get_rpc_reply(q->conn).reply_type != AMQP_RESPONSE_NORMAL)
        return false;
    amqp_basic_consume(q->conn, CH_CONSUME, amqp_cstring_bytes(queue), amqp_cstring_bytes(tag), false, transient, false,
                       amqp_empty_table);
    reply = amqp_get_rpc_reply(q->conn);
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT && !transient)
        note_stuck(sub);
    return reply.reply_type == AMQP_RESPONSE_NORMAL;
}

static bool subscribe_fanout(struct rabbitmq_queue *q, struct rmq_sub *sub, struct tr_err *err)
{
    char exchange[RMQ_NAME_MAX + 1], queue[RMQ_NAME_MAX + 1];
    amqp_queue_declare_ok_t *made;

    made = amqp_queue_declare(q->conn, CH_CONTROL, amqp_empty_bytes, false, false, true, true, amqp_empty_table);
    if (rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err) != TR_OK || made->queue.len > RMQ_NAME_MAX)
        return false;
    memcpy(queue, made->queue.bytes, made->queue.len);
    queue[made->queue.len] = '\0';
    amqp_queue_bind(q->conn, CH_CONTROL, amqp_cstring_bytes(queue),
                    amqp_cstring_bytes(rmq_name(q, sub->name, false, exchange)), amqp_empty_bytes, amqp_empty_table);
    return rmq_reply(q, amqp_get_rpc_reply(q->conn), NULL, err) == TR_OK && subscribe(q, sub, true, queue);
}

/* True: nothing is left to subscribe for it, or it is not there yet (then q->resubscribe). */
static bool subscribe_one(struct rabbitmq_queue *q, struct rmq_sub *sub)
{
    char name[RMQ_NAME_MAX + 1];
    struct rmq_spec *spec;
    struct tr_err err = {0};
    bool durable = false, transient = false, want_durable, want_transient;
    uint64_t ready = 0, consumers = 0;
    enum tr_rc rc;

    HASH_FIND_STR(q->specs, sub->name, spec);
    if (spec != NULL && spec->kind == QUEUE_FANOUT) {
        if (!sub->transient_on)
            sub->transient_on = subscribe_fanout(q, sub, &err);
        return sub->transient_on;
    }
    want_durable = spec == NULL || spec->kind == QUEUE_DURABLE;
    if (sub->transient_on && (sub->durable_on || !want_durable))
        return true;
    rc = rmq_look(q, sub->name, &ready, &consumers, &durable, &transient, &err);
    if (q->conn == NULL)
        return false;
    want_transient = spec != NULL || transient;
    /* a queue that went (transient ones do, with the broker) is made again by declaring it */
    if (spec != NULL && (rc == TR_NOT_FOUND || (want_durable && !durable) || !transient) &&
        rmq_declare(q, spec, &err) == TR_OK) {
        durable = want_durable;
        transient = true;
    }
    if (q->conn == NULL)
        return false;
    if (want_durable && durable && !sub->durable_on && mono_ns() >= sub->next_ns) {
        if (!remake_broken(q, sub, spec) || !subscribe(q, sub, false, rmq_name(q, sub->name, false, name)))
            return false;
        sub->durable_on = true;
        sub->stuck = 0;
        sub->next_ns = 0;
        if (spec != NULL)
            spec->young = false;
    }
    if (want_transient && transient && !sub->transient_on) {
        if (!subscribe(q, sub, true, rmq_name(q, sub->name, true, name)))
            return false;
        sub->transient_on = true;
    }
    if ((want_durable && !sub->durable_on) || (want_transient && !sub->transient_on))
        q->resubscribe = true;
    return true;
}

bool rmq_subscribe_all(struct rabbitmq_queue *q)
{
    q->resubscribe = false;
    q->resubscribe_ns = mono_ns() + RESUBSCRIBE_MS * UINT64_C(1000000);
    for (struct rmq_sub *sub = q->subs; sub != NULL; sub = sub->next) {
        if (!subscribe_one(q, sub)) {
            q->resubscribe = true;
            rmq_lost(q, "subscribing failed");
            return false;
        }
        if (sub->gap && (sub->durable_on || sub->transient_on)) {
            sub->gap = false;
            rmq_tell_gap(q, sub->id);
        }
    }
    return true;
}
