/* queue_impl - what queue.c (operations), queue_deliver.c (memory) and queue_store.c (disk) share.  For them alone. */
#ifndef ADAPTER_SQLITE_QUEUE_IMPL_H
#define ADAPTER_SQLITE_QUEUE_IMPL_H

#include "adapter/sqlite/db.h"
#include "base/loop.h"
#include "base/offload.h"
#include "port/queue.h"

#include <uthash.h>

#define SQ_LENGTH_DEFAULT 100000             /* messages a queue */
#define SQ_BODY_MAX ((size_t)16 << 20)       /* bytes a message */
#define SQ_BYTES_MAX ((size_t)768 << 20)     /* of all durable messages */
#define SQ_TRANSIENT_MAX ((size_t)128 << 20) /* of all transient ones */
#define SQ_DEADLINE_MS 10000
#define SQ_PATIENCE_MS 20 /* how long a patient publish may wait for its batch */
#define SQ_DEAD_KEPT 10000

struct sq_op;
struct sq_batch;

enum sq_place {
    SQ_READY,   /* in its queue's ready list */
    SQ_DELAYED, /* in the heap of delayed messages */
    SQ_IN_HAND, /* delivered, in its queue's list of those */
    SQ_GONE,    /* settled; kept only until the disk knows, or for a batch that still reads its body */
};

/* One message; to the port: a delivery. */
struct queue_delivery {
    uint64_t id;                     /* order of publishing; the row's key */
    struct sq_queue *queue;          /* NULL once SQ_GONE */
    struct queue_consumer *consumer; /* SQ_IN_HAND: who counts it; NULL: that one has stopped */
    struct queue_delivery *prev, *next;
    struct queue_delivery *change_next;
    struct sq_op *op;    /* the publisher that waits, or NULL */
    char *dead_note;     /* owned; to be moved to the dead ones: "queue\0cause" */
    uint64_t due_ms;     /* SQ_DELAYED: loop's clock */
    uint64_t not_before; /* wall clock, as on disk; 0: at once */
    uint64_t
        unhurried_ms; /* loop's clock: its insert may wait until then, and will be needless if it is settled; 0: no */
    size_t heap_at;
    uint32_t queue_id, attempts;
    enum sq_place place;
    bool transient;
    bool saved;    /* there is a row, or may be one */
    bool writing;  /* the batch under way reads it */
    bool changed;  /* in the list of changes */
    bool rewrite;  /* attempts or not_before differ from the row */
    bool again;    /* a consumer had it, or may have had it in a process before this one */
    bool unwanted; /* its publisher was told that it did not land: never put back */
    size_t len;
    uint8_t body[];
};

struct sq_list {
    struct queue_delivery *first, *last;
    size_t n;
};

struct queue_consumer {
    struct sq_queue *queue;
    struct queue_consumer *prev, *next;
    uint32_t prefetch, in_hand;
    bool stopped;
    queue_on_message *on_message;
    void *ctx;
};

struct sq_queue {
    UT_hash_handle hh; /* by name */
    char name[QUEUE_NAME_MAX + 1];
    uint32_t id;
    enum queue_kind kind;
    bool single_active, unsaved, scheduled;
    uint64_t max_length;
    struct sq_list ready, in_hand;
    size_t delayed;
    struct queue_consumer *consumers, *turn; /* turn: who is asked first for the next message */
    struct sq_queue *next;                   /* in the list of those to deliver, or of removed ones */
    bool removed;
};

/* An operation of a caller. */
struct sq_op {
    struct tr_op op; /* first */
    struct sqlite_queue *s;
    struct sq_op *prev, *next; /* all of them, oldest first: deadlines ascend */
    struct sq_op *later;       /* in the list of those to be answered by the pump; in the pool */
    queue_done *done;
    queue_length_done *length_done;
    void *ctx;
    uint64_t deadline_ms, length, batch; /* batch: the number of the one it waits for, 0: none */
    struct queue_delivery *message;      /* publish */
    const char *text;                    /* static: what went wrong */
    bool settled;                        /* its message was settled before it was written */
    enum tr_rc rc;
    bool deferred; /* rc stands; the pump will answer */
};

