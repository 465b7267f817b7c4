/*
 * stub engine - answers without a model: "<character's name> heard: <text as sent>", a word a delta, every chat
 * at once.  For tests and for measuring the pipeline alone; never a default.
 */
#ifndef ADAPTER_STUB_ENGINE_H
#define ADAPTER_STUB_ENGINE_H

#include "base/loop.h"
#include "port/engine.h"

/*
 * `params` is what follows `stub:` in the configuration, "" or "?key=value&key=value" with the keys
 *   delay_ms=N    pause before the first delta (0)
 *   gap_ms=N      pause between deltas (0)
 *   fail_word=W   a generation whose last user message holds W fails with TR_TRANSIENT ("": none does)
 *   fail_after=K  ... after K deltas (0)
 *   TR_INVALID  names the key or value that is unknown or malformed
 */
enum tr_rc stub_engine_open(struct loop *loop, const char *params, struct engine **ret_engine,
                            struct tr_err *err) TR_MUST_CHECK;

#endif
