#!/bin/sh
# Makes sure that what Starling is compiled with is there: a C++ compiler and libclang (for
# RocksDB), make, and cargo. On Debian, as root, it installs what lacks; else it says how.
set -eu

lacking=
command -v make >/dev/null || lacking="$lacking make"
command -v g++ >/dev/null || lacking="$lacking g++"
# bindgen loads the library and needs clang's own headers beside it.
if [ -z "${LIBCLANG_PATH:-}" ]; then
    library=$(ls /usr/lib/llvm-*/lib/libclang*.so* 2>/dev/null | head -n 1)
    headers=$(ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h 2>/dev/null | head -n 1)
    [ -n "$library" ] && [ -n "$headers" ] || lacking="$lacking libclang-dev"
fi

if [ -n "$lacking" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "Starling needs:$lacking. These are Debian's names; install your system's." >&2
        exit 1
    elif [ "$(id -u)" -ne 0 ]; then
        echo "Starling needs:$lacking. Type: sudo apt-get install -y$lacking" >&2
        exit 1
    fi
    echo "installing:$lacking" >&2
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $lacking
fi

if ! command -v "${CARGO:-cargo}" >/dev/null; then
    echo "Starling needs Rust. Get it from https://rustup.rs, then start a new shell." >&2
    exit 1
fi
