#!/bin/bash
# healthcheck.sh [PATH]: is this process ready (or what PATH asks)?  By the listener for operators; the image has no curl.
set -eu
port=${TROUPE_METRICS_LISTEN##*:}
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/readyz}" >&3
answer=$(timeout 3 cat <&3)
printf '%s\n' "${answer##*$'\r\n\r\n'}"
[[ $answer == 'HTTP/1.1 200 '* ]]
