/*
 * history_schema - the tables, the statements, and a row's way into and out of them.
 *
 * The shape is contract 9's and 11.8's: a row a part of a turn, ((chat, bucket), turn, part, rev), bucket = the month
 * of the turn's id.  Ids are 16 bytes, so their order is that of time.  `turns` lies in the order of its key: a page of
 * turns is one run of the file, and (bucket, turn) is turn order, so that no list of buckets is needed to find them.
 * The plain columns are for metrics and datasets; only `sealed` holds words.
 */
#include "adapter/sqlite/history_impl.h"

#include <stdlib.h>
#include <string.h>

const char history_schema[] =
    "CREATE TABLE chats ("
    "  chat BLOB NOT NULL PRIMARY KEY, user BLOB NOT NULL, client BLOB, character TEXT NOT NULL,"
    "  month INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
    "  head BLOB NOT NULL, idx INTEGER NOT NULL, change INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX chats_by_client ON chats (user, client) WHERE client IS NOT NULL;"
    "CREATE INDEX chats_by_user ON chats (user, chat);"
    "CREATE INDEX chats_by_character ON chats (character, month);"
    "CREATE TABLE selected ("
    "  user BLOB NOT NULL PRIMARY KEY, character TEXT NOT NULL, chat BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE forgotten (chat BLOB NOT NULL PRIMARY KEY, deleted INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE clients ("
    "  chat BLOB NOT NULL, client BLOB NOT NULL, turn BLOB NOT NULL, PRIMARY KEY (chat, client)) WITHOUT ROWID;"
    "CREATE TABLE turns ("
    "  chat BLOB NOT NULL, bucket INTEGER NOT NULL, turn BLOB NOT NULL, part INTEGER NOT NULL, rev INTEGER NOT NULL,"
    "  role INTEGER NOT NULL, character TEXT NOT NULL, user BLOB NOT NULL, created INTEGER NOT NULL,"
    "  change INTEGER NOT NULL, predecessor BLOB NOT NULL, idx INTEGER NOT NULL, language TEXT NOT NULL,"
    "  attempt INTEGER NOT NULL, finish INTEGER NOT NULL, code TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
    "  cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, ttft_ms INTEGER NOT NULL,"
    "  event INTEGER NOT NULL, variant INTEGER NOT NULL, known INTEGER NOT NULL, sealed BLOB,"
    "  PRIMARY KEY (chat, bucket, turn, part, rev)) WITHOUT ROWID;"
    "CREATE INDEX turns_by_change ON turns (chat, change);"
    "CREATE TABLE keys ("
    "  owner INTEGER NOT NULL, id TEXT NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (owner, id)) WITHOUT ROWID;";

#define CHAT_COLUMNS "chat, user, character, created, updated, head, idx, change"
#define ROW_COLUMNS                                                                                                    \
    "chat, turn, part, rev, role, character, user, created, change, predecessor, idx, language, attempt, finish,"      \
    " code, prompt_tokens, cached_tokens, completion_tokens, ttft_ms, event, variant, known, sealed"
#define OF_TURN " WHERE chat = ?1 AND bucket = ?2 AND turn = ?3"
#define BETWEEN " FROM turns WHERE chat = ?1 AND (bucket, turn) > (?2, ?3) AND (bucket, turn) < (?4, ?5)"

