/*
 * story - what is told of a turn on its way through the roles: its trace, one id through all logs (`grep trace=<id>`),
 * log lines with the time since its acceptance, and how long it waited in each queue.  No words, ever.
 *
 *   turn.accepted  gateway       turn.routed  preprocess    turn.claimed, .begun, .first_text, .stored, .done  inference
 *   turn.notified  notifier      turn.delivered  gateway, one a connection
 *
 * One line a role and turn at info; the ones in between at debug.  Threads: any.
 */
#ifndef ROLE_COMMON_STORY_H
#define ROLE_COMMON_STORY_H

#include "base/log.h"
#include "domain/envelope.h"

/* The trace of a turn: 16 hex digits of its id, so that whoever calls for it again calls by the same name. */
void story_trace(const struct uuid *turn, char ret_trace[ENVELOPE_TRACE_MAX + 1]);

/*
 * ev, the turn of env and "ms": since its acceptance (left out for a later variant, of which its id tells nothing);
 * then facts by printf's fmt, as logfmt, none of them quoted or longer than 200 bytes in all.
 */
void story_log(enum log_level level, const char *ev, const struct envelope *env, const char *fmt, ...) TR_PRINTF(4, 5);

/* A message was taken from a queue: how long was it on its way there? */
enum story_queue { STORY_INCOMING, STORY_INFERENCE, STORY_NOTIFY, STORY_GATEWAY, STORY_QUEUES };
void story_taken(enum story_queue queue, const struct envelope *env);

#endif
