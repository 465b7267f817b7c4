#!/usr/bin/env bash
# cassandra-client.sh: the Rust library under the Cassandra adapter, as .deps/cassandra-client/libtroupe_cql.a; for builds with
# -Dcassandra=true.  Needs cargo >= 1.88; where there is none, Debian's cargo-web and rustc-web are installed.
. "$(dirname "$0")/common.sh"

source_dir=$top/src/adapter/cassandra/client
out=$deps/cassandra-client

new_enough() { # COMMAND
    local v
    v=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
    [ -n "$v" ] && [ "$(printf '1.88.0\n%s\n' "$v" | sort -V | head -n 1)" = 1.88.0 ]
}

want=$(cd "$source_dir" && sha256sum Cargo.toml Cargo.lock ./*.rs | sha256sum | cut -d ' ' -f 1)
[ "$(cat "$out/version" 2>/dev/null)" = "$want" ] && exit 0

cargo=cargo rustc=rustc
if ! { new_enough cargo && new_enough rustc; }; then
    quietly "reading the package lists" as_root apt-get update -qq
    quietly "installing cargo and rustc" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends cargo-web rustc-web
    # Debian's are /usr/bin's; an older cargo of the user's own may stand before them
    cargo=/usr/bin/cargo rustc=/usr/bin/rustc
    new_enough "$cargo" || die "no cargo of 1.88 or newer: the Cassandra adapter cannot be built here"
fi

build() {
    cd "$source_dir"
    # the crate's reconnection waits up to 10 s; what shortens it is behind this
    RUSTC=$(command -v "$rustc") RUSTFLAGS="--cfg scylla_unstable" CARGO_TARGET_DIR=$deps/cassandra-client.build \
        "$cargo" build --release --locked
}
quietly "building the Cassandra client (about 2 minutes on 2 cores)" build
new=$(mktemp -d "$deps/cassandra-client.XXXXXX")
chmod 755 "$new"
cp "$deps/cassandra-client.build/release/libtroupe_cql.a" "$new/"
echo "$want" >"$new/version"
rm -rf "$out.old"
[ ! -d "$out" ] || mv "$out" "$out.old"
mv -T "$new" "$out" 2>/dev/null || rm -rf "$new" # somebody else was faster
rm -rf "$out.old"
