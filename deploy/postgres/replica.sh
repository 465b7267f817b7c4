#!/bin/bash
# replica.sh: the start of the replica: a copy of the primary the first time, then a hot standby of it.
set -eu
primary=${PRIMARY:-postgres} port=${PRIMARY_PORT:-5432}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    find "$PGDATA" -mindepth 1 -delete # what an earlier try may have left
    # -R puts the connection's settings, the password among them, into the copy
    PGPASSWORD=$(cat "${SECRETS:-/secrets}/replication_password") \
        pg_basebackup -h "$primary" -p "$port" -U replication -D "$PGDATA" -R -X stream -S replica -c fast
    chmod 700 "$PGDATA"
fi
exec postgres -c hot_standby=on "$@"
