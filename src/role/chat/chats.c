/* chats - the open chats of one desk, who follows them, and what is held back for them.  See desk_impl.h. */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_MIN 256

static size_t slot(const struct desk *d, const struct uuid *id)
{
    uint64_t h;

    memcpy(&h, id->b + 8, sizeof h); /* the random half of a v7 */
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h >> 32) & (d->table_n - 1);
}

struct chat *desk_chat_find(struct desk *d, const struct uuid *id)
{
    struct chat *c;

    if (d->table_n == 0)
        return NULL;
    c = d->table[slot(d, id)];
    while (c != NULL && !uuid_eq(&c->id, id))
        c = c->hash_next;
    return c;
}

/* Twice as many slots; without memory the chains just get longer. */
static bool grow(struct desk *d)
{
    const size_t old_n = d->table_n, n = old_n == 0 ? TABLE_MIN : old_n * 2;
    struct chat **old = d->table, **table = calloc(n, sizeof *table);

    if (table == NULL)
        return old != NULL;
    d->table = table;
    d->table_n = n;
    for (size_t i = 0; i < old_n; i++) {
        while (old[i] != NULL) {
            struct chat *c = old[i];
            const size_t to = slot(d, &c->id);

            old[i] = c->hash_next;
            c->hash_next = table[to];
            table[to] = c;
        }
    }
    free(old);
    d->walk = 0;
    d->gap_walk = 0;
    d->behind_walk = 0;
    if (d->gap_left > 0)
        d->gap_left = n;
    return true;
}

struct chat *desk_chat_get(struct desk *d, const struct uuid *id)
{
    struct chat *c = desk_chat_find(d, id);
    size_t at;

    if (c == NULL) {
        if (d->chats_n >= d->table_n && !grow(d))
            return NULL;
        c = calloc(1, sizeof *c);
        if (c == NULL)
            return NULL;
        c->id = *id;
        at = slot(d, id);
        c->hash_next = d->table[at];
        d->table[at] = c;
        d->chats_n++;
    }
    c->refs++;
    return c;
}

static void name_unref(struct desk *d, struct character_name *name)
{
    struct character_name **at = &d->characters;

    if (name == NULL || --name->refs > 0)
        return;
    while (*at != name)
        at = &(*at)->next;
    *at = name->next;
    free(name);
}

static struct character_name *name_ref(struct desk *d, const char *id)
{
    struct character_name *name = d->characters;
    const size_t size = strlen(id) + 1;

    while (name != NULL && strcmp(name->id, id) != 0)
        name = name->next;
    if (name == NULL) {
        name = calloc(1, sizeof *name + size);
        if (name == NULL)
            return NULL;
        memcpy(name->id, id, size);
        name->next = d->characters;
        d->characters = name;
    }
    name->refs++;
    return name;
}

static void work_free(struct work *w)
{
    if (w == NULL)
        return;
    while (w->running != NULL) {
        struct running *r = w->running;

        w->running = r->next;
        buf_wipe(&r->text);
        free(r);
    }
    desk_held_release(&w->held);
    free(w);
}

static void chat_free(struct desk *d, struct chat *c)
{
    struct chat **at = &d->table[slot(d, &c->id)];

    while (*at != c)
        at = &(*at)->hash_next;
    *at = c->hash_next;
    d->chats_n--;
    name_unref(d, c->character);
    work_free(c->work);
    free(c);
}

void desk_chat_unref(struct desk *d, struct chat *c)
{
    if (c == NULL)
        return;
    assert(c->refs > 0);
    c->refs--;
    if (c->refs == 0 && c->follows == NULL)
        chat_free(d, c);
}

bool desk_chat_apply(struct desk *d, struct chat *c, const struct history_chat *facts)
{
    if (!c->loaded) {
        c->character = name_ref(d, facts->character);
        if (c->character == NULL)
            return false;
        c->user = facts->user;
        c->loaded = true;
    }
    desk_chat_moved(c, &facts->head, facts->index);
    desk_chat_changed(c, facts->change);
    return true;
}

void desk_chat_moved(struct chat *c, const struct uuid *head, uint64_t index)
{
    if (uuid_cmp(head, &c->head) > 0) {
        c->head = *head;
        c->index = index;
    }
}

void desk_chat_changed(struct chat *c, uint64_t change)
{
    if (change > c->change)
        c->change = change;
}

struct work *desk_work(struct chat *c)
{
    if (c->work == NULL)
        c->work = calloc(1, sizeof *c->work);
    return c->work;
}

void desk_work_tidy(struct chat *c)
{
    const struct work *w = c->work;

    if (w == NULL || w->running != NULL || w->held.first != NULL || w->key_fetch != NULL || w->accepts != NULL ||
        w->delivered_n > 0)
        return;
    free(c->work);
    c->work = NULL;
}

void desk_chats_free(struct desk *d)
{
    assert(d->chats_n == 0);
    free(d->table);
    d->table = NULL;
    d->table_n = 0;
}

void desk_chats_walk(struct desk *d, size_t slots, size_t *at, void (*fn)(struct desk *d, struct chat *c))
{
    while (slots-- > 0 && d->table_n > 0) {
        struct chat *next;

        if (*at >= d->table_n)
            *at = 0;
        for (struct chat *c = d->table[(*at)++]; c != NULL; c = next) {
            c->refs++;
            fn(d, c);
            next = c->hash_next;
            desk_chat_unref(d, c);
        }
    }
}

struct desk_follow *desk_follow_find(const struct desk_viewer *v, const struct chat *c)
{
    struct desk_follow *f = v->follows;

    while (f != NULL && f->chat != c)
        f = f->v_next;
    return f;
}

