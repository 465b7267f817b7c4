/*
 * request - one request of S3, tried again while its time lasts; libcurl runs it (driver.c).
 *
 *   WAITING -> RUNNING   attempt        at once, or when the pause is over
 *   RUNNING -> WAITING   s3_complete    no connection, or the server says "later": after 50 ms, doubling to 1 s, jittered
 *   RUNNING -> answered  s3_complete
 *   any     -> answered  on_deadline, request_cancel
 */
#include "adapter/s3/impl.h"

#include "base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 1000
#define CONNECT_MS 5000L

static struct metric reconnections = METRIC(METRIC_COUNTER, "troupe_reconnections_total", "service=\"media\"",
                                            "Connections found again after they were lost.");

struct s3_request {
    struct tr_op op; /* first: the caller's handle */
    struct s3_media *m;
    struct s3_request *next, *prev;
    CURL *easy; /* NULL: waiting */
    struct curl_slist *headers;
    struct loop_timer *deadline, *pause;
    struct loop_call call;                /* a cancellation on its way */
    char path[S3_PATH_MAX], *query, *url; /* owned */
    const char *method;
    struct slice body;
    char hash[65];
    uint64_t from;
    size_t len, limit;
    bool write, once, exact;
    bool sent;      /* an attempt may have reached the server */
    bool cancelled; /* the call is on its way */
    bool too_long;
    unsigned tries;
    uint64_t failing_ms; /* since when; 0: it has not failed yet */
    s3_done *done;
    void *ctx;
    struct buf in;
    struct s3_reply reply;
    struct tr_err err; /* why the last attempt failed */
    char curl_err[CURL_ERROR_SIZE];
};

static enum tr_rc attempt(struct s3_request *r);

/* ---- an answer ---- */

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct s3_request *r = ctx;

    if (r->in.len + size * n > r->limit) {
        r->too_long = true;
        return 0;
    }
    buf_add(&r->in, data, size * n);
    return r->in.failed ? 0 : size * n;
}

static bool header_is(const char *line, size_t len, const char *name, char *out, size_t size)
{
    const size_t n = strlen(name);

    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
        return false;
    line += n + 1;
    len -= n + 1;
    while (len > 0 && (*line == ' ' || *line == '\t')) {
        line++;
        len--;
    }
    while (len > 0 && (unsigned char)line[len - 1] <= ' ')
        len--;
    if (len >= size)
        len = size - 1;
    memcpy(out, line, len);
    out[len] = '\0';
    return true;
}

static size_t on_header(char *line, size_t size, size_t n, void *ctx)
{
    struct s3_request *r = ctx;
    const size_t len = size * n;
    char text[128];

    if (header_is(line, len, "etag", r->reply.etag, sizeof r->reply.etag) ||
        header_is(line, len, "server", r->reply.server, sizeof r->reply.server))
        return len;
    if (header_is(line, len, "content-range", text, sizeof text)) { /* bytes 0-9/100 */
        const char *slash = strchr(text, '/');

        if (slash != NULL && slash[1] >= '0' && slash[1] <= '9') {
            r->reply.size = strtoull(slash + 1, NULL, 10);
            r->reply.ranged = true;
        }
    } else if (header_is(line, len, "content-length", text, sizeof text) && !r->reply.ranged) {
        r->reply.size = strtoull(text, NULL, 10);
    } else if (header_is(line, len, "date", text, sizeof text)) {
        const time_t t = curl_getdate(text, NULL);

        r->reply.clock_ms = t > 0 ? (uint64_t)t * 1000 : 0;
    } else if (header_is(line, len, "last-modified", text, sizeof text)) {
        const time_t t = curl_getdate(text, NULL);

        r->reply.modified_ms = t > 0 ? (uint64_t)t * 1000 : 0;
    }
    return len;
}

/* ---- the end of a request ---- */

static void drop_easy(struct s3_request *r)
{
    if (r->easy != NULL) {
        curl_multi_remove_handle(r->m->multi, r->easy);
        curl_easy_cleanup(r->easy);
    }
    r->easy = NULL;
    curl_slist_free_all(r->headers);
    r->headers = NULL;
}

static void request_free(struct s3_request *r)
{
    drop_easy(r);
    timer_stop(r->deadline);
    timer_stop(r->pause);
    buf_release(&r->in);
    free(r->query);
    free(r->url);
    free(r);
}

