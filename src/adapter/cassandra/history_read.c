/*
 * history_read - the reads.
 *
 * A page or a list of changes is the chat as of one `change`, taken first: rows of later ones are left out, so that whoever takes
 * the greatest change it was shown as what it knows has seen all up to there.  That change comes from a state that is settled
 * (history_schema.c), or from the same statement as its rows, where each number up to it is found to have a row.
 */
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>
#include <string.h>

#define TURN_CHUNK 50   /* turns in one IN */
#define CHANGED_ROWS 64 /* of what changed, at once; more: the long way.  The bits of a word */

void cass_chat_of_slot(const struct chat_slot *slot, struct history_chat *ret_chat)
{
    *ret_chat = (struct history_chat){
        .chat = slot->chat,
        .user = slot->user,
        .created_ms = slot->created_ms,
        .updated_ms = slot->state.updated_ms,
        .head = slot->state.head,
        .index = slot->state.index,
        .change = slot->state.change,
    };
    memcpy(ret_chat->character, slot->character, sizeof ret_chat->character);
}

static void chat_loaded(struct history_op *op)
{
    cass_chat_of_slot(op->slot, &op->chat);
    cass_op_end(op, TR_OK, NULL);
}

void cass_begin_chat_get(struct history_op *op)
{
    cass_slot_load(op, chat_loaded);
}

/* ---- one turn ---- */

static void read_turn_page(struct history_op *op);

static void read_turn_again(struct history_op *op)
{
    if (op->slot->current != op->turn_at) { /* the month has turned: once more, with the new one */
        cass_row_set_release(&op->set);
        cass_read_turn(op, &op->turn, op->turn_then);
        return;
    }
    cass_row_set_settle(&op->set);
    op->turn_then(op);
}

static void on_turn_page(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;
    struct tr_err err = {0};

    if (cass_row_set_read(&op->set, &slot->chat, rows, UINT64_MAX, &err) != TR_OK) {
        cass_op_end(op, TR_NOMEM, "%s", err.msg);
        return;
    }
    for (size_t i = 0; i < cql_rows(rows) && !op->turn_settled; i++) {
        struct history_state state;

        if (cass_cell_i32(cass_cell_named(rows, i, "bucket")) != op->turn_at || !cass_read_state(rows, i, &state))
            continue;
        if (slot->current == op->turn_at)
            cass_slot_saw_state(slot, &state);
        op->turn_settled = state.next == 0 && !state.deleted;
    }
    if (cass_op_next_page(op, rows)) {
        read_turn_page(op);
    } else if (op->turn_settled) {
        cass_row_set_settle(&op->set);
        op->turn_then(op);
    } else { /* nothing came from the current bucket: is it that still, and does the chat live? */
        cass_slot_load(op, read_turn_again);
    }
}

static void read_turn_page(struct history_op *op)
{
    const size_t n = op->turn_end - op->turn_from;
    struct call c;

    cass_call_init(&c, n == 1 ? ST_TURN : ST_TURN_IN);
    cass_arg_uuid(&c, &op->slot->chat);
    if (n == 1) {
        cass_arg_i32(&c, op->slot->buckets[op->turn_from]);
    } else {
        cass_wire_list_i32(&op->list, op->slot->buckets + op->turn_from, n);
        cass_arg_bytes(&c, op->list.data, op->list.len);
    }
    cass_arg_uuid(&c, &op->turn);
    cass_op_send(op, &c, 1, false, on_turn_page);
}

void cass_read_turn(struct history_op *op, const struct uuid *turn, op_step *then)
{
    const struct chat_slot *slot = op->slot;
    const int32_t month = cass_bucket(turn);
    size_t at = slot->buckets_n;

    cass_row_set_release(&op->set);
    op->turn = *turn;
    op->turn_then = then;
    op->turn_settled = false;
    op->turn_at = slot->current;
    while (at > 0 && slot->buckets[at - 1] > slot->current)
        at--;
    op->turn_end = at; /* buckets are added behind these only */
    while (at > 0 && slot->buckets[at - 1] >= month)
        at--;
    op->turn_from = at;
    if (op->turn_from < op->turn_end)
        read_turn_page(op);
    else
        cass_slot_load(op, read_turn_again);
}

static void turn_read(struct history_op *op)
{
    if (op->set.n == 0) {
        cass_op_end(op, TR_NOT_FOUND, "history: no such turn");
        return;
    }
    cass_slot_saw_turn(op->slot, &op->turn);
    cass_erase_left(op);
    op->in.read.n = op->set.n;
    cass_op_end(op, TR_OK, NULL);
}

static void turn_needed(struct history_op *op)
{
    cass_read_turn(op, &op->in.read.turn, turn_read);
}

void cass_begin_turn_get(struct history_op *op)
{
    cass_slot_need(op, turn_needed);
}

