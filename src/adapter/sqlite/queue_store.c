/*
 * queue_store - the broker's disk side: changes are collected on the loop and written by the offload, a transaction a
 * batch (group commit).  While one is committed the next collects.
 *
 *   A message in the list of changes, when a batch is made of it:
 *     alive, no row          -> INSERT
 *     alive, row, rewrite    -> UPDATE of attempts and not_before
 *     gone, no row           -> nothing: it never touches the disk
 *     a patient publish      -> stays in the list for SQ_PATIENCE_MS: mostly it is gone by then
 *     gone, row              -> DELETE
 *     gone, with a dead_note -> INSERT into dead, and DELETE where there is a row
 *
 *   A batch that fails is rolled back as a whole: its inserts are given up and their publishers told so, all else goes
 *   back into the list and is tried again after RETRY_MS, so that the queue mends itself when the disk has room.
 *   Where nobody knows whether it landed (a failed sync) an insert stays, to be written over a row that may be there.
 *
 * The offload reads a batch's bodies, and nothing else of a message: `writing` keeps those alive.
 */
#include "adapter/sqlite/queue_impl.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LAZY_MS 10     /* changes nobody waits for are collected this long */
#define RETRY_MS 100   /* after a failed batch */
#define LAZY_MAX 1000  /* or until there are so many */
#define BATCH_MAX 4000 /* changes a batch */
#define BATCH_BYTES (8u << 20)

static const char schema[] =
    "CREATE TABLE queue(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, max_length INTEGER NOT NULL,"
    " single_active INTEGER NOT NULL);"
    "CREATE TABLE message(id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, attempts INTEGER NOT NULL,"
    " not_before INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE TABLE dead(id INTEGER PRIMARY KEY, queue TEXT NOT NULL, cause TEXT NOT NULL, attempts INTEGER NOT NULL,"
    " died_ms INTEGER NOT NULL, body BLOB NOT NULL);";

enum {
    Q_QUEUE_PUT,
    Q_QUEUE_DROP,
    Q_INSERT,
    Q_UPDATE,
    Q_DELETE,
    Q_DEAD,
    Q_DEAD_TRIM,
    Q_QUEUES,
    Q_ORPHANS,
    Q_MESSAGES,
    Q_COUNT
};
static const char *const sql[Q_COUNT] = {
    [Q_QUEUE_PUT] = "INSERT OR REPLACE INTO queue(id, name, max_length, single_active) VALUES(?1, ?2, ?3, ?4)",
    [Q_QUEUE_DROP] = "DELETE FROM queue WHERE id = ?1",
    [Q_INSERT] = "INSERT OR REPLACE INTO message(id, queue, attempts, not_before, body) VALUES(?1, ?2, ?3, ?4, ?5)",
    [Q_UPDATE] = "UPDATE message SET attempts = ?2, not_before = ?3 WHERE id = ?1",
    [Q_DELETE] = "DELETE FROM message WHERE id = ?1",
    [Q_DEAD] = "INSERT INTO dead(queue, cause, attempts, died_ms, body) VALUES(?1, ?2, ?3, ?4, ?5)",
    [Q_DEAD_TRIM] = "DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?1",
    [Q_QUEUES] = "SELECT id, name, max_length, single_active FROM queue",
    [Q_ORPHANS] = "DELETE FROM message WHERE queue NOT IN (SELECT id FROM queue)",
    [Q_MESSAGES] = "SELECT id, queue, attempts, not_before, body FROM message ORDER BY id",
};

/* One change, copied out of the message, so that the loop may go on changing that. */
struct change {
    struct queue_delivery *m; /* its id, body and dead_note stay as they are while it is `writing` */
    uint64_t not_before;
    uint32_t attempts;
    bool insert, update, erase, dead;
};

struct sq_batch {
    struct offload_job job; /* first */
    struct sqlite_queue *s; /* the offload uses s->db alone */
    uint64_t number;
    struct sq_queue *queues; /* copies of the unsaved ones, linked by next */
    uint32_t *drops;
    size_t drops_n, n;
    struct change change[];
};

