/* registry_places - where chats' turns go; for registry.c.  At most PLACES_MAX, the one unused longest goes first. */
#include "adapter/memory/registry_impl.h"

#include <stdlib.h>
#include <string.h>

#define PLACES_MAX 200000
#define SWEEP_MAX 4096

static void place_free(struct memory_registry *r, struct mr_place *p)
{
    HASH_DEL(r->places, p);
    free(p);
}

static struct mr_place *place_new(const struct uuid *chat, const struct registry_place *place)
{
    const size_t first = strlen(place->first) + 1, queue = strlen(place->queue) + 1;
    struct mr_place *p = calloc(1, sizeof *p + first + queue);

    if (p == NULL)
        return NULL;
    p->chat = *chat;
    memcpy(p->names, place->first, first);
    memcpy(p->names + first, place->queue, queue);
    p->queue = p->names + first;
    return p;
}

enum tr_rc mr_place(struct memory_registry *r, const struct uuid *chat, const struct registry_place *place,
                    uint64_t ttl_ms, struct mr_placed *ret_placed, struct tr_err *err)
{
    const uint64_t now = loop_now_ms(r->loop);
    struct mr_place *p;
    bool stands;

    if (strlen(place->queue) > MR_QUEUE_MAX || strlen(place->first) > MR_QUEUE_MAX)
        return tr_fail(err, TR_INVALID, "registry: a queue's name of more than %d bytes", MR_QUEUE_MAX);
    HASH_FIND(hh, r->places, chat, sizeof *chat, p);
    stands = p != NULL && p->expires_ms > now && (place->stale == NULL || strcmp(p->queue, place->stale) != 0) &&
             (strcmp(p->names, place->first) == 0 || place->was == NULL || strcmp(p->names, place->was) != 0);
    if (stands) { /* to the end of the list: it goes last */
        HASH_DEL(r->places, p);
    } else {
        struct mr_place *made = place_new(chat, place);

        if (made == NULL)
            return tr_fail(err, TR_NOMEM, "registry: out of memory");
        if (p != NULL)
            place_free(r, p);
        else if (HASH_COUNT(r->places) >= PLACES_MAX)
            place_free(r, r->places);
        p = made;
    }
    p->expires_ms = now + ttl_ms;
    HASH_ADD(hh, r->places, chat, sizeof p->chat, p);
    ret_placed->fresh = !stands;
    strcpy(ret_placed->queue, p->queue);
    strcpy(ret_placed->first, p->names);
    return TR_OK;
}

void mr_places_expire(struct memory_registry *r)
{
    const uint64_t now = loop_now_ms(r->loop);

    for (size_t i = 0; i < SWEEP_MAX && r->places != NULL && r->places->expires_ms <= now; i++)
        place_free(r, r->places);
}

void mr_places_free(struct memory_registry *r)
{
    while (r->places != NULL)
        place_free(r, r->places);
}
