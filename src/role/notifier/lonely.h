/*
 * lonely - replies that came when no gateway was known at all: since when each of them waits here.  By this process's own
 * clock that only goes forward; the one in the envelope is another machine's.
 */
#ifndef ROLE_NOTIFIER_LONELY_H
#define ROLE_NOTIFIER_LONELY_H

#include "domain/uuid.h"

#define LONELY_MS 15000 /* a reply waits so long for a gateway to be there */

struct lonely; /* one reply; a list of them begins as NULL and is ended by lonely_release() */

/* There is still no gateway for this reply.  May it wait on?  False, and forgotten: it has waited LONELY_MS (or no memory). */
bool lonely_waits(struct lonely **list, const struct uuid *turn, int32_t variant, uint64_t now_ms);
/* It has gone to a gateway.  One that is not known is fine. */
void lonely_forget(struct lonely **list, const struct uuid *turn, int32_t variant);
void lonely_release(struct lonely **list);

#endif