const char *const history_sql[ST_COUNT] = {
    [ST_CHAT] = "SELECT " CHAT_COLUMNS " FROM chats WHERE chat = ?1",
    [ST_CHAT_BY_CLIENT] = "SELECT " CHAT_COLUMNS " FROM chats WHERE user = ?1 AND client = ?2",
    [ST_CHATS_OF_USER] = "SELECT " CHAT_COLUMNS " FROM chats WHERE user = ?1 AND chat < ?2 ORDER BY chat DESC LIMIT ?3",
    [ST_CHAT_INSERT] = "INSERT INTO chats (" CHAT_COLUMNS ", client, month) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
    [ST_CHAT_ADVANCE] = "UPDATE chats SET head = ?2, idx = ?3, change = ?4, updated = ?5 WHERE chat = ?1",
    [ST_CHAT_CHANGE] = "UPDATE chats SET change = ?2 WHERE chat = ?1",
    [ST_CHAT_DELETE] = "DELETE FROM chats WHERE chat = ?1",
    [ST_SELECTED_PUT] = "INSERT OR REPLACE INTO selected (user, character, chat) VALUES (?1, ?2, ?3)",
    [ST_SELECTED_DROP] = "DELETE FROM selected WHERE user = ?1 AND chat = ?2",
    [ST_FORGOTTEN] = "SELECT 1 FROM forgotten WHERE chat = ?1",
    [ST_FORGOTTEN_INSERT] = "INSERT OR IGNORE INTO forgotten (chat, deleted) VALUES (?1, ?2)",
    [ST_CLIENT] = "SELECT turn FROM clients WHERE chat = ?1 AND client = ?2",
    [ST_CLIENT_INSERT] = "INSERT INTO clients (chat, client, turn) VALUES (?1, ?2, ?3)",
    [ST_CLIENTS_DELETE] = "DELETE FROM clients WHERE chat = ?1",
    [ST_ROW] = "SELECT " ROW_COLUMNS " FROM turns" OF_TURN " AND part = ?4 AND rev = ?5",
    [ST_ROW_STANDS] = "SELECT 1 FROM turns" OF_TURN " AND part = ?4 AND rev = ?5",
    [ST_ROW_INSERT] = ("INSERT INTO turns (" ROW_COLUMNS ", bucket) VALUES"
                       " (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24)"),
    [ST_ROWS_DELETE] = "DELETE FROM turns WHERE chat = ?1",
    [ST_TURN_STANDS] = "SELECT 1 FROM turns" OF_TURN " LIMIT 1",
    [ST_TURN_DELETED] = "SELECT 1 FROM turns" OF_TURN " AND part = -1 AND event = 3 LIMIT 1",
    [ST_TURN_ERASE] = "UPDATE turns SET sealed = NULL" OF_TURN " AND sealed IS NOT NULL",
    [ST_TURN_ROWS] = "SELECT " ROW_COLUMNS " FROM turns" OF_TURN " ORDER BY part, rev",
    [ST_ROWS_UP] = "SELECT " ROW_COLUMNS BETWEEN " ORDER BY bucket, turn, part, rev",
    [ST_ROWS_DOWN] = "SELECT " ROW_COLUMNS BETWEEN " ORDER BY bucket DESC, turn DESC, part DESC, rev DESC",
    [ST_CHANGED] = ("SELECT DISTINCT bucket, turn FROM turns INDEXED BY turns_by_change WHERE chat = ?1 AND change > ?2"
                    " ORDER BY bucket, turn LIMIT ?3"),
    [ST_KEY] = "SELECT wrapped FROM keys WHERE owner = ?1 AND id = ?2",
    [ST_KEY_INSERT] = "INSERT INTO keys (owner, id, wrapped) VALUES (?1, ?2, ?3)",
    [ST_KEY_ERASE] = "UPDATE keys SET wrapped = zeroblob(length(wrapped)) WHERE owner = ?1 AND id = ?2",
    [ST_KEY_DELETE] = "DELETE FROM keys WHERE owner = ?1 AND id = ?2",
    [ST_SNAPSHOT] = "BEGIN",
    [ST_SNAPSHOT_END] = "COMMIT",
};
_Static_assert(PART_STATE == -1 && TURN_EVENT_DELETE == 3, "as in ST_TURN_DELETED");

