#!/usr/bin/env bash
# s3.sh install | start DIR | stop|kill|pause|resume DIR: see lib.sh.
#
# S3Proxy from Maven Central (org.gaul:s3proxy) over a folder: it checks signatures (version 4), and refuses a wrong secret.
# Not versitygw, which deploy/ has: `go install` of it wants a newer Go than Debian 12's 1.19.
# shellcheck source=tests/servers/lib.sh
. "$(dirname "$0")/lib.sh"

version=2.6.0
lib=$top/.deps/s3proxy

install_it() { from_maven org.gaul s3proxy "$version" "$lib"; }

serves() { curl -s -o /dev/null "http://127.0.0.1:$1/"; }

start_it() { # DIR
    local dir port
    mkdir -p "$1/data"
    dir=$(cd "$1" && pwd)
    [ -f "$dir/port" ] || free_ports 1 >"$dir/port"
    port=$(cat "$dir/port")
    if ! running "$dir/1.pid"; then
        cat >"$dir/s3proxy.conf" <<CONF
s3proxy.endpoint=http://127.0.0.1:$port
s3proxy.authorization=aws-v4
s3proxy.identity=troupe-test
s3proxy.credential=tr-secret
jclouds.provider=filesystem
jclouds.filesystem.basedir=$dir/data
CONF
        cat >"$dir/logback.xml" <<XML
<configuration>
  <appender name="err" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %-5level %logger{20} %msg%n</pattern></encoder></appender>
  <root level="warn"><appender-ref ref="err"/></root>
</configuration>
XML
        setsid "$(java17)" -Xmx192m -Dlogback.configurationFile="$dir/logback.xml" -cp "$lib/lib/*" \
            org.gaul.s3proxy.Main --properties "$dir/s3proxy.conf" >"$dir/log" 2>&1 </dev/null &
        echo $! >"$dir/1.pid"
    fi
    wait_for 60 S3Proxy serves "$port"
    cat >"$dir/env" <<ENV
TROUPE_TEST_S3=http://127.0.0.1:$port
TROUPE_TEST_S3_ACCESS_KEY=troupe-test
TROUPE_TEST_S3_SECRET_KEY=tr-secret
TROUPE_TEST_S3_DIR=$dir
TROUPE_TEST_SERVERS=$top/tests/servers
ENV
}

dispatch "$@"
