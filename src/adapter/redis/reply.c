/* reply - what Redis' answers mean.  They come from outside, so they are read with care; tests/fuzz/fuzz_redis_reply.c. */
#include "adapter/redis/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT_HEAD (16 + 8)
#define ENDS_MAX 1e15 /* milliseconds: no time of ours */

static enum tr_rc odd(struct tr_err *err)
{
    return tr_fail(err, TR_INVALID, "Redis answers with something else than expected");
}

enum tr_rc rr_read_nothing(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    (void)op, (void)reply, (void)err;
    return TR_OK;
}

enum tr_rc rr_read_number(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer < 0)
        return odd(err);
    op->number = (uint64_t)reply->integer;
    return TR_OK;
}

enum tr_rc rr_read_register(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const enum tr_rc rc = rr_read_number(op, reply, err);

    return rc == TR_OK && (op->number == 0 || op->number > UINT32_MAX) ? odd(err) : rc;
}

enum tr_rc rr_read_refresh(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const enum tr_rc rc = rr_read_number(op, reply, err);

    return rc == TR_OK && op->number == 0 ? tr_fail(err, TR_NOT_FOUND, "the record is gone or another's") : rc;
}

/* "<time of registration>\n<record>" of the worker `number`; false: it is no worker of ours. */
static bool read_worker(const redisReply *number, const redisReply *record, uint64_t now, struct registry_worker *w)
{
    const char *const body = memchr(record->str, '\n', record->len);
    uint64_t since;
    uint32_t n;

    if (body == NULL || !rr_number(number->str, number->len, &n) || n == 0 ||
        rr_record_parse(body + 1, record->len - (size_t)(body + 1 - record->str), w) != TR_OK)
        return false;
    since = strtoull(record->str, NULL, 10);
    w->age_ms = since > 0 && now > since ? now - since : 0;
    w->number = n;
    return true;
}

/* now, then number and record of each.  A record that can't be read is no worker of ours. */
enum tr_rc rr_read_workers(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const size_t before = strlen(op->r->prefix) + strlen("troupe:workers:");
    const size_t name_len = op->argvlen[1] - before;
    uint64_t now;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements % 2 != 1 || reply->element[0]->type != REDIS_REPLY_STRING ||
        name_len > CHARACTER_ID_MAX)
        return odd(err);
    now = strtoull(reply->element[0]->str, NULL, 10);
    op->workers = calloc(reply->elements / 2 + 1, sizeof *op->workers);
    if (op->workers == NULL)
        return tr_fail(err, TR_NOMEM, "registry: workers");
    for (size_t i = 1; i + 1 < reply->elements; i += 2) {
        const redisReply *const number = reply->element[i], *const record = reply->element[i + 1];
        struct registry_worker *const w = &op->workers[op->n];

        if (number->type != REDIS_REPLY_STRING || record->type != REDIS_REPLY_STRING)
            return odd(err);
        if (!read_worker(number, record, now, w))
            continue;
        memcpy(w->character, op->argv[1] + before, name_len);
        w->character[name_len] = '\0';
        snprintf(w->queue, sizeof w->queue, "inference.%s.%u", w->character, (unsigned)w->number);
        op->n++;
    }
    return TR_OK;
}

enum tr_rc rr_read_put(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_INTEGER ||
        reply->element[0]->integer < 1 || reply->element[1]->type != REDIS_REPLY_STRING)
        return odd(err);
    op->number = (uint64_t)reply->element[0]->integer;
    return TR_OK;
}

static enum tr_rc is_known(const struct rr_op *op, enum tr_rc rc, struct tr_err *err)
{
    return rc == TR_OK && op->number == 2 ? tr_fail(err, TR_NOT_FOUND, "registered, but it was not before") : rc;
}

/* Whether it was known before, too. */
enum tr_rc rr_read_put_known(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    return is_known(op, rr_read_put(op, reply, err), err);
}

/* Of a connection: a removal takes what ends up to then (registry.c). */
enum tr_rc rr_read_conn_put(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const enum tr_rc rc = rr_read_put(op, reply, err);
    const double ends = rc == TR_OK ? strtod(reply->element[1]->str, NULL) : 0;

    if (ends > op->r->conn_end && ends < ENDS_MAX)
        op->r->conn_end = ends;
    return rc;
}

enum tr_rc rr_read_conn_renew(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    return is_known(op, rr_read_conn_put(op, reply, err), err);
}

enum tr_rc rr_read_names(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    if (reply->type != REDIS_REPLY_ARRAY)
        return odd(err);
    op->names = calloc(reply->elements + 1, sizeof *op->names);
    if (op->names == NULL)
        return tr_fail(err, TR_NOMEM, "registry: names");
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *const name = reply->element[i];

        if (name->type != REDIS_REPLY_STRING)
            return odd(err);
        if (name->len == 0 || strlen(name->str) != name->len)
            continue; /* no name of ours */
        op->names[op->n++] = name->str;
    }
    return TR_OK;
}

