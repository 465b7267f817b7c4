/* cassandra_half - a conditional write that only one of three nodes has: a test of cassandra.c. */
#ifndef TESTS_CONTRACT_CASSANDRA_HALF_H
#define TESTS_CONTRACT_CASSANDRA_HALF_H

void test_half_commit(void **state);

#endif
