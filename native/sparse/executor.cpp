#include "executor.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "pool.hpp"

namespace nucprune {
namespace {

bool cancelled(const Tile &tile) {
    return tile.cancel && __atomic_load_n(tile.cancel, __ATOMIC_RELAXED);
}

// Adds the time of a scope to a layer.
class Timer {
  public:
    Timer(int64_t *layers, int32_t layer) : to_(layers ? layers + layer : nullptr) {
        if (to_) begun_ = std::chrono::steady_clock::now();
    }
    ~Timer() {
        if (!to_) return;
        const auto spent = std::chrono::steady_clock::now() - begun_;
        __atomic_fetch_add(
            to_, int64_t{std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count()},
            __ATOMIC_RELAXED);
    }
    Timer(const Timer &) = delete;
    Timer &operator=(const Timer &) = delete;

  private:
    int64_t *to_;
    std::chrono::steady_clock::time_point begun_;
};

void zero_row(const View &view, int64_t y, int64_t first) {
    std::memset(view.at(y, first), 0, static_cast<size_t>(view.row));
}

// Rows [y0, y1) of a plane, as far as they exist.
Ahead ahead_of(const View &plane, int32_t y0, int32_t y1, int32_t height) {
    y1 = std::min(y1, height);
    return y0 < y1 ? Ahead{plane.at(y0, -2), (y1 - y0) * plane.row} : Ahead{nullptr, 0};
}

}  // namespace

// Some rows of a block of a band, in absolute rows and vectors. The views' origins are shifted so
// that these address the strips, too.
struct Workspace::Strip {
    int32_t j0, j1;          // vectors of the result
    int32_t y0, y1;          // rows of the result
    int32_t m0, m1, s0, s1;  // rows of middle and source that are new
    bool whole;              // the row is not cut in x
    View source, middle, last;
};

bool Workspace::run(const Tile &tile) {
    plan(tile);
    done_ = 0;
    total_ = 0;
    for (const Pass &pass : passes_) total_ += pass.work * levels_[pass.level].height;
    if (tile.progress) __atomic_store_n(tile.progress, 0, __ATOMIC_RELAXED);
    for (const Pass &pass : passes_) {
        const Level &level = levels_[pass.level];
        if (pass.down && pass.level > 0)
            for (int32_t y : {-1, level.height}) zero_row(level.input, y, -2);
        parallel(pass.bands, threads_, [&](int32_t band) { run_band(pass, band, tile); });
        if (cancelled(tile)) return false;
    }
    if (tile.progress) __atomic_store_n(tile.progress, 1000, __ATOMIC_RELAXED);
    return true;
}

void Workspace::run_band(const Pass &pass, int32_t band, const Tile &tile) {
    const Level &level = levels_[pass.level];
    auto cut = [&](int64_t i) {  // even: rows are pooled and up-sampled in pairs
        return i == pass.bands ? level.height
                               : static_cast<int32_t>(level.height * i / pass.bands) & ~1;
    };
    const int32_t top = cut(band), bottom = cut(band + 1);
    char *base = scratch_ + band * pass.band_bytes;
    const bool direct = pass.down && pass.level > 0;
    for (int32_t j0 = 0; j0 < level.vectors; j0 += pass.vectors) {
        Strip strip{};
        strip.j0 = j0;
        strip.j1 = std::min(j0 + pass.vectors, level.vectors);
        strip.whole = pass.blocks == 1;
        auto place = [&](const View &view, int64_t y, int64_t j) {
            View moved = view;
            moved.origin = base + reinterpret_cast<int64_t>(view.origin) - y * view.row -
                           j * view.vector;
            return moved;
        };
        for (int32_t y = top; y < bottom; y = strip.y1) {
            const bool start = y == top;
            strip.y0 = y;
            strip.y1 = std::min(y + pass.rows, bottom);
            strip.m0 = start ? y - 1 : y + 1;
            strip.m1 = strip.y1 + 1;
            strip.s0 = start ? y - 2 : y + 2;
            strip.s1 = strip.m1 + 1;
            // The last two rows of the strip before are the first two of this one.
            auto carry = [&](View &view, const View &strip_view, int64_t row, int64_t first) {
                const View next = place(strip_view, row, first);
                if (!start)
                    std::memmove(next.at(row, first), view.at(row, first),
                                 static_cast<size_t>(2 * view.row));
                view = next;
            };
            carry(strip.middle, pass.middle, y - 1, j0 - 1);
            if (direct)
                strip.source = level.input;
            else
                carry(strip.source, pass.source, start ? y - 2 : y, j0 - 2);
            if (pass.head >= 0) strip.last = place(pass.last, y, j0);
            if (pass.up >= 0)
                fill_up(pass, strip, tile);
            else if (!direct)
                fill(pass, strip, tile);
            first(pass, strip, tile);
            second(pass, strip, tile);
            if (pass.head >= 0) finish(pass, strip, tile);
            if (cancelled(tile)) return;
            // A block's share, as all blocks together make the row.
            const int64_t share = pass.work * (strip.y1 - y) * (strip.j1 - j0) / level.vectors;
            const int64_t now = done_.fetch_add(share, std::memory_order_relaxed) + share;
            if (tile.progress)
                __atomic_store_n(tile.progress,
                                 static_cast<int32_t>(std::min<int64_t>(999, now * 1000 / total_)),
                                 __ATOMIC_RELAXED);
        }
    }
}

void Workspace::conv(const Stream &stream, const View &in, const View &out, int64_t in_y,
                     int64_t in_j, int64_t out_y, int64_t out_j, int32_t rows, int32_t vectors,
                     const char *mask, bool relu, const Ahead &ahead, const Tile &tile) {
    ConvTask task{};
    task.groups = stream.groups();
    task.group_count = stream.group_count();
    task.rows = rows;
    task.vectors = vectors;
    task.in = in.at(in_y, in_j);
    task.in_row = in.row;
    task.out = out.at(out_y, out_j);
    task.out_row = out.row;
    task.out_vector = out.vector;
    task.mask = mask;
    task.low = relu ? 0.0f : -std::numeric_limits<float>::infinity();
    task.ahead = ahead;
    task.stop = tile.cancel;
    kernels_.conv(task);
}

// The image's own pixels.
void Workspace::fill(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.conv1);
    const Level &level = levels_[pass.level];
    for (int32_t y = strip.s0; y < strip.s1; ++y) {
        const View &view = strip.source;
        if (y < 0 || y >= level.height) {
            zero_row(view, y, strip.j0 - 2);
            continue;
        }
        float *to = reinterpret_cast<float *>(view.at(y, strip.j0 - 2));
        const int64_t channel = view.channel / 4, at = y * tile.rgb_stride;
        auto pack = [&](auto *rgb) {
            pack_rgb(rgb + at, level.width, level.vectors, kernels_.lanes, strip.j0 - 2,
                     strip.j1 + 2, to, channel);
        };
        if (tile.is_float)
            pack(static_cast<const float *>(tile.rgb));
        else
            pack(static_cast<const uint8_t *>(tile.rgb));
    }
}

