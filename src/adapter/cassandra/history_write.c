/* history_write - accept and append: one conditional batch in the chat's current bucket (history_schema.c). */
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>
#include <string.h>

/* Of an answer "not applied": the state as it is; ends the operation where there is none to go on with. */
static bool take_state(struct history_op *op, const struct cql_rows *rows, struct history_state *ret_state,
                       op_step *again)
{
    struct history_state state;

    if (cql_rows(rows) == 0 || !cass_read_state(rows, 0, &state)) {
        cass_slot_forget(op->slot); /* nothing of this bucket is there: what was remembered is wrong */
        cass_slot_load(op, again);
        return false;
    }
    if (state.deleted) {
        cass_chat_gone(op);
        return false;
    }
    if (op->reading == op->slot->current)
        cass_slot_saw_state(op->slot, &state);
    *ret_state = state;
    return true;
}

/* ---- accept ---- */

static void accept_go(struct history_op *op);

static void accept_end(struct history_op *op, enum accept_outcome outcome, const struct uuid *turn)
{
    const struct history_state *state = &op->slot->state;

    op->accepted = (struct history_accepted){
        .outcome = outcome, .turn = *turn, .head = state->head, .index = state->index, .change = state->change};
    cass_op_end(op, TR_OK, NULL);
}

static void on_accepted(struct history_op *op, const struct cql_rows *rows)
{
    const struct turn_row *row = &op->rows[0];
    struct chat_slot *slot = op->slot;
    struct history_state state;

    if (cass_was_applied(rows)) {
        state = slot->state;
        state.exists = true;
        state.head = row->turn;
        state.index = row->index;
        state.change = op->change;
        state.updated_ms = row->created_ms;
        state.next = 0;
        if (slot->current == op->reading)
            cass_slot_saw_state(slot, &state);
        cass_slot_saw_turn(slot, &row->turn);
        op->accepted = (struct history_accepted){
            .outcome = ACCEPT_DONE, .turn = row->turn, .head = row->turn, .index = row->index, .change = op->change};
        cass_op_end(op, TR_OK, NULL);
        return;
    }
    if (!take_state(op, rows, &state, accept_go))
        return;
    for (size_t i = 0; i < cql_rows(rows); i++) {
        const struct cql_value claimed = cass_cell_named(rows, i, "claimed");
        const struct uuid turn = cass_cell_uuid(claimed);

        if (cass_cell_is_set(claimed)) {
            accept_end(op, ACCEPT_KNOWN, &turn);
            return;
        }
    }
    if (state.next == 0 && !uuid_eq(&state.head, &op->in.accept.head))
        accept_end(op, ACCEPT_MOVED, &uuid_nil);
    else if (state.next == 0 && state.change + 1 == op->change)
        cass_op_end(op, TR_TRANSIENT, "history: an accept that nothing speaks against was not applied");
    else
        accept_go(op); /* another change was the next, or the month has turned */
}

static void accept_write(struct history_op *op)
{
    const struct turn_row *row = &op->rows[0];
    struct chat_slot *slot = op->slot;
    uint64_t guess = slot->state.change;
    struct call c[3];

    /* the reply was another process' write: the caller has heard of it, this adapter has not */
    if (guess < op->in.accept.hint)
        guess = op->in.accept.hint;
    op->in.accept.hint = 0;
    op->change = guess + 1;
    op->reading = slot->current;
    cass_call_init(&c[0], ST_ADVANCE);
    cass_arg_uuid(&c[0], &row->turn);
    cass_arg_u64(&c[0], row->index);
    cass_arg_u64(&c[0], op->change);
    cass_arg_u64(&c[0], row->created_ms);
    cass_arg_uuid(&c[0], &row->chat);
    cass_arg_i32(&c[0], slot->current);
    cass_arg_uuid(&c[0], &op->in.accept.head);
    cass_arg_u64(&c[0], guess);
    cass_call_row(&c[1], ST_ROW, row, slot->current, op->change);
    cass_call_init(&c[2], ST_CLAIM);
    cass_arg_uuid(&c[2], &row->chat);
    cass_arg_i32(&c[2], slot->current);
    cass_arg_uuid(&c[2], &op->in.accept.claim);
    cass_arg_i32(&c[2], PART_CLAIM);
    cass_arg_i32(&c[2], 0);
    cass_arg_uuid(&c[2], &row->turn);
    cass_op_send(op, c, 3, true, on_accepted);
}

static void accept_known(struct history_op *op)
{
    accept_end(op, ACCEPT_KNOWN, &op->turn);
}

