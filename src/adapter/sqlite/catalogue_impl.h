/*
 * catalogue_impl - what the files of the SQLite catalogue share; nobody else includes it.
 *   catalogue.c      the port's side, on the loop, and a batch's transaction
 *   catalogue_run.c  the schema, the statements, and what each job does on the thread
 */
#ifndef ADAPTER_SQLITE_CATALOGUE_IMPL_H
#define ADAPTER_SQLITE_CATALOGUE_IMPL_H

#include "adapter/sqlite/db.h"
#include "base/offload.h"
#include "port/catalogue.h"

/* Indexes of catalogue_sql[]. */
enum catalogue_stmt {
    ST_CHARACTER_PUT,
    ST_CHARACTER_ADD,
    ST_CHARACTER_SAME,
    ST_CHARACTER,
    ST_CHARACTERS,
    ST_CHARACTER_REMOVE,
    ST_USER_PUT,
    ST_SETTING_PUT,
    ST_SETTING,
    ST_SETTINGS,
    ST_SETTING_REMOVE,
    ST_COUNT
};
extern const char *const catalogue_sql[ST_COUNT];
extern const char catalogue_schema[];

struct catalogue_job {
    struct offload_job base;
    struct sqlite_catalogue *owner;
    struct catalogue_job *next, *prev; /* all that are under way, for close */
    enum tr_rc (*run)(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err);
    union {
        catalogue_done *plain;
        catalogue_character_done *character;
        catalogue_characters_done *characters;
        catalogue_setting_done *setting;
        catalogue_keys_done *keys;
    } cb;
    void *ctx;

    struct catalogue_character in; /* its texts are in in_block, owned */
    char *in_block;
    bool replace;
    struct uuid user;
    uint64_t created_ms;
    char *key, *value; /* owned; value: in and out */

    bool mine;
    struct catalogue_character *list; /* owned; list[i]'s texts are in blocks[i] */
    char **blocks;
    size_t n, cap;
    char **keys; /* owned, each too */
    size_t keys_n;
};

struct sqlite_catalogue {
    struct catalogue base;
    struct db *db;       /* the thread's */
    struct tr_err cause; /* the thread's: rc != TR_OK: this batch is lost */
    struct offload *thread;
    struct catalogue_job *jobs;
    bool closing;
};

/* Copy a character and all its texts into one block, *ret_block, owned.  TR_OK or TR_NOMEM. */
enum tr_rc catalogue_character_copy(const struct catalogue_character *from, struct catalogue_character *ret_to,
                                    char **ret_block, struct tr_err *err) TR_MUST_CHECK;

typedef enum tr_rc catalogue_run(struct sqlite_catalogue *c, struct catalogue_job *job, struct tr_err *err);
catalogue_run catalogue_run_character_put, catalogue_run_character_get, catalogue_run_characters,
    catalogue_run_character_remove, catalogue_run_user_put, catalogue_run_setting_get, catalogue_run_setting_put,
    catalogue_run_settings, catalogue_run_setting_remove;

#endif
