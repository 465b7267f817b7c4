/*
 * run - roles as processes: `troupe up` is all of them in one, `troupe gateway|preprocess|inference|notifier` one of them.
 * wiring -> boot steps, one after another -> the roles -> the loop -> drain.
 *
 * Boot: the stores answer, it is their master key; with embedded stores the characters that ship with the program too
 * (else `troupe init` has put them there).  The roles start from the back to the front, so that whoever is called first
 * finds the next one ready.
 * Drain (SIGTERM, SIGINT): from the front to the back, within TROUPE_DRAIN_SECONDS; a second signal ends it at once.
 */
#include "base/log.h"
#include "command/boot.h"
#include "command/command.h"
#include "command/shipped.h"
#include "role/common/monitor.h"
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

#define CHARACTERS_MAX 32 /* dedicated ones of one inference process */

enum part { GATEWAY = 1, PREPROCESS = 2, INFERENCE = 4, NOTIFIER = 8 };

static const struct role {
    const char *name;
    unsigned parts, wiring;
    enum wiring_mode mode;
    const char *help;
} roles[] = {
    {"up", GATEWAY | PREPROCESS | INFERENCE | NOTIFIER, WIRING_ALL, WIRING_ONE_PROCESS,
     "usage: troupe up\n\nRuns all roles in this process until SIGTERM or Ctrl-C. The keys are told by `troupe "
     "env`.\n"},
    {"gateway", GATEWAY, WIRING_STORES, WIRING_ROLE,
     "usage: troupe gateway\n\nHolds the clients' connections on TROUPE_LISTEN. Any number of them may run.\n"},
    {"preprocess", PREPROCESS, WIRING_STORES, WIRING_ROLE,
     "usage: troupe preprocess\n\nCleans messages and chooses the worker of each chat. Any number of them may run.\n"},
    {"inference", INFERENCE, WIRING_ALL, WIRING_ROLE,
     "usage: troupe inference [--character ID...]\n\nWrites the replies: for the characters named (up to 32), or, "
     "without "
     "one, for all that\nhave no worker of their own. Any number of them may run.\n"},
    {"notifier", NOTIFIER, WIRING_STORES, WIRING_ROLE,
     "usage: troupe notifier\n\nSends replies to the gateways that hold the chat's connections. Any number of them may "
     "run.\n"},
};

struct run {
    const struct role *role;
    struct wiring wiring;
    struct monitor *monitor;
    struct gateway *gateway;
    struct preprocess *preprocess;
    struct inference *inference[CHARACTERS_MAX];
    const char *character[CHARACTERS_MAX];
    size_t inferences, inferences_left;
    struct notifier *notifier;
    uv_signal_t term, interrupt;
    bool signals, draining, troubled;
    uint64_t drain_seconds;
    struct loop_timer *drain_limit, *trouble;
};

static enum tr_rc start_roles(struct run *u, struct tr_err *err)
{
    const struct role_env *const env = &u->wiring.env;
    struct await a = {.loop = u->wiring.loop};
    const unsigned parts = u->role->parts;
    enum tr_rc rc = TR_OK;

    if ((parts & NOTIFIER) != 0)
        rc = await(&a, notifier_start(env, await_done, &a, &u->notifier, err), err);
    for (size_t i = 0; rc == TR_OK && (parts & INFERENCE) != 0 && i < u->inferences; i++)
        rc = await(&a,
                   inference_start(env, u->wiring.engines, u->wiring.engines_n, u->character[i], await_done, &a,
                                   &u->inference[i], err),
                   err);
    if (rc == TR_OK && (parts & PREPROCESS) != 0)
        rc = await(&a, preprocess_start(env, await_done, &a, &u->preprocess, err), err);
    if (rc == TR_OK && (parts & GATEWAY) != 0)
        rc = await(&a, gateway_start(env, await_done, &a, &u->gateway, err), err);
    return rc;
}

/* ---- drain: each calls the next ---- */

static void on_stopped(void *ctx)
{
    struct run *u = ctx;

    loop_stop(u->wiring.loop);
}

static void on_preprocess_drained(void *ctx)
{
    struct run *u = ctx;

    if (u->notifier != NULL)
        notifier_drain(u->notifier, on_stopped, u);
    else
        on_stopped(u);
}

static void on_inference_drained(void *ctx)
{
    struct run *u = ctx;

    if (u->inferences_left > 0 && --u->inferences_left > 0)
        return;
    if (u->preprocess != NULL)
        preprocess_drain(u->preprocess, on_preprocess_drained, u);
    else
        on_preprocess_drained(u);
}