static void on_looked(struct history_op *op, const struct cql_rows *rows)
{
    for (size_t i = 0; i < cql_rows(rows); i++) {
        const struct cql_value claimed = cass_cell_named(rows, i, "claimed");

        if (cass_cell_is_set(claimed)) {
            op->turn = cass_cell_uuid(claimed);
            cass_slot_load(op, accept_known); /* the head as it is now goes with it */
            return;
        }
    }
    if (cass_op_next_page(op, rows)) {
        struct call c;

        cass_call_init(&c, ST_CLAIM_FIND);
        cass_arg_uuid(&c, &op->rows[0].chat);
        cass_arg_bytes(&c, op->list.data, op->list.len);
        cass_arg_uuid(&c, &op->in.accept.claim);
        cass_arg_i32(&c, PART_CLAIM);
        cass_op_send(op, &c, 1, false, on_looked);
        return;
    }
    op->in.accept.looked_at = op->reading;
    accept_go(op);
}

/* The client id in the buckets before the current one: they are closed, so what is not there never will be. */
static void accept_look(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    size_t n = slot->buckets_n;
    struct call c;

    while (n > 0 && slot->buckets[n - 1] >= slot->current)
        n--;
    if (n == 0 || op->in.accept.looked_at == slot->current) {
        accept_write(op);
        return;
    }
    op->reading = slot->current;
    cass_wire_list_i32(&op->list, slot->buckets, n);
    cass_call_init(&c, ST_CLAIM_FIND);
    cass_arg_uuid(&c, &slot->chat);
    cass_arg_bytes(&c, op->list.data, op->list.len);
    cass_arg_uuid(&c, &op->in.accept.claim);
    cass_arg_i32(&c, PART_CLAIM);
    cass_op_send(op, &c, 1, false, on_looked);
}

static void accept_go(struct history_op *op)
{
    cass_month_enter(op, cass_bucket(&op->rows[0].turn), accept_look);
}

static void accept_in_lane(struct history_op *op)
{
    cass_slot_need(op, accept_go);
}

void cass_begin_accept(struct history_op *op)
{
    op->in.accept.claim = cass_claim_key(op->in.accept.client_hash);
    cass_lane_enter(op, accept_in_lane);
}

/* ---- append ---- */

static void append_go(struct history_op *op);

/* Was it the writer of `row` that wrote `stands`? */
static bool is_mine(const struct turn_row *row, const struct turn_row *stands)
{
    const bool same_bytes = row->sealed_len == stands->sealed_len &&
                            (row->sealed_len == 0 || memcmp(row->sealed, stands->sealed, row->sealed_len) == 0);

    if (row->part >= PART_FIRST_VARIANT)
        return row->attempt == stands->attempt;
    if (row->attempt != 0 && row->attempt == stands->attempt)
        return true;
    return same_bytes && row->event == stands->event && row->variant == stands->variant && row->known == stands->known;
}

static const struct turn_row *find_row(const struct row_set *set, const struct turn_row *like)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->rows[i].part == like->part && set->rows[i].rev == like->rev &&
            uuid_eq(&set->rows[i].turn, &like->turn))
            return &set->rows[i];
    return NULL;
}

/* op->set is settled and holds the row that stands: it is the answer. */
static void append_standing(struct history_op *op, const struct turn_row *stands)
{
    const struct turn_row row = *stands;

    op->mine = is_mine(&op->rows[0], stands);
    op->change = stands->change;
    op->set.rows[0] = row; /* on_append hands out the first */
    op->set.n = 1;
    if (op->mine && op->in.append.is_delete)
        cass_erase_turn(op, &row.turn); /* it may not have come so far the first time */
    else
        cass_op_end(op, TR_OK, NULL);
}

