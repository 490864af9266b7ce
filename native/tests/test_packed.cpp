// The unpacking of packed checkpoints: places, ends, and streams that lie.

#include "nucprune_packed.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace {

void expect(bool right, const char *what) {
    if (right) return;
    std::printf("failed: %s\n", what);
    std::exit(1);
}

struct Streams {
    std::vector<uint8_t> distances, planes[4];
    int64_t kept = 0;
};

Streams coded(const std::vector<float> &flat) {
    Streams out;
    std::vector<uint32_t> bits;
    int64_t last = -1;
    for (int64_t i = 0; i < static_cast<int64_t>(flat.size()); ++i) {
        if (flat[i] == 0) continue;
        int64_t step = i - last;
        for (; step > 255; step -= 255) out.distances.push_back(0);
        out.distances.push_back(static_cast<uint8_t>(step));
        last = i;
        uint32_t own;
        std::memcpy(&own, &flat[i], sizeof own);
        bits.push_back((own << 1) | (own >> 31));
    }
    out.kept = static_cast<int64_t>(bits.size());
    for (int plane = 0; plane < 4; ++plane)
        for (uint32_t own : bits)
            out.planes[plane].push_back(static_cast<uint8_t>(own >> (8 * plane)));
    return out;
}

int32_t put(const Streams &s, std::vector<float> &flat, int64_t kept, int32_t bytes = 4) {
    const uint8_t *planes[4];
    for (int i = 0; i < 4; ++i) planes[i] = s.planes[i].data();
    return nucprune_place(s.distances.data(), static_cast<int64_t>(s.distances.size()), planes,
                          kept, bytes, flat.data(), static_cast<int64_t>(flat.size()));
}

std::vector<uint8_t> bits_of(const std::vector<float> &flat) {
    std::vector<uint8_t> bits((flat.size() + 7) / 8);
    for (size_t i = 0; i < flat.size(); ++i)
        if (flat[i] != 0) bits[i / 8] |= static_cast<uint8_t>(1 << i % 8);
    return bits;
}

int32_t put_bits(const Streams &s, const std::vector<uint8_t> &bits, std::vector<float> &flat,
                 int64_t kept) {
    const uint8_t *planes[4];
    for (int i = 0; i < 4; ++i) planes[i] = s.planes[i].data();
    return nucprune_place_bits(bits.data(), planes, kept, 4, flat.data(),
                               static_cast<int64_t>(flat.size()));
}

}  // namespace

int main() {
    std::mt19937 draw(1);
    for (double density : {0.9, 0.1, 0.002, 0.0}) {
        std::vector<float> flat(20003);
        for (float &value : flat)
            if (std::uniform_real_distribution<>(0, 1)(draw) < density)
                value = std::normal_distribution<float>()(draw);
        const Streams s = coded(flat);
        std::vector<float> found(flat.size());
        expect(put(s, found, s.kept) == NUCPRUNE_PACKED_WHOLE, "count");
        expect(found == flat, "values");
        std::vector<float> by_bits(flat.size());
        std::vector<uint8_t> bits = bits_of(flat);
        expect(put_bits(s, bits, by_bits, s.kept) == NUCPRUNE_PACKED_WHOLE, "count of bits");
        expect(by_bits == flat, "values by bits");
        if (!s.kept) continue;
        expect(put_bits(s, bits, by_bits, s.kept - 1) == NUCPRUNE_PACKED_INVALID, "more bits");
        const std::vector<uint8_t> fewer(bits.size());
        expect(put_bits(s, fewer, by_bits, s.kept) == NUCPRUNE_PACKED_INVALID, "fewer bits");
        bits.back() |= 0x80;
        expect(put_bits(s, bits, by_bits, s.kept) == NUCPRUNE_PACKED_INVALID, "bits over the end");
        std::vector<float> again(flat.size());
        expect(put(s, again, s.kept - 1) == NUCPRUNE_PACKED_INVALID, "more than there are");
        std::vector<float> small(flat.size() / 2);
        expect(put(s, small, s.kept) == NUCPRUNE_PACKED_INVALID, "over the end");
        expect(put(s, again, s.kept, 3) == NUCPRUNE_PACKED_INVALID, "three bytes");
    }
    std::vector<float> none;
    expect(put(Streams{}, none, 0) == NUCPRUNE_PACKED_WHOLE, "nothing");
    std::printf("ok\n");
    return 0;
}
