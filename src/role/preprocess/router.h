/*
 * router - chooses the worker of a chat: weighted rendezvous hashing over the living workers of its character, or of
 * the shared pool where the character has none (contract 8, 11.12).  No load bound: see hrw.h for the one there is; a
 * chat stays where it is while workers and weights stay. The lists come from the registry and are kept
 * ROUTER_FRESH_MS; an older one is used while a new one is read, and for as long as the registry does not answer.
 * Threads: the loop's.
 */
#ifndef ROLE_PREPROCESS_ROUTER_H
#define ROLE_PREPROCESS_ROUTER_H

#include "role/common/role.h"

#define ROUTER_FRESH_MS 300

struct router;

/* on_read is called after each reading of a list. */
enum tr_rc router_new(const struct role_env *env, void (*on_read)(void *ctx), void *ctx, struct router **ret_router,
                      struct tr_err *err) TR_MUST_CHECK;
void router_free(struct router *router); /* NULL is fine */

/*
 * The queue of the chat's worker.
 *   TR_OK         in `ret_queue`
 *   TR_BUSY       not known yet: ask again after on_read
 *   TR_NOT_FOUND  no worker lives
 *   TR_TRANSIENT  the registry does not answer and nothing was known before
 */
enum tr_rc router_choose(struct router *router, const struct uuid *chat, const char *character,
                         char ret_queue[QUEUE_NAME_MAX + 1]) TR_MUST_CHECK;
/* The chosen worker's queue is not there: read that character's list again. */
void router_doubt(struct router *router, const char *character);

#endif
