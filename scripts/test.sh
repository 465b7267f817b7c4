#!/usr/bin/env bash
# test.sh [STAGE...]: everything, in stages; each prints what it found; the last line is "N passed, N failed".
. "$(dirname "$0")/common.sh"
cd "$top"
passed=0 failed=0 failures=
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=(setup lint page unit tsan clang flow fault servers cluster conformance e2e)
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TROUPE_TEST_SLOWNESS=${TROUPE_TEST_SLOWNESS:-1}

# What Meson may skip in the stages before `servers`, which runs it.  Anything else that is skipped is a failure.
servers_only="contract-broker contract-redis contract-postgres contract-s3 contract-cassandra"
may_skip=
# skipped FILE: what was skipped in it, one a line, and is not to be: Meson's tests by name, node's by their number
skipped() {
    local name
    # shellcheck disable=SC2013 # names without blanks
    for name in $(sed -n 's/^ *[0-9]*\/[0-9]* \(.* \/ \)\?\([^ ]*\) *SKIP .*/\2/p' "$1"); do
        [[ " $may_skip " == *" $name "* ]] || echo "not ok $name was skipped"
    done
    sed -n 's/^\(#\|ℹ\) skipped \([1-9][0-9]*\)/not ok \2 were skipped/p' "$1"
}

# tally LABEL COMMAND...: run it, show it, count its results: "ok"/"not ok" lines, Meson's and node's summaries.
tally() {
    local label=$1 out status=0 p f start=$SECONDS
    shift
    out=$(mktemp)
    say "$label"
    "$@" 2>&1 | tee "$out" || status=1
    skipped "$out" | tee -a "$out"
    # every counter starts a line; Meson: "Ok:  12", node: "# pass 12" or "ℹ pass 12"
    p=$(($(grep -c '^ok ' "$out" || true) + $(sum '^Ok: ' "$out") + $(sum '^\(#\|ℹ\) pass ' "$out")))
    f=$(($(grep -c '^not ok ' "$out" || true) + $(sum '^\(Fail\|Timeout\|Unexpected Pass\): ' "$out") + $(sum '^\(#\|ℹ\) fail ' "$out")))
    if [ $status -ne 0 ] && [ $f -eq 0 ]; then f=1; fi
    if [ $status -eq 0 ] && [ $((p + f)) -eq 0 ]; then
        echo "not ok $label: it counted nothing"
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '== %s: %d passed, %d failed, %d s\n' "$label" "$p" "$f" $((SECONDS - start))
    [ $f -eq 0 ] || failures+="$(printf '== %s\n' "$label"; grep -E '^not ok |(FAIL|TIMEOUT) |^(not ok|✖) |^ +[0-9]+ +not ok|# fail' "$out" | head -n 20; tail -n 15 "$out")"$'\n'
    rm -f "$out"
}
sum() { sed -n "/$1/{s/$1 *//;s/[^0-9].*//;p}" "$2" | paste -sd+ | sed 's/^$/0/' | bc_; }
bc_() { read -r e && echo $((e)); }
# Meson leaves the C tests out where cmocka is not there
needs_cmocka() { pkg-config --exists cmocka || die "libcmocka-dev is missing: scripts/packages.sh test"; }
python=$deps/test-python/bin/python
release=$top/build-servers/src/troupe

