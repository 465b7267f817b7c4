/*
 * history - the port's side, on the loop: reads the URL, copies what comes in, starts an operation, hands its result out.
 * All of it runs on the loop; the client (client/cql.h) has a thread of its own that only talks to the servers.
 */
#include "adapter/cassandra/history_impl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- results, handed out ---- */

static void on_plain(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->cb.plain(op->ctx, rc, err);
}

static void on_chat(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_OK)
        op->cb.chat(op->ctx, rc, &op->chat, op->mine, err);
    else
        op->cb.chat(op->ctx, rc, NULL, false, err);
}

static void on_chats(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_OK)
        op->cb.chats(op->ctx, rc, op->chats, op->chats_n, op->more, err);
    else
        op->cb.chats(op->ctx, rc, NULL, 0, false, err);
}

static void on_accept(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->cb.accept(op->ctx, rc, rc == TR_OK ? &op->accepted : NULL, err);
}

static void on_append(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_OK)
        op->cb.append(op->ctx, rc, op->mine, op->change, op->mine ? NULL : op->set.rows, err);
    else
        op->cb.append(op->ctx, rc, false, 0, NULL, err);
}

static void on_rows(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_OK)
        op->cb.rows(op->ctx, rc, op->set.rows + op->in.read.from, op->in.read.n, op->more, err);
    else
        op->cb.rows(op->ctx, rc, NULL, 0, false, err);
}

static void on_key(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    if (rc == TR_OK)
        op->cb.key(op->ctx, rc, op->mine, (struct slice){op->wrapped, op->wrapped_len}, err);
    else
        op->cb.key(op->ctx, rc, false, (struct slice){0}, err);
}

static void on_checked(struct history_op *op, enum tr_rc rc, const struct tr_err *err)
{
    op->cb.check(op->ctx, rc, rc == TR_OK ? &op->report : NULL, err);
}

/* ---- what comes in ---- */

/* Rows of one turn of one chat, each part and revision in range. */
static enum tr_rc check_rows(const struct turn_row *rows, size_t n, struct tr_err *err)
{
    size_t bytes = 0;

    if (n > HISTORY_ROWS_MAX)
        return tr_fail(err, TR_INVALID, "history: %zu rows in one write, at most %d", n, HISTORY_ROWS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (!uuid_eq(&rows[i].chat, &rows[0].chat) || !uuid_eq(&rows[i].turn, &rows[0].turn))
            return tr_fail(err, TR_INVALID, "history: rows of several turns in one write");
        if (rows[i].rev < 0 || rows[i].part < PART_NOTES)
            return tr_fail(err, TR_INVALID, "history: part %d, revision %d", rows[i].part, rows[i].rev);
        bytes += rows[i].sealed_len;
        if (rows[i].sealed_len > HISTORY_SEALED_MAX || bytes > HISTORY_SEALED_MAX)
            return tr_fail(err, TR_INVALID, "history: more than %u bytes in one write", HISTORY_SEALED_MAX);
    }
    return TR_OK;
}

/* Copy rows and their sealed texts into one block of the operation's own; it is freed where that fails. */
static enum tr_rc copy_rows(struct history_op *op, const struct turn_row *rows, size_t n, struct tr_err *err)
{
    size_t bytes = 0;
    uint8_t *at;

    if (n == 0)
        return TR_OK;
    for (size_t i = 0; i < n; i++)
        bytes += rows[i].sealed_len;
    op->rows = malloc(n * sizeof *rows + bytes);
    if (op->rows == NULL) {
        cass_op_free(op);
        return tr_fail(err, TR_NOMEM, "history: rows");
    }
    memcpy(op->rows, rows, n * sizeof *rows);
    op->rows_n = n;
    at = (uint8_t *)(op->rows + n);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].sealed_len > 0)
            memcpy(at, rows[i].sealed, rows[i].sealed_len);
        op->rows[i].sealed = rows[i].sealed_len > 0 ? at : NULL;
        at += rows[i].sealed_len;
    }
    return TR_OK;
}

/* ---- the port ---- */

typedef void op_deliver(struct history_op *op, enum tr_rc rc, const struct tr_err *err);

