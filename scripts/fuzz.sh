#!/usr/bin/env bash
# fuzz.sh [SECONDS]: every fuzz target for so long (60), on its corpus; a crash is an error and its input is kept.
. "$(dirname "$0")/common.sh"
cd "$top"
seconds=${1:-60}
CC=clang CXX=clang++ scripts/build.sh build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    -Dc_args=-fsanitize=fuzzer-no-link
mkdir -p build-fuzz/found
passed=0 failed=0
for target in build-fuzz/tests/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=$(basename "$target")
    corpus=$deps/corpus/$name
    mkdir -p "$corpus"
    if UBSAN_OPTIONS=halt_on_error=1 "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/found/$name-" "$corpus" "tests/fuzz/corpus/${name#fuzz_}" >"build-fuzz/$name.log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok %s: %s\n' "$name" "$(grep -a stat::number_of_executed_units "build-fuzz/$name.log" | tr -s ' ')"
    else
        failed=$((failed + 1))
        printf 'not ok %s\n' "$name"
        tail -n 30 "build-fuzz/$name.log"
    fi
done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
