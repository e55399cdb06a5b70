#!/bin/sh
# Tries the mesh's lanes, announcements, sleepers and doorbells in every order (loom). Builds nothing of the
# server, so not RocksDB either.
set -eu
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/starling/target}/models
CARGO_TARGET_DIR="$target" cargo test --release --locked "$@"
