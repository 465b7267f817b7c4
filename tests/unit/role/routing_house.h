/*
 * routing_house - preprocess and several workers over the real embedded adapters, for the tests of routing: workers that
 * are real, records with nobody behind them, and whole chats that are routed.  Include after <cmocka.h>.
 */
#ifndef TESTS_UNIT_ROLE_ROUTING_HOUSE_H
#define TESTS_UNIT_ROLE_ROUTING_HOUSE_H

#include "base/log.h"
#include "role/inference/inference.h"
#include "role/preprocess/preprocess.h"
#include "role/preprocess/router.h"
#include "tests/unit/role/fixture.h"

#define TTL_MS 900
#define WORKERS_MAX 4

/* --- workers: each has an engine of its own, whose generations are counted --- */

struct runner {
    struct engine *engine;
    struct inference *role; /* NULL: not running */
    char instance[16];
    size_t generated;
};

static const char *engine = "?delay_ms=250";
static struct runner runners[WORKERS_MAX];
static const struct engine_ops *engine_inner;
static struct fixture f;
static struct preprocess *role;

FIXTURE static enum tr_rc spy_generate(struct engine *e, const struct engine_request *req,
                                       const struct engine_callbacks *cb, void *ctx, struct engine_job **ret_job,
                                       struct tr_err *err)
{
    for (size_t i = 0; i < WORKERS_MAX; i++)
        runners[i].generated += runners[i].engine == e;
    return engine_inner->generate(e, req, cb, ctx, ret_job, err);
}

FIXTURE static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

/* Worker i of a character; one that ran before comes back as a new process would, under a new id. */
FIXTURE static void run(size_t i, const char *character)
{
    static struct engine_ops ops;
    static unsigned births;
    struct runner *w = &runners[i];
    struct role_env env = f.env;
    struct wait wait = {.loop = f.loop};

    if (w->engine == NULL) {
        assert_int_equal(stub_engine_open(f.loop, engine, &w->engine, NULL), TR_OK);
        if (engine_inner == NULL) {
            engine_inner = w->engine->ops;
            ops = *engine_inner;
            ops.generate = spy_generate;
        }
        w->engine->ops = &ops;
    }
    snprintf(w->instance, sizeof w->instance, "worker%u", births++);
    env.instance = w->instance;
    assert_int_equal(
        wait_end(&wait, inference_start(&env, &w->engine, 1, character, on_started, &wait, &w->role, &wait.err)),
        TR_OK);
}

/* As a SIGKILL: its record stays until its time is over, what it held is in its queue again. */
FIXTURE static void die(size_t i)
{
    inference_free(runners[i].role);
    runners[i].role = NULL;
}

FIXTURE static int set_up(const char *ttl_ms, const char *bound)
{
    struct wait w = {0};

    setenv("TROUPE_WORKER_TTL_MS", ttl_ms, 1);
    setenv("TROUPE_LOAD_BOUND_PERCENT", bound, 1);
    setup_env(&f);
    unsetenv("TROUPE_WORKER_TTL_MS");
    unsetenv("TROUPE_LOAD_BOUND_PERCENT");
    w.loop = f.loop;
    assert_int_equal(wait_end(&w, preprocess_start(&f.env, on_started, &w, &role, &w.err)), TR_OK);
    return 0;
}

FIXTURE static int setup(void **state)
{
    return set_up("900", *state != NULL ? *state : "0"); /* the minimal move is told without the bound */
}

FIXTURE static int setup_long(void **state)
{
    (void)state;
    return set_up("60000", "0"); /* nothing that comes by thirds of it comes in a test */
}

FIXTURE static int teardown(void **state)
{
    (void)state;
    preprocess_free(role);
    for (size_t i = 0; i < WORKERS_MAX; i++)
        die(i);
    support_for(f.loop, 10);
    for (size_t i = 0; i < WORKERS_MAX; i++)
        if (runners[i].engine != NULL)
            runners[i].engine->ops->close(runners[i].engine);
    memset(runners, 0, sizeof runners);
    teardown_env(&f);
    return 0;
}

/* --- what the tests do --- */

FIXTURE static void on_worker(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    (void)number;
    wait_called(ctx, rc, err);
}

FIXTURE static void put_record(const struct registry_worker *worker)
{
    struct wait w = {.loop = f.loop};
    struct registry *r = f.env.registry;

    assert_int_equal(wait_end(&w, r->ops->worker_register(r, worker, 60000, on_worker, &w, &w.op, &w.err)), TR_OK);
}

/* A record and a watched queue, and nobody behind them. */
FIXTURE static struct registry_worker add_aged(const char *character, uint32_t number, uint64_t age_ms)
{
    struct registry_worker worker = {.slots = 1, .weight = 1, .number = number, .age_ms = age_ms};

    strcpy(worker.character, character);
    snprintf(worker.id, sizeof worker.id, "%s%u", character, (unsigned)number);
    topic_inference(character, number, worker.queue);
    put_record(&worker);
    declare(&f, worker.queue, QUEUE_DURABLE);
    watch(&f, worker.queue);
    return worker;
}

