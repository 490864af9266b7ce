#include "layout.hpp"

#include <algorithm>
#include <array>

namespace nucprune {
namespace {

const std::array<float, 256> kUnit = [] {
    std::array<float, 256> table{};
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i) / 255.0f;
    return table;
}();

inline float unit(uint8_t value) { return kUnit[value]; }
inline float unit(float value) { return value / 255.0f; }

// The vectors [begin, end) whose pixel of this lane lies in [0, width).
struct Span {
    int32_t begin, end;
    Span(int32_t lane, int32_t width, int32_t vectors, int32_t first, int32_t last) {
        const int32_t x = lane * vectors;
        begin = std::clamp(-x, first, last);
        end = std::clamp(width - x, begin, last);
    }
};

template <class T>
void pack(const T *rgb, int32_t width, int32_t vectors, int32_t lanes, int32_t begin, int32_t end,
          float *to, int64_t channel) {
    for (int32_t lane = 0; lane < lanes; ++lane) {
        const Span inside(lane, width, vectors, begin, end);
        float *out = to + lane;
        int32_t j = begin;
        auto zeros = [&](int32_t until) {
            for (; j < until; ++j, out += lanes) out[0] = out[channel] = out[2 * channel] = 0;
        };
        zeros(inside.begin);
        const T *from = rgb + 3 * (int64_t{1} * lane * vectors + j);
        for (; j < inside.end; ++j, out += lanes, from += 3) {
            out[0] = unit(from[0]);
            out[channel] = unit(from[1]);
            out[2 * channel] = unit(from[2]);
        }
        zeros(end);
    }
}

}  // namespace

void pack_rgb(const uint8_t *rgb, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
              int32_t end, float *to, int64_t channel) {
    pack(rgb, width, vectors, lanes, begin, end, to, channel);
}

void pack_rgb(const float *rgb, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
              int32_t end, float *to, int64_t channel) {
    pack(rgb, width, vectors, lanes, begin, end, to, channel);
}

void unpack(const float *from, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
            int32_t end, float *to) {
    for (int32_t lane = 0; lane < lanes; ++lane) {
        const Span inside(lane, width, vectors, begin, end);
        const float *in = from + int64_t{1} * (inside.begin - begin) * lanes + lane;
        float *out = to + int64_t{1} * lane * vectors;
        for (int32_t j = inside.begin; j < inside.end; ++j, in += lanes) out[j] = *in;
    }
}

}  // namespace nucprune
