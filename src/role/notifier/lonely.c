/* lonely - see lonely.h. */
#include "role/notifier/lonely.h"

#include <stdlib.h>
#include <uthash.h>

#define FORGET_MS (4 * LONELY_MS) /* another notifier has it by now */

struct lonely_key {
    struct uuid turn;
    int32_t variant;
};

struct lonely {
    struct lonely_key key;
    uint64_t since_ms;
    UT_hash_handle hh; /* in the order of since_ms */
};

static void drop(struct lonely **list, struct lonely *l)
{
    HASH_DEL(*list, l);
    free(l);
}

static struct lonely *find(struct lonely *list, const struct uuid *turn, int32_t variant)
{
    const struct lonely_key key = {*turn, variant};
    struct lonely *l;

    HASH_FIND(hh, list, &key, sizeof key, l);
    return l;
}

bool lonely_waits(struct lonely **list, const struct uuid *turn, int32_t variant, uint64_t now_ms)
{
    struct lonely *l;

    while (*list != NULL && now_ms - (*list)->since_ms >= FORGET_MS)
        drop(list, *list);
    l = find(*list, turn, variant);
    if (l == NULL) {
        l = calloc(1, sizeof *l);
        if (l == NULL)
            return false;
        l->key = (struct lonely_key){*turn, variant};
        l->since_ms = now_ms;
        HASH_ADD(hh, *list, key, sizeof l->key, l);
    }
    if (now_ms - l->since_ms < LONELY_MS)
        return true;
    drop(list, l);
    return false;
}

void lonely_forget(struct lonely **list, const struct uuid *turn, int32_t variant)
{
    struct lonely *l = find(*list, turn, variant);

    if (l != NULL)
        drop(list, l);
}

void lonely_release(struct lonely **list)
{
    while (*list != NULL)
        drop(list, *list);
}
