/*
 * history_slot - what this process remembers of a chat, and the order among its own writers.
 *
 * Remembered are facts that stay true (whose it is, its buckets, which of them are closed, turns that exist) and a guess: the
 * state of the current bucket as last seen, which a conditional write names.  A wrong guess costs one write more, never more
 * than that.  The lane lets one operation of this process write to a chat at a time: they would only outbid each other.
 */
#include "adapter/cassandra/history_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TABLE 4096
#define SLOTS_MAX 8192

static size_t hash(const struct uuid *id)
{
    uint32_t x;

    memcpy(&x, id->b + 12, sizeof x); /* a v7's last bytes are random */
    return x % TABLE;
}

static void unlink_use(struct cassandra_history *h, struct chat_slot *slot)
{
    *(slot->newer != NULL ? &slot->newer->older : &h->newest) = slot->older;
    *(slot->older != NULL ? &slot->older->newer : &h->oldest) = slot->newer;
}

static void link_use(struct cassandra_history *h, struct chat_slot *slot)
{
    slot->newer = NULL;
    slot->older = h->newest;
    *(h->newest != NULL ? &h->newest->newer : &h->oldest) = slot;
    h->newest = slot;
}

static void slot_free(struct cassandra_history *h, struct chat_slot *slot)
{
    struct chat_slot **at = &h->table[hash(&slot->chat)];

    while (*at != slot)
        at = &(*at)->hash_next;
    *at = slot->hash_next;
    unlink_use(h, slot);
    h->slots--;
    free(slot->buckets);
    free(slot);
}

struct chat_slot *cass_slot_get(struct cassandra_history *h, const struct uuid *chat)
{
    struct chat_slot *slot;

    if (h->table == NULL && (h->table = calloc(TABLE, sizeof *h->table)) == NULL)
        return NULL;
    for (slot = h->table[hash(chat)]; slot != NULL; slot = slot->hash_next)
        if (uuid_eq(&slot->chat, chat))
            break;
    if (slot == NULL) {
        slot = calloc(1, sizeof *slot);
        if (slot == NULL)
            return NULL;
        slot->chat = *chat;
        slot->hash_next = h->table[hash(chat)];
        h->table[hash(chat)] = slot;
        link_use(h, slot);
        h->slots++;
    } else {
        unlink_use(h, slot);
        link_use(h, slot);
    }
    slot->refs++;
    for (struct chat_slot *s = h->oldest; s != NULL && h->slots > SLOTS_MAX;) {
        struct chat_slot *const newer = s->newer;

        if (s->refs == 0)
            slot_free(h, s);
        s = newer;
    }
    return slot;
}

void cass_slot_put(struct cassandra_history *h, struct chat_slot *slot)
{
    (void)h;
    assert(slot->refs > 0);
    slot->refs--;
}

void cass_slots_release(struct cassandra_history *h)
{
    while (h->oldest != NULL)
        slot_free(h, h->oldest);
    free(h->table);
    h->table = NULL;
}

bool cass_slot_has_bucket(struct chat_slot *slot, int32_t bucket)
{
    size_t at = slot->buckets_n;
    int32_t *buckets;

    while (at > 0 && slot->buckets[at - 1] > bucket)
        at--;
    if (at > 0 && slot->buckets[at - 1] == bucket)
        return true;
    if (slot->buckets_n >= HISTORY_BUCKETS_MAX)
        return false;
    buckets = realloc(slot->buckets, (slot->buckets_n + 1) * sizeof *buckets);
    if (buckets == NULL)
        return false;
    memmove(buckets + at + 1, buckets + at, (slot->buckets_n - at) * sizeof *buckets);
    buckets[at] = bucket;
    slot->buckets = buckets;
    slot->buckets_n++;
    return true;
}

void cass_slot_forget(struct chat_slot *slot)
{
    slot->known = false;
    slot->current = 0; /* its buckets stay: they are facts, and others may be reading them */
    slot->state = (struct history_state){0};
    memset(slot->seen, 0, sizeof slot->seen);
}

void cass_slot_saw_turn(struct chat_slot *slot, const struct uuid *turn)
{
    if (!cass_slot_knows_turn(slot, turn))
        slot->seen[slot->seen_at++ % SLOT_TURNS] = *turn;
}

bool cass_slot_knows_turn(const struct chat_slot *slot, const struct uuid *turn)
{
    for (size_t i = 0; i < SLOT_TURNS; i++)
        if (uuid_eq(&slot->seen[i], turn))
            return !uuid_is_nil(turn);
    return false;
}

void cass_slot_saw_state(struct chat_slot *slot, const struct history_state *state)
{
    if (state->change > slot->state.change || state->next != 0 || state->deleted || !slot->state.exists)
        slot->state = *state;
}

/* ---- reading the state ---- */

static void read_current(struct history_op *op);

/* The bucket before `bucket`; 0: there is none. */
static int32_t before(const struct chat_slot *slot, int32_t bucket)
{
    int32_t found = 0;

    for (size_t i = 0; i < slot->buckets_n && slot->buckets[i] < bucket; i++)
        found = slot->buckets[i];
    return found;
}

