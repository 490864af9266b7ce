#include "network.hpp"

#include <algorithm>
#include <cstring>

#include "pool.hpp"

namespace nucprune {
namespace {

// Call fn(index) for each byte of [0, n) that is not 0, eight at a time: most are.
template <class F>
inline void each_kept(const uint8_t *mask, int32_t n, F &&fn) {
    int32_t at = 0;
    for (; at + 8 <= n; at += 8) {
        uint64_t word;
        std::memcpy(&word, mask + at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        // Bit 0 of each byte says whether it is not 0; of the kept ones the first is the lowest.
        word |= word >> 4;
        word |= word >> 2;
        word |= word >> 1;
        for (word &= 0x0101010101010101u; word; word &= word - 1)
            fn(at + __builtin_ctzll(word) / 8);
    }
    for (; at < n; ++at)
        if (mask[at]) fn(at);
}

}  // namespace

Network::Network(const int32_t *widths, int32_t depth, const int32_t *kernels) : depth_(depth) {
    auto add = [&](Kind kind, int32_t inputs, int32_t outputs, int32_t source, int32_t level) {
        const size_t index = layers_.size();
        const bool wide = kind == Kind::conv && !(kernels && kernels[index] == 1);
        Layer &layer = layers_.emplace_back();
        layer.kind = kind;
        layer.inputs = inputs;
        layer.outputs = outputs;
        layer.taps = wide ? 9 : 1;
        layer.phases = kind == Kind::up ? 4 : 1;
        layer.source = source;
        layer.level = level;
        return static_cast<int32_t>(index);
    };
    int32_t last = -1;
    for (int32_t level = 0; level < depth; ++level) {
        last = add(Kind::conv, level ? widths[level - 1] : 3, widths[level], last, level);
        last = add(Kind::conv, widths[level], widths[level], last, level);
    }
    for (int32_t level = depth - 2; level >= 0; --level) {
        const int32_t width = widths[level];
        last = add(Kind::up, widths[level + 1], width, last, level);
        last = add(Kind::conv, 2 * width, width, last, level);
        layers_[last].skip = encoder(level, 1);
        last = add(Kind::conv, width, width, last, level);
    }
    add(Kind::head, widths[0], 1, last, 0);

    int64_t total = 0;
    for (Layer &layer : layers_) {
        start_.push_back(total);
        total += layer.size();
        layer.result.resize(static_cast<size_t>(layer.outputs) * layer.phases);
        layer.slot.assign(layer.outputs, -1);
    }
    weights_.reset(new Weight[total]);
}

std::vector<int32_t> Network::input_slots(const Layer &layer) const {
    if (layer.source < 0) return {0, 1, 2};
    std::vector<int32_t> slots = layers_[layer.source].slot;
    if (layer.skip >= 0)
        for (int32_t slot : layers_[layer.skip].slot)
            slots.push_back(slot < 0 ? -1 : slot + layers_[layer.source].slots);
    return slots;
}

// Outputs [begin, end) of one layer.
void Network::take(int32_t index, int32_t begin, int32_t end, const float *weights,
                   const uint8_t *mask) {
    Layer &layer = layers_[index];
    Weight *all = weights_.get() + start_[index];
    const int32_t row = layer.inputs * layer.taps;
    auto finish = [&](int32_t out, const Weight *to) {
        Output &result = layer.result[out];
        result.begin = int64_t{1} * out * row;
        result.count = static_cast<int32_t>(to - (all + result.begin));
        result.bias = layer.bias[out / layer.phases];
    };
    // Where a weight does not count, the next overwrites it.
    if (layer.kind != Kind::up) {
        for (int32_t out = begin; out < end; ++out) {
            const int64_t at = int64_t{1} * out * row;
            const float *from = weights + at;
            Weight *to = all + at;
            auto add = [&](int32_t i) {
                *to = {from[i], i};
                to += from[i] != 0;
            };
            if (mask)
                each_kept(mask + at, row, add);
            else
                for (int32_t i = 0; i < row; ++i) add(i);
            finish(out, to);
        }
        return;
    }
    // A transposed one's weights lie the other way round: some outputs at once, else every weight
    // would touch a line of its own.
    constexpr int32_t kAtOnce = 16;
    const int64_t column = int64_t{1} * layer.outputs * layer.phases;
    for (int32_t first = begin; first < end; first += kAtOnce) {
        const int32_t n = std::min(kAtOnce, end - first);
        Weight *to[kAtOnce];
        for (int32_t i = 0; i < n; ++i) to[i] = all + int64_t{1} * (first + i) * row;
        for (int32_t in = 0; in < layer.inputs; ++in) {
            const float *from = weights + in * column + first;
            auto add = [&](int32_t i) {
                *to[i] = {from[i], in};
                to[i] += from[i] != 0;
            };
            if (mask)
                each_kept(mask + in * column + first, n, add);
            else
                for (int32_t i = 0; i < n; ++i) add(i);
        }
        for (int32_t i = 0; i < n; ++i) finish(first + i, to[i]);
    }
}

void Network::load(const float *const *weights, const float *const *biases,
                   const uint8_t *const *masks, int32_t threads) {
    struct Part {
        int32_t layer, begin, end;
    };
    std::vector<Part> parts;
    for (int32_t index = 0; index <= head(); ++index) {
        Layer &layer = layers_[index];
        layer.bias.assign(biases[index], biases[index] + layer.outputs);
        const int64_t outputs = int64_t{1} * layer.outputs * layer.phases;
        const int64_t count = std::max<int64_t>(1, std::min(outputs, layer.size() >> 15));
        for (int64_t i = 0; i < count; ++i)
            parts.push_back({index, static_cast<int32_t>(outputs * i / count),
                             static_cast<int32_t>(outputs * (i + 1) / count)});
    }
    parallel(static_cast<int32_t>(parts.size()), threads, [&](int32_t i) {
        const Part &part = parts[i];
        take(part.layer, part.begin, part.end, weights[part.layer],
             masks ? masks[part.layer] : nullptr);
    });
    nonzero_ = live_ = 0;
    for (const Layer &layer : layers_)
        for (const Output &output : layer.result) nonzero_ += output.count;
    eliminate();
    for (const Layer &layer : layers_)
        for (const Output &output : layer.result) live_ += output.count;
    ++generation_;
}

// Exact: an output without weights is the constant of its bias. A channel of zeros contributes
// nothing, not even at the border. Another constant folds into the bias of what reads it without
// padding; to a 3x3 it is not constant (outside the image there are zeros), so there it stays a
// channel. Being constant depends only on earlier layers and being needed only on later ones: one
// pass forward and one backward reach the fixpoint.
void Network::eliminate() {
    struct Channel {
        bool constant = false;
        float value = 0;
    };
    std::vector<std::vector<Channel>> channels(layers_.size());
    std::vector<Channel> inputs;
    auto gather = [&](const Layer &layer) {
        inputs.clear();
        if (layer.source < 0) inputs.resize(3);
        for (int32_t from : {layer.source, layer.skip})
            if (from >= 0)
                inputs.insert(inputs.end(), channels[from].begin(), channels[from].end());
    };
    for (size_t index = 0; index < layers_.size(); ++index) {
        Layer &layer = layers_[index];
        gather(layer);
        const bool folds = layer.taps == 1;
        const bool any = std::any_of(inputs.begin(), inputs.end(), [&](const Channel &channel) {
            return channel.constant && (folds || channel.value == 0);
        });
        Weight *all = weights_.get() + start_[index];
        for (Output &output : layer.result) {
            if (!any) break;
            Weight *const begin = all + output.begin, *to = begin;
            for (const Weight *from = begin; from != begin + output.count; ++from) {
                const Channel &input = inputs[from->position / layer.taps];
                if (input.constant && (folds || input.value == 0))
                    output.bias += from->value * input.value;
                else
                    *to++ = *from;
            }
            output.count = static_cast<int32_t>(to - begin);
        }
        channels[index].resize(layer.outputs);
        for (int32_t out = 0; out < layer.outputs; ++out) {
            const Output *results = &layer.result[static_cast<size_t>(out) * layer.phases];
            Channel &channel = channels[index][out];
            channel.constant = true;
            channel.value = results[0].bias;
            for (int32_t phase = 0; phase < layer.phases; ++phase)
                channel.constant = channel.constant && results[phase].count == 0 &&
                                   results[phase].bias == channel.value;
            if (layer.kind == Kind::conv) channel.value = std::max(channel.value, 0.0f);
        }
    }
    std::vector<std::vector<bool>> needed(layers_.size());
    for (size_t index = 0; index < layers_.size(); ++index)
        needed[index].assign(layers_[index].outputs, false);
    needed.back()[0] = true;
    std::vector<uint8_t> reads;
    for (int32_t index = head(); index >= 0; --index) {
        Layer &layer = layers_[index];
        layer.slots = 0;
        reads.assign(layer.inputs, 0);
        int32_t missing = layer.inputs;
        for (int32_t out = 0; out < layer.outputs; ++out) {
            layer.slot[out] = needed[index][out] ? layer.slots++ : -1;
            for (int32_t phase = 0; phase < layer.phases; ++phase) {
                Output &output = layer.result[static_cast<size_t>(out) * layer.phases + phase];
                if (!needed[index][out]) output.count = 0;
                const Weight *weight = weights(index) + output.begin;
                for (int32_t i = 0; i < output.count && missing > 0; ++i) {
                    uint8_t &seen = reads[weight[i].position / layer.taps];
                    missing -= 1 - seen;
                    seen = 1;
                }
            }
        }
        // A skip is read by two layers: what one needs, the other must not take away.
        const int32_t first = layer.skip < 0 ? layer.inputs : layers_[layer.source].outputs;
        for (int32_t input = 0; input < layer.inputs && layer.source >= 0; ++input)
            if (reads[input]) {
                if (input < first)
                    needed[layer.source][input] = true;
                else
                    needed[layer.skip][input - first] = true;
            }
    }
}

}  // namespace nucprune
