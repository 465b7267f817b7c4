/*
 * history_chat - creating and deleting chats, and keys.
 *
 * Created in an order in which nothing is seen before all of it is there (history_schema.c): the first bucket, the client id's
 * claim, the `chats` row, the lists.  Deleted in one that leaves nothing to read or to add to: the key, the `chats` row, then
 * each bucket, the lists.  Both begin anew when they are issued again, and each step is harmless twice.
 */
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- creating ---- */

static void create_claim(struct history_op *op);
static void create_bucket(struct history_op *op);

/* A bucket and all its rows, for good. */
static void call_forget(struct call c[2], const struct uuid *chat, int32_t bucket)
{
    call_init(&c[0], ST_FORGET);
    call_init(&c[1], ST_FORGET_ROWS);
    for (int i = 0; i < 2; i++) {
        arg_uuid(&c[i], chat);
        arg_i32(&c[i], bucket);
    }
    arg_uuid(&c[1], &uuid_nil);
}

static int32_t first_bucket(const struct history_chat *chat)
{
    return history_bucket(uuid_is_nil(&chat->head) ? &chat->chat : &chat->head);
}

static void create_loaded(struct history_op *op)
{
    chat_of_slot(op->slot, &op->chat);
    op->mine = uuid_eq(&op->chat.chat, &op->in.create.chat.chat) && uuid_eq(&op->chat.user, &op->in.create.chat.user);
    op_end(op, TR_OK, NULL);
}

/* The answer is the chat of this id as it stands. */
static void create_answer(struct history_op *op, const struct uuid *chat)
{
    struct chat_slot *slot = slot_get(op->owner, chat);

    if (slot == NULL) {
        op_end(op, TR_NOMEM, "history: chat");
        return;
    }
    slot_put(op->owner, op->slot);
    op->slot = slot;
    slot_load(op, create_loaded);
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
    call_init(&c, ST_SELECTED_PUT);
    arg_uuid(&c, &op->chat.user);
    arg_text(&c, op->chat.character);
    arg_uuid(&c, &op->chat.chat);
    op_send(op, &c, 1, true, on_listed);
}

static void list_by_character(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    call_init(&c, ST_BY_CHARACTER_PUT);
    arg_text(&c, op->chat.character);
    arg_i32(&c, history_bucket(&op->chat.chat));
    arg_uuid(&c, &op->chat.chat);
    arg_uuid(&c, &op->chat.user);
    arg_u64(&c, op->chat.created_ms);
    op_send(op, &c, 1, true, list_selected);
}

static void on_row(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    op->wrote = true;
    if (!was_applied(rows)) {
        if (cell_is_set(cell_named(rows, 0, "deleted"))) {
            op_end(op, TR_NOT_FOUND, "history: this chat is deleted");
            return;
        }
        op->chat.user = cell_uuid(cell_named(rows, 0, "user"));
        cell_text(cell_named(rows, 0, "character"), op->chat.character, sizeof op->chat.character);
        op->chat.created_ms = cell_u64(cell_named(rows, 0, "created"));
    }
    call_init(&c, ST_BY_USER_PUT);
    arg_uuid(&c, &op->chat.user);
    arg_uuid(&c, &op->chat.chat);
    arg_text(&c, op->chat.character);
    arg_u64(&c, op->chat.created_ms);
    op_send(op, &c, 1, true, list_by_character);
}

/* The row that makes the chat op->chat there; its first bucket is op->reading. */
static void create_row(struct history_op *op)
{
    struct call c;

    wire_list_i32(&op->list, &op->reading, 1);
    call_init(&c, ST_CHAT_INSERT);
    arg_uuid(&c, &op->chat.chat);
    arg_uuid(&c, &op->chat.user);
    arg_text(&c, op->chat.character);
    arg_u64(&c, op->chat.created_ms);
    arg_i32(&c, history_bucket(&op->chat.chat));
    arg_bytes(&c, op->list.data, op->list.len);
    op_send(op, &c, 1, true, on_row);
}

static void on_taken(struct history_op *op, const struct cql_rows *rows)
{
    if (was_applied(rows))
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
    call_init(&c, ST_CLIENT_TAKE);
    arg_uuid(&c, &want->chat);
    arg_text(&c, want->character);
    arg_u64(&c, want->created_ms);
    arg_i32(&c, op->reading);
    arg_uuid(&c, &want->user);
    arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    arg_uuid(&c, &op->in.create.standing);
    op_send(op, &c, 1, true, on_taken);
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
    op->in.create.takes = op->in.create.has_row && cell_is_set(cell_named(rows, 0, "deleted"));
    if (op->in.create.takes && op->in.create.made) {
        create_take(op);
    } else if (op->in.create.takes) {
        create_bucket(op);
    } else if (op->in.create.made) { /* lost a race: what was made for nothing goes */
        call_forget(c, &want->chat, first_bucket(want));
        op_send(op, c, 2, true, on_dropped);
    } else {
        create_standing(op);
    }
}