static enum tr_rc put_queue(struct db *db, const struct sq_queue *queue, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(db, Q_QUEUE_PUT, err);

    if (stmt == NULL)
        return err->rc;
    db_bind_u64(stmt, 1, queue->id);
    db_bind_text(stmt, 2, queue->name);
    db_bind_u64(stmt, 3, queue->max_length);
    db_bind_u64(stmt, 4, queue->single_active);
    return db_run(db, stmt, err);
}

/* A statement whose only value is a number. */
static enum tr_rc run_u64(struct db *db, size_t i, uint64_t v, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(db, i, err);

    if (stmt == NULL)
        return err->rc;
    db_bind_u64(stmt, 1, v);
    return db_run(db, stmt, err);
}

static enum tr_rc insert_message(struct db *db, const struct change *c, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(db, Q_INSERT, err);

    if (stmt == NULL)
        return err->rc;
    db_bind_u64(stmt, 1, c->m->id);
    db_bind_u64(stmt, 2, c->m->queue_id);
    db_bind_u64(stmt, 3, c->attempts);
    db_bind_u64(stmt, 4, c->not_before);
    db_bind_slice(stmt, 5, (struct slice){c->m->body, c->m->len});
    return db_run(db, stmt, err);
}

static enum tr_rc update_message(struct db *db, const struct change *c, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(db, Q_UPDATE, err);

    if (stmt == NULL)
        return err->rc;
    db_bind_u64(stmt, 1, c->m->id);
    db_bind_u64(stmt, 2, c->attempts);
    db_bind_u64(stmt, 3, c->not_before);
    return db_run(db, stmt, err);
}

static enum tr_rc bury_message(struct db *db, const struct change *c, struct tr_err *err)
{
    const char *queue = c->m->dead_note;
    sqlite3_stmt *stmt = db_stmt(db, Q_DEAD, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    db_bind_text(stmt, 1, queue);
    db_bind_text(stmt, 2, queue + strlen(queue) + 1);
    db_bind_u64(stmt, 3, c->attempts);
    db_bind_u64(stmt, 4, wall_ms());
    db_bind_slice(stmt, 5, (struct slice){c->m->body, c->m->len});
    rc = db_run(db, stmt, err);
    return rc == TR_OK ? run_u64(db, Q_DEAD_TRIM, SQ_DEAD_KEPT, err) : rc;
}

static enum tr_rc write_all(struct db *db, const struct sq_batch *b, struct tr_err *err)
{
    enum tr_rc rc = TR_OK;

    for (size_t i = 0; rc == TR_OK && i < b->drops_n; i++)
        rc = run_u64(db, Q_QUEUE_DROP, b->drops[i], err);
    for (const struct sq_queue *queue = b->queues; rc == TR_OK && queue != NULL; queue = queue->next)
        rc = put_queue(db, queue, err);
    for (size_t i = 0; rc == TR_OK && i < b->n; i++) {
        const struct change *c = &b->change[i];

        if (c->insert)
            rc = insert_message(db, c, err);
        else if (c->update)
            rc = update_message(db, c, err);
        if (rc == TR_OK && c->dead)
            rc = bury_message(db, c, err);
        if (rc == TR_OK && c->erase)
            rc = run_u64(db, Q_DELETE, c->m->id, err);
    }
    return rc;
}

/* On the offload's thread. */
static enum tr_rc batch_work(struct offload_job *job, void *state)
{
    struct sq_batch *b = (struct sq_batch *)job;
    struct db *db = b->s->db;
    enum tr_rc rc = db_begin(db, &job->err);

