/*
 * keyring - see keyring.h.
 * A key at hand is an entry: in a hash table by chat, and in a ring by age of its last use.  One that is not is fetched
 * once, however many wait for it.  Nothing can tell every process of every deleted chat for certain, so no key is kept for
 * longer than KEPT_MS without being read again: that is how long a destroyed one may live on in a process that was not told.
 */
#include "role/common/keyring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX 24576 /* about 2.5 MB; more than one process has chats open */
#define BUCKETS 16384
#define KEPT_MS UINT64_C(600000)
#define SWEEP_MS UINT64_C(30000)

struct entry {
    struct entry *hash_next;
    struct entry *newer, *older;
    enum seal_owner owner;
    struct uuid chat; /* or user */
    uint64_t read_ms; /* when the history had it */
    struct seal_key key;
};

/* Somebody who asked. */
struct waiter {
    struct tr_op op; /* first */
    struct loop_call call;
    struct keyring *ring;
    struct fetch *fetch; /* NULL: the call is on its way */
    struct waiter *next, *prev;
    keyring_done *done;
    void *ctx;
    enum seal_owner owner;
    struct uuid chat;
    enum tr_rc rc;
};

/* A key being read or made. */
struct fetch {
    struct keyring *ring; /* NULL: the ring is gone */
    struct fetch *next, *prev;
    struct tr_op *op;
    enum seal_owner owner;
    struct uuid chat;
    char id[UUID_TEXT];
    struct waiter *waiters;
    bool make;
    bool forgotten; /* meanwhile: its key is not kept */
};

struct keyring {
    struct loop *loop;
    struct history *history;
    const struct seal_master *master;
    struct entry *buckets[BUCKETS];
    struct entry *newest, *oldest;
    size_t n;
    struct fetch *fetches;
    size_t waiting; /* calls on their way */
    struct loop_timer *timer;
};

static struct entry **bucket(struct keyring *k, const struct uuid *chat)
{
    uint64_t h;

    memcpy(&h, chat->b + 8, sizeof h); /* the random half of a v7 */
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return &k->buckets[(h >> 32) % BUCKETS];
}

static void unlink_age(struct keyring *k, struct entry *e)
{
    if (e->newer != NULL)
        e->newer->older = e->older;
    else
        k->newest = e->older;
    if (e->older != NULL)
        e->older->newer = e->newer;
    else
        k->oldest = e->newer;
}

static void link_newest(struct keyring *k, struct entry *e)
{
    e->newer = NULL;
    e->older = k->newest;
    if (k->newest != NULL)
        k->newest->newer = e;
    else
        k->oldest = e;
    k->newest = e;
}

static struct entry *find(struct keyring *k, enum seal_owner owner, const struct uuid *chat)
{
    struct entry *e = *bucket(k, chat);

    while (e != NULL && !(e->owner == owner && uuid_eq(&e->chat, chat)))
        e = e->hash_next;
    return e;
}

static void drop(struct keyring *k, struct entry *e)
{
    struct entry **at = bucket(k, &e->chat);

    while (*at != e)
        at = &(*at)->hash_next;
    *at = e->hash_next;
    unlink_age(k, e);
    k->n--;
    seal_key_wipe(&e->key);
    free(e);
}

/* Keeping is a favour: without memory the key is read again next time. */
static void keep(struct keyring *k, enum seal_owner owner, const struct uuid *chat, const struct seal_key *key)
{
    struct entry *e = find(k, owner, chat);

    if (e == NULL) {
        if (k->n >= KEYS_MAX)
            drop(k, k->oldest);
        e = calloc(1, sizeof *e);
        if (e == NULL)
            return;
        e->owner = owner;
        e->chat = *chat;
        e->hash_next = *bucket(k, chat);
        *bucket(k, chat) = e;
        link_newest(k, e);
        k->n++;
    }
    e->key = *key;
    e->read_ms = loop_now_ms(k->loop);
}

void keyring_expire(struct keyring *k, uint64_t now_ms)
{
    for (struct entry *e = k->oldest, *newer; e != NULL; e = newer) {
        newer = e->newer;
        if (now_ms - e->read_ms >= KEPT_MS)
            drop(k, e);
    }
}

