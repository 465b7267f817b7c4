/*
 * history_month - from one month's bucket to the next: closed, listed, opened (history_schema.c tells why so).
 *
 *   the current bucket is of `month` or later       -> then
 *   it is of an earlier month, and open             -> close it; its state is final now
 *   it is closed                                    -> list the next one, open it with that state, and look again
 * Whoever meets a closed bucket goes on from there: each step is a conditional write that is harmless twice.
 */
#include "adapter/cassandra/history_impl.h"

static void look(struct history_op *op);

static void reload(struct history_op *op)
{
    cass_slot_load(op, look);
}

static void on_opened(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;

    if (!cass_was_applied(rows)) {
        reload(op); /* somebody else opened it, or the chat is deleted */
        return;
    }
    if (slot->current == op->reading) { /* as it was when this step began */
        const int32_t opened = slot->state.next;

        slot->state.base = slot->state.change;
        slot->state.next = 0;
        slot->current = opened;
    }
    look(op);
}

static void on_listed(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;
    struct call c;

    if (!cass_was_applied(rows)) {
        cass_chat_gone(op);
        return;
    }
    if (slot->current != op->reading || slot->state.next == 0) {
        look(op); /* a read of ours has seen more meanwhile */
        return;
    }
    cass_call_init(&c, ST_OPEN);
    cass_arg_uuid(&c, &slot->state.head);
    cass_arg_u64(&c, slot->state.index);
    cass_arg_u64(&c, slot->state.change);
    cass_arg_u64(&c, slot->state.updated_ms);
    cass_arg_u64(&c, slot->state.change);
    cass_arg_uuid(&c, &slot->chat);
    cass_arg_i32(&c, slot->state.next);
    cass_op_send(op, &c, 1, true, on_opened);
}

static void list_next(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    struct call c;

    if (!cass_slot_has_bucket(slot, slot->state.next)) {
        cass_op_end(op, TR_NOMEM, "history: buckets");
        return;
    }
    op->reading = slot->current;
    cass_wire_list_i32(&op->list, &slot->state.next, 1);
    cass_call_init(&c, ST_CHAT_BUCKET);
    cass_arg_bytes(&c, op->list.data, op->list.len);
    cass_arg_uuid(&c, &slot->chat);
    cass_op_send(op, &c, 1, true, on_listed);
}

static void on_closed(struct history_op *op, const struct cql_rows *rows)
{
    if (cass_was_applied(rows) && op->slot->current == op->reading)
        op->slot->state.next = op->month;
    else if (!cass_was_applied(rows)) {
        reload(op); /* written to meanwhile, closed by somebody else, or deleted */
        return;
    }
    look(op);
}

static void look(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    struct call c;

    if (slot->state.next != 0) {
        list_next(op);
        return;
    }
    if (slot->current >= op->month) {
        op->month_then(op);
        return;
    }
    op->reading = slot->current;
    cass_call_init(&c, ST_CLOSE);
    cass_arg_i32(&c, op->month);
    cass_arg_uuid(&c, &slot->chat);
    cass_arg_i32(&c, slot->current);
    cass_arg_uuid(&c, &slot->state.head);
    cass_arg_u64(&c, slot->state.change);
    cass_op_send(op, &c, 1, true, on_closed);
}

void cass_month_enter(struct history_op *op, int32_t month, op_step *then)
{
    op->month = month;
    op->month_then = then;
    look(op);
}
