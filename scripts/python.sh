#!/usr/bin/env bash
# python.sh: the Python environment of the test and bench drivers, .deps/test-python.
. "$(dirname "$0")/common.sh"
want="websockets==15.0.1 kosoku==0.1.0"
if [ "$(cat "$deps/test-python/wanted" 2>/dev/null)" != "$want" ]; then
    rm -rf "$deps/test-python"
    quietly "making the tests' Python environment" python3 -m venv "$deps/test-python"
    # shellcheck disable=SC2086
    quietly "installing the tests' Python packages" "$deps/test-python/bin/pip" install $want
    echo "$want" >"$deps/test-python/wanted"
fi
