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

Source from(const View &view, int64_t y, int64_t j) { return {view.at(y, j), view.row}; }

// Rows [y0, y1) of a plane, as far as they exist.
Ahead ahead_of(const View &plane, int32_t y0, int32_t y1, int32_t height, int32_t reach) {
    y1 = std::min(y1, height);
    return y0 < y1 ? Ahead{plane.at(y0, -reach), (y1 - y0) * plane.row} : Ahead{nullptr, 0};
}

}  // namespace

// Some rows of a block of a band, in absolute rows and vectors. The views' origins are shifted so
// that these address the strips, too.
struct Workspace::Strip {
    int32_t j0, j1;          // vectors of the result
    int32_t y0, y1;          // rows of the result
    int32_t m0, m1, s0, s1;  // rows of middle and source that are new
    bool whole;              // the row is not cut in x
    int64_t middle_top, source_top;  // first rows in the strips
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
        // The rows beyond the top and the bottom are padding.
        if (pass.up >= 0 || (pass.down && pass.level > 0))
            for (int32_t y : {-1, level.height})
                zero_row(pass.up < 0 ? level.input : level.skip, y, -level.reach);
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
            // The last two rows of the strip before are the first two of this one; where there is
            // no room for more below them, they move up.
            auto carry = [&](View &view, const View &strip_view, int64_t &top_row, int64_t room,
                             int64_t row, int64_t first) {
                if (!start && row + pass.rows + 2 - top_row <= room) return;
                const View next = place(strip_view, row, first);
                if (!start)
                    std::memmove(next.at(row, first), view.at(row, first),
                                 static_cast<size_t>(2 * view.row));
                view = next;
                top_row = row;
            };
            carry(strip.middle, pass.middle, strip.middle_top, pass.kept, y - 1, j0 - 1);
            if (direct)
                strip.source = level.input;
            else
                carry(strip.source, pass.source, strip.source_top, pass.kept + 2,
                      start ? y - 2 : y, j0 - level.reach);
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

void Workspace::conv(const Stream &stream, const Source &in, const Source &skip, const View &out,
                     int64_t y, int64_t j, int32_t rows, int32_t vectors, const char *mask,
                     bool relu, std::initializer_list<Ahead> ahead, const Tile &tile,
                     const View *pooled) {
    ConvTask task{};
    task.groups = stream.groups();
    task.group_count = stream.group_count();
    task.rows = rows;
    task.vectors = vectors;
    task.in[0] = in;
    task.in[1] = skip;
    task.out = out.at(y, j);
    task.out_row = out.row;
    task.out_vector = out.vector;
    if (pooled) {
        task.pooled = pooled->at(y / 2, j / 2);
        task.pooled_row = pooled->row;
    }
    task.mask = mask;
    task.low = relu ? 0.0f : -std::numeric_limits<float>::infinity();
    std::copy(ahead.begin(), ahead.end(), task.ahead);
    task.stop = tile.cancel;
    kernels_.conv(task);
}

void Workspace::wrap(const View &view, int32_t channels, int32_t y0, int32_t y1, int32_t vectors,
                     int32_t reach, int32_t begin, int32_t end) {
    kernels_.wrap({view.at(y0, 0), view.row, view.channel, y1 - y0, channels, vectors, reach,
                   begin, end});
}

// The image's own pixels.
void Workspace::fill(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.conv1);
    const Level &level = levels_[pass.level];
    for (int32_t y = strip.s0; y < strip.s1; ++y) {
        const View &view = strip.source;
        if (y < 0 || y >= level.height) {
            zero_row(view, y, strip.j0 - level.reach);
            continue;
        }
        float *to = reinterpret_cast<float *>(view.at(y, strip.j0 - level.reach));
        const int64_t channel = view.channel / 4, at = y * tile.rgb_stride;
        auto pack = [&](auto *rgb) {
            pack_rgb(rgb + at, level.width, level.vectors, kernels_.lanes, strip.j0 - level.reach,
                     strip.j1 + level.reach, to, channel);
        };
        if (tile.is_float)
            pack(static_cast<const float *>(tile.rgb));
        else
            pack(static_cast<const uint8_t *>(tile.rgb));
    }
}

