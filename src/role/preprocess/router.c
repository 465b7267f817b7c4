/* router - see router.h. */
#include "role/preprocess/router.h"

#include "base/log.h"
#include "domain/hrw.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define LISTS_MAX 1024 /* characters kept; past it the table is begun anew */
#define POOL "any"
/*
 * A worker gets no chats before it is so old, where others are twice as old: a queue that was declared a moment ago may not
 * outlive a kill of the broker (contract 11.13).  Those that start together, as at the first start, wait for nobody.
 */
#define YOUNG_MS 12000

struct worker {
    struct hrw_node node;
    char queue[QUEUE_NAME_MAX + 1];
};

struct list { /* the living workers of one character */
    char character[CHARACTER_ID_MAX + 1];
    struct worker *workers; /* owned */
    struct hrw_node *nodes; /* owned: the same, for hrw_choose() */
    size_t n;
    bool known, failed; /* read at least once; the last reading failed */
    uint64_t read_ms;
    struct router *router; /* NULL: the router is gone, free at the callback */
    struct tr_op *op;      /* reading */
    UT_hash_handle hh;
};

struct router {
    struct role_env env;
    struct list *lists;
    void (*on_read)(void *ctx);
    void *ctx;
};

enum tr_rc router_new(const struct role_env *env, void (*on_read)(void *ctx), void *ctx, struct router **ret_router,
                      struct tr_err *err)
{
    struct router *router = calloc(1, sizeof *router);

    if (router == NULL)
        return tr_fail(err, TR_NOMEM, "router");
    router->env = *env;
    router->on_read = on_read;
    router->ctx = ctx;
    *ret_router = router;
    return TR_OK;
}

static void list_free(struct list *list)
{
    free(list->workers);
    free(list->nodes);
    free(list);
}

/* Out of the table; one that is being read is freed at its callback. */
static void list_drop(struct router *router, struct list *list)
{
    struct tr_op *op = list->op;

    HASH_DEL(router->lists, list);
    list->router = NULL;
    if (op != NULL)
        tr_op_cancel(op);
    else
        list_free(list);
}

void router_free(struct router *router)
{
    struct list *list, *next;

    if (router == NULL)
        return;
    HASH_ITER (hh, router->lists, list, next)
        list_drop(router, list);
    free(router);
}

static void take(struct list *list, const struct registry_worker *found, size_t n)
{
    struct worker *workers = calloc(n > 0 ? n : 1, sizeof *workers);
    struct hrw_node *nodes = calloc(n > 0 ? n : 1, sizeof *nodes);
    uint64_t oldest = 0;
    size_t kept = 0;

    if (workers == NULL || nodes == NULL) {
        free(workers);
        free(nodes);
        return; /* the old ones stay */
    }
    for (size_t i = 0; i < n; i++)
        if (found[i].age_ms > oldest)
            oldest = found[i].age_ms;
    for (size_t i = 0; i < n; i++) {
        if (found[i].age_ms < YOUNG_MS && oldest >= 2 * YOUNG_MS)
            continue;
        memcpy(workers[kept].queue, found[i].queue, sizeof workers[kept].queue);
        workers[kept].queue[QUEUE_NAME_MAX] = '\0';
        nodes[kept] = (struct hrw_node){.id = hrw_hash(workers[kept].queue, strlen(workers[kept].queue)),
                                        .weight = found[i].weight > 0 ? found[i].weight : 1,
                                        .load = found[i].load};
        kept++;
    }
    free(list->workers);
    free(list->nodes);
    list->workers = workers;
    list->nodes = nodes;
    list->n = kept;
    list->known = true;
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *found, size_t n,
                       const struct tr_err *err)
{
    struct list *list = ctx;
    struct router *router = list->router;

    list->op = NULL;
    if (router == NULL) {
        list_free(list);
        return;
    }
    list->read_ms = loop_now_ms(router->env.loop);
    list->failed = rc != TR_OK && rc != TR_NOT_FOUND;
    if (list->failed)
        log_event(LOG_WARN, "router.registry", "character=%s rc=%s cause=%Q", list->character, tr_rc_name(rc),
                  tr_err_text(err));
    else
        take(list, found, rc == TR_OK ? n : 0);
    router->on_read(router->ctx);
}

static void read_list(struct list *list)
{
    struct registry *reg = list->router->env.registry;

    if (list->op != NULL)
        return;
    if (reg->ops->workers(reg, list->character, on_workers, list, &list->op, NULL) != TR_OK) {
        list->op = NULL;
        list->failed = true;
        list->read_ms = loop_now_ms(list->router->env.loop);
    }
}

static struct list *find_list(struct router *router, const char *character)
{
    struct list *list, *next;

    HASH_FIND_STR(router->lists, character, list);
    if (list != NULL)
        return list;
    if (HASH_COUNT(router->lists) >= LISTS_MAX)
        HASH_ITER (hh, router->lists, list, next)
            if (list->op == NULL) /* somebody waits for the others */
                list_drop(router, list);
    list = calloc(1, sizeof *list);
    if (list == NULL)
        return NULL;
    strcpy(list->character, character);
    list->router = router;
    HASH_ADD_STR(router->lists, character, list);
    return list;
}

/* TR_OK: list->n may be looked at. */
static enum tr_rc ask(struct router *router, struct list *list)
{
    const uint64_t age = loop_now_ms(router->env.loop) - list->read_ms;
    const bool fresh = (list->known || list->failed) && age < ROUTER_FRESH_MS;

    if (!fresh)
        read_list(list);
    if (list->known && (list->n > 0 || fresh || list->failed))
        return TR_OK;
    if (list->op != NULL)
        return TR_BUSY; /* never read, or empty for a while: worth waiting for */
    return list->known ? TR_OK : TR_TRANSIENT;
}

enum tr_rc router_choose(struct router *router, const struct uuid *chat, const char *character,
                         char ret_queue[QUEUE_NAME_MAX + 1])
{
    const char *const names[] = {character, POOL};

    for (size_t i = 0; i < 2; i++) {
        struct list *list;
        enum tr_rc rc;

        if (names[i][0] == '\0')
            continue; /* no character: the pool */
        list = find_list(router, names[i]);
        rc = list != NULL ? ask(router, list) : TR_TRANSIENT;
        if (rc != TR_OK)
            return rc;
        if (list->n > 0) {
            strcpy(ret_queue, list->workers[hrw_choose(chat, list->nodes, list->n)].queue);
            return TR_OK;
        }
    }
    return TR_NOT_FOUND;
}

void router_doubt(struct router *router, const char *character)
{
    const char *const names[] = {character, POOL};

    for (size_t i = 0; i < 2; i++) {
        struct list *list;

        HASH_FIND_STR(router->lists, names[i], list);
        if (list != NULL)
            read_list(list);
    }
}
