/* cassandra_gone - deletions that are cut off on the way: tests of cassandra.c. */
#ifndef TESTS_CONTRACT_CASSANDRA_GONE_H
#define TESTS_CONTRACT_CASSANDRA_GONE_H

#include "history_fixture.h"

extern const struct CMUnitTest cassandra_gone_tests[];
extern const size_t cassandra_gone_tests_n;

#endif