static void answer(struct s3_request *r, enum tr_rc rc)
{
    struct s3_media *m = r->m;

    drop_easy(r); /* nothing of it is called any more */
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        m->requests = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    m->requests_n--;
    r->reply.body = (struct slice){r->in.data, r->in.len};
    r->err.rc = rc;
    r->done(r->ctx, rc, rc == TR_CANCELLED ? NULL : &r->reply, rc == TR_OK ? NULL : &r->err);
    request_free(r);
}

static void on_cancelled(struct loop_call *call)
{
    struct s3_request *r = (struct s3_request *)((char *)call - offsetof(struct s3_request, call));

    tr_fail(&r->err, TR_CANCELLED, "cancelled");
    answer(r, TR_CANCELLED);
}

static void request_cancel(struct tr_op *op)
{
    struct s3_request *r = (struct s3_request *)op;

    if (r->cancelled)
        return;
    r->cancelled = true;
    drop_easy(r);
    timer_stop(r->deadline);
    timer_stop(r->pause);
    r->deadline = r->pause = NULL;
    r->call.fn = on_cancelled;
    loop_defer(r->m->loop, &r->call);
}

static void on_deadline(void *ctx)
{
    struct s3_request *r = ctx;
    long sent = 0;
    enum tr_rc rc;

    if (r->easy != NULL && curl_easy_getinfo(r->easy, CURLINFO_REQUEST_SIZE, &sent) == CURLE_OK && sent > 0)
        r->sent = true;
    rc = r->write && r->sent ? TR_UNCERTAIN : TR_TRANSIENT;
    r->m->down = true;
    if (r->err.msg[0] == '\0')
        tr_fail(&r->err, rc, "S3 at %.100s does not answer", r->m->host);
    answer(r, rc);
}

static void on_pause(void *ctx)
{
    struct s3_request *r = ctx;
    enum tr_rc rc;

    timer_stop(r->pause);
    r->pause = NULL;
    rc = attempt(r);
    if (rc != TR_OK)
        answer(r, rc);
}

/* Later, if there is time. */
static void again(struct s3_request *r)
{
    const uint64_t now = loop_now_ms(r->m->loop);
    uint64_t pause = (uint64_t)PAUSE_FIRST_MS << (r->tries < 5 ? r->tries : 5);

    r->m->down = true;
    if (pause > PAUSE_MAX_MS)
        pause = PAUSE_MAX_MS;
    pause = pause / 2 + randombytes_uniform((uint32_t)pause / 2 + 1);
    r->tries++;
    drop_easy(r);
    if (r->failing_ms == 0)
        r->failing_ms = now;
    /* what has long to be sent is still not tried for long where nobody is there */
    if (r->once || now - r->failing_ms >= S3_TIMEOUT_MS)
        answer(r, r->write && r->sent ? TR_UNCERTAIN : TR_TRANSIENT);
    else if (timer_start(r->m->loop, pause, 0, on_pause, r, &r->pause) != TR_OK)
        answer(r, TR_NOMEM);
}

static const struct {
    const char *code, *words;
} refusals[] = {
    {"SignatureDoesNotMatch", "the secret key is wrong: set S3_SECRET_ACCESS_KEY"},
    {"InvalidAccessKeyId", "there is no such access key: set S3_ACCESS_KEY_ID"},
    {"AccessDenied", "access is denied: give this access key the right to read, write, list and delete in the bucket"},
    {"RequestTimeTooSkewed", "its clock and this machine's are too far apart: set both by NTP"},
    {"AuthorizationHeaderMalformed", "the region is wrong: set S3_REGION"},
    {"BucketAlreadyExists", "the bucket is somebody else's: name another in TROUPE_MEDIA"},
    {"PermanentRedirect", "the bucket is in another region: set S3_REGION and S3_ENDPOINT_URL"},
};

/* What a refusal means, for people; and for callers, see s3_done. */
static enum tr_rc refused(struct s3_request *r)
{
    const struct s3_media *m = r->m;
    const unsigned status = r->reply.status;
    const enum tr_rc no = r->exact ? TR_INVALID : TR_TRANSIENT;
    const bool bucket = strcmp(r->reply.code, "NoSuchBucket") == 0;

    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        if (strcmp(r->reply.code, refusals[i].code) == 0)
            return tr_fail(&r->err, no, "S3 at %.80s: %s", m->host, refusals[i].words);
    if (bucket)
        return tr_fail(&r->err, r->exact ? TR_NOT_FOUND : no, "S3 at %.80s has no bucket %.60s: run `troupe init`",
                       m->host, m->bucket);
    if (status == 404)
        return tr_fail(&r->err, TR_NOT_FOUND, "S3 at %.80s: no such object", m->host);
    if (status == 403)
        return tr_fail(&r->err, no, "S3 at %.80s: refused (%.40s): is S3_SECRET_ACCESS_KEY right?", m->host,
                       r->reply.code[0] != '\0' ? r->reply.code : "403");
    return tr_fail(&r->err, no, "S3 at %.80s: answered %u %.60s", m->host, status, r->reply.code);
}

