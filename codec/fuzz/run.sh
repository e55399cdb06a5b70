#!/bin/bash
# Fuzzes the reading of frames for as many seconds as the first argument says (20 if none), from
# the conformance vectors on. Ends not 0 if an input was found that breaks it; the input is then
# in codec/fuzz/artifacts/.
#
# These are the flags that cargo-fuzz gives, without the sanitizer of memory: codec has no unsafe
# code to watch. So the pinned stable toolchain suffices and nothing need be installed.
set -euo pipefail
seconds=${1:-20}
cd "$(dirname "$0")"

target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/starling/target}/fuzz
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    CARGO_TARGET_DIR="$target" \
    cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')"

# What was learnt is kept beside the build, and the next run goes on from there.
mkdir -p "$target/corpus" "$target/vectors" artifacts
number=0
sed -n 's/.*"hex": "\([0-9a-f]*\)".*/\1/p' ../vectors/*.json | while read -r digits; do
    number=$((number + 1))
    printf '%b' "$(sed 's/../\\x&/g' <<<"$digits")" >"$target/vectors/$number"
done
"$target"/*/release/stream -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 \
    -artifact_prefix=artifacts/ -print_final_stats=1 "$target/corpus" "$target/vectors"
