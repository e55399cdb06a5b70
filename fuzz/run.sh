#!/bin/bash
# Fuzzes what strangers, disks and people write: frames, the engine's states, settings, rows, logs.
#
#   run.sh [SECONDS [TARGET...]]   each for so many seconds (20), all targets if none is named
#
# Ends not 0 if an input was found that breaks something; it is then in fuzz/artifacts/, and
# `run.sh 0 TARGET` tries all that is there once more.
# With FUZZ_KEEP=1 fuzz/corpus/ becomes the fewest inputs that reach all that is known, and those
# that have a name.
#
# The flags are those of cargo-fuzz. With a nightly toolchain there is AddressSanitizer; without one
# the pinned toolchain does the same without it.
set -euo pipefail
seconds=${1:-20}
shift || true
cd "$(dirname "$0")"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frames engine settings rows logs)

flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
build=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/starling/target}/fuzz
# Without rustup there is no other toolchain.
nightly=$({ rustup toolchain list 2>/dev/null || true; } |
    sed -n '0,/^nightly/s/^\(nightly[^ ]*\).*/\1/p')
runtime=
if [ -n "$nightly" ]; then
    libraries=$(rustc "+$nightly" --print target-libdir)
    runtime=$(find "$libraries" -name 'librustc*_rt.asan.a' | head -n 1)
fi
if [ -n "$runtime" ]; then
    echo "fuzzing with AddressSanitizer, on $nightly"
    export RUSTUP_TOOLCHAIN=$nightly
    flags="$flags -Zsanitizer=address"
    build=$build-asan
else
    echo "fuzzing WITHOUT AddressSanitizer: no nightly toolchain is here"
fi
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags CARGO_TARGET_DIR="$build" cargo build --release --locked --target "$host"

# The conformance vectors are the first frames that are tried.
mkdir -p "$build/learnt/frames" "$build/vectors" artifacts
number=0
sed -n 's/.*"hex": "\([0-9a-f]*\)".*/\1/p' ../codec/vectors/*.json | while read -r digits; do
    number=$((number + 1))
    printf '%b' "$(sed 's/../\\x&/g' <<<"$digits")" >"$build/vectors/$number"
done

for target in "${targets[@]}"; do
    # What was learnt stays beside the build, and the next run goes on from there.
    mkdir -p "$build/learnt/$target" "corpus/$target"
    seeds=("$build/learnt/$target" "corpus/$target")
    [ "$target" != frames ] || seeds+=("$build/vectors")
    echo "$target: $seconds s"
    # What was found before must not be there any more.
    old=$(find artifacts -name "$target-*" | sort)
    # shellcheck disable=SC2086 # a list of files without blanks
    [ -z "$old" ] || "$build/$host/release/$target" $old
    # 0 would mean for ever.
    [ "$seconds" -gt 0 ] || continue
    "$build/$host/release/$target" -max_total_time="$seconds" -max_len=1024 -len_control=20 -timeout=20 \
        -rss_limit_mb=2048 -artifact_prefix="artifacts/$target-" -print_final_stats=1 "${seeds[@]}"
    if [ -n "${FUZZ_KEEP:-}" ]; then
        kept=$build/kept/$target
        rm -rf "$kept"
        mkdir -p "$kept"
        "$build/$host/release/$target" -set_cover_merge=1 -use_counters=0 -max_len=512 \
            "$kept" "${seeds[@]}"
        find "corpus/$target" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
        cp "$kept"/* "corpus/$target/"
    fi
done
