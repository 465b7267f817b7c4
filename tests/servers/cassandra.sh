#!/usr/bin/env bash
# cassandra.sh install | start DIR [1|3] | stop|kill|pause|resume DIR [NODE]: see lib.sh.
#
# Apache Cassandra from Maven Central, on JDK 17 (5.0 starts on no newer one).  Node N listens on 127.0.0.N; all have the
# same ports, as the nodes of one cluster do.  `commitlog_sync: batch`: the default loses acknowledged writes at a SIGKILL.
# `paxos_variant: v2`: fewer round trips a conditional write, and no sleep of up to 100 ms where two meet (CASSANDRA_PAXOS=v1: the
# server's default).  CASSANDRA_AUTH=password when DIR is made: the server asks for a password (user and password `cassandra`).
# CASSANDRA_LINKS=1 when DIR is made: what the nodes say to each other goes through cassandra_links.py; no hints then.
# shellcheck source=tests/servers/lib.sh
. "$(dirname "$0")/lib.sh"

version=5.0.9
lib=$top/.deps/cassandra
heap=${CASSANDRA_HEAP:-256m}

install_it() { from_maven org.apache.cassandra cassandra-all "$version" "$lib"; }

# write_node DIR N: the configuration of node N, as DIR/cluster says.
write_node() {
    local dir=$1 n=$2 ip=127.0.0.$2 d=$1/n$2 net=127.0.0 hints=true seeds token='' i
    [ -z "$links" ] || net=127.0.1 hints=false
    seeds=$net.1
    for ((i = 2; i <= nodes; i++)); do seeds+=,$net.$i; done
    # an even ring, so that nodes may boot at once
    [ "$nodes" -eq 1 ] || token="initial_token: $(python3 -c "print(-2**63 + ($n - 1) * (2**64 // $nodes))")"
    mkdir -p "$d/conf" "$d/data" "$d/tmp"
    cat >"$d/conf/cassandra.yaml" <<YAML
cluster_name: troupe-test-$native
num_tokens: 1
$token
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
listen_address: $ip
broadcast_address: $net.$n
rpc_address: $ip
storage_port: $storage
native_transport_port: $native
start_native_transport: true
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$seeds"
data_file_directories: [ $d/data/data ]
commitlog_directory: $d/data/commitlog
saved_caches_directory: $d/data/saved_caches
hints_directory: $d/data/hints
cdc_raw_directory: $d/data/cdc_raw
commitlog_sync: batch
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
memtable_heap_space: 48MiB
memtable_offheap_space: 32MiB
memtable_allocation_type: heap_buffers
file_cache_size: 32MiB
key_cache_size: 4MiB
row_cache_size: 0MiB
counter_cache_size: 0MiB
networking_cache_size: 16MiB
internode_application_send_queue_reserve_global_capacity: 32MiB
internode_application_receive_queue_reserve_global_capacity: 32MiB
concurrent_reads: 8
concurrent_writes: 16
concurrent_counter_writes: 2
concurrent_materialized_view_writes: 2
concurrent_compactors: 1
compaction_throughput: 16MiB/s
native_transport_max_threads: 16
auto_snapshot: false
incremental_backups: false
disk_optimization_strategy: ssd
hinted_handoff_enabled: $hints
max_hint_window: 3h
dynamic_snitch: true
request_timeout: 10s
read_request_timeout: 2s
write_request_timeout: 2s
cas_contention_timeout: 2s
paxos_variant: ${CASSANDRA_PAXOS:-v2}
range_request_timeout: 10s
authenticator: $authenticator
authorizer: AllowAllAuthorizer
YAML
    cat >"$d/conf/logback.xml" <<XML
<configuration scan="false">
  <appender name="F" class="ch.qos.logback.core.FileAppender">
    <file>$d/system.log</file><append>true</append>
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5level [%thread] %logger{20}:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="F"/></root>
</configuration>
XML
    write_java_args "$d" >"$d/conf/java.args"
}

write_java_args() {
    local d=$1 o
    cat <<ARGS
-Xms$heap
-Xmx$heap
-Xss256k
-XX:+UseSerialGC
-XX:MaxDirectMemorySize=128m
-XX:+ExitOnOutOfMemoryError
-XX:+PerfDisableSharedMem
-Djava.net.preferIPv4Stack=true
-Djava.io.tmpdir=$d/tmp
-Djna.tmpdir=$d/tmp
-Dcassandra.config=file://$d/conf/cassandra.yaml
-Dlogback.configurationFile=file://$d/conf/logback.xml
-Dcassandra.storagedir=$d/data
-Dcassandra.logdir=$d
-Dcassandra.ring_delay_ms=1000
-Dcassandra.skip_wait_for_gossip_to_settle=0
-Dcassandra.superuser_setup_delay_ms=0
-Dcassandra.available_processors=2
-Djdk.attach.allowAttachSelf=true
-Dio.netty.tryReflectionSetAccessible=true
-Dio.netty.allocator.useCacheForAllThreads=true
-Dio.netty.allocator.maxOrder=11
ARGS
    for o in java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry \
        java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc jdk.attach/sun.tools.attach; do
        echo "--add-exports=$o=ALL-UNNAMED"
    done
    for o in java.lang.module jdk.internal.loader jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module \
        jdk.internal.util.jar sun.nio.ch java.io java.nio java.lang.reflect java.lang; do
        echo "--add-opens=java.base/$o=ALL-UNNAMED"
    done
    echo "--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED"
}

serves() { # DIR N
    running "$1/$2.pid" || fail "node $2 ended: $(tail -n 3 "$1/n$2/system.log" "$1/n$2/out.log" 2>/dev/null | tail -c 600)"
    (exec 3<>"/dev/tcp/127.0.0.$2/$native") 2>/dev/null
}

start_links() { # DIR
    running "$1/links.id" && return
    rm -rf "$1/links"
    setsid python3 "$(dirname "$0")/cassandra_links.py" "$1" "$nodes" "$storage" \
        </dev/null >>"$1/links.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    echo $! >"$1/links.id"
    wait_for 30 "the nodes' links" links_serve
}

links_serve() { (exec 3<>"/dev/tcp/127.0.1.$nodes/$storage") 2>/dev/null; }

# Where all nodes end, so does what is between them.
end_links() { # DIR [NODE]
    if [ -z "${2:-}" ] && running "$1/links.id"; then kill -KILL "$(cat "$1/links.id")" 2>/dev/null || true; fi
}

start_it() {
    local dir n java started=()
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    if [ ! -s "$dir/cluster" ]; then
        read -r native storage < <(free_ports 2)
        printf 'native=%s storage=%s nodes=%s authenticator=%s links=%s\n' "$native" "$storage" "${2:-1}" \
            "$([ "${CASSANDRA_AUTH:-}" = password ] && echo PasswordAuthenticator || echo AllowAllAuthenticator)" \
            "${CASSANDRA_LINKS:-}" >"$dir/cluster"
    fi
    native='' storage='' nodes='' authenticator='' links=''
    # shellcheck source=/dev/null
    . "$dir/cluster"
    java=$(java17)
    [ -d "$lib/lib" ] || fail "no server under $lib: run $0 install"
    [ -z "$links" ] || start_links "$dir"
    for ((n = 1; n <= nodes; n++)); do
        running "$dir/$n.pid" && continue
        [ -s "$dir/n$n/conf/java.args" ] || write_node "$dir" "$n"
        # no parent's locks and pipes: a server must not hold them
        setsid "$0" as "$n" "$java" "@$dir/n$n/conf/java.args" -cp "$dir/n$n/conf:$lib/lib/*" org.apache.cassandra.service.CassandraDaemon \
            </dev/null >>"$dir/n$n/out.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
        echo $! >"$dir/$n.pid"
        started+=("$n")
    done
    for n in "${started[@]}"; do wait_for 300 "node $n" serves "$dir" "$n"; done
    write_env "$dir"
}

# TROUPE_TEST_CASSANDRA is a server of one node, TROUPE_TEST_CASSANDRA3 one of three.
write_env() {
    local hosts=127.0.0.1:$native n user='' name=TROUPE_TEST_CASSANDRA
    [ "$nodes" -eq 1 ] || name+=$nodes
    for ((n = 2; n <= nodes; n++)); do hosts+=,127.0.0.$n:$native; done
    [ "$authenticator" = AllowAllAuthenticator ] || user=cassandra:cassandra@
    cat >"$1/env.new" <<ENV
$name=cassandra://$user$hosts/troupe_test
${name}_DIR=$1
TROUPE_TEST_SERVERS=$top/tests/servers
ENV
    mv "$1/env.new" "$1/env"
}

case $1 in
as) as_node "${@:2}" ;;
cut) # DIR NODE
    # shellcheck source=/dev/null
    . "$2/cluster"
    cut_ports "$3" "$storage" "$storage" "127.0.0.$3"
    ;;
mend) mend_ports ;;
*)
    dispatch "$@"
    case $1 in stop | kill) end_links "${@:2}" ;; esac
    ;;
esac
