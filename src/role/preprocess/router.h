/*
 * router - chooses the worker of a chat: weighted rendezvous hashing over the living workers of its character, or of
 * the shared pool where the character has none (contract 8, 11.12).
 *
 * Load bound: a chat that has no place yet goes past a worker that is full (domain/hrw.h) to the next in line.  Its place
 * is kept in the registry, by one step in which all preprocess roles agree, and is its for as long as that worker lives,
 * unless a worker comes that hashing alone would choose for it.  So the load never moves a chat that has been placed, and a
 * change of the workers moves the chats of one that went, or those that one which came is the first choice of.  Asked only where there are several workers.
 * A registry that does not answer, or lost its places: hashing alone, until it does.
 *
 * A worker that says it is leaving (registry_worker.draining) is no choice any more.
 *
 * The lists come from the registry and are kept ROUTER_FRESH_MS; an older one is used while a new one is read, and for
 * as long as the registry does not answer.  Threads: the loop's.
 */
#ifndef ROLE_PREPROCESS_ROUTER_H
#define ROLE_PREPROCESS_ROUTER_H

#include "role/common/role.h"

#define ROUTER_FRESH_MS 300

struct router;

/* A list was read, or could not be; leaving: a worker that was in it leaves, or has left. */
typedef void router_read(void *ctx, bool leaving);

enum tr_rc router_new(const struct role_env *env, router_read *on_read, void *ctx, struct router **ret_router,
                      struct tr_err *err) TR_MUST_CHECK;
void router_free(struct router *router); /* with no choice under way; NULL is fine */

/* TR_OK, or TR_CANCELLED; queue: borrowed. */
typedef void router_chosen(void *ctx, enum tr_rc rc, const char *queue);
/*
 * The queue of the chat's worker.
 *   TR_OK         *ret_op NULL: in `ret_queue`; else `chosen` is called with it
 *   TR_BUSY       not known yet: ask again after on_read
 *   TR_NOT_FOUND  no worker lives
 *   TR_TRANSIENT  the registry does not answer and nothing was known before
 */
enum tr_rc router_choose(struct router *router, const struct uuid *chat, const char *character,
                         char ret_queue[QUEUE_NAME_MAX + 1], router_chosen *chosen, void *ctx,
                         struct tr_op **ret_op) TR_MUST_CHECK;
/* The chosen worker's queue is not there: read that character's list again. */
void router_doubt(struct router *router, const char *character);

#endif
