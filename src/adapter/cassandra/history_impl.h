/*
 * history_impl - what the files of the Cassandra history share; nobody else includes it.
 *   history.c          the port's side: copies what comes in, starts an operation
 *   history_op.c       an operation's life: sending, answers, deadline, cancelling, closing
 *   history_slot.c     what is remembered of a chat, its lane, and its state read
 *   history_write.c    accept and append
 *   history_erase.c    a deleted turn's words
 *   history_gone.c     deleting chats
 *   history_month.c    a new month's bucket
 *   history_chat.c     creating chats; keys
 *   history_read.c     the reads; history_list.c: a user's chats
 *   history_service.c  init and check
 *   history_rows.c     values and rows, in and out
 *   history_schema.c   the tables, the statements, and the reasons
 */
#ifndef ADAPTER_CASSANDRA_HISTORY_IMPL_H
#define ADAPTER_CASSANDRA_HISTORY_IMPL_H

#include "adapter/cassandra/client/cql.h"
#include "adapter/cassandra/history.h"
#include "base/url.h"

#define HISTORY_KEY_ID_MAX 64
#define HISTORY_SEALED_MAX (1024u * 1024) /* of one write: a mutation of a node's default is at most 16 MiB */
#define HISTORY_ROWS_MAX 256              /* of one append or greeting */
#define HISTORY_OPS_MAX 20000             /* under way at once; past it TR_BUSY */
#define HISTORY_BUCKETS_MAX 1200          /* a century of months */
#define SCHEMA_VERSION 1

/* Indexes of cass_statements[]. */
enum history_stmt {
    ST_CHAT,
    ST_CHAT_INSERT,
    ST_CHAT_BUCKET,
    ST_CHAT_DELETE,
    ST_CHAT_EMPTY,
    ST_STATE,
    ST_STATE_SERIAL,
    ST_OPEN,
    ST_ADVANCE,
    ST_CHANGE,
    ST_CHANGE_GONE,
    ST_CLOSE,
    ST_CLOSED,
    ST_MARK,
    ST_FORGET,
    ST_FORGET_ROWS,
    ST_CLAIM,
    ST_CLAIM_FIND,
    ST_ROW,
    ST_ROW_NEW,
    ST_ROW_ERASE,
    ST_TURN,
    ST_TURN_IN,
    ST_TURNS_UP,
    ST_TURNS_DOWN,
    ST_TURNS_IN,
    ST_CHANGED,
    ST_CHANGED_ROWS,
    ST_TURN_SET,
    ST_BY_USER,
    ST_BY_USER_PUT,
    ST_BY_USER_DROP,
    ST_BY_CHARACTER_PUT,
    ST_BY_CHARACTER_DROP,
    ST_SELECTED,
    ST_SELECTED_PUT,
    ST_SELECTED_DROP,
    ST_CLIENT,
    ST_CLIENT_PUT,
    ST_CLIENT_TAKE,
    ST_KEY,
    ST_KEY_PUT,
    ST_KEY_DESTROY,
    ST_VERSION,
    ST_SERVER,
    ST_COUNT
};
extern const char *const cass_statements[ST_COUNT]; /* "@" stands for "<keyspace>." */
extern const char *const cass_ddl[];                /* the same; ended by NULL */

/* A statement with the keyspace in it. */
void cass_statement(const char *text, const char *keyspace, char *out, size_t size);

/* ---- values and rows: history_rows.c ---- */

#define CALL_ARGS_MAX 26
/* One statement with its values.  What cass_arg_bytes() and cass_arg_uuid() point to is borrowed until cass_op_send(). */
struct call {
    enum history_stmt st;
    uint32_t n;
    struct cql_value v[CALL_ARGS_MAX];
    uint8_t room[CALL_ARGS_MAX][8]; /* numbers, in wire form */
};
void cass_call_init(struct call *c, enum history_stmt st);
void cass_arg_uuid(struct call *c, const struct uuid *id);
void cass_arg_i32(struct call *c, int32_t v);
void cass_arg_u64(struct call *c, uint64_t v);
void cass_arg_bytes(struct call *c, const void *data, size_t len);
void cass_arg_text(struct call *c, const char *text); /* "" too */
void cass_arg_none(struct call *c, int32_t kind);     /* CQL_NULL, CQL_UNSET */

/* A list or set of numbers or ids in wire form. */
void cass_wire_list_i32(struct buf *b, const int32_t *values, size_t n);
void cass_wire_list_uuid(struct buf *b, const struct uuid *values, size_t n);

