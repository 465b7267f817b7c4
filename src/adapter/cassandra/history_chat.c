/*
 * history_chat - creating chats, and keys.
 *
 * A chat is created in an order in which nothing is seen before all of it is there (history_schema.c): the first bucket, the
 * client id's claim, the `chats` row, the lists.  Creating begins anew when it is issued again, and each step is harmless twice.
 */
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- creating ---- */

static void create_claim(struct history_op *op);
static void create_bucket(struct history_op *op);

static int32_t first_bucket(const struct history_chat *chat)
{
    return cass_bucket(uuid_is_nil(&chat->head) ? &chat->chat : &chat->head);
}

static void create_loaded(struct history_op *op)
{
    cass_chat_of_slot(op->slot, &op->chat);
    op->mine = uuid_eq(&op->chat.chat, &op->in.create.chat.chat) && uuid_eq(&op->chat.user, &op->in.create.chat.user);
    cass_op_end(op, TR_OK, NULL);
}

/* The answer is the chat of this id as it stands. */
static void create_answer(struct history_op *op, const struct uuid *chat)
{
    struct chat_slot *slot = cass_slot_get(op->owner, chat);

    if (slot == NULL) {
        cass_op_end(op, TR_NOMEM, "history: chat");
        return;
    }
    cass_slot_put(op->owner, op->slot);
    op->slot = slot;
    cass_slot_load(op, create_loaded);
}

static void on_listed(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows;
    create_answer(op, &op->chat.chat);
}

static void list_selected(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    cass_call_init(&c, ST_SELECTED_PUT);
    cass_arg_uuid(&c, &op->chat.user);
    cass_arg_text(&c, op->chat.character);
    cass_arg_uuid(&c, &op->chat.chat);
    cass_op_send(op, &c, 1, true, on_listed);
}

static void list_by_character(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    cass_call_init(&c, ST_BY_CHARACTER_PUT);
    cass_arg_text(&c, op->chat.character);
    cass_arg_i32(&c, cass_bucket(&op->chat.chat));
    cass_arg_uuid(&c, &op->chat.chat);
    cass_arg_uuid(&c, &op->chat.user);
    cass_arg_u64(&c, op->chat.created_ms);
    cass_op_send(op, &c, 1, true, list_selected);
}

static void on_row(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    op->wrote = true;
    if (!cass_was_applied(rows)) {
        if (cass_cell_is_set(cass_cell_named(rows, 0, "deleted"))) {
            cass_op_end(op, TR_NOT_FOUND, "history: this chat is deleted");
            return;
        }
        op->chat.user = cass_cell_uuid(cass_cell_named(rows, 0, "user"));
        cass_cell_text(cass_cell_named(rows, 0, "character"), op->chat.character, sizeof op->chat.character);
        op->chat.created_ms = cass_cell_u64(cass_cell_named(rows, 0, "created"));
    }
    cass_call_init(&c, ST_BY_USER_PUT);
    cass_arg_uuid(&c, &op->chat.user);
    cass_arg_uuid(&c, &op->chat.chat);
    cass_arg_text(&c, op->chat.character);
    cass_arg_u64(&c, op->chat.created_ms);
    cass_op_send(op, &c, 1, true, list_by_character);
}

/* The row that makes the chat op->chat there; its first bucket is op->reading. */
static void create_row(struct history_op *op)
{
    struct call c;

    cass_wire_list_i32(&op->list, &op->reading, 1);
    cass_call_init(&c, ST_CHAT_INSERT);
    cass_arg_uuid(&c, &op->chat.chat);
    cass_arg_uuid(&c, &op->chat.user);
    cass_arg_text(&c, op->chat.character);
    cass_arg_u64(&c, op->chat.created_ms);
    cass_arg_i32(&c, cass_bucket(&op->chat.chat));
    cass_arg_bytes(&c, op->list.data, op->list.len);
    cass_op_send(op, &c, 1, true, on_row);
}

static void on_taken(struct history_op *op, const struct cql_rows *rows)
{
    if (cass_was_applied(rows))
        create_row(op);
    else
        create_claim(op); /* somebody else was faster */
}

