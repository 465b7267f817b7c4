/*
 * up - all roles in one process: wiring -> boot steps, one after another -> the loop -> drain.
 *
 * Boot: the check value of the master key, the characters that ship with the program (first start only), then the
 * roles from the back to the front, so that whoever is called first finds the next one ready.
 * Drain (SIGTERM, SIGINT): from the front to the back, within TROUPE_DRAIN_SECONDS; a second signal ends it at once.
 */
#include "base/log.h"
#include "command/command.h"
#include "command/shipped.h"
#include "role/gateway/gateway.h"
#include "role/inference/inference.h"
#include "role/notifier/notifier.h"
#include "role/preprocess/preprocess.h"
#include "wiring.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

struct up {
    struct wiring wiring;
    struct gateway *gateway;
    struct preprocess *preprocess;
    struct inference *inference;
    struct notifier *notifier;
    uv_signal_t term, interrupt;
    bool signals, draining;
    uint64_t drain_seconds;
    struct loop_timer *drain_limit;
};

struct setting {
    struct await a;
    char value[64];
};

static void setting_done(void *ctx, enum tr_rc rc, bool mine, const char *value, const struct tr_err *err)
{
    struct setting *s = ctx;

    (void)mine;
    if (rc == TR_OK)
        snprintf(s->value, sizeof s->value, "%s", value);
    await_done(&s->a, rc, err);
}

/* The stores must have been made with this master key (contract 11.15). */
static enum tr_rc check_master_key(struct up *u, struct tr_err *err)
{
    struct catalogue *const c = u->wiring.env.catalogue;
    struct setting s = {.a = {.loop = u->wiring.loop}};
    struct tr_op *op = NULL;
    char want[33];
    enum tr_rc rc;

    seal_check_value(u->wiring.master, want);
    rc = await(&s.a, c->ops->setting_put(c, "master_key_check", want, setting_done, &s, &op, err), err);
    if (rc == TR_OK && strcmp(s.value, want) != 0)
        rc = tr_fail(err, TR_INVALID, "%s is not the master key that this data was sealed with: put the right one back",
                     config_str(u->wiring.env.config, "TROUPE_MASTER_KEY_FILE"));
    return rc;
}

static enum tr_rc start_roles(struct up *u, struct tr_err *err)
{
    const struct role_env *const env = &u->wiring.env;
    struct await a = {.loop = u->wiring.loop};
    enum tr_rc rc;

    rc = await(&a, notifier_start(env, await_done, &a, &u->notifier, err), err);
    if (rc == TR_OK)
        rc = await(
            &a, inference_start(env, u->wiring.engines, u->wiring.engines_n, "any", await_done, &a, &u->inference, err),
            err);
    if (rc == TR_OK)
        rc = await(&a, preprocess_start(env, await_done, &a, &u->preprocess, err), err);
    if (rc == TR_OK)
        rc = await(&a, gateway_start(env, await_done, &a, &u->gateway, err), err);
    return rc;
}

static void on_stopped(void *ctx)
{
    struct up *u = ctx;

    loop_stop(u->wiring.loop);
}

static void on_preprocess_drained(void *ctx)
{
    struct up *u = ctx;

    notifier_drain(u->notifier, on_stopped, u);
}

static void on_inference_drained(void *ctx)
{
    struct up *u = ctx;

    preprocess_drain(u->preprocess, on_preprocess_drained, u);
}

static void on_gateway_drained(void *ctx)
{
    struct up *u = ctx;

    inference_drain(u->inference, on_inference_drained, u);
}

