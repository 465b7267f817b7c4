/*
 * log - logfmt on stderr, one event a line: level=info ev=turn.done chat=… ms=12
 * A constant event name, facts as fields.  Never a message's text, never a secret (contract 3.6 holds at every level).
 * Threads: any.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/result.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level);
bool log_parse_level(const char *text, enum log_level *ret_level);
bool log_on(enum log_level level);

/*
 * log_event(LOG_WARN, "turn.failed", "chat=%s rc=%s cause=%Q", id, name, text): printf's conversions d i u x s f c zu
 * lu llu and PRIu64, plus %Q: a C string in quotes, escaped, cut at 400 bytes.  The line is written with one write().
 */
void log_event(enum log_level level, const char *ev, const char *fmt, ...);

#endif
