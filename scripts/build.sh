#!/usr/bin/env bash
# build.sh DIR [MESON OPTION...]: configure once (again where the options or libllama changed), compile what changed.
. "$(dirname "$0")/common.sh"
cd "$top"
dir=$1
shift
want="$* ${CC:-} $(cat .deps/llama/version 2>/dev/null || true)"
if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.options" 2>/dev/null)" != "$want" ]; then
    rm -rf "$dir"
    quietly "configuring $dir" meson setup "$dir" "$@"
    printf '%s' "$want" >"$dir/.options"
    scripts/sources.py src tests >"$dir/.sources"
else
    # a file that came or went since: the lists are made by globbing
    scripts/sources.py src tests >"$dir/.sources.new"
    cmp -s "$dir/.sources.new" "$dir/.sources" || meson setup --reconfigure "$dir" >/dev/null
    mv "$dir/.sources.new" "$dir/.sources"
fi
if ! ninja -C "$dir" -n 2>/dev/null | grep -q 'no work to do'; then
    quietly "compiling ($dir)" ninja -C "$dir"
fi
