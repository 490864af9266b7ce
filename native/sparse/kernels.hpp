// What the instruction sets offer to the executor: plain structs and function pointers, so that
// their translation units share no inline function with anybody (the linker would keep one copy,
// perhaps the AVX-512 one, for all).
//
// A row of a channel is (W / L) vectors of L lanes; lane l of vector j holds the pixel
// x = l * (W / L) + j. Every tap of a 3x3 convolution is then an aligned load of a neighbouring
// vector, pooling and 2x2 up-sampling need no shuffles, and the vectors just outside a row are
// those at its other end, shifted by one lane.
#pragma once

#include <cstdint>

namespace nucprune {

// A weight and where its input lies, in bytes from the output's first tap.
struct Entry {
    float value;
    int32_t offset;
};

// One output channel within a group of input channels: its next `count` entries.
struct Head {
    int32_t count;
    int32_t out, pooled;  // bytes from the block's first output
    float bias;
};

// Some input channels of one source, few enough to stay in L1 while all outputs use them. Heads are
// sorted by count: the loop's exit is then predicted.
struct Group {
    const Head *heads;
    const Head *heads_end;
    const Entry *entries;
    int32_t source;
};

// Where the first output's first tap lies. What a convolution reads may lie in two places: the
// level below, up-sampled, and the skip.
struct Source {
    const char *from;
    int64_t row;
};

// Memory that the next call will need, fetched meanwhile, a little with every block.
struct Ahead {
    const char *from;
    int64_t bytes;
};

struct ConvTask {
    const Group *groups;
    int32_t group_count;
    int32_t rows, vectors;  // of outputs, as far as the input goes (before up-sampling)
    Source in[2];
    char *out;
    int64_t out_row, out_vector;
    char *pooled;  // null, or where the 2x2 maxima go; then rows and vectors are even
    int64_t pooled_row;
    const char *mask;  // vectors of ones and zeros at out_vector from each other, or null
    float low;         // 0 for ReLU, minus infinity for none
    Ahead ahead[2];
    const int32_t *stop;  // null, or not 0 to stop
};

// Rows whose `reach` vectors beyond both ends are to be filled with those at the other end, shifted
// by one lane, zero entering; as far as they come from vectors [begin, end).
struct WrapTask {
    char *rows;  // vector 0 of channel 0 of the first
    int64_t row, channel;
    int32_t count, channels, vectors, reach, begin, end;
};

struct Kernels {
    const char *name;
    int32_t lanes;
    int32_t vector_limit;  // accumulators of a block
    int32_t group;         // input channels whose taps of a block fit into L1
    void (*conv)(const ConvTask &);
    void (*wrap)(const WrapTask &);
    double (*fma_chain)(int64_t rounds);  // `rounds` x 12 vector FMAs in registers
};

// Null where the build lacks them.
extern const Kernels *const kernels_avx512;
extern const Kernels *const kernels_avx2;
extern const Kernels *const kernels_neon;
extern const Kernels *const kernels_baseline;

}  // namespace nucprune
