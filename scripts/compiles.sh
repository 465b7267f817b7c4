#!/usr/bin/env bash
# compiles.sh DIR: -Werror under $CC counts as one test.
. "$(dirname "$0")/common.sh"
if "$top/scripts/build.sh" "$1"; then echo "ok compiles with ${CC:-cc}"; else
    echo "not ok compiles with ${CC:-cc}"
    exit 1
fi
