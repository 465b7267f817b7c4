/* fault - kills the process at the point that TROUPE_TEST_KILL names.  Empty in builds without fault points. */
#include "base/fault.h"

#ifdef TROUPE_FAULT_POINTS
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void fault_point(const char *name)
{
    static int left = -1;
    const char *const wish = getenv("TROUPE_TEST_KILL");
    const char *const colon = wish != NULL ? strrchr(wish, ':') : NULL;

    if (colon == NULL || strlen(name) != (size_t)(colon - wish) || memcmp(name, wish, strlen(name)) != 0)
        return;
    if (left < 0)
        left = atoi(colon + 1);
    if (--left == 0)
        raise(SIGKILL);
}
#endif
