/*
 * config - the keys of the environment and of `.env` in the working directory (contract 4); a variable that is set
 * wins over the file.  Any KEY may be given as KEY_FILE instead: its value is then the one line of the file of that
 * name, read once here.  The table of keys, with defaults and a comment each, is in config.c: `.env.example` is
 * printed from it, and a key that starts with TROUPE_ and is not in it is an error that names the nearest one.  A number is
 * looked at when it is loaded, so that no role starts with one that another would refuse.
 */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include "base/result.h"

struct config;

/* Read `.env` (if there is one at `path`), the environment, and what KEY_FILEs name.  TR_INVALID names file, line and key. */
enum tr_rc config_load(const char *path, struct config **ret_config, struct tr_err *err) TR_MUST_CHECK;
void config_free(struct config *config);

/* The value or the key's default (may be ""); asking for a key that is not in the table is our own mistake. Borrowed. */
const char *config_str(const struct config *config, const char *key);
bool config_is_set(const struct config *config, const char *key);
/* A whole number in the key's range; TR_INVALID names the key, the value and the range (config_load() has seen to it). */
enum tr_rc config_u64(const struct config *config, const char *key, uint64_t *ret_value,
                      struct tr_err *err) TR_MUST_CHECK;
/* Write `.env.example` to a stream (FILE *). */
void config_print_example(void *file);

#endif
