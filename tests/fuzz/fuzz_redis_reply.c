/*
 * Whatever shape an answer of Redis has: a list holds only what its reader promises, a failure leaves the err filled, and a
 * worker's record that is read comes back the same from rr_record_print().
 * Bytes -> which reader, then a tree: type, length, contents (hiredis' own reader is not under test).
 */
#include "adapter/redis/impl.h"
#include "fuzz.h"

#define DEPTH 3
#define ELEMENTS 70

struct input {
    const uint8_t *at, *end;
};

static uint8_t take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static void text(struct input *in, redisReply *r)
{
    size_t len = take(in);

    if (len > (size_t)(in->end - in->at))
        len = (size_t)(in->end - in->at);
    r->str = calloc(1, len + 1); /* as hiredis: a 0 behind it, uncounted */
    FUZZ_CHECK(r->str != NULL);
    memcpy(r->str, in->at, len);
    r->len = len;
    in->at += len;
}

static redisReply *tree(struct input *in, int depth)
{
    static const int types[] = {REDIS_REPLY_STRING, REDIS_REPLY_ARRAY,  REDIS_REPLY_INTEGER,
                                REDIS_REPLY_NIL,    REDIS_REPLY_STATUS, REDIS_REPLY_ERROR};
    redisReply *const r = calloc(1, sizeof *r);

    FUZZ_CHECK(r != NULL);
    r->type = types[take(in) % (sizeof types / sizeof types[0])];
    if (r->type == REDIS_REPLY_ARRAY) {
        r->elements = depth < DEPTH ? take(in) % ELEMENTS : 0;
        r->element = r->elements > 0 ? calloc(r->elements, sizeof *r->element) : NULL;
        FUZZ_CHECK(r->elements == 0 || r->element != NULL);
        for (size_t i = 0; i < r->elements; i++)
            r->element[i] = tree(in, depth + 1);
    } else if (r->type == REDIS_REPLY_INTEGER) {
        uint64_t n = 0;

        for (int i = 0; i < 8; i++)
            n = n << 8 | take(in);
        r->integer = (long long)n;
    } else if (r->type != REDIS_REPLY_NIL) {
        text(in, r);
    }
    return r;
}

static void tree_free(redisReply *r)
{
    for (size_t i = 0; i < r->elements; i++)
        tree_free(r->element[i]);
    free(r->element);
    free(r->str);
    free(r);
}

static void check_workers(const struct rr_op *op)
{
    for (size_t i = 0; i < op->n; i++) {
        const struct registry_worker *const w = &op->workers[i];
        struct registry_worker back;
        struct buf once = {0}, twice = {0};

        FUZZ_CHECK(w->number > 0 && w->weight > 0 && w->id[0] != '\0');
        FUZZ_CHECK(strcmp(w->character, "any") == 0 && strncmp(w->queue, "inference.any.", 14) == 0);
        rr_record_print(w, &once);
        FUZZ_CHECK(rr_record_parse((const char *)once.data, once.len, &back) == TR_OK);
        rr_record_print(&back, &twice);
        FUZZ_CHECK(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
        buf_release(&once);
        buf_release(&twice);
    }
}

static void check_error(const char *str)
{
    struct tr_err err = {0};
    const enum tr_rc rc = rr_error(str, &err);

    FUZZ_CHECK(rc != TR_OK && rc == err.rc && err.msg[0] != '\0');
    FUZZ_CHECK(strstr(err.msg, ", with args") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rr_read *const readers[] = {rr_read_workers,   rr_read_names,    rr_read_context,   rr_read_server,
                                       rr_read_number,    rr_read_register, rr_read_refresh,   rr_read_put,
                                       rr_read_put_known, rr_read_conn_put, rr_read_conn_renew};
    static char name[] = "localhost", key[] = "p.troupe:workers:anyX"; /* what is behind is another argument's */
    struct redis_registry r = {.prefix = "p.", .url.hosts = 1, .url.host[0] = {name, 6379}};
    struct rr_op op = {.r = &r, .argc = 2, .argv = {name, key}, .argvlen = {1, sizeof key - 2}};
    struct input in = {data, data + size};
    rr_read *const read = readers[take(&in) % (sizeof readers / sizeof readers[0])];
    redisReply *const reply = tree(&in, 0);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (reply->type == REDIS_REPLY_ERROR) { /* never given to a reader */
        check_error(reply->str);
        tree_free(reply);
        return 0;
    }
    rc = read(&op, reply, &err);
    FUZZ_CHECK(rc == TR_OK ? true : rc == err.rc && err.msg[0] != '\0');
    if (rc == TR_OK && read == rr_read_workers)
        check_workers(&op);
    if (rc == TR_OK && read == rr_read_names)
        for (size_t i = 0; i < op.n; i++)
            FUZZ_CHECK(op.names[i][0] != '\0');
    if (rc == TR_OK && read == rr_read_context)
        FUZZ_CHECK(op.context.sealed.len + 24 == reply->len);
    if (rc == TR_OK && read == rr_read_server)
        FUZZ_CHECK(strncmp(op.report.server, "Redis ", 6) == 0);
    if (rc == TR_OK && (read == rr_read_register || read == rr_read_refresh || read == rr_read_put ||
                        read == rr_read_put_known || read == rr_read_conn_put || read == rr_read_conn_renew))
        FUZZ_CHECK(op.number > 0);
    FUZZ_CHECK(r.conn_end >= 0 && r.conn_end < 1e15);
    free(op.workers);
    free(op.names);
    tree_free(reply);
    return 0;
}
