/* history_list - a user's chats: the ids from the list, and each chat's record by an operation of its own, all at once. */
#include "adapter/cassandra/history_impl.h"

#include <stdlib.h>

#define PAGE 200

static void list_page(struct history_op *op);

/* All of this page are there: keep the living ones, in their order. */
static void list_merge(struct history_op *op)
{
    const uint32_t limit = op->in.read.range.limit;

    for (size_t i = 0; i < op->looking; i++)
        if (op->chats_ok[i])
            op->chats[op->chats_n++] = op->chats[op->list_at + i];
    op->looking = 0;
    if (limit != 0 && op->chats_n > limit) {
        op->more = true;
        op->chats_n = limit;
        cass_op_end(op, TR_OK, NULL);
    } else if (op->paging.len > 0) {
        list_page(op);
    } else {
        cass_op_end(op, TR_OK, NULL);
    }
}

static void on_part(struct history_op *part, enum tr_rc rc, const struct tr_err *err)
{
    struct history_op *op = part->parent;

    op->holds--;
    op->parts--;
    if (op->answered) {
        cass_op_drop(op);
        return;
    }
    if (rc == TR_OK) {
        op->chats[op->list_at + part->part] = part->chat;
        op->chats_ok[part->part] = true;
    } else if (rc != TR_NOT_FOUND) { /* not there: deleted, and not taken off the list yet */
        cass_op_end(op, rc, "%s", err->msg);
        return;
    }
    if (op->parts == 0)
        list_merge(op);
}

static void look_up(struct history_op *op, const struct uuid *chat, size_t i)
{
    struct cassandra_history *h = op->owner;
    struct history_op *part = NULL;
    struct tr_err err = {0};
    const enum tr_rc rc = cass_op_new(h, cass_begin_chat_get, on_part, NULL, &part, &err);

    if (rc != TR_OK) {
        cass_op_end(op, rc, "%s", err.msg);
        return;
    }
    part->slot = cass_slot_get(h, chat);
    if (part->slot == NULL) {
        cass_op_free(part);
        cass_op_end(op, TR_NOMEM, "history: chats");
        return;
    }
    part->parent = op;
    part->part = i;
    part->deadline_ms = op->deadline_ms;
    op->holds++;
    op->parts++;
    cass_op_start(part, NULL);
}

static void on_list(struct history_op *op, const struct cql_rows *rows)
{
    const size_t n = cql_rows(rows), cap = op->chats_n + n;
    struct history_chat *chats;
    bool *ok;

    cass_op_next_page(op, rows);
    if (n == 0) {
        list_merge(op);
        return;
    }
    chats = realloc(op->chats, (cap + 1) * sizeof *chats);
    if (chats != NULL)
        op->chats = chats;
    ok = calloc(n, sizeof *ok);
    if (chats == NULL || ok == NULL) {
        free(ok);
        cass_op_end(op, TR_NOMEM, "history: chats");
        return;
    }
    free(op->chats_ok);
    op->chats_ok = ok;
    op->list_at = op->chats_n;
    op->looking = n;
    op->holds++; /* it may end in here */
    for (size_t i = 0; i < n && !op->answered; i++) {
        const struct uuid chat = cass_cell_uuid(cass_cell_named(rows, i, "chat"));

        look_up(op, &chat, i);
    }
    op->holds--;
    cass_op_drop(op);
}

static void list_page(struct history_op *op)
{
    const uint32_t limit = op->in.read.range.limit;
    const struct uuid *before = &op->in.read.range.before;
    struct call c;

    cass_call_init(&c, ST_BY_USER);
    cass_arg_uuid(&c, &op->in.read.chat);
    cass_arg_uuid(&c, uuid_is_nil(before) ? &cass_turn_last : before);
    op->page_size = limit == 0 || limit >= PAGE ? PAGE : (int32_t)limit + 1;
    cass_op_send(op, &c, 1, false, on_list);
}

void cass_begin_chats_of_user(struct history_op *op)
{
    list_page(op);
}
