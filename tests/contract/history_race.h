/* history_race - see history_race.c; rows of history.c. */
#ifndef TESTS_CONTRACT_HISTORY_RACE_H
#define TESTS_CONTRACT_HISTORY_RACE_H

void history_race_accept(void **state);
void history_race_append(void **state);

#endif