/* An answer came in whole. */
static void on_answer(struct s3_request *r)
{
    struct s3_media *m = r->m;
    const unsigned status = r->reply.status;
    const struct slice body = {r->in.data, r->in.len};
    enum tr_rc rc = TR_OK;

    r->reply.code[0] = '\0';
    if (status >= 300 || (body.len > 0 && r->len == 0))
        (void)s3_xml_text(body, "Code", r->reply.code, sizeof r->reply.code);
    for (char *c = r->reply.code; *c != '\0'; c++)
        if (!((*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9')))
            *c = '\0'; /* it goes into messages */
    if (status >= 500 || status == 429 || strcmp(r->reply.code, "RequestTimeout") == 0 ||
        strcmp(r->reply.code, "InternalError") == 0 || strcmp(r->reply.code, "OperationAborted") == 0) {
        tr_fail(&r->err, TR_TRANSIENT, "S3 at %.80s: %u %.60s", m->host, status, r->reply.code);
        again(r);
        return;
    }
    if (m->down)
        metric_add(&reconnections, 1);
    m->down = false;
    if (status / 100 != 2 && !(status == 416 && r->len > 0))
        rc = refused(r);
    answer(r, rc);
}

void s3_complete(struct s3_request *r, CURLcode code)
{
    long status = 0;

    if (code == CURLE_OK) {
        (void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
        r->reply.status = (unsigned)status;
        on_answer(r);
        return;
    }
    if (r->in.failed || code == CURLE_OUT_OF_MEMORY) {
        answer(r, tr_fail(&r->err, TR_NOMEM, "S3"));
        return;
    }
    if (r->too_long) {
        answer(r, tr_fail(&r->err, r->exact ? TR_INVALID : TR_TRANSIENT, "S3 at %.80s sends more than was asked for",
                          r->m->host));
        return;
    }
    if (code != CURLE_COULDNT_CONNECT && code != CURLE_COULDNT_RESOLVE_HOST)
        r->sent = true;
    tr_fail(&r->err, TR_TRANSIENT, "S3 at %.80s is not reached: %.120s; is it running, is S3_ENDPOINT_URL right?",
            r->m->host, r->curl_err[0] != '\0' ? r->curl_err : curl_easy_strerror(code));
    again(r);
}

/* ---- an attempt ---- */

static bool add_header(struct s3_request *r, const char *name, const char *value)
{
    struct curl_slist *list;
    char line[768];

    if (snprintf(line, sizeof line, "%s: %s", name, value) >= (int)sizeof line)
        return false;
    list = curl_slist_append(r->headers, line);
    if (list == NULL)
        return false;
    r->headers = list;
    return true;
}

static bool sign(struct s3_request *r)
{
    const struct s3_media *m = r->m;
    const struct s3_signing s = {.method = r->method,
                                 .host = m->host,
                                 .path = r->path,
                                 .query = r->query,
                                 .hash = r->hash,
                                 .unix_s = wall_ms() / 1000,
                                 .region = m->region,
                                 .access_key = m->access_key,
                                 .secret_key = m->secret_key};
    struct buf authorization = {0};
    char date[17], range[64];
    bool ok;

    s3_date(s.unix_s, date);
    s3_sign(&s, &authorization);
    ok = add_header(r, "Host", m->host) && add_header(r, "x-amz-date", date) &&
         add_header(r, "x-amz-content-sha256", r->hash) && add_header(r, "Authorization", buf_str(&authorization)) &&
         add_header(r, "Content-Type", "application/octet-stream") && add_header(r, "Expect", "");
    if (ok && r->len > 0) {
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)r->from,
                 (unsigned long long)(r->from + r->len - 1));
        ok = add_header(r, "Range", range);
    }
    ok = ok && !authorization.failed;
    buf_release(&authorization);
    return ok;
}

static enum tr_rc attempt(struct s3_request *r)
{
    CURL *e = curl_easy_init();

    if (e == NULL)
        return tr_fail(&r->err, TR_NOMEM, "S3");
    buf_clear(&r->in);
    r->reply = (struct s3_reply){0};
    r->curl_err[0] = '\0';
    if (!sign(r)) {
        curl_easy_cleanup(e);
        return tr_fail(&r->err, TR_NOMEM, "S3: a request");
    }
    curl_easy_setopt(e, CURLOPT_PRIVATE, r);
    curl_easy_setopt(e, CURLOPT_URL, r->url);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)S3_STILL_SECONDS);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->curl_err);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
    if (strcmp(r->method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.len);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->body.len > 0 ? (const char *)r->body.data : "");
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    } else {
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    }
    r->easy = e;
    if (curl_multi_add_handle(r->m->multi, e) != CURLM_OK) {
        curl_easy_cleanup(e);
        r->easy = NULL;
        return tr_fail(&r->err, TR_NOMEM, "S3: a request");
    }
    return TR_OK;
}

