/* router - see router.h. */
#include "role/preprocess/router.h"

#include "base/log.h"
#include "base/metrics.h"
#include "domain/hrw.h"

#include <stdio.h>
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
#define PLACE_TTL_MS (30 * 60 * 1000) /* since its last turn: as long as a worker may still hold the chat's state */
#define AWAY_MS 1000                  /* not asked for places for so long after it failed */
#define AGAIN_MAX 4                   /* times asked, before hashing alone decides */

struct worker {
    char queue[QUEUE_NAME_MAX + 1];
    uint32_t reported;  /* load, by its record */
    uint32_t placed[2]; /* chats placed on it by this process in this report's time, and in the one before */
};

struct list { /* the living workers of one character */
    char character[CHARACTER_ID_MAX + 1];
    struct worker *workers; /* owned */
    struct hrw_node *nodes; /* owned: the same, for hrw_choose() */
    size_t n;
    bool known, failed;          /* read at least once; the last reading failed */
    uint64_t read_ms, turned_ms; /* turned: `placed` of its workers */
    struct router *router;       /* NULL: the router is gone, free at the callback */
    struct tr_op *op;            /* reading */
    UT_hash_handle hh;
};

struct router {
    struct role_env env;
    struct list *lists;
    router_read *on_read;
    void *ctx;
    uint32_t bound_percent;
    uint64_t report_ms; /* how old a worker's report may be */
    uint64_t away_ms;   /* the registry is not asked for places before */
};

/* A chat that is being placed. */
struct placing {
    struct tr_op op; /* first */
    struct router *router;
    struct tr_op *inner;
    struct uuid chat;
    char character[CHARACTER_ID_MAX + 1]; /* whose list */
    char first[QUEUE_NAME_MAX + 1], queue[QUEUE_NAME_MAX + 1], stale[QUEUE_NAME_MAX + 1], was[QUEUE_NAME_MAX + 1];
    unsigned again;
    bool cancelled;
    router_chosen *chosen;
    void *ctx;
};

static struct metric metric_past = METRIC(METRIC_COUNTER, "troupe_router_past_full_total", NULL,
                                          "Chats placed past their first worker, which was full.");

enum tr_rc router_new(const struct role_env *env, router_read *on_read, void *ctx, struct router **ret_router,
                      struct tr_err *err)
{
    struct router *router = calloc(1, sizeof *router);
    uint64_t percent = 0, ttl_ms = 0;
    enum tr_rc rc;

    if (router == NULL)
        return tr_fail(err, TR_NOMEM, "router");
    rc = config_u64(env->config, "TROUPE_LOAD_BOUND_PERCENT", &percent, err);
    if (rc == TR_OK)
        rc = config_u64(env->config, "TROUPE_WORKER_TTL_MS", &ttl_ms, err);
    if (rc != TR_OK) {
        free(router);
        return rc;
    }
    router->bound_percent = (uint32_t)percent;
    router->report_ms = ttl_ms / 3 + ROUTER_FRESH_MS;
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

static struct worker *find_worker(const struct list *list, const char *queue)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->workers[i].queue, queue) == 0)
            return &list->workers[i];
    return NULL;
}

/* One that was to be had until now leaves, or has left. */
static bool one_leaves(const struct list *list, const struct registry_worker *found, size_t n)
{
    size_t stay = 0;

    for (size_t i = 0; i < n; i++)
        stay += !found[i].draining && find_worker(list, found[i].queue) != NULL;
    return stay < list->n;
}