/* ---- a page of turns ---- */

static void turns_next(struct history_op *op);

/* Distinct turns of the sorted rows from `from` on. */
static size_t count_turns(const struct row_set *set, size_t from)
{
    size_t n = 0;

    for (size_t i = from; i < set->n; i++)
        n += i == from || !uuid_eq(&set->rows[i].turn, &set->rows[i - 1].turn);
    return n;
}

/* How many turns no bucket before `bucket` can have: those of a later month. */
static size_t turns_above(struct row_set *set, int32_t bucket)
{
    size_t from = 0;

    cass_row_set_sort(set);
    while (from < set->n && cass_bucket(&set->rows[from].turn) <= bucket)
        from++;
    return count_turns(set, from);
}

/* Cut the sorted rows to `limit` turns from the wanted end. */
static void turns_end(struct history_op *op)
{
    const struct history_range *range = &op->in.read.range;
    struct row_set *set = &op->set;
    size_t turns, drop, at = 0;

    cass_row_set_settle(set);
    turns = count_turns(set, 0);
    op->in.read.from = 0;
    op->in.read.n = set->n;
    op->more = range->limit != 0 && turns > range->limit;
    if (op->more) {
        drop = range->newest ? turns - range->limit : range->limit; /* so many turns lie before the cut */
        for (; at < set->n && drop > 0; drop--)
            for (size_t first = at; at < set->n && uuid_eq(&set->rows[at].turn, &set->rows[first].turn);)
                at++;
        if (range->newest)
            op->in.read.from = at;
        op->in.read.n = range->newest ? set->n - at : at;
    }
    cass_erase_left(op);
    cass_op_end(op, TR_OK, NULL);
}

static void turns_query(struct history_op *op);

static void on_turns_page(struct history_op *op, const struct cql_rows *rows)
{
    const uint32_t limit = op->in.read.range.limit;
    const size_t before = op->set.n;
    struct tr_err err = {0};

    if (cass_row_set_read(&op->set, &op->slot->chat, rows, op->in.read.change, &err) != TR_OK) {
        cass_op_end(op, TR_NOMEM, "%s", err.msg);
        return;
    }
    for (size_t i = before; i < op->set.n; i++) {
        op->in.read.in_bucket += op->in.read.in_bucket == 0 || !uuid_eq(&op->set.rows[i].turn, &op->in.read.last);
        op->in.read.last = op->set.rows[i].turn;
    }
    if (cass_op_next_page(op, rows) && (limit == 0 || op->in.read.in_bucket <= limit))
        turns_query(op);
    else
        turns_next(op);
}

static void turns_query(struct history_op *op)
{
    struct call c;

    cass_call_init(&c, op->in.read.range.newest ? ST_TURNS_DOWN : ST_TURNS_UP);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_arg_i32(&c, op->slot->buckets[op->in.read.bucket_at]);
    cass_arg_uuid(&c, &op->in.read.low);
    cass_arg_uuid(&c, &op->in.read.high);
    op->page_size = op->in.read.range.limit == 0 || op->in.read.range.limit >= 250
                        ? 1000
                        : (int32_t)(op->in.read.range.limit + 1) * 4; /* rows: a turn has some */
    cass_op_send(op, &c, 1, false, on_turns_page);
}

/* The newest end: from the current bucket down, until no earlier one can have any of the page. */
static void turns_down(struct history_op *op)
{
    const struct history_range *range = &op->in.read.range;
    size_t *at = &op->in.read.bucket_at;
    const int32_t bucket = *at > 0 ? op->slot->buckets[*at - 1] : 0;

    if (*at == 0 || (!uuid_is_nil(&range->after) && bucket < cass_bucket(&range->after)) ||
        (range->limit != 0 && turns_above(&op->set, bucket) > range->limit)) {
        turns_end(op);
        return;
    }
    --*at;
    turns_query(op);
}

/* The oldest end: up to the current bucket, for each may have rows of old turns; what is found narrows what is asked. */
static void turns_up(struct history_op *op)
{
    const struct history_range *range = &op->in.read.range;
    size_t *at = &op->in.read.bucket_at;

    if (range->limit != 0 && op->set.n > 0) {
        size_t turns = 0;

        cass_row_set_sort(&op->set);
        for (size_t i = 0; i < op->set.n && turns <= range->limit; i++)
            if (i == 0 || !uuid_eq(&op->set.rows[i].turn, &op->set.rows[i - 1].turn))
                if (++turns == (size_t)range->limit + 1)
                    op->in.read.high = op->set.rows[i].turn;
    }
    ++*at;
    if (*at >= op->slot->buckets_n || op->slot->buckets[*at] > op->slot->current)
        turns_end(op);
    else
        turns_query(op);
}

