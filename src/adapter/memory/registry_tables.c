/* registry_tables - the memory registry's tables and their time limits; see registry.c's head. */
#include "adapter/memory/registry_impl.h"
#include "domain/ratelimit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MAX 2000 /* entries of a table looked at in one tick */
#define WORKERS_MAX 4096
#define CONNS_MAX 1000000
#define CONTEXT_BYTES_MAX ((size_t)64 << 20)
#define RATES_MAX 100000
#define RATE_KEY_MAX 127

static enum tr_rc nomem(struct tr_err *err)
{
    return tr_fail(err, TR_NOMEM, "registry: out of memory");
}

static uint64_t now_ms(const struct memory_registry *r)
{
    return loop_now_ms(r->loop);
}

/* ---- workers ---- */

static void workers_expire(struct memory_registry *r)
{
    for (struct mr_worker **at = &r->workers; *at != NULL;) {
        struct mr_worker *w = *at;

        if (w->expires_ms > now_ms(r)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        r->workers_n--;
        free(w);
    }
}

static struct mr_worker *worker_find(struct memory_registry *r, const struct registry_worker *w)
{
    workers_expire(r);
    for (struct mr_worker *at = r->workers; at != NULL; at = at->next)
        if (at->w.number == w->number && strcmp(at->w.character, w->character) == 0 && strcmp(at->w.id, w->id) == 0)
            return at;
    return NULL;
}

static bool number_taken(const struct memory_registry *r, const char *character, uint32_t number)
{
    for (const struct mr_worker *at = r->workers; at != NULL; at = at->next)
        if (at->w.number == number && strcmp(at->w.character, character) == 0)
            return true;
    return false;
}

/* As old as its owner says, if that is older than what is known. */
static void worker_grow(const struct memory_registry *r, struct mr_worker *mine, uint64_t age_ms)
{
    const int64_t since_ms = (int64_t)now_ms(r) - (int64_t)age_ms;

    if (since_ms < mine->since_ms)
        mine->since_ms = since_ms;
}

enum tr_rc mr_worker_register(struct memory_registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                              uint32_t *ret_number, struct tr_err *err)
{
    struct mr_worker *mine;
    uint32_t number = 1;

    workers_expire(r);
    for (mine = r->workers; mine != NULL; mine = mine->next)
        if (strcmp(mine->w.id, w->id) == 0 && strcmp(mine->w.character, w->character) == 0)
            break; /* again: its answer was lost */
    if (mine != NULL) {
        number = mine->w.number;
    } else {
        if (r->workers_n >= WORKERS_MAX)
            return tr_fail(err, TR_BUSY, "registry: %d workers are registered", WORKERS_MAX);
        mine = calloc(1, sizeof *mine);
        if (mine == NULL)
            return nomem(err);
        if (w->number != 0 && !number_taken(r, w->character, w->number))
            number = w->number; /* it was there before */
        else
            while (number_taken(r, w->character, number))
                number++;
        mine->since_ms = (int64_t)now_ms(r);
        if (number == w->number)
            worker_grow(r, mine, w->age_ms);
        mine->next = r->workers;
        r->workers = mine;
        r->workers_n++;
    }
    mine->w = *w;
    mine->w.number = number;
    snprintf(mine->w.queue, sizeof mine->w.queue, "inference.%s.%u", w->character, number);
    mine->expires_ms = now_ms(r) + ttl_ms;
    *ret_number = number;
    return TR_OK;
}

enum tr_rc mr_worker_refresh(struct memory_registry *r, const struct registry_worker *w, uint64_t ttl_ms)
{
    struct mr_worker *mine = worker_find(r, w);
    char queue[sizeof w->queue];

    if (mine == NULL)
        return TR_NOT_FOUND;
    memcpy(queue, mine->w.queue, sizeof queue);
    mine->w = *w;
    memcpy(mine->w.queue, queue, sizeof queue);
    worker_grow(r, mine, w->age_ms);
    mine->expires_ms = now_ms(r) + ttl_ms;
    return TR_OK;
}

void mr_worker_remove(struct memory_registry *r, const struct registry_worker *w)
{
    struct mr_worker *mine = worker_find(r, w);

    if (mine == NULL)
        return;
    mine->expires_ms = 0;
    workers_expire(r);
}

enum tr_rc mr_workers_list(struct memory_registry *r, const char *character, struct registry_worker **ret_list,
                           size_t *ret_n)
{
    struct registry_worker *list;
    size_t n = 0;

    workers_expire(r);
    for (const struct mr_worker *at = r->workers; at != NULL; at = at->next)
        n += strcmp(at->w.character, character) == 0;
    if (n == 0)
        return TR_OK;
    list = malloc(n * sizeof *list);
    if (list == NULL)
        return TR_NOMEM;
    n = 0;
    for (const struct mr_worker *at = r->workers; at != NULL; at = at->next)
        if (strcmp(at->w.character, character) == 0)
            list[n] = at->w, list[n++].age_ms = (uint64_t)((int64_t)now_ms(r) - at->since_ms);
    *ret_list = list;
    *ret_n = n;
    return TR_OK;
}

/* ---- gateways ---- */

static struct mr_gateway *gateway_find(struct memory_registry *r, const char *name)
{
    struct mr_gateway *g = r->gateways;

    while (g != NULL && strcmp(g->name, name) != 0)
        g = g->next;
    return g;
}

/* Forget the names that nobody needs any more. */
static void gateways_expire(struct memory_registry *r)
{
    for (struct mr_gateway **at = &r->gateways; *at != NULL;) {
        struct mr_gateway *g = *at;

        if (g->refs > 0 || g->expires_ms > now_ms(r)) {
            at = &g->next;
            continue;
        }
        *at = g->next;
        free(g);
    }
}

static struct mr_gateway *gateway_get(struct memory_registry *r, const char *name, struct tr_err *err)
{
    struct mr_gateway *g = gateway_find(r, name);
    const size_t len = strlen(name);

    if (g != NULL)
        return g;
    g = calloc(1, sizeof *g + len + 1);
    if (g == NULL) {
        nomem(err);
        return NULL;
    }
    memcpy(g->name, name, len + 1);
    g->next = r->gateways;
    r->gateways = g;
    return g;
}

enum tr_rc mr_gateway_refresh(struct memory_registry *r, const char *name, uint64_t ttl_ms, struct tr_err *err)
{
    struct tr_err own;
    struct mr_gateway *g = gateway_get(r, name, err != NULL ? err : &own);
    bool known;

    if (g == NULL)
        return err != NULL ? err->rc : own.rc;
    known = g->expires_ms > now_ms(r);
    g->expires_ms = now_ms(r) + ttl_ms;
    g->removed = false;
    return known ? TR_OK : TR_NOT_FOUND;
}

void mr_gateway_remove(struct memory_registry *r, const char *name)
{
    struct mr_gateway *g = gateway_find(r, name);

    if (g == NULL)
        return;
    g->expires_ms = 0;
    g->removed = true; /* its name goes with the sweep: a callback may be reading it */
}

enum tr_rc mr_gateways_list(struct memory_registry *r, const char ***ret_names, size_t *ret_n)
{
    const char **names;
    size_t n = 0;

    for (const struct mr_gateway *g = r->gateways; g != NULL; g = g->next)
        n += g->expires_ms > now_ms(r);
    if (n == 0)
        return TR_OK;
    names = calloc(n, sizeof *names);
    if (names == NULL)
        return TR_NOMEM;
    n = 0;
    for (const struct mr_gateway *g = r->gateways; g != NULL; g = g->next)
        if (g->expires_ms > now_ms(r))
            names[n++] = g->name;
    *ret_names = names;
    *ret_n = n;
    return TR_OK;
}

/* ---- who holds a chat's connections ---- */

static struct mr_conn *conn_find(struct memory_registry *r, const struct uuid *chat)
{
    struct mr_conn *c;

    HASH_FIND(hh, r->conns, chat, sizeof *chat, c);
    return c;
}

static struct mr_holder *holder_at(struct mr_conn *c, size_t i)
{
    return i == 0 ? &c->first : &c->more[i - 1];
}

static size_t holders(const struct mr_conn *c)
{
    return c->first.gateway != NULL ? 1 + (size_t)c->more_n : 0;
}

/* Take holder i out; the last one takes its place. */
static void holder_drop(struct mr_conn *c, size_t i)
{
    struct mr_holder *h = holder_at(c, i), *last = holder_at(c, holders(c) - 1);

    h->gateway->refs--;
    *h = *last;
    if (c->more_n > 0)
        c->more_n--;
    else
        c->first = (struct mr_holder){0};
    if (c->more_n == 0) {
        free(c->more);
        c->more = NULL;
    }
}

static void conn_free(struct memory_registry *r, struct mr_conn *c)
{
    if (r->conn_cursor == c)
        r->conn_cursor = c->hh.next;
    while (holders(c) > 0)
        holder_drop(c, 0);
    HASH_DEL(r->conns, c);
    free(c);
}

/* Drop what is past its time; false: nothing is left, c is gone. */
static bool conn_expire(struct memory_registry *r, struct mr_conn *c)
{
    for (size_t i = holders(c); i-- > 0;)
        if (holder_at(c, i)->expires_ms <= now_ms(r) || holder_at(c, i)->gateway->removed)
            holder_drop(c, i);
    if (holders(c) > 0)
        return true;
    conn_free(r, c);
    return false;
}

/* TR_NOT_FOUND: added, and it was not there before. */
static enum tr_rc conn_add(struct memory_registry *r, const struct uuid *chat, struct mr_gateway *g,
                           uint64_t expires_ms, struct tr_err *err)
{
    struct mr_conn *c = conn_find(r, chat);
    struct mr_holder *more;

    if (c != NULL && conn_expire(r, c)) {
        for (size_t i = 0; i < holders(c); i++) {
            if (holder_at(c, i)->gateway == g) {
                holder_at(c, i)->expires_ms = expires_ms;
                return TR_OK;
            }
        }
        more = realloc(c->more, (c->more_n + 1) * sizeof *more);
        if (more == NULL)
            return nomem(err);
        c->more = more;
        more[c->more_n++] = (struct mr_holder){g, expires_ms};
    } else {
        if (HASH_COUNT(r->conns) >= CONNS_MAX)
            return tr_fail(err, TR_BUSY, "registry: %d chats are connected", CONNS_MAX);
        c = calloc(1, sizeof *c);
        if (c == NULL)
            return nomem(err);
        c->chat = *chat;
        c->first = (struct mr_holder){g, expires_ms};
        HASH_ADD(hh, r->conns, chat, sizeof c->chat, c);
    }
    g->refs++;
    return TR_NOT_FOUND;
}

enum tr_rc mr_conn_put(struct memory_registry *r, const struct uuid *chat, const char *gateway, uint64_t ttl_ms,
                       struct tr_err *err)
{
    struct tr_err own;
    struct mr_gateway *g = gateway_get(r, gateway, err != NULL ? err : &own);

    if (g == NULL)
        return err != NULL ? err->rc : own.rc;
    g->removed = false;
    return conn_add(r, chat, g, now_ms(r) + ttl_ms, err);
}

void mr_conn_remove(struct memory_registry *r, const struct uuid *chat, const char *gateway)
{
    struct mr_conn *c = conn_find(r, chat);

    if (c == NULL || !conn_expire(r, c))
        return;
    for (size_t i = 0; i < holders(c); i++) {
        if (strcmp(holder_at(c, i)->gateway->name, gateway) == 0) {
            holder_at(c, i)->expires_ms = 0;
            conn_expire(r, c);
            return;
        }
    }
}

enum tr_rc mr_conns_list(struct memory_registry *r, const struct uuid *chat, const char ***ret_names, size_t *ret_n)
{
    struct mr_conn *c = conn_find(r, chat);
    const char **names;
    size_t n;

    if (c == NULL || !conn_expire(r, c))
        return TR_OK;
    n = holders(c);
    names = calloc(n, sizeof *names);
    if (names == NULL)
        return TR_NOMEM;
    for (size_t i = 0; i < n; i++)
        names[i] = holder_at(c, i)->gateway->name;
    *ret_names = names;
    *ret_n = n;
    return TR_OK;
}

/* ---- recent context ---- */

void mr_blob_release(struct mr_blob *blob)
{
    if (blob == NULL || --blob->refs > 0)
        return;
    explicit_bzero(blob->data, blob->len);
    free(blob);
}

static size_t context_size(const struct mr_context *c)
{
    return sizeof *c + sizeof *c->blob + c->blob->len;
}

static void context_free(struct memory_registry *r, struct mr_context *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        r->context_first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    else
        r->context_last = c->prev;
    HASH_DEL(r->contexts, c);
    r->context_bytes -= context_size(c);
    mr_blob_release(c->blob);
    free(c);
}

static void context_append(struct memory_registry *r, struct mr_context *c)
{
    c->prev = r->context_last;
    c->next = NULL;
    if (c->prev != NULL)
        c->prev->next = c;
    else
        r->context_first = c;
    r->context_last = c;
}

/* The one that is used now goes out last. */
static void context_touch(struct memory_registry *r, struct mr_context *c)
{
    if (c->next == NULL)
        return;
    c->next->prev = c->prev;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        r->context_first = c->next;
    context_append(r, c);
}

static struct mr_context *context_find(struct memory_registry *r, const struct uuid *chat)
{
    struct mr_context *c;

    HASH_FIND(hh, r->contexts, chat, sizeof *chat, c);
    return c;
}

enum tr_rc mr_context_put(struct memory_registry *r, const struct uuid *chat, const struct registry_context *context,
                          uint64_t ttl_ms, struct tr_err *err)
{
    const size_t len = context->sealed.len;
    struct mr_context *c;
    struct mr_blob *blob;

    if (len > REGISTRY_CONTEXT_MAX)
        return tr_fail(err, TR_INVALID, "registry: a context of %zu bytes: at most %d", len, REGISTRY_CONTEXT_MAX);
    blob = malloc(sizeof *blob + len);
    c = calloc(1, sizeof *c);
    if (blob == NULL || c == NULL) {
        free(blob);
        free(c);
        return nomem(err);
    }
    blob->refs = 1;
    blob->len = len;
    if (len > 0)
        memcpy(blob->data, context->sealed.data, len);
    *c = (struct mr_context){.chat = *chat, .last_turn = context->last_turn, .change = context->change, .blob = blob};
    c->expires_ms = now_ms(r) + ttl_ms;
    mr_context_drop(r, chat);
    HASH_ADD(hh, r->contexts, chat, sizeof c->chat, c);
    context_append(r, c);
    r->context_bytes += context_size(c);
    while (r->context_bytes > CONTEXT_BYTES_MAX)
        context_free(r, r->context_first);
    return TR_OK;
}

enum tr_rc mr_context_get(struct memory_registry *r, const struct uuid *chat, struct registry_context *ret_context,
                          struct mr_blob **ret_blob)
{
    struct mr_context *c = context_find(r, chat);

    if (c != NULL && c->expires_ms <= now_ms(r)) {
        context_free(r, c);
        c = NULL;
    }
    if (c == NULL)
        return TR_NOT_FOUND;
    context_touch(r, c);
    c->blob->refs++;
    *ret_blob = c->blob;
    *ret_context = (struct registry_context){
        .last_turn = c->last_turn, .change = c->change, .sealed = {c->blob->data, c->blob->len}};
    return TR_OK;
}

void mr_context_drop(struct memory_registry *r, const struct uuid *chat)
{
    struct mr_context *c = context_find(r, chat);

    if (c != NULL)
        context_free(r, c);
}

/* ---- rate limits ---- */

static void rate_free(struct memory_registry *r, struct mr_rate *rate)
{
    if (r->rate_cursor == rate)
        r->rate_cursor = rate->hh.next;
    HASH_DEL(r->rates, rate);
    free(rate);
}

enum tr_rc mr_rate_take(struct memory_registry *r, const char *key, uint32_t per_minute, uint64_t *ret_wait_ms,
                        struct tr_err *err)
{
    const size_t len = strlen(key);
    struct mr_rate *rate;

    if (len > RATE_KEY_MAX)
        return tr_fail(err, TR_INVALID, "registry: a limit's key of %zu bytes: at most %d", len, RATE_KEY_MAX);
    *ret_wait_ms = 0;
    if (per_minute == 0)
        return TR_OK;
    HASH_FIND_STR(r->rates, key, rate);
    if (rate == NULL) {
        if (HASH_COUNT(r->rates) >= RATES_MAX)
            rate_free(r, r->rates); /* the one known longest */
        rate = calloc(1, sizeof *rate + len + 1);
        if (rate == NULL)
            return nomem(err);
        memcpy(rate->key, key, len + 1);
        HASH_ADD_KEYPTR(hh, r->rates, rate->key, len, rate);
    }
    *ret_wait_ms = ratelimit_take(&rate->tat_us, per_minute, mono_ns() / 1000);
    return TR_OK;
}

/* ---- all of them ---- */

void mr_on_sweep(void *ctx)
{
    struct memory_registry *r = ctx;
    const uint64_t now_us = mono_ns() / 1000;

    workers_expire(r);
    if (r->conn_cursor == NULL)
        r->conn_cursor = r->conns;
    for (size_t i = 0; i < SWEEP_MAX && r->conn_cursor != NULL; i++) {
        struct mr_conn *c = r->conn_cursor;

        r->conn_cursor = c->hh.next;
        conn_expire(r, c);
    }
    gateways_expire(r);
    mr_places_expire(r);
    if (r->rate_cursor == NULL)
        r->rate_cursor = r->rates;
    for (size_t i = 0; i < SWEEP_MAX && r->rate_cursor != NULL; i++) {
        struct mr_rate *rate = r->rate_cursor;

        r->rate_cursor = rate->hh.next;
        if (rate->tat_us <= now_us)
            rate_free(r, rate); /* as good as new */
    }
    for (size_t i = 0; i < SWEEP_MAX && r->context_first != NULL; i++) {
        if (r->context_first->expires_ms > now_ms(r))
            break;
        context_free(r, r->context_first);
    }
}

void mr_tables_free(struct memory_registry *r)
{
    while (r->conns != NULL)
        conn_free(r, r->conns);
    while (r->contexts != NULL)
        context_free(r, r->contexts);
    mr_places_free(r);
    while (r->rates != NULL)
        rate_free(r, r->rates);
    while (r->workers != NULL) {
        struct mr_worker *w = r->workers;

        r->workers = w->next;
        free(w);
    }
    while (r->gateways != NULL) {
        struct mr_gateway *g = r->gateways;

        r->gateways = g->next;
        free(g);
    }
}