// The level below, up-sampled, and beside it the skip.
void Workspace::fill_up(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.up);
    const Level &level = levels_[pass.level], &below = levels_[pass.level + 1];
    const View &view = strip.source;
    for (int32_t y = strip.s0; y < strip.s1; ++y)
        if (y < 0 || y >= level.height) zero_row(view, y, strip.j0 - 2);
    const int32_t y0 = std::max(strip.s0, 0), y1 = std::min(strip.s1, level.height);
    if (y0 >= y1) return;
    const int32_t first = strip.whole ? 0 : strip.j0 / 2 - 1;
    const int32_t vectors = strip.whole ? below.vectors : (strip.j1 - strip.j0) / 2 + 2;
    View out = view;
    out.vector = 2 * view.vector;
    out.row = 2 * view.row;
    for (int32_t x = 0; x < 2; ++x) {
        const int64_t at = (2 * int64_t{first} + x) * view.vector;
        out.origin = view.origin + at;
        conv(pass.streams[2 + x], below.result, out, y0 / 2, first, y0 / 2, 0, (y1 - y0) / 2,
             vectors, level.ragged || !strip.whole ? level.mask + at : nullptr, false, {}, tile);
    }
    const int32_t up = network_.layers()[pass.up].slots;
    if (strip.whole) wrap(view, up, y0, y1, level.vectors, kernels_.lanes, 2, 0, level.vectors);
    const int64_t row = (strip.j1 - strip.j0 + 4) * view.vector;
    for (int32_t y = y0; y < y1; ++y) {
        char *to = view.at(y, strip.j0 - 2) + up * view.channel;
        const char *from = level.skip.at(y, strip.j0 - 2);
        const int32_t channels = pass.in_channels - up;
        if (strip.whole)
            std::memcpy(to, from, static_cast<size_t>(channels * row));
        else
            for (int32_t c = 0; c < channels; ++c)
                std::memcpy(to + c * view.channel, from + c * level.skip.channel,
                            static_cast<size_t>(row));
    }
}

