#!/usr/bin/env bash
# run.sh [--troupe BINARY] [bench_llm.py's other options]: our inference against `python -m llama_cpp.server`, the same
# libllama, model and prompts, in one run.  Prints Markdown rows.  Takes about 3 minutes on an idle machine; where others work, say --threads 1.
. "$(dirname "$0")/../../scripts/common.sh"

version=0.3.36 # the same as in scripts/llama.sh: one libllama on both sides
venv=$deps/bench-python

"$top/scripts/llama.sh"
if [ "$(cat "$venv/ready" 2>/dev/null)" != "$version" ]; then
    rm -rf "$venv"
    quietly "making the benchmark's Python environment" python3 -m venv "$venv"
    cp "$top/scripts/gcc12-amx.h" "/tmp/troupe-gcc12-amx.$(id -u).h" # as scripts/llama.sh: pip takes the wheel it built
    export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF"
    CMAKE_ARGS="$CMAKE_ARGS -DCMAKE_CXX_FLAGS=-include\ /tmp/troupe-gcc12-amx.$(id -u).h"
    quietly "installing the peer, llama-cpp-python's server" \
        "$venv/bin/pip" install --no-binary llama-cpp-python "llama-cpp-python[server]==$version" websockets==15.0.1
    echo "$version" >"$venv/ready"
fi
exec "$venv/bin/python" "$top/bench/llm/bench_llm.py" --model "$deps/models/SmolLM2-135M-Instruct.Q4_1.gguf" "$@"
