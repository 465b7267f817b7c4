#!/usr/bin/env bash
# rabbitmq.sh: RabbitMQ on loopback (Debian's rabbitmq-server), one node or a cluster; see lib.sh.
# The epmd beside it belongs to the folder too: it goes with `stop` and `kill` of all nodes.
. "$(dirname "$0")/lib.sh"

bin=/usr/lib/rabbitmq/bin # not /usr/sbin: that wrapper changes the user and loses the environment

install_it() { [ -x $bin/rabbitmq-server ] || fail "Debian's rabbitmq-server is missing: scripts/packages.sh test"; }

# ports: epmd, then a listener and a distribution port a node
node_env() { # DIR NODE
    local dir=$1 n=$2 ports
    read -ra ports <"$dir/ports"
    export HOME=$dir/erlang ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=${ports[0]} RABBITMQ_CONF_ENV_FILE=/dev/null
    export RABBITMQ_NODENAME=troupe$n-${ports[0]}@localhost RABBITMQ_DIST_PORT=${ports[2 * n]}
    export RABBITMQ_MNESIA_BASE=$dir/n$n/mnesia RABBITMQ_LOG_BASE=$dir/n$n/log RABBITMQ_PID_FILE=$dir/$n.pid
    export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_CONFIG_FILE=$dir/n$n/rabbitmq.conf
    export RABBITMQ_ADVANCED_CONFIG_FILE=$dir/none.config
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
    node_port=${ports[2 * n - 1]}
}

make_dir() { # DIR NODES
    local dir=$1 n
    mkdir -p "$dir/erlang"
    free_ports $((1 + 2 * $2)) >"$dir/ports"
    head -c 15 /dev/urandom | base64 | tr -d '/+=' >"$dir"/erlang/.erlang.cookie
    chmod 400 "$dir"/erlang/.erlang.cookie
    echo "[]." >"$dir/plugins"
    for n in $(seq "$2"); do
        node_env "$dir" "$n"
        mkdir -p "$dir/n$n/mnesia" "$dir/n$n/log"
        cat >"$dir/n$n/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$node_port
log.console = false
log.file.level = warning
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
default_user = troupe
default_pass = tr-secret
cluster_partition_handling = ignore
CONF
    done
    echo "$2" >"$dir/nodes"
}

start_node() { # DIR NODE
    running "$1/$2.pid" && return 0
    (
        node_env "$1" "$2"
        rm -f "$1/$2.pid"
        setsid "$0" as "$2" $bin/rabbitmq-server >"$1/n$2/out" 2>&1 </dev/null &
    )
}
await_node() { # DIR NODE
    node_env "$1" "$2"
    wait_for 60 "RabbitMQ node $2" port_open "$node_port"
    wait_for 10 "RabbitMQ node $2's pid" running "$1/$2.pid"
}

start_it() { # DIR [NODES]
    local dir nodes n hosts="" fresh=0
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    if [ ! -f "$dir/nodes" ]; then
        make_dir "$dir" "${2:-1}"
        fresh=1
    fi
    nodes=$(cat "$dir/nodes")
    for n in $(seq "$nodes"); do start_node "$dir" "$n"; done
    for n in $(seq "$nodes"); do
        await_node "$dir" "$n"
        hosts+=${hosts:+,}127.0.0.1:$node_port
    done
    if [ $fresh -eq 1 ]; then
        for n in $(seq 2 "$nodes"); do
            node_env "$dir" 1
            local first=$RABBITMQ_NODENAME
            node_env "$dir" "$n"
            $bin/rabbitmqctl -q stop_app
            $bin/rabbitmqctl -q reset
            $bin/rabbitmqctl -q join_cluster "$first"
            $bin/rabbitmqctl -q start_app
        done
    fi
    cat >"$dir/env" <<ENV
TROUPE_TEST_AMQP=amqp://troupe:tr-secret@$hosts/
TROUPE_TEST_AMQP_DIR=$dir
TROUPE_TEST_SERVERS=$top/tests/servers
ENV
}

end_epmd() { # DIR
    local port pid
    read -r port _ <"$1/ports"
    for pid in $(pgrep -x epmd || true); do
        # it may be gone by now
        if { tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "ERL_EPMD_PORT=$port"; } 2>/dev/null; then kill "$pid" 2>/dev/null || true; fi
    done
}

case $1 in
ctl) # DIR NODE ARGS…: rabbitmqctl
    node_env "$(cd "$2" && pwd)" "$3"
    exec $bin/rabbitmqctl -q "${@:4}"
    ;;
as) as_node "${@:2}" ;;
cut) # DIR NODE
    read -ra ports <"$2/ports"
    others=$(for n in $(seq "$(cat "$2/nodes")"); do [ "$n" -eq "$3" ] || echo "${ports[2 * n]}"; done | paste -sd ,)
    cut_ports "$3" "${ports[2 * $3]}" "$others"
    ;;
mend) mend_ports ;;
*)
    dispatch "$@"
    case $1 in stop | kill) if [ $# -lt 3 ] && [ -f "$2/ports" ]; then end_epmd "$2"; fi ;; esac
    ;;
esac
