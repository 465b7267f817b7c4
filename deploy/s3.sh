#!/bin/bash
# s3.sh [health]: the S3 server over /data, its first account out of /secrets.
set -eu
if [ "${1:-}" = health ]; then
    exec 3<>/dev/tcp/127.0.0.1/9000
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    [[ $(timeout 2 head -n 1 <&3) == *' 200 '* ]]
    exit
fi
ROOT_ACCESS_KEY=$(cat /secrets/access_key)
ROOT_SECRET_KEY=$(cat /secrets/secret_key)
export ROOT_ACCESS_KEY ROOT_SECRET_KEY
exec versitygw --port :9000 --health /health posix /data
