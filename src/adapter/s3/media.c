/* s3 media - see media.h: opening, reading, marks, removing, listing.  One request each. */
#include "adapter/s3/impl.h"

#include "base/url.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A caller's operation of one request. */
struct simple {
    struct tr_op op; /* first */
    struct s3_media *m;
    struct tr_op *request;
    union {
        media_done *plain;
        media_read_done *read;
        media_list_done *list;
        media_age_done *age;
    } done;
    void *ctx;
    char name[MEDIA_NAME_MAX + 1]; /* of a read */
    uint64_t from;
    size_t len;
    uint32_t limit;
};

static void simple_cancel(struct tr_op *op)
{
    tr_op_cancel(((struct simple *)op)->request);
}

static struct simple *simple_new(struct media *m, void *ctx)
{
    struct simple *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->op.cancel = simple_cancel;
    s->m = (struct s3_media *)m;
    s->ctx = ctx;
    return s;
}

static enum tr_rc simple_start(struct simple *s, const struct s3_ask *ask, s3_done *done, struct tr_op **ret_op,
                               struct tr_err *err)
{
    const enum tr_rc rc = s3_start(s->m, ask, done, s, &s->request, err);

    if (rc != TR_OK)
        free(s);
    else
        *ret_op = &s->op;
    return rc;
}

/* ---- marks, removing ---- */

static void on_plain(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct simple *s = ctx;

    (void)reply;
    s->done.plain(s->ctx, rc, err);
    free(s);
}

static void on_removed(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    const bool gone = rc == TR_NOT_FOUND; /* the object; not the bucket */

    on_plain(ctx, gone ? TR_OK : rc, reply, gone ? NULL : err);
}

static enum tr_rc plain(struct media *m, const char *method, const char *name, s3_done *on_done, media_done *done,
                        void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const struct s3_ask ask = {.method = method, .name = name, .hash = S3_EMPTY_HASH, .write = true};
    struct simple *s = simple_new(m, ctx);

    assert(media_name_valid(name));
    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    s->done.plain = done;
    return simple_start(s, &ask, on_done, ret_op, err);
}

static enum tr_rc mark(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                       struct tr_err *err)
{
    return plain(m, "PUT", name, on_plain, done, ctx, ret_op, err);
}

static enum tr_rc remove_it(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                            struct tr_err *err)
{
    return plain(m, "DELETE", name, on_removed, done, ctx, ret_op, err);
}

/* ---- reading ---- */

/* How large it is, where a range behind its end was refused without saying so. */
static void on_size(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct simple *s = ctx;

    s->done.read(s->ctx, rc, (struct slice){0}, rc == TR_OK ? reply->size : 0, err);
    free(s);
}

static void ask_size(struct simple *s)
{
    const struct s3_ask ask = {.method = "HEAD", .name = s->name, .hash = S3_EMPTY_HASH};
    struct tr_err err = {0};
    const enum tr_rc rc = s3_start(s->m, &ask, on_size, s, &s->request, &err);

    if (rc != TR_OK) {
        s->done.read(s->ctx, rc, (struct slice){0}, 0, &err);
        free(s);
    }
}

static void on_read(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct simple *s = ctx;
    struct slice data = {0};
    struct tr_err own = {0};
    uint64_t size = 0;

    if (rc == TR_OK && reply->status == 206) {
        data = reply->body;
        size = reply->size;
    } else if (rc == TR_OK && reply->status == 416 && reply->ranged) {
        size = reply->size; /* the range begins behind its end */
    } else if (rc == TR_OK && reply->status == 416) {
        ask_size(s);
        return;
    } else if (rc == TR_OK && s->from == 0) {
        data = reply->body; /* the whole, where that is within the range */
        size = reply->size;
    } else if (rc == TR_OK) {
        rc = tr_fail(&own, TR_TRANSIENT, "S3 at %.80s takes no ranges", s->m->host);
        err = &own;
    }
    if (data.len > s->len)
        data.len = s->len;
    s->done.read(s->ctx, rc, data, size, err);
    free(s);
}

static enum tr_rc read_it(struct media *m, const char *name, uint64_t from, size_t len, media_read_done *done,
                          void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    const struct s3_ask ask = {.method = "GET", .name = name, .hash = S3_EMPTY_HASH, .from = from, .len = len};
    struct simple *s = simple_new(m, ctx);

    assert(media_name_valid(name) && len > 0 && len <= MEDIA_READ_MAX);
    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    s->done.read = done;
    snprintf(s->name, sizeof s->name, "%s", name);
    s->from = from;
    s->len = len;
    return simple_start(s, &ask, on_read, ret_op, err);
}

/* ---- ages ---- */

static void on_age(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct simple *s = ctx;
    uint64_t age = 0;

    if (rc == TR_OK && reply->modified_ms != 0 && reply->clock_ms > reply->modified_ms)
        age = reply->clock_ms - reply->modified_ms;
    s->done.age(s->ctx, rc, age, err);
    free(s);
}

