/* postgres_timeline - two primaries at once, and servers that are none of ours; rows of postgres.c, in this order. */
#ifndef TESTS_CONTRACT_POSTGRES_TIMELINE_H
#define TESTS_CONTRACT_POSTGRES_TIMELINE_H

/* Node 2 was promoted while node 1 was dead.  These begin where the one before ended. */
void timeline_old_one_comes_back(void **state);
void timeline_old_one_answers_first(void **state);
void timeline_only_the_old_one(void **state);
void timeline_replica_of_the_old_one(void **state);
void timeline_promoted_beside(void **state);
void timeline_answered_by_the_old_one(void **state);
void timeline_twins(void **state);
void timeline_foreign(void **state);

#endif
