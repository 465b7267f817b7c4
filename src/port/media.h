/*
 * media - objects of bytes under names, in a store that keeps them for good: sealed pictures, sound and video, and marks.
 * Adapters: filesystem (embedded), s3.  tests/contract/media.c holds each of them to these rules:
 *  1. Operations follow base/op.h; every one may be issued again.
 *  2. An object is there whole or not at all, and durable before its `finish` says TR_OK; one that stands is replaced.
 *  3. Memory stays bounded whatever an object's size: a write is answered when there is room for the next one.
 *  4. What was begun and not finished is never seen, and goes away: at put_free(), or after a crash by sweep().
 *  5. A read sees every write that was answered before it began.
 *  6. Bytes come in sealed; an adapter never looks into them.
 *
 * Names: "<user>/<media>" an object; "<user>/<media>.<chat>.<ref>" a mark: an empty object which says that a turn of that
 * chat names the media.  Ids are UUIDs' texts, ref is 32 hex digits (domain/message.h).  Nothing of them is secret, nothing is text of
 * a user's.  That a media is a user's own is its name.
 */
#ifndef PORT_MEDIA_H
#define PORT_MEDIA_H

#include "base/buf.h"
#include "base/op.h"
#include "port/service.h"

#define MEDIA_NAME_MAX 160
#define MEDIA_READ_MAX (1024 * 1024)
#define MEDIA_LIST_MAX 1000

struct media;
struct media_put; /* an object on its way in; owned by the caller: put_free() */

typedef void media_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
/* age_ms: since it was written, by the store's own clock alone; 0: the store does not tell. */
typedef void media_age_done(void *ctx, enum tr_rc rc, uint64_t age_ms, const struct tr_err *err);
/* data: borrowed; shorter than asked only at the object's end, empty from there on.  size: of the whole object. */
typedef void media_read_done(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err);
/* In the order of their bytes, borrowed; more: the limit cut it. */
typedef void media_list_done(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more,
                             const struct tr_err *err);

struct media_ops {
    const char *scheme;
    /* Begin an object of `size` bytes.  TR_BUSY: too many are under way. */
    enum tr_rc (*put_start)(struct media *m, const char *name, uint64_t size, struct media_put **ret_put,
                            struct tr_err *err);
    /* The next bytes, copied; at most MEDIA_READ_MAX.  One operation of a put at a time.  An error ends the put: free it. */
    enum tr_rc (*put_write)(struct media_put *put, const void *data, size_t len, media_done *done, void *ctx,
                            struct tr_op **ret_op, struct tr_err *err);
    /* Everything was written.  TR_INVALID: it is not `size` bytes. */
    enum tr_rc (*put_finish)(struct media_put *put, media_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err);
    /* Give up what is not finished; an operation under way is cancelled, and called back.  NULL is fine. */
    void (*put_free)(struct media_put *put);

    /* At most len <= MEDIA_READ_MAX bytes from `from` on.  TR_NOT_FOUND: no such object. */
    enum tr_rc (*read)(struct media *m, const char *name, uint64_t from, size_t len, media_read_done *done, void *ctx,
                       struct tr_op **ret_op, struct tr_err *err);
    /* How old is it?  A mark that is put again is young again.  TR_NOT_FOUND: no such object. */
    enum tr_rc (*age)(struct media *m, const char *name, media_age_done *done, void *ctx, struct tr_op **ret_op,
                      struct tr_err *err);
    /* An empty object of this name. */
    enum tr_rc (*mark)(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                       struct tr_err *err);
    /* TR_OK, too, where there is none. */
    enum tr_rc (*remove)(struct media *m, const char *name, media_done *done, void *ctx, struct tr_op **ret_op,
                         struct tr_err *err);
    /* Names that begin with `prefix` ("<user>/…") and come after `after` ("": from the first). */
    enum tr_rc (*list)(struct media *m, const char *prefix, const char *after, uint32_t limit, media_list_done *done,
                       void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* Let go of what was begun so long ago or longer, by the store's own clock, and never finished. */
    enum tr_rc (*sweep)(struct media *m, uint64_t age_ms, media_done *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err);
    /* Of a service outside, else NULL: see port/service.h. */
    enum tr_rc (*init)(struct media *m, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*check)(struct media *m, service_checked *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    void (*close)(
        struct media *m); /* with no put left; outstanding operations end with TR_CANCELLED before it returns */
};

struct media { /* first member of every adapter's own struct */
    const struct media_ops *ops;
};

/* "<36 characters>/<36…>", and for a mark more behind it: lower-case hex digits, "-" and "." alone. */
static inline bool media_name_valid(const char *name)
{
    size_t n = 0;

    for (; name[n] != '\0'; n++)
        if (n >= MEDIA_NAME_MAX || (n == 36) != (name[n] == '/') ||
            !((name[n] >= '0' && name[n] <= '9') || (name[n] >= 'a' && name[n] <= 'f') || name[n] == '-' ||
              (name[n] == '.' && n > 37) || name[n] == '/'))
            return false;
    return n > 37;
}

#endif