static enum tr_rc age(struct media *m, const char *name, media_age_done *done, void *ctx, struct tr_op **ret_op,
                      struct tr_err *err)
{
    const struct s3_ask ask = {.method = "HEAD", .name = name, .hash = S3_EMPTY_HASH};
    struct simple *s = simple_new(m, ctx);

    assert(media_name_valid(name));
    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    s->done.age = done;
    return simple_start(s, &ask, on_age, ret_op, err);
}

/* ---- listing ---- */

static void on_listed(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err)
{
    struct simple *s = ctx;
    const size_t prefix = strlen(s->m->prefix);
    char(*names)[MEDIA_NAME_MAX + 1] = NULL, key[S3_PATH_MAX], more[8] = "";
    const char **list = NULL;
    struct tr_err own = {0};
    struct slice entry;
    size_t at = 0, n = 0;

    if (rc == TR_OK && s3_is(s->m, reply, "ListBucketResult", &own) != TR_OK) {
        rc = own.rc = TR_TRANSIENT;
        err = &own;
    }
    if (rc == TR_OK) {
        names = calloc(s->limit, sizeof *names);
        list = calloc(s->limit, sizeof *list);
        if (names == NULL || list == NULL) {
            rc = tr_fail(&own, TR_NOMEM, "S3");
            err = &own;
        }
    }
    while (rc == TR_OK && n < s->limit && s3_xml_next(reply->body, "Contents", &at, &entry)) {
        if (!s3_xml_text(entry, "Key", key, sizeof key) || strncmp(key, s->m->prefix, prefix) != 0 ||
            !media_name_valid(key + prefix))
            continue; /* not of ours */
        memcpy(names[n], key + prefix, strlen(key + prefix) + 1);
        list[n] = names[n];
        n++;
    }
    if (rc == TR_OK)
        (void)s3_xml_text(reply->body, "IsTruncated", more, sizeof more);
    s->done.list(s->ctx, rc, rc == TR_OK ? list : NULL, n, strcmp(more, "true") == 0, err);
    free(names);
    free(list);
    free(s);
}

