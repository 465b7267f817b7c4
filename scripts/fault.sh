#!/usr/bin/env bash
# fault.sh [OPTION...]: the long fault run; see tests/fault/kill.py --help.
. "$(dirname "$0")/common.sh"
"$top/scripts/python.sh"
exec "$deps/test-python/bin/python" "$top/tests/fault/kill.py" "$@"
