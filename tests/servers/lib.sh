# Sourced by the scripts beside it: how the real servers of the tests are started, on loopback, each with its own folder.
#
#   NAME.sh install                fetch what no Debian package offers (nothing where packages are enough); idempotent
#   NAME.sh start DIR [NODES]      start what is not running; the first time makes DIR, picks free ports and writes DIR/env,
#                                  shell lines `TROUPE_TEST_…=URL`; started again in the same DIR it is the same server: data and
#                                  ports stay.  Returns when it serves.
#   NAME.sh stop DIR [NODE]        SIGTERM, and wait (all nodes without NODE; nodes count from 1)
#   NAME.sh kill DIR [NODE]        SIGKILL, and wait
#   NAME.sh pause|resume DIR [NODE]  SIGSTOP, SIGCONT
#   NAME.sh cut|mend DIR NODE      (rabbitmq, cassandra) the node and the others hear nothing of each other; clients hear all of them.
#                                  As root, in a network namespace of its own (own_net.sh): elsewhere the rules would be the machine's.
#
# A node's pid stands in DIR/NODE.pid; signals go to that pid alone.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# free_ports N: N free TCP ports of 127.0.0.1, all different, below the range of the kernel's own choices.
free_ports() {
    python3 - "$1" <<'PY'
import random, socket, sys
found, held = [], []
while len(found) < int(sys.argv[1]):
    port = random.randint(15000, 32000)
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
        held.append(s)
        found.append(str(port))
    except OSError:
        s.close()
print(" ".join(found))
PY
}

# as_node N COMMAND...: with a group of the node's own, by which the firewall knows what it sends.
as_node() {
    local n=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then exec setpriv --regid=$((61000 + n)) --keep-groups "$@"; else exec "$@"; fi
}
# cut_ports N PORT OTHERS: nothing goes from node N to the ports of the others (comma between them), nor from or to its own.
cut_ports() {
    [ -n "${TROUPE_TEST_OWN_NET:-}" ] || fail "a cut between nodes wants own_net.sh"
    iptables -A OUTPUT -p tcp -m owner --gid-owner $((61000 + $1)) -m multiport --dports "$3" -j DROP
    iptables -A OUTPUT -p tcp ${4:+-d "$4"} --dport "$2" -j DROP
    iptables -A OUTPUT -p tcp ${4:+-s "$4"} --sport "$2" -j DROP
}
mend_ports() { iptables -F OUTPUT; }

running() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || fail "$what did not come up in time"
        sleep 0.1
    done
}
# java17: the JDK's program; Cassandra 5.0 starts on no newer one.  TROUPE_TEST_JAVA_HOME names another place.
java17() {
    local home
    for home in "${TROUPE_TEST_JAVA_HOME:-/none}" /usr/lib/jvm/java-17-openjdk-* /usr/lib/jvm/*17*; do
        [ -x "$home/bin/java" ] && { echo "$home/bin/java"; return; }
    done
    fail "no JDK 17 under /usr/lib/jvm: install openjdk-17-jdk-headless, or set TROUPE_TEST_JAVA_HOME"
}
# from_maven GROUP ARTIFACT VERSION FOLDER: it and what it needs, from Maven Central, as FOLDER/lib/*.jar; nothing where it is there.
from_maven() {
    local lib=$4 new
    [ "$(cat "$lib/version" 2>/dev/null)" = "$3" ] && return
    mkdir -p "$(dirname "$lib")"
    new=$(mktemp -d "$lib.XXXXXX")
    cat >"$new/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>troupe.tests</groupId><artifactId>$2-server</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version></dependency>
  </dependencies>
</project>
POM
    JAVA_HOME=$(dirname "$(dirname "$(java17)")") mvn -q -B -f "$new/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$new/lib" >"$new/mvn.log" 2>&1 ||
        { tail -n 20 "$new/mvn.log" >&2; rm -rf "$new"; fail "fetching $2 $3 failed"; }
    echo "$3" >"$new/version"
    rm -rf "$lib.old"
    [ ! -d "$lib" ] || mv "$lib" "$lib.old"
    mv -T "$new" "$lib" 2>/dev/null || rm -rf "$new" # somebody else was faster
    rm -rf "$lib.old"
}
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# each_node DIR [NODE]: the pid files meant.
each_node() {
    if [ -n "${2:-}" ]; then echo "$1/$2.pid"; else ls "$1"/*.pid 2>/dev/null || true; fi
}
signal_nodes() { # SIGNAL DIR [NODE]
    local f
    for f in $(each_node "$2" "${3:-}"); do
        if running "$f"; then kill -"$1" "$(cat "$f")" 2>/dev/null || true; fi
    done
}
await_end() { # DIR [NODE]
    local f n
    for f in $(each_node "$1" "${2:-}"); do
        for n in $(seq 600); do running "$f" || break; sleep 0.05; done
        if running "$f"; then kill -KILL "$(cat "$f")" 2>/dev/null || true; sleep 0.2; fi
        rm -f "$f"
    done
}
# dispatch VERB DIR [NODE]: the verbs that are alike for all; `start` and `install` are functions of the script.
dispatch() {
    local verb=$1
    shift
    case $verb in
    install) install_it ;;
    start) start_it "$@" ;;
    stop) signal_nodes CONT "$@"; signal_nodes TERM "$@"; await_end "$@" ;;
    kill) signal_nodes KILL "$@"; await_end "$@" ;;
    pause) signal_nodes STOP "$@" ;;
    resume) signal_nodes CONT "$@" ;;
    *) fail "unknown verb $verb" ;;
    esac
}