void Workspace::first(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.conv1);
    const Level &level = levels_[pass.level];
    const View &view = strip.middle;
    for (int32_t y = strip.m0; y < strip.m1; ++y)
        if (y < 0 || y >= level.height) zero_row(view, y, strip.j0 - 1);
    const int32_t y0 = std::max(strip.m0, 0), y1 = std::min(strip.m1, level.height);
    if (y0 >= y1) return;
    const int32_t j0 = strip.whole ? 0 : strip.j0 - 1;
    const int32_t vectors = strip.whole ? level.vectors : strip.j1 - strip.j0 + 2;
    const bool masked = level.ragged || !strip.whole;
    conv(pass.streams[0], strip.source, view, y0 - 1, j0 - 1, y0, j0, y1 - y0, vectors,
         masked ? level.mask + j0 * view.vector : nullptr, true,
         strip.whole && pass.up < 0 && pass.level > 0
             ? ahead_of(level.input, strip.s1, strip.s1 + pass.rows, level.height)
             : Ahead{},
         tile);
    if (strip.whole)
        wrap(view, network_.layers()[pass.conv1].slots, y0, y1, level.vectors, kernels_.lanes, 1,
             0, level.vectors);
}

void Workspace::second(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.conv2);
    const Level &level = levels_[pass.level];
    const bool bottom = pass.level == network_.depth() - 1;
    const View &out = pass.head >= 0          ? strip.last
                      : pass.down && !bottom ? level.skip
                                             : level.result;
    conv(pass.streams[1], strip.middle, out, strip.y0 - 1, strip.j0 - 1, strip.y0, strip.j0,
         strip.y1 - strip.y0, strip.j1 - strip.j0,
         level.ragged ? level.mask + strip.j0 * out.vector : nullptr, true,
         strip.whole && pass.head < 0
             ? ahead_of(out, strip.y1, strip.y1 + pass.rows, level.height)
             : Ahead{},
         tile);
    if (pass.head >= 0) return;
    wrap(out, pass.channels, strip.y0, strip.y1, level.vectors, kernels_.lanes, 2, strip.j0,
         strip.j1);
    if (!pass.down || bottom) return;
    const View &pooled = levels_[pass.level + 1].input;
    for (int32_t y = strip.y0; y < strip.y1; y += 2)
        kernels_.pool({out.at(y, strip.j0), out.row, out.channel, pooled.at(y / 2, strip.j0 / 2),
                       pooled.channel, pass.channels, (strip.j1 - strip.j0) / 2});
    wrap(pooled, pass.channels, strip.y0 / 2, strip.y1 / 2, level.vectors / 2, kernels_.lanes, 2,
         strip.j0 / 2, strip.j1 / 2);
}

void Workspace::finish(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.head);
    const Level &level = levels_[pass.level];
    View out = strip.last;
    out.origin += pass.channels * out.channel;
    conv(pass.streams[4], strip.last, out, strip.y0, strip.j0, strip.y0, strip.j0,
         strip.y1 - strip.y0, strip.j1 - strip.j0, nullptr, false, {}, tile);
    for (int32_t y = strip.y0; y < strip.y1; ++y)
        unpack(reinterpret_cast<const float *>(out.at(y, strip.j0)), level.width, level.vectors,
               kernels_.lanes, strip.j0, strip.j1, tile.out + y * tile.out_stride);
}

}  // namespace nucprune
