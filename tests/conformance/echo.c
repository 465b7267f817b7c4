/*
 * echo - the gateway's transport (conn, http, frame, ws) with an echo where protocol.c stands in the program, for a
 * tester that speaks WebSocket but not troupe.v1.  Prints "port N"; SIGTERM drains and ends it.
 */
#include "base/config.h"
#include "domain/seal.h"
#include "role/gateway/gateway.h"
#include "role/gateway/protocol.h"
#include "tests/unit/role/fake_desk.h"

#include <signal.h>
#include <stdio.h>
#include <uv.h>

struct echo {
    struct role_env env;
    struct gateway *gateway;
    struct loop_call answer; /* what was asked of the desk */
    uv_signal_t term;
    enum tr_rc started;
};

/* ---- instead of protocol.c ---- */

const struct desk_events protocol_events = {0};

void protocol_release(struct protocol *p)
{
    buf_release(&p->scratch);
}

void protocol_message(struct peer *peer, const char *text, size_t len)
{
    struct protocol *p = peer->protocol;

    buf_clear(&p->scratch);
    if (buf_reserve(&p->scratch, p->headroom + len) != NULL)
        p->scratch.len = p->headroom;
    buf_add(&p->scratch, text, len);
    p->send(peer, &p->scratch);
}

void protocol_delta(struct peer *peer, const struct peer_delta *delta)
{
    (void)peer;
    (void)delta;
}

void peer_release(struct peer *peer)
{
    (void)peer;
}

/* ---- its life ---- */

static void on_answer(struct loop_call *call)
{
    (void)call;
    fake_desk_answer();
}

static void on_asked(void *ctx)
{
    struct echo *e = ctx;

    loop_defer(e->env.loop, &e->answer);
}

static void on_started(void *ctx, enum tr_rc rc, const struct tr_err *err)
{
    struct echo *e = ctx;

    e->started = rc;
    if (rc != TR_OK) {
        fprintf(stderr, "echo: %s\n", err->msg);
        loop_stop(e->env.loop);
        return;
    }
    printf("port %u\n", gateway_port(e->gateway));
    fflush(stdout);
}

static void on_drained(void *ctx)
{
    struct echo *e = ctx;

    loop_stop(e->env.loop);
}

static void on_term(uv_signal_t *handle, int number)
{
    struct echo *e = handle->data;

    (void)number;
    uv_close((uv_handle_t *)&e->term, NULL);
    gateway_drain(e->gateway, on_drained, e);
}

static enum tr_rc open_env(struct echo *e, struct config **ret_config, struct seal_master **ret_master,
                           struct tr_err *err)
{
    struct buf key = {0};
    enum tr_rc rc;

    rc = seal_init(err);
    if (rc == TR_OK)
        rc = loop_new(&e->env.loop, err);
    if (rc == TR_OK)
        rc = config_load("/dev/null", ret_config, err);
    if (rc == TR_OK)
        rc = seal_master_generate(&key);
    if (rc == TR_OK)
        rc = seal_master_parse((const char *)key.data, key.len, ret_master, err);
    buf_wipe(&key);
    e->env.config = *ret_config;
    e->env.master = *ret_master;
    e->env.instance = "echo";
    return rc;
}

int main(void)
{
    struct echo e = {.answer.fn = on_answer};
    struct config *config = NULL;
    struct seal_master *master = NULL;
    struct tr_err err = {0};
    enum tr_rc rc = open_env(&e, &config, &master, &err);

    fake_desk.on_call = on_asked;
    fake_desk.ctx = &e;
    if (rc == TR_OK)
        rc = gateway_start(&e.env, on_started, &e, &e.gateway, &err);
    if (rc == TR_OK) {
        uv_signal_init(loop_uv(e.env.loop), &e.term);
        e.term.data = &e;
        uv_signal_start(&e.term, on_term, SIGTERM);
        loop_run(e.env.loop);
        rc = e.started;
    } else {
        fprintf(stderr, "echo: %s\n", err.msg);
    }
    gateway_free(e.gateway);
    if (e.env.loop != NULL)
        loop_drain(e.env.loop);
    loop_free(e.env.loop);
    seal_master_free(master);
    config_free(config);
    return rc == TR_OK ? 0 : 1;
}
