#!/usr/bin/env bash
# Builds the watershed's and the unpacking's C++ tests with every compiler here, without a warning, and runs them: plain,
# under AddressSanitizer with UBSan, under ThreadSanitizer, and for aarch64 under qemu.
set -euo pipefail
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
watershed=(version.cpp watershed/*.cpp tests/test_watershed.cpp)
packed=(packed/*.cpp tests/test_packed.cpp)
flags=(-std=c++17 -O2 -g -Wall -Wextra -Werror -Iinclude -pthread)
tried=0

try() { # NAME COMPILER [FLAG ...]; RUNNER is put before the program
    local name=$1 compiler=$2
    shift 2
    if ! command -v "$compiler" >/dev/null; then
        echo "$name: skipped, no $compiler here"
        return
    fi
    for what in watershed packed; do
        local -n sources=$what
        "$compiler" "${flags[@]}" "$@" "${sources[@]}" -o "$out/test"
        echo -n "$what, $name: "
        ${RUNNER:-} "$out/test"
    done
    tried=$((tried + 1))
}

clang=$(command -v clang++ clang++-{14..22} | head -n 1 || true)
for compiler in g++ "${clang:-clang++}"; do
    try "$(basename "$compiler")" "$compiler"
    try "$(basename "$compiler"), ASan and UBSan" "$compiler" \
        -fsanitize=address,undefined -fno-sanitize-recover=all
    try "$(basename "$compiler"), TSan" "$compiler" -fsanitize=thread
done
if command -v qemu-aarch64-static >/dev/null; then
    RUNNER=qemu-aarch64-static try "aarch64 under qemu" aarch64-linux-gnu-g++ -static
else
    echo "aarch64: skipped, no qemu-aarch64-static here"
fi
((tried > 0)) || { echo "no C++ compiler here" >&2; exit 1; }
