/*
 * redis_server - a Redis that misbehaves as a test tells it: on the test's own loop, answering `fake.answer` to what is no greeting.
 * Include after <cmocka.h> and what that needs.
 */
#ifndef TESTS_REDIS_SERVER_H
#define TESTS_REDIS_SERVER_H

#include "base/buf.h"
#include "base/loop.h"

#include <uv.h>

enum then { THEN_STAY, THEN_CLOSE };
struct answer {
    const char *bytes; /* NULL: none at all */
    size_t len;
    enum then then;
};

struct fake_peer; /* a connection */

struct fake_redis {
    uv_tcp_t tcp;
    int port;
    struct fake_peer *peers;
    size_t connections;
    size_t refused_greetings; /* so many connections get `greeting` for an answer to all of it */
    struct answer greeting;
    bool greeting_once;   /* … to the first word of it alone */
    struct answer answer; /* to what is no greeting … */
    size_t answers_max;   /* … so many times; after that the answer is `after` */
    struct answer after;
    size_t asked;
    size_t silent; /* so many connections get no answer to what is no greeting */
};
extern struct fake_redis fake;

#define RAW(s)                                                                                                         \
    {                                                                                                                  \
        (s), sizeof(s) - 1, THEN_STAY                                                                                  \
    }
#define CUT(s)                                                                                                         \
    {                                                                                                                  \
        (s), sizeof(s) - 1, THEN_CLOSE                                                                                 \
    }
extern const struct answer silence;

/* Listens at fake.port of 127.0.0.1, answering as to a put to everything; fails the test by itself. */
void fake_start(struct loop *loop);
void fake_stop(void); /* run the loop once after it */

#endif
