// One branch: its layers, and what is left of them once dead channels are gone.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.hpp"

namespace nucprune {

// A nonzero weight: input channel * taps + tap, taps row by row (1 of 1x1, 9 of 3x3).
struct Weight {
    float value;
    int32_t position;
};

// A run of weights that make one output, and its bias with everything constant folded in. A
// transposed convolution has four outputs a channel, one for each pixel of its 2x2.
struct Output {
    int64_t begin = 0;
    int32_t count = 0;
    float bias = 0;
};

enum class Kind { conv, up, head };

struct Layer {
    Kind kind;
    int32_t inputs, outputs, taps;
    int32_t phases;    // outputs a channel: 4 where transposed, else 1
    int32_t source;    // the layer that makes (the first part of) the input, -1 for the image
    int32_t skip = -1;  // the layer whose channels follow those of the source, or -1
    int32_t level;     // of the output
    int64_t size() const { return int64_t{1} * inputs * outputs * taps * phases; }

    std::vector<float> bias;
    std::vector<Output> result;  // outputs * phases
    // Where an output channel lies in the buffers, -1 where nobody needs it.
    std::vector<int32_t> slot;
    int32_t slots = 0;
};

class Network {
  public:
    Network(const int32_t *widths, int32_t depth, const int32_t *kernels);

    // Take the nonzero weights (all threads), then drop what cannot change the output.
    void load(const float *const *weights, const float *const *biases, const uint8_t *const *masks,
              int32_t threads);

    const std::vector<Layer> &layers() const { return layers_; }
    int32_t depth() const { return depth_; }
    int32_t encoder(int32_t level, int32_t which) const { return 2 * level + which; }
    // 0 the transposed convolution that leads to this level, 1 and 2 the convolutions.
    int32_t decoder(int32_t level, int32_t which) const {
        return 2 * depth_ + 3 * (depth_ - 2 - level) + which;
    }
    int32_t head() const { return static_cast<int32_t>(layers_.size()) - 1; }
    const Weight *weights(int32_t layer) const { return weights_.get() + start_[layer]; }
    // Slots of a layer's input channels in the buffer it reads (-1: dropped).
    std::vector<int32_t> input_slots(const Layer &layer) const;
    bool loaded() const { return generation_ != 0; }
    // Changes with every load.
    int64_t generation() const { return generation_; }
    int64_t nonzero() const { return nonzero_; }
    int64_t live() const { return live_; }

  private:
    void take(int32_t layer, int32_t begin, int32_t end, const float *weights,
              const uint8_t *mask);
    void eliminate();

    int32_t depth_;
    std::vector<Layer> layers_;
    // Each output's weights start where its dense row would: no counting pass is needed, and
    // memory that stays untouched costs nothing.
    std::vector<int64_t> start_;
    std::unique_ptr<Weight[]> weights_;
    int64_t generation_ = 0, nonzero_ = 0, live_ = 0;
};

}  // namespace nucprune
