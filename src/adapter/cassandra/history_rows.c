/* history_rows - values into statements, and an answer's rows out of it. */
#include "adapter/cassandra/history_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A client id's claim has version 0, a turn 7: UUIDs are ordered by version first. */
const struct uuid cass_turn_first = {{0, 0, 0, 0, 0, 0, 0x70}};
const struct uuid cass_turn_last = {{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};

void cass_call_init(struct call *c, enum history_stmt st)
{
    c->st = st;
    c->n = 0;
}

static void add(struct call *c, const void *data, int32_t len)
{
    assert(c->n < CALL_ARGS_MAX);
    c->v[c->n++] = (struct cql_value){data, len};
}

void cass_arg_uuid(struct call *c, const struct uuid *id)
{
    add(c, id->b, sizeof id->b);
}

static void put_be(uint8_t *out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

void cass_arg_i32(struct call *c, int32_t v)
{
    put_be(c->room[c->n], (uint32_t)v, 4);
    add(c, c->room[c->n], 4);
}

void cass_arg_u64(struct call *c, uint64_t v)
{
    put_be(c->room[c->n], v, 8);
    add(c, c->room[c->n], 8);
}

void cass_arg_bytes(struct call *c, const void *data, size_t len)
{
    add(c, data, (int32_t)len);
}

void cass_arg_text(struct call *c, const char *text)
{
    add(c, text, (int32_t)strlen(text));
}

void cass_arg_none(struct call *c, int32_t kind)
{
    add(c, NULL, kind);
}

void cass_wire_list_i32(struct buf *b, const int32_t *values, size_t n)
{
    buf_clear(b);
    buf_add_be32(b, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_add_be32(b, 4);
        buf_add_be32(b, (uint32_t)values[i]);
    }
}

void cass_wire_list_uuid(struct buf *b, const struct uuid *values, size_t n)
{
    buf_clear(b);
    buf_add_be32(b, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_add_be32(b, sizeof values[i].b);
        buf_add(b, values[i].b, sizeof values[i].b);
    }
}

static struct cql_value cell_at(const struct cql_rows *rows, size_t row, int column)
{
    return column < 0 ? (struct cql_value){NULL, CQL_NULL} : cql_cell(rows, row, (size_t)column);
}

bool cass_wire_list_next(struct cql_value list, int32_t *at, int32_t *ret_value)
{
    if (*at == 0)
        *at = 4; /* behind the count */
    if (list.len < 8 || *at > list.len - 8)
        return false;
    *ret_value = cass_cell_i32((struct cql_value){list.data + *at + 4, 4});
    *at += 8;
    return true;
}

bool cass_wire_map_has(struct cql_value map, const struct uuid *key)
{
    for (int32_t at = 4; at <= map.len - 24;) { /* a length, a key, a length, a value */
        const struct uuid id = cass_cell_uuid((struct cql_value){map.data + at + 4, 16});
        const int32_t len = cass_cell_i32((struct cql_value){map.data + at + 20, 4});

        if (uuid_eq(&id, key))
            return true;
        at += 24;
        if (len > map.len - at)
            return false;
        at += len > 0 ? len : 0;
    }
    return false;
}

struct cql_value cass_cell_named(const struct cql_rows *rows, size_t row, const char *name)
{
    return row < cql_rows(rows) ? cell_at(rows, row, cql_column(rows, name)) : (struct cql_value){NULL, CQL_NULL};
}

struct uuid cass_cell_uuid(struct cql_value v)
{
    struct uuid id = {0};

    if (v.len == (int32_t)sizeof id.b)
        memcpy(id.b, v.data, sizeof id.b);
    return id;
}

static uint64_t get_be(struct cql_value v, int32_t bytes)
{
    uint64_t n = 0;

    if (v.len != bytes)
        return 0;
    for (int32_t i = 0; i < bytes; i++)
        n = n << 8 | v.data[i];
    return n;
}

int32_t cass_cell_i32(struct cql_value v)
{
    return (int32_t)(uint32_t)get_be(v, 4);
}

uint64_t cass_cell_u64(struct cql_value v)
{
    return get_be(v, 8);
}

void cass_cell_text(struct cql_value v, char *out, size_t size)
{
    const size_t len = v.len > 0 ? (size_t)v.len : 0, n = len < size ? len : size - 1;

    if (n > 0)
        memcpy(out, v.data, n);
    out[n] = '\0';
}

bool cass_was_applied(const struct cql_rows *rows)
{
    const struct cql_value v = cass_cell_named(rows, 0, "[applied]");

    return v.len == 1 && v.data[0] != 0;
}

bool cass_read_state(const struct cql_rows *rows, size_t row, struct history_state *ret_state)
{
    const struct cql_value head = cass_cell_named(rows, row, "head"), deleted = cass_cell_named(rows, row, "deleted");

    if (!cass_cell_is_set(head) && !cass_cell_is_set(deleted))
        return false;
    *ret_state = (struct history_state){
        .exists = cass_cell_is_set(head),
        .deleted = deleted.len == 1 && deleted.data[0] != 0,
        .head = cass_cell_uuid(head),
        .index = cass_cell_u64(cass_cell_named(rows, row, "idx")),
        .change = cass_cell_u64(cass_cell_named(rows, row, "change_no")),
        .updated_ms = cass_cell_u64(cass_cell_named(rows, row, "updated")),
        .base = cass_cell_u64(cass_cell_named(rows, row, "base")),
        .next = cass_cell_i32(cass_cell_named(rows, row, "next")),
    };
    return true;
}

/* What is 0 or "" is left unset: it reads as 0 or "" again, and takes no room. */
static void arg_i32_or_unset(struct call *c, int32_t v)
{
    if (v == 0)
        cass_arg_none(c, CQL_UNSET);
    else
        cass_arg_i32(c, v);
}

static void arg_u64_or_unset(struct call *c, uint64_t v)
{
    if (v == 0)
        cass_arg_none(c, CQL_UNSET);
    else
        cass_arg_u64(c, v);
}

static void arg_field_or_unset(struct call *c, const char *text, size_t size)
{
    const size_t len = strnlen(text, size);

    if (len == 0)
        cass_arg_none(c, CQL_UNSET);
    else
        cass_arg_bytes(c, text, len);
}

void cass_call_row(struct call *c, enum history_stmt st, const struct turn_row *row, int32_t bucket, uint64_t change)
{
    cass_call_init(c, st);
    cass_arg_uuid(c, &row->chat);
    cass_arg_i32(c, bucket);
    cass_arg_uuid(c, &row->turn);
    cass_arg_i32(c, row->part);
    cass_arg_i32(c, row->rev);
    cass_arg_i32(c, (int32_t)row->speaker);
    arg_field_or_unset(c, row->character, sizeof row->character);
    cass_arg_uuid(c, &row->user);
    cass_arg_u64(c, row->created_ms);
    cass_arg_u64(c, change);
    if (uuid_is_nil(&row->predecessor))
        cass_arg_none(c, CQL_UNSET);
    else
        cass_arg_uuid(c, &row->predecessor);
    arg_u64_or_unset(c, row->index);
    arg_field_or_unset(c, row->language, sizeof row->language);
    arg_u64_or_unset(c, row->attempt);
    arg_i32_or_unset(c, (int32_t)row->finish);
    arg_field_or_unset(c, row->code, sizeof row->code);
    arg_u64_or_unset(c, row->prompt_tokens);
    arg_u64_or_unset(c, row->cached_tokens);
    arg_u64_or_unset(c, row->completion_tokens);
    arg_u64_or_unset(c, row->ttft_ms);
    arg_i32_or_unset(c, (int32_t)row->event);
    arg_i32_or_unset(c, row->variant);
    arg_i32_or_unset(c, row->known);
    if (row->sealed_len == 0)
        cass_arg_none(c, CQL_UNSET);
    else
        cass_arg_bytes(c, row->sealed, row->sealed_len);
}

struct uuid cass_claim_key(const uint8_t client_hash[16])
{
    struct uuid id;

    memcpy(id.b, client_hash, sizeof id.b);
    id.b[6] &= 0x0f;
    return id;
}

/* Days since 1970 -> year and month (Hinnant's days_from_civil, inverted; the calendar repeats every 146097 days). */
int32_t cass_bucket(const struct uuid *id)
{
    const int64_t z = (int64_t)(uuid_ms(id) / 86400000) + 719468;
    const int64_t era = z / 146097, doe = z % 146097;
    const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    const int64_t mp = (5 * doy + 2) / 153;
    const int64_t month = mp < 10 ? mp + 3 : mp - 9;

    return (int32_t)((yoe + era * 400 + (month <= 2)) * 100 + month);
}

/* ---- rows that were read ---- */

static bool grow(struct row_set *set)
{
    const size_t cap = set->cap == 0 ? 8 : set->cap * 2;
    struct turn_row *rows = realloc(set->rows, cap * sizeof *rows);

    if (rows == NULL)
        return false;
    set->rows = rows;
    set->cap = cap;
    return true;
}

enum row_column {
    COL_TURN,
    COL_PART,
    COL_REV,
    COL_ROLE,
    COL_CHARACTER,
    COL_USER,
    COL_CREATED,
    COL_CHANGE,
    COL_PREDECESSOR,
    COL_TURN_NO,
    COL_LANGUAGE,
    COL_ATTEMPT,
    COL_FINISH,
    COL_CODE,
    COL_PROMPT,
    COL_CACHED,
    COL_COMPLETION,
    COL_TTFT,
    COL_EVENT,
    COL_VARIANT,
    COL_KNOWN,
    COL_SEALED,
    COL_COUNT
};
static const char *const column_names[COL_COUNT] = {
    [COL_TURN] = "turn",
    [COL_PART] = "part",
    [COL_REV] = "rev",
    [COL_ROLE] = "role",
    [COL_CHARACTER] = "character",
    [COL_USER] = "user",
    [COL_CREATED] = "created",
    [COL_CHANGE] = "change",
    [COL_PREDECESSOR] = "predecessor",
    [COL_TURN_NO] = "turn_no",
    [COL_LANGUAGE] = "language",
    [COL_ATTEMPT] = "attempt",
    [COL_FINISH] = "finish",
    [COL_CODE] = "code",
    [COL_PROMPT] = "prompt_tokens",
    [COL_CACHED] = "cached_tokens",
    [COL_COMPLETION] = "completion_tokens",
    [COL_TTFT] = "ttft_ms",
    [COL_EVENT] = "event",
    [COL_VARIANT] = "variant",
    [COL_KNOWN] = "known",
    [COL_SEALED] = "sealed",
};

static void read_row(const struct cql_value v[COL_COUNT], struct turn_row *row)
{
    row->turn = cass_cell_uuid(v[COL_TURN]);
    row->part = cass_cell_i32(v[COL_PART]);
    row->rev = cass_cell_i32(v[COL_REV]);
    row->speaker = (enum speaker)cass_cell_i32(v[COL_ROLE]);
    cass_cell_text(v[COL_CHARACTER], row->character, sizeof row->character);
    row->user = cass_cell_uuid(v[COL_USER]);
    row->created_ms = cass_cell_u64(v[COL_CREATED]);
    row->change = cass_cell_u64(v[COL_CHANGE]);
    row->predecessor = cass_cell_uuid(v[COL_PREDECESSOR]);
    row->index = cass_cell_u64(v[COL_TURN_NO]);
    cass_cell_text(v[COL_LANGUAGE], row->language, sizeof row->language);
    row->attempt = cass_cell_u64(v[COL_ATTEMPT]);
    row->finish = (enum finish)cass_cell_i32(v[COL_FINISH]);
    cass_cell_text(v[COL_CODE], row->code, sizeof row->code);
    row->prompt_tokens = (uint32_t)cass_cell_u64(v[COL_PROMPT]);
    row->cached_tokens = (uint32_t)cass_cell_u64(v[COL_CACHED]);
    row->completion_tokens = (uint32_t)cass_cell_u64(v[COL_COMPLETION]);
    row->ttft_ms = (uint32_t)cass_cell_u64(v[COL_TTFT]);
    row->event = (enum turn_event)cass_cell_i32(v[COL_EVENT]);
    row->variant = cass_cell_i32(v[COL_VARIANT]);
    row->known = cass_cell_i32(v[COL_KNOWN]);
}

enum tr_rc cass_row_set_read(struct row_set *set, const struct uuid *chat, const struct cql_rows *rows, uint64_t change,
                             struct tr_err *err)
{
    int column[COL_COUNT];

    if (cql_rows(rows) == 0)
        return TR_OK;
    for (size_t i = 0; i < COL_COUNT; i++)
        column[i] = cql_column(rows, column_names[i]);
    for (size_t r = 0; r < cql_rows(rows); r++) {
        struct cql_value v[COL_COUNT];
        struct turn_row *row;

        for (size_t i = 0; i < COL_COUNT; i++)
            v[i] = cell_at(rows, r, column[i]);
        /* no row, but the partition's own; a claim; a write that came after what is shown */
        if (!cass_cell_is_set(v[COL_TURN]) || !cass_cell_is_set(v[COL_CHANGE]) || cass_cell_u64(v[COL_CHANGE]) > change)
            continue;
        if (set->n == set->cap && !grow(set))
            return tr_fail(err, TR_NOMEM, "history: rows");
        row = &set->rows[set->n];
        memset(row, 0, sizeof *row);
        row->chat = *chat;
        read_row(v, row);
        row->sealed = (const uint8_t *)(uintptr_t)set->bytes.len; /* until the bytes stay where they are */
        if (v[COL_SEALED].len > 0) {
            buf_add(&set->bytes, v[COL_SEALED].data, (size_t)v[COL_SEALED].len);
            if (set->bytes.failed)
                return tr_fail(err, TR_NOMEM, "history: rows");
            row->sealed_len = (size_t)v[COL_SEALED].len;
        }
        set->n++;
    }
    return TR_OK;
}

static int by_key(const void *a, const void *b)
{
    const struct turn_row *x = a, *y = b;
    const int turn = uuid_cmp(&x->turn, &y->turn);

    if (turn != 0)
        return turn;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return (x->rev > y->rev) - (x->rev < y->rev);
}

void cass_row_set_sort(struct row_set *set)
{
    if (set->n > 1)
        qsort(set->rows, set->n, sizeof *set->rows, by_key);
}

void cass_row_set_settle(struct row_set *set)
{
    cass_row_set_sort(set);
    for (size_t i = 0; i < set->n; i++) {
        struct turn_row *row = &set->rows[i];

        row->sealed = row->sealed_len > 0 ? set->bytes.data + (uintptr_t)row->sealed : NULL;
    }
}

void cass_row_set_release(struct row_set *set)
{
    free(set->rows);
    buf_release(&set->bytes);
    *set = (struct row_set){0};
}