/* The next of a list or set of numbers; *at begins as 0.  False: there is none. */
bool cass_wire_list_next(struct cql_value list, int32_t *at, int32_t *ret_value);
/* Is the id a key of a map<uuid, …>? */
bool cass_wire_map_has(struct cql_value map, const struct uuid *key);

/* A named column of a row, or the zero value where it is null or not there. */
struct cql_value cass_cell_named(const struct cql_rows *rows, size_t row, const char *name);
struct uuid cass_cell_uuid(struct cql_value v);
int32_t cass_cell_i32(struct cql_value v);
uint64_t cass_cell_u64(struct cql_value v);
void cass_cell_text(struct cql_value v, char *out, size_t size);
static inline bool cass_cell_is_set(struct cql_value v)
{
    return v.len >= 0;
}
/* [applied] of a conditional write. */
bool cass_was_applied(const struct cql_rows *rows);

/* What a partition says of itself (its static columns). */
struct history_state {
    bool exists; /* it is open: it has a head */
    bool deleted;
    struct uuid head;
    uint64_t index, change, updated_ms;
    uint64_t base; /* the chat's change when the bucket was opened */
    int32_t next;  /* the bucket after it; 0: it is the current one */
};
/* False: the row has no such columns (nothing of the partition is there). */
bool cass_read_state(const struct cql_rows *rows, size_t row, struct history_state *ret_state);

/* Rows that were read: sealed texts lie in `bytes`, and cass_row_set_settle() makes the rows point there. */
struct row_set {
    struct turn_row *rows; /* `sealed` is an offset into `bytes` until cass_row_set_settle() */
    size_t n, cap;
    struct buf bytes;
};
void cass_row_set_release(struct row_set *set);
/* Append the turn rows of an answer that changed no later than `change`; claims are left out.  TR_OK or TR_NOMEM. */
enum tr_rc cass_row_set_read(struct row_set *set, const struct uuid *chat, const struct cql_rows *rows, uint64_t change,
                             struct tr_err *err) TR_MUST_CHECK;
void cass_row_set_sort(struct row_set *set); /* by turn, part and rev */
void cass_row_set_settle(
    struct row_set *set); /* the same, and point the rows to their texts: no row can be added then */
/* The values of ST_ROW and ST_ROW_NEW. */
void cass_call_row(struct call *c, enum history_stmt st, const struct turn_row *row, int32_t bucket, uint64_t change);
/* A client id's key in a partition: an id that no turn has, before all turns; `ret_key`'s version is 0. */
struct uuid cass_claim_key(const uint8_t client_hash[16]);
#define PART_CLAIM (-100)

/* The month of an id's time, as 202611. */
int32_t cass_bucket(const struct uuid *id);
/* The first id that month could have; after it come the turns of that month and later ones. */
extern const struct uuid cass_turn_first, cass_turn_last;

/* ---- chats: history_slot.c ---- */

#define SLOT_TURNS 8
/* What this process remembers of a chat: facts that stay true, and a guess at its state. */
struct chat_slot {
    struct chat_slot *hash_next;
    struct chat_slot *newer, *older; /* all, by use */
    unsigned refs;
    struct uuid chat;
    bool known; /* the next four are read */
    struct uuid user;
    char character[CHARACTER_ID_MAX + 1];
    uint64_t created_ms;
    int32_t *buckets; /* rising; all up to `current` are open, those before it closed */
    size_t buckets_n;
    int32_t current;              /* the newest one that was seen open; 0: none yet */
    struct history_state state;   /* of `current`, as last seen: a guess */
    struct uuid seen[SLOT_TURNS]; /* turns that exist, with a row in `current` or before it */
    unsigned seen_at;
    struct history_op *writer; /* whose lane it is */
    struct history_op *waiting, *last_waiting;
};

struct cassandra_history;
struct history_op;

/* The chat's slot, with a reference for the operation.  NULL: no memory. */
struct chat_slot *cass_slot_get(struct cassandra_history *h, const struct uuid *chat);
void cass_slot_put(struct cassandra_history *h, struct chat_slot *slot);
void cass_slots_release(struct cassandra_history *h);
bool cass_slot_has_bucket(struct chat_slot *slot, int32_t bucket);        /* adds it; false: no memory */
bool cass_slot_has_buckets(struct chat_slot *slot, struct cql_value set); /* the same with all of a set<int> */
void cass_slot_forget(struct chat_slot *slot);                            /* all but its buckets and its lane */
void cass_slot_saw_turn(struct chat_slot *slot, const struct uuid *turn);
bool cass_slot_knows_turn(const struct chat_slot *slot, const struct uuid *turn);
/* A state of bucket `current` that came with an answer: keep it as the guess if it is not older. */
void cass_slot_saw_state(struct chat_slot *slot, const struct history_state *state);

