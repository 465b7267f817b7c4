/*
 * keyring - the data keys of chats and users in one process: read from the history, unwrapped, kept for at most ten minutes and a
 * half (bounded, least recently used out, wiped).  Threads: the loop's.
 */
#ifndef ROLE_COMMON_KEYRING_H
#define ROLE_COMMON_KEYRING_H

#include "base/loop.h"
#include "domain/seal.h"
#include "port/history.h"

struct keyring;

/* TR_NOT_FOUND: there is none; whether its chat was deleted, only the history can say (chat_get).  The key is borrowed until the callback returns. */
typedef void keyring_done(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err);

enum tr_rc keyring_new(struct loop *loop, struct history *history, const struct seal_master *master,
                       struct keyring **ret_keyring, struct tr_err *err) TR_MUST_CHECK;
void keyring_free(struct keyring *k); /* with nothing under way; NULL is fine */

/* The chat's key if it is at hand, else NULL.  Borrowed until the next call to the keyring. */
const struct seal_key *keyring_peek(struct keyring *k, const struct uuid *chat);
/* Rules of base/op.h. */
enum tr_rc keyring_get(struct keyring *k, const struct uuid *chat, keyring_done *done, void *ctx, struct tr_op **ret_op,
                       struct tr_err *err) TR_MUST_CHECK;
/* Make the key of a new chat; where one stands already that one is given. */
enum tr_rc keyring_make(struct keyring *k, const struct uuid *chat, keyring_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
/* The key that seals a user's media; make: where there is none yet. */
enum tr_rc keyring_user(struct keyring *k, const struct uuid *user, bool make, keyring_done *done, void *ctx,
                        struct tr_op **ret_op, struct tr_err *err) TR_MUST_CHECK;
/* The chat was deleted: wipe what is kept.  Of one that lives the key is read again; nothing is lost. */
void keyring_forget(struct keyring *k, const struct uuid *chat);
/* Wipe what was read ten minutes or longer before now_ms (of loop_now_ms()).  The keyring calls it by itself. */
void keyring_expire(struct keyring *k, uint64_t now_ms);

#endif
