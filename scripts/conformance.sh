#!/usr/bin/env bash
# conformance.sh: the WebSocket tester on the gateway's handshake and framing (tests/conformance/), built by the unit stage.
. "$(dirname "$0")/common.sh"
cd "$top"
echo=${TROUPE_TEST_ECHO:-build-asan/tests/conformance-echo}
[ -x "$echo" ] || die "$echo is missing: run scripts/test.sh unit first"
scripts/python.sh
exec "$deps/test-python/bin/python" tests/conformance/conformance.py "$echo"
