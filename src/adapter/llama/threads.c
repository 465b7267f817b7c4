/* threads - see threads.h.  One look may hit a moment's work of some program; of several the best one counts. */
#include "adapter/llama/threads.h"

#include "adapter/llama/cores.h"
#include "base/loop.h"

#include <unistd.h>

#define LOOK_NS 5000000 /* between two looks while tokens are computed */
#define PAUSE_US 150    /* between those of threads_begin() */

void threads_init(struct threads *t, const struct loaded *l)
{
    *t = (struct threads){.most = l->threads, .now = l->threads};
    if (!l->threads_fixed && l->threads > 1)
        t->ctx = l->ctx;
}

/* `mine`: how many of the threads that run are ours. */
static void look(struct threads *t, uint32_t mine)
{
    t->seen[t->looks++ % THREADS_SEEN] = cores_free(mine);
    t->last_ns = mono_ns();
}

static void settle(struct threads *t)
{
    uint32_t n = 1;

    for (size_t i = 0; i < THREADS_SEEN; i++)
        n = t->seen[i] > n ? t->seen[i] : n;
    n = n < t->most ? n : t->most;
    if (n == t->now)
        return;
    t->now = n;
    llama_set_n_threads(t->ctx, (int32_t)n, (int32_t)n);
}

void threads_begin(struct threads *t)
{
    if (t->ctx == NULL)
        return;
    for (size_t i = 0; i < THREADS_SEEN; i++) {
        look(t, 1);
        if (t->seen[(t->looks - 1) % THREADS_SEEN] >= t->most)
            break;
        usleep(PAUSE_US);
    }
    settle(t);
}

void threads_step(struct threads *t)
{
    if (t->ctx == NULL || mono_ns() - t->last_ns < LOOK_NS)
        return;
    look(t, t->now); /* the others still spin, waiting for the next token */
    settle(t);
}
