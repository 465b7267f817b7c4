#!/bin/bash
# primary.sh: run once by the postgres image when the primary's database is made: a user for the replica.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set password `cat "${SECRETS:-/secrets}/replication_password"`
CREATE ROLE replication WITH REPLICATION LOGIN PASSWORD :'password';
SELECT pg_create_physical_replication_slot('replica');
SQL
echo "host replication replication all scram-sha-256" >>"$PGDATA/pg_hba.conf"