/* The standing one of the claim is deleted: this one takes its place. */
static void create_take(struct history_op *op)
{
    const struct history_chat *want = &op->in.create.chat;
    struct call c;

    op->chat = *want;
    op->reading = first_bucket(want);
    op->in.create.takes = false;
    cass_call_init(&c, ST_CLIENT_TAKE);
    cass_arg_uuid(&c, &want->chat);
    cass_arg_text(&c, want->character);
    cass_arg_u64(&c, want->created_ms);
    cass_arg_i32(&c, op->reading);
    cass_arg_uuid(&c, &want->user);
    cass_arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    cass_arg_uuid(&c, &op->in.create.standing);
    cass_op_send(op, &c, 1, true, on_taken);
}

static void create_standing(struct history_op *op)
{
    if (op->in.create.has_row)
        create_answer(op, &op->in.create.standing);
    else
        create_row(op); /* its maker did not come so far: all that is needed stands in the claim */
}

static void on_dropped(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows;
    create_standing(op);
}

static void on_standing(struct history_op *op, const struct cql_rows *rows)
{
    const struct history_chat *want = &op->in.create.chat;
    struct call c[2];

    op->in.create.has_row = cql_rows(rows) > 0;
    op->in.create.takes = op->in.create.has_row && cass_cell_is_set(cass_cell_named(rows, 0, "deleted"));
    if (op->in.create.takes && op->in.create.made) {
        create_take(op);
    } else if (op->in.create.takes) {
        create_bucket(op);
    } else if (op->in.create.made) { /* lost a race: what was made for nothing goes */
        cass_call_forget(c, &want->chat, first_bucket(want));
        cass_op_send(op, c, 2, true, on_dropped);
    } else {
        create_standing(op);
    }
}

/* Another chat stands under the client id. */
static void look_at_standing(struct history_op *op, const struct cql_rows *claim)
{
    struct call c;

    op->chat = op->in.create.chat; /* the user is the same */
    op->chat.chat = op->in.create.standing = cass_cell_uuid(cass_cell_named(claim, 0, "chat"));
    cass_cell_text(cass_cell_named(claim, 0, "character"), op->chat.character, sizeof op->chat.character);
    op->chat.created_ms = cass_cell_u64(cass_cell_named(claim, 0, "created"));
    op->reading = cass_cell_i32(cass_cell_named(claim, 0, "bucket"));
    cass_call_init(&c, ST_CHAT);
    cass_arg_uuid(&c, &op->in.create.standing);
    cass_op_send(op, &c, 1, false, on_standing);
}

static void on_claimed(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid standing = cass_cell_uuid(cass_cell_named(rows, 0, "chat"));

    op->chat = op->in.create.chat;
    op->reading = first_bucket(&op->chat);
    if (cass_was_applied(rows) || uuid_eq(&standing, &op->chat.chat))
        create_row(op);
    else
        look_at_standing(op, rows);
}

static void create_claim(struct history_op *op)
{
    const struct history_chat *want = &op->in.create.chat;
    struct call c;

    if (!op->in.create.has_client) {
        op->chat = *want;
        op->reading = first_bucket(want);
        create_row(op);
        return;
    }
    cass_call_init(&c, ST_CLIENT_PUT);
    cass_arg_uuid(&c, &want->user);
    cass_arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    cass_arg_uuid(&c, &want->chat);
    cass_arg_text(&c, want->character);
    cass_arg_u64(&c, want->created_ms);
    cass_arg_i32(&c, first_bucket(want));
    cass_op_send(op, &c, 1, true, on_claimed);
}

static void on_bucket_made(struct history_op *op, const struct cql_rows *rows)
{
    op->wrote = op->in.create.made = true;
    if (!cass_was_applied(rows) && cass_cell_is_set(cass_cell_named(rows, 0, "deleted")))
        cass_chat_gone(op); /* a late one */
    else if (op->in.create.takes)
        create_take(op);
    else
        create_claim(op); /* made now or before: of this id, so it is the same */
}

