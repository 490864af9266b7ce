// What becomes of the flood's objects: small ones go, the others are measured.

#include "common.hpp"

namespace {

// Sums over an object's pixels, about its first one: whole numbers, so nothing is rounded away.
struct Sums {
    int64_t pixels, y0, x0, y, x, yy, xy, xx;
    double values;

    void add(int64_t row, int64_t begin, int64_t end) {
        if (!pixels) {
            y0 = row;
            x0 = begin;
        }
        const int64_t dy = row - y0, n = end - begin;
        // Of begin - x0 .. end - 1 - x0: their sum and the sum of their squares.
        const int64_t first = begin - x0, last = end - 1 - x0;
        const int64_t sum = (first + last) * n / 2;
        const int64_t squares = first * first * n + first * (n - 1) * n +
                                (n - 1) * n * (2 * n - 1) / 6;
        pixels += n;
        y += dy * n;
        x += sum;
        yy += dy * dy * n;
        xy += dy * sum;
        xx += squares;
    }
};

}  // namespace

int32_t nucprune_drop_small(int32_t *labels, int64_t size, int32_t n, int64_t least) {
    if (size < 0 || n < 0) return NUCPRUNE_WATERSHED_INVALID;
    return nucprune::guarded([&]() -> int32_t {
        std::vector<int64_t> pixels(static_cast<std::size_t>(n) + 1, 0);
        for (int64_t i = 0; i < size;) {
            const int32_t label = labels[i];
            if (label < 0 || label > n) return NUCPRUNE_WATERSHED_INVALID;
            const int64_t begin = i;
            while (i < size && labels[i] == label) ++i;
            pixels[label] += i - begin;
        }
        std::vector<int32_t> number(pixels.size(), 0);
        int32_t kept = 0;
        for (int32_t label = 1; label <= n; ++label)
            if (pixels[label] >= std::max<int64_t>(least, 1)) number[label] = ++kept;
        if (kept < n)
            for (int64_t i = 0; i < size; ++i) labels[i] = number[labels[i]];
        return kept;
    });
}

int32_t nucprune_measure(const int32_t *labels, const float *values, int64_t height, int64_t width,
                         int32_t n, double *columns) {
    if (!nucprune::is_image(height, width) || n < 0) return NUCPRUNE_WATERSHED_INVALID;
    return nucprune::guarded([&]() -> int32_t {
        std::vector<Sums> all(static_cast<std::size_t>(n) + 1, Sums{});
        for (int64_t y = 0; y < height; ++y) {
            const int32_t *row = labels + y * width;
            for (int64_t x = 0; x < width;) {
                const int32_t label = row[x];
                if (label < 0 || label > n) return NUCPRUNE_WATERSHED_INVALID;
                const int64_t begin = x;
                double sum = 0;
                if (label == 0) {
                    while (x < width && row[x] == 0) ++x;
                    continue;
                }
                for (; x < width && row[x] == label; ++x) sum += values[y * width + x];
                all[label].add(y, begin, x);
                all[label].values += sum;
            }
        }
        for (int32_t i = 0; i < n; ++i) {
            const Sums &sums = all[static_cast<std::size_t>(i) + 1];
            const auto pixels = static_cast<double>(sums.pixels);
            const double over = sums.pixels ? 1 / pixels : 0;
            const double y = sums.y * over, x = sums.x * over;
            const double of_object[] = {pixels,
                                        sums.y0 + y,
                                        sums.x0 + x,
                                        sums.yy * over - y * y,
                                        sums.xy * over - y * x,
                                        sums.xx * over - x * x,
                                        sums.values * over};
            for (int64_t c = 0; c < 7; ++c) columns[c * n + i] = of_object[c];
        }
        return 0;
    });
}
