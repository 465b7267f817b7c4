/* broker_flood - many publishes at once, and a consumer that takes them all; for the tests of the real broker. */
#ifndef TESTS_CONTRACT_BROKER_FLOOD_H
#define TESTS_CONTRACT_BROKER_FLOOD_H

#include "queue_fixture.h"

/* Many publishes whose ends are counted by sort. */
struct flood {
    size_t ended, by_rc[TR_RC_COUNT];
};

/* Publish the numbers from … from + n - 1 to "a", not waited for. */
void flood(struct bench *b, struct flood *f, size_t from, size_t n);

/* Takes everything and notes which numbers it saw. */
struct reader {
    struct bench *b;
    struct queue_consumer *c;
    bool *seen;
    size_t max, distinct, n, gaps;
};

/* Of "a"; free(r->seen) at the end. */
void reader_start(struct reader *r, struct bench *b, size_t max);

#endif
