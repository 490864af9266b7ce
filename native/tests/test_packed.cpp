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

int64_t put(const Streams &s, std::vector<float> &flat, int64_t kept, int32_t bytes = 4) {
    const uint8_t *planes[4];
    for (int i = 0; i < 4; ++i) planes[i] = s.planes[i].data();
    return nucprune_place(s.distances.data(), static_cast<int64_t>(s.distances.size()), planes,
                          kept, bytes, flat.data(), static_cast<int64_t>(flat.size()));
}

}  // namespace

int main() {
    std::mt19937 draw(1);
    for (double density : {0.9, 0.1, 0.002, 0.0}) {
        std::vector<float> flat(20000);
        for (float &value : flat)
            if (std::uniform_real_distribution<>(0, 1)(draw) < density)
                value = std::normal_distribution<float>()(draw);
        const Streams s = coded(flat);
        std::vector<float> found(flat.size());
        expect(put(s, found, s.kept) == s.kept, "count");
        expect(found == flat, "values");
        if (!s.kept) continue;
        std::vector<float> again(flat.size());
        expect(put(s, again, s.kept - 1) == NUCPRUNE_PACKED_INVALID, "more than there are");
        std::vector<float> small(flat.size() / 2);
        expect(put(s, small, s.kept) == NUCPRUNE_PACKED_INVALID, "over the end");
        expect(put(s, again, s.kept, 3) == NUCPRUNE_PACKED_INVALID, "three bytes");
    }
    std::vector<float> none;
    expect(put(Streams{}, none, 0) == 0, "nothing");
    std::printf("ok\n");
    return 0;
}
