/*
 * desk - start, drain and end of what the front doors need of chats (desk.h), and the life of its requests.
 *
 *   starting: declare [gateway:<instance>], [incoming], [control] -> consume -> known as a gateway -> started
 */
#include "role/chat/desk_impl.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAMAGE_LOG_MS 1000

/* ---- requests */

void *desk_request_new(struct desk *d, struct desk_viewer *viewer, size_t size, const struct desk_request_ops *ops)
{
    struct desk_request *r = calloc(1, size);

    if (r == NULL)
        return NULL;
    r->ops = ops;
    r->d = d;
    r->began_ms = loop_now_ms(d->env.loop);
    r->d_next = d->requests;
    if (r->d_next != NULL)
        r->d_next->d_prev = r;
    d->requests = r;
    d->requests_n++;
    if (viewer != NULL) {
        r->viewer = viewer;
        r->v_next = viewer->requests;
        if (r->v_next != NULL)
            r->v_next->v_prev = r;
        viewer->requests = r;
    }
    return r;
}

static void detach(struct desk_request *r)
{
    if (r->viewer == NULL)
        return;
    if (r->v_prev != NULL)
        r->v_prev->v_next = r->v_next;
    else
        r->viewer->requests = r->v_next;
    if (r->v_next != NULL)
        r->v_next->v_prev = r->v_prev;
    r->v_next = r->v_prev = NULL;
    r->viewer = NULL;
}

static void on_call(struct loop_call *call)
{
    struct desk_request *r = (struct desk_request *)((char *)call - offsetof(struct desk_request, call));

    r->called = false;
    if (!desk_request_over(r))
        r->step(r);
}

void desk_request_later(struct desk_request *r, void (*step)(struct desk_request *r))
{
    assert(!r->called);
    r->step = step;
    r->call.fn = on_call;
    r->called = true;
    loop_defer(r->d->env.loop, &r->call);
}

static void on_timer(void *ctx)
{
    struct desk_request *r = ctx;

    timer_stop(r->timer);
    r->timer = NULL;
    r->step(r);
}

bool desk_request_after(struct desk_request *r, uint64_t ms, void (*step)(struct desk_request *r))
{
    r->step = step;
    return timer_start(r->d->env.loop, ms, 0, on_timer, r, &r->timer) == TR_OK;
}

bool desk_request_again(struct desk_request *r, void (*step)(struct desk_request *r))
{
    const uint32_t shift = r->tries < 6 ? r->tries : 6;

    if (loop_now_ms(r->d->env.loop) - r->began_ms > RETRY_FOR_MS)
        return false;
    r->tries++;
    return desk_request_after(r, UINT64_C(10) << shift, step);
}

bool desk_request_over(struct desk_request *r)
{
    r->op = NULL;
    if (!r->d->dead)
        return false;
    desk_request_end(r);
    return true;
}

static void desk_gone(struct desk *d)
{
    desk_chats_free(d);
    free(d);
}

void desk_request_end(struct desk_request *r)
{
    struct desk *d = r->d;

    assert(r->op == NULL && !r->called);
    detach(r);
    if (r->d_prev != NULL)
        r->d_prev->d_next = r->d_next;
    else
        d->requests = r->d_next;
    if (r->d_next != NULL)
        r->d_next->d_prev = r->d_prev;
    d->requests_n--;
    timer_stop(r->timer);
    if (r->ops->release != NULL)
        r->ops->release(r);
    if (r->chat != NULL)
        desk_chat_unref(d, r->chat);
    free(r);
    if (d->requests_n > 0)
        return;
    if (d->freed) {
        desk_gone(d);
    } else if (d->draining && d->drained != NULL && !d->dead) {
        void (*drained)(void *ctx) = d->drained;

        d->drained = NULL;
        drained(d->drained_ctx);
    }
}

void desk_request_fail(struct desk_request *r, const char *code, const char *field, uint64_t retry_after_ms,
                       const char *fmt, ...)
{
    struct desk_error e = {.code = code, .field = field, .retry_after_ms = retry_after_ms};
    va_list args;

    va_start(args, fmt);
    vsnprintf(e.message, sizeof e.message, fmt, args);
    va_end(args);
    if (r->viewer != NULL)
        r->ops->fail(r, &e);
    desk_request_end(r);
}