// The level below, up-sampled.
void Workspace::fill_up(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.up);
    const Level &level = levels_[pass.level], &below = levels_[pass.level + 1];
    const View &view = strip.source;
    for (int32_t y = strip.s0; y < strip.s1; ++y)
        if (y < 0 || y >= level.height) zero_row(view, y, strip.j0 - level.reach);
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
        conv(pass.streams[2 + x], from(below.result, y0 / 2, first), {}, out, y0 / 2, 0,
             (y1 - y0) / 2, vectors, level.ragged || !strip.whole ? level.mask + at : nullptr,
             false, {}, tile);
    }
    if (strip.whole)
        wrap(view, pass.in_channels, y0, y1, level.vectors, level.reach, 0, level.vectors);
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
    // What the next strip will read.
    const int32_t s1 = strip.s1, s2 = s1 + pass.rows;
    Ahead ahead{}, below{};
    if (strip.whole && pass.up >= 0) {
        const Level &lower = levels_[pass.level + 1];
        ahead = ahead_of(level.skip, s1, s2, level.height, level.reach);
        below = ahead_of(lower.result, s1 / 2, s2 / 2, lower.height, lower.reach);
    } else if (strip.whole && pass.level > 0) {
        ahead = ahead_of(level.input, s1, s2, level.height, level.reach);
    }
    conv(pass.streams[0], from(strip.source, y0 - 1, j0 - 1),
         pass.up < 0 ? Source{} : from(level.skip, y0 - 1, j0 - 1), view, y0, j0, y1 - y0,
         vectors, masked ? level.mask + j0 * view.vector : nullptr, true, {ahead, below}, tile);
    if (strip.whole)
        wrap(view, network_.layers()[pass.conv1].slots, y0, y1, level.vectors, 1, 0,
             level.vectors);
}

void Workspace::second(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.conv2);
    const Level &level = levels_[pass.level];
    const bool bottom = pass.level == network_.depth() - 1;
    const View &out = pass.head >= 0          ? strip.last
                      : pass.down && !bottom ? level.skip
                                             : level.result;
    const bool pools = pass.down && !bottom;
    const View *pooled = pools ? &levels_[pass.level + 1].input : nullptr;
    Ahead ahead{}, below{};
    if (strip.whole && pass.head < 0) {
        const int32_t y2 = strip.y1 + pass.rows;
        ahead = ahead_of(out, strip.y1, y2, level.height, level.reach);
        if (pools)
            below = ahead_of(*pooled, strip.y1 / 2, y2 / 2, level.height / 2,
                             levels_[pass.level + 1].reach);
    }
    conv(pass.streams[1], from(strip.middle, strip.y0 - 1, strip.j0 - 1), {}, out, strip.y0,
         strip.j0, strip.y1 - strip.y0, strip.j1 - strip.j0,
         level.ragged ? level.mask + strip.j0 * out.vector : nullptr, true, {ahead, below}, tile,
         pooled);
    // A transposed convolution reads nothing beyond a row, unless the row is cut.
    const bool beside = pools || (pass.level > 0 && levels_[pass.level - 1].reach > 1);
    if (pass.head < 0 && beside)
        wrap(out, pass.channels, strip.y0, strip.y1, level.vectors, level.reach, strip.j0,
             strip.j1);
    if (pools)
        wrap(*pooled, pass.channels, strip.y0 / 2, strip.y1 / 2, level.vectors / 2,
             levels_[pass.level + 1].reach, strip.j0 / 2, strip.j1 / 2);
}

void Workspace::finish(const Pass &pass, const Strip &strip, const Tile &tile) {
    const Timer timer(tile.layer_ns, pass.head);
    const Level &level = levels_[pass.level];
    View out = strip.last;
    out.origin += pass.channels * out.channel;
    conv(pass.streams[4], from(strip.last, strip.y0, strip.j0), {}, out, strip.y0, strip.j0,
         strip.y1 - strip.y0, strip.j1 - strip.j0, nullptr, false, {}, tile);
    for (int32_t y = strip.y0; y < strip.y1; ++y)
        unpack(reinterpret_cast<const float *>(out.at(y, strip.j0)), level.width, level.vectors,
               kernels_.lanes, strip.j0, strip.j1, tile.out + y * tile.out_stride);
}

}  // namespace nucprune
