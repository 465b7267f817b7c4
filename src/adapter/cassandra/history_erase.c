/*
 * history_erase - a deleted turn's words.  Its deletion stands already, so that no row is added any more: the rows are read, and
 * the texts of each bucket go by one conditional batch, whose condition (`next` is what it is) only says that the chat lives and
 * keeps it from mixing plain writes into rows that Paxos wrote.
 *
 * A process that is killed between the two leaves a deletion with words.  Whoever reads such a turn has the words erased, by an
 * operation that nobody waits for; whoever issues the deletion again waits for it.
 */
#include "adapter/cassandra/history_impl.h"

#include "base/fault.h"

#include <stdlib.h>

#define LEFT_MAX 16 /* turns that one read has erased; the next read finds the others */

static void erase_next(struct history_op *op);

static void erase_again(struct history_op *op)
{
    cass_erase_turn(op, &op->turn);
}

static void on_erased(struct history_op *op, const struct cql_rows *rows)
{
    if (!cass_was_applied(rows)) {
        cass_slot_load(op, erase_again); /* the month has turned, or the chat is deleted */
        return;
    }
    fault_point("turn_delete.bucket");
    op->in.append.erase_at++;
    erase_next(op);
}

static void erase_bucket(struct history_op *op, int32_t bucket, int32_t next)
{
    struct call *c = malloc((1 + op->set.n) * sizeof *c);
    size_t n = 1;

    if (c == NULL) {
        cass_op_end(op, TR_NOMEM, "history: batch");
        return;
    }
    cass_call_init(&c[0], ST_CLOSED);
    for (int i = 0; i < 2; i++) { /* set to it, and only if it is so */
        if (next != 0)
            cass_arg_i32(&c[0], next);
        else
            cass_arg_none(&c[0], CQL_NULL);
        if (i == 0) {
            cass_arg_uuid(&c[0], &op->slot->chat);
            cass_arg_i32(&c[0], bucket);
        }
    }
    for (size_t i = 0; i < op->set.n; i++) {
        const struct turn_row *row = &op->set.rows[i];

        if (row->sealed_len == 0)
            continue;
        cass_call_init(&c[n], ST_ROW_ERASE);
        cass_arg_uuid(&c[n], &op->slot->chat);
        cass_arg_i32(&c[n], bucket);
        cass_arg_uuid(&c[n], &row->turn);
        cass_arg_i32(&c[n], row->part);
        cass_arg_i32(&c[n], row->rev);
        n++;
    }
    cass_op_send(op, c, n, true, on_erased);
    free(c);
}

static void erase_next(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    const size_t at = op->in.append.erase_at;
    bool words = false;

    for (size_t i = 0; i < op->set.n; i++)
        words = words || op->set.rows[i].sealed_len > 0;
    if (!words || at >= slot->buckets_n || slot->buckets[at] > slot->current)
        cass_op_end(op, TR_OK, NULL);
    else
        erase_bucket(op, slot->buckets[at], slot->buckets[at] < slot->current ? slot->buckets[at + 1] : 0);
}

static void erase_judge(struct history_op *op)
{
    const int32_t month = cass_bucket(&op->turn);
    size_t at = 0;

    while (at < op->slot->buckets_n && op->slot->buckets[at] < month)
        at++;
    op->in.append.erase_at = at;
    erase_next(op);
}

void cass_erase_turn(struct history_op *op, const struct uuid *turn)
{
    op->wrote = true;
    fault_point("turn_delete.marked");
    cass_read_turn(op, turn, erase_judge);
}

/* ---- words that were left */

static void on_left_erased(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    (void)op, (void)rc, (void)err; /* who reads the turn next finds what is left */
}

static void left_loaded(struct history_op *op)
{
    cass_erase_turn(op, &op->turn);
}

static void left_begin(struct history_op *op)
{
    cass_slot_need(op, left_loaded);
}

static void erase_left_turn(struct cassandra_history *h, const struct uuid *chat, const struct uuid *turn)
{
    struct history_op *op = NULL;

    if (cass_op_new(h, left_begin, on_left_erased, NULL, &op, NULL) != TR_OK)
        return;
    op->kind = OP_APPEND;
    op->turn = *turn;
    op->slot = cass_slot_get(h, chat);
    if (op->slot == NULL)
        cass_op_free(op);
    else
        cass_op_start(op, NULL);
}

void cass_erase_left(struct history_op *op)
{
    const struct row_set *set = &op->set;
    size_t begun = 0;

    for (size_t from = 0, to; from < set->n && begun < LEFT_MAX; from = to) {
        bool deleted = false, words = false;

        for (to = from; to < set->n && uuid_eq(&set->rows[to].turn, &set->rows[from].turn); to++) {
            deleted = deleted || (set->rows[to].part == PART_STATE && set->rows[to].event == TURN_EVENT_DELETE);
            words = words || set->rows[to].sealed_len > 0;
        }
        if (!deleted || !words)
            continue;
        erase_left_turn(op->owner, &op->slot->chat, &set->rows[from].turn);
        begun++;
    }
}