static enum tr_rc list(struct media *base, const char *prefix, const char *after, uint32_t limit, media_list_done *done,
                       void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct s3_media *m = (struct s3_media *)base;
    struct s3_ask ask = {.method = "GET", .hash = S3_EMPTY_HASH};
    struct simple *s = simple_new(base, ctx);
    char text[S3_PATH_MAX];
    struct buf query = {0};
    enum tr_rc rc;

    assert(limit > 0 && limit <= MEDIA_LIST_MAX);
    if (s == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    s->done.list = done;
    s->limit = limit;
    s3_query(&query, "list-type", "2");
    snprintf(text, sizeof text, "%u", (unsigned)limit);
    s3_query(&query, "max-keys", text);
    snprintf(text, sizeof text, "%s%s", m->prefix, prefix);
    s3_query(&query, "prefix", text);
    if (after[0] != '\0') {
        snprintf(text, sizeof text, "%s%s", m->prefix, after);
        s3_query(&query, "start-after", text);
    }
    ask.query = buf_str(&query);
    rc = query.failed ? TR_NOMEM : simple_start(s, &ask, on_listed, ret_op, err);
    if (query.failed)
        free(s);
    buf_release(&query);
    return rc;
}

/* ---- opening ---- */

static void wipe_free(char *text)
{
    if (text != NULL)
        sodium_memzero(text, strlen(text));
    free(text);
}

static void media_free(struct s3_media *m)
{
    if (m == NULL)
        return;
    free(m->endpoint);
    free(m->host);
    free(m->bucket);
    free(m->prefix);
    free(m->region);
    wipe_free(m->access_key);
    wipe_free(m->secret_key);
    free(m);
}

static void close_it(struct media *base)
{
    struct s3_media *m = (struct s3_media *)base;

    s3_driver_stop(m);
    assert(m->puts_n == 0);
    media_free(m);
}

static const struct media_ops s3_ops = {
    .scheme = "s3",
    .put_start = s3_put_start,
    .put_write = s3_put_write,
    .put_finish = s3_put_finish,
    .put_free = s3_put_free,
    .read = read_it,
    .age = age,
    .mark = mark,
    .remove = remove_it,
    .list = list,
    .sweep = s3_sweep,
    .init = s3_init,
    .check = s3_check,
    .close = close_it,
};

static bool made_of(const char *text, const char *others)
{
    for (; *text != '\0'; text++)
        if (!((*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9') || strchr(others, *text) != NULL))
            return false;
    return true;
}

/* s3://bucket/prefix; what they are made of needs no encoding anywhere. */
static enum tr_rc read_url(struct s3_media *m, const char *url, struct tr_err *err)
{
    const char *bucket = strncmp(url, "s3://", 5) == 0 ? url + 5 : "";
    const size_t n = strcspn(bucket, "/");
    const char *prefix = bucket[n] == '/' ? bucket + n + 1 : "";
    const size_t len = strlen(prefix);
    char text[S3_PATH_MAX];

    m->bucket = strndup(bucket, n);
    if (m->bucket == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    if (n < 3 || n > 63 || !made_of(m->bucket, ".-") || m->bucket[0] == '.' || m->bucket[0] == '-')
        return tr_fail(err, TR_INVALID,
                       "expected s3://bucket or s3://bucket/prefix, a bucket of 3 to 63 of a-z, 0-9, . and -");
    if (len > 128 || !made_of(prefix, "._/-ABCDEFGHIJKLMNOPQRSTUVWXYZ") || prefix[0] == '/' ||
        strstr(prefix, "//") != NULL || strstr(prefix, "..") != NULL)
        return tr_fail(err, TR_INVALID, "the prefix behind the bucket may have 128 of a-z, A-Z, 0-9, . _ - and /");
    snprintf(text, sizeof text, "%s%s", prefix, len > 0 && prefix[len - 1] != '/' ? "/" : "");
    m->prefix = strdup(text);
    return m->prefix == NULL ? tr_fail(err, TR_NOMEM, "S3") : TR_OK;
}

static enum tr_rc read_endpoint(struct s3_media *m, const struct s3_options *o, struct tr_err *err)
{
    char amazon[128], host[300], endpoint[320];
    const char *text = o->endpoint;
    struct url url = {0};
    bool tls, six;
    enum tr_rc rc;

    if (text[0] == '\0') {
        snprintf(amazon, sizeof amazon, "https://s3.%.64s.amazonaws.com", o->region);
        text = amazon;
    }
    tls = strncmp(text, "https://", 8) == 0;
    rc = url_parse(text, tls ? 443 : 80, &url, err);
    if (rc == TR_INVALID ||
        (rc == TR_OK && (url.hosts != 1 || (!tls && strcmp(url.scheme, "http") != 0) || url.user != NULL ||
                         url.path[0] != '\0' || url.query_n > 0 || strlen(url.host[0].name) > 250)))
        rc = tr_fail(err, TR_INVALID,
                     "S3_ENDPOINT_URL: expected something like http://127.0.0.1:9000 or https://s3.example.com, and "
                     "nothing behind it");
    if (rc == TR_OK) {
        six = strchr(url.host[0].name, ':') != NULL;
        snprintf(host, sizeof host, "%s%s%s", six ? "[" : "", url.host[0].name, six ? "]" : "");
        if (url.host[0].port != (tls ? 443 : 80))
            snprintf(host + strlen(host), sizeof host - strlen(host), ":%u", url.host[0].port);
        snprintf(endpoint, sizeof endpoint, "%s://%s", tls ? "https" : "http", host);
        m->host = strdup(host);
        m->endpoint = strdup(endpoint);
        if (m->host == NULL || m->endpoint == NULL)
            rc = tr_fail(err, TR_NOMEM, "S3");
    }
    url_release(&url);
    return rc;
}

static bool printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

enum tr_rc s3_media_open(struct loop *loop, const char *url, const struct s3_options *o, struct media **ret_media,
                         struct tr_err *err)
{
    struct s3_media *m = calloc(1, sizeof *m);
    enum tr_rc rc;

    if (m == NULL)
        return tr_fail(err, TR_NOMEM, "S3");
    m->base.ops = &s3_ops;
    m->loop = loop;
    rc = read_url(m, url, err);
    if (rc == TR_OK && (o->region[0] == '\0' || strlen(o->region) > 64 || !made_of(o->region, "-_")))
        rc = tr_fail(err, TR_INVALID, "S3_REGION: expected something like us-east-1");
    if (rc == TR_OK)
        rc = read_endpoint(m, o, err);
    if (rc == TR_OK && (o->access_key[0] == '\0' || strlen(o->access_key) > 128 || !printable(o->access_key)))
        rc = tr_fail(err, TR_INVALID, "S3_ACCESS_KEY_ID is not set, or is none");
    if (rc == TR_OK && (o->secret_key[0] == '\0' || strlen(o->secret_key) > 250 || !printable(o->secret_key)))
        rc = tr_fail(err, TR_INVALID, "S3_SECRET_ACCESS_KEY is not set, or is none");
    if (rc == TR_OK) {
        m->region = strdup(o->region);
        m->access_key = strdup(o->access_key);
        m->secret_key = strdup(o->secret_key);
        if (m->region == NULL || m->access_key == NULL || m->secret_key == NULL)
            rc = tr_fail(err, TR_NOMEM, "S3");
    }
    if (rc == TR_OK) {
        rc = s3_driver_start(m, err);
        if (rc != TR_OK)
            s3_driver_stop(m);
    }
    if (rc == TR_OK) {
        *ret_media = &m->base;
        m = NULL;
    }
    media_free(m);
    return rc;
}
