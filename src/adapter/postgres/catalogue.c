/* catalogue (postgres) - the port's side: each operation's statement, and what its rows mean.  Threads: the loop's. */
#include "adapter/postgres/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT 5432
#define TICK_MS 50

#define LIST_COLUMNS "id, name, tagline, avatar_type, updated"
#define CHARACTER_INSERT                                                                                               \
    "INSERT INTO characters (" LIST_COLUMNS ", card, avatar) VALUES ($1, $2, $3, $4, $5::bigint, $6, $7)"
#define CHARACTER_PUT                                                                                                  \
    CHARACTER_INSERT " ON CONFLICT (id) DO UPDATE SET name = excluded.name, tagline = excluded.tagline,"               \
                     " avatar_type = excluded.avatar_type,"                                                            \
                     " updated = greatest(excluded.updated, characters.updated + 1), card = excluded.card,"            \
                     " avatar = excluded.avatar"
/* One row: was it put, or does the same stand there? */
#define CHARACTER_ADD                                                                                                  \
    "WITH put AS (" CHARACTER_INSERT " ON CONFLICT (id) DO NOTHING RETURNING 1) SELECT ((SELECT count(*) FROM put) +"  \
    " (SELECT count(*) FROM characters WHERE id = $1 AND name = $2 AND tagline = $3 AND avatar_type = $4"              \
    " AND card = $6 AND avatar = $7))::int8"
#define CHARACTER_GET "SELECT " LIST_COLUMNS ", card, avatar FROM characters WHERE id = $1"
#define CHARACTERS                                                                                                     \
    "SELECT " LIST_COLUMNS ", ''::bytea, ''::bytea FROM characters"                                                    \
    " ORDER BY lower(name) COLLATE \"C\", id COLLATE \"C\""
#define CHARACTER_REMOVE "WITH gone AS (DELETE FROM characters WHERE id = $1 RETURNING 1) SELECT count(*) FROM gone"
#define USER_PUT "INSERT INTO users (id, created) VALUES ($1::uuid, $2::bigint) ON CONFLICT DO NOTHING"
/* The standing value; no row where another process is putting it at this moment. */
#define SETTING_PUT                                                                                                    \
    "WITH put AS (INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING value)"           \
    " SELECT value FROM put UNION ALL SELECT value FROM settings WHERE key = $1 LIMIT 1"
#define SETTING_GET "SELECT value FROM settings WHERE key = $1"
#define SETTINGS "SELECT key FROM settings WHERE starts_with(key, $1) ORDER BY key COLLATE \"C\""
#define SETTING_REMOVE "DELETE FROM settings WHERE key = $1"

static struct postgres_catalogue *self(struct catalogue *c)
{
    return (struct postgres_catalogue *)c;
}