/* Days since 1970 -> year and month (Hinnant's days_from_civil, inverted; the calendar repeats every 146097 days). */
int64_t history_bucket(const struct uuid *id)
{
    const int64_t z = (int64_t)(uuid_ms(id) / 86400000) + 719468;
    const int64_t era = z / 146097, doe = z % 146097;
    const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    const int64_t mp = (5 * doy + 2) / 153;
    const int64_t month = mp < 10 ? mp + 3 : mp - 9;

    return (yoe + era * 400 + (month <= 2)) * 100 + month;
}

void history_bind_uuid(sqlite3_stmt *stmt, int i, const struct uuid *id)
{
    sqlite3_bind_blob(stmt, i, id->b, sizeof id->b, SQLITE_STATIC);
}

struct uuid history_uuid(sqlite3_stmt *stmt, int col)
{
    struct uuid id = {0};
    const void *data = sqlite3_column_blob(stmt, col);

    if (data != NULL && sqlite3_column_bytes(stmt, col) == (int)sizeof id.b)
        memcpy(id.b, data, sizeof id.b);
    return id;
}

static void read_text(sqlite3_stmt *stmt, int col, char *out, size_t size)
{
    const char *text = db_text(stmt, col);
    size_t len = strnlen(text, size - 1);

    memcpy(out, text, len);
    out[len] = '\0';
}

/* A text of a fixed field, ended or not. */
static void bind_field(sqlite3_stmt *stmt, int i, const char *text, size_t size)
{
    sqlite3_bind_text(stmt, i, text, (int)strnlen(text, size), SQLITE_STATIC);
}

void history_bind_turn(sqlite3_stmt *stmt, const struct uuid *chat, const struct uuid *turn)
{
    history_bind_uuid(stmt, 1, chat);
    sqlite3_bind_int64(stmt, 2, history_bucket(turn));
    history_bind_uuid(stmt, 3, turn);
}

void history_bind_row(sqlite3_stmt *stmt, const struct turn_row *row, uint64_t change)
{
    history_bind_uuid(stmt, 1, &row->chat);
    history_bind_uuid(stmt, 2, &row->turn);
    sqlite3_bind_int(stmt, 3, row->part);
    sqlite3_bind_int(stmt, 4, row->rev);
    sqlite3_bind_int(stmt, 5, (int)row->speaker);
    bind_field(stmt, 6, row->character, sizeof row->character);
    history_bind_uuid(stmt, 7, &row->user);
    db_bind_u64(stmt, 8, row->created_ms);
    db_bind_u64(stmt, 9, change);
    history_bind_uuid(stmt, 10, &row->predecessor);
    db_bind_u64(stmt, 11, row->index);
    bind_field(stmt, 12, row->language, sizeof row->language);
    db_bind_u64(stmt, 13, row->attempt);
    sqlite3_bind_int(stmt, 14, (int)row->finish);
    bind_field(stmt, 15, row->code, sizeof row->code);
    sqlite3_bind_int64(stmt, 16, row->prompt_tokens);
    sqlite3_bind_int64(stmt, 17, row->cached_tokens);
    sqlite3_bind_int64(stmt, 18, row->completion_tokens);
    sqlite3_bind_int64(stmt, 19, row->ttft_ms);
    sqlite3_bind_int(stmt, 20, (int)row->event);
    sqlite3_bind_int(stmt, 21, row->variant);
    sqlite3_bind_int(stmt, 22, row->known);
    if (row->sealed_len == 0)
        sqlite3_bind_null(stmt, 23);
    else
        sqlite3_bind_blob64(stmt, 23, row->sealed, row->sealed_len, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 24, history_bucket(&row->turn));
}

static bool row_set_grow(struct row_set *set)
{
    const size_t cap = set->cap == 0 ? 8 : set->cap * 2;
    struct turn_row *rows = realloc(set->rows, cap * sizeof *rows);

    if (rows == NULL)
        return false;
    set->rows = rows;
    set->cap = cap;
    return true;
}

enum tr_rc row_set_add(struct row_set *set, sqlite3_stmt *stmt, struct tr_err *err)
{
    struct turn_row *row;
    struct slice sealed;