static void on_sweep(void *ctx)
{
    struct keyring *k = ctx;

    keyring_expire(k, loop_now_ms(k->loop));
}

enum tr_rc keyring_new(struct loop *loop, struct history *history, const struct seal_master *master,
                       struct keyring **ret_keyring, struct tr_err *err)
{
    struct keyring *k = calloc(1, sizeof *k);

    if (k == NULL || timer_start(loop, SWEEP_MS, SWEEP_MS, on_sweep, k, &k->timer) != TR_OK) {
        free(k);
        return tr_fail(err, TR_NOMEM, "keyring");
    }
    k->loop = loop;
    k->history = history;
    k->master = master;
    *ret_keyring = k;
    return TR_OK;
}

void keyring_free(struct keyring *k)
{
    if (k == NULL)
        return;
    assert(k->waiting == 0);
    timer_stop(k->timer);
    while (k->fetches != NULL) { /* nobody waits for these any more */
        struct fetch *f = k->fetches;

        assert(f->waiters == NULL);
        k->fetches = f->next;
        f->ring = NULL;
        tr_op_cancel(f->op); /* frees itself when it is called back */
    }
    while (k->oldest != NULL)
        drop(k, k->oldest);
    free(k);
}

static const struct seal_key *peek(struct keyring *k, enum seal_owner owner, const struct uuid *chat)
{
    struct entry *e = find(k, owner, chat);

    if (e == NULL)
        return NULL;
    if (e != k->newest) {
        unlink_age(k, e);
        link_newest(k, e);
    }
    return &e->key;
}

const struct seal_key *keyring_peek(struct keyring *k, const struct uuid *chat)
{
    return peek(k, SEAL_OWNER_CHAT, chat);
}

static void unlink_waiter(struct waiter *w)
{
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        w->fetch->waiters = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    w->fetch = NULL;
}

static void on_call(struct loop_call *call)
{
    struct waiter *w = (struct waiter *)((char *)call - offsetof(struct waiter, call));
    const struct seal_key *key = w->rc == TR_OK ? peek(w->ring, w->owner, &w->chat) : NULL;
    struct seal_key copy;

    w->ring->waiting--;
    if (w->rc == TR_OK && key == NULL) { /* forgotten or pushed out since */
        struct tr_err err = {0};
        const enum tr_rc rc = tr_fail(&err, TR_TRANSIENT, "the key is no longer at hand");

        w->done(w->ctx, rc, NULL, &err);
    } else if (key != NULL) {
        copy = *key;
        w->done(w->ctx, TR_OK, &copy, NULL);
        seal_key_wipe(&copy);
    } else {
        w->done(w->ctx, w->rc, NULL, NULL);
    }
    free(w);
}

static void call_later(struct waiter *w, enum tr_rc rc)
{
    w->rc = rc;
    w->call.fn = on_call;
    w->ring->waiting++;
    loop_defer(w->ring->loop, &w->call);
}

static void waiter_cancel(struct tr_op *op)
{
    struct waiter *w = (struct waiter *)op;

    if (w->fetch == NULL) {
        w->rc = TR_CANCELLED;
        return;
    }
    unlink_waiter(w);
    call_later(w, TR_CANCELLED);
}

static void on_fetched(void *ctx, enum tr_rc rc, bool mine, struct slice wrapped, const struct tr_err *err)
{
    struct fetch *f = ctx;
    struct keyring *k = f->ring;
    struct seal_key key;
    struct tr_err own = {0};

    (void)mine;
    f->op = NULL;
    if (k == NULL) {
        free(f);
        return;
    }
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        k->fetches = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;

    if (rc == TR_OK) {
        rc = seal_unwrap(k->master, wrapped.data, wrapped.len, f->owner, f->id, &key, &own);
        err = &own;
    }
    if (f->forgotten && rc == TR_OK) {
        seal_key_wipe(&key);
        rc = TR_NOT_FOUND;
    }
    if (rc == TR_OK)
        keep(k, f->owner, &f->chat, &key);
    while (f->waiters != NULL) {
        struct waiter *w = f->waiters;

        unlink_waiter(w);
        w->done(w->ctx, rc, rc == TR_OK ? &key : NULL, rc == TR_OK ? NULL : err);
        free(w);
    }
    if (rc == TR_OK)
        seal_key_wipe(&key);
    free(f);
}

