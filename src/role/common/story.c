/* story - see story.h. */
#include "role/common/story.h"

#include "base/loop.h"
#include "base/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WAIT(queue)                                                                                                    \
    METRIC(METRIC_HISTOGRAM, "troupe_queue_seconds", "queue=\"" queue "\"",                                            \
           "Until a turn's message was taken from the queue: from its acceptance (incoming, inference), from its "     \
           "reply (notify, gateway).")
static struct metric metric_wait[STORY_QUEUES] = {WAIT("incoming"), WAIT("inference"), WAIT("notify"), WAIT("gateway")};

void story_trace(const struct uuid *turn, char ret_trace[ENVELOPE_TRACE_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 8; i++) { /* the random half of it */
        ret_trace[i * 2] = digits[turn->b[8 + i] >> 4];
        ret_trace[i * 2 + 1] = digits[turn->b[8 + i] & 15];
    }
    ret_trace[16] = '\0';
}

void story_log(enum log_level level, const char *ev, const struct envelope *env, const char *fmt, ...)
{
    char chat[UUID_TEXT], turn[UUID_TEXT], ms[32] = "", facts[200] = "";
    va_list ap;

    if (!log_on(level))
        return;
    va_start(ap, fmt);
    vsnprintf(facts, sizeof facts, fmt, ap);
    va_end(ap);
    uuid_format(&env->chat, chat);
    uuid_format(&env->turn, turn);
    if (env->variant == 0)
        snprintf(ms, sizeof ms, " ms=%" PRIu64, wall_since_ms(uuid_ms(&env->turn)));
    log_event(level, ev, "trace=%s chat=%s turn=%s variant=%d%s%s%s", env->trace, chat, turn, (int)env->variant, ms,
              facts[0] != '\0' ? " " : "", facts);
}

void story_taken(enum story_queue queue, const struct envelope *env)
{
    if (env->created_ms != 0 && env->variant == 0)
        metric_observe_us(&metric_wait[queue], wall_since_ms(env->created_ms) * 1000);
}
