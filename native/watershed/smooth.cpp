// A separable Gaussian, four rows at a time: columns first, into a buffer that stays in the cache.

#include "common.hpp"

#include <cmath>
#include <cstring>

namespace {

typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int32_t kLanes = 8, kRows = 4, kBlock = 4 * kLanes;

struct Plan {
    const float *const *rows;  // of the image, from -half on, reflected
    const float *kernel;       // taps, between kRows - 1 zeros on both sides
    const int32_t *columns;    // of the padded row, reflected
    int32_t height, width, half, taps;
    float *out;
};

// Nothing of std in here: the linker could keep this instruction set's copy for everybody.
#if defined(__GNUC__)
__attribute__((always_inline))
#endif
inline void smooth_rows(const Plan &plan, int32_t y, float *buffer, int64_t stride) {
    const float *const *rows = plan.rows + y;
    const int32_t width = plan.width, half = plan.half, taps = plan.taps;
    int32_t x = 0;
    for (; x + 2 * kLanes <= width; x += 2 * kLanes) {
        Vector sums[kRows][2] = {};
        for (int32_t t = 0; t < taps + kRows - 1; ++t) {
            const float *row = rows[t] + x;
            const Vector a = *reinterpret_cast<const Vector *>(row);
            const Vector b = *reinterpret_cast<const Vector *>(row + kLanes);
            const float *weight = plan.kernel + t + kRows - 1;
            for (int32_t r = 0; r < kRows; ++r) {
                sums[r][0] += weight[-r] * a;
                sums[r][1] += weight[-r] * b;
            }
        }
        for (int32_t r = 0; r < kRows; ++r)
            std::memcpy(buffer + r * stride + half + x, sums[r], sizeof sums[r]);
    }
    for (; x < width; ++x)
        for (int32_t r = 0; r < kRows; ++r) {
            float sum = 0;
            for (int32_t t = 0; t < taps; ++t)
                sum += plan.kernel[t + kRows - 1] * rows[t + r][x];
            buffer[r * stride + half + x] = sum;
        }
    for (int32_t r = 0; r < kRows && y + r < plan.height; ++r) {
        float *line = buffer + r * stride;
        for (int32_t i = 0; i < half; ++i) {
            line[i] = line[half + plan.columns[i]];
            line[half + width + i] = line[half + plan.columns[half + width + i]];
        }
        float *out = plan.out + static_cast<int64_t>(y + r) * width;
        for (x = 0; x < width; x += kBlock) {
            Vector sums[4] = {};
            for (int32_t t = 0; t < taps; ++t) {
                const float weight = plan.kernel[t + kRows - 1];
                for (int32_t i = 0; i < 4; ++i)
                    sums[i] += weight *
                               *reinterpret_cast<const Vector *>(line + x + t + i * kLanes);
            }
            const int32_t n = width - x < kBlock ? width - x : kBlock;
            std::memcpy(out + x, sums, static_cast<std::size_t>(n) * sizeof(float));
        }
    }
}

void smooth_plain(const Plan &plan, int32_t y, float *buffer, int64_t stride) {
    smooth_rows(plan, y, buffer, stride);
}

using Smooth = void (*)(const Plan &, int32_t, float *, int64_t);

// On Windows the check of the processor needs a library that clang-cl does not link.
#if defined(__x86_64__) && !defined(_WIN32)
__attribute__((target("avx2,fma"))) void smooth_avx2(const Plan &plan, int32_t y, float *buffer,
                                                     int64_t stride) {
    smooth_rows(plan, y, buffer, stride);
}

Smooth best() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? smooth_avx2
                                                                           : smooth_plain;
}
#else
Smooth best() { return smooth_plain; }
#endif

// Where -half .. n + half - 1 are in 0 .. n - 1 when the edges reflect, however often.
std::vector<int32_t> reflected(int32_t n, int32_t half, int32_t more) {
    std::vector<int32_t> found;
    for (int64_t i = -static_cast<int64_t>(half); i < static_cast<int64_t>(n) + half + more; ++i) {
        int64_t at = i % (2 * static_cast<int64_t>(n));
        if (at < 0) at += 2 * static_cast<int64_t>(n);
        found.push_back(static_cast<int32_t>(at < n ? at : 2 * static_cast<int64_t>(n) - 1 - at));
    }
    return found;
}

std::vector<float> gaussian(double sigma, int32_t half) {
    std::vector<double> weights;
    double sum = 0;
    for (int32_t i = -half; i <= half; ++i) {
        weights.push_back(std::exp(-0.5 * (i / sigma) * (i / sigma)));
        sum += weights.back();
    }
    std::vector<float> kernel(weights.size() + 2 * (kRows - 1), 0.f);
    for (std::size_t i = 0; i < weights.size(); ++i)
        kernel[i + kRows - 1] = static_cast<float>(weights[i] / sum);
    return kernel;
}

}  // namespace

int32_t nucprune_smooth(const float *in, int64_t height, int64_t width, double sigma, int32_t half,
                        int32_t threads, float *out) {
    if (!nucprune::is_image(height, width) || !(sigma > 0) || half < 0 || half > (1 << 24))
        return NUCPRUNE_WATERSHED_INVALID;
    return nucprune::guarded([&]() -> int32_t {
        const std::vector<float> kernel = gaussian(sigma, half);
        const std::vector<int32_t> columns = reflected(static_cast<int32_t>(width), half, 0);
        std::vector<const float *> rows;
        for (int32_t y : reflected(static_cast<int32_t>(height), half, kRows))
            rows.push_back(in + y * width);
        const Plan plan{rows.data(),
                        kernel.data(),
                        columns.data(),
                        static_cast<int32_t>(height),
                        static_cast<int32_t>(width),
                        half,
                        2 * half + 1,
                        out};
        const Smooth smooth = best();
        // Room behind the last column for a whole block.
        const int64_t stride = width + 2 * static_cast<int64_t>(half) + kBlock;
        const int64_t band = 8;  // in kRows
        const int64_t bands = (height + band * kRows - 1) / (band * kRows);
        nucprune::parallel(bands, threads, [&](auto next) {
            std::vector<float> buffer(static_cast<std::size_t>(stride * kRows), 0.f);
            for (int64_t i; (i = next()) >= 0;)
                for (int64_t y = i * band * kRows; y < std::min(height, (i + 1) * band * kRows);
                     y += kRows)
                    smooth(plan, static_cast<int32_t>(y), buffer.data(), stride);
        });
        return 0;
    });
}
