#include "streams.hpp"

#include <algorithm>

namespace nucprune {

void Stream::link(const Network &network, int32_t index, const Strides &s, int32_t phase_x,
                  int32_t channels_a_group) {
    const Layer &layer = network.layers()[index];
    const Weight *weights = network.weights(index);
    const std::vector<int32_t> slots = network.input_slots(layer);
    // The slots of each source are shared out evenly.
    struct Part {
        int32_t slot, used, group, groups;
    };
    auto part = [&](int32_t slot, int32_t used, int32_t group) {
        return Part{slot, used, group, (used + channels_a_group - 1) / channels_a_group};
    };
    const int32_t used = 1 + *std::max_element(slots.begin(), slots.end());
    const int32_t own =
        layer.skip < 0 ? used : std::min(used, network.layers()[layer.source].slots);
    const Part first = part(0, own, 0), second = part(own, used - own, first.groups);
    const int32_t groups = std::max(1, first.groups + second.groups);

    // By position: where the input lies and in which group.
    const int32_t positions = layer.inputs * layer.taps;
    offsets_.assign(positions, 0);
    group_of_.assign(positions, 0);
    for (int32_t input = 0, p = 0; input < layer.inputs; ++input)
        for (int32_t tap = 0; tap < layer.taps; ++tap, ++p) {
            if (slots[input] < 0) continue;  // no weight reads it
            const bool skip = slots[input] >= own;
            const Part &of = skip ? second : first;
            const Strides::In &in = skip ? s.skip : s.in;
            const int32_t slot = slots[input] - of.slot;
            int64_t offset = slot * in.channel;
            if (layer.kind == Kind::conv) {
                const int32_t place = layer.taps == 9 ? tap : 4;
                offset += place / 3 * in.row + place % 3 * s.vector;
            }
            offsets_[p] = static_cast<int32_t>(offset);
            group_of_[p] = of.group + slot * of.groups / of.used;
        }

    struct Row {
        const Output *output;
        int32_t out, pooled;
    };
    std::vector<Row> rows;
    const bool up = layer.kind == Kind::up;
    for (int32_t channel = 0; channel < layer.outputs; ++channel) {
        if (layer.slot[channel] < 0) continue;
        for (int32_t y = 0; y < (up ? 2 : 1); ++y) {
            const int64_t out = layer.slot[channel] * s.out_channel + y * s.out_row;
            rows.push_back({&layer.result[static_cast<size_t>(channel) * layer.phases + 2 * y +
                                          phase_x],
                            static_cast<int32_t>(out),
                            static_cast<int32_t>(layer.slot[channel] * s.pooled_channel)});
        }
    }
    const int32_t n = static_cast<int32_t>(rows.size());

    // Count, sort each group's outputs by their count, lay out, fill.
    counts_.assign(static_cast<size_t>(n) * groups, 0);
    int64_t total = 0;
    for (int32_t row = 0; row < n; ++row) {
        const Output &output = *rows[row].output;
        total += output.count;
        if (groups == 1) {
            counts_[row] = output.count;
            continue;
        }
        const Weight *weight = weights + output.begin;
        for (int32_t i = 0; i < output.count; ++i)
            ++counts_[static_cast<size_t>(group_of_[weight[i].position]) * n + row];
    }
    entries_.resize(total);
    heads_.clear();
    groups_.assign(groups, {});
    at_.resize(counts_.size());
    int64_t filled = 0;
    std::vector<size_t> bounds{0};
    for (int32_t group = 0; group < groups; ++group) {
        const int32_t *count = counts_.data() + static_cast<size_t>(group) * n;
        const int32_t most = n ? *std::max_element(count, count + n) : 0;
        starts_.assign(most + 2, 0);
        for (int32_t row = 0; row < n; ++row) ++starts_[count[row] + 1];
        for (int32_t i = 0; i <= most; ++i) starts_[i + 1] += starts_[i];
        order_.resize(n);
        for (int32_t row = 0; row < n; ++row) order_[starts_[count[row]]++] = row;
        groups_[group].entries = entries_.data() + filled;
        groups_[group].source = group < first.groups ? 0 : 1;
        for (int32_t row : order_) {
            // Between the first group and the last an output without weights has nothing to do.
            if (count[row] == 0 && group > 0 && group < groups - 1) continue;
            heads_.push_back(
                {count[row], rows[row].out, rows[row].pooled, rows[row].output->bias});
            at_[static_cast<size_t>(group) * n + row] = filled;
            filled += count[row];
        }
        bounds.push_back(heads_.size());
    }
    for (int32_t group = 0; group < groups; ++group) {
        groups_[group].heads = heads_.data() + bounds[group];
        groups_[group].heads_end = heads_.data() + bounds[group + 1];
    }
    for (int32_t row = 0; row < n; ++row) {
        const Output &output = *rows[row].output;
        const Weight *weight = weights + output.begin;
        for (int32_t i = 0; i < output.count; ++i) {
            const int32_t p = weight[i].position;
            entries_[at_[static_cast<size_t>(group_of_[p]) * n + row]++] = {weight[i].value,
                                                                           offsets_[p]};
        }
    }
}

}  // namespace nucprune
