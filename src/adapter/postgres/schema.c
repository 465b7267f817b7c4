/*
 * schema - the schema, step by step; `init` runs all of them in one transaction under an advisory lock, and each does
 * nothing where it was done before (schema_version).  A step that has been released is never changed: add the next one.
 */
#include "adapter/postgres/impl.h"

#define STEP(version, ddl)                                                                                             \
    "DO $step$ BEGIN"                                                                                                  \
    " IF NOT EXISTS (SELECT 1 FROM schema_version WHERE version >= " #version ") THEN " ddl                            \
    " INSERT INTO schema_version (version) VALUES (" #version "); END IF; END $step$"

#define TEXT_OF(x) #x
#define NEWER_THAN(version)                                                                                            \
    "DO $newer$ BEGIN IF EXISTS (SELECT 1 FROM schema_version WHERE version > " TEXT_OF(                               \
        version) ") THEN"                                                                                              \
                 " RAISE EXCEPTION 'the schema is of a newer version than this build: run the newer build'; END IF; "  \
                 "END $newer$"

const char pg_not_newer[] = NEWER_THAN(PG_SCHEMA_VERSION);

const char *const pg_steps[PG_SCHEMA_VERSION] = {
    STEP(1, "CREATE TABLE characters ("
            "  id text PRIMARY KEY, name text NOT NULL, tagline text NOT NULL, avatar_type text NOT NULL,"
            "  updated bigint NOT NULL, card bytea NOT NULL, avatar bytea NOT NULL);"
            " CREATE TABLE users (id uuid PRIMARY KEY, created bigint NOT NULL);"
            " CREATE TABLE settings (key text PRIMARY KEY, value text NOT NULL);"),
};
