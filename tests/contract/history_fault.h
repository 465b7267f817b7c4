/* history_fault - the tests of history_fault.c, run by history.c's main. */
#ifndef TESTS_CONTRACT_HISTORY_FAULT_H
#define TESTS_CONTRACT_HISTORY_FAULT_H

#include "history_fixture.h"

extern const struct CMUnitTest history_fault_tests[];
extern const size_t history_fault_tests_n;
extern const struct CMUnitTest history_file_tests[]; /* of those that keep a file of ours */
extern const size_t history_file_tests_n;

#endif