/* One of a chat (NULL: of none); *ret_op is owned until cass_op_start(). */
static enum tr_rc op_make(struct history *h, enum op_kind kind, op_step *begin, op_deliver *deliver, void *ctx,
                          const struct uuid *chat, struct history_op **ret_op, struct tr_err *err)
{
    struct cassandra_history *c = (struct cassandra_history *)h;
    struct history_op *op = NULL;
    const enum tr_rc rc = cass_op_new(c, begin, deliver, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->kind = kind;
    if (chat != NULL && (op->slot = cass_slot_get(c, chat)) == NULL) {
        cass_op_free(op);
        return tr_fail(err, TR_NOMEM, "history: chat");
    }
    *ret_op = op;
    return TR_OK;
}

/* Copy the rows, then start; the operation is taken in any case. */
static enum tr_rc start_with_rows(struct history_op *op, const struct turn_row *rows, size_t n, struct tr_op **ret_op,
                                  struct tr_err *err)
{
    struct cassandra_history *h = op->owner;
    struct chat_slot *slot = op->slot;
    const enum tr_rc rc = copy_rows(op, rows, n, err);

    if (rc == TR_OK)
        cass_op_start(op, ret_op);
    else
        cass_slot_put(h, slot);
    return rc;
}

static enum tr_rc chat_create(struct history *h, const struct history_chat *chat, const uint8_t client_hash[16],
                              const struct turn_row *greeting, size_t n, history_chat_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    enum tr_rc rc = check_rows(greeting, n, err);

    if (rc != TR_OK)
        return rc;
    if (n > 0 && (!uuid_eq(&greeting[0].chat, &chat->chat) || !uuid_eq(&greeting[0].turn, &chat->head)))
        return tr_fail(err, TR_INVALID, "history: the greeting is not the new chat's head");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (greeting[i].part == greeting[k].part && greeting[i].rev == greeting[k].rev)
                return tr_fail(err, TR_INVALID, "history: part %d twice in the greeting", greeting[i].part);
    rc = op_make(h, OP_CREATE, cass_begin_chat_create, on_chat, ctx, &chat->chat, &op, err);
    if (rc != TR_OK)
        return rc;
    op->cb.chat = done;
    op->in.create.chat = *chat;
    op->in.create.has_client = client_hash != NULL;
    if (client_hash != NULL)
        memcpy(op->in.create.client, client_hash, sizeof op->in.create.client);
    return start_with_rows(op, greeting, n, ret_op, err);
}

static enum tr_rc chat_get(struct history *h, const struct uuid *chat, history_chat_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_PLAIN, cass_begin_chat_get, on_chat, ctx, chat, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.chat = done;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc chats_of_user(struct history *h, const struct uuid *user, const struct uuid *before, uint32_t limit,
                                history_chats_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_READ, cass_begin_chats_of_user, on_chats, ctx, NULL, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.chats = done;
    op->in.read.chat = *user;
    op->in.read.range.before = before != NULL ? *before : uuid_nil;
    op->in.read.range.limit = limit;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc chat_delete(struct history *h, const struct uuid *chat, history_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_ADMIN, cass_begin_chat_delete, on_plain, ctx, chat, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.plain = done;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc turn_accept(struct history *h, const struct history_accept *a, history_accept_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    enum tr_rc rc = check_rows(&a->row, 1, err);

    if (rc != TR_OK)
        return rc;
    if (a->row.part != PART_USER || a->row.rev != 0)
        return tr_fail(err, TR_INVALID, "history: part %d, revision %d is no new turn", a->row.part, a->row.rev);
    if (uuid_cmp(&a->row.turn, &a->head) <= 0)
        return tr_fail(err, TR_INVALID, "history: the new turn's id is not after the head's");
    rc = op_make(h, OP_ACCEPT, cass_begin_accept, on_accept, ctx, &a->row.chat, &op, err);
    if (rc != TR_OK)
        return rc;
    op->cb.accept = done;
    op->in.accept.head = a->head;
    memcpy(op->in.accept.client_hash, a->client_hash, sizeof a->client_hash);
    op->in.accept.hint = a->change;
    return start_with_rows(op, &a->row, 1, ret_op, err);
}

static enum tr_rc append(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done, void *ctx,
                         struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    enum tr_rc rc = n > 0 ? check_rows(rows, n, err) : tr_fail(err, TR_INVALID, "history: no rows");

    if (rc != TR_OK)
        return rc;
    rc = op_make(h, OP_APPEND, cass_begin_append, on_append, ctx, &rows[0].chat, &op, err);
    if (rc != TR_OK)
        return rc;
    op->cb.append = done;
    return start_with_rows(op, rows, n, ret_op, err);
}

/* The three that read rows. */
static enum tr_rc rows_start(struct history *h, op_step *begin, const struct uuid *chat, const struct uuid *turn,
                             const struct history_range *range, uint64_t since, history_rows_done *done, void *ctx,
                             struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_READ, begin, on_rows, ctx, chat, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.rows = done;
    op->in.read.turn = *turn;
    op->in.read.range = *range;
    op->in.read.since = since;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn, history_rows_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, cass_begin_turn_get, chat, turn, &(struct history_range){0}, 0, done, ctx, ret_op, err);
}

static enum tr_rc turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                        history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, cass_begin_turns, chat, &uuid_nil, range, 0, done, ctx, ret_op, err);
}

static enum tr_rc changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                          history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return rows_start(h, cass_begin_changed, chat, &uuid_nil, &(struct history_range){.limit = limit}, since, done, ctx,
                      ret_op, err);
}

