#!/usr/bin/env bash
# packages.sh run|test: install what is missing of the Debian packages that building (run) or testing (test) needs.
. "$(dirname "$0")/common.sh"

run=(build-essential meson ninja-build pkg-config cmake git ca-certificates python3 python3-venv
    libuv1-dev libsodium-dev libsqlite3-dev
    libcld2-dev libutf8proc-dev libjansson-dev uthash-dev
    librabbitmq-dev libhiredis-dev libpq-dev libcurl4-openssl-dev)
test=(clang clang-format libclang-rt-14-dev llvm-14 libcmocka-dev chromium sqlite3 curl shellcheck
    rabbitmq-server redis-server postgresql prometheus haproxy maven openjdk-17-jdk-headless faketime)
command -v node >/dev/null || run+=(nodejs)
command -v npm >/dev/null || run+=(npm)

want=("${run[@]}")
[ "${1:-run}" = run ] || want+=("${test[@]}")
# one call for all of them; it fails where it does not know one, which is the same as missing
have=$'\n'$(dpkg-query -W -f '${Package} ${Status}\n' "${want[@]}" 2>/dev/null | sed -n 's/ install ok installed$//p' || true)$'\n'
missing=()
for p in "${want[@]}"; do
    [[ $have == *$'\n'"$p"$'\n'* ]] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# RUNLEVEL=1: the servers among them are not started; the tests start their own
quietly "reading the package lists" as_root apt-get update -qq
quietly "installing ${#missing[@]} packages" as_root env RUNLEVEL=1 apt-get install -y --no-install-recommends "${missing[@]}"
