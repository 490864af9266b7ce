// What the steps share.
#pragma once

#include "nucprune_watershed.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace nucprune {

inline bool is_image(int64_t height, int64_t width) {
    const int64_t most = std::numeric_limits<int32_t>::max() - 1;
    return height > 0 && width > 0 && height <= most / width;
}

// Nothing may leave through the C interface.
template <class Work>
auto guarded(Work work) -> decltype(work()) {
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return NUCPRUNE_WATERSHED_NO_MEMORY;
    }
}

// Call work(next) on several threads; next() gives each of 0 .. items - 1 to one of them, then -1.
template <class Work>
void parallel(int64_t items, int32_t threads, Work work) {
    std::atomic<int64_t> taken{0};
    std::atomic<bool> no_memory{false};
    const auto next = [&]() -> int64_t {
        const int64_t item = taken++;
        return item < items ? item : -1;
    };
    const auto guarded_work = [&] {
        try {
            work(next);
        } catch (const std::bad_alloc &) {
            no_memory = true;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < std::min<int64_t>(items, threads); ++i)
            others.emplace_back(guarded_work);
    } catch (const std::system_error &) {  // no more threads to be had: those there are suffice
    } catch (const std::bad_alloc &) {
    }
    guarded_work();
    for (std::thread &other : others) other.join();
    if (no_memory) throw std::bad_alloc();
}

}  // namespace nucprune