static enum tr_rc key_start(struct history *h, bool put, enum seal_owner owner, const char *id, struct slice wrapped,
                            history_key_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    enum tr_rc rc;

    if (strlen(id) > HISTORY_KEY_ID_MAX || wrapped.len > sizeof op->wrapped || (put && wrapped.len == 0))
        return tr_fail(err, TR_INVALID, "history: a key's owner or size");
    rc = op_make(h, OP_KEY, put ? cass_begin_key_put : cass_begin_key_get, on_key, ctx, NULL, &op, err);
    if (rc != TR_OK)
        return rc;
    op->cb.key = done;
    op->in.key.owner = owner;
    memcpy(op->in.key.id, id, strlen(id) + 1);
    if (wrapped.len > 0)
        memcpy(op->wrapped, wrapped.data, wrapped.len);
    op->wrapped_len = wrapped.len;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc key_put(struct history *h, enum seal_owner owner, const char *id, struct slice wrapped,
                          history_key_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    return key_start(h, true, owner, id, wrapped, done, ctx, ret_op, err);
}

static enum tr_rc key_get(struct history *h, enum seal_owner owner, const char *id, history_key_done *done, void *ctx,
                          struct tr_op **ret_op, struct tr_err *err)
{
    return key_start(h, false, owner, id, (struct slice){0}, done, ctx, ret_op, err);
}

static enum tr_rc init(struct history *h, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_ADMIN, cass_begin_init, on_plain, ctx, NULL, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.plain = done;
    cass_op_start(op, ret_op);
    return TR_OK;
}

static enum tr_rc check(struct history *h, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct history_op *op = NULL;
    const enum tr_rc rc = op_make(h, OP_ADMIN, cass_begin_check, on_checked, ctx, NULL, &op, err);

    if (rc != TR_OK)
        return rc;
    op->cb.check = done;
    cass_op_start(op, ret_op);
    return TR_OK;
}

/* NULL or half built: both are fine. */
static void history_free(struct cassandra_history *h)
{
    if (h == NULL)
        return;
    cass_ops_close(h);
    cass_slots_release(h);
    url_release(&h->url);
    free(h);
}

static void history_close(struct history *h)
{
    history_free((struct cassandra_history *)h);
}

static const struct history_ops cassandra_history_ops = {
    .scheme = "cassandra",
    .chat_create = chat_create,
    .chat_get = chat_get,
    .chats_of_user = chats_of_user,
    .chat_delete = chat_delete,
    .accept = turn_accept,
    .append = append,
    .turn_get = turn_get,
    .turns = turns,
    .changed = changed,
    .key_put = key_put,
    .key_get = key_get,
    .init = init,
    .check = check,
    .close = history_close,
};

/* ---- opening ---- */

void cass_statement(const char *text, const char *keyspace, char *out, size_t size)
{
    struct buf b = {0};

    for (; *text != '\0'; text++) {
        if (*text == '@') {
            buf_add_str(&b, keyspace);
            buf_add_u8(&b, '.');
        } else {
            buf_add(&b, text, 1);
        }
    }
    snprintf(out, size, "%s", buf_str(&b));
    buf_release(&b);
}

/* Letters, digits and _, as CQL has them unquoted: the keyspace stands in statements. */
static bool is_keyspace(const char *name)
{
    if (!isalpha((unsigned char)*name) || strlen(name) > 48)
        return false;
    for (; *name != '\0'; name++)
        if (!isalnum((unsigned char)*name) && *name != '_')
            return false;
    return true;
}

static enum tr_rc read_query(struct cassandra_history *h, bool *ret_local, struct tr_err *err)
{
    static const char *const known[] = {"replication", "consistency", "datacenter", "timeout_ms"};
    const char *const consistency = url_query(&h->url, "consistency");
    uint64_t replication = 0;
    enum tr_rc rc;

    for (size_t i = 0; i < h->url.query_n; i++) {
        size_t k = 0;

        while (k < sizeof known / sizeof *known && strcmp(h->url.query[i].key, known[k]) != 0)
            k++;
        if (k == sizeof known / sizeof *known)
            return tr_fail(err, TR_INVALID,
                           "cassandra: unknown '%.40s' in the URL; known are replication, consistency, "
                           "datacenter and timeout_ms",
                           h->url.query[i].key);
    }
    rc = url_query_u64(&h->url, "replication", h->url.hosts < 3 ? h->url.hosts : 3, 1, 16, &replication, err);
    if (rc == TR_OK)
        rc = url_query_u64(&h->url, "timeout_ms", 10000, 100, 600000, &h->timeout_ms, err);
    if (rc != TR_OK)
        return rc;
    h->replication = (uint32_t)replication;
    if (consistency != NULL && strcmp(consistency, "local") != 0 && strcmp(consistency, "quorum") != 0)
        return tr_fail(err, TR_INVALID, "cassandra: consistency is 'quorum' or 'local'");
    *ret_local = consistency != NULL && strcmp(consistency, "local") == 0;
    return TR_OK;
}

static enum tr_rc read_url(struct cassandra_history *h, const char *text, bool *ret_local, struct tr_err *err)
{
    enum tr_rc rc = url_parse(text, 9042, &h->url, err);
    size_t len = 0;

    if (rc != TR_OK)
        return rc;
    if (h->url.hosts == 0)
        return tr_fail(err, TR_INVALID, "cassandra: no host in the URL");
    if (!is_keyspace(h->url.path))
        return tr_fail(err, TR_INVALID,
                       "cassandra: '%.60s' is no keyspace: cassandra://host/keyspace, of letters, digits and _",
                       h->url.path);
    for (size_t i = 0; i < h->url.hosts && len < sizeof h->hosts - 1; i++)
        len += (size_t)snprintf(h->hosts + len, sizeof h->hosts - len, "%s%s:%u", i > 0 ? ", " : "",
                                h->url.host[i].name, h->url.host[i].port);
    return read_query(h, ret_local, err);
}

static enum tr_rc open_client(struct cassandra_history *h, bool local, struct tr_err *err)
{
    char texts[ST_COUNT][800]; /* copied by the client */
    const char *statements[ST_COUNT], *hosts[URL_HOSTS_MAX];
    char names[URL_HOSTS_MAX][280];
    struct cql_config config = {.hosts = hosts,
                                .hosts_n = h->url.hosts,
                                .user = h->url.user,
                                .password = h->url.password,
                                .datacenter = url_query(&h->url, "datacenter"),
                                .keyspace = h->url.path,
                                .local = local,
                                .statements = statements,
                                .statements_n = ST_COUNT};

    for (size_t i = 0; i < h->url.hosts; i++) {
        const bool v6 = strchr(h->url.host[i].name, ':') != NULL;

        snprintf(names[i], sizeof names[i], "%s%.260s%s:%u", v6 ? "[" : "", h->url.host[i].name, v6 ? "]" : "",
                 h->url.host[i].port);
        hosts[i] = names[i];
    }
    for (size_t i = 0; i < ST_COUNT; i++) {
        cass_statement(cass_statements[i], h->url.path, texts[i], sizeof texts[i]);
        statements[i] = texts[i];
    }
    h->cql = cql_open(&config);
    return h->cql != NULL ? TR_OK : tr_fail(err, TR_NOMEM, "cassandra: no thread or descriptor");
}

enum tr_rc cassandra_history_open(struct loop *loop, const char *url, struct history **ret_history, struct tr_err *err)
{
    struct cassandra_history *h = calloc(1, sizeof *h);
    bool local = false;
    enum tr_rc rc;

    if (h == NULL) {
        rc = tr_fail(err, TR_NOMEM, "cassandra history");
        goto out;
    }
    h->base.ops = &cassandra_history_ops;
    h->loop = loop;
    rc = read_url(h, url, &local, err);
    if (rc == TR_OK)
        rc = open_client(h, local, err);
    if (rc == TR_OK)
        rc = cass_ops_listen(h, err);
    if (rc != TR_OK)
        goto out;

    *ret_history = &h->base;
    h = NULL; /* the caller owns it now */
out:
    history_free(h);
    return rc;
}