void desk_request_broke(struct desk_request *r, const char *what, enum tr_rc rc, const struct tr_err *err)
{
    char chat[UUID_TEXT] = "";

    r->unread = rc != TR_NOT_FOUND;
    if (rc == TR_NOT_FOUND) {
        desk_request_fail(r, "not_found", NULL, 0, "There is no such chat or turn.");
        return;
    }
    if (r->chat != NULL)
        uuid_format(&r->chat->id, chat);
    log_event(LOG_WARN, "desk.failed", "what=%s rc=%s chat=%s cause=%Q", what, tr_rc_name(rc), chat, tr_err_text(err));
    if (desk_rc_again(rc) && rc != TR_BUSY)
        r->d->broke_ms = loop_now_ms(r->d->env.loop) + 1;
    if (rc == TR_BUSY)
        desk_request_fail(r, "overloaded", NULL, 1000, "The server is busy. Try again in a moment.");
    else
        desk_request_fail(r, "internal", NULL, desk_rc_again(rc) ? 1000 : 0,
                          "Something went wrong on the server. Try the same again.");
}

static void on_key(void *ctx, enum tr_rc rc, const struct seal_key *key, const struct tr_err *err)
{
    struct desk_request *r = ctx;

    (void)key;
    if (desk_request_over(r))
        return;
    if (rc == TR_OK || (desk_rc_again(rc) && desk_request_again(r, r->step))) {
        if (rc == TR_OK)
            r->step(r);
        return;
    }
    if (rc == TR_NOT_FOUND && r->chat != NULL && !r->lives)
        desk_mend_all(r->d, r->chat);
    desk_request_broke(r, "key", rc, err);
}

const struct seal_key *desk_request_key(struct desk_request *r, const struct uuid *chat,
                                        void (*step)(struct desk_request *r))
{
    const struct seal_key *key = keyring_peek(r->d->env.keyring, chat);
    struct tr_err err = {0};
    enum tr_rc rc;

    if (key != NULL)
        return key;
    r->step = step;
    rc = keyring_get(r->d->env.keyring, chat, on_key, r, &r->op, &err);
    if (rc != TR_OK)
        desk_request_broke(r, "key", rc, &err);
    return NULL;
}

void desk_ignore(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    (void)ctx;
    (void)rc;
    (void)err;
}

void desk_tell(struct desk *d, const char *topic, const struct envelope *env)
{
    struct tr_err err = {0};
    const enum tr_rc rc = role_publish(&d->env, topic, env, true, NULL, NULL, NULL, &err);

    if (rc != TR_OK && log_on(LOG_DEBUG))
        log_event(LOG_DEBUG, "desk.untold", "topic=%s rc=%s cause=%Q", topic, tr_rc_name(rc), tr_err_text(&err));
}

void desk_damaged(struct desk *d, const struct uuid *chat, const struct uuid *turn, const struct tr_err *err)
{
    const uint64_t now = loop_now_ms(d->env.loop);
    char chat_text[UUID_TEXT], turn_text[UUID_TEXT];

    if (d->damage_log_ms != 0 && now - d->damage_log_ms < DAMAGE_LOG_MS)
        return;
    d->damage_log_ms = now + 1;
    uuid_format(chat, chat_text);
    uuid_format(turn, turn_text);
    log_event(LOG_WARN, "desk.damaged", "chat=%s turn=%s cause=%Q", chat_text, turn_text, tr_err_text(err));
}

/* ---- the slow timer */

