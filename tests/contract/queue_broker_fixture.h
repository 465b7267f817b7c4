/* queue_broker_fixture - RabbitMQ for the queue's suites: a `place` is a prefix of names, and the dead letters are looked into. */
#ifndef TESTS_CONTRACT_QUEUE_BROKER_FIXTURE_H
#define TESTS_CONTRACT_QUEUE_BROKER_FIXTURE_H

#include "port/queue.h"

/* The place's prefix of names on the broker: new for every run of the program. */
void broker_prefix(const char *place, char out[64]);
enum tr_rc broker_open(struct loop *loop, const char *place, struct queue **ret_queue, struct tr_err *err);
size_t broker_dead(const char *place, const char *cause);
/* By a bare connection: a quorum queue with nothing but the delivery limit, as a first version of the adapter made it. */
void broker_declare_old(const char *place, const char *queue);
/* By a bare connection: take the queue's message and give it back, so many times. */
void broker_give_back(const char *place, const char *queue, size_t times);
/* By a bare connection: n confirmed publishes of `size` bytes, at most `window` of them unconfirmed. */
void broker_publish_bare(const char *place, const char *queue, size_t n, size_t window, size_t size);

#endif
