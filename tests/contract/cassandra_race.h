/* cassandra_race - two adapters at one server: tests of cassandra.c that are about who wins. */
#ifndef TESTS_CONTRACT_CASSANDRA_RACE_H
#define TESTS_CONTRACT_CASSANDRA_RACE_H

#include "history_fixture.h"

/* Another adapter on the same loop. */
struct store *store_beside(struct store *s);
void store_beside_free(struct store *t);

extern const struct CMUnitTest cassandra_race_tests[];
extern const size_t cassandra_race_tests_n;

#endif
