/*
 * gateway - see DESIGN.md, "A message's way".
 */
#ifndef ROLE_GATEWAY_H
#define ROLE_GATEWAY_H

#include "role/common/role.h"

struct gateway;

/* Start; everything it needs is declared and consumed when `started` is called (once, later). */
typedef void gateway_started(void *ctx, enum tr_rc rc, const struct tr_err *err);
enum tr_rc gateway_start(const struct role_env *env, gateway_started *started, void *ctx, struct gateway **ret_gateway,
                         struct tr_err *err) TR_MUST_CHECK;
/* Take no new work, finish or hand back what is held within the drain time, then call back once. */
void gateway_drain(struct gateway *r, void (*drained)(void *ctx), void *ctx);
/* Stop at once; what is in hand comes again.  NULL is fine. */
void gateway_free(struct gateway *r);

/* The port it listens on (of use with port 0). */
uint16_t gateway_port(const struct gateway *r);

#endif
