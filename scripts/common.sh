# Sourced by the scripts beside it: where things are, and how progress is told.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$top/.deps
mkdir -p "$deps"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# quietly LABEL COMMAND...: run it with its output in a log, show that it goes on, and the log's end if it fails.
quietly() {
    local label=$1 log start pid
    shift
    mkdir -p "$deps/log"
    log=$deps/log/$(printf '%s' "$label" | tr -c 'A-Za-z0-9' '-').log
    start=$SECONDS
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 2 ]; then
            printf '\r== %s ... %ds ' "$label" "$((SECONDS - start))" >&2
        elif [ $(((SECONDS - start) % 30)) -eq 29 ]; then
            printf '== %s ... %ds\n' "$label" "$((SECONDS - start))" >&2
        fi
        sleep 1
    done
    if ! wait "$pid"; then
        printf '\n' >&2
        tail -n 25 "$log" >&2
        die "$label failed; the whole log is $log"
    fi
    [ -t 2 ] && printf '\r' >&2
    say "$label: done in $((SECONDS - start)) s"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "'$*' needs root: run it as root once, then start again"
    fi
}
