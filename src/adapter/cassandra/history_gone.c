/*
 * history_gone - deleting a chat, and finishing a deletion that somebody else began.
 *
 *   1  the mark: `deleted` in the newest bucket, in the batch that also empties it.  From here on the chat is gone for every
 *      reader and writer: each of them looks at that bucket's state, and a closed bucket leads to the next one
 *   2  the key      destroyed
 *   3  the `chats` row  says deleted: no bucket is listed any more
 *   4  the older buckets, emptied
 *   5  the lists
 *   6  the `chats` row  lists no buckets any more: nothing is left
 * Until the last step the row's buckets are the record of what is still to go.  Every step is harmless twice, so whoever meets
 * a deleted chat takes all of them (cass_chat_gone), and says TR_NOT_FOUND once they are done: a process that was killed on the
 * way leaves nothing behind that could be read, written or forgotten about.
 */
#include "adapter/cassandra/history_impl.h"

#include "base/fault.h"

/* One more step was taken.  A reader that finishes a deletion has written nothing of its own. */
static void gone_wrote(struct history_op *op)
{
    op->wrote = op->wrote || op->gone.asked;
}

static void gone_end(struct history_op *op)
{
    cass_slot_forget(op->slot);
    if (op->gone.asked)
        cass_op_end(op, TR_OK, NULL);
    else
        cass_op_end(op, TR_NOT_FOUND, "history: this chat is deleted");
}

void cass_call_forget(struct call c[2], const struct uuid *chat, int32_t bucket)
{
    cass_call_init(&c[0], ST_FORGET);
    cass_call_init(&c[1], ST_FORGET_ROWS);
    for (int i = 0; i < 2; i++) {
        cass_arg_uuid(&c[i], chat);
        cass_arg_i32(&c[i], bucket);
    }
    cass_arg_uuid(&c[1], &uuid_nil);
}

/* ---- 6: nothing is left */

static void on_emptied(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows; /* not applied: somebody else was first */
    gone_end(op);
}

static void gone_empty(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    fault_point("chat_delete.unlisted");
    cass_call_init(&c, ST_CHAT_EMPTY);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_op_send(op, &c, 1, true, on_emptied);
}

/* ---- 5: the lists; the user's last */

static void unlist_by_user(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    cass_call_init(&c, ST_BY_USER_DROP);
    cass_arg_uuid(&c, &op->gone.user);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_op_send(op, &c, 1, true, gone_empty);
}

static void on_selected(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid selected = cass_cell_uuid(cass_cell_named(rows, 0, "chat"));
    struct call c;

    if (cql_rows(rows) == 0 || !uuid_eq(&selected, &op->slot->chat)) {
        unlist_by_user(op, rows);
        return;
    }
    cass_call_init(&c, ST_SELECTED_DROP);
    cass_arg_uuid(&c, &op->gone.user);
    cass_op_send(op, &c, 1, true, unlist_by_user);
}

static void unlist_selected(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    cass_call_init(&c, ST_SELECTED);
    cass_arg_uuid(&c, &op->gone.user);
    cass_op_send(op, &c, 1, false, on_selected);
}

static void unlist_by_character(struct history_op *op)
{
    struct call c;

    cass_call_init(&c, ST_BY_CHARACTER_DROP);
    cass_arg_text(&c, op->gone.character);
    cass_arg_i32(&c, cass_bucket(&op->slot->chat));
    cass_arg_uuid(&c, &op->slot->chat);
    cass_op_send(op, &c, 1, true, unlist_selected);
}

/* ---- 4: the older buckets */

static void forget_next(struct history_op *op);

static void on_forgotten(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows; /* not applied: it was before */
    fault_point("chat_delete.bucket");
    op->gone.at++;
    forget_next(op);
}

static void forget_next(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    struct call c[2];

    if (op->gone.at == slot->buckets_n) {
        unlist_by_character(op);
        return;
    }
    cass_call_forget(c, &slot->chat, slot->buckets[op->gone.at]);
    cass_op_send(op, c, 2, true, on_forgotten);
}

/* ---- 3: the row */

static void on_row_marked(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows; /* not applied: it was before */
    fault_point("chat_delete.row");
    op->gone.at = 0;
    forget_next(op);
}

/* ---- 2: the key */

static void on_key_destroyed(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    fault_point("chat_delete.key");
    cass_call_init(&c, ST_CHAT_DELETE);
    cass_arg_u64(&c, wall_ms());
    cass_arg_uuid(&c, &op->slot->chat);
    cass_op_send(op, &c, 1, true, on_row_marked);
}

static void destroy_key(struct history_op *op)
{
    char id[UUID_TEXT];
    struct call c;

    uuid_format(&op->slot->chat, id);
    cass_call_init(&c, ST_KEY_DESTROY);
    cass_arg_bytes(&c, "", 0);
    cass_arg_i32(&c, SEAL_OWNER_CHAT);
    cass_arg_text(&c, id);
    cass_op_send(op, &c, 1, true, on_key_destroyed);
}

/* ---- 1: the mark */

static void mark(struct history_op *op, int32_t bucket);

static void on_marked(struct history_op *op, const struct cql_rows *rows)
{
    const int32_t next = cass_cell_i32(cass_cell_named(rows, 0, "next"));

    gone_wrote(op);
    if (cass_was_applied(rows) || cass_cell_is_set(cass_cell_named(rows, 0, "deleted"))) {
        fault_point("chat_delete.marked");
        destroy_key(op);
    } else if (next == 0) {
        cass_op_end(op, TR_UNCERTAIN, "history: a mark that nothing speaks against was not applied");
    } else if (!cass_slot_has_bucket(op->slot, next)) {
        cass_op_end(op, TR_NOMEM, "history: buckets");
    } else {
        mark(op, next); /* the month has turned */
    }
}

/* The last bucket of the chain.  One that is not open yet can't be opened any more then. */
static void mark(struct history_op *op, int32_t bucket)
{
    struct call c[2];

    cass_call_forget(c, &op->slot->chat, bucket);
    c[0].st = ST_MARK;
    cass_op_send(op, c, 2, true, on_marked);
}

static void on_doomed(struct history_op *op, const struct cql_rows *rows)
{
    const bool deleted = cass_cell_is_set(cass_cell_named(rows, 0, "deleted"));
    const struct cql_value buckets = cass_cell_named(rows, 0, "buckets");
    struct chat_slot *slot = op->slot;

    if (cql_rows(rows) == 0 || !cass_cell_is_set(cass_cell_named(rows, 0, "user")) ||
        (deleted && !cass_cell_is_set(buckets))) {
        cass_slot_forget(slot);
        cass_op_end(op, TR_NOT_FOUND, "history: no such chat");
        return;
    }
    op->gone.user = cass_cell_uuid(cass_cell_named(rows, 0, "user"));
    cass_cell_text(cass_cell_named(rows, 0, "character"), op->gone.character, sizeof op->gone.character);
    if (!cass_slot_has_buckets(slot, buckets))
        cass_op_end(op, TR_NOMEM, "history: buckets");
    else
        mark(op, slot->buckets[slot->buckets_n - 1]);
}

static void gone_begin(struct history_op *op)
{
    struct call c;

    cass_call_init(&c, ST_CHAT);
    cass_arg_uuid(&c, &op->slot->chat);
    cass_op_send(op, &c, 1, false, on_doomed);
}

void cass_chat_gone(struct history_op *op)
{
    op->gone.asked = false;
    gone_begin(op);
}

void cass_begin_chat_delete(struct history_op *op)
{
    op->gone.asked = true;
    gone_begin(op);
}