    (void)state;
    if (rc == TR_OK) {
        rc = write_all(db, b, &job->err);
        if (rc == TR_OK)
            rc = db_commit(db, &job->err);
        else
            db_rollback(db);
    }
    /* A full disk: the log's own space can be used again once it is moved into the database. */
    if (rc != TR_OK)
        sqlite3_wal_checkpoint_v2(db_handle(db), NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
    return rc;
}

static void add_change(struct sqlite_queue *s, struct queue_delivery *m)
{
    m->changed = true;
    m->change_next = NULL;
    if (s->changes_first == NULL)
        s->changes_first = m;
    else
        s->changes_last->change_next = m;
    s->changes_last = m;
    s->changes_n++;
}

void sq_changed(struct sqlite_queue *s, struct queue_delivery *m, bool urgent)
{
    if (urgent && !s->urgent) {
        s->urgent = true;
        sq_pump_post(s);
    }
    if (m->changed)
        return;
    add_change(s, m);
    if (!s->urgent && s->running == NULL && !s->flush_set && !s->closing) {
        s->flush_set = true;
        timer_again(s->flush_timer, LAZY_MS);
    }
    if (!s->urgent && s->changes_n >= LAZY_MAX) {
        s->urgent = true;
        sq_pump_post(s);
    }
}

static struct queue_delivery *take_change(struct sqlite_queue *s)
{
    struct queue_delivery *m = s->changes_first;

    s->changes_first = m->change_next;
    if (s->changes_first == NULL)
        s->changes_last = NULL;
    s->changes_n--;
    m->change_next = NULL;
    m->changed = false;
    return m;
}

/* Back to the list's end: its insert may still turn out to be needless. */
static bool put_off(struct sqlite_queue *s, struct queue_delivery *m, uint64_t now)
{
    if (m->unhurried_ms <= now || m->place == SQ_GONE || m->saved || s->closing || s->changes_n >= LAZY_MAX)
        return false;
    add_change(s, m);
    return true;
}

/* What is to be done about a message; false: nothing, and it may be gone for good. */
static bool make_change(struct sqlite_queue *s, struct queue_delivery *m, struct change *c)
{
    const bool gone = m->place == SQ_GONE;

    *c = (struct change){.m = m, .attempts = m->attempts, .not_before = m->not_before};
    c->insert = !gone && !m->saved && !m->unwanted;
    c->update = !gone && m->saved && m->rewrite;
    c->dead = gone && m->dead_note != NULL;
    c->erase = gone && m->saved;
    m->rewrite = false;
    if (c->insert || c->update || c->dead || c->erase) {
        m->writing = true;
        return true;
    }
    if (m->op != NULL)
        sq_op_later(m->op, TR_OK, NULL); /* settled before it came to be written */
    if (gone)
        sq_message_free(s, m);
    return false;
}

static void batch_free(struct sq_batch *b)
{
    while (b->queues != NULL) {
        struct sq_queue *queue = b->queues;

        b->queues = queue->next;
        free(queue);
    }
    free(b->drops);
    free(b);
}

/* Copies of the unsaved queues and the removed ones' ids go along. */
static bool add_admin(struct sqlite_queue *s, struct sq_batch *b)
{
    struct sq_queue *queue, *tmp;

    HASH_ITER (hh, s->queues, queue, tmp) {
        struct sq_queue *copy = queue->unsaved ? malloc(sizeof *copy) : NULL;

        if (!queue->unsaved)
            continue;
        if (copy == NULL)
            return false;
        *copy = *queue;
        copy->next = b->queues;
        b->queues = copy;
    }
    for (queue = b->queues; queue != NULL; queue = queue->next) {
        struct sq_queue *original;

        HASH_FIND_STR(s->queues, queue->name, original);
        original->unsaved = false;
    }
    b->drops = s->drops;
    b->drops_n = s->drops_n;
    s->drops = NULL;
    s->drops_n = 0;
    s->admin = false;
    return true;
}

/* A batch of what is waiting; NULL: nothing to write now, or no memory for it (*ret_nomem). */
static struct sq_batch *batch_new(struct sqlite_queue *s, bool *ret_nomem)
{
    const size_t max = s->changes_n < BATCH_MAX || s->closing ? s->changes_n : BATCH_MAX;
    struct sq_batch *b = malloc(sizeof *b + max * sizeof b->change[0]);
    const uint64_t now = loop_now_ms(s->loop);
    size_t bytes = 0, look = s->changes_n;

