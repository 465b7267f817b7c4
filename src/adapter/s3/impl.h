/*
 * impl - what the files of the S3 media share; nobody else includes it.
 *   media.c    opening, reading, marks, removing, listing
 *   admin.c    init, check, sweep
 *   put.c      an object on its way in: one request, or parts
 *   request.c  one request with its retries
 *   driver.c   libcurl on the loop
 *   sign.c     signature version 4 (pure)
 *   xml.c      what the answers say (pure)
 */
#ifndef ADAPTER_S3_IMPL_H
#define ADAPTER_S3_IMPL_H

#include "adapter/s3/media.h"

#include <curl/curl.h>
#include <sodium.h>
#include <uv.h>

#define S3_TIMEOUT_MS 10000
#define S3_PART_TIMEOUT_MS 60000 /* for a part of 5 MiB; one that stands still is given up earlier */
#define S3_STILL_SECONDS 8
#define S3_CHECK_MS 4000
#define S3_REQUESTS_MAX 1024
#define S3_PART (5u * 1024 * 1024) /* the least that S3 takes */
#define S3_PATH_MAX 512
#define S3_QUERY_MAX 2048
#define S3_ETAG_MAX 128
#define S3_UPLOAD_MAX 1024 /* an upload's id */
#define S3_XML_MAX (2u * 1024 * 1024)
#define S3_EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* ---- sign.c ---- */

struct s3_signing {
    const char *method, *host; /* host: as in the Host header */
    const char *path, *query;  /* encoded; the query's parameters in the order of their names */
    const char *hash;          /* SHA-256 of the body, 64 hex digits */
    uint64_t unix_s;
    const char *region, *access_key, *secret_key;
};
/* "20130524T000000Z" */
void s3_date(uint64_t unix_s, char ret_date[17]);
void s3_hash(const void *data, size_t len, char ret_hex[65]);
/* The Authorization header's value, appended. */
void s3_sign(const struct s3_signing *s, struct buf *out);
/* Append "name=value" (with "&" before it unless it is the first), percent-encoded as the signature wants it. */
void s3_query(struct buf *out, const char *name, const char *value);

/* ---- xml.c ---- */

/* The text between the next <tag …> and its </tag>, from *at on, and *at behind it.  Elements of the same name don't nest here. */
bool s3_xml_next(struct slice doc, const char *tag, size_t *at, struct slice *ret_text);
/* The first such text with its entities resolved into out[0..size); false: absent, or too long. */
bool s3_xml_text(struct slice doc, const char *tag, char *out, size_t size);
/* "2026-01-31T12:00:00.000Z" -> milliseconds since 1970; 0: it is none. */
uint64_t s3_xml_time(const char *text);

/* ---- request.c ---- */

struct s3_request;
struct s3_reply {
    unsigned status;                              /* 0: none came */
    struct slice body;                            /* borrowed, as all of it */
    char etag[S3_ETAG_MAX], server[64], code[64]; /* code: the error's, "NoSuchKey" */
    uint64_t size;                                /* of the whole object: Content-Range's, or Content-Length */
    bool ranged;                                  /* it came with Content-Range */
    uint64_t clock_ms, modified_ms;               /* Date, Last-Modified */
};
/*
 * rc: TR_OK for a status of 2xx, TR_NOT_FOUND for an object (or an upload) that is not there.  Refused for good, the bucket is
 * missing, or what answers is not S3: TR_TRANSIENT, for who runs the server can mend it, and no object is damaged by it; to
 * `exact` asks (init, check) TR_NOT_FOUND for the bucket and TR_INVALID for the others.  The words are the same.
 */
typedef void s3_done(void *ctx, enum tr_rc rc, const struct s3_reply *reply, const struct tr_err *err);

struct s3_ask {
    const char *method;
    const char *name;  /* the object's; NULL: the bucket itself */
    const char *query; /* encoded and in order; NULL: none */
    struct slice body; /* borrowed until done */
    const char *hash;  /* of the body; NULL: it is hashed here */
    uint64_t from;     /* with len > 0: a range is asked for */
    size_t len;        /* and no more is taken */
    uint64_t timeout_ms;
    bool write; /* its end is uncertain where the connection broke */
    bool once;  /* not tried again */
    bool exact; /* see s3_done */
};

struct s3_media {
    struct media base;
    struct loop *loop;
    CURLM *multi;
    uv_timer_t *timer;     /* curl's; frees itself when closed */
    char *endpoint;        /* "http://host:9000" */
    char *host;            /* "host:9000" */
    char *bucket, *prefix; /* prefix: "" or "…/" */
    char *region, *access_key, *secret_key;
    struct s3_request *requests;
    size_t requests_n, puts_n;
    bool down; /* the last that came to an end found no server */
    bool closing;
};

enum tr_rc s3_start(struct s3_media *m, const struct s3_ask *ask, s3_done *done, void *ctx, struct tr_op **ret_op,
                    struct tr_err *err) TR_MUST_CHECK;
/* Is the answer this element, whole?  TR_INVALID: something else stands there. */
enum tr_rc s3_is(const struct s3_media *m, const struct s3_reply *reply, const char *tag,
                 struct tr_err *err) TR_MUST_CHECK;
void s3_complete(struct s3_request *r, CURLcode code); /* libcurl has ended its attempt */
void s3_cancel_all(struct s3_media *m);

/* ---- driver.c ---- */

enum tr_rc s3_driver_start(struct s3_media *m, struct tr_err *err) TR_MUST_CHECK;
void s3_driver_stop(struct s3_media *m); /* everything under way is called back with TR_CANCELLED */

/* ---- put.c, admin.c: parts of the port ---- */
enum tr_rc s3_put_start(struct media *m, const char *name, uint64_t size, struct media_put **ret_put,
                        struct tr_err *err);
enum tr_rc s3_put_write(struct media_put *put, const void *data, size_t len, media_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err);
enum tr_rc s3_put_finish(struct media_put *put, media_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
void s3_put_free(struct media_put *put);
enum tr_rc s3_init(struct media *m, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
enum tr_rc s3_check(struct media *m, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
enum tr_rc s3_sweep(struct media *m, uint64_t age_ms, media_done *done, void *ctx, struct tr_op **ret_op,
                    struct tr_err *err);

#endif
