/*
 * inference_house - one running inference role over the fixture's adapters, with spies in their tables of functions
 * that count, record the prompts, and fail on demand.  Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_UNIT_ROLE_INFERENCE_HOUSE_H
#define TESTS_UNIT_ROLE_INFERENCE_HOUSE_H

#include "role/inference/inference.h"
#include "tests/unit/role/fixture.h"

#define WORKER_QUEUE "inference.any.1"

/* --- spies: each sits in the adapter's table of functions --- */

static const struct engine_ops *engine_inner;
static size_t generated;
static char prompts[4096]; /* of the last generation: all messages but the system's, one a line */

static enum tr_rc spy_generate(struct engine *e, const struct engine_request *req, const struct engine_callbacks *cb,
                               void *ctx, struct engine_job **ret_job, struct tr_err *err)
{
    size_t at = 0;

    generated++;
    prompts[0] = '\0';
    for (size_t i = 0; i < req->prompt->n; i++) {
        const struct prompt_message *m = &req->prompt->messages[i];

        if (m->speaker != SPEAKER_SYSTEM && at + m->len + 8 < sizeof prompts)
            at += (size_t)snprintf(prompts + at, sizeof prompts - at, "%s%.*s\n",
                                   m->speaker == SPEAKER_USER ? "> " : "< ", (int)m->len, m->text);
    }
    return engine_inner->generate(e, req, cb, ctx, ret_job, err);
}

static const struct history_ops *history_inner;
static size_t reads_turn, reads_turns, reads_changed;

static enum tr_rc spy_turn_get(struct history *h, const struct uuid *chat, const struct uuid *turn,
                               history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    reads_turn++;
    return history_inner->turn_get(h, chat, turn, done, ctx, ret_op, err);
}

static enum tr_rc spy_turns(struct history *h, const struct uuid *chat, const struct history_range *range,
                            history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    reads_turns++;
    return history_inner->turns(h, chat, range, done, ctx, ret_op, err);
}

static enum tr_rc spy_changed(struct history *h, const struct uuid *chat, uint64_t since, uint32_t limit,
                              history_rows_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    reads_changed++;
    return history_inner->changed(h, chat, since, limit, done, ctx, ret_op, err);
}

static size_t appends_uncertain; /* so many appends land, but say that they may not have */

static void ignore_appended(void *ctx, enum tr_rc rc, bool mine, uint64_t change, const struct turn_row *standing,
                            const struct tr_err *err)
{
    (void)ctx, (void)rc, (void)mine, (void)change, (void)standing, (void)err;
}

static enum tr_rc spy_append(struct history *h, const struct turn_row *rows, size_t n, history_append_done *done,
                             void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    struct tr_op *op;

    if (appends_uncertain == 0 || rows[0].part < PART_FIRST_VARIANT)
        return history_inner->append(h, rows, n, done, ctx, ret_op, err);
    appends_uncertain--;
    assert_int_equal(history_inner->append(h, rows, n, ignore_appended, NULL, &op, NULL), TR_OK);
    return tr_fail(err, TR_UNCERTAIN, "connection lost");
}

static const struct registry_ops *registry_inner;
static bool registry_down;

static enum tr_rc spy_refresh(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms, registry_done *done,
                              void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    return registry_inner->worker_refresh(r, w, ttl_ms, done, ctx, ret_op, err);
}

static enum tr_rc spy_register(struct registry *r, const struct registry_worker *w, uint64_t ttl_ms,
                               registry_worker_done *done, void *ctx, struct tr_op **ret_op, struct tr_err *err)
{
    if (registry_down)
        return tr_fail(err, TR_TRANSIENT, "down");
    return registry_inner->worker_register(r, w, ttl_ms, done, ctx, ret_op, err);
}

static void spy(struct fixture *f, struct engine *e)
{
    static struct engine_ops engine_ops;
    static struct history_ops history_ops;
    static struct registry_ops registry_ops;

    engine_inner = e->ops;
    engine_ops = *engine_inner;
    engine_ops.generate = spy_generate;
    e->ops = &engine_ops;
    history_inner = f->env.history->ops;
    history_ops = *history_inner;
    history_ops.turn_get = spy_turn_get;
    history_ops.turns = spy_turns;
    history_ops.changed = spy_changed;
    history_ops.append = spy_append;
    appends_uncertain = 0;
    f->env.history->ops = &history_ops;
    registry_inner = f->env.registry->ops;
    registry_ops = *registry_inner;
    registry_ops.worker_refresh = spy_refresh;
    registry_ops.worker_register = spy_register;
    f->env.registry->ops = &registry_ops;
    generated = reads_turn = reads_turns = reads_changed = 0;
    registry_down = false;
    spy_on_queue(f);
}

/* --- one running role --- */

struct house {
    struct fixture f;
    struct engine *engines[2];
    size_t engines_n;
    struct inference *role;
    size_t drained;
};

static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

static void house_open(struct house *h, const char *engine, const char *fallback)
{
    struct wait w = {0};

    memset(h, 0, sizeof *h);
    setup_env(&h->f);
    assert_int_equal(stub_engine_open(h->f.loop, engine, &h->engines[0], NULL), TR_OK);
    h->engines_n = 1;
    spy(&h->f, h->engines[0]);
    if (fallback != NULL)
        assert_int_equal(stub_engine_open(h->f.loop, fallback, &h->engines[h->engines_n++], NULL), TR_OK);
    w.loop = h->f.loop;
    assert_int_equal(
        wait_end(&w, inference_start(&h->f.env, h->engines, h->engines_n, "any", on_started, &w, &h->role, &w.err)),
        TR_OK);
    watch(&h->f, topic_notify(&h->f.chat));
}

static void house_close(struct house *h)
{
    inference_free(h->role);
    support_for(h->f.loop, 10);
    for (size_t i = 0; i < h->engines_n; i++)
        h->engines[i]->ops->close(h->engines[i]);
    teardown_env(&h->f);
}

FIXTURE static void reply_is(struct fixture *f, const struct uuid *turn, const char *text, enum finish finish)
{
    const struct seen *s = await_seen(f, ENVELOPE_REPLY, turn, 1);
    struct turn_seen stored = read_turn(f, turn);

    assert_string_equal(open_seen(f, s, SEAL_QUEUE), text);
    assert_int_equal(s->env.finish, finish);
    assert_int_equal(stored.finish, finish);
    assert_string_equal(stored.text, text);
}

FIXTURE static void say(struct house *h, const char *text, struct envelope *work)
{
    accept(&h->f, text, work);
    publish(&h->f, WORKER_QUEUE, work, false);
    await_seen(&h->f, ENVELOPE_REPLY, &work->turn, 1);
}

#endif