enum tr_rc rr_read_context(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const uint8_t *const data = (const uint8_t *)reply->str;

    if (reply->type == REDIS_REPLY_NIL)
        return tr_fail(err, TR_NOT_FOUND, "registry: no context");
    if (reply->type != REDIS_REPLY_STRING || reply->len < CONTEXT_HEAD)
        return odd(err);
    memcpy(op->context.last_turn.b, data, 16);
    for (int i = 0; i < 8; i++)
        op->context.change = op->context.change << 8 | data[16 + i];
    op->context.sealed = (struct slice){data + CONTEXT_HEAD, (size_t)reply->len - CONTEXT_HEAD};
    return TR_OK;
}

/* Of a sweep: where it goes on, and how many it removed. */
enum tr_rc rr_read_swept(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[0]->len >= sizeof op->r->sweep_at || reply->element[1]->type != REDIS_REPLY_INTEGER ||
        reply->element[1]->integer < 0)
        return odd(err);
    snprintf(op->r->sweep_at, sizeof op->r->sweep_at, "%s", reply->element[0]->str);
    op->number = (uint64_t)reply->element[1]->integer;
    return TR_OK;
}

/* The value of "key:value" in INFO's lines, NULL: not there. */
static const char *info(const char *text, const char *key, int *ret_len)
{
    const size_t len = strlen(key);

    for (const char *at = strstr(text, key); at != NULL; at = strstr(at + 1, key)) {
        if ((at == text || at[-1] == '\n') && at[len] == ':') {
            *ret_len = (int)strcspn(at + len + 1, "\r\n");
            return at + len + 1;
        }
    }
    return NULL;
}

static uint64_t info_number(const char *text, const char *key)
{
    int len = 0;
    const char *const at = info(text, key, &len);

    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

/* Its memory, its limit, and what it does there (docs/operations.md says why): for people. */
static void tell_memory(struct redis_registry *r, struct service_report *report, const char *memory)
{
    const uint64_t used = info_number(memory, "used_memory"), most = info_number(memory, "maxmemory");
    const unsigned long long used_mib = used >> 20, most_mib = most >> 20;
    const size_t said = strlen(report->server);
    char *const end = report->server + said;
    const char *policy;
    bool keeps;
    int len = 0;

    policy = info(memory, "maxmemory_policy", &len);
    if (policy == NULL)
        return;
    if (len > 24)
        len = 24;
    if (most == 0) {
        snprintf(end, sizeof report->server - said, ", %llu MiB in use, no limit (maxmemory 0)", used_mib);
        return;
    }
    snprintf(end, sizeof report->server - said, ", %llu of %llu MiB in use, %.*s", used_mib, most_mib, len, policy);
    keeps = strncmp(policy, "noeviction", 10) == 0;
    /* once full, until there is room to speak of: what is given up makes a little for a moment */
    r->full = used > most || (keeps && used > (r->full ? most / 4 * 3 : most - most / 50));
    if (r->full)
        snprintf(
            report->warning, sizeof report->warning,
            "Redis is full (maxmemory %llu MiB, %.*s): recent contexts are given up. Raise maxmemory, or give Troupe a "
            "Redis of its own; set maxmemory-policy volatile-lru",
            most_mib, len, policy);
    else if (!keeps && strncmp(policy, "volatile-lru", 12) != 0 && strncmp(policy, "volatile-lfu", 12) != 0)
        snprintf(report->warning, sizeof report->warning,
                 "maxmemory-policy %.*s may evict the records of workers and connections: set volatile-lru", len,
                 policy);
}

enum tr_rc rr_read_server(struct rr_op *op, const redisReply *reply, struct tr_err *err)
{
    const char *version, *at;
    char where[96];
    int len;

    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 5)
        return odd(err);
    for (size_t i = 0; i < 5; i++)
        if (reply->element[i]->type != REDIS_REPLY_STRING)
            return odd(err);
    at = rr_where(op->r, where);
    version = strstr(reply->element[0]->str, "redis_version:");
    version = version != NULL ? version + strlen("redis_version:") : "?";
    len = (int)strcspn(version, "\r\n");
    if (len > 40)
        len = 40;
    if (strstr(reply->element[3]->str, "role:slave") != NULL)
        return tr_fail(err, TR_INVALID, "Redis %.*s at %s is a replica, which takes no writes: name the primary", len,
                       version, at);
    if (strtoul(version, NULL, 10) < 6)
        return tr_fail(err, TR_INVALID, "Redis %.*s at %s is too old: 6.2 or newer is needed", len, version, at);
    snprintf(op->report.server, sizeof op->report.server, "Redis %.*s at %s", len, version, at);
    tell_memory(op->r, &op->report, reply->element[4]->str);
    op->report.clock_ms =
        strtoull(reply->element[1]->str, NULL, 10) * 1000 + strtoull(reply->element[2]->str, NULL, 10) / 1000;
    return TR_OK;
}
