#!/bin/sh
# Build and run the kernels' tests with every compiler and sanitizer that is here, and for
# 64-bit Arm in an emulator: sh native/check.sh [BUILD_FOLDER]
# NUCPRUNE_CHECK chooses among: gcc clang address undefined thread arm (default: all).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/build}
chosen=${NUCPRUNE_CHECK:-gcc clang address undefined thread arm}
clang=$(command -v clang++ || command -v clang++-18 || command -v clang++-16 || command -v clang++-14 || true)
gcc=$(command -v g++ || true)
arm=$(command -v aarch64-linux-gnu-g++ || true)
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
skipped=

make_it() { # name, compiler, further options of cmake
    name=$1 compiler=$2
    shift 2
    echo "== $name"
    cmake -S "$here/tests" -B "$build/$name" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_CXX_COMPILER="$compiler" "$@" >/dev/null
    cmake --build "$build/$name" -j 2 >"$build/$name/log" 2>&1 || { cat "$build/$name/log"; exit 1; }
}

for what in $chosen; do
    case $what in
    gcc | clang)
        [ $what = gcc ] && compiler=$gcc || compiler=$clang
        [ -n "$compiler" ] || { skipped="$skipped $what"; continue; }
        make_it $what "$compiler"
        "$build/$what/test_sparse"
        NUCPRUNE_ISA=baseline NUCPRUNE_TEST_QUICK=1 "$build/$what/test_sparse"
        ;;
    address | undefined | thread)
        [ -n "$gcc$clang" ] || { skipped="$skipped $what"; continue; }
        make_it $what "${gcc:-$clang}" -DNUCPRUNE_SANITIZE=$what
        # ThreadSanitizer allows no threads in a child that forked from several.
        [ $what = thread ] && export NUCPRUNE_TEST_NO_FORK=1
        NUCPRUNE_TEST_QUICK=1 "$build/$what/test_sparse"
        unset NUCPRUNE_TEST_NO_FORK
        ;;
    arm)
        [ -n "$arm" ] && [ -n "$qemu" ] || { skipped="$skipped $what"; continue; }
        make_it arm "$arm" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
            -DCMAKE_EXE_LINKER_FLAGS=-static
        NUCPRUNE_TEST_QUICK=1 "$qemu" "$build/arm/test_sparse"
        ;;
    *)
        echo "unknown: $what" >&2
        exit 2
        ;;
    esac
done
[ -z "$skipped" ] || echo "skipped, the tools are missing:$skipped"