    if (set->n == set->cap && !row_set_grow(set))
        return tr_fail(err, TR_NOMEM, "history: rows");
    row = &set->rows[set->n];
    memset(row, 0, sizeof *row);
    row->chat = history_uuid(stmt, 0);
    row->turn = history_uuid(stmt, 1);
    row->part = sqlite3_column_int(stmt, 2);
    row->rev = sqlite3_column_int(stmt, 3);
    row->speaker = (enum speaker)sqlite3_column_int(stmt, 4);
    read_text(stmt, 5, row->character, sizeof row->character);
    row->user = history_uuid(stmt, 6);
    row->created_ms = db_u64(stmt, 7);
    row->change = db_u64(stmt, 8);
    row->predecessor = history_uuid(stmt, 9);
    row->index = db_u64(stmt, 10);
    read_text(stmt, 11, row->language, sizeof row->language);
    row->attempt = db_u64(stmt, 12);
    row->finish = (enum finish)sqlite3_column_int(stmt, 13);
    read_text(stmt, 14, row->code, sizeof row->code);
    row->prompt_tokens = (uint32_t)db_u64(stmt, 15);
    row->cached_tokens = (uint32_t)db_u64(stmt, 16);
    row->completion_tokens = (uint32_t)db_u64(stmt, 17);
    row->ttft_ms = (uint32_t)db_u64(stmt, 18);
    row->event = (enum turn_event)sqlite3_column_int(stmt, 19);
    row->variant = sqlite3_column_int(stmt, 20);
    row->known = sqlite3_column_int(stmt, 21);
    sealed = db_slice(stmt, 22);
    if (sealed.len > 0) {
        buf_add(&set->bytes, sealed.data, sealed.len);
        if (set->bytes.failed)
            return tr_fail(err, TR_NOMEM, "history: rows");
        row->sealed_len = sealed.len; /* where it lies: row_set_settle(), once the bytes stay where they are */
    }
    set->n++;
    return TR_OK;
}

void row_set_settle(struct row_set *set)
{
    const uint8_t *at = set->bytes.data;

    for (size_t i = 0; i < set->n; i++) {
        struct turn_row *row = &set->rows[i];

        if (row->sealed_len == 0)
            continue;
        row->sealed = at;
        at += row->sealed_len;
    }
}

void row_set_release(struct row_set *set)
{
    free(set->rows);
    buf_release(&set->bytes);
    *set = (struct row_set){0};
}

void history_read_chat(sqlite3_stmt *stmt, struct history_chat *ret_chat)
{
    *ret_chat = (struct history_chat){
        .chat = history_uuid(stmt, 0),
        .user = history_uuid(stmt, 1),
        .created_ms = db_u64(stmt, 3),
        .updated_ms = db_u64(stmt, 4),
        .head = history_uuid(stmt, 5),
        .index = db_u64(stmt, 6),
        .change = db_u64(stmt, 7),
    };
    read_text(stmt, 2, ret_chat->character, sizeof ret_chat->character);
}

enum tr_rc history_load_chat(struct history_conn *c, const struct uuid *chat, struct history_chat *ret_chat,
                             struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, ST_CHAT, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, chat);
    rc = db_row(c->db, stmt, err);
    if (rc != TR_OK)
        return rc;
    history_read_chat(stmt, ret_chat);
    sqlite3_reset(stmt);
    return TR_OK;
}

enum tr_rc history_exists(struct history_conn *c, enum history_stmt st, const struct uuid *id, struct tr_err *err)
{
    sqlite3_stmt *stmt = db_stmt(c->db, st, err);
    enum tr_rc rc;

    if (stmt == NULL)
        return err->rc;
    history_bind_uuid(stmt, 1, id);
    rc = db_row(c->db, stmt, err);
    sqlite3_reset(stmt);
    return rc;
}