static enum tr_rc start_fetch(struct fetch *f, struct tr_err *err)
{
    struct keyring *k = f->ring;
    struct history *h = k->history;
    struct buf wrapped = {0};
    struct seal_key key;
    enum tr_rc rc;

    if (!f->make)
        return h->ops->key_get(h, f->owner, f->id, on_fetched, f, &f->op, err);
    seal_key_new(wall_ms(), &key);
    rc = seal_wrap(k->master, &key, f->owner, f->id, &wrapped);
    seal_key_wipe(&key);
    if (rc == TR_OK)
        rc = h->ops->key_put(h, f->owner, f->id, (struct slice){wrapped.data, wrapped.len}, on_fetched, f, &f->op, err);
    buf_release(&wrapped);
    return rc;
}

static enum tr_rc fetch_for(struct keyring *k, enum seal_owner owner, const struct uuid *chat, bool make,
                            struct fetch **ret_fetch, struct tr_err *err)
{
    struct fetch *f;
    enum tr_rc rc;

    for (f = k->fetches; f != NULL; f = f->next) {
        if (f->owner == owner && uuid_eq(&f->chat, chat) && f->make == make && !f->forgotten) {
            *ret_fetch = f;
            return TR_OK;
        }
    }
    f = calloc(1, sizeof *f);
    if (f == NULL)
        return tr_fail(err, TR_NOMEM, "keyring");
    f->ring = k;
    f->owner = owner;
    f->chat = *chat;
    f->make = make;
    uuid_format(chat, f->id);
    rc = start_fetch(f, err);
    if (rc != TR_OK) {
        free(f);
        return rc;
    }
    f->next = k->fetches;
    if (f->next != NULL)
        f->next->prev = f;
    k->fetches = f;
    *ret_fetch = f;
    return TR_OK;
}

static enum tr_rc ask(struct keyring *k, enum seal_owner owner, const struct uuid *chat, bool make, keyring_done *done,
                      void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct waiter *w = calloc(1, sizeof *w);
    enum tr_rc rc;

    if (w == NULL)
        return tr_fail(err, TR_NOMEM, "keyring");
    w->op.cancel = waiter_cancel;
    w->ring = k;
    w->owner = owner;
    w->chat = *chat;
    w->done = done;
    w->ctx = ctx;
    if (find(k, owner, chat) != NULL) {
        call_later(w, TR_OK);
    } else {
        struct fetch *f = NULL;

        rc = fetch_for(k, owner, chat, make, &f, err);
        if (rc != TR_OK) {
            free(w);
            return rc;
        }
        w->fetch = f;
        w->next = f->waiters;
        if (w->next != NULL)
            w->next->prev = w;
        f->waiters = w;
    }
    *ret_op = &w->op;
    return TR_OK;
}

enum tr_rc keyring_get(struct keyring *k, const struct uuid *chat, keyring_done *done, void *ctx, struct tr_op **ret_op,
                       struct tr_err *err)
{
    return ask(k, SEAL_OWNER_CHAT, chat, false, done, ctx, ret_op, err);
}

enum tr_rc keyring_make(struct keyring *k, const struct uuid *chat, keyring_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    return ask(k, SEAL_OWNER_CHAT, chat, true, done, ctx, ret_op, err);
}

enum tr_rc keyring_user(struct keyring *k, const struct uuid *user, bool make, keyring_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err)
{
    return ask(k, SEAL_OWNER_USER, user, make, done, ctx, ret_op, err);
}

void keyring_forget(struct keyring *k, const struct uuid *chat)
{
    struct entry *e = find(k, SEAL_OWNER_CHAT, chat);

    if (e != NULL)
        drop(k, e);
    for (struct fetch *f = k->fetches; f != NULL; f = f->next)
        if (f->owner == SEAL_OWNER_CHAT && uuid_eq(&f->chat, chat))
            f->forgotten = true;
}
