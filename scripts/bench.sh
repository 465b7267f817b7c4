#!/usr/bin/env bash
# bench.sh [turns] [connections] [routing] [llm] [servers]: the figures of bench/RESULTS.md, each beside its peer in the same run, as Markdown.
. "$(dirname "$0")/common.sh"
cd "$top"
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(turns connections routing llm servers)
gcc -O2 -D_GNU_SOURCE -Wall -Wextra -o build/load bench/load.c bench/cpu.c
folder=$(mktemp -d "$deps/bench.XXXX")
pids=()
stop_all() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || true; done; pids=(); }
trap 'stop_all; rm -rf "$folder"' EXIT
rounds=${ROUNDS:-3}
field() { sed "s/.*\b$1=\([^ ]*\).*/\1/" <<<"$2"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
column() { awk -v n="$2" '{ print $n }' "$1" | median; } # the median of a file's column

start_troupe() { # sets url and pid
    rm -rf "$folder/data" "$folder/out"
    (cd "$folder" && TROUPE_LISTEN=127.0.0.1:0 TROUPE_ENGINE="$1" TROUPE_RATE_USER=0 TROUPE_RATE_ADDRESS=0 TROUPE_LOG_LEVEL=warn \
        TROUPE_MASTER_KEY_FILE="data/master.key" exec "$top/build/src/troupe" up >"$folder/out" 2>"$folder/log") &
    pid=$!
    pids+=("$pid")
    for _ in $(seq 100); do grep -q ready "$folder/out" 2>/dev/null && break; sleep 0.1; done
    url=$(sed -n 's/.*http:\/\/\([^ /]*\).*/\1/p' "$folder/out")
    [ -n "$url" ] || { cat "$folder/log" >&2; die "troupe did not start"; }
}

# One round: the limit, then the turns, the limit again: both see the same machine.
turns_round() { # CHATS RATE FILE
    local before after got limit
    start_troupe "stub:"
    before=$(build/load syncs "$folder" 4 1000)
    # shellcheck disable=SC2086
    got=$(build/load turns "$url" "$1" 5 "$pid" $2)
    after=$(build/load syncs "$folder" 4 1000)
    stop_all
    limit=$(awk -v a="$(field p50_us "$before")" -v b="$(field p50_us "$after")" 'BEGIN { printf "%.0f", (a + b) / 2 }')
    echo "$(field turns_per_s "$got") $(field p50_us "$got") $(field p99_us "$got") $(field cpu_us_per_turn "$got") $limit" \
        "$(field p99_us "$before") $(ratio "$(field p50_us "$got")" "$limit")" >>"$3"
}

bench_turns() {
    local name
    for _ in $(seq "$rounds"); do
        turns_round 1 "" "$folder/turns.1"
        turns_round 64 2000 "$folder/turns.paced"
        turns_round 64 "" "$folder/turns.64"
    done
    echo "### A durable turn through all roles (stub engine)"
    echo
    echo "Medians of $rounds interleaved rounds; the limit is 4 serial write + fdatasync, measured before and after each."
    echo
    echo "| chats at once | turns/s | p50 | p99 | CPU a turn | limit p50 / p99 | p50 / limit (each round) |"
    echo "|---|---|---|---|---|---|---|"
    for name in 1 paced 64; do
        local f=$folder/turns.$name what="$name, each as fast as it can"
        [ "$name" = paced ] && what="64, 2,000 turns/s together"
        echo "| $what | $(column "$f" 1) | $(column "$f" 2) µs | $(column "$f" 3) µs | $(column "$f" 4) µs |" \
            "$(column "$f" 5) / $(column "$f" 6) µs | $(column "$f" 7) ($(awk '{ printf "%s%s", sep, $7; sep = ", " }' "$f")) |"
    done
    echo
}

start_server() { # sets url, pid and plain
    local port
    plain=plain
    : >"$folder/out"
    case $1 in
    troupe)
        start_troupe "stub:"
        plain=
        ;;
    ws)
        node bench/peer/ws_echo.mjs >"$folder/out" &
        pid=$!
        ;;
    uWebSockets)
        port=$((20000 + RANDOM % 10000))
        "$deps/bench-python/bin/python" bench/peer/uws_echo.py $port >"$folder/out" &
        pid=$!
        ;;
    esac
    [ "$1" = troupe ] && return
    pids+=("$pid")
    url=
    for _ in $(seq 100); do
        url=127.0.0.1:$(tail -n 1 "$folder/out")
        [ "$url" != 127.0.0.1: ] && break
        sleep 0.1
    done
    [ "$url" != 127.0.0.1: ] || die "$1 did not start"
}

