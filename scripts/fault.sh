#!/usr/bin/env bash
# fault.sh [PART...] [-- OPTION...]: the long fault runs.  Parts: kill (`troupe up` alone, tests/fault/kill.py), cluster (roles and real
# servers), three (three nodes of Cassandra, of RabbitMQ), canary (no word in any server's files); all of them by default.  The options go to
# the part's program: see its --help.
. "$(dirname "$0")/common.sh"
cd "$top"
parts=() options=()
while [ $# -gt 0 ]; do
    case $1 in
    --) shift; options+=("$@"); break ;;
    -*) options+=("$@"); break ;;
    *) parts+=("$1") ;;
    esac
    shift
done
if [ ${#parts[@]} -eq 0 ]; then
    parts=(kill cluster three canary)
    [ ${#options[@]} -eq 0 ] || parts=(kill) # as in FAULT_ARGS="--kills 1000"
fi
scripts/python.sh
python=$deps/test-python/bin/python
failed=0
with_servers() { # build what the real servers need, once
    [ -z "${TROUPE_TEST_BINARY:-}" ] || return 0
    scripts/packages.sh test
    scripts/cassandra-client.sh
    tests/servers/cassandra.sh install
    scripts/build.sh build-servers --buildtype=release -Dwerror=false -Dcassandra=true
    export TROUPE_TEST_BINARY=$top/build-servers/src/troupe
}
run() { "$python" "$@" "${options[@]}" || failed=1; }
run_three() { tests/servers/own_net.sh "$python" tests/fault/cluster_run.py --three "$1" --faults 12 --turns 2000 --chats 60 "${options[@]}" || failed=1; }
for part in "${parts[@]}"; do
    say "$part"
    case $part in
    kill) run tests/fault/kill.py ;;
    cluster) with_servers; run tests/fault/cluster_run.py ;;
    three)
        with_servers
        run_three cassandra
        # a change that one node alone has, and a reader that asks the two others
        CASSANDRA_LINKS=1 TROUPE_TEST_ONLY='*half*' TROUPE_TEST_SLOWNESS=4 "$python" tests/lib/servers.py cassandra=3 -- \
            "$(dirname "$(dirname "$TROUPE_TEST_BINARY")")/tests/contract-cassandra" || failed=1
        run_three rabbitmq
        ;;
    canary) with_servers; "$python" tests/fault/canary_servers.py || failed=1 ;;
    *) die "unknown part $part: kill, cluster, three, canary" ;;
    esac
done
exit $failed