static void on_gateway(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct desk *d = ctx;

    d->gateway_op = NULL;
    if (rc == TR_CANCELLED)
        return;
    if (rc == TR_NOT_FOUND) /* the registry lost its records: ours are put again, and what we missed is read */
        log_event(LOG_INFO, "desk.records_lost", "gateway=%s", d->queue);
    else if (rc != TR_OK)
        log_event(LOG_WARN, "desk.unregistered", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    if (rc == TR_NOT_FOUND || (rc == TR_OK && d->registry_failed)) /* or what was put meanwhile may not have arrived */
        desk_gap(d);
    d->registry_failed = rc != TR_OK && rc != TR_NOT_FOUND;
}

static void on_tick(void *ctx)
{
    struct desk *d = ctx;
    const uint64_t now = loop_now_ms(d->env.loop);
    const uint64_t since = now - d->tick_ms;

    d->tick_ms = now;
    if (since >= CONN_TTL_MS - CONN_REFRESH_MS)
        desk_gap(d); /* we slept: records may have run out meanwhile */
    desk_chats_walk(d, (size_t)(d->table_n * since / CONN_REFRESH_MS) + 1, &d->walk, desk_conn_renew);
    desk_mend_step(d);
    desk_admission_tick(d);
    if (now - d->gateway_ms >= d->gateway_ttl_ms / 3 && d->gateway_op == NULL) {
        struct registry *r = d->env.registry;

        d->gateway_ms = now;
        if (r->ops->gateway_refresh(r, d->queue, d->gateway_ttl_ms, on_gateway, d, &d->gateway_op, NULL) != TR_OK) {
            d->gateway_op = NULL; /* tried again in a third of the TTL */
            d->registry_failed = true;
        }
    }
}

static void on_queue_gap(void *ctx)
{
    desk_gap(ctx);
}

/* It may be as it was a moment ago: our own record is put at once, then those of the open chats. */
static void on_registry_gap(void *ctx)
{
    struct desk *d = ctx;

    log_event(LOG_INFO, "desk.registry_anew", "gateway=%s", d->queue);
    d->gateway_ms = 0;
    d->registry_failed = false;
    desk_gap(d);
}

/* ---- starting */

struct starting {
    struct desk_request base; /* first */
    desk_started *done;
    void *ctx;
    unsigned declared;
};

static void starting_end(struct starting *s, enum tr_rc rc, const struct tr_err *err)
{
    desk_started *done = s->done;
    void *ctx = s->ctx;

    if (rc == TR_OK)
        s->base.d->started = true;
    desk_request_end(&s->base);
    done(ctx, rc, err);
}

static void on_registered(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct starting *s = ctx;

    if (desk_request_over(&s->base))
        return;
    s->base.d->registry_failed = rc != TR_OK && rc != TR_NOT_FOUND;
    if (s->base.d->registry_failed)
        log_event(LOG_WARN, "desk.unregistered", "rc=%s cause=%Q", tr_rc_name(rc), tr_err_text(err));
    starting_end(s, TR_OK, NULL); /* the registry may come later */
}

static void starting_consume(struct starting *s)
{
    struct desk *d = s->base.d;
    struct tr_err err = {0};
    enum tr_rc rc =
        d->env.queue->ops->consume(d->env.queue, d->queue, 0, desk_on_message, on_queue_gap, d, &d->consumer, &err);

    if (rc == TR_OK) {
        d->tick_ms = d->gateway_ms = loop_now_ms(d->env.loop);
        rc = timer_start(d->env.loop, TICK_MS, TICK_MS, on_tick, d, &d->tick);
    }
    if (rc == TR_OK) {
        d->registry_gap = (struct registry_gap){.fn = on_registry_gap, .ctx = d};
        registry_gap_add(d->env.registry, &d->registry_gap);
    }
    if (rc == TR_OK)
        rc = d->env.registry->ops->gateway_refresh(d->env.registry, d->queue, d->gateway_ttl_ms, on_registered, s,
                                                   &s->base.op, &err);
    if (rc != TR_OK)
        starting_end(s, rc, &err);
}

static void starting_step(struct desk_request *r);

static void on_declared(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct starting *s = ctx;

    if (desk_request_over(&s->base))
        return;
    if (rc == TR_OK)
        s->declared++;
    if (rc == TR_OK || (desk_rc_again(rc) && desk_request_again(&s->base, starting_step))) {
        if (rc == TR_OK)
            starting_step(&s->base);
        return;
    }
    starting_end(s, rc, err);
}

static void starting_step(struct desk_request *r)
{
    struct starting *s = (struct starting *)r;
    struct desk *d = r->d;
    const struct queue_spec specs[] = {
        {.name = d->queue, .kind = QUEUE_TRANSIENT},
        {.name = TOPIC_INCOMING, .kind = QUEUE_DURABLE},
        {.name = TOPIC_CONTROL, .kind = QUEUE_FANOUT},
    };
    struct tr_err err = {0};
    enum tr_rc rc;

    if (s->declared == sizeof specs / sizeof specs[0]) {
        starting_consume(s);
        return;
    }
    rc = d->env.queue->ops->declare(d->env.queue, &specs[s->declared], on_declared, s, &r->op, &err);
    if (rc != TR_OK)
        starting_end(s, rc, &err);
}

static enum tr_rc read_limits(struct desk *d, struct tr_err *err)
{
    const struct config *c = d->env.config;
    enum tr_rc rc = config_u64(c, "TROUPE_TEXT_MAX", &d->text_max, err);

    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_WORKER_TTL_MS", &d->gateway_ttl_ms, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_QUEUE_MAX", &d->queue_max, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_RATE_USER", &d->rate_user, err);
    if (rc == TR_OK)
        rc = config_u64(c, "TROUPE_RATE_ADDRESS", &d->rate_address, err);
    return rc;
}

static void no_answer(struct desk_request *r, const struct desk_error *e)
{
    (void)r; /* never called: no viewer */
    (void)e;
}

enum tr_rc desk_start(const struct role_env *env, const struct desk_events *events, desk_started *started, void *ctx,
                      struct desk **ret_desk, struct tr_err *err)
{
    static const struct desk_request_ops ops = {.fail = no_answer};
    struct desk *d = calloc(1, sizeof *d);
    struct starting *s;
    enum tr_rc rc;

    if (d == NULL)
        return tr_fail(err, TR_NOMEM, "desk");
    d->env = *env;
    d->events = *events;
    topic_gateway(env->instance, d->queue);
    assert(strlen(d->queue) <= ENVELOPE_ORIGIN_MAX);
    rc = read_limits(d, err);
    if (rc != TR_OK) {
        free(d);
        return rc;
    }
    s = desk_request_new(d, NULL, sizeof *s, &ops);
    if (s == NULL) {
        free(d);
        return tr_fail(err, TR_NOMEM, "desk");
    }
    s->done = started;
    s->ctx = ctx;
    desk_request_later(&s->base, starting_step);
    *ret_desk = d;
    return TR_OK;
}

/* ---- the end */

struct draining {
    struct desk_request base; /* first */
};

static void draining_step(struct desk_request *r)
{
    desk_request_end(r); /* the last request to end says that all is drained */
}

void desk_drain(struct desk *d, void (*drained)(void *ctx), void *ctx)
{
    static const struct desk_request_ops ops = {.fail = no_answer};
    struct draining *r = desk_request_new(d, NULL, sizeof *r, &ops);

    d->draining = true;
    d->drained = drained;
    d->drained_ctx = ctx;
    if (r != NULL) {
        desk_request_later(&r->base, draining_step);
    } else if (d->requests_n == 0) {
        d->drained = NULL;
        drained(ctx);
    }
}

/* Let the others know at once; the record ends by its TTL in any case. */
static void unregister(struct desk *d)
{
    struct registry *r = d->env.registry;
    struct tr_op *op = NULL;

    if (d->started && r->ops->gateway_remove(r, d->queue, desk_ignore, NULL, &op, NULL) != TR_OK)
        return;
}

void desk_free(struct desk *d)
{
    struct desk_request *next;

    if (d == NULL)
        return;
    d->dead = true;
    d->env.queue->ops->consumer_stop(d->env.queue, d->consumer);
    d->consumer = NULL;
    timer_stop(d->tick);
    d->tick = NULL;
    desk_admission_free(d);
    registry_gap_remove(d->env.registry, &d->registry_gap);
    tr_op_cancel(d->gateway_op);
    unregister(d);
    d->requests_n++; /* the loop must not be the one that ends the desk */
    for (struct desk_request *r = d->requests; r != NULL; r = next) {
        next = r->d_next;
        if (r->op != NULL)
            tr_op_cancel(r->op);
        else if (!r->called)
            desk_request_end(r);
    }
    loop_drain(d->env.loop); /* what was cancelled is called back now */
    d->requests_n--;
    assert(d->gateway_op == NULL);
    d->freed = true;
    if (d->requests_n == 0)
        desk_gone(d);
}

bool desk_ready(const struct desk *d)
{
    const bool broke = d->broke_ms != 0 && loop_now_ms(d->env.loop) - d->broke_ms < BROKE_MS;

    return d->started && !d->draining && !broke && !d->poll_failed && d->lengths + d->accepted_since < d->queue_max;
}

void desk_viewer_release(struct desk *d, struct desk_viewer *v)
{
    while (v->requests != NULL)
        detach(v->requests); /* they end without an answer */
    while (v->follows != NULL)
        desk_follow_free(d, v->follows);
}

void desk_user_made(struct desk *d, const struct uuid *user)
{
    struct catalogue *c = d->env.catalogue;
    struct tr_op *op = NULL;

    if (c->ops->user_put(c, user, wall_ms(), desk_ignore, NULL, &op, NULL) != TR_OK)
        log_event(LOG_WARN, "desk.user_unnoted", "cause=catalogue");
}
