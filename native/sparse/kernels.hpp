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
    int32_t out;  // bytes from the block's first output
    float bias;
};

// Some input channels, few enough to stay in L1 while all outputs use them. Heads are sorted by
// count: the loop's exit is then predicted.
struct Group {
    const Head *heads;
    const Head *heads_end;
    const Entry *entries;
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
    const char *in;
    int64_t in_row;
    char *out;
    int64_t out_row, out_vector;
    const char *mask;  // vectors of ones and zeros at out_vector from each other, or null
    float low;         // 0 for ReLU, minus infinity for none
    Ahead ahead;
    const int32_t *stop;  // null, or not 0 to stop
};

struct PoolTask {
    const char *in;
    int64_t in_row, in_channel;
    char *out;
    int64_t out_channel;
    int32_t channels, vectors;  // vectors of the output
};

struct Kernels {
    const char *name;
    int32_t lanes;
    int32_t vector_limit;  // accumulators of a block
    void (*conv)(const ConvTask &);
    void (*pool)(const PoolTask &);
    double (*fma_chain)(int64_t rounds);  // `rounds` x 12 vector FMAs in registers
};

// Null where the build lacks them.
extern const Kernels *const kernels_avx512;
extern const Kernels *const kernels_avx2;
extern const Kernels *const kernels_neon;
extern const Kernels *const kernels_baseline;

}  // namespace nucprune
