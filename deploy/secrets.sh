#!/bin/bash
# secrets.sh [FOLDER]: passwords for compose.yaml, made once and then left alone: FOLDER/{rabbitmq,redis,postgres,s3,troupe}, each
# mounted into its own server alone.  What Troupe itself reads is in FOLDER/troupe, as KEY_FILEs; `troupe init` puts the master
# key there, too: keep a copy of that one apart from all else.
set -eu
top=${1:-/secrets}
umask 077
mkdir -p "$top/rabbitmq" "$top/redis" "$top/postgres" "$top/s3" "$top/troupe"

# password NAME: made once, kept for the next run
password() {
    local f=$top/troupe/.$1
    [ -s "$f" ] || head -c 24 /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_' >"$f"
    cat "$f"
}
# put FILE TEXT: whole or not at all
put() { printf '%s\n' "$2" >"$1.part" && mv "$1.part" "$1"; }

rabbitmq=$(password rabbitmq) redis=$(password redis) postgres=$(password postgres) replication=$(password replication)
s3_key=troupe s3_secret=$(password s3)

put "$top/rabbitmq/troupe.conf" "default_user = troupe
default_pass = $rabbitmq"
put "$top/redis/redis.conf" "requirepass $redis
appendonly no
save \"\""
put "$top/postgres/password" "$postgres"
put "$top/postgres/replication_password" "$replication"
put "$top/s3/access_key" "$s3_key"
put "$top/s3/secret_key" "$s3_secret"
put "$top/troupe/broker" "amqp://troupe:$rabbitmq@rabbitmq:5672/"
put "$top/troupe/registry" "redis://:$redis@redis:6379/0"
put "$top/troupe/catalogue" "postgresql://troupe:$postgres@postgres,postgres-replica:5432/troupe"
put "$top/troupe/s3_access_key_id" "$s3_key"
put "$top/troupe/s3_secret_access_key" "$s3_secret"

# as root each folder goes to its server's user: RabbitMQ and Redis read theirs as root before they give that up
if [ "$(id -u)" -eq 0 ]; then
    chown -R 999:999 "$top/rabbitmq" "$top/redis" "$top/postgres"
    chown -R 10002:10002 "$top/s3"
    chown -R 10001:10001 "$top/troupe"
fi
echo "secrets are there"
