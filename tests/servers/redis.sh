#!/usr/bin/env bash
# redis.sh: Redis on loopback (Debian's redis-server), with a password; see lib.sh.  It saves on SIGTERM, not on SIGKILL.
. "$(dirname "$0")/lib.sh"

install_it() { command -v redis-server >/dev/null || fail "Debian's redis-server is missing: scripts/packages.sh test"; }

start_it() { # DIR
    local dir port
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    [ -f "$dir/port" ] || free_ports 1 >"$dir/port"
    port=$(cat "$dir/port")
    if ! running "$dir/1.pid"; then
        cat >"$dir/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $dir
requirepass tr-secret
save ""
loglevel warning
maxclients 15000
CONF
        setsid redis-server "$dir/redis.conf" >"$dir/log" 2>&1 </dev/null &
        echo $! >"$dir/1.pid"
    fi
    wait_for 20 Redis port_open "$port"
    cat >"$dir/env" <<ENV
TROUPE_TEST_REDIS=redis://:tr-secret@127.0.0.1:$port/0
TROUPE_TEST_REDIS_DIR=$dir
TROUPE_TEST_SERVERS=$top/tests/servers
ENV
}

case $1 in
cli) exec redis-cli -p "$(cat "$2/port")" --no-auth-warning -a tr-secret "${@:3}" ;; # DIR ARGS…
*) dispatch "$@" ;;
esac
