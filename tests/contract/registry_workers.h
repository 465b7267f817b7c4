/* registry_workers - what the registry says of workers: rows of registry.c. */
#ifndef TESTS_CONTRACT_REGISTRY_WORKERS_H
#define TESTS_CONTRACT_REGISTRY_WORKERS_H

void registry_workers_numbers(void **state);
void registry_workers_wishes(void **state);
void registry_workers_wishes_meet(void **state);
void registry_workers_ttl(void **state);
void registry_workers_ages(void **state);
void registry_workers_leaves(void **state);

#endif
