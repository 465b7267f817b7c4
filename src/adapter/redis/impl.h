/*
 * impl - what the files of the Redis registry share; nobody else includes it.
 *   registry.c  the port's side: each operation's command
 *   op.c        operations: waiting for a connection, deadlines, cancellation, the one callback
 *   link.c      the connection: resolving, connecting, logging in, loading the scripts, losing it
 *   reply.c     what an answer means
 *   scripts.c   the scripts, each one atomic step
 *   room.c      a Redis that is full
 *   record.c    a worker's record as text
 */
#ifndef ADAPTER_REDIS_IMPL_H
#define ADAPTER_REDIS_IMPL_H

#include "adapter/redis/registry.h"
#include "base/pending.h"
#include "base/url.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <uv.h>

#define RR_ARGS_MAX 12
#define RR_OPS_MAX 65536 /* operations under way; past it a start says TR_BUSY */
#define RR_TIMEOUT_MS 2000
#define RR_STUCK_MS 6000 /* sent, and no answer at all for so long: the connection is given up */
#define RR_KEY_MAX 224

enum rr_script {
    RR_WORKER_REGISTER,
    RR_WORKER_REFRESH,
    RR_WORKER_REMOVE,
    RR_WORKERS,
    RR_NAME_PUT, /* gateways, connections: a name with an end of its own */
    RR_NAME_REMOVE,
    RR_NAMES,
    RR_PLACE,
    RR_RATE,
    RR_GIVE_UP, /* contexts, when there is no room */
    RR_SERVER,
    RR_SCRIPTS
};
extern const char *const rr_scripts[RR_SCRIPTS];

struct redis_registry;
struct rr_op;
/* What an answer means: rc, and op->result for the callback.  `reply` is never an error. */
typedef enum tr_rc rr_read(struct rr_op *op, const redisReply *reply, struct tr_err *err);
/* Call the caller's callback with its own types. */
typedef void rr_call(struct rr_op *op, enum tr_rc rc, const struct tr_err *err);

struct rr_op {
    struct pending base; /* first */
    struct redis_registry *r;
    struct rr_op *next_line, *prev_line; /* not sent yet */
    bool in_line, sent, answered, write;
    bool whole;            /* sent with its whole script: once */
    enum rr_script script; /* RR_SCRIPTS: a plain command */
    int argc;
    char *argv[RR_ARGS_MAX]; /* owned, in `args`; of a script: from its number of keys on */
    size_t argvlen[RR_ARGS_MAX];
    uint8_t *args;
    rr_read *read;
    rr_call *call;
    union {
        registry_done *plain;
        registry_worker_done *worker;
        registry_workers_done *workers;
        registry_gateways_done *names;
        registry_context_done *context;
        registry_place_done *place;
        registry_rate_done *rate;
        service_checked *check;
    } done;
    void *ctx;
    /* the result: borrowed from the reply, for the callback's time */
    uint64_t number;
    const redisReply *reply;
    struct registry_worker *workers; /* owned */
    size_t n;
    const char **names; /* owned; what they point to is the reply's */
    struct registry_context context;
    struct service_report report;
};

enum rr_link { RR_DOWN, RR_RESOLVING, RR_CONNECTING, RR_GREETING, RR_UP };

struct redis_registry {
    struct registry base;
    struct loop *loop;
    struct url url;
    char prefix[64];
    unsigned db;
    struct pending_list ops; /* not answered */
    size_t awaited;          /* sent, whose reply is still to come; those that nobody waits for any more among them */
    struct rr_op *line, *line_last; /* waiting for the connection */
    struct loop_timer *tick;        /* deadlines, and trying again */
    bool closing;

    enum rr_link link;
    redisAsyncContext *ac;
    struct resolve *resolving;
    uint64_t retry_ms, pause_ms, began_ms, heard_ms;
    unsigned greetings; /* answers to the greeting that are still to come */
    bool ever;
    double conn_end;    /* the latest end of a connection's record that was put; 0: none was */
    enum tr_rc trouble; /* why it is not up; TR_OK: not known yet */
    struct tr_err trouble_err;
    char sha[RR_SCRIPTS][41];
    uint64_t refused_ms, swept_ms; /* when a context was refused, and the last sweep began; 0: never */
    bool full;                     /* said by check */
    char sweep_at[24];             /* SCAN's cursor */
};

/* ---- op.c ---- */
/* A new operation; `names` are set by the caller, then rr_arg()s, then rr_start(). */
enum tr_rc rr_op_new(struct redis_registry *r, enum rr_script script, bool write, rr_read *read, rr_call *call,
                     void *ctx, struct rr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
/* Start with these arguments (copied); the operation is taken in any case. */
enum tr_rc rr_start(struct rr_op *op, const struct slice *args, int n, struct tr_op **ret_op,
                    struct tr_err *err) TR_MUST_CHECK;
void rr_send(struct rr_op *op); /* the link is up */
void rr_send_line(struct redis_registry *r);
void rr_fail_checks(struct redis_registry *r); /* those who ask how the link is are told r->trouble */
void rr_op_free(struct rr_op *op);
void rr_answer(struct rr_op *op, enum tr_rc rc, const struct tr_err *err);
void rr_on_reply(redisAsyncContext *ac, void *reply, void *op);
/* struct pending_list's */
void rr_give_up(struct pending *p, bool cancelled);
void rr_on_tick(void *ctx);

/* ---- link.c ---- */
void rr_link_tick(struct redis_registry *r, uint64_t now_ms);
void rr_link_close(struct redis_registry *r);
/* What an error reply means.  Nothing that was sent is repeated in err.  TR_BUSY: it is out of memory, and only that. */
enum tr_rc rr_error(const char *text, struct tr_err *err);
/* A readable "host:port". */
const char *rr_where(const struct redis_registry *r, char out[96]);

/* ---- room.c ---- */
/* A context was refused not long ago: none is put. */
bool rr_is_full(const struct redis_registry *r);
/* Redis has no room for a context: older ones go. */
void rr_refused(struct redis_registry *r);

/* ---- reply.c: each what one kind of answer means, into op's result ---- */
rr_read rr_read_nothing, rr_read_number, rr_read_register, rr_read_refresh, rr_read_workers, rr_read_put,
    rr_read_put_known, rr_read_conn_put, rr_read_conn_renew, rr_read_names, rr_read_context, rr_read_swept,
    rr_read_server;

/* ---- record.c ---- */
/* Decimal digits alone, up to UINT32_MAX. */
bool rr_number(const char *value, size_t len, uint32_t *ret_number) TR_MUST_CHECK;
/* "id=…\nqueue=…\n…" into `out`. */
void rr_record_print(const struct registry_worker *w, struct buf *out);
/* TR_INVALID: not a worker's record.  Unknown fields are skipped: a newer version wrote them. */
enum tr_rc rr_record_parse(const char *text, size_t len, struct registry_worker *ret_worker) TR_MUST_CHECK;

#endif