static void on_gateway_drained(void *ctx)
{
    struct run *u = ctx;

    u->inferences_left = 0;
    for (size_t i = 0; i < u->inferences; i++)
        u->inferences_left += u->inference[i] != NULL;
    if (u->inferences_left == 0)
        on_inference_drained(u);
    else
        for (size_t i = 0; i < u->inferences; i++)
            if (u->inference[i] != NULL)
                inference_drain(u->inference[i], on_inference_drained, u);
}

static void on_drain_limit(void *ctx)
{
    struct run *u = ctx;

    log_event(LOG_WARN, "run.drain_limit", "role=%s seconds=%lu", u->role->name, (unsigned long)u->drain_seconds);
    loop_stop(u->wiring.loop);
}

static void drain(struct run *u)
{
    u->draining = true;
    monitor_serving(u->monitor, false);
    if (timer_start(u->wiring.loop, u->drain_seconds * 1000 + 1000, 0, on_drain_limit, u, &u->drain_limit) != TR_OK)
        u->drain_limit = NULL;
    if (u->gateway != NULL)
        gateway_drain(u->gateway, on_gateway_drained, u);
    else
        on_gateway_drained(u);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct run *u = handle->data;

    if (u->draining) {
        log_event(LOG_WARN, "run.stop_now", "role=%s signal=%d", u->role->name, number);
        loop_stop(u->wiring.loop);
        return;
    }
    log_event(LOG_INFO, "run.drain", "role=%s signal=%d", u->role->name, number);
    drain(u);
}

/* A worker in trouble leaves, and its supervisor starts it anew (contract 3.5). */
static void on_trouble(void *ctx, const char *why)
{
    struct run *u = ctx;

    (void)why; /* it was logged */
    u->troubled = true;
    timer_again(u->trouble, 0); /* not from within what found it */
}

static void on_trouble_timer(void *ctx)
{
    struct run *u = ctx;

    if (u->troubled && !u->draining)
        drain(u);
}

static void start_signals(struct run *u)
{
    uv_loop_t *const uv = loop_uv(u->wiring.loop);

    uv_signal_init(uv, &u->term);
    uv_signal_init(uv, &u->interrupt);
    u->term.data = u->interrupt.data = u;
    uv_signal_start(&u->term, on_signal, SIGTERM);
    uv_signal_start(&u->interrupt, on_signal, SIGINT);
    u->signals = true;
}

static void run_release(struct run *u)
{
    timer_stop(u->drain_limit);
    timer_stop(u->trouble);
    if (u->signals) {
        uv_close((uv_handle_t *)&u->term, NULL);
        uv_close((uv_handle_t *)&u->interrupt, NULL);
    }
    gateway_free(u->gateway);
    preprocess_free(u->preprocess);
    for (size_t i = 0; i < u->inferences; i++)
        inference_free(u->inference[i]);
    notifier_free(u->notifier);
    monitor_free(u->monitor);
    wiring_release(&u->wiring);
}

static void tell_ready(const struct run *u)
{
    const char *const name = u->role->name;

    if (u->wiring.engines_n > 0) {
        const struct engine_info *const info = u->wiring.engines[0]->ops->info(u->wiring.engines[0]);

        log_event(LOG_INFO, "run.engine", "role=%s engine=%s model=%Q device=%Q slots=%u", name, info->engine,
                  info->model, info->device, (unsigned)info->slots);
    }
    if (u->gateway != NULL) {
        const char *const listen = config_str(u->wiring.env.config, "TROUPE_LISTEN");
        const char *const colon = strrchr(listen, ':');
        const int host = colon != NULL ? (int)(colon - listen) : 0;
        const unsigned port = gateway_port(u->gateway);

        log_event(LOG_INFO, "run.ready", "role=%s instance=%s port=%u pid=%d", name, u->wiring.instance, port,
                  (int)getpid());
        printf("Troupe %s%sis ready: http://%.*s:%u/\n", strcmp(name, "up") == 0 ? "" : name,
               strcmp(name, "up") == 0 ? "" : " ", host, listen, port);
    } else {
        log_event(LOG_INFO, "run.ready", "role=%s instance=%s pid=%d", name, u->wiring.instance, (int)getpid());
        printf("Troupe %s is ready\n", name);
    }
    fflush(stdout);
}

static enum tr_rc run(struct run *u, struct tr_err *err)
{
    const bool alone = u->role->mode == WIRING_ONE_PROCESS;
    enum tr_rc rc =
        monitor_start(&u->wiring.env, u->role->name, &u->monitor, err); /* first: /readyz says who is awaited */