static void turns_next(struct history_op *op)
{
    op->in.read.in_bucket = 0;
    buf_clear(&op->paging);
    if (op->in.read.range.newest)
        turns_down(op);
    else
        turns_up(op);
}

static void turns_loaded(struct history_op *op)
{
    const struct history_range *range = &op->in.read.range;
    struct chat_slot *slot = op->slot;
    size_t at = 0;

    op->in.read.change = slot->state.change;
    op->in.read.low =
        uuid_cmp(&range->after, &cass_turn_first) > 0 && range->after.b[6] >= 0x70 ? range->after : cass_turn_first;
    op->in.read.high = uuid_is_nil(&range->before) ? cass_turn_last : range->before;
    if (range->newest) {
        while (at < slot->buckets_n && slot->buckets[at] <= slot->current)
            at++;
        op->in.read.bucket_at = at;
    } else {
        while (at < slot->buckets_n && slot->buckets[at] < slot->current && !uuid_is_nil(&range->after) &&
               slot->buckets[at] < cass_bucket(&range->after))
            at++;
        op->in.read.bucket_at = at - 1; /* turns_up() begins with the one after */
    }
    turns_next(op);
}

void cass_begin_turns(struct history_op *op)
{
    cass_slot_load_settled(op, turns_loaded);
}

/* ---- what changed ---- */

static void changed_query(struct history_op *op);
static void changed_read(struct history_op *op);

static bool add_turn(struct history_op *op, struct uuid turn)
{
    if (op->in.read.turns_n == op->in.read.turns_cap) {
        const size_t cap = op->in.read.turns_cap == 0 ? 16 : op->in.read.turns_cap * 2;
        struct uuid *turns = realloc(op->in.read.turns, cap * sizeof *turns);

        if (turns == NULL)
            return false;
        op->in.read.turns = turns;
        op->in.read.turns_cap = cap;
    }
    op->in.read.turns[op->in.read.turns_n++] = turn;
    return true;
}

static int by_id(const void *a, const void *b)
{
    return uuid_cmp(a, b);
}

/* All buckets are through: sort, cut to the limit, then read the turns. */
static void changed_cut(struct history_op *op)
{
    const uint32_t limit = op->in.read.range.limit;
    size_t n = 0;

    if (op->in.read.turns_n > 1)
        qsort(op->in.read.turns, op->in.read.turns_n, sizeof *op->in.read.turns, by_id);
    for (size_t i = 0; i < op->in.read.turns_n; i++)
        if (n == 0 || !uuid_eq(&op->in.read.turns[i], &op->in.read.turns[n - 1]))
            op->in.read.turns[n++] = op->in.read.turns[i];
    op->more = limit != 0 && n > limit;
    op->in.read.turns_n = op->more ? limit : n;
    op->in.read.turns_at = 0;
    changed_read(op);
}

static void on_changed_page(struct history_op *op, const struct cql_rows *rows)
{
    bool reached = false; /* what was before this bucket is of no interest */

    for (size_t i = 0; i < cql_rows(rows); i++) {
        reached = cass_cell_u64(cass_cell_named(rows, i, "base")) <= op->in.read.since;
        if (cass_cell_u64(cass_cell_named(rows, i, "change")) <= op->in.read.change &&
            !add_turn(op, cass_cell_uuid(cass_cell_named(rows, i, "turn")))) {
            cass_op_end(op, TR_NOMEM, "history: turns");
            return;
        }
    }
    if (cass_op_next_page(op, rows)) {
        changed_query(op);
        return;
    }
    if (reached || op->in.read.bucket_at == 0) {
        changed_cut(op);
        return;
    }
    op->in.read.bucket_at--;
    changed_query(op);
}

static void changed_query(struct history_op *op)
{
    struct call c;

    cass_call_init(&c, ST_CHANGED);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_arg_i32(&c, op->slot->buckets[op->in.read.bucket_at]);
    cass_arg_uuid(&c, &cass_turn_first);
    cass_arg_u64(&c, op->in.read.since);
    cass_op_send(op, &c, 1, false, on_changed_page);
}

static void on_changed_rows(struct history_op *op, const struct cql_rows *rows)
{
    struct tr_err err = {0};

    if (cass_row_set_read(&op->set, &op->slot->chat, rows, op->in.read.change, &err) != TR_OK) {
        cass_op_end(op, TR_NOMEM, "%s", err.msg);
        return;
    }
    if (!cass_op_next_page(op, rows))
        op->in.read.turns_at += TURN_CHUNK;
    changed_read(op);
}

