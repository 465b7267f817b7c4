/* broker_cut - tests of the real broker: connections that are cut, what it refuses, what it forgets; rows of broker.c. */
#ifndef TESTS_CONTRACT_BROKER_CUT_H
#define TESTS_CONTRACT_BROKER_CUT_H

void cut_connection(void **state);
void cut_swallowed(void **state);
void cut_bounded(void **state);
void cut_settles_nothing(void **state);
void cut_copy_refused(void **state);
void cut_copy_unconfirmed(void **state);
void cut_backstop(void **state);
void cut_upgrade(void **state);
void cut_young(void **state);
void cut_throughput(void **state);

#endif
