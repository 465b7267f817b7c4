/* redis_full - memory and eviction of a real Redis: rows of redis.c. */
#ifndef TESTS_CONTRACT_REDIS_FULL_H
#define TESTS_CONTRACT_REDIS_FULL_H

void redis_full_serves(void **state);
void redis_full_evicts(void **state);
void redis_full_ended_go(void **state);

#endif
