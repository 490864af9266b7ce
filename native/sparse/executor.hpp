// Runs a network on a tile.
//
// A level at a time, and within it in strips of a few rows, so that what lies between two
// convolutions stays in L2: the strip's input (RGB, the level above pooled, or the level below
// up-sampled, with the skip) -> convolution -> convolution -> what outlives the level (skip,
// pooled, or the level's result). Very wide tiles are cut in x too, with a vector recomputed at
// each cut. Threads take bands of rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "layout.hpp"
#include "network.hpp"
#include "streams.hpp"

namespace nucprune {

struct Tile {
    const void *rgb;
    bool is_float;
    int64_t rgb_stride;
    int32_t height, width;
    float *out;
    int64_t out_stride;
    int32_t threads;
    const int32_t *cancel;
    int32_t *progress;
    int64_t *layer_ns;
};

// Memory and streams for runs of one network, one run at a time; kept between runs of equal size.
class Workspace {
  public:
    Workspace(const Network &network, const Kernels &kernels);
    ~Workspace();
    Workspace(const Workspace &) = delete;
    Workspace &operator=(const Workspace &) = delete;

    // False where it was cancelled. Throws std::bad_alloc.
    bool run(const Tile &tile);

  private:
    struct Level {
        int32_t height, width, vectors;
        int32_t reach;  // vectors beyond both ends of a row
        bool ragged;  // the last lanes' pixels lie beyond the image
        char *mask;   // of vector 0; two more on both sides
        View input, skip, result;  // input: pooled from the level above, in the result's memory
    };
    struct Pass {
        int32_t level;
        bool down;
        int32_t conv1, conv2, up, head;  // layers; up and head may be -1
        int32_t rows, vectors;           // of a strip's output
        int32_t kept;                    // rows that the middle's strip has room for
        int32_t blocks, bands;           // cuts in x and in y
        int32_t in_channels, channels;  // in the strips: without the skip's
        View source, middle, last;  // a band's strips, of band 0; rows count from their start
        int64_t band_bytes;
        int64_t work;
        Stream streams[5];  // conv1, conv2, the two columns of up, head
    };
    void plan(const Tile &tile);
    void lay_out();
    void link(Pass &pass);
    void allocate(int64_t bytes);
    void run_band(const Pass &pass, int32_t band, const Tile &tile);
    struct Strip;
    void fill(const Pass &pass, const Strip &strip, const Tile &tile);
    void fill_up(const Pass &pass, const Strip &strip, const Tile &tile);
    void first(const Pass &pass, const Strip &strip, const Tile &tile);
    void second(const Pass &pass, const Strip &strip, const Tile &tile);
    void finish(const Pass &pass, const Strip &strip, const Tile &tile);
    void conv(const Stream &stream, const Source &in, const Source &skip, const View &out,
              int64_t y, int64_t j, int32_t rows, int32_t vectors, const char *mask, bool relu,
              std::initializer_list<Ahead> ahead, const Tile &tile, const View *pooled = nullptr);
    void wrap(const View &view, int32_t channels, int32_t y0, int32_t y1, int32_t vectors,
              int32_t reach, int32_t begin, int32_t end);

    const Network &network_;
    const Kernels &kernels_;
    int64_t generation_ = 0;
    int32_t height_ = 0, width_ = 0, threads_ = 0;
    std::vector<Level> levels_;
    std::vector<Pass> passes_;
    char *memory_ = nullptr, *scratch_ = nullptr;
    int64_t bytes_ = 0;
    std::atomic<int64_t> done_{0};
    int64_t total_ = 0;
};

}  // namespace nucprune