static void on_appended(struct history_op *op, const struct cql_rows *rows)
{
    const struct turn_row *row = &op->rows[0], *stands;
    struct chat_slot *slot = op->slot;
    struct history_state state;
    struct tr_err err = {0};
    bool skipped = false, gone;

    if (cass_was_applied(rows)) {
        if (slot->current == op->reading && slot->state.change < op->change)
            slot->state.change = op->change;
        cass_slot_saw_turn(slot, &row->turn);
        op->mine = true;
        if (op->in.append.is_delete)
            cass_erase_turn(op, &row->turn);
        else
            cass_op_end(op, TR_OK, NULL);
        return;
    }
    if (!take_state(op, rows, &state, append_go))
        return;
    cass_row_set_release(&op->set);
    if (cass_row_set_read(&op->set, &row->chat, rows, UINT64_MAX, &err) != TR_OK) {
        cass_op_end(op, TR_NOMEM, "%s", err.msg);
        return;
    }
    cass_row_set_settle(&op->set);
    gone = cass_wire_map_has(cass_cell_named(rows, 0, "gone"), &row->turn);
    stands = find_row(&op->set, row);
    if (stands != NULL && (!gone || row->part == PART_STATE)) {
        append_standing(op, stands);
        return;
    }
    if (gone) {
        cass_op_end(op, TR_NOT_FOUND, "history: this turn is deleted"); /* late stores are dropped (contract 11.9) */
        return;
    }
    for (size_t i = 1; i < op->rows_n; i++)
        if (!op->in.append.skip[i] && find_row(&op->set, &op->rows[i]) != NULL)
            skipped = op->in.append.skip[i] = true;
    if (!skipped && state.next == 0 && state.change + 1 == op->change) {
        cass_op_end(op, TR_TRANSIENT, "history: an append that nothing speaks against was not applied");
        return;
    }
    append_go(op);
}

static void append_write(struct history_op *op)
{
    const struct turn_row *row = &op->rows[0];
    const bool is_delete = op->in.append.is_delete;
    struct chat_slot *slot = op->slot;
    struct call *c = malloc((1 + op->rows_n) * sizeof *c);
    size_t n = 1;

    if (c == NULL) {
        cass_op_end(op, TR_NOMEM, "history: batch");
        return;
    }
    op->change = slot->state.change + 1;
    op->reading = slot->current;
    cass_call_init(&c[0], is_delete ? ST_CHANGE_GONE : ST_CHANGE);
    cass_arg_u64(&c[0], op->change);
    if (is_delete)
        cass_arg_uuid(&c[0], &row->turn);
    cass_arg_uuid(&c[0], &row->chat);
    cass_arg_i32(&c[0], slot->current);
    cass_arg_u64(&c[0], slot->state.change);
    cass_arg_uuid(&c[0], &row->turn);
    for (size_t i = 0; i < op->rows_n; i++)
        if (!op->in.append.skip[i])
            cass_call_row(&c[n++], ST_ROW_NEW, &op->rows[i], slot->current, op->change);
    cass_op_send(op, c, n, true, on_appended);
    free(c);
}

/* The turn was read: what stands in closed buckets stands for good, what stands in the current one is asked again. */
static void append_judge(struct history_op *op)
{
    const struct turn_row *row = &op->rows[0], *stands = find_row(&op->set, row);
    bool deleted = false;

    if (op->set.n == 0) {
        cass_op_end(op, TR_NOT_FOUND, "history: no such turn");
        return;
    }
    cass_slot_saw_turn(op->slot, &row->turn);
    for (size_t i = 0; i < op->set.n; i++)
        deleted = deleted || (op->set.rows[i].part == PART_STATE && op->set.rows[i].event == TURN_EVENT_DELETE);
    if (deleted && (row->part != PART_STATE || stands == NULL)) {
        cass_op_end(op, TR_NOT_FOUND, "history: this turn is deleted");
        return;
    }
    if (stands != NULL) {
        append_standing(op, stands);
        return;
    }
    for (size_t i = 1; i < op->rows_n; i++)
        op->in.append.skip[i] = find_row(&op->set, &op->rows[i]) != NULL;
    append_write(op);
}

static void append_read(struct history_op *op)
{
    cass_read_turn(op, &op->rows[0].turn, append_judge);
}

static void append_in_month(struct history_op *op)
{
    const struct uuid *turn = &op->rows[0].turn;

    if (cass_bucket(turn) >= op->slot->current && cass_slot_knows_turn(op->slot, turn))
        append_write(op);
    else
        append_read(op);
}

static void append_go(struct history_op *op)
{
    cass_month_enter(op, op->slot->current, append_in_month);
}

static void append_in_lane(struct history_op *op)
{
    cass_slot_need(op, append_go);
}

void cass_begin_append(struct history_op *op)
{
    for (size_t i = 0; i < op->rows_n; i++)
        if (op->rows[i].part == PART_STATE && op->rows[i].event == TURN_EVENT_DELETE)
            op->in.append.is_delete = true;
    op->in.append.skip = calloc(op->rows_n, sizeof *op->in.append.skip);
    if (op->in.append.skip == NULL)
        cass_op_end(op, TR_NOMEM, "history: append");
    else
        cass_lane_enter(op, append_in_lane);
}