static enum tr_rc make_url(struct s3_request *r, const struct s3_ask *ask, struct tr_err *err)
{
    const struct s3_media *m = r->m;
    struct buf url = {0};

    if (snprintf(r->path, sizeof r->path, "/%s%s%s%s", m->bucket, ask->name != NULL ? "/" : "",
                 ask->name != NULL ? m->prefix : "", ask->name != NULL ? ask->name : "") >= (int)sizeof r->path)
        return tr_fail(err, TR_INVALID, "S3: the name is too long");
    r->query = strdup(ask->query != NULL ? ask->query : "");
    buf_printf(&url, "%s%s%s%s", m->endpoint, r->path, ask->query != NULL ? "?" : "",
               ask->query != NULL ? ask->query : "");
    r->url = url.failed ? NULL : strdup(buf_str(&url));
    buf_release(&url);
    return r->query == NULL || r->url == NULL ? tr_fail(err, TR_NOMEM, "S3: a request") : TR_OK;
}

enum tr_rc s3_start(struct s3_media *m, const struct s3_ask *ask, s3_done *done, void *ctx, struct tr_op **ret_op,
                    struct tr_err *err)
{
    const uint64_t timeout = ask->timeout_ms != 0 ? ask->timeout_ms : S3_TIMEOUT_MS;
    struct s3_request *r;
    enum tr_rc rc;

    if (m->closing)
        return tr_fail(err, TR_CANCELLED, "S3: closing");
    if (m->requests_n >= S3_REQUESTS_MAX)
        return tr_fail(err, TR_BUSY, "S3: too many requests wait");
    r = calloc(1, sizeof *r);
    if (r == NULL)
        return tr_fail(err, TR_NOMEM, "S3: a request");
    r->op.cancel = request_cancel;
    r->m = m;
    r->method = ask->method;
    r->body = ask->body;
    r->from = ask->from;
    r->len = ask->len;
    r->limit =
        ask->len > 0 ? (ask->len > 65536 ? ask->len : 65536) : S3_XML_MAX; /* errors are longer than little ranges */
    r->write = ask->write;
    r->once = ask->once;
    r->exact = ask->exact;
    r->done = done;
    r->ctx = ctx;
    if (ask->hash != NULL)
        memcpy(r->hash, ask->hash, sizeof r->hash);
    else
        s3_hash(ask->body.data, ask->body.len, r->hash);
    rc = make_url(r, ask, err);
    if (rc == TR_OK)
        rc = timer_start(m->loop, timeout, 0, on_deadline, r, &r->deadline);
    if (rc == TR_OK)
        rc = attempt(r);
    if (rc != TR_OK) {
        request_free(r);
        return tr_fail(err, rc, "S3: a request");
    }
    r->next = m->requests;
    if (r->next != NULL)
        r->next->prev = r;
    m->requests = r;
    m->requests_n++;
    *ret_op = &r->op;
    return TR_OK;
}

enum tr_rc s3_is(const struct s3_media *m, const struct s3_reply *reply, const char *tag, struct tr_err *err)
{
    struct slice text;
    size_t at = 0;

    if (s3_xml_next(reply->body, tag, &at, &text))
        return TR_OK;
    return tr_fail(err, TR_INVALID, "what answers at %.80s is not S3: is S3_ENDPOINT_URL right?", m->host);
}

void s3_cancel_all(struct s3_media *m)
{
    for (struct s3_request *r = m->requests; r != NULL; r = r->next)
        request_cancel(&r->op);
}
