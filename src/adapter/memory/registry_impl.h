/* registry_impl - what registry.c (operations) and registry_tables.c (what is known) share.  For them alone. */
#ifndef ADAPTER_MEMORY_REGISTRY_IMPL_H
#define ADAPTER_MEMORY_REGISTRY_IMPL_H

#include "base/loop.h"
#include "port/registry.h"

#include <uthash.h>

#define MR_QUEUE_MAX 127

enum mr_kind { MR_WRITE, MR_REGISTER, MR_WORKERS, MR_GATEWAYS, MR_CONNS, MR_CONTEXT, MR_PLACE, MR_RATE };

struct mr_placed { /* what an operation says of a place; a copy, for that may go meanwhile */
    bool fresh;
    char queue[MR_QUEUE_MAX + 1], first[MR_QUEUE_MAX + 1];
};

struct mr_op {
    struct tr_op op; /* first */
    struct mr_op *next;
    enum mr_kind kind;
    bool cancelled;
    enum tr_rc rc;
    union {
        registry_done *write;
        registry_worker_done *worker;
        registry_workers_done *workers;
        registry_gateways_done *gateways;
        registry_context_done *context;
        registry_place_done *place;
        registry_rate_done *rate;
    } done;
    void *ctx;
    uint64_t value;
    struct uuid chat;
    char character[CHARACTER_ID_MAX + 1];
    struct mr_placed *placed; /* owned: of MR_PLACE */
};

struct mr_worker {
    struct registry_worker w;
    uint64_t expires_ms;
    struct mr_worker *next;
    int64_t since_ms; /* may lie before the loop's clock began */
};

/* A gateway's name, kept once: connections point here. */
struct mr_gateway {
    struct mr_gateway *next;
    uint64_t expires_ms; /* 0: not alive, known for its connections only */
    size_t refs;         /* connections that name it */
    bool removed;        /* until it is heard of again: its connections are no more */
    char name[];
};

/* Chats' connections: one gateway inside, more apart, so that the usual entry stays near 100 bytes. */
struct mr_holder {
    struct mr_gateway *gateway;
    uint64_t expires_ms;
};
struct mr_conn {
    UT_hash_handle hh;
    struct uuid chat;
    struct mr_holder first;
    struct mr_holder *more; /* more_n of them */
    uint32_t more_n;
};

struct mr_blob { /* shared by its entry and the callbacks that look at it */
    size_t refs, len;
    uint8_t data[];
};
struct mr_context {
    UT_hash_handle hh;
    struct uuid chat, last_turn;
    uint64_t change, expires_ms;
    struct mr_blob *blob;
    struct mr_context *prev, *next; /* unused longest first */
};

struct mr_place {
    UT_hash_handle hh;
    struct uuid chat;
    uint64_t expires_ms;
    const char *queue; /* in names */
    char names[];      /* first choice, then queue */
};

struct mr_rate {
    UT_hash_handle hh;
    uint64_t tat_us;
    char key[];
};

struct memory_registry {
    struct registry base; /* first */
    struct loop *loop;
    struct loop_timer *sweep;
    bool closing;

    struct loop_call pump;
    bool pump_posted;
    struct mr_op *first, *last, *pool;
    size_t pool_n;

    struct mr_worker *workers;
    size_t workers_n;
    struct mr_gateway *gateways;
    struct mr_conn *conns, *conn_cursor; /* cursors: where the sweep goes on */
    struct mr_context *contexts, *context_first, *context_last;
    size_t context_bytes;
    struct mr_place *places; /* unused longest first */
    struct mr_rate *rates, *rate_cursor;
};

enum tr_rc mr_worker_register(struct memory_registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                              uint32_t *ret_number, struct tr_err *err) TR_MUST_CHECK;
enum tr_rc mr_worker_refresh(struct memory_registry *r, const struct registry_worker *w, uint64_t ttl_ms) TR_MUST_CHECK;
void mr_worker_remove(struct memory_registry *r, const struct registry_worker *w);
/* *ret_list: owned by the caller, free(); NULL where there is none. */
enum tr_rc mr_workers_list(struct memory_registry *r, const char *character, struct registry_worker **ret_list,
                           size_t *ret_n) TR_MUST_CHECK;

enum tr_rc mr_gateway_refresh(struct memory_registry *r, const char *name, uint64_t ttl_ms,
                              struct tr_err *err) TR_MUST_CHECK;
void mr_gateway_remove(struct memory_registry *r, const char *name);
/* *ret_names: owned by the caller, free(), the names borrowed; NULL where there is none. */
enum tr_rc mr_gateways_list(struct memory_registry *r, const char ***ret_names, size_t *ret_n) TR_MUST_CHECK;

/* TR_NOT_FOUND: put, but it was not there before. */
enum tr_rc mr_conn_put(struct memory_registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                       struct tr_err *err) TR_MUST_CHECK;
void mr_conn_remove(struct memory_registry *r, const struct uuid *chat, const char *gateway);
/* As mr_gateways_list(). */
enum tr_rc mr_conns_list(struct memory_registry *r, const struct uuid *chat, const char ***ret_names,
                         size_t *ret_n) TR_MUST_CHECK;

enum tr_rc mr_context_put(struct memory_registry *r, const struct uuid *chat, const struct registry_context *context,
                          uint64_t ttl_ms, struct tr_err *err) TR_MUST_CHECK;
/* On TR_OK ret_context->sealed lies in *ret_blob: mr_blob_release() it. */
enum tr_rc mr_context_get(struct memory_registry *r, const struct uuid *chat, struct registry_context *ret_context,
                          struct mr_blob **ret_blob) TR_MUST_CHECK;
void mr_context_drop(struct memory_registry *r, const struct uuid *chat);
void mr_blob_release(struct mr_blob *blob); /* overwrites with the last; NULL is fine */

/* registry_places.c */
enum tr_rc mr_place(struct memory_registry *r, const struct uuid *chat, const struct registry_place *place,
                    uint64_t ttl_ms, struct mr_placed *ret_placed, struct tr_err *err) TR_MUST_CHECK;
void mr_places_expire(struct memory_registry *r);
void mr_places_free(struct memory_registry *r);

enum tr_rc mr_rate_take(struct memory_registry *r, const char *key, uint32_t per_minute, uint64_t *ret_wait_ms,
                        struct tr_err *err) TR_MUST_CHECK;

void mr_on_sweep(void *ctx);
void mr_tables_free(struct memory_registry *r);

#endif