for stage in "${stages[@]}"; do
    case $stage in
    setup)
        scripts/packages.sh test
        scripts/llama.sh
        scripts/python.sh
        make --no-print-directory web/dist/app.js
        scripts/cassandra-client.sh
        for s in rabbitmq redis postgres cassandra s3; do tests/servers/$s.sh install; done
        scripts/build.sh build-servers --buildtype=release -Dwerror=false -Dcassandra=true
        ;;
    lint)
        tally "lint" scripts/lint.sh
        tally "deployment" scripts/deploy-lint.sh
        ;;
    page) tally "the page's protocol client" npm --prefix web test ;;
    unit)
        needs_cmocka
        scripts/build.sh build-asan -Db_sanitize=address,undefined -Db_lundef=false -Dfault_points=true -Dcassandra=true
        may_skip=$servers_only tally "unit, contract, corpus (gcc, ASan+UBSan)" meson test -C build-asan --no-rebuild --print-errorlogs
        ;;
    tsan)
        needs_cmocka
        CC=clang CXX=clang++ scripts/build.sh build-tsan -Db_sanitize=thread -Db_lundef=false
        may_skip=$servers_only tally "contract (clang, TSan)" meson test -C build-tsan --no-rebuild --print-errorlogs --suite contract
        TSAN_OPTIONS=halt_on_error=1:suppressions=$top/tests/tsan.supp TROUPE_TEST_BINARY=$top/build-tsan/src/troupe TROUPE_TEST_SLOWNESS=6 tally "flow (TSan)" "$python" tests/flow/test_chat.py
        ;;
    clang)
        # -Werror under the other compiler
        CC=clang CXX=clang++ tally "clang" scripts/compiles.sh build-clang
        ;;
    flow)
        for t in tests/flow/test_*.py; do
            if [ "$t" = tests/flow/test_model.py ]; then # libllama would take minutes under a sanitizer
                TROUPE_TEST_BINARY=$release tally "$t (release)" "$python" "$t"
                continue
            fi
            TROUPE_TEST_BINARY=$top/build-asan/src/troupe TROUPE_TEST_SLOWNESS=4 tally "$t (ASan+UBSan)" "$python" "$t"
        done
        ;;
    fault)
        tally "the checker of the fault runs" "$python" tests/fault/test_ledger.py
        TROUPE_TEST_BINARY=$release tally "SIGKILL at random moments" "$python" tests/fault/kill.py
        TROUPE_TEST_BINARY=$top/build-asan/src/troupe tally "SIGKILL at named points" "$python" tests/fault/points.py
        ;;
    servers)
        # each contract suite on the real server, and what only a real one does; one at a time, as they restart the servers
        tally "contract on real servers (gcc, ASan+UBSan)" "$python" tests/lib/servers.py rabbitmq redis postgres=2 cassandra s3 -- \
            env "TROUPE_TEST_REAL=TROUPE_TEST_AMQP TROUPE_TEST_REDIS TROUPE_TEST_PG TROUPE_TEST_CASSANDRA TROUPE_TEST_S3" \
            meson test -C build-asan --no-rebuild --print-errorlogs --num-processes 1 --timeout-multiplier 2 \
            contract-queue contract-broker contract-registry contract-redis contract-catalogue contract-history contract-postgres \
            contract-media contract-s3 contract-cassandra
        ;;
    race) # not among the default stages: the race detector on the adapters that have threads; after `tsan`
        tally "contract on real servers (clang, TSan)" "$python" tests/lib/servers.py rabbitmq redis postgres=2 cassandra -- \
            env "TROUPE_TEST_REAL=TROUPE_TEST_AMQP TROUPE_TEST_REDIS TROUPE_TEST_PG" TROUPE_TEST_SLOWNESS=4 \
            TSAN_OPTIONS=halt_on_error=1:suppressions="$top"/tests/tsan.supp \
            meson test -C build-tsan --no-rebuild --print-errorlogs --num-processes 1 --timeout-multiplier 3 \
            contract-queue contract-broker contract-registry contract-redis contract-postgres
        ;;
    cluster)
        TROUPE_TEST_BINARY=$release tally "roles on real servers" "$python" tests/real/test_cluster.py
        TROUPE_TEST_BINARY=$release tally "faults on real servers" "$python" tests/fault/cluster_run.py --quick
        TROUPE_TEST_BINARY=$release tally "no word in the servers' files" "$python" tests/fault/canary_servers.py
        ;;
    three) # not among the default stages: three nodes of a server, one of them killed; `make fault` has more
        # shellcheck disable=SC2016 # the inner shell's
        tally "a lost leader (gcc, ASan+UBSan)" "$python" tests/lib/servers.py rabbitmq=3 -- env TROUPE_TEST_ONLY='*lead*' bash -c \
            'TROUPE_TEST_AMQP3=$TROUPE_TEST_AMQP TROUPE_TEST_AMQP3_DIR=$TROUPE_TEST_AMQP_DIR exec meson test -C build-asan --no-rebuild --print-errorlogs contract-broker'
        CASSANDRA_LINKS=1 tally "a change that one node has (gcc, ASan+UBSan)" "$python" tests/lib/servers.py cassandra=3 -- env TROUPE_TEST_ONLY='*half*' \
            TROUPE_TEST_SLOWNESS=4 meson test -C build-asan --no-rebuild --print-errorlogs --timeout-multiplier 3 contract-cassandra
        for s in cassandra rabbitmq; do
            TROUPE_TEST_BINARY=$release tally "three nodes of $s" tests/servers/own_net.sh "$python" tests/fault/cluster_run.py --quick --three $s
        done
        ;;
    conformance) tally "WebSocket conformance" scripts/conformance.sh ;;
    e2e) TROUPE_TEST_BINARY=$release tally "browser" scripts/e2e.sh ;;
    *) die "unknown stage $stage" ;;
    esac
done
[ -z "$failures" ] || printf '\n== what failed, again:\n%s\n' "$failures" # where only the end of a log is kept
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
