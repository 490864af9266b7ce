// A layer's weights as the kernels read them, for one geometry of the buffers.
#pragma once

#include <cstdint>
#include <vector>

#include "network.hpp"

namespace nucprune {

// Strides in bytes. `corner` is where the kernel's `in` points: one row and one vector before the
// output's own pixel for convolutions, on it for transposed ones and the head. `skip` is where the
// channels of the skip are read, if the layer has one.
struct Strides {
    struct In {
        int64_t row, channel;
    };
    In in;
    int64_t vector, out_row, out_channel;
    In skip = {0, 0};
    int64_t pooled_channel = 0;
};

class Stream {
  public:
    // phase_x: of a transposed convolution, which column of the 2x2; else 0.
    void link(const Network &network, int32_t layer, const Strides &strides, int32_t phase_x,
              int32_t channels_a_group);

    const Group *groups() const { return groups_.data(); }
    int32_t group_count() const { return static_cast<int32_t>(groups_.size()); }

  private:
    std::vector<Group> groups_;
    std::vector<Head> heads_;
    std::vector<Entry> entries_;
    std::vector<int32_t> counts_, order_, starts_, offsets_, group_of_;
    std::vector<int64_t> at_;
};

}  // namespace nucprune