static void on_drain_limit(void *ctx)
{
    struct up *u = ctx;

    log_event(LOG_WARN, "up.drain_limit", "seconds=%lu", (unsigned long)u->drain_seconds);
    loop_stop(u->wiring.loop);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct up *u = handle->data;

    if (u->draining) {
        log_event(LOG_WARN, "up.stop_now", "signal=%d", number);
        loop_stop(u->wiring.loop);
        return;
    }
    u->draining = true;
    log_event(LOG_INFO, "up.drain", "signal=%d", number);
    if (timer_start(u->wiring.loop, u->drain_seconds * 1000 + 1000, 0, on_drain_limit, u, &u->drain_limit) != TR_OK)
        u->drain_limit = NULL;
    gateway_drain(u->gateway, on_gateway_drained, u);
}

static void start_signals(struct up *u)
{
    uv_loop_t *const uv = loop_uv(u->wiring.loop);

    uv_signal_init(uv, &u->term);
    uv_signal_init(uv, &u->interrupt);
    u->term.data = u->interrupt.data = u;
    uv_signal_start(&u->term, on_signal, SIGTERM);
    uv_signal_start(&u->interrupt, on_signal, SIGINT);
    u->signals = true;
}

static void up_release(struct up *u)
{
    timer_stop(u->drain_limit);
    if (u->signals) {
        uv_close((uv_handle_t *)&u->term, NULL);
        uv_close((uv_handle_t *)&u->interrupt, NULL);
    }
    gateway_free(u->gateway);
    preprocess_free(u->preprocess);
    inference_free(u->inference);
    notifier_free(u->notifier);
    wiring_release(&u->wiring);
}

static void print_address(const struct up *u)
{
    const char *const listen = config_str(u->wiring.env.config, "TROUPE_LISTEN");
    const char *const colon = strrchr(listen, ':');
    const int host = colon != NULL ? (int)(colon - listen) : 0;
    const struct engine_info *const info = u->wiring.engines[0]->ops->info(u->wiring.engines[0]);

    log_event(LOG_INFO, "up.ready", "port=%u engine=%s model=%Q device=%Q pid=%d", (unsigned)gateway_port(u->gateway),
              info->engine, info->model, info->device, (int)getpid());
    printf("Troupe is ready: http://%.*s:%u/\n", host, listen, (unsigned)gateway_port(u->gateway));
    fflush(stdout);
}

int command_up(const struct config *config, int argc, char **argv)
{
    struct up *u;
    struct tr_err err = {0};
    enum tr_rc rc;

    if (argc == 1 && strcmp(argv[0], "--help") == 0) {
        puts("usage: troupe up\n\nRuns all roles in this process until SIGTERM or Ctrl-C. The keys are told by `troupe "
             "env`.");
        return EXIT_DONE;
    }
    if (argc > 0) {
        fprintf(stderr, "troupe up: takes no '%.40s'\n", argv[0]);
        return EXIT_USAGE;
    }
    mallopt(M_ARENA_MAX, 2); /* few threads allocate; ten thousand connections must stay small */
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return EXIT_FAILED;
    rc = config_u64(config, "TROUPE_DRAIN_SECONDS", 0, 3600, &u->drain_seconds, &err);
    if (rc != TR_OK) {
        fprintf(stderr, "troupe up: %s\n", tr_err_text(&err));
        free(u);
        return EXIT_USAGE;
    }
    rc = wiring_open(config, WIRING_CATALOGUE | WIRING_STORES | WIRING_ENGINES, &u->wiring, &err);
    if (rc == TR_OK) {
        rc = check_master_key(u, &err);
        if (rc == TR_OK)
            rc = shipped_characters(&u->wiring, &err);
        if (rc == TR_OK)
            rc = start_roles(u, &err);
        if (rc == TR_OK) {
            start_signals(u);
            print_address(u);
            loop_run(u->wiring.loop);
            log_event(LOG_INFO, "up.stopped", "pid=%d", (int)getpid());
        }
        up_release(u);
    }
    free(u);
    if (rc != TR_OK)
        fprintf(stderr, "troupe up: %s\n", tr_err_text(&err));
    return rc == TR_OK ? EXIT_DONE : EXIT_FAILED;
}