/* Another chat stands under the client id. */
static void look_at_standing(struct history_op *op, const struct cql_rows *claim)
{
    struct call c;

    op->chat = op->in.create.chat; /* the user is the same */
    op->chat.chat = op->in.create.standing = cell_uuid(cell_named(claim, 0, "chat"));
    cell_text(cell_named(claim, 0, "character"), op->chat.character, sizeof op->chat.character);
    op->chat.created_ms = cell_u64(cell_named(claim, 0, "created"));
    op->reading = cell_i32(cell_named(claim, 0, "bucket"));
    call_init(&c, ST_CHAT);
    arg_uuid(&c, &op->in.create.standing);
    op_send(op, &c, 1, false, on_standing);
}

static void on_claimed(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid standing = cell_uuid(cell_named(rows, 0, "chat"));

    op->chat = op->in.create.chat;
    op->reading = first_bucket(&op->chat);
    if (was_applied(rows) || uuid_eq(&standing, &op->chat.chat))
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
    call_init(&c, ST_CLIENT_PUT);
    arg_uuid(&c, &want->user);
    arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    arg_uuid(&c, &want->chat);
    arg_text(&c, want->character);
    arg_u64(&c, want->created_ms);
    arg_i32(&c, first_bucket(want));
    op_send(op, &c, 1, true, on_claimed);
}

static void on_bucket_made(struct history_op *op, const struct cql_rows *rows)
{
    op->wrote = op->in.create.made = true;
    if (!was_applied(rows) && cell_is_set(cell_named(rows, 0, "deleted")))
        op_end(op, TR_NOT_FOUND, "history: this chat is deleted"); /* a late one */
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
        op_end(op, TR_NOMEM, "history: batch");
        return;
    }
    call_init(&c[0], ST_OPEN);
    arg_uuid(&c[0], &want->head);
    arg_u64(&c[0], want->index);
    arg_u64(&c[0], 1);
    arg_u64(&c[0], want->updated_ms);
    arg_u64(&c[0], 0);
    arg_uuid(&c[0], &want->chat);
    arg_i32(&c[0], first_bucket(want));
    for (size_t i = 0; i < op->rows_n; i++)
        call_row(&c[1 + i], ST_ROW, &op->rows[i], first_bucket(want), 1);
    op_send(op, c, 1 + op->rows_n, true, on_bucket_made);
    free(c);
}

static void on_client(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid standing = cell_uuid(cell_named(rows, 0, "chat"));

    if (cql_rows(rows) > 0 && !uuid_eq(&standing, &op->in.create.chat.chat))
        look_at_standing(op, rows);
    else
        create_bucket(op);
}

void begin_chat_create(struct history_op *op)
{
    struct call c;

    if (!op->in.create.has_client) {
        create_bucket(op);
        return;
    }
    call_init(&c, ST_CLIENT);
    arg_uuid(&c, &op->in.create.chat.user);
    arg_bytes(&c, op->in.create.client, sizeof op->in.create.client);
    op_send(op, &c, 1, false, on_client);
}

/* ---- deleting ---- */

static void forget_next(struct history_op *op);

static void on_forgotten(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows; /* not applied: it was before */
    op->in.admin.at++;
    forget_next(op);
}

static void on_unlisted(struct history_op *op, const struct cql_rows *rows)
{
    (void)rows;
    slot_forget(op->slot);
    op_end(op, TR_OK, NULL);
}

static void on_selected(struct history_op *op, const struct cql_rows *rows)
{
    const struct uuid selected = cell_uuid(cell_named(rows, 0, "chat"));
    struct call c;

    if (cql_rows(rows) == 0 || !uuid_eq(&selected, &op->slot->chat)) {
        on_unlisted(op, rows);
        return;
    }
    call_init(&c, ST_SELECTED_DROP);
    arg_uuid(&c, &op->in.admin.chat.user);
    op_send(op, &c, 1, true, on_unlisted);
}

static void unlist_selected(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    call_init(&c, ST_SELECTED);
    arg_uuid(&c, &op->in.admin.chat.user);
    op_send(op, &c, 1, false, on_selected);
}

static void unlist_by_character(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    call_init(&c, ST_BY_CHARACTER_DROP);
    arg_text(&c, op->in.admin.chat.character);
    arg_i32(&c, history_bucket(&op->slot->chat));
    arg_uuid(&c, &op->slot->chat);
    op_send(op, &c, 1, true, unlist_selected);
}