struct sqlite_queue {
    struct queue base; /* first */
    struct loop *loop;
    struct db *db; /* the offload's, while that runs */
    struct offload *offload;
    bool closing;

    struct sq_queue *queues;
    uint32_t queue_id_last;
    uint64_t id_last;
    size_t bytes, transient_bytes;

    struct loop_call pump; /* delivers, answers, starts batches */
    bool pump_posted, delivering;
    struct sq_queue *todo_first, *todo_last;
    struct sq_queue *removed;       /* freed when no delivery is under way */
    struct queue_consumer *stopped; /* likewise */
    struct sq_op *later_first, *later_last;
    struct sq_op *ops_first, *ops_last, *ops_pool;
    size_t pool_n, waiting_n; /* waiting_n: ops that wait for a batch as a whole */

    struct queue_delivery **heap;
    size_t heap_n, heap_cap;
    struct loop_timer *delay_timer, *sweep_timer, *flush_timer;

    struct queue_delivery *changes_first, *changes_last;
    size_t changes_n;
    uint32_t *drops; /* ids of removed queues that the disk still has */
    size_t drops_n;
    bool admin;     /* a queue is unsaved, or there are drops */
    bool urgent;    /* somebody waits for the changes */
    bool flush_set; /* flush_timer runs */
    bool paused;    /* the last batch failed: wait for flush_timer */
    struct sq_batch *running;
    uint64_t batch_last; /* number of the newest one */
};

/* queue.c: operations */
struct sq_op *sq_op_new(struct sqlite_queue *s, queue_done *done, void *ctx);
void sq_op_answer(struct sq_op *op, enum tr_rc rc, const struct tr_err *err); /* now; the op is gone */
void sq_op_later(struct sq_op *op, enum tr_rc rc, const char *text);          /* by the pump */

/* queue_deliver.c: lists, consumers, delays, the pump */
void sq_pump_post(struct sqlite_queue *s);
void sq_on_pump(struct loop_call *call);
void sq_schedule(struct sqlite_queue *s, struct sq_queue *queue);
void sq_append(struct sqlite_queue *s, struct queue_delivery *m);   /* to the ready list's end */
void sq_put_back(struct sqlite_queue *s, struct queue_delivery *m); /* to its old place in the ready list */
enum tr_rc sq_delay(struct sqlite_queue *s, struct queue_delivery *m, uint64_t delay_ms) TR_MUST_CHECK;
void sq_unlink(struct sqlite_queue *s, struct queue_delivery *m); /* out of wherever it is; in nothing after it */
void sq_message_free(struct sqlite_queue *s, struct queue_delivery *m);
void sq_on_delay_timer(void *ctx);
void sq_bury(struct sqlite_queue *s); /* free stopped consumers and removed queues; not while delivering */
void sq_queue_drop(struct sqlite_queue *s, struct sq_queue *queue); /* forget and free it with its transient messages */
static inline size_t sq_length(const struct sq_queue *queue)
{
    return queue->ready.n + queue->in_hand.n + queue->delayed;
}

/* queue_store.c: what goes to disk */
/* Read all back; the numbers of the statements that select the queues and the messages. */
enum tr_rc sq_read(struct sqlite_queue *s, size_t sql_queues, size_t sql_messages, struct tr_err *err) TR_MUST_CHECK;
enum tr_rc sq_store_open(struct sqlite_queue *s, const char *path, struct tr_err *err) TR_MUST_CHECK;
void sq_changed(struct sqlite_queue *s, struct queue_delivery *m, bool urgent);
void sq_flush(struct sqlite_queue *s); /* start a batch if one is due and none is under way */
void sq_on_flush_timer(void *ctx);
void sq_store_close(struct sqlite_queue *s); /* write what is left, then close the file */

#endif
