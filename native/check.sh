#!/bin/sh
# Build the library without a warning and run its C++ tests: with gcc and with clang, under
# AddressSanitizer with UBSan and under ThreadSanitizer, and for 64-bit Arm in an emulator.
#     sh native/check.sh [BUILD_FOLDER]
# NUCPRUNE_CHECK chooses among: gcc clang address thread arm (default: all). A missing tool fails,
# after everything else has run. On Debian and Ubuntu:
#     apt-get install cmake g++ clang libclang-rt-dev g++-aarch64-linux-gnu qemu-user-static
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/build}
first() { for tool in "$@"; do command -v "$tool" && return; done; }
gcc=$(first g++ || true)
clang=$(first clang++ clang++-22 clang++-21 clang++-20 clang++-19 clang++-18 clang++-17 \
    clang++-16 clang++-15 clang++-14 || true)
arm=$(first aarch64-linux-gnu-g++ || true)
qemu=$(first qemu-aarch64-static qemu-aarch64 || true)
missing=

try() { # NAME COMPILER [OPTION OF CMAKE ...]; $runner is put before the programs
    name=$1 compiler=$2
    shift 2
    cmake -S "$here/tests" -B "$build/$name" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_CXX_COMPILER="$compiler" "$@" >/dev/null
    cmake --build "$build/$name" -j 2 >"$build/$name/log" 2>&1 || { cat "$build/$name/log"; exit 1; }
    for part in packed watershed sparse; do
        echo "== $name: $part"
        $runner "$build/$name/test_$part"
    done
}

for what in ${NUCPRUNE_CHECK:-gcc clang address thread arm}; do
    runner='env NUCPRUNE_TEST_QUICK=1'
    case $what in
    gcc) runner= && tool=$gcc ;;
    clang) tool=$clang ;;
    address | thread) tool=${gcc:-$clang} ;;
    arm) tool=${qemu:+$arm} ;;
    *) echo "$what is none of: gcc clang address thread arm" >&2 && exit 2 ;;
    esac
    [ -n "$tool" ] || { missing="$missing $what"; continue; }
    case $what in
    gcc | clang)
        try "$what" "$tool"
        echo "== $what: sparse, without vector instructions"
        NUCPRUNE_ISA=baseline NUCPRUNE_TEST_QUICK=1 "$build/$what/test_sparse"
        ;;
    address) try address "$tool" -DNUCPRUNE_SANITIZE=address,undefined ;;
    thread)
        # ThreadSanitizer allows no threads in a child that forked from several.
        runner="$runner NUCPRUNE_TEST_NO_FORK=1"
        try thread "$tool" -DNUCPRUNE_SANITIZE=thread
        ;;
    arm)
        # A fork of several threads is more than the emulator can do (7.2 stops with an assertion).
        runner="$runner NUCPRUNE_TEST_NO_FORK=1 $qemu"
        try arm "$tool" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
            -DCMAKE_EXE_LINKER_FLAGS=-static
        ;;
    esac
done
if [ -n "$missing" ]; then
    echo "not checked, their tools are missing:$missing" >&2
    exit 1
fi
