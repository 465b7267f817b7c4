/*
 * catalogue - users and characters, and a few settings of the installation.
 * Adapters: sqlite (embedded), later PostgreSQL.  Rules as in base/op.h; contract suite: tests/contract/catalogue.c.
 * Writes are idempotent.  Cards of public characters are not secret (contract 3.6).
 */
#ifndef PORT_CATALOGUE_H
#define PORT_CATALOGUE_H

#include "base/buf.h"
#include "base/op.h"
#include "domain/uuid.h"
#include "port/service.h"

struct catalogue;

struct catalogue_character {
    char id[CHARACTER_ID_MAX + 1];
    const char *name, *tagline; /* as in the card, for lists */
    struct slice card;          /* Character Card V2 JSON; empty in lists */
    struct slice avatar;        /* empty: none; empty in lists */
    const char *avatar_type;    /* "" without one */
    uint64_t updated_ms;        /* a new value with every put */
};

typedef void catalogue_done(void *ctx, enum tr_rc rc, const struct tr_err *err);
/* Borrowed until it returns. */
typedef void catalogue_character_done(void *ctx, enum tr_rc rc, const struct catalogue_character *c,
                                      const struct tr_err *err);
typedef void catalogue_characters_done(void *ctx, enum tr_rc rc, const struct catalogue_character *list, size_t n,
                                       const struct tr_err *err);
typedef void catalogue_setting_done(void *ctx, enum tr_rc rc, bool mine, const char *value, const struct tr_err *err);

/* Borrowed until it returns; n may be 0. */
typedef void catalogue_keys_done(void *ctx, enum tr_rc rc, const char *const *keys, size_t n, const struct tr_err *err);

struct catalogue_ops {
    const char *scheme;
    enum tr_rc (*character_put)(struct catalogue *c, const struct catalogue_character *ch, bool replace,
                                catalogue_done *done, void *ctx, struct tr_op **ret_op,
                                struct tr_err *err); /* TR_BUSY: there is one, replace is false */
    enum tr_rc (*character_get)(struct catalogue *c, const char *id, catalogue_character_done *done, void *ctx,
                                struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*characters)(struct catalogue *c, catalogue_characters_done *done, void *ctx, struct tr_op **ret_op,
                             struct tr_err *err); /* by name */
    enum tr_rc (*character_remove)(struct catalogue *c, const char *id, catalogue_done *done, void *ctx,
                                   struct tr_op **ret_op, struct tr_err *err); /* TR_NOT_FOUND */
    /* Note that a user exists (first write wins). */
    enum tr_rc (*user_put)(struct catalogue *c, const struct uuid *user, uint64_t created_ms, catalogue_done *done,
                           void *ctx, struct tr_op **ret_op, struct tr_err *err);
    /* First write wins; the standing value comes back.  get: TR_NOT_FOUND. */
    enum tr_rc (*setting_put)(struct catalogue *c, const char *key, const char *value, catalogue_setting_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*setting_get)(struct catalogue *c, const char *key, catalogue_setting_done *done, void *ctx,
                              struct tr_op **ret_op, struct tr_err *err);
    /* The keys that begin with `prefix`, sorted by their bytes / forget one (there or not). */
    enum tr_rc (*settings)(struct catalogue *c, const char *prefix, catalogue_keys_done *done, void *ctx,
                           struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*setting_remove)(struct catalogue *c, const char *key, catalogue_done *done, void *ctx,
                                 struct tr_op **ret_op, struct tr_err *err);
    /* Of a service outside, else NULL: see port/service.h. */
    enum tr_rc (*init)(struct catalogue *c, service_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err);
    enum tr_rc (*check)(struct catalogue *c, service_checked *done, void *ctx, struct tr_op **ret_op,
                        struct tr_err *err);
    void (*close)(struct catalogue *c);
};

struct catalogue { /* first member of every adapter's own struct */
    const struct catalogue_ops *ops;
};

#endif
