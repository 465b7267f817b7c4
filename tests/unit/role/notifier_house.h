/*
 * notifier_house - what the tests of the notifier share: one that is started over the real embedded adapters, and gateways
 * for it.  Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_UNIT_ROLE_NOTIFIER_HOUSE_H
#define TESTS_UNIT_ROLE_NOTIFIER_HOUSE_H

#include "role/notifier/notifier.h"
#include "tests/unit/role/fixture.h"

FIXTURE static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    wait_called(ctx, rc, err);
}

/* f->env, or one like it. */
FIXTURE static struct notifier *start_notifier(struct fixture *f, const struct role_env *env)
{
    struct notifier *role = NULL;
    struct wait w = {.loop = f->loop};

    assert_int_equal(wait_end(&w, notifier_start(env, on_started, &w, &role, &w.err)), TR_OK);
    return role;
}

FIXTURE static void end(struct fixture *f, struct notifier *role)
{
    notifier_free(role);
    teardown_env(f);
}

/* It is among the living; holds_chat: the record of f->chat names it; listens: its queue is there and watched. */
FIXTURE static void add_gateway(struct fixture *f, const char *name, bool holds_chat, bool listens)
{
    struct registry *r = f->env.registry;
    struct wait w = {.loop = f->loop};

    if (listens) {
        declare(f, name, QUEUE_TRANSIENT);
        watch(f, name);
    }
    assert_int_equal(wait_end(&w, r->ops->gateway_refresh(r, name, 60000, wait_done, &w, &w.op, &w.err)), TR_NOT_FOUND);
    w = (struct wait){.loop = f->loop};
    if (holds_chat)
        assert_int_equal(wait_end(&w, r->ops->conn_put(r, &f->chat, name, 60000, wait_done, &w, &w.op, &w.err)), TR_OK);
}

#endif
