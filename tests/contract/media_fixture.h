/* media_fixture - a media store, and each of its operations waited for; shared by media.c, what belongs to it, and s3.c. */
#ifndef TESTS_CONTRACT_MEDIA_FIXTURE_H
#define TESTS_CONTRACT_MEDIA_FIXTURE_H

#include "port/media.h"
#include "support.h"

struct media_adapter {
    const char *name;
    const char *server; /* the variable with its URL; NULL: none is needed */
    enum tr_rc (*open)(struct loop *loop, struct media **ret_media, struct tr_err *err); /* the place of this test */
    size_t (*left)(void); /* uploads that were begun, and not finished */
};
extern const struct media_adapter media_adapters[2];

/* Of the running test. */
extern const struct media_adapter *subject;
extern struct loop *loop;
extern struct media *store;

int media_set_up(void **state); /* a loop, and an empty store */
int media_tear_down(void **state);
void media_open(void); /* the same place again, with a loop */
void media_close(void);
void media_await_none_left(void); /* until the uploads that were let go of are gone */
const char *media_folder(void);   /* of the file adapter's test */
const char *media_s3_place(void); /* "s3://bucket/prefix/" of the S3 adapter's test */
/* The whole of it, with these secrets; ours where NULL. */
enum tr_rc media_s3_open(struct loop *loop, const char *url, const char *endpoint, const char *secret,
                         struct media **ret_media, struct tr_err *err);

#define USER "01890000-0000-7000-8000-0000000000aa"
#define OTHER_USER "01890000-0000-7000-8000-0000000000bb"
/* "<USER>/<an id made of n>"; one of eight buffers in turn. */
const char *object(unsigned n);
/* The object's mark by a turn `ref` of a chat made of `chat`. */
const char *mark_of(unsigned n, unsigned chat, unsigned ref);

struct got {
    struct wait w; /* first */
    struct buf data;
    uint64_t size;
    bool more;
    size_t n;
    char names[MEDIA_LIST_MAX][MEDIA_NAME_MAX + 1];
};
void on_read(void *ctx, enum tr_rc rc, struct slice data, uint64_t size, const struct tr_err *err);
void on_list(void *ctx, enum tr_rc rc, const char *const *names, size_t n, bool more, const struct tr_err *err);
/* A fresh one; its data is released by the next call. */
struct got *got_new(void);

/* Byte `at` of the content `seed`. */
uint8_t content_byte(unsigned seed, uint64_t at);
void content(unsigned seed, uint64_t at, uint8_t *out, size_t len);

enum tr_rc write_piece(struct media_put *put, unsigned seed, uint64_t at, size_t len, struct tr_err *err);
enum tr_rc finish(struct media_put *put, struct tr_err *err);
/* All of it, in pieces of `piece` bytes, and freed.  err may be NULL. */
enum tr_rc put_all(const char *name, unsigned seed, uint64_t size, size_t piece, struct tr_err *err);
/* read_all: the object is this content, whole. */
enum tr_rc read_at(const char *name, uint64_t from, size_t len, struct got **ret_got);
void assert_object(const char *name, unsigned seed, uint64_t size);
void assert_absent(const char *name);
enum tr_rc mark(const char *name);
enum tr_rc remove_name(const char *name);
enum tr_rc sweep(uint64_t age_ms);
enum tr_rc list(const char *prefix, const char *after, uint32_t limit, struct got **ret_got);

/* Bytes that are allocated now, by whichever allocator. */
size_t allocated(void);

#endif