typedef void op_step(struct history_op *op);
/* Bring the slot's state up to date (what it says then was so after this call), then step. */
void cass_slot_load(struct history_op *op, op_step *then);
/* The same, and rows that are read from then on are all there up to the state's change. */
void cass_slot_load_settled(struct history_op *op, op_step *then);
/* The same where the slot knows nothing yet; else step with what it knows. */
void cass_slot_need(struct history_op *op, op_step *then);
/* Wait for the chat's lane: one writer of this process at a time. */
void cass_lane_enter(struct history_op *op, op_step *then);
void cass_lane_leave(struct history_op *op);

/* ---- operations: history_op.c ---- */

typedef void op_answer(struct history_op *op, const struct cql_rows *rows);

enum op_kind { OP_PLAIN = 0, OP_CREATE, OP_ACCEPT, OP_APPEND, OP_READ, OP_KEY, OP_ADMIN };

struct history_op {
    struct tr_op base; /* first */
    enum op_kind kind; /* which of `in` */
    struct cassandra_history *owner;
    struct history_op *next, *prev;
    struct loop_call begin_call, cancel_call;
    uint64_t deadline_ms;
    unsigned holds; /* calls and answers to come; it is freed after the last */
    bool answered, cancelled, write_flying;
    bool wrote; /* something of it is written for good: a failure is no TR_TRANSIENT any more */
    bool fail_fast;
    op_step *begin, *then;
    op_answer *on_answer;
    void (*on_refused)(struct history_op *op, int status, const char *text); /* NULL: op_refused()'s own rule */
    void (*deliver)(struct history_op *op, enum tr_rc rc, const struct tr_err *err);
    union {
        history_done *plain;
        history_chat_done *chat;
        history_chats_done *chats;
        history_accept_done *accept;
        history_append_done *append;
        history_rows_done *rows;
        history_key_done *key;
        service_checked *check;
    } cb;
    void *ctx;
    struct history_op *parent; /* of a part of another operation: deliver() tells it */

    struct chat_slot *slot;
    struct history_op *lane_next;
    op_step *lane_then;
    bool in_lane, waiting;
    int32_t reading, stop_at; /* cass_slot_load(): the bucket whose state is read, the one not to read again */
    bool settled;             /* it is cass_slot_load_settled() */

    union {
        struct {
            struct history_chat chat;
            uint8_t client[16];
            bool has_client;
            struct uuid standing; /* the chat that has the client id already */
            bool has_row, takes;  /* it is complete; it is deleted, and this one takes its place */
            bool made;            /* the bucket */
        } create;
        struct {
            uint8_t client_hash[16];
            struct uuid head, claim; /* claim: its key in the partition */
            uint64_t hint;           /* the caller's guess of `change`, for the first write alone */
            bool looked;             /* in the buckets before the current one … */
            int32_t looked_at;       /* … when this was the current one */
        } accept;
        struct {
            bool *skip;      /* rows[i] stands already */
            bool is_delete;  /* one of them deletes the turn */
            size_t erase_at; /* index of the bucket whose texts are next */
        } append;
        struct {
            struct uuid chat, turn; /* user too: the id that the operation is about */
            struct history_range range;
            uint64_t since;
            size_t bucket_at; /* index of the one that is being read */
            uint64_t change;  /* what is shown: the chat as of this change */
            struct uuid *turns;
            size_t turns_n, turns_cap, turns_at;
            struct uuid low, high; /* exclusive bounds of the query */
            size_t in_bucket;      /* turns of this bucket so far, and the last of them */
            struct uuid last;
            size_t from, n; /* of the sorted rows: what is handed out */
        } read;
        struct {
            enum seal_owner owner;
            char id[HISTORY_KEY_ID_MAX + 1];
        } key;
        struct {
            size_t at;
            unsigned tries;
        } admin;
    } in;
    struct turn_row *rows; /* owned, with their sealed texts in the same block: create, append, accept */
    size_t rows_n;

    struct {        /* of a chat that is deleted, whatever the operation was begun for */
        bool asked; /* this is chat_delete */
        struct uuid user;
        char character[CHARACTER_ID_MAX + 1];
        size_t at; /* index of the bucket that is next */
    } gone;

    /* a month's roll-over */
    int32_t month;
    op_step *month_then;

    /* cass_read_turn() */
    struct uuid turn;
    op_step *turn_then;
    size_t turn_from, turn_end; /* the buckets that are read: from the turn's month to … */
    int32_t turn_at;            /* … the current one as it was when it began */
    bool turn_settled;          /* that one's rows came, and it was current still */