bench_connections() {
    local n=${CONNECTIONS:-9500} idle messages server p k
    bench_python socketify==0.0.31
    (cd bench/peer && { [ -d node_modules/ws ] || npm ci --no-audit --no-fund >/dev/null; })
    for _ in $(seq "$rounds"); do
        for server in troupe ws uWebSockets; do
            start_server $server
            # shellcheck disable=SC2086
            idle=$(build/load idle "$url" "$n" "$pid" $plain)
            stop_all
            start_server $server
            # shellcheck disable=SC2086
            messages=$(build/load echo "$url" 64 100000 "$pid" $plain)
            stop_all
            p=$(field process_bytes "$idle")
            k=$(field kernel_bytes "$idle")
            echo "$p $k $((p + k)) $(field idle_cpu_percent "$idle") $(field cpu_s_per_100k "$messages")" \
                "$(field per_s "$messages")" >>"$folder/conns.$server"
        done
    done
    echo "### $n idle connections; 100,000 small messages over 64 connections"
    echo
    echo "Medians of $rounds interleaved rounds. Troupe's have a session and an open chat each; the peers' are bare."
    echo
    echo "| server | process, bytes a connection | kernel | both | CPU while idle | CPU-seconds for 100,000 messages | messages/s |"
    echo "|---|---|---|---|---|---|---|"
    for server in troupe ws uWebSockets; do
        local f=$folder/conns.$server
        echo "| $server | $(column "$f" 1) | $(column "$f" 2) | $(column "$f" 3) | $(column "$f" 4) % | $(column "$f" 5) |" \
            "$(column "$f" 6) |"
    done
    echo
    echo "Process and kernel, Troupe / uWebSockets: $(ratio "$(column "$folder/conns.troupe" 3)" "$(column "$folder/conns.uWebSockets" 3)");" \
        "CPU a message, Troupe / ws: $(ratio "$(column "$folder/conns.troupe" 5)" "$(column "$folder/conns.ws" 5)")."
    echo
}

bench_routing() {
    mkdir -p build
    gcc -std=c17 -D_GNU_SOURCE -O2 -Wall -Wextra -Isrc -o build/routing bench/routing.c src/domain/hrw.c -lm
    echo "### Which worker a chat goes to"
    echo
    build/routing
    echo
}

bench_python() { # PACKAGE...: in the benches' environment
    [ -x "$deps/bench-python/bin/python" ] || quietly "making the benches' Python environment" python3 -m venv "$deps/bench-python"
    quietly "installing $*" "$deps/bench-python/bin/python" -m pip install "$@"
}

bench_servers() {
    scripts/cassandra-client.sh
    tests/servers/cassandra.sh install
    scripts/build.sh build-servers --buildtype=release -Dwerror=false -Dcassandra=true
    gcc -O2 -D_GNU_SOURCE -Wall -Wextra -o build/raw_ops bench/raw_ops.c bench/cpu.c "$deps/cassandra-client/libtroupe_cql.a" \
        -lrabbitmq -lhiredis -luv -lpthread -ldl -lm -lgcc_s
    bench_python aio-pika==10.2.1 cassandra-driver==3.30.1 redis==8.1.0 websockets==15.0.1
    TROUPE_TEST_BINARY=${TROUPE_TEST_BINARY:-$top/build-servers/src/troupe} \
        "$deps/bench-python/bin/python" bench/real_turns.py --rounds "$rounds"
}

echo "Machine: $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r | cut -d- -f1), $(gcc --version | head -1 | sed 's/ (.*) / /'); $(date -u +%F)."
echo
for part in "${parts[@]}"; do
    case $part in
    turns) bench_turns ;;
    connections) bench_connections ;;
    routing) bench_routing ;;
    llm) bench/llm/run.sh ;;
    servers) bench_servers ;;
    *) die "unknown bench $part: turns, connections, routing, llm, servers" ;;
    esac
done
