/* registry_workers - the workers of a registry: their numbers, wishes and ages, their records' ends, and leaving. */
#include "registry_workers.h"

#include "registry_fixture.h"

#include <stdio.h>
#include <string.h>

static void on_number(void *ctx, enum tr_rc rc, uint32_t number, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
    ((struct registry_got *)ctx)->number = number;
}

static void on_workers(void *ctx, enum tr_rc rc, const struct registry_worker *list, size_t n, const struct tr_err *err)
{
    struct registry_got *g = ctx;

    wait_called(&g->w, rc, err);
    g->n = n;
    for (size_t i = 0; i < n && i < 8; i++)
        g->worker[i] = list[i];
}

static struct registry_worker worker(const char *character, const char *id)
{
    struct registry_worker w = {.slots = 4, .context_tokens = 4096, .weight = 2};

    snprintf(w.character, sizeof w.character, "%s", character);
    snprintf(w.id, sizeof w.id, "%s", id);
    snprintf(w.model, sizeof w.model, "model");
    return w;
}

static uint32_t worker_in(struct registry_worker *w, uint64_t ttl_ms)
{
    struct registry_got g = REGISTRY_GOT;

    assert_int_equal(REGISTRY_CALL(g, worker_register, w, ttl_ms, on_number), TR_OK);
    w->number = (uint32_t)g.number;
    return w->number;
}

static size_t workers_of(const char *character, struct registry_got *ret_got)
{
    struct registry_got g = REGISTRY_GOT;

    assert_int_equal(REGISTRY_CALL(g, workers, character, on_workers), TR_OK);
    if (ret_got != NULL)
        *ret_got = g;
    return g.n;
}

static enum tr_rc refresh(const struct registry_worker *w, uint64_t ttl_ms)
{
    struct registry_got g = REGISTRY_GOT;

    return REGISTRY_CALL(g, worker_refresh, w, ttl_ms, wait_done);
}

void registry_workers_numbers(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct registry_worker m = worker("mia", "m");
    struct registry_got g = REGISTRY_GOT;

    (void)state;
    assert_int_equal(workers_of("any", NULL), 0);
    assert_int_equal(worker_in(&a, 5000), 1);
    assert_int_equal(worker_in(&b, 5000), 2);
    assert_int_equal(worker_in(&m, 5000), 1); /* another character counts for itself */
    assert_int_equal(worker_in(&b, 5000), 2); /* again: its answer was lost */
    assert_int_equal(workers_of("any", &g), 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(g.worker[i].queue, g.worker[i].number == 1 ? "inference.any.1" : "inference.any.2");
        assert_string_equal(g.worker[i].model, "model");
    }
    g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(g, worker_remove, &a, wait_done), TR_OK);
    assert_int_equal(workers_of("any", NULL), 1);
    assert_int_equal(worker_in(&c, 5000), 1);          /* the lowest free one */
    assert_int_equal(refresh(&a, 5000), TR_NOT_FOUND); /* another's by now */
    g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(g, worker_remove, &a, wait_done), TR_OK); /* and it can't throw that one out */
    assert_int_equal(workers_of("any", NULL), 2);
    assert_int_equal(workers_of("mia", NULL), 1);
    assert_int_equal(workers_of("nobody", NULL), 0);
}

void registry_workers_ttl(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b");
    struct registry_got g;

    (void)state;
    worker_in(&a, 150);
    worker_in(&b, 5000);
    a.load = 7;
    for (int i = 0; i < 6; i++) {
        support_for(registry_loop, 50);
        assert_int_equal(refresh(&a, 150), TR_OK);
    }
    assert_int_equal(workers_of("any", &g), 2);
    assert_true(g.worker[0].load + g.worker[1].load == 7);
    support_for(registry_loop, 200);
    assert_int_equal(workers_of("any", &g), 1);
    assert_string_equal(g.worker[0].id, "b");
    assert_int_equal(refresh(&a, 150), TR_NOT_FOUND);
    assert_int_equal(worker_in(&a, 5000), 1);
}

/* A number that was had before is given again where it is free. */
void registry_workers_wishes(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct registry_got g;

    (void)state;
    a.number = 3;
    assert_int_equal(worker_in(&a, 5000), 3);
    b.number = 3;
    assert_int_equal(worker_in(&b, 5000), 1); /* taken: the lowest free one */
    assert_int_equal(worker_in(&c, 5000), 2); /* no wish */
    support_for(registry_loop, 60);
    assert_int_equal(refresh(&a, 5000), TR_OK);
    assert_int_equal(workers_of("any", &g), 3);
    for (size_t i = 0; i < g.n; i++)
        assert_true(g.worker[i].age_ms >= 55 && g.worker[i].age_ms < 5000);
}

