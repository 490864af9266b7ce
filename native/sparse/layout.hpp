// Moving pixels between images and rows of lane-wise vectors (kernels.hpp says how they lie).
#pragma once

#include <cstdint>

namespace nucprune {

// Rows of vectors; `origin` is vector 0 of channel 0 of row 0, strides are in bytes.
struct View {
    char *origin;
    int64_t row, channel, vector;
    char *at(int64_t y, int64_t j) const { return origin + y * row + j * vector; }
};

// One image row (RGB, 0..255) to vectors [begin, end) of three channels, divided by 255; pixels
// outside [0, width) are zero. `vectors` is the whole row's number.
void pack_rgb(const uint8_t *rgb, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
              int32_t end, float *to, int64_t channel);
void pack_rgb(const float *rgb, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
              int32_t end, float *to, int64_t channel);

// Vectors [begin, end) of one channel's row to the pixels they hold.
void unpack(const float *from, int32_t width, int32_t vectors, int32_t lanes, int32_t begin,
            int32_t end, float *to);

}  // namespace nucprune