static void create_bucket(struct history_op *op)
{
    const struct history_chat *want = &op->in.create.chat;
    struct call *c = calloc(1 + op->rows_n, sizeof *c);

    if (c == NULL) {
        cass_op_end(op, TR_NOMEM, "history: batch");
        return;
    }
    cass_call_init(&c[0], ST_OPEN);
    cass_arg_uuid(&c[0], &want->head);
    cass_arg_u64(&c[0], want->index);
    cass_arg_u64(&c[0], 1);
    cass_arg_u64(&c[0], want->updated_ms);
    cass_arg_u64(&c[0], 0);
    cass_arg_uuid(&c[0], &want->chat);
    cass_arg_i32(&c[0], first_bucket(want));
    for (size_t i = 0; i < op->rows_n; i++)
        cass_call_row(&c[1 + i], ST_ROW, &op->rows[i], first_bucket(want), 1);
    cass_op_send(op, c, 1 + op->rows_n, true, on_bucket_made);
    free(c);
}

static void on_client(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid standing = cass_cell_uuid(cass_cell_named(rows, 0, "chat"));

    if (cql_rows(rows) > 0 && !uuid_eq(&standing, &op->in.create.chat.chat))
        look_at_standing(op, rows);
    else
        create_bucket(op);
}

void cass_begin_chat_create(struct history_op *op)
{
    struct call c;

    if (!op->in.create.has_client) {
        create_bucket(op);
        return;
    }
    cass_call_init(&c, ST_CLIENT);
    cass_arg_uuid(&c, &op->in.create.chat.user);
    cass_arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    cass_op_send(op, &c, 1, false, on_client);
}

/* ---- keys ---- */

static void call_key(struct history_op *op, struct call *c, enum history_stmt st)
{
    cass_call_init(c, st);
    cass_arg_i32(c, (int32_t)op->in.key.owner);
    cass_arg_text(c, op->in.key.id);
}

static void key_answer(struct history_op *op, const struct cql_rows *rows, bool put)
{
    const struct cql_value wrapped = cass_cell_named(rows, 0, "wrapped");
    struct uuid chat;

    if (cass_cell_is_set(cass_cell_named(rows, 0, "destroyed")) && op->in.key.owner == SEAL_OWNER_CHAT &&
        uuid_parse(op->in.key.id, strlen(op->in.key.id), &chat)) {
        op->slot = cass_slot_get(op->owner, &chat);
        if (op->slot == NULL)
            cass_op_end(op, TR_NOMEM, "history: chat");
        else
            cass_chat_gone(op);
        return;
    }
    if (!cass_cell_is_set(wrapped) || cass_cell_is_set(cass_cell_named(rows, 0, "destroyed"))) {
        cass_op_end(op, TR_NOT_FOUND, "history: no such key");
        return;
    }
    if ((size_t)wrapped.len > sizeof op->wrapped) {
        cass_op_end(op, TR_INVALID, "history: a wrapped key of %d bytes", (int)wrapped.len);
        return;
    }
    op->mine = put && (size_t)wrapped.len == op->wrapped_len && memcmp(wrapped.data, op->wrapped, op->wrapped_len) == 0;
    op->wrapped_len = (size_t)wrapped.len;
    if (wrapped.len > 0)
        memcpy(op->wrapped, wrapped.data, (size_t)wrapped.len);
    cass_op_end(op, TR_OK, NULL);
}

static void on_key_put(struct history_op *op, const struct cql_rows *rows)
{
    if (!cass_was_applied(rows)) {
        key_answer(op, rows, true);
        return;
    }
    op->mine = true;
    cass_op_end(op, TR_OK, NULL);
}

void cass_begin_key_put(struct history_op *op)
{
    struct call c;

    call_key(op, &c, ST_KEY_PUT);
    cass_arg_bytes(&c, op->wrapped, op->wrapped_len);
    cass_op_send(op, &c, 1, true, on_key_put);
}

static void on_key(struct history_op *op, const struct cql_rows *rows)
{
    key_answer(op, rows, false);
}

void cass_begin_key_get(struct history_op *op)
{
    struct call c;

    call_key(op, &c, ST_KEY);
    cass_op_send(op, &c, 1, false, on_key);
}
