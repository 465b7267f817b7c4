/* keyfile - the master key's file: read it, or make it on the first start (contract 4). */
#ifndef KEYFILE_H
#define KEYFILE_H

#include "domain/seal.h"

/*
 * Read `path`; where it is missing and `may_make` is true, make it (mode 0600, synced before it is used).
 *   TR_INVALID    not a key file, or readable by others: the err says what to do
 *   TR_NOT_FOUND  missing and may_make is false
 */
enum tr_rc keyfile_load(const char *path, bool may_make, struct seal_master **ret_master,
                        struct tr_err *err) TR_MUST_CHECK;

#endif