/* The buckets that the chat's row had when it was marked: none comes to them any more. */
static void forget_next(struct history_op *op)
{
    struct chat_slot *slot = op->slot;
    struct call c[2];

    if (op->in.admin.at < slot->buckets_n) {
        call_forget(c, &slot->chat, slot->buckets[op->in.admin.at]);
        op_send(op, c, 2, true, on_forgotten);
        return;
    }
    call_init(&c[0], ST_BY_USER_DROP);
    arg_uuid(&c[0], &op->in.admin.chat.user);
    arg_uuid(&c[0], &slot->chat);
    op_send(op, c, 1, true, unlist_by_character);
}

static void on_buckets(struct history_op *op, const struct cql_rows *rows)
{
    const struct cql_value set = cell_named(rows, 0, "buckets");

    for (int32_t at = 4; at + 8 <= set.len; at += 8)
        if (!slot_has_bucket(op->slot, cell_i32((struct cql_value){set.data + at + 4, 4}))) {
            op_end(op, TR_NOMEM, "history: buckets");
            return;
        }
    forget_next(op);
}

static void on_marked(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows; /* not applied: it was before */
    call_init(&c, ST_CHAT);
    arg_uuid(&c, &op->slot->chat);
    op_send(op, &c, 1, false, on_buckets);
}

static void on_key_gone(struct history_op *op, const struct cql_rows *rows)
{
    struct call c;

    (void)rows;
    op->wrote = true;
    call_init(&c, ST_CHAT_DELETE);
    arg_u64(&c, wall_ms());
    arg_uuid(&c, &op->slot->chat);
    op_send(op, &c, 1, true, on_marked);
}

static void on_doomed(struct history_op *op, const struct cql_rows *rows)
{
    char id[UUID_TEXT];
    struct call c;

    if (cql_rows(rows) == 0 || !cell_is_set(cell_named(rows, 0, "user"))) {
        op_end(op, TR_NOT_FOUND, "history: no such chat");
        return;
    }
    op->in.admin.chat.user = cell_uuid(cell_named(rows, 0, "user"));
    cell_text(cell_named(rows, 0, "character"), op->in.admin.chat.character, sizeof op->in.admin.chat.character);
    uuid_format(&op->slot->chat, id);
    call_init(&c, ST_KEY_DESTROY);
    arg_bytes(&c, "", 0);
    arg_i32(&c, SEAL_OWNER_CHAT);
    arg_text(&c, id);
    op_send(op, &c, 1, true, on_key_gone);
}

void begin_chat_delete(struct history_op *op)
{
    struct call c;

    call_init(&c, ST_CHAT);
    arg_uuid(&c, &op->slot->chat);
    op_send(op, &c, 1, false, on_doomed);
}

/* ---- keys ---- */

static void call_key(struct history_op *op, struct call *c, enum history_stmt st)
{
    call_init(c, st);
    arg_i32(c, (int32_t)op->in.key.owner);
    arg_text(c, op->in.key.id);
}

static void key_answer(struct history_op *op, const struct cql_rows *rows, bool put)
{
    const struct cql_value wrapped = cell_named(rows, 0, "wrapped");

    if (!cell_is_set(wrapped) || cell_is_set(cell_named(rows, 0, "destroyed"))) {
        op_end(op, TR_NOT_FOUND, "history: no such key");
        return;
    }
    if ((size_t)wrapped.len > sizeof op->wrapped) {
        op_end(op, TR_INVALID, "history: a wrapped key of %d bytes", (int)wrapped.len);
        return;
    }
    op->mine = put && (size_t)wrapped.len == op->wrapped_len && memcmp(wrapped.data, op->wrapped, op->wrapped_len) == 0;
    op->wrapped_len = (size_t)wrapped.len;
    if (wrapped.len > 0)
        memcpy(op->wrapped, wrapped.data, (size_t)wrapped.len);
    op_end(op, TR_OK, NULL);
}

static void on_key_put(struct history_op *op, const struct cql_rows *rows)
{
    if (!was_applied(rows)) {
        key_answer(op, rows, true);
        return;
    }
    op->mine = true;
    op_end(op, TR_OK, NULL);
}

void begin_key_put(struct history_op *op)
{
    struct call c;

    call_key(op, &c, ST_KEY_PUT);
    arg_bytes(&c, op->wrapped, op->wrapped_len);
    op_send(op, &c, 1, true, on_key_put);
}

static void on_key(struct history_op *op, const struct cql_rows *rows)
{
    key_answer(op, rows, false);
}

void begin_key_get(struct history_op *op)
{
    struct call c;

    call_key(op, &c, ST_KEY);
    op_send(op, &c, 1, false, on_key);
}
