/*
 * impl - what the files of the PostgreSQL catalogue share; nobody else includes it.
 *   catalogue.c  the port's side: each operation's statement, and what its rows mean
 *   op.c         operations: waiting for a fitting host, deadlines, cancellation, the one callback
 *   link.c       one connection a host: connecting, what it is (primary, replica), pipelined statements, losing it
 *   timeline.c   which hosts may be used: not an old primary that came back, nor what follows it
 *   schema.c     the schema, step by step
 */
#ifndef ADAPTER_POSTGRES_IMPL_H
#define ADAPTER_POSTGRES_IMPL_H

#include "adapter/postgres/catalogue.h"
#include "base/pending.h"
#include "base/resolve.h"
#include "base/url.h"

#include <libpq-fe.h>
#include <uv.h>

#define PG_PARAMS_MAX 8
#define PG_OPS_MAX 65536 /* operations under way; past it a start says TR_BUSY */
#define PG_TIMEOUT_MS 10000
#define PG_PROBE_MS 1000
#define PG_SCHEMA_VERSION 1

enum pg_want {
    PG_PRIMARY, /* writes, and what must be read where it was written */
    PG_ANY,     /* a replica that is up to date, else the primary */
    PG_INIT,    /* the primary, with or without a schema: the steps of the schema */
    PG_CHECK,   /* answered out of what is known of the hosts, once one was asked */
};

struct postgres_catalogue;
struct pg_op;
struct pg_link;

/* What the rows mean.  TR_OK, or what the caller is told. */
typedef enum tr_rc pg_read(struct pg_op *op, const PGresult *rows, struct tr_err *err);
typedef void pg_call(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err);

struct pg_op {
    struct pending base; /* first */
    struct postgres_catalogue *c;
    struct pg_op *next; /* in the line, or in flight on a link */
    bool in_line, sent, answered, write;
    unsigned syncs; /* still to come */
    bool asks_lsn;
    bool stale_checked, behind; /* on a replica: its first row says whether it is up to date */
    bool ran;                   /* on a host that turned out to be none of ours: it may be done there */
    unsigned tries;
    enum pg_want want;
    const char *sql;
    int n; /* parameters; owned, in `args` */
    const char *values[PG_PARAMS_MAX];
    int lengths[PG_PARAMS_MAX], formats[PG_PARAMS_MAX];
    char *args;
    pg_read *read;
    pg_call *call;
    union {
        catalogue_done *plain;
        catalogue_character_done *character;
        catalogue_characters_done *characters;
        catalogue_setting_done *setting;
        catalogue_keys_done *keys;
        service_checked *check;
    } done;
    void *ctx;
    /* what came so far */
    PGresult *rows; /* owned: the statement's */
    enum tr_rc rc;
    struct tr_err err;
    uint64_t lsn;
    struct service_report report;
};

enum pg_standing {
    PG_GOOD,
    PG_UNSURE,  /* the other hosts have not told yet: it may be any of the next */
    PG_OLD,     /* its timeline is not the newest */
    PG_FOREIGN, /* of another database system */
    PG_TWIN,    /* one of two primaries that can't be told apart */
};

enum pg_state { PG_DOWN, PG_RESOLVING, PG_CONNECTING, PG_ASKING, PG_UP };

struct pg_link {
    struct postgres_catalogue *c;
    size_t host;
    enum pg_state state;
    PGconn *conn;
    struct pg_socket *socket;
    struct resolve *resolving;
    struct pg_op *flight, **flight_end; /* sent, in order */
    bool primary;
    uint64_t system, timeline, started; /* as it told last; of timeline.c, as the next ones */
    uint64_t newest;                    /* timeline that it ever told of, its mark's included */
    uint64_t marked;                    /* the timeline in its mark; 0: none */
    uint64_t up_ms, up_turn, heard;     /* heard: its last answer is younger than what came up as this turn */
    uint64_t probe_turn;                /* up_turns when it was asked last */
    bool ask_now;                       /* another one came up */
    int schema;                         /* version; 0: none; -1: not known */
    unsigned probes;                    /* under way: answers to them come between those of operations */
    uint64_t retry_ms, pause_ms, began_ms, probed_ms;
    bool ever;
    int server_version;
    uint64_t clock_ms, clock_at_ms; /* the server's wall clock, and ours (of the loop) when it was told */
    enum tr_rc trouble;
    struct tr_err trouble_err;
};

struct postgres_catalogue {
    struct catalogue base;
    struct loop *loop;
    struct url url;
    struct pending_list ops;        /* not answered */
    struct pg_op *line, **line_end; /* waiting for a fitting link */
    struct loop_timer *tick;
    bool closing, pumping;
    uint64_t lsn, lsn_timeline; /* of this process's newest write */
    uint64_t system;            /* of the first operation; 0: there was none */
    uint64_t up_turns;          /* counts the hosts that came up */
    size_t turn;                /* whose turn it is among the replicas */
    struct pg_link link[URL_HOSTS_MAX];
};

extern const char pg_not_newer[];                     /* schema.c: fails where the schema is of a newer version */
extern const char *const pg_steps[PG_SCHEMA_VERSION]; /* schema.c: [i] brings it from version i to i + 1 */

/* ---- op.c ---- */
enum tr_rc pg_op_new(struct postgres_catalogue *c, enum pg_want want, bool write, const char *sql, pg_read *read,
                     pg_call *call, void *ctx, struct pg_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
/* The next parameter; text, or bytes. */
void pg_text(struct pg_op *op, const char *value);
void pg_bytes(struct pg_op *op, struct slice value);
/* Start; its parameters are copied; the operation is taken in any case. */
enum tr_rc pg_start(struct pg_op *op, struct tr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
void pg_answer(struct pg_op *op, enum tr_rc rc, const struct tr_err *err);
void pg_op_free(struct pg_op *op);
/* Into the line again: nothing of it was done. */
void pg_again(struct pg_op *op);
/* Send what a link can take now; answer checks that can be answered. */
void pg_pump(struct postgres_catalogue *c);
void pg_give_up(struct pending *p, bool cancelled); /* struct pending_list's */
void pg_on_tick(void *ctx);

/* ---- link.c ---- */
void pg_link_tick(struct pg_link *l, uint64_t now_ms);
void pg_link_close(struct pg_link *l);
/* Hand an operation to a link that is up; false: it is not. */
bool pg_link_send(struct pg_link *l, struct pg_op *op);
void pg_link_lost(struct pg_link *l, const char *why);
const char *pg_where(const struct pg_link *l, char out[96]);

/* ---- timeline.c ---- */
extern const char pg_probe_sql[];   /* one row of six: see there */
extern const char pg_version_sql[]; /* the schema's version, and the mark or NULL; where there is a schema */
extern const char pg_mark_sql[];    /* $1: "SYSTEM/TIMELINE" */
/* What an answer to pg_probe_sql told, and the mark of one to pg_version_sql. */
void pg_told(struct pg_link *l, uint64_t system, uint64_t timeline, uint64_t started);
void pg_told_mark(struct pg_link *l, const char *text);
/* It is up from now on: all others are asked anew. */
void pg_came_up(struct pg_link *l);
/* The newest timeline of our system that this process ever saw. */
uint64_t pg_newest(const struct postgres_catalogue *c);
/* May this link, which is up, be used? */
enum pg_standing pg_standing(const struct pg_link *l);
/* Why it may not, and what to do; "" where it may. */
void pg_standing_text(const struct pg_link *l, char *out, size_t size);

#endif