static const struct registry_worker *named(const struct registry_got *g, const char *id)
{
    for (size_t i = 0; i < g->n && i < 8; i++)
        if (strcmp(g->worker[i].id, id) == 0)
            return &g->worker[i];
    fail_msg("%s is not in the list", id);
    return NULL;
}

#define HOUR_MS 3600000

static void age_is(const struct registry_got *g, const char *id, uint64_t at_least, uint64_t at_most)
{
    assert_in_range(named(g, id)->age_ms, at_least, at_most + 60000);
}

/* A record that was lost comes back as old as its worker says; none gets younger; another's number makes nobody old. */
void registry_workers_ages(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct registry_got g = REGISTRY_GOT;

    (void)state;
    a.number = 2;
    a.age_ms = HOUR_MS;
    assert_int_equal(worker_in(&a, 60000), 2);
    assert_int_equal(worker_in(&b, 60000), 1);
    c.number = 2;
    c.age_ms = HOUR_MS;
    assert_int_equal(worker_in(&c, 60000), 3); /* not the queue that it served */
    workers_of("any", &g);
    age_is(&g, "a", HOUR_MS, HOUR_MS);
    age_is(&g, "b", 0, 0);
    age_is(&g, "c", 0, 0);

    a.age_ms = 0;
    assert_int_equal(worker_in(&a, 60000), 2); /* again: its answer was lost */
    assert_int_equal(refresh(&a, 60000), TR_OK);
    b.age_ms = 2 * HOUR_MS; /* a server whose clock was set back forgot its age */
    assert_int_equal(refresh(&b, 60000), TR_OK);
    workers_of("any", &g);
    age_is(&g, "a", HOUR_MS, HOUR_MS);
    age_is(&g, "b", 2 * HOUR_MS, 2 * HOUR_MS);
}

/* One that leaves says so, is still there, and its number is its own. */
void registry_workers_leaves(void **state)
{
    struct registry_worker a = worker("any", "a"), b = worker("any", "b"), c = worker("any", "c");
    struct registry_got g = REGISTRY_GOT;

    (void)state;
    assert_int_equal(worker_in(&a, 60000), 1);
    assert_int_equal(worker_in(&b, 60000), 2);
    workers_of("any", &g);
    assert_false(named(&g, "a")->draining);
    a.draining = true;
    assert_int_equal(refresh(&a, 60000), TR_OK);
    assert_int_equal(workers_of("any", &g), 2);
    assert_true(named(&g, "a")->draining);
    assert_false(named(&g, "b")->draining);
    assert_int_equal(worker_in(&c, 60000), 3);
    g = (struct registry_got)REGISTRY_GOT;
    assert_int_equal(REGISTRY_CALL(g, worker_remove, &a, wait_done), TR_OK);
    a.number = 0;
    assert_int_equal(worker_in(&a, 60000), 1); /* lost, and put again while it leaves */
    workers_of("any", &g);
    assert_true(named(&g, "a")->draining);
}

/* Two that wish the same at once: one has it, the other the lowest free one; none has two. */
void registry_workers_wishes_meet(void **state)
{
    struct registry_worker w[8];
    struct registry_got g[8];
    uint32_t seen = 0;

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        const char id[] = {(char)('a' + i), '\0'};

        w[i] = worker("any", id);
        w[i].number = 5;
        g[i] = (struct registry_got)REGISTRY_GOT;
        wait_started(&g[i].w, registry_reg->ops->worker_register(registry_reg, &w[i], 5000, on_number, &g[i],
                                                                 &g[i].w.op, &g[i].w.err));
    }
    for (size_t i = 0; i < 8; i++) {
        support_count(registry_loop, &g[i].w.calls, 1);
        assert_int_equal(g[i].w.rc, TR_OK);
        assert_in_range(g[i].number, 1, 8);
        seen |= 1u << g[i].number;
    }
    assert_int_equal(seen, 0x1fe); /* 1 … 8, each once */
    assert_int_equal(g[0].number, 5);
    w[1].number = 7;
    assert_int_equal(worker_in(&w[1], 5000), g[1].number); /* its own stands, whatever it wishes now */
    assert_int_equal(workers_of("any", NULL), 8);
}