    if (rc == TR_OK) {
        u->wiring.env.watch = monitor_watch(u->monitor);
        rc = boot_wait(&u->wiring, 0, err);
    }
    if (rc == TR_OK)
        rc = boot_master_key(&u->wiring, alone, err);
    if (rc == TR_OK && alone)
        rc = shipped_characters(&u->wiring, err);
    if (rc == TR_OK)
        rc = start_roles(u, err);
    if (rc != TR_OK)
        return rc;
    start_signals(u);
    monitor_serving(u->monitor, true);
    if (!alone && timer_start(u->wiring.loop, UINT32_MAX, 0, on_trouble_timer, u, &u->trouble) == TR_OK)
        for (size_t i = 0; i < u->inferences; i++)
            if (u->inference[i] != NULL)
                inference_on_trouble(u->inference[i], on_trouble, u);
    tell_ready(u);
    loop_run(u->wiring.loop);
    log_event(LOG_INFO, "run.stopped", "role=%s pid=%d", u->role->name, (int)getpid());
    return u->troubled ? tr_fail(err, TR_TRANSIENT, "left because of trouble; start it anew") : TR_OK;
}

/* What follows the command's name.  EXIT_DONE: go on; else the exit status, and it was told why. */
static int parse(struct run *u, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        const bool character = u->role->parts == INFERENCE && strcmp(argv[i], "--character") == 0;

        if (!character) {
            fprintf(stderr, "troupe %s: takes no '%.40s'\n\n%s", u->role->name, argv[i], u->role->help);
            return EXIT_USAGE;
        }
        if (i + 1 == argc || strncmp(argv[i + 1], "--", 2) == 0) {
            fprintf(stderr, "troupe inference: --character: an id is missing\n");
            return EXIT_USAGE;
        }
        while (i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0) {
            const char *const id = argv[++i];

            if (!character_id_valid(id, strlen(id))) {
                fprintf(stderr,
                        "troupe inference: --character: '%.70s' is no character's id (1 to 64 of a-z, 0-9 and '-')\n",
                        id);
                return EXIT_USAGE;
            }
            for (size_t k = 0; k < u->inferences; k++)
                if (strcmp(u->character[k], id) == 0) {
                    fprintf(stderr, "troupe inference: --character: '%s' is named twice\n", id);
                    return EXIT_USAGE;
                }
            if (u->inferences == CHARACTERS_MAX) {
                fprintf(stderr, "troupe inference: --character: more than %d of them\n", CHARACTERS_MAX);
                return EXIT_USAGE;
            }
            u->character[u->inferences++] = id;
        }
    }
    if (u->inferences == 0)
        u->character[u->inferences++] = "any";
    return EXIT_DONE;
}

static int command_run(const struct role *role, const struct config *config, int argc, char **argv)
{
    struct run *u;
    struct tr_err err = {0};
    enum tr_rc rc;
    int status;

    if (argc == 1 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        fputs(role->help, stdout);
        return EXIT_DONE;
    }
    mallopt(M_ARENA_MAX, 2); /* few threads allocate; ten thousand connections must stay small */
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return EXIT_FAILED;
    u->role = role;
    status = parse(u, argc, argv);
    if (status == EXIT_DONE) {
        rc = config_u64(config, "TROUPE_DRAIN_SECONDS", &u->drain_seconds, &err);
        if (rc != TR_OK) {
            status = EXIT_USAGE;
        } else {
            rc = wiring_open(config, role->wiring, role->mode, &u->wiring, &err);
            if (rc == TR_OK) {
                rc = run(u, &err);
                run_release(u);
            }
            status = rc == TR_OK ? EXIT_DONE : EXIT_FAILED;
        }
        if (rc != TR_OK)
            fprintf(stderr, "troupe %s: %s\n", role->name, tr_err_text(&err));
    }
    free(u);
    return status;
}

int command_up(const struct config *config, int argc, char **argv)
{
    return command_run(&roles[0], config, argc, argv);
}

int command_gateway(const struct config *config, int argc, char **argv)
{
    return command_run(&roles[1], config, argc, argv);
}

int command_preprocess(const struct config *config, int argc, char **argv)
{
    return command_run(&roles[2], config, argc, argv);
}

int command_inference(const struct config *config, int argc, char **argv)
{
    return command_run(&roles[3], config, argc, argv);
}

int command_notifier(const struct config *config, int argc, char **argv)
{
    return command_run(&roles[4], config, argc, argv);
}