static void on_state(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;
    struct history_state state = {0};

    if (cql_rows(rows) > 0)
        cass_read_state(rows, 0, &state);
    if (state.deleted) {
        cass_chat_gone(op);
        return;
    }
    if (!state.exists) {
        const int32_t earlier = before(slot, op->reading);

        if (earlier == 0) {
            cass_slot_forget(slot);
            cass_op_end(op, TR_NOT_FOUND, "history: no such chat");
        } else if (earlier <= slot->current) {
            op->then(op); /* the next bucket is listed but not open yet: the state of the closed one counts */
        } else {
            op->reading = earlier;
            read_current(op);
        }
        return;
    }
    if (op->reading > slot->current || slot->current == 0) {
        slot->current = op->reading;
        slot->state = state;
    } else if (op->reading == slot->current) {
        cass_slot_saw_state(slot, &state);
    }
    if (state.next != 0 && !cass_slot_has_bucket(slot, state.next)) {
        cass_op_end(op, TR_NOMEM, "history: buckets");
    } else if (state.next != 0 && state.next != op->stop_at) {
        op->stop_at = op->reading = state.next;
        read_current(op);
    } else {
        op->then(op);
    }
}

static void read_current(struct history_op *op)
{
    struct call c;

    cass_call_init(&c, op->settled ? ST_STATE_SERIAL : ST_STATE);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_arg_i32(&c, op->reading);
    cass_op_send(op, &c, 1, false, on_state);
}

bool cass_slot_has_buckets(struct chat_slot *slot, struct cql_value set)
{
    int32_t at = 0, bucket;

    while (cass_wire_list_next(set, &at, &bucket))
        if (!cass_slot_has_bucket(slot, bucket))
            return false;
    return slot->buckets_n > 0;
}

static void on_chat(struct history_op *op, const struct cql_rows *rows)
{
    struct chat_slot *slot = op->slot;

    if (cql_rows(rows) == 0 || !cass_cell_is_set(cass_cell_named(rows, 0, "user"))) {
        cass_op_end(op, TR_NOT_FOUND, "history: no such chat");
        return;
    }
    if (cass_cell_is_set(cass_cell_named(rows, 0, "deleted"))) {
        cass_chat_gone(op);
        return;
    }
    slot->user = cass_cell_uuid(cass_cell_named(rows, 0, "user"));
    cass_cell_text(cass_cell_named(rows, 0, "character"), slot->character, sizeof slot->character);
    slot->created_ms = cass_cell_u64(cass_cell_named(rows, 0, "created"));
    if (!cass_slot_has_buckets(slot, cass_cell_named(rows, 0, "buckets"))) {
        cass_op_end(op, TR_NOMEM, "history: buckets");
        return;
    }
    slot->known = true;
    op->reading = slot->current != 0 ? slot->current : slot->buckets[slot->buckets_n - 1];
    op->stop_at = slot->current != 0 ? 0 : op->reading;
    read_current(op);
}

static void load(struct history_op *op, op_step *then, bool settled)
{
    op->then = then;
    op->settled = settled;
    if (!op->slot->known || op->slot->current == 0) {
        struct call c;

        cass_call_init(&c, ST_CHAT);
        cass_arg_uuid(&c, &op->slot->chat);
        cass_op_send(op, &c, 1, false, on_chat);
        return;
    }
    op->reading = op->slot->current;
    op->stop_at = 0;
    read_current(op);
}

void cass_slot_load(struct history_op *op, op_step *then)
{
    load(op, then, false);
}

void cass_slot_load_settled(struct history_op *op, op_step *then)
{
    load(op, then, true);
}

void cass_slot_need(struct history_op *op, op_step *then)
{
    if (op->slot->known && op->slot->current != 0)
        then(op);
    else
        cass_slot_load(op, then);
}

/* ---- the lane ---- */

void cass_lane_enter(struct history_op *op, op_step *then)
{
    struct chat_slot *slot = op->slot;

    op->lane_then = then;
    if (slot->writer == NULL) {
        slot->writer = op;
        op->in_lane = true;
        then(op);
        return;
    }
    op->waiting = true;
    op->lane_next = NULL;
    if (slot->last_waiting != NULL)
        slot->last_waiting->lane_next = op;
    else
        slot->waiting = op;
    slot->last_waiting = op;
}

static void stop_waiting(struct chat_slot *slot, struct history_op *op)
{
    struct history_op *prev = NULL;

    for (struct history_op *o = slot->waiting; o != op; o = o->lane_next)
        prev = o;
    *(prev != NULL ? &prev->lane_next : &slot->waiting) = op->lane_next;
    if (slot->last_waiting == op)
        slot->last_waiting = prev;
    op->waiting = false;
}

/* Deferred, so that a long row of waiting ones is no deep recursion. */
static void on_lane(struct loop_call *call)
{
    struct history_op *op = (struct history_op *)((char *)call - offsetof(struct history_op, begin_call));

    op->holds--;
    if (op->answered || op->cancelled)
        cass_op_drop(op);
    else
        op->lane_then(op);
}

void cass_lane_leave(struct history_op *op)
{
    struct chat_slot *slot = op->slot;

    if (op->waiting)
        stop_waiting(slot, op);
    if (!op->in_lane)
        return;
    op->in_lane = false;
    slot->writer = slot->waiting;
    if (slot->writer == NULL)
        return;
    op = slot->writer;
    stop_waiting(slot, op);
    op->in_lane = true;
    op->begin_call.fn = on_lane; /* its own call is long over */
    op->holds++;
    loop_defer(op->owner->loop, &op->begin_call);
}
