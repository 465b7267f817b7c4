/*
 * registry - what is true right now and may be lost: living workers, who holds a chat's connections, recent context,
 * rate limits (contract 8).  Everything in it can be rebuilt (contract 3.7).
 * Adapters: memory (embedded), later Redis.  Rules as in base/op.h; contract suite: tests/contract/registry.c.
 * Time is the adapter's own (the loop's clock, the server's).
 */
#ifndef PORT_REGISTRY_H
#define PORT_REGISTRY_H

#include "base/buf.h"
#include "base/op.h"
#include "domain/turn.h"
#include "port/service.h"

struct registry;

struct registry_worker {
    char character[CHARACTER_ID_MAX +
                   1]; /* "any": the shared pool; "_…": a group of another role (role/notifier/share.c) */
    uint32_t number;   /* taken at registration: the lowest positive one free among the living */
    char id[48];       /* the process's own, unique */
    char queue[128];
    char engine[64], model[96], device[96];
    uint32_t slots, context_tokens, weight, load;
    bool draining; /* it takes nothing new and finishes what it holds; its number stays its own until its record goes */
    /*
     * In a list: how long it has been there.  Given with a registration or a refresh: how long its queue has been served, so
     * that a record which was lost comes back as old as it was; a record never gets younger, and a number that was not
     * wished begins at 0.
     */
    uint64_t age_ms;
};

#define REGISTRY_CONTEXT_MAX (1 << 20) /* bytes of a sealed context */

struct registry_context {
    struct uuid last_turn; /* the newest turn in it */
    uint64_t change;       /* the chat's change it was built at */
    struct slice sealed;   /* what inference put there (SEAL_CONTEXT) */
};

/* Where a chat's turns go.  Queues' names. */
struct registry_place {
    const char *first; /* what hashing alone would choose */
    const char *queue; /* where the chat is to go, if it has no place yet, */
    const char *stale; /* or if this is its place (it is gone), */
    const char *was;   /* or if its place was made under this first choice.  NULL: none */
};

typedef void registry_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
typedef void registry_worker_done(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err);
typedef void registry_workers_done(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n,
                                   const struct tr_err *err);
/* Names of gateways (their queues' names), any number of them; n may be 0.  Borrowed. */
typedef void registry_gateways_done(void *ctx, enum tr_rc rc, const char *const *names, size_t n,
                                    const struct tr_err *err);
typedef void registry_context_done(void *ctx, enum tr_rc rc, const struct registry_context *context,
                                   const struct tr_err *err);
/* The place that stands: its queue, and the first choice that it was made under; borrowed.  fresh: it is new. */
typedef void registry_place_done(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                                 const struct tr_err *err);
typedef void registry_rate_done(void *ctx, enum tr_rc rc, uint64_t retry_after_ms, const struct tr_err *err);

struct registry_ops {
    const char *scheme;
    /*
     * Take a number and register for ttl_ms: w->number where it is not 0 and free among the living (a worker that was
     * there before keeps its chats), else the lowest free one.  The adapter fills number and queue
     * ("inference.<character>.<number>").
     */
    enum tr_rc (*worker_register)(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                                  registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* TR_NOT_FOUND: the record is gone or another's by now; register anew. */
    enum tr_rc (*worker_refresh)(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                                 registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*worker_remove)(struct registry *r, const struct registry_worker *w, registry_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err);
    /* The living workers of a character (or "any"); those of nobody: n = 0. */
    enum tr_rc (*workers)(struct registry *r, const char *character, registry_workers_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err);

    /*
     * A gateway is alive for ttl_ms / is gone / all of them.  A refresh that ends with TR_NOT_FOUND has registered it, but it
     * was not: the first time, or the record was lost, and others with it.
     */
    enum tr_rc (*gateway_refresh)(struct registry *r, const char *gateway, uint64_t ttl_ms, registry_done *done,
                                  void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*gateway_remove)(struct registry *r, const char *gateway, registry_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*gateways)(struct registry *r, registry_gateways_done *done, void *ctx, struct tr_op **ret_op,
                           struct tr_err *err);
    /*
     * `gateway` holds a connection that has the chat open / holds it still / no longer holds one.  put and renew both write the
     * record, with this TTL; a renew that ends with TR_NOT_FOUND has found none: it was lost, and events of the chat may have
     * been sent elsewhere meanwhile.  A gateway uses one TTL for all its records.
     * A remove takes away only what this registry put before: one that arrives late does not undo a newer put.
     */
    enum tr_rc (*conn_put)(struct registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                           registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*conn_renew)(struct registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                             registry_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*conn_remove)(struct registry *r, const struct uuid *chat, const char *gateway, registry_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*conns)(struct registry *r, const struct uuid *chat, registry_gateways_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err);

    /*
     * TR_BUSY: there is no room; it is a cache, and goes on without.  TR_INVALID: it is larger than REGISTRY_CONTEXT_MAX.
     * Contexts are what is given up first where there is little room.
     */
    enum tr_rc (*context_put)(struct registry *r, const struct uuid *chat, const struct registry_context *context,
                              uint64_t ttl_ms, registry_done *done, void *ctx, struct tr_op **ret_op,
                              struct tr_err *err);
    enum tr_rc (*context_get)(struct registry *r, const struct uuid *chat, registry_context_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err); /* TR_NOT_FOUND */
    enum tr_rc (*context_drop)(struct registry *r, const struct uuid *chat, registry_done *done, void *ctx,
                               struct tr_op **ret_op, struct tr_err *err);

    /*
     * The chat's place: the one that stands; or `queue` from now on, where there is none, it is `stale`, or it was made under
     * `was`.  In one step, so that all who ask agree.  Renews its TTL.
     */
    enum tr_rc (*chat_place)(struct registry *r, const struct uuid *chat, const struct registry_place *place,
                             uint64_t ttl_ms, registry_place_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err);

    /* One more of `key` ("user:…", "address:…") at per_minute a minute (domain/ratelimit.h); retry_after_ms 0: allowed. */
    enum tr_rc (*rate_take)(struct registry *r, const char *key, uint32_t per_minute, registry_rate_done *done,
                            void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* Of a service outside, else NULL: see port/service.h. */
    enum tr_rc (*init)(struct registry *r, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*check)(struct registry *r, service_checked *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err);
    void (*close)(struct registry *r);
};

/*
 * A gap: the adapter has a new connection to its server.  It may be another server, or one that came back as it was a moment
 * ago: what was put may not be there, and what was read may have been too old.  Embed it; fn is called on the loop's
 * thread, and may start operations.  A registry of this process never calls it.
 */
struct registry_gap {
    void (*fn)(void *ctx);
    void *ctx;
    struct registry_gap *next; /* the registry's own */
};

struct registry { /* first member of every adapter's own struct */
    const struct registry_ops *ops;
    struct registry_gap *gaps;
};

/* From now until registry_gap_remove() gap->fn is called at each gap. */
static inline void registry_gap_add(struct registry *r, struct registry_gap *gap)
{
    gap->next = r->gaps;
    r->gaps = gap;
}

/* One that was never added is fine. */
static inline void registry_gap_remove(struct registry *r, struct registry_gap *gap)
{
    for (struct registry_gap **at = &r->gaps; *at != NULL; at = &(*at)->next) {
        if (*at == gap) {
            *at = gap->next;
            return;
        }
    }
}

/* For adapters: there was a gap.  A callback may remove its own. */
static inline void registry_gap_tell(const struct registry *r)
{
    for (const struct registry_gap *gap = r->gaps, *next; gap != NULL; gap = next) {
        next = gap->next;
        gap->fn(gap->ctx);
    }
}

#endif
