// The C ABI: checks what comes in, and lets no exception out.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "dispatch.hpp"
#include "executor.hpp"
#include "nucprune_sparse.h"

using nucprune::Kernels;
using nucprune::Network;
using nucprune::Workspace;

struct nucprune_sparse_net {
    Network network;
    const Kernels &kernels;
    // One workspace is kept between runs; runs at once bring their own. Without a lock, so that a
    // fork cannot leave it taken.
    std::atomic<Workspace *> spare{nullptr};

    nucprune_sparse_net(const int32_t *widths, int32_t depth, const int32_t *sizes,
                        const Kernels &chosen)
        : network(widths, depth, sizes), kernels(chosen) {}
    ~nucprune_sparse_net() { delete spare.load(); }
    nucprune_sparse_net(const nucprune_sparse_net &) = delete;
    nucprune_sparse_net &operator=(const nucprune_sparse_net &) = delete;
};

namespace {

void tell(const std::string &text, char *error, int64_t size) {
    if (!error || size <= 0) return;
    const size_t length = std::min(text.size(), static_cast<size_t>(size - 1));
    std::memcpy(error, text.data(), length);
    error[length] = '\0';
}

const Kernels *chosen(const char *name, char *error, int64_t error_size) {
    std::string why;
    const Kernels *kernels = nucprune::choose_kernels(name ? name : "", why);
    if (!kernels) tell(why, error, error_size);
    return kernels;
}

constexpr int32_t kMostDepth = 8, kMostWidth = 1 << 14, kMostSide = 1 << 16;

}  // namespace

int32_t nucprune_sparse_abi(void) { return NUCPRUNE_SPARSE_ABI; }

const char *nucprune_sparse_isa(char *error, int64_t error_size) try {
    const Kernels *kernels = chosen(nullptr, error, error_size);
    return kernels ? kernels->name : nullptr;
} catch (const std::bad_alloc &) {
    tell("Out of memory.", error, error_size);
    return nullptr;
}

int32_t nucprune_sparse_has_isa(const char *name) try {
    return name && *name && chosen(name, nullptr, 0);
} catch (const std::bad_alloc &) {
    return 0;
}

nucprune_sparse_net *nucprune_sparse_create(const int32_t *widths, int32_t depth,
                                            const int32_t *kernels, const char *isa, char *error,
                                            int64_t error_size) try {
    bool good = widths && depth >= 1 && depth <= kMostDepth;
    for (int32_t i = 0; good && i < depth; ++i) good = widths[i] >= 1 && widths[i] <= kMostWidth;
    for (int32_t i = 0; good && kernels && i < 5 * depth - 2; ++i) {
        const bool conv = i < 2 * depth || (i < 5 * depth - 3 && (i - 2 * depth) % 3);
        good = !conv || kernels[i] == 1 || kernels[i] == 3;
    }
    if (!good) {
        tell("The network is not a U-Net of 1 to 8 levels with 3x3 or 1x1 convolutions.", error,
             error_size);
        return nullptr;
    }
    const Kernels *found = chosen(isa, error, error_size);
    return found ? new nucprune_sparse_net(widths, depth, kernels, *found) : nullptr;
} catch (const std::bad_alloc &) {
    tell("The memory does not hold the network.", error, error_size);
    return nullptr;
}

void nucprune_sparse_free(nucprune_sparse_net *net) { delete net; }

int32_t nucprune_sparse_load(nucprune_sparse_net *net, const float *const *weights,
                             const float *const *biases, const uint8_t *const *masks,
                             int32_t threads) try {
    if (!net || !weights || !biases) return NUCPRUNE_INVALID;
    net->network.load(weights, biases, masks, threads);
    return NUCPRUNE_OK;
} catch (const std::bad_alloc &) {
    return NUCPRUNE_NO_MEMORY;
}

void nucprune_sparse_count(const nucprune_sparse_net *net, int64_t *nonzero, int64_t *live) {
    if (nonzero) *nonzero = net->network.nonzero();
    if (live) *live = net->network.live();
}

int32_t nucprune_sparse_run(nucprune_sparse_net *net, const void *rgb, int32_t is_float,
                            int64_t rgb_stride, int64_t height, int64_t width, float *out,
                            int64_t out_stride, int32_t threads, const int32_t *cancel,
                            int32_t *progress, int64_t *layer_ns) try {
    if (!net || !net->network.loaded() || !rgb || !out) return NUCPRUNE_INVALID;
    const int64_t grid = int64_t{1} << (net->network.depth() - 1);
    if (height < 1 || width < 1 || height > kMostSide || width > kMostSide || height % grid ||
        width % grid || rgb_stride < 3 * width || out_stride < width)
        return NUCPRUNE_INVALID;
    std::unique_ptr<Workspace> workspace(net->spare.exchange(nullptr));
    if (!workspace) workspace.reset(new Workspace(net->network, net->kernels));
    const bool done = workspace->run({rgb, is_float != 0, rgb_stride, static_cast<int32_t>(height),
                                      static_cast<int32_t>(width), out, out_stride, threads,
                                      cancel, progress, layer_ns});
    delete net->spare.exchange(workspace.release());
    return done ? NUCPRUNE_OK : NUCPRUNE_CANCELLED;
} catch (const std::bad_alloc &) {
    return NUCPRUNE_NO_MEMORY;
}

double nucprune_sparse_roof(const nucprune_sparse_net *net) {
    using Clock = std::chrono::steady_clock;
    constexpr int64_t kRounds = 200000;
    double best = 0, sink = 0;
    for (int i = 0; i < 12; ++i) {
        const auto begun = Clock::now();
        sink += net->kernels.fma_chain(kRounds);
        const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
        best = std::max(best, 12.0 * net->kernels.lanes * kRounds / seconds);
    }
    return sink == -1 ? 0 : best;  // the sums are used
}