    *ret_nomem = true;
    if (b == NULL)
        return NULL;
    *b = (struct sq_batch){.s = s};
    if (s->admin && !add_admin(s, b)) {
        batch_free(b);
        return NULL;
    }
    *ret_nomem = false;
    b->number = ++s->batch_last;
    for (; look > 0 && b->n < max && (bytes < BATCH_BYTES || s->closing); look--) {
        struct queue_delivery *m = take_change(s);
        const size_t len = m->len;

        if (!put_off(s, m, now) && make_change(s, m, &b->change[b->n])) {
            bytes += len;
            b->n++;
        }
    }
    s->urgent = look > 0; /* the batch is full */
    if (b->n == 0 && b->queues == NULL && b->drops_n == 0) {
        batch_free(b);
        return NULL;
    }
    return b;
}

/* Everything that the failed batch was to do, but for its inserts, is to be done again. */
static void admin_again(struct sqlite_queue *s, struct sq_batch *b)
{
    uint32_t *drops;

    for (const struct sq_queue *copy = b->queues; copy != NULL; copy = copy->next) {
        struct sq_queue *queue;

        HASH_FIND_STR(s->queues, copy->name, queue);
        if (queue != NULL && queue->id == copy->id)
            queue->unsaved = s->admin = true;
    }
    if (b->drops_n == 0)
        return;
    drops = realloc(s->drops, (s->drops_n + b->drops_n) * sizeof *drops);
    if (drops == NULL)
        return; /* an empty queue comes back at the next start: harmless */
    memcpy(drops + s->drops_n, b->drops, b->drops_n * sizeof *drops);
    s->drops = drops;
    s->drops_n += b->drops_n;
    s->admin = true;
}

static void change_failed(struct sqlite_queue *s, const struct change *c, enum tr_rc rc)
{
    struct queue_delivery *m = c->m;

    if (!c->insert) {
        m->rewrite = m->rewrite || c->update;
        sq_changed(s, m, false);
        return;
    }
    if (rc == TR_UNCERTAIN) {
        m->saved = m->place == SQ_GONE; /* then to be deleted, else to be written (again) */
        sq_changed(s, m, false);
        return;
    }
    if (m->place == SQ_IN_HAND) {
        m->unwanted = true;
        return;
    }
    sq_unlink(s, m);
    m->queue = NULL;
    m->place = SQ_GONE;
    if (!m->changed)
        sq_message_free(s, m);
}

static void change_done(struct sqlite_queue *s, const struct change *c)
{
    struct queue_delivery *m = c->m;

    if (c->insert)
        m->saved = true;
    if (c->dead || c->erase) {
        assert(!m->changed);
        sq_message_free(s, m);
    } else if (m->place == SQ_GONE || m->rewrite) {
        sq_changed(s, m, false); /* settled or put back meanwhile */
    }
}

/* Take the callers off a batch's changes, and chain them to be answered when all is in order again. */
static struct sq_op *take_ops(struct sqlite_queue *s, struct sq_batch *b)
{
    struct sq_op *first = NULL, **last = &first, *op;

