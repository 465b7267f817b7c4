/*
 * broker_proxy - a TCP proxy before the broker, in a thread of the test: it cuts, swallows or refuses on demand.
 * Threads: everything here from the test's thread.
 */
#ifndef TESTS_CONTRACT_BROKER_PROXY_H
#define TESTS_CONTRACT_BROKER_PROXY_H

#include <stdint.h>

struct broker_proxy;

enum proxy_mode {
    PROXY_PASS,
    PROXY_CUT,         /* connections are reset, new ones at once */
    PROXY_SWALLOW,     /* connections stay, nothing goes through: a partition */
    PROXY_UNCONFIRMED, /* all goes through but the broker's confirmations; refusals do */
};

/* To this port of 127.0.0.1; owned: broker_proxy_free().  Fails the test if it can't. */
struct broker_proxy *broker_proxy_new(uint16_t to_port);
void broker_proxy_free(struct broker_proxy *p);
uint16_t broker_proxy_port(const struct broker_proxy *p);
/* Has taken hold when it returns. */
void broker_proxy_set(struct broker_proxy *p, enum proxy_mode mode);

#endif