FIXTURE static struct registry_worker add_record(const char *character, uint32_t number)
{
    return add_aged(character, number, 0);
}

FIXTURE static void remove_record(const struct registry_worker *worker)
{
    struct wait w = {.loop = f.loop};
    struct registry *r = f.env.registry;

    assert_int_equal(wait_end(&w, r->ops->worker_remove(r, worker, wait_done, &w, &w.op, &w.err)), TR_OK);
}

/* The router's lists grow old, and the next message has them read anew (and may still go by the old ones). */
FIXTURE static void let_the_router_look(const char *character)
{
    struct envelope work = {.kind = ENVELOPE_WORK, .chat = fresh_uuid(), .turn = fresh_uuid(), .created_ms = wall_ms()};

    strcpy(work.character, character);
    support_for(f.loop, ROUTER_FRESH_MS + 50);
    publish(&f, TOPIC_INCOMING, &work, false);
    await_seen(&f, ENVELOPE_WORK, &work.turn, 1);
}

#define CHATS 60

FIXTURE static void fresh_chats(struct uuid chats[CHATS])
{
    for (size_t i = 0; i < CHATS; i++)
        chats[i] = fresh_uuid();
}

/* A turn of each chat, routed; the queues they went to. */
FIXTURE static void route(const struct uuid *chats, const char *character, char queues[CHATS][QUEUE_NAME_MAX + 1])
{
    const struct uuid turn = fresh_uuid(); /* the same for all: so they are found again */

    for (size_t i = 0; i < CHATS; i++) {
        struct envelope work = {.kind = ENVELOPE_WORK, .chat = chats[i], .turn = turn, .created_ms = wall_ms()};

        strcpy(work.character, character);
        publish(&f, TOPIC_INCOMING, &work, false);
    }
    await_seen(&f, ENVELOPE_WORK, &turn, CHATS);
    for (size_t i = 0; i < CHATS; i++)
        for (size_t s = 0; s < f.seen_n; s++)
            if (uuid_eq(&f.seen[s].env.turn, &turn) && uuid_eq(&f.seen[s].env.chat, &chats[i]))
                strcpy(queues[i], f.seen[s].queue);
}

FIXTURE static void all_at(char queues[CHATS][QUEUE_NAME_MAX + 1], const char *prefix)
{
    for (size_t i = 0; i < CHATS; i++)
        assert_memory_equal(queues[i], prefix, strlen(prefix));
}

FIXTURE static void only_moved_from(char before[CHATS][QUEUE_NAME_MAX + 1], char after[CHATS][QUEUE_NAME_MAX + 1],
                                    const char *gone)
{
    size_t moved = 0;

    for (size_t i = 0; i < CHATS; i++) {
        if (strcmp(before[i], gone) == 0)
            moved++;
        else
            assert_string_equal(after[i], before[i]);
        assert_string_not_equal(after[i], gone);
    }
    assert_in_range(moved, 1, CHATS - 1);
}

/* Every turn has one reply, and they came in order. */
FIXTURE static void answered_in_order(const struct envelope *turns, size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++)
        await_seen(&f, ENVELOPE_REPLY, &turns[i].turn, 1);
    for (size_t i = 0; i < f.seen_n; i++)
        if (at < n && f.seen[i].env.kind == ENVELOPE_REPLY && uuid_eq(&f.seen[i].env.turn, &turns[at].turn))
            at++;
    assert_int_equal(at, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(read_turn(&f, &turns[i].turn).variants, 1);
        assert_int_equal(read_turn(&f, &turns[i].turn).finish, FINISH_STOP);
    }
}

FIXTURE static void say(struct envelope *turn, const char *text)
{
    accept(&f, text, turn);
    publish(&f, TOPIC_INCOMING, turn, false);
}

struct wait_workers {
    struct wait w;
    size_t n;
    struct registry_worker first;
};

FIXTURE static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n,
                               const struct tr_err *err)
{
    struct wait_workers *workers = ctx;

    workers->n = rc == TR_OK ? n : 0;
    if (workers->n > 0)
        workers->first = list[0];
    wait_called(&workers->w, rc == TR_NOT_FOUND ? TR_OK : rc, err);
}

FIXTURE static void living_in(const char *character, struct wait_workers *ret)
{
    struct registry *r = f.env.registry;

    *ret = (struct wait_workers){.w = {.loop = f.loop}};
    assert_int_equal(wait_end(&ret->w, r->ops->workers(r, character, on_workers, ret, &ret->w.op, &ret->w.err)), TR_OK);
}

FIXTURE static size_t living(const char *character)
{
    struct wait_workers workers;

    living_in(character, &workers);
    return workers.n;
}

#endif