struct desk_follow *desk_follow_new(struct desk_viewer *v, struct chat *c)
{
    struct desk_follow *f = calloc(1, sizeof *f);

    if (f == NULL)
        return NULL;
    f->viewer = v;
    f->chat = c;
    f->v_next = v->follows;
    v->follows = f;
    f->c_next = c->follows;
    c->follows = f;
    return f;
}

/* Nobody here has the chat open any more. */
static void conn_remove(struct desk *d, const struct uuid *chat)
{
    struct registry *r = d->env.registry;
    struct tr_op *op = NULL;

    if (r->ops->conn_remove(r, chat, d->queue, desk_ignore, NULL, &op, NULL) != TR_OK)
        return; /* it ends by its TTL */
}

void desk_follow_free(struct desk *d, struct desk_follow *f)
{
    struct chat *c = f->chat;
    struct desk_follow **at;

    for (at = &f->viewer->follows; *at != f; at = &(*at)->v_next)
        continue;
    *at = f->v_next;
    for (at = &c->follows; *at != f; at = &(*at)->c_next)
        continue;
    *at = f->c_next;
    if (d->iter == f)
        d->iter = f->c_next;
    if (f->busy != NULL)
        f->busy->follow = NULL;
    desk_not_behind(d, f);
    if (f->held != NULL) {
        desk_held_release(f->held);
        free(f->held);
    }
    free(f->replied);
    free(f);
    if (c->follows == NULL && !d->dead)
        conn_remove(d, &c->id);
    c->refs++;
    desk_chat_unref(d, c);
}

void desk_follow_each(struct desk *d, struct chat *c, void (*fn)(struct desk *d, struct desk_follow *f, void *arg),
                      void *arg)
{
    struct desk_follow *outer = d->iter;

    assert(outer == NULL || outer->chat == c);
    c->refs++;
    for (struct desk_follow *f = c->follows; f != NULL; f = d->iter) {
        d->iter = f->c_next;
        fn(d, f, arg);
    }
    d->iter = outer;
    desk_chat_unref(d, c);
}

bool desk_hold(struct held_list *l, const struct envelope *env, const void *bytes, size_t len)
{
    struct held *h = malloc(sizeof *h + len);

    if (h == NULL)
        return false;
    h->next = NULL;
    h->caught_up = false;
    h->env = *env;
    h->len = len;
    if (len > 0)
        memcpy(h->bytes, bytes, len);
    h->env.sealed = (struct slice){h->bytes, len};
    if (l->first == NULL)
        l->first = h;
    else
        l->last->next = h;
    l->last = h;
    l->n++;
    return true;
}

struct held *desk_held_take(struct held_list *l)
{
    struct held *h = l->first;

    if (h != NULL) {
        l->first = h->next;
        l->n--;
        h->next = NULL;
    }
    return h;
}

void desk_held_release(struct held_list *l)
{
    struct held *h;

    while ((h = desk_held_take(l)) != NULL)
        free(h);
}

struct running *desk_running_find(const struct chat *c, const struct uuid *turn, int32_t variant)
{
    struct running *r = c->work != NULL ? c->work->running : NULL;

    while (r != NULL && (r->variant != variant || !uuid_eq(&r->turn, turn)))
        r = r->next;
    return r;
}

struct running *desk_running_get(struct chat *c, const struct uuid *turn, int32_t variant)
{
    struct running *r = desk_running_find(c, turn, variant);
    struct work *w;

    if (r != NULL)
        return r;
    w = desk_work(c);
    if (w == NULL)
        return NULL;
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        desk_work_tidy(c);
        return NULL;
    }
    r->turn = *turn;
    r->variant = variant;
    r->next = w->running;
    w->running = r;
    return r;
}

void desk_running_drop(struct chat *c, const struct uuid *turn, int32_t variant)
{
    struct running **at;

    if (c->work == NULL)
        return;
    at = &c->work->running;
    while (*at != NULL) {
        struct running *r = *at;

        if (uuid_eq(&r->turn, turn) && (variant < 0 || r->variant == variant)) {
            *at = r->next;
            buf_wipe(&r->text);
            free(r);
        } else {
            at = &r->next;
        }
    }
    desk_work_tidy(c);
}

void desk_running_ask(struct desk *d, struct chat *c, struct running *r)
{
    const uint64_t now = loop_now_ms(d->env.loop);
    struct envelope env = {.kind = ENVELOPE_TEXT, .chat = c->id, .turn = r->turn, .variant = r->variant};

    if (r->asked_ms != 0 && now - r->asked_ms < TEXT_WAIT_MS)
        return;
    r->asked_ms = now == 0 ? 1 : now;
    memcpy(env.origin, d->queue, strnlen(d->queue, ENVELOPE_ORIGIN_MAX));
    desk_tell(d, TOPIC_CONTROL, &env);
}

void desk_call_again(struct desk *d, struct chat *c, const struct uuid *turn, int32_t variant)
{
    struct running *r = desk_running_get(c, turn, variant);
    const uint64_t now = loop_now_ms(d->env.loop);
    struct envelope env = {
        .kind = ENVELOPE_WORK, .again = true, .chat = c->id, .turn = *turn, .variant = variant, .user = c->user};
    struct tr_op *op = NULL;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (r == NULL || (r->called_ms != 0 && now - r->called_ms < CALL_AGAIN_MS))
        return;
    r->called_ms = now == 0 ? 1 : now;
    memcpy(env.character, c->character->id, strlen(c->character->id));
    story_trace(turn, env.trace);
    rc = role_publish(&d->env, TOPIC_INCOMING, &env, false, desk_ignore, NULL, &op, &err);
    if (rc != TR_OK)
        log_event(LOG_WARN, "desk.not_called", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(&err));
}
