#!/usr/bin/env bash
# lint.sh: formatting, who includes whom (and that the check finds a planted wrong include), shell scripts, the page's types.
. "$(dirname "$0")/common.sh"
cd "$top"
failed=0
git ls-files --error-unmatch scripts/lint.sh >/dev/null || die "git does not list the files here: what is to be checked?"
check() {
    local name=$1
    shift
    if "$@"; then printf 'ok %s\n' "$name"; else
        printf 'not ok %s\n' "$name"
        failed=1
    fi
}

formatted() {
    git ls-files -z -co --exclude-standard -- '*.c' '*.h' '*.cc' | xargs -0 clang-format --dry-run -Werror 2>&1 | head -n 40
    [ "${PIPESTATUS[1]}" -eq 0 ]
}
planted_include_is_found() {
    local planted
    planted=$(mktemp -d)
    mkdir -p "$planted/role/gateway" "$planted/domain"
    echo '#include "adapter/sqlite/queue.h"' >"$planted/role/gateway/bad.c"
    echo '#include "base/log.h"' >"$planted/domain/bad.c"
    local out
    out=$(scripts/includes.py "$planted" || true)
    rm -rf "$planted"
    [ "$(grep -c 'may not include' <<<"$out")" -eq 2 ]
}
no_paths_of_a_machine() {
    local status=0
    git grep -nIE '/(home|root|work)/[a-z.]' -- . ':!scripts/lint.sh' || status=$?
    [ $status -eq 1 ] # nothing found; more: it did not look
}
example_is_current() {
    local b compared=
    for b in build build-servers; do
        [ -x $b/src/troupe ] || continue
        $b/src/troupe env | diff - .env.example || return 1
        compared=yes
    done
    [ -n "$compared" ] || { echo "there is no program to compare it with: make build" && return 1; }
}
page_types() { (cd web && npm run --silent check); }

shell_scripts() { git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x -P SCRIPTDIR -S warning -e SC2148,SC2034; }

check "formatting" formatted
check "shell scripts" shell_scripts
check "who includes whom" scripts/includes.py src
check "a planted wrong include is found" planted_include_is_found
check "no paths of a machine" no_paths_of_a_machine
make --no-print-directory web/dist/app.js >&2
check ".env.example has every key" example_is_current
check "the page's types" page_types
exit $failed
