#!/usr/bin/env bash
# postgres.sh: PostgreSQL on loopback (Debian's postgresql), with passwords (scram-sha-256); see lib.sh.
# `start DIR 2` is a primary (node 1) and a streaming replica (node 2); `promote DIR 2` makes the replica a primary, whatever
# node 1 does.  `follow DIR N OF` makes node N (1 to 3), whatever it was, a new replica of node OF.
# Not as root: where the tests run as root, the servers run as the user `postgres`.
. "$(dirname "$0")/lib.sh"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)

install_it() { [ -x "$bin/initdb" ] || fail "Debian's postgresql is missing: scripts/packages.sh test"; }

as_server() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

make_primary() { # DIR PORT
    local data=$1/n1
    echo tr-secret >"$1/password"
    chmod 644 "$1/password"
    as_server "$bin/initdb" -D "$data" -U troupe -A scram-sha-256 --pwfile "$1/password" -E UTF8 --locale C.UTF-8 >"$1/initdb.log" 2>&1
    rm "$1/password"
    as_server tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $2
unix_socket_directories = ''
max_connections = 60
shared_buffers = 32MB
wal_level = replica
max_wal_senders = 5
wal_keep_size = 64MB
hot_standby = on
log_min_messages = warning
CONF
    echo "host replication troupe 127.0.0.1/32 scram-sha-256" | as_server tee -a "$data/pg_hba.conf" >/dev/null
}

start_node() { # DIR NODE
    if running "$1/$2.pid"; then return 0; fi
    as_server rm -f "$1/n$2/postmaster.pid"
    as_server sh -c "exec setsid '$bin/postgres' -D '$1/n$2' >>'$1/n$2.log' 2>&1 </dev/null & echo \$!" >"$1/$2.pid"
}
answers() { PGPASSWORD=tr-secret "$bin/psql" -qAtc 'SELECT 1' "host=127.0.0.1 port=$1 user=troupe dbname=$2" >/dev/null 2>&1; }

make_replica() { # DIR NODE OF
    local ports
    read -ra ports <"$1/ports"
    as_server env PGPASSWORD=tr-secret "$bin/pg_basebackup" -h 127.0.0.1 -p "${ports[$3 - 1]}" -U troupe -D "$1/n$2" -R -X stream -c fast
    as_server sed -i "s/^port = .*/port = ${ports[$2 - 1]}/" "$1/n$2/postgresql.conf"
}

start_it() { # DIR [NODES]
    local dir ports nodes
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    [ "$(id -u)" -ne 0 ] || chown postgres "$dir"
    [ -f "$dir/nodes" ] || echo "${2:-1}" >"$dir/nodes"
    nodes=$(cat "$dir/nodes")
    [ -f "$dir/ports" ] || free_ports 3 >"$dir/ports"
    read -ra ports <"$dir/ports"
    [ -d "$dir/n1" ] || make_primary "$dir" "${ports[0]}"
    start_node "$dir" 1
    wait_for 30 PostgreSQL answers "${ports[0]}" postgres
    answers "${ports[0]}" troupe ||
        PGPASSWORD=tr-secret "$bin/psql" -qc 'CREATE DATABASE troupe' "host=127.0.0.1 port=${ports[0]} user=troupe dbname=postgres"
    if [ "$nodes" -eq 2 ]; then
        [ -d "$dir/n2" ] || make_replica "$dir" 2 1
        start_node "$dir" 2
        wait_for 30 "PostgreSQL's replica" answers "${ports[1]}" troupe
    fi
    {
        echo "TROUPE_TEST_PG=postgresql://troupe:tr-secret@127.0.0.1:${ports[0]}$([ "$nodes" -eq 2 ] && echo ",127.0.0.1:${ports[1]}")/troupe"
        echo "TROUPE_TEST_PG_DIR=$dir"
        echo "TROUPE_TEST_SERVERS=$top/tests/servers"
    } >"$dir/env"
}

# A node is a process a connection: a stall or a kill is one of all of them.
signal_family() { # SIGNAL DIR [NODE]
    local f pid
    for f in $(each_node "$2" "${3:-}"); do
        pid=$(cat "$f")
        # shellcheck disable=SC2046
        kill -"$1" "$pid" $(pgrep -P "$pid" || true) 2>/dev/null || true
    done
}

case $1 in
kill)
    signal_family KILL "${@:2}"
    await_end "${@:2}"
    ;;
pause) signal_family STOP "${@:2}" ;;
resume) signal_family CONT "${@:2}" ;;
promote) # DIR NODE
    as_server "$bin/pg_ctl" promote -w -D "$2/n$3" >/dev/null
    ;;
follow) # DIR NODE OF
    if [ -f "$2/$3.pid" ]; then
        signal_family KILL "$2" "$3"
        await_end "$2" "$3"
    fi
    rm -rf "$2/n$3"
    make_replica "$2" "$3" "$4"
    start_node "$2" "$3"
    read -ra ports <"$2/ports"
    wait_for 30 "PostgreSQL's replica" answers "${ports[$3 - 1]}" troupe
    ;;
sql) # DIR NODE DATABASE SQL
    read -ra ports <"$2/ports"
    PGPASSWORD=tr-secret exec "$bin/psql" -qAt "host=127.0.0.1 port=${ports[$3 - 1]} user=troupe dbname=$4" -c "$5"
    ;;
stop) # SIGINT is a fast end; SIGTERM waits for the clients
    signal_family CONT "${@:2}"
    signal_nodes INT "${@:2}"
    await_end "${@:2}"
    ;;
*) dispatch "$@" ;;
esac
