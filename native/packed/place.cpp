// The values of a packed checkpoint to their places: one pass, so that nothing is kept in between.

#include "nucprune_packed.h"

#include <algorithm>
#include <cstring>

namespace {

float of_single(uint32_t rotated) {
    const uint32_t bits = (rotated >> 1) | (rotated << 31);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float of_half(uint32_t rotated) {
    const uint32_t half = ((rotated >> 1) | (rotated << 15)) & 0xffffu;
    const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31u, rest = half & 0x3ffu;
    uint32_t bits;
    if (exponent == 0) {
        // Exact: ten bits times a power of two.
        const float tiny = static_cast<float>(rest) * 5.9604644775390625e-8f;
        std::memcpy(&bits, &tiny, sizeof bits);
        bits |= sign;
    } else {
        bits = sign | ((exponent == 31 ? 255u : exponent + 112u) << 23) | (rest << 13);
    }
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Values that are put together before they are put to their places: the compiler does that in vectors.
constexpr int64_t BLOCK = 512;

template <class Value>
int64_t place(const uint8_t *distances, int64_t entries, int64_t kept, float *flat, int64_t total,
              const Value &value) {
    float block[BLOCK];
    int64_t at = -1, done = 0, used = 0, filled = 0;
    for (int64_t i = 0; i < entries; ++i) {
        const int64_t step = distances[i];
        at += step ? step : 255;
        if (at >= total) return NUCPRUNE_PACKED_INVALID;
        if (!step) continue;
        if (used == filled) {
            if (done == kept) return NUCPRUNE_PACKED_INVALID;
            filled = std::min(BLOCK, kept - done);
            for (int64_t j = 0; j < filled; ++j) block[j] = value(done + j);
            done += filled;
            used = 0;
        }
        flat[at] = block[used++];
    }
    return done - (filled - used);
}

}  // namespace

int64_t nucprune_place(const uint8_t *distances, int64_t entries, const uint8_t *const *planes,
                       int64_t kept, int32_t bytes, float *flat, int64_t total) {
    if (entries < 0 || kept < 0 || total < 0) return NUCPRUNE_PACKED_INVALID;
    if (bytes == 4) {
        const uint8_t *a = planes[0], *b = planes[1], *c = planes[2], *d = planes[3];
        return place(distances, entries, kept, flat, total, [=](int64_t i) {
            return of_single(a[i] | uint32_t{b[i]} << 8 | uint32_t{c[i]} << 16 | uint32_t{d[i]} << 24);
        });
    }
    if (bytes == 2) {
        const uint8_t *a = planes[0], *b = planes[1];
        return place(distances, entries, kept, flat, total,
                     [=](int64_t i) { return of_half(a[i] | uint32_t{b[i]} << 8); });
    }
    return NUCPRUNE_PACKED_INVALID;
}
