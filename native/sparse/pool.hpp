// Threads of our own: no OpenMP, which would clash with torch's.
#pragma once

#include <cstdint>

namespace nucprune {

// Call fn(context, task) for every task in [0, tasks) with up to `threads` threads, the caller
// among them. Any number of callers may do so at once: a caller never waits for a thread that
// works for another one. Works in a forked child too, which makes its own threads.
void parallel(int32_t tasks, int32_t threads, void (*fn)(void *, int32_t), void *context);

template <class F>
void parallel(int32_t tasks, int32_t threads, F &&fn) {
    parallel(
        tasks, threads, [](void *context, int32_t task) { (*static_cast<F *>(context))(task); },
        const_cast<void *>(static_cast<const void *>(&fn)));
}

}  // namespace nucprune
