// Where everything lies: planes that outlive a level, strips that do not, and the weights' streams
// for these strides.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "executor.hpp"

namespace nucprune {
namespace {

constexpr std::align_val_t kLine{64};
// Rows of a strip, and how many strips share a buffer before its last rows move up. Measured on
// Zen 4: 2 or 4 rows, and 1 to 3 strips, differ by less than 5 %.
constexpr int32_t kRows = 4, kKept = 2;
constexpr int32_t kWidest = 96, kBlock = 64;  // vectors of a row, uncut and cut
constexpr int32_t kReach = 2;  // vectors beyond both ends of a cut row: one a convolution

int64_t row_bytes(int64_t channels, int64_t vectors, int64_t vector) {
    return std::max<int64_t>(channels, 1) * vectors * vector;
}

}  // namespace

Workspace::Workspace(const Network &network, const Kernels &kernels)
    : network_(network), kernels_(kernels) {}

Workspace::~Workspace() { ::operator delete(memory_, kLine); }

void Workspace::allocate(int64_t bytes) {
    if (bytes <= bytes_) return;
    ::operator delete(memory_, kLine);
    memory_ = nullptr;
    bytes_ = 0;
    memory_ = static_cast<char *>(::operator new(static_cast<size_t>(bytes), kLine));
    bytes_ = bytes;
}

void Workspace::plan(const Tile &tile) {
    const int32_t threads = std::max(tile.threads, 1);
    if (generation_ == network_.generation() && tile.height == height_ && tile.width == width_ &&
        threads == threads_)
        return;
    generation_ = 0;  // until everything below has succeeded
    const int32_t depth = network_.depth(), lanes = kernels_.lanes;
    // Every level's row is a whole number of vectors.
    const int32_t unit = lanes << (depth - 1);
    const int32_t padded = (tile.width + unit - 1) / unit * unit;
    height_ = tile.height;
    width_ = tile.width;
    threads_ = threads;
    levels_.assign(depth, {});
    for (int32_t i = 0; i < depth; ++i) {
        Level &level = levels_[i];
        level.height = height_ >> i;
        level.width = width_ >> i;
        level.vectors = (padded >> i) / lanes;
        level.ragged = padded != width_;
        level.reach = level.vectors > kWidest ? kReach : 1;
    }
    passes_.clear();
    const bool single = depth == 1;
    for (int32_t i = 0; i < depth; ++i) {
        Pass pass{};
        pass.level = i;
        pass.down = true;
        pass.conv1 = network_.encoder(i, 0);
        pass.conv2 = network_.encoder(i, 1);
        pass.up = -1;
        pass.head = single ? network_.head() : -1;
        passes_.push_back(std::move(pass));
    }
    for (int32_t i = depth - 2; i >= 0; --i) {
        Pass pass{};
        pass.level = i;
        pass.down = false;
        pass.up = network_.decoder(i, 0);
        pass.conv1 = network_.decoder(i, 1);
        pass.conv2 = network_.decoder(i, 2);
        pass.head = i == 0 ? network_.head() : -1;
        passes_.push_back(std::move(pass));
    }
    lay_out();
    for (Pass &pass : passes_) link(pass);
    generation_ = network_.generation();
}

void Workspace::lay_out() {
    const auto &layers = network_.layers();
    const int64_t vector = int64_t{4} * kernels_.lanes;
    int64_t size = 0;
    auto take = [&](int64_t bytes) {
        const int64_t at = size;
        size += (bytes + 63) / 64 * 64;
        return at;
    };
    // Offsets at first, addresses once the memory is there.
    auto view = [&](int64_t at, int64_t channels, int64_t vectors, int64_t above, int64_t left) {
        View made{nullptr, row_bytes(channels, vectors, vector), vectors * vector, vector};
        made.origin = reinterpret_cast<char *>(at + above * made.row + left * vector);
        return made;
    };
    std::vector<View *> views;
    const int32_t depth = network_.depth();
    std::vector<int64_t> masks;
    for (int32_t i = 0; i < depth; ++i) {
        Level &level = levels_[i];
        const int64_t vectors = level.vectors + 2 * level.reach, rows = level.height + 2;
        const bool bottom = i == depth - 1;
        const int32_t skip = layers[network_.encoder(i, 1)].slots;
        const int32_t input = i ? layers[network_.encoder(i - 1, 1)].slots : 0;
        const int32_t result = bottom ? skip : layers[network_.decoder(i, 2)].slots;
        masks.push_back(take((level.vectors + 2 * kReach) * vector));
        if (!bottom) {
            level.skip = view(take(rows * row_bytes(skip, vectors, vector)), skip, vectors, 1,
                              level.reach);
            views.push_back(&level.skip);
        }
        if (i == 0) continue;
        // The bottom level reads its input while it writes its result.
        const int64_t a = rows * row_bytes(input, vectors, vector);
        const int64_t b = rows * row_bytes(result, vectors, vector);
        const int64_t at = take(bottom ? a : std::max(a, b));
        level.input = view(at, input, vectors, 1, level.reach);
        level.result = view(bottom ? take(b) : at, result, vectors, 1, level.reach);
        views.insert(views.end(), {&level.input, &level.result});
    }
    // Entries address three rows with 32 bits; what does not fit is beyond any memory, too.
    for (const Level &level : levels_)
        for (int64_t row : {level.input.row, level.skip.row, level.result.row})
            if (3 * row > std::numeric_limits<int32_t>::max()) throw std::bad_alloc();
    int64_t scratch = 0;
    for (Pass &pass : passes_) {
        const Level &level = levels_[pass.level];
        pass.rows = std::min(kRows, level.height);
        pass.kept = kKept * pass.rows + 2;
        pass.blocks = level.vectors > kWidest ? (level.vectors + kBlock - 1) / kBlock : 1;
        const int32_t cut = (level.vectors / 2 + pass.blocks - 1) / pass.blocks * 2;
        pass.vectors = pass.blocks == 1 ? level.vectors : cut;
        pass.bands = std::max(1, std::min(threads_, level.height / 8));
        const bool direct = pass.down && pass.level > 0;
        pass.channels = layers[pass.conv2].slots;
        pass.in_channels = 3;
        if (pass.up >= 0) pass.in_channels = layers[pass.up].slots;
        const int64_t width = pass.vectors, before = size;
        size = 0;
        if (!direct) {
            const int64_t vectors = width + 2 * level.reach;
            const int64_t bytes = (pass.kept + 2) * row_bytes(pass.in_channels, vectors, vector);
            pass.source = view(take(bytes), pass.in_channels, vectors, 0, 0);
        }
        const int32_t middle = layers[pass.conv1].slots;
        pass.middle =
            view(take(pass.kept * row_bytes(middle, width + 2, vector)), middle, width + 2, 0, 0);
        if (pass.head >= 0)  // and a channel for the head's own output
            pass.last = view(take(pass.rows * row_bytes(pass.channels + 1, width, vector)),
                             pass.channels + 1, width, 0, 0);
        pass.band_bytes = size;
        scratch = std::max(scratch, size * pass.bands);
        size = before;
    }
    const int64_t scratch_at = take(scratch);
    allocate(size);
    scratch_ = memory_ + scratch_at;
    for (View *each : views) each->origin = memory_ + reinterpret_cast<int64_t>(each->origin);
    for (int32_t i = 0; i < depth; ++i) {
        Level &level = levels_[i];
        level.mask = memory_ + masks[i] + kReach * vector;
        int32_t *mask = reinterpret_cast<int32_t *>(memory_ + masks[i]);
        for (int32_t j = -kReach; j < level.vectors + kReach; ++j)
            for (int32_t lane = 0; lane < kernels_.lanes; ++lane) {
                const int32_t x = lane * level.vectors + j;
                *mask++ = x >= 0 && x < level.width ? -1 : 0;
            }
    }
}

void Workspace::link(Pass &pass) {
    const auto &layers = network_.layers();
    const Level &level = levels_[pass.level];
    const bool direct = pass.down && pass.level > 0;
    const View &source = direct ? level.input : pass.source;
    const bool plane = pass.head < 0;
    const bool bottom = pass.level == network_.depth() - 1;
    const View &out = !plane ? pass.last : pass.down && !bottom ? level.skip : level.result;
    const int64_t vector = source.vector;
    const int32_t group = kernels_.group;
    pass.streams[0].link(network_, pass.conv1,
                         {{source.row, source.channel}, vector, 0, pass.middle.channel,
                          {level.skip.row, level.skip.channel}}, 0, group);
    pass.streams[1].link(network_, pass.conv2,
                         {{pass.middle.row, pass.middle.channel}, vector, 0, out.channel, {0, 0},
                          pass.down && !bottom ? levels_[pass.level + 1].input.channel : 0},
                         0, group);
    if (pass.up >= 0) {
        const View &below = levels_[pass.level + 1].result;
        for (int32_t x = 0; x < 2; ++x)
            pass.streams[2 + x].link(
                network_, pass.up,
                {{below.row, below.channel}, vector, source.row, source.channel}, x, 4 * group);
    }
    if (pass.head >= 0)
        pass.streams[4].link(network_, pass.head,
                             {{pass.last.row, pass.last.channel}, vector, 0, 0}, 0, 4 * group);
    int64_t weights = 0;
    for (int32_t layer : {pass.conv1, pass.conv2, pass.up, pass.head})
        for (const Output &output : layer < 0 ? std::vector<Output>{} : layers[layer].result)
            weights += output.count;
    // Some work is there without weights, too.
    pass.work = (weights + 4 * (pass.in_channels + pass.channels)) * level.vectors;
}

}  // namespace nucprune