static uint64_t int8_of(const PGresult *rows, int row, int column)
{
    const uint8_t *const p = (const uint8_t *)PQgetvalue(rows, row, column);
    uint64_t v = 0;

    if (PQgetlength(rows, row, column) != 8)
        return 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static const char *number_text(uint64_t n, char out[24])
{
    snprintf(out, 24, "%llu", (unsigned long long)n);
    return out;
}

/* ---- answers ---- */

static void call_plain(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    (void)rows;
    if (op->done.plain != NULL)
        op->done.plain(op->ctx, rc, err);
}

static enum tr_rc read_one(struct pg_op *op, const PGresult *rows, struct tr_err *err)
{
    (void)op;
    return PQntuples(rows) > 0 ? TR_OK : tr_fail(err, TR_NOT_FOUND, "not in the catalogue");
}

static enum tr_rc read_added(struct pg_op *op, const PGresult *rows, struct tr_err *err)
{
    if (PQntuples(rows) == 1 && int8_of(rows, 0, 0) > 0)
        return TR_OK;
    return tr_fail(err, TR_BUSY, "character '%s' is there already", op->values[0]);
}

static enum tr_rc read_removed(struct pg_op *op, const PGresult *rows, struct tr_err *err)
{
    (void)op;
    return PQntuples(rows) == 1 && int8_of(rows, 0, 0) > 0 ? TR_OK : tr_fail(err, TR_NOT_FOUND, "no such character");
}

/* ---- characters ---- */

static void character_of(const PGresult *rows, int row, struct catalogue_character *ret)
{
    *ret = (struct catalogue_character){
        .name = PQgetvalue(rows, row, 1),
        .tagline = PQgetvalue(rows, row, 2),
        .avatar_type = PQgetvalue(rows, row, 3),
        .updated_ms = int8_of(rows, row, 4),
        .card = {(const uint8_t *)PQgetvalue(rows, row, 5), (size_t)PQgetlength(rows, row, 5)},
        .avatar = {(const uint8_t *)PQgetvalue(rows, row, 6), (size_t)PQgetlength(rows, row, 6)},
    };
    snprintf(ret->id, sizeof ret->id, "%s", PQgetvalue(rows, row, 0));
}

static void call_character(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    struct catalogue_character ch;

    if (rc == TR_OK)
        character_of(rows, 0, &ch);
    op->done.character(op->ctx, rc, rc == TR_OK ? &ch : NULL, err);
}

static void call_characters(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    const int n = rc == TR_OK ? PQntuples(rows) : 0;
    struct catalogue_character *const list = calloc((size_t)n + 1, sizeof *list);
    struct tr_err mine = {0};

    if (list == NULL) {
        op->done.characters(op->ctx, tr_fail(&mine, TR_NOMEM, "catalogue: characters"), NULL, 0, &mine);
        return;
    }
    for (int i = 0; i < n; i++)
        character_of(rows, i, &list[i]);
    op->done.characters(op->ctx, rc, rc == TR_OK ? list : NULL, (size_t)n, err);
    free(list);
}

static enum tr_rc check_id(const char *id, struct tr_err *err)
{
    if (character_id_valid(id, strlen(id)))
        return TR_OK;
    return tr_fail(err, TR_INVALID, "not a character's id: [a-z0-9-], 1 to %d of them, and not \"any\"",
                   CHARACTER_ID_MAX);
}

static enum tr_rc character_put(struct catalogue *base, const struct catalogue_character *ch, bool replace,
                                catalogue_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char updated[24];
    struct pg_op *op = NULL;
    enum tr_rc rc = check_id(ch->id, err);

    if (rc == TR_OK)
        rc = pg_op_new(self(base), PG_PRIMARY, true, replace ? CHARACTER_PUT : CHARACTER_ADD,
                       replace ? NULL : read_added, call_plain, ctx, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    pg_text(op, ch->id);
    pg_text(op, ch->name != NULL ? ch->name : "");
    pg_text(op, ch->tagline != NULL ? ch->tagline : "");
    pg_text(op, ch->avatar_type != NULL ? ch->avatar_type : "");
    pg_text(op, number_text(ch->updated_ms != 0 ? ch->updated_ms : wall_ms(), updated));
    pg_bytes(op, ch->card);
    pg_bytes(op, ch->avatar);
    return pg_start(op, ret_op, err);
}

static enum tr_rc character_get(struct catalogue *base, const char *id, catalogue_character_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    enum tr_rc rc = check_id(id, err);

    if (rc == TR_OK)
        rc = pg_op_new(self(base), PG_ANY, false, CHARACTER_GET, read_one, call_character, ctx, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.character = done;
    pg_text(op, id);
    return pg_start(op, ret_op, err);
}

static enum tr_rc characters(struct catalogue *base, catalogue_characters_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_ANY, false, CHARACTERS, NULL, call_characters, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.characters = done;
    return pg_start(op, ret_op, err);
}

static enum tr_rc character_remove(struct catalogue *base, const char *id, catalogue_done *done, void *ctx,
                                   struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    enum tr_rc rc = check_id(id, err);

    if (rc == TR_OK)
        rc = pg_op_new(self(base), PG_PRIMARY, true, CHARACTER_REMOVE, read_removed, call_plain, ctx, &op, err);
    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    pg_text(op, id);
    return pg_start(op, ret_op, err);
}

/* ---- users ---- */

static enum tr_rc user_put(struct catalogue *base, const struct uuid *user, uint64_t created_ms, catalogue_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    char id[UUID_TEXT], created[24];
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_PRIMARY, true, USER_PUT, NULL, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    uuid_format(user, id);
    pg_text(op, id);
    pg_text(op, number_text(created_ms, created));
    return pg_start(op, ret_op, err);
}

/* ---- settings ---- */

static void call_setting(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    const char *const value = rc == TR_OK ? PQgetvalue(rows, 0, 0) : NULL;
    const bool mine = value != NULL && op->n == 2 && strcmp(value, op->values[1]) == 0;

    op->done.setting(op->ctx, rc, mine, value, err);
}

static enum tr_rc read_put_setting(struct pg_op *op, const PGresult *rows, struct tr_err *err)
{
    (void)op;
    return PQntuples(rows) > 0 ? TR_OK : tr_fail(err, TR_TRANSIENT, "another process was putting the same setting");
}

static enum tr_rc setting_put(struct catalogue *base, const char *key, const char *value, catalogue_setting_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc =
        pg_op_new(self(base), PG_PRIMARY, true, SETTING_PUT, read_put_setting, call_setting, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.setting = done;
    pg_text(op, key);
    pg_text(op, value);
    return pg_start(op, ret_op, err);
}

static enum tr_rc setting_get(struct catalogue *base, const char *key, catalogue_setting_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_PRIMARY, false, SETTING_GET, read_one, call_setting, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.setting = done;
    pg_text(op, key);
    return pg_start(op, ret_op, err);
}

static void call_keys(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    const int n = rc == TR_OK ? PQntuples(rows) : 0;
    const char **const keys = calloc((size_t)n + 1, sizeof *keys);
    struct tr_err mine = {0};

    if (keys == NULL) {
        op->done.keys(op->ctx, tr_fail(&mine, TR_NOMEM, "catalogue: settings"), NULL, 0, &mine);
        return;
    }
    for (int i = 0; i < n; i++)
        keys[i] = PQgetvalue(rows, i, 0);
    op->done.keys(op->ctx, rc, keys, (size_t)n, err);
    free(keys);
}

static enum tr_rc settings(struct catalogue *base, const char *prefix, catalogue_keys_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_PRIMARY, false, SETTINGS, NULL, call_keys, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.keys = done;
    pg_text(op, prefix);
    return pg_start(op, ret_op, err);
}

static enum tr_rc setting_remove(struct catalogue *base, const char *key, catalogue_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_PRIMARY, true, SETTING_REMOVE, NULL, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    pg_text(op, key);
    return pg_start(op, ret_op, err);
}

/* ---- the service itself ---- */

static enum tr_rc init(struct catalogue *base, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_INIT, true, NULL, NULL, call_plain, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.plain = done;
    return pg_start(op, ret_op, err);
}

static void call_check(struct pg_op *op, enum tr_rc rc, const PGresult *rows, const struct tr_err *err)
{
    (void)rows;
    op->done.check(op->ctx, rc, rc == TR_OK ? &op->report : NULL, err);
}

static enum tr_rc check(struct catalogue *base, service_checked *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err)
{
    struct pg_op *op = NULL;
    const enum tr_rc rc = pg_op_new(self(base), PG_CHECK, false, NULL, NULL, call_check, ctx, &op, err);

    if (rc != TR_OK)
        return rc;
    op->done.check = done;
    return pg_start(op, ret_op, err);
}

/* ---- open, close ---- */

static void postgres_catalogue_free(struct postgres_catalogue *c)
{
    if (c == NULL)
        return;
    c->closing = true;
    pending_cancel_all(&c->ops);
    for (size_t i = 0; i < c->url.hosts; i++)
        pg_link_close(&c->link[i]);
    assert(c->ops.oldest == NULL);
    timer_stop(c->tick);
    loop_drain(c->loop); /* a call for cancelled ones may be on its way */
    url_release(&c->url);
    free(c);
}

static void catalogue_close(struct catalogue *base)
{
    postgres_catalogue_free(self(base));
}

static const struct catalogue_ops postgres_catalogue_ops = {
    .scheme = "postgresql",
    .character_put = character_put,
    .character_get = character_get,
    .characters = characters,
    .character_remove = character_remove,
    .user_put = user_put,
    .setting_put = setting_put,
    .setting_get = setting_get,
    .settings = settings,
    .setting_remove = setting_remove,
    .init = init,
    .check = check,
    .close = catalogue_close,
};

enum tr_rc postgres_catalogue_open(struct loop *loop, const char *url, struct catalogue **ret_catalogue,
                                   struct tr_err *err)
{
    struct postgres_catalogue *const c = calloc(1, sizeof *c);
    enum tr_rc rc;

    if (c == NULL)
        return tr_fail(err, TR_NOMEM, "postgres catalogue");
    c->base.ops = &postgres_catalogue_ops;
    c->loop = loop;
    c->ops = (struct pending_list){.loop = loop, .give_up = pg_give_up};
    c->line_end = &c->line;
    rc = url_parse(url, PORT, &c->url, err);
    if (rc == TR_OK && (strcmp(c->url.scheme, "postgresql") != 0 || c->url.hosts == 0))
        rc = tr_fail(err, TR_INVALID, "not postgresql://user:password@host1,host2:5432/database");
    for (size_t i = 0; i < c->url.hosts; i++)
        c->link[i] = (struct pg_link){.c = c, .host = i, .schema = -1, .flight_end = &c->link[i].flight};
    if (rc == TR_OK && timer_start(loop, 0, TICK_MS, pg_on_tick, c, &c->tick) != TR_OK)
        rc = tr_fail(err, TR_NOMEM, "postgres catalogue");
    if (rc != TR_OK) {
        url_release(&c->url);
        free(c);
        return rc;
    }
    *ret_catalogue = &c->base;
    return TR_OK;
}
