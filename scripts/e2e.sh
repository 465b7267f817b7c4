#!/usr/bin/env bash
# e2e.sh: the page in Debian's Chromium against the real program with the stub engine.
. "$(dirname "$0")/common.sh"
cd "$top"
(cd tests/e2e && [ -d node_modules/playwright-core ] || quietly "fetching playwright-core" npm ci --no-audit --no-fund)
folder=$(mktemp -d)
binary=${TROUPE_TEST_BINARY:-$top/build/src/troupe}
(cd "$folder" && TROUPE_LISTEN=127.0.0.1:0 TROUPE_ENGINE='stub:?delay_ms=150&gap_ms=60' TROUPE_RATE_USER=0 TROUPE_RATE_ADDRESS=0 \
    exec "$binary" up >out 2>log) &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    grep -q ready "$folder/out" 2>/dev/null && break
    kill -0 $pid 2>/dev/null || { cat "$folder/log"; die "troupe did not start"; }
    sleep 0.1
done
export TROUPE_E2E_BINARY=$binary # for the test that kills a server of its own
TROUPE_E2E_URL=$(sed -n 's/.*\(http[^ ]*\)\/$/\1/p' "$folder/out") node --test ${TROUPE_E2E_ONLY:+--test-name-pattern="$TROUPE_E2E_ONLY"} --test-reporter=spec tests/e2e/