    int32_t page_size;    /* of the next cass_op_send(); 0: the client's */
    struct buf paging;    /* of the next page; empty: the first */
    struct buf list, ids; /* lists in wire form */

    bool mine, more;
    uint64_t change;
    struct history_chat chat;
    struct history_chat *chats; /* owned: those found, and from chats_n on the ones being looked up */
    bool *chats_ok;
    size_t chats_n, list_at, looking; /* of the page that is looked up: where it begins, how many */
    size_t parts;                     /* operations of ours that are under way */
    size_t part;                      /* which of the parent's this is */
    struct history_accepted accepted;
    struct row_set set;
    uint8_t wrapped[SEAL_WRAPPED_MAX]; /* key: in and out */
    size_t wrapped_len;
    struct service_report report;
};

struct cassandra_history {
    struct history base; /* first */
    struct loop *loop;
    struct cql *cql;
    struct history_poll *poll;
    struct loop_timer *timer;
    struct history_op *ops;
    size_t ops_n;
    bool closing;
    uint64_t timeout_ms, reconnections;
    struct url url;
    char hosts[128]; /* for messages */
    uint32_t replication;

    struct chat_slot **table; /* by chat */
    struct chat_slot *newest, *oldest;
    size_t slots;
};

/* A new operation that will begin() on the loop; a part of another one has a parent.  TR_NOMEM, TR_BUSY, TR_CANCELLED. */
enum tr_rc cass_op_new(struct cassandra_history *h, op_step *begin,
                       void (*deliver)(struct history_op *op, enum tr_rc rc, const struct tr_err *err), void *ctx,
                       struct history_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
void cass_op_start(struct history_op *op, struct tr_op **ret_op);
void cass_op_free(struct history_op *op); /* one that was not started */
/* End it: calls back, and frees it once nothing of it is to come. */
void cass_op_end(struct history_op *op, enum tr_rc rc, const char *fmt, ...) TR_PRINTF(3, 4);
/*
 * Send one statement, or several as one batch; the answer goes to on_answer, unless the operation has ended by then.  One
 * that failed ends the operation.  `op` may have ended when this returns only if it had before.
 */
void cass_op_send(struct history_op *op, const struct call *calls, size_t n, bool write, op_answer *on_answer);
/* The same with pages: the answer's next page, where cql_paging() says that there is one. */
bool cass_op_next_page(struct history_op *op, const struct cql_rows *rows);
/* An unprepared one. */
void cass_op_send_text(struct history_op *op, const char *text, bool write, op_answer *on_answer);
/* It has ended: free it if nothing of it is to come. */
void cass_op_drop(struct history_op *op);
/* Listen to the client and watch the deadlines. */
enum tr_rc cass_ops_listen(struct cassandra_history *h, struct tr_err *err) TR_MUST_CHECK;
void cass_ops_close(struct cassandra_history *h); /* ends all, and the client */

/* ---- what operations begin with ---- */
void cass_begin_chat_create(struct history_op *op);
void cass_begin_chat_get(struct history_op *op);
void cass_begin_chats_of_user(struct history_op *op);
void cass_begin_chat_delete(struct history_op *op);
void cass_begin_accept(struct history_op *op);
void cass_begin_append(struct history_op *op);
void cass_begin_turn_get(struct history_op *op);
void cass_begin_turns(struct history_op *op);
void cass_begin_changed(struct history_op *op);
void cass_begin_key_put(struct history_op *op);
void cass_begin_key_get(struct history_op *op);
void cass_begin_init(struct history_op *op);
void cass_begin_check(struct history_op *op);

/* history_month.c: make `op->month` the chat's current bucket (or find a later one), then step. */
void cass_month_enter(struct history_op *op, int32_t month, op_step *then);
/* history_erase.c: the texts of all rows of the turn, in all buckets; then the operation ends well. */
void cass_erase_turn(struct history_op *op, const struct uuid *turn);
/* Rows that are about to be handed out: the words of deleted turns that are still there go, by operations of their own. */
void cass_erase_left(struct history_op *op);
/* history_gone.c: the chat is deleted: what is left of it goes; then the operation ends with TR_NOT_FOUND. */
void cass_chat_gone(struct history_op *op);
/* A bucket and all its rows, for good. */
void cass_call_forget(struct call c[2], const struct uuid *chat, int32_t bucket);
/* history_read.c: all rows of a turn, from its month to the current bucket, into op->set; then step. */
void cass_read_turn(struct history_op *op, const struct uuid *turn, op_step *then);
void cass_chat_of_slot(const struct chat_slot *slot, struct history_chat *ret_chat);

#endif