    for (size_t i = 0; i < b->n; i++) {
        op = b->change[i].m->op;
        b->change[i].m->writing = false;
        if (op == NULL)
            continue;
        if (b->change[i].m->place == SQ_GONE)
            op->settled = true; /* it has had its effect, whatever became of the row */
        op->message->op = NULL;
        op->message = NULL;
        *last = op;
        last = &op->later;
    }
    for (op = s->ops_first; s->waiting_n > 0 && op != NULL; op = op->next) {
        if (op->batch != b->number)
            continue;
        *last = op;
        last = &op->later;
    }
    *last = NULL;
    for (op = first; op != NULL; op = op->later)
        op->deferred = true; /* its answer is on its way */
    return first;
}

static void on_batch_done(struct offload_job *job, enum tr_rc rc, const struct tr_err *err)
{
    struct sq_batch *b = (struct sq_batch *)job;
    struct sqlite_queue *s = b->s;
    struct sq_op *op = take_ops(s, b);

    s->running = NULL;
    if (rc != TR_OK) {
        if (log_on(LOG_DEBUG))
            log_event(LOG_DEBUG, "queue.batch_failed", "rc=%s changes=%zu cause=%Q", tr_rc_name(rc), b->n,
                      tr_err_text(err));
        s->paused = true;
        admin_again(s, b);
    }
    for (size_t i = 0; i < b->n; i++) {
        if (rc == TR_OK)
            change_done(s, &b->change[i]);
        else
            change_failed(s, &b->change[i], rc);
    }
    if (!s->closing) {
        if (s->paused || (s->changes_n > 0 && !s->urgent && !s->flush_set)) {
            s->flush_set = true;
            timer_again(s->flush_timer, s->paused ? RETRY_MS : LAZY_MS);
        }
        sq_flush(s); /* before the callbacks: the disk works while we do */
    }
    while (op != NULL) {
        struct sq_op *next = op->later;

        sq_op_answer(op, op->settled ? TR_OK : rc, err);
        op = next;
    }
}

static void on_batch_release(struct offload_job *job)
{
    batch_free((struct sq_batch *)job);
}

void sq_flush(struct sqlite_queue *s)
{
    struct sq_batch *b;
    bool nomem;

    if (s->running != NULL || s->paused || s->closing || (!s->urgent && !s->admin))
        return;
    b = batch_new(s, &nomem);
    if (b == NULL) {
        s->urgent = false;
        s->paused = nomem; /* again after a pause */
        if (nomem || (s->changes_n > 0 && !s->flush_set)) {
            s->flush_set = true;
            timer_again(s->flush_timer, nomem ? RETRY_MS : LAZY_MS);
        }
        return;
    }
    b->job.work = batch_work;
    b->job.done = on_batch_done;
    b->job.release = on_batch_release;
    b->job.write = true;
    s->running = b;
    if (offload_submit(s->offload, &b->job) != TR_OK) { /* never: one batch at a time is far below its limit */
        const struct tr_err err = {.rc = TR_TRANSIENT, .msg = "the writer is busy"};

        on_batch_done(&b->job, TR_TRANSIENT, &err);
        batch_free(b);
    }
}

void sq_on_flush_timer(void *ctx)
{
    struct sqlite_queue *s = ctx;

    s->flush_set = s->paused = false;
    s->urgent = s->urgent || s->changes_n > 0;
    sq_flush(s);
}

enum tr_rc sq_store_open(struct sqlite_queue *s, const char *path, struct tr_err *err)
{
    const struct db_spec spec = {
        .path = path, .version = 1, .schema = schema, .sql = sql, .sql_n = Q_COUNT, .exclusive = true};
    sqlite3_stmt *stmt;
    struct tr_err own;
    enum tr_rc rc;

    if (err == NULL)
        err = &own;
    rc = db_open(&spec, &s->db, err);
    if (rc != TR_OK)
        return rc;
    stmt = db_stmt(s->db, Q_ORPHANS, err);
    rc = stmt == NULL ? err->rc : db_run(s->db, stmt, err);
    return rc == TR_OK ? sq_read(s, Q_QUEUES, Q_MESSAGES, err) : rc;
}

void sq_store_close(struct sqlite_queue *s)
{
    struct sq_batch *b;
    bool nomem;

    offload_stop(s->offload); /* the batch under way ends; on_batch_done() comes from in here */
    s->offload = NULL;
    if (s->db != NULL && (s->changes_n > 0 || s->admin) && (b = batch_new(s, &nomem)) != NULL) {
        const enum tr_rc rc = batch_work(&b->job, NULL); /* the thread is gone: the file is ours */

        on_batch_done(&b->job, rc, &b->job.err);
        batch_free(b);
    }
    while (s->changes_first != NULL) { /* what did not land: settled ones live in no other list */
        struct queue_delivery *m = take_change(s);

        if (m->place == SQ_GONE)
            sq_message_free(s, m);
    }
    db_close(s->db);
    s->db = NULL;
}