/* The turns, some at a time, each from its month on. */
static void changed_read(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    const size_t at = op->in.read.turns_at, left = at < op->in.read.turns_n ? op->in.read.turns_n - at : 0;
    struct call c;

    if (left == 0) {
        cass_row_set_settle(&op->set);
        cass_erase_left(op);
        op->in.read.n = op->set.n;
        cass_op_end(op, TR_OK, NULL);
        return;
    }
    if (op->paging.len == 0) { /* else the same lists as for the page before */
        size_t first = 0, end = slot->buckets_n;

        while (end > 0 && slot->buckets[end - 1] > slot->current)
            end--;
        while (first + 1 < end && slot->buckets[first] < cass_bucket(&op->in.read.turns[at]))
            first++;
        cass_wire_list_i32(&op->list, slot->buckets + first, end - first);
    }
    cass_wire_list_uuid(&op->ids, op->in.read.turns + at, left < TURN_CHUNK ? left : TURN_CHUNK);
    cass_call_init(&c, ST_TURN_SET);
    cass_arg_uuid(&c, &slot->chat);
    cass_arg_bytes(&c, op->list.data, op->list.len);
    cass_arg_bytes(&c, op->ids.data, op->ids.len);
    cass_op_send(op, &c, 1, false, on_changed_rows);
}

static void changed_loaded(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    size_t at = slot->buckets_n - 1;

    op->in.read.change = slot->state.change;
    if (op->in.read.since >= slot->state.change) {
        cass_op_end(op, TR_OK, NULL);
        return;
    }
    while (at > 0 && slot->buckets[at] > slot->current)
        at--;
    op->in.read.bucket_at = at;
    changed_query(op);
}

/* Are these whole turns, all of which came after `since`?  Then each has the row that it began with. */
static bool whole_turns(const struct row_set *set, uint32_t limit)
{
    size_t turns = 0;

    for (size_t from = 0, to; from < set->n; from = to) {
        bool whole = false;

        for (to = from; to < set->n && uuid_eq(&set->rows[to].turn, &set->rows[from].turn); to++)
            whole = whole || (set->rows[to].part == PART_USER && set->rows[to].rev == 0);
        if (!whole || (limit != 0 && ++turns > limit))
            return false;
    }
    return true;
}

/* Has each change from `since` to `change` a row here?  Every change wrote one, so nothing else can have changed then. */
static bool all_changes(const struct row_set *set, uint64_t since, uint64_t change)
{
    const uint64_t n = change - since;
    uint64_t seen = 0;

    if (n == 0 || n > CHANGED_ROWS)
        return false;
    for (size_t i = 0; i < set->n; i++)
        if (set->rows[i].change > since && set->rows[i].change <= change)
            seen |= UINT64_C(1) << (set->rows[i].change - since - 1);
    return seen == UINT64_MAX >> (CHANGED_ROWS - n);
}

/*
 * Rows of one partition that came in one read, the chat's state among them: one moment of it.  The read began behind the newest
 * turn that was known, so that a long chat is not read through; what changed before it, or in another bucket, is missed then.
 */
static bool changed_tells_all(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;
    struct history_state state;

    if (cass_op_next_page(op, rows) || cql_rows(rows) == 0 || !cass_read_state(rows, 0, &state) || !state.exists ||
        state.deleted || state.next != 0 || state.change < op->in.read.since)
        return false; /* too much, nothing, or the month has turned */
    if (cass_row_set_read(&op->set, &slot->chat, rows, state.change, NULL) != TR_OK)
        return false;
    cass_row_set_settle(&op->set);
    if (!all_changes(&op->set, op->in.read.since, state.change) || !whole_turns(&op->set, op->in.read.range.limit))
        return false;
    if (op->reading == slot->current)
        cass_slot_saw_state(slot, &state);
    for (size_t i = 0; i < op->set.n; i++)
        cass_slot_saw_turn(slot, &op->set.rows[i].turn);
    cass_erase_left(op);
    op->in.read.n = op->set.n;
    return true;
}

static void on_changed_at_once(struct history_op *op, const struct cql_rows *rows)
{
    if (changed_tells_all(op, rows)) {
        cass_op_end(op, TR_OK, NULL);
        return;
    }
    buf_clear(&op->paging);
    cass_row_set_release(&op->set);
    cass_slot_load_settled(op, changed_loaded);
}

/* In one read where new turns are all that changed, as when a reply is to be written. */
void cass_begin_changed(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    struct call c;

    if (!slot->known || slot->current == 0 || op->in.read.since > INT64_MAX) { /* a bigint has a sign */
        cass_slot_load_settled(op, changed_loaded);
        return;
    }
    op->reading = slot->current;
    op->page_size = CHANGED_ROWS;
    cass_call_init(&c, ST_CHANGED_ROWS);
    cass_arg_uuid(&c, &slot->chat);
    cass_arg_i32(&c, slot->current);
    cass_arg_uuid(&c, slot->state.change <= op->in.read.since ? &slot->state.head : &cass_turn_first);
    cass_arg_u64(&c, op->in.read.since);
    cass_op_send(op, &c, 1, false, on_changed_at_once);
}
