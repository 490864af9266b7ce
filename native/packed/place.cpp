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

// The values in order; `ready(n)` makes the next n <= 64 lie at `next`, or says that there are fewer.
template <class Value>
class Values {
  public:
    Values(const Value &value, int64_t kept) : value_(value), kept_(kept) {}
    bool ready(int64_t n) {
        if (end_ - next < n) fill();
        return end_ - next >= n;
    }
    bool used_up() const { return done_ == kept_ && next == end_; }
    // One more may be read than there are.
    const float *next = block_;

  private:
    void fill() {
        const int64_t rest = end_ - next;
        std::memmove(block_, next, sizeof(float) * static_cast<size_t>(rest));
        const int64_t more = std::min(BLOCK, kept_ - done_);
        float *to = block_ + rest;
        for (int64_t j = 0; j < more; ++j) to[j] = value_(done_ + j);
        done_ += more;
        next = block_;
        end_ = to + more;
    }
    Value value_;
    int64_t kept_, done_ = 0;
    float block_[BLOCK + 64 + 1] = {};
    const float *end_ = block_;
};

struct Distances {
    const uint8_t *from;
    int64_t entries;

    template <class Value>
    bool place(Values<Value> values, float *flat, int64_t total) const {
        int64_t at = -1;
        for (int64_t i = 0; i < entries; ++i) {
            const int64_t step = from[i];
            at += step ? step : 255;
            if (at >= total) return false;
            if (!step) continue;
            if (!values.ready(1)) return false;
            flat[at] = *values.next++;
        }
        return values.used_up();
    }
};

struct Bits {
    const uint8_t *from;

    template <class Value>
    bool place(Values<Value> values, float *flat, int64_t total) const {
        for (int64_t at = 0; at < total; at += 64) {
            const int64_t rest = std::min<int64_t>(total - at, 64);
            uint64_t bits = 0;
            for (int64_t i = 0; 8 * i < rest; ++i) bits |= uint64_t{from[at / 8 + i]} << 8 * i;
            if ((rest < 64 && bits >> rest) || !values.ready(ones(bits))) return false;
            const float *next = values.next;
            float *to = flat + at;
            // No branches: they would be guessed wrongly at every other bit.
            for (int64_t i = 0; i < rest; ++i, bits >>= 1) {
                const uint32_t bit = bits & 1;
                uint32_t value;
                std::memcpy(&value, next, sizeof value);
                value &= 0u - bit;
                std::memcpy(to + i, &value, sizeof value);
                next += bit;
            }
            values.next = next;
        }
        return values.used_up();
    }

    static int64_t ones(uint64_t x) {
        x -= x >> 1 & 0x5555555555555555u;
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
        return static_cast<int64_t>(x * 0x0101010101010101u >> 56);
    }
};

template <class Places>
int32_t place(const Places &places, const uint8_t *const *planes, int64_t kept, int32_t bytes,
              float *flat, int64_t total) {
    if (kept < 0 || total < 0) return NUCPRUNE_PACKED_INVALID;
    bool whole = false;
    if (bytes == 4) {
        const uint8_t *a = planes[0], *b = planes[1], *c = planes[2], *d = planes[3];
        auto value = [=](int64_t i) {
            return of_single(a[i] | uint32_t{b[i]} << 8 | uint32_t{c[i]} << 16 | uint32_t{d[i]} << 24);
        };
        whole = places.place(Values<decltype(value)>(value, kept), flat, total);
    } else if (bytes == 2) {
        const uint8_t *a = planes[0], *b = planes[1];
        auto value = [=](int64_t i) { return of_half(a[i] | uint32_t{b[i]} << 8); };
        whole = places.place(Values<decltype(value)>(value, kept), flat, total);
    }
    return whole ? NUCPRUNE_PACKED_WHOLE : NUCPRUNE_PACKED_INVALID;
}

}  // namespace

int32_t nucprune_place(const uint8_t *distances, int64_t entries, const uint8_t *const *planes,
                       int64_t kept, int32_t bytes, float *flat, int64_t total) {
    if (entries < 0) return NUCPRUNE_PACKED_INVALID;
    return place(Distances{distances, entries}, planes, kept, bytes, flat, total);
}

int32_t nucprune_place_bits(const uint8_t *bits, const uint8_t *const *planes, int64_t kept,
                            int32_t bytes, float *flat, int64_t total) {
    return place(Bits{bits}, planes, kept, bytes, flat, total);
}