/* Those that leave get nothing, and make nobody young: they are as good as gone. */
static void take(struct list *list, const struct registry_worker *found, size_t n)
{
    struct worker *workers = calloc(n > 0 ? n : 1, sizeof *workers);
    struct hrw_node *nodes = calloc(n > 0 ? n : 1, sizeof *nodes);
    const struct worker *old;
    uint64_t oldest = 0;
    size_t kept = 0;

    if (workers == NULL || nodes == NULL) {
        free(workers);
        free(nodes);
        return; /* the old ones stay */
    }
    for (size_t i = 0; i < n; i++)
        if (!found[i].draining && found[i].age_ms > oldest)
            oldest = found[i].age_ms;
    for (size_t i = 0; i < n; i++) {
        if (found[i].draining || (found[i].age_ms < YOUNG_MS && oldest >= 2 * YOUNG_MS))
            continue;
        memcpy(workers[kept].queue, found[i].queue, sizeof workers[kept].queue);
        workers[kept].queue[QUEUE_NAME_MAX] = '\0';
        nodes[kept] = (struct hrw_node){.id = hrw_hash(workers[kept].queue, strlen(workers[kept].queue)),
                                        .weight = found[i].weight > 0 ? found[i].weight : 1,
                                        .slots = found[i].slots};
        workers[kept].reported = found[i].load;
        old = find_worker(list, workers[kept].queue);
        if (old != NULL)
            memcpy(workers[kept].placed, old->placed, sizeof old->placed);
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
    bool leaving = false;

    list->op = NULL;
    if (router == NULL) {
        list_free(list);
        return;
    }
    list->read_ms = loop_now_ms(router->env.loop);
    list->failed = rc != TR_OK && rc != TR_NOT_FOUND;
    if (list->failed) {
        log_event(LOG_WARN, "router.registry", "character=%s rc=%s cause=%Q", list->character, tr_rc_name(rc),
                  tr_err_text(err));
    } else {
        n = rc == TR_OK ? n : 0;
        leaving = one_leaves(list, found, n);
        take(list, found, n);
    }
    router->on_read(router->ctx, leaving);
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

/* --- placing --- */

/* Where this chat is to go if it has no place yet: within the bound.  A report that is older than our own placing counts it not. */
static size_t roomy(struct router *router, struct list *list, const struct uuid *chat)
{
    const uint64_t now = loop_now_ms(router->env.loop);
    const bool turn = now - list->turned_ms >= router->report_ms;

    if (turn)
        list->turned_ms = now;
    for (size_t i = 0; i < list->n; i++) {
        struct worker *w = &list->workers[i];

        if (turn) {
            w->placed[1] = w->placed[0];
            w->placed[0] = 0;
        }
        list->nodes[i].load = w->reported + w->placed[0] + w->placed[1];
    }
    return hrw_choose_bounded(chat, list->nodes, list->n, router->bound_percent);
}

static void placing_cancel(struct tr_op *op)
{
    struct placing *p = (struct placing *)op;

    p->cancelled = true;
    tr_op_cancel(p->inner);
}

static void placing_end(struct placing *p, enum tr_rc rc, const char *queue)
{
    router_chosen *chosen = p->chosen;
    void *ctx = p->ctx;
    char copy[QUEUE_NAME_MAX + 1];

    snprintf(copy, sizeof copy, "%s", queue);
    free(p);
    chosen(ctx, rc, copy);
}

static void on_placed(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                      const struct tr_err *err);

static const char *or_null(const char *name)
{
    return name[0] != '\0' ? name : NULL;
}

static enum tr_rc place(struct placing *p)
{
    const struct registry_place wish = {
        .first = p->first, .queue = p->queue, .stale = or_null(p->stale), .was = or_null(p->was)};
    struct registry *reg = p->router->env.registry;

    return reg->ops->chat_place(reg, &p->chat, &wish, PLACE_TTL_MS, on_placed, p, &p->inner, NULL);
}

static void placed_fresh(const struct placing *p, struct worker *w)
{
    w->placed[0]++;
    if (strcmp(p->first, w->queue) != 0)
        metric_add(&metric_past, 1);
}

/* The place that stands is not to be used as it is: asked again, with what is wrong with it. */
static void place_again(struct placing *p, const struct list *list, const char *queue, const char *first)
{
    const bool lives = find_worker(list, queue) != NULL;

    snprintf(p->stale, sizeof p->stale, "%s", lives ? "" : queue);
    snprintf(p->was, sizeof p->was, "%s", strcmp(first, p->first) != 0 ? first : "");
    if (lives && find_worker(list, first) == NULL) /* only its first choice, which was full, has gone: it stays */
        snprintf(p->queue, sizeof p->queue, "%s", queue);
    if (++p->again > AGAIN_MAX || place(p) != TR_OK)
        placing_end(p, TR_OK, p->first);
}

static void on_placed(void *ctx, enum tr_rc rc, const char *queue, const char *first, bool fresh,
                      const struct tr_err *err)
{
    struct placing *p = ctx;
    struct router *router = p->router;
    struct list *list = NULL;
    struct worker *w = NULL;

    p->inner = NULL;
    if (p->cancelled) { /* the router may be gone */
        placing_end(p, TR_CANCELLED, "");
        return;
    }
    if (rc != TR_OK) {
        router->away_ms = loop_now_ms(router->env.loop) + AWAY_MS;
        log_event(LOG_DEBUG, "router.place", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
        placing_end(p, TR_OK, p->first);
        return;
    }
    HASH_FIND_STR(router->lists, p->character, list);
    if (list == NULL) {
        placing_end(p, TR_OK, p->first);
        return;
    }
    w = find_worker(list, queue);
    if (w == NULL || strcmp(first, p->first) != 0) {
        place_again(p, list, queue, first);
        return;
    }
    if (fresh)
        placed_fresh(p, w);
    placing_end(p, TR_OK, queue);
}

static enum tr_rc choose(struct router *router, struct list *list, const struct uuid *chat,
                         char ret_queue[QUEUE_NAME_MAX + 1], router_chosen *chosen, void *ctx, struct tr_op **ret_op)
{
    const size_t first = hrw_choose(chat, list->nodes, list->n);
    struct placing *p;

    strcpy(ret_queue, list->workers[first].queue);
    *ret_op = NULL;
    if (list->n < 2 || router->bound_percent == 0 || loop_now_ms(router->env.loop) < router->away_ms)
        return TR_OK;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return TR_OK;
    p->op.cancel = placing_cancel;
    p->router = router;
    p->chat = *chat;
    p->chosen = chosen;
    p->ctx = ctx;
    strcpy(p->character, list->character);
    strcpy(p->first, ret_queue);
    strcpy(p->queue, list->workers[roomy(router, list, chat)].queue);
    if (place(p) == TR_OK)
        *ret_op = &p->op;
    else
        free(p);
    return TR_OK;
}

enum tr_rc router_choose(struct router *router, const struct uuid *chat, const char *character,
                         char ret_queue[QUEUE_NAME_MAX + 1], router_chosen *chosen, void *ctx, struct tr_op **ret_op)
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
        if (list->n > 0)
            return choose(router, list, chat, ret_queue, chosen, ctx, ret_op);
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
