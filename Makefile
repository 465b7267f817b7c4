# Troupe: `make run` sets all up and starts it, `make test` tests all of it.  The rest is for those who change it.
SHELL = /bin/bash
.DELETE_ON_ERROR:
.PHONY: help run build build-servers test bench lint fuzz asan tsan clang fault e2e format clean packages packages-test llama


help:
	@echo "make run     build what is needed and start Troupe (http://127.0.0.1:8080/)"
	@echo "make test    all tests; closes with 'N passed, N failed'"
	@echo "make build   the program alone: build/src/troupe (build-servers: with the Cassandra client, build-servers/src/troupe)"
	@echo "make lint | asan | tsan | clang | fuzz | fault | e2e | bench | format | clean"

run: build
	@exec ./build/src/troupe up

build: packages llama web/dist/app.js
	@scripts/build.sh build --buildtype=release -Dwerror=false

# The same with the Cassandra client, a small Rust library: for roles on servers (README, "Beyond one machine").
build-servers: packages llama web/dist/app.js
	@scripts/cassandra-client.sh
	@scripts/build.sh build-servers --buildtype=release -Dwerror=false -Dcassandra=true

# The sanitizers' and the other compiler's builds; each runs the C tests.
asan: packages-test llama web/dist/app.js
	@scripts/build.sh build-asan -Db_sanitize=address,undefined -Db_lundef=false
	@meson test -C build-asan --print-errorlogs --no-rebuild
tsan: packages-test llama web/dist/app.js
	@CC=clang CXX=clang++ scripts/build.sh build-tsan -Db_sanitize=thread -Db_lundef=false
	@meson test -C build-tsan --print-errorlogs --no-rebuild --suite unit --suite contract
clang: packages-test llama web/dist/app.js
	@CC=clang CXX=clang++ scripts/build.sh build-clang

packages:
	@scripts/packages.sh run
packages-test:
	@scripts/packages.sh test
llama: packages
	@scripts/llama.sh

web/node_modules/.package-lock.json: web/package.json web/package-lock.json | packages
	@. scripts/common.sh && cd web && quietly "fetching the page's libraries" npm ci --no-audit --no-fund
	@touch $@
web/dist/app.js: web/node_modules/.package-lock.json $(wildcard web/src/* web/src/*/* web/*.html web/*.mjs web/*.json)
	@. scripts/common.sh && cd web && quietly "building the page" npm run build
	@touch $@

test:
	@scripts/test.sh
lint: build packages-test
	@scripts/lint.sh
fuzz: packages-test llama web/dist/app.js
	@scripts/fuzz.sh $(FUZZ_SECONDS)
fault: build
	@scripts/fault.sh $(FAULT_ARGS)
e2e: build packages-test
	@scripts/e2e.sh
bench: build packages-test
	@scripts/bench.sh $(BENCH)

format: packages-test
	@git ls-files -z -co --exclude-standard -- '*.c' '*.h' '*.cc' | xargs -0 clang-format -i
clean:
	rm -rf build build-* web/dist
