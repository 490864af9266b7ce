// The same network in double, as plainly as it can be written.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

struct Image {  // channels x height x width
    int c, h, w;
    std::vector<double> v;
    Image(int channels, int height, int width)
        : c(channels), h(height), w(width), v(static_cast<size_t>(channels) * height * width) {}
    double &at(int i, int y, int x) { return v[(static_cast<size_t>(i) * h + y) * w + x]; }
    double get(int i, int y, int x) const {
        if (y < 0 || x < 0 || y >= h || x >= w) return 0;
        return v[(static_cast<size_t>(i) * h + y) * w + x];
    }
};

struct Model {
    std::vector<int32_t> widths, kernels;
    std::vector<std::vector<float>> weights, biases;
    std::vector<std::vector<uint8_t>> masks;

    // density: part of the weights that the masks leave; some biases are zero, too.
    Model(std::vector<int32_t> levels, double density, unsigned seed, bool ones = false)
        : widths(std::move(levels)) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        std::uniform_real_distribution<double> uniform;
        const int depth = static_cast<int>(widths.size());
        auto add = [&](int in, int out, int kernel, int taps) {
            const size_t n = static_cast<size_t>(in) * out * taps;
            const float scale = std::sqrt(2.0f / (static_cast<float>(in * kernel * kernel)));
            std::vector<float> values(n), bias(out);
            std::vector<uint8_t> mask(n);
            for (float &x : values) x = scale * normal(random);
            for (float &x : bias) x = uniform(random) < 0.5 ? 0.0f : 0.3f * normal(random);
            for (uint8_t &x : mask) x = uniform(random) < density;
            kernels.push_back(kernel);
            weights.push_back(values);
            biases.push_back(bias);
            masks.push_back(mask);
        };
        auto conv = [&](int in, int out) {
            const int k = ones && uniform(random) < 0.3 ? 1 : 3;
            add(in, out, k, k * k);
        };
        for (int i = 0; i < depth; ++i) {
            conv(i ? widths[i - 1] : 3, widths[i]);
            conv(widths[i], widths[i]);
        }
        for (int i = depth - 2; i >= 0; --i) {
            add(widths[i + 1], widths[i], 1, 4);
            conv(2 * widths[i], widths[i]);
            conv(widths[i], widths[i]);
        }
        add(widths[0], 1, 1, 1);
    }

    int depth() const { return static_cast<int>(widths.size()); }
    int grid() const { return 1 << (depth() - 1); }
    double weight(int layer, size_t i) const {
        return masks[layer][i] ? static_cast<double>(weights[layer][i]) : 0.0;
    }

    Image conv(const Image &in, int layer, int outputs, bool relu) const {
        Image out(outputs, in.h, in.w);
        const int k = kernels[layer], r = k / 2;
        for (int o = 0; o < outputs; ++o)
            for (int y = 0; y < in.h; ++y)
                for (int x = 0; x < in.w; ++x)
                    out.at(o, y, x) = static_cast<double>(biases[layer][o]);
        size_t index = 0;
        for (int o = 0; o < outputs; ++o)
            for (int i = 0; i < in.c; ++i)
                for (int dy = -r; dy <= r; ++dy)
                    for (int dx = -r; dx <= r; ++dx) {
                        const double w = weight(layer, index++);
                        if (w == 0) continue;
                        for (int y = 0; y < in.h; ++y)
                            for (int x = 0; x < in.w; ++x)
                                out.at(o, y, x) += w * in.get(i, y + dy, x + dx);
                    }
        if (relu)
            for (double &x : out.v) x = std::max(x, 0.0);
        return out;
    }

    Image up(const Image &in, int layer, int outputs) const {
        Image out(outputs, 2 * in.h, 2 * in.w);
        for (int o = 0; o < outputs; ++o)
            for (int y = 0; y < out.h; ++y)
                for (int x = 0; x < out.w; ++x) {
                    double sum = static_cast<double>(biases[layer][o]);
                    for (int i = 0; i < in.c; ++i)
                        sum += in.get(i, y / 2, x / 2) *
                               weight(layer, ((static_cast<size_t>(i) * outputs + o) * 2 + y % 2) * 2 +
                                                 x % 2);
                    out.at(o, y, x) = sum;
                }
        return out;
    }

    std::vector<double> run(const std::vector<uint8_t> &rgb, int height, int width) const {
        Image x(3, height, width);
        for (int c = 0; c < 3; ++c)
            for (int y = 0; y < height; ++y)
                for (int i = 0; i < width; ++i)
                    x.at(c, y, i) = rgb[(static_cast<size_t>(y) * width + i) * 3 + c] / 255.0;
        std::vector<Image> skips;
        int layer = 0;
        for (int i = 0; i < depth(); ++i) {
            x = conv(x, layer++, widths[i], true);
            x = conv(x, layer++, widths[i], true);
            if (i == depth() - 1) break;
            skips.push_back(x);
            Image half(x.c, x.h / 2, x.w / 2);
            for (int c = 0; c < x.c; ++c)
                for (int y = 0; y < half.h; ++y)
                    for (int j = 0; j < half.w; ++j)
                        half.at(c, y, j) =
                            std::max({x.get(c, 2 * y, 2 * j), x.get(c, 2 * y, 2 * j + 1),
                                      x.get(c, 2 * y + 1, 2 * j), x.get(c, 2 * y + 1, 2 * j + 1)});
            x = half;
        }
        for (int i = depth() - 2; i >= 0; --i) {
            Image both = up(x, layer++, widths[i]);
            both.v.insert(both.v.end(), skips[i].v.begin(), skips[i].v.end());
            both.c *= 2;
            x = conv(both, layer++, widths[i], true);
            x = conv(x, layer++, widths[i], true);
        }
        return conv(x, layer, 1, false).v;
    }
};

inline std::vector<uint8_t> noise(int height, int width, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t> rgb(static_cast<size_t>(height) * width * 3);
    for (uint8_t &x : rgb) x = static_cast<uint8_t>(random() & 255);
    return rgb;
}
