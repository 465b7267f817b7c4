#!/usr/bin/env bash
# bench.sh [turns] [connections] [llm]: the figures of bench/RESULTS.md, each beside its peer in the same run, as Markdown.
. "$(dirname "$0")/common.sh"
cd "$top"
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(turns connections llm)
gcc -O2 -D_GNU_SOURCE -Wall -Wextra -o build/load bench/load.c
folder=$(mktemp -d "$deps/bench.XXXX")
pids=()
stop_all() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null; done; pids=(); true; }
trap 'stop_all; rm -rf "$folder"' EXIT
field() { sed "s/.*\b$1=\([^ ]*\).*/\1/" <<<"$2"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

start_troupe() { # sets url and pid
    rm -rf "$folder/data"
    (cd "$folder" && TROUPE_LISTEN=127.0.0.1:0 TROUPE_ENGINE="$1" TROUPE_RATE_USER=0 TROUPE_RATE_ADDRESS=0 TROUPE_LOG_LEVEL=warn \
        TROUPE_MASTER_KEY_FILE="data/master.key" exec "$top/build/src/troupe" up >"$folder/out" 2>"$folder/log") &
    pid=$!
    pids+=("$pid")
    for _ in $(seq 100); do grep -q ready "$folder/out" 2>/dev/null && break; sleep 0.1; done
    url=$(sed -n 's/.*http:\/\/\([^ /]*\).*/\1/p' "$folder/out")
    [ -n "$url" ] || { cat "$folder/log" >&2; die "troupe did not start"; }
}

bench_turns() {
    local syncs got
    echo "### A durable turn through all roles (stub engine)"
    echo
    echo "| chats at once | turns/s | p50 | p99 | CPU a turn | 4 serial write+fdatasync: p50 / p99 | p50 / limit |"
    echo "|---|---|---|---|---|---|---|"
    for chats in 1 64; do
        for _ in 1 2 3; do
            start_troupe "stub:"
            syncs=$(build/load syncs "$folder" 4 1000)
            got=$(build/load turns "$url" "$chats" 5 "$pid")
            stop_all
            echo "| $chats | $(field turns_per_s "$got") | $(field p50_us "$got") µs | $(field p99_us "$got") µs | $(field cpu_us_per_turn "$got") µs | $(field p50_us "$syncs") / $(field p99_us "$syncs") µs | $(ratio "$(field p50_us "$got")" "$(field p50_us "$syncs")") |"
        done
    done
    echo
}

bench_connections() {
    local n=${CONNECTIONS:-9500} idle echo_ port
    [ -x "$deps/bench-python/bin/python" ] || quietly "making the benches' Python environment" python3 -m venv "$deps/bench-python"
    "$deps/bench-python/bin/python" -c 'import socketify' 2>/dev/null ||
        quietly "installing uWebSockets (socketify)" "$deps/bench-python/bin/pip" install socketify==0.0.31
    (cd bench/peer && [ -d node_modules/ws ] || npm ci --no-audit --no-fund >/dev/null)
    echo "### $n idle connections; 100,000 small messages over 64 connections"
    echo
    echo "| server | process, bytes a connection | process and kernel | CPU-seconds for 100,000 messages | messages/s |"
    echo "|---|---|---|---|---|"
    for server in troupe ws uWebSockets; do
        start_server() {
            case $server in
            troupe) start_troupe "stub:" ;;
            ws)
                node bench/peer/ws_echo.mjs >"$folder/out" &
                pid=$!
                pids+=("$pid")
                sleep 1.5
                url=127.0.0.1:$(cat "$folder/out")
                ;;
            uWebSockets)
                port=$((20000 + RANDOM % 10000))
                "$deps/bench-python/bin/python" bench/peer/uws_echo.py $port >"$folder/out" &
                pid=$!
                pids+=("$pid")
                sleep 2
                url=127.0.0.1:$port
                ;;
            esac
        }
        plain=plain
        [ $server = troupe ] && plain=
        start_server
        # shellcheck disable=SC2086
        idle=$(build/load idle "$url" "$n" "$pid" $plain)
        stop_all
        start_server
        # shellcheck disable=SC2086
        echo_=$(build/load echo "$url" 64 100000 "$pid" $plain)
        stop_all
        p=$(field process_bytes "$idle")
        k=$(field kernel_bytes "$idle")
        echo "| $server | $p | $((p + k)) | $(field cpu_s_per_100k "$echo_") | $(field per_s "$echo_") |"
    done
    echo
}

echo "Machine: $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)), $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r | cut -d- -f1), $(gcc --version | head -1 | sed 's/ (.*) / /'); $(date -u +%F)."
echo
for part in "${parts[@]}"; do
    case $part in
    turns) bench_turns ;;
    connections) bench_connections ;;
    llm) bench/llm/run.sh ;;
    *) die "unknown bench $part: turns, connections, llm" ;;
    esac
done
