// Each step against the plainest way to do it.

#include "nucprune_watershed.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace {

struct Case {
    std::string name;
    int64_t height, width;
    std::vector<float> landscape;
    std::vector<int32_t> parts;
    int32_t n_parts = 1;
    std::vector<int64_t> markers;
};

using Labels = std::vector<int32_t>;

int failures = 0;

void expect(bool holds, const std::string &what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    ++failures;
}

std::vector<int64_t> neighbours(const Case &c, int64_t at) {
    std::vector<int64_t> found;
    if (at >= c.width) found.push_back(at - c.width);
    if (at % c.width > 0) found.push_back(at - 1);
    if (at % c.width < c.width - 1) found.push_back(at + 1);
    if (at + c.width < c.height * c.width) found.push_back(at + c.width);
    return found;
}

void number_parts(Case &c, const std::vector<bool> &mask) {
    c.parts.assign(mask.size(), 0);
    for (std::size_t start = 0; start < mask.size(); ++start) {
        if (!mask[start] || c.parts[start]) continue;
        std::vector<int64_t> todo{static_cast<int64_t>(start)};
        c.parts[start] = c.n_parts;
        while (!todo.empty()) {
            const int64_t at = todo.back();
            todo.pop_back();
            for (int64_t next : neighbours(c, at))
                if (mask[next] && !c.parts[next]) {
                    c.parts[next] = c.n_parts;
                    todo.push_back(next);
                }
        }
        ++c.n_parts;
    }
}

Case make(unsigned seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](int n) { return static_cast<int>(random() % (n + 1)); };
    Case c{"random " + std::to_string(seed), 1 + up_to(40), 1 + up_to(40), {}, {}, 1, {}};
    const int64_t size = c.height * c.width;
    const int levels = std::vector<int>{1, 3, 1 << 20}[up_to(2)];
    const int filled = std::vector<int>{20, 60, 90, 100}[up_to(3)];
    const int seeds = std::vector<int>{1, 5, 40}[up_to(2)];
    std::vector<bool> mask(size);
    for (int64_t i = 0; i < size; ++i) {
        c.landscape.push_back(static_cast<float>(up_to(levels)) - 2.f);
        mask[i] = up_to(99) < filled;
    }
    // One bucket for nearly everything, and a range beyond a float's.
    if (seed % 7 == 0) c.landscape[0] = 3e38f;
    if (seed % 14 == 0) c.landscape[size - 1] = -3e38f;
    number_parts(c, mask);
    for (int64_t i = 0; i < size; ++i)
        if (mask[i] && up_to(99) < seeds) c.markers.push_back(i);
    return c;
}

Labels plain(const Case &c) {
    Labels labels(c.parts.size(), 0);
    std::set<std::tuple<float, int64_t, int64_t>> queue;  // (-value, age, pixel)
    int64_t age = 0;
    for (std::size_t k = 0; k < c.markers.size(); ++k) {
        labels[c.markers[k]] = static_cast<int32_t>(k + 1);
        queue.emplace(-c.landscape[c.markers[k]], age++, c.markers[k]);
    }
    while (!queue.empty()) {
        const auto [value, born, at] = *queue.begin();
        queue.erase(queue.begin());
        for (int64_t next : neighbours(c, at)) {
            if (!c.parts[next] || labels[next]) continue;
            labels[next] = labels[at];
            queue.emplace(std::max(-c.landscape[next], value), age++, next);
        }
    }
    return labels;
}

int32_t run(const Case &c, int32_t threads, Labels &labels) {
    labels.assign(c.parts.size(), -7);
    return nucprune_flood(c.landscape.data(), c.parts.data(), c.height, c.width, c.n_parts,
                          c.markers.data(), static_cast<int64_t>(c.markers.size()), threads,
                          labels.data());
}

void refuses_what_it_cannot_take() {
    Case good = make(3);
    good.markers = {};
    for (int64_t i = 0; i < good.height * good.width; ++i)
        if (good.parts[i] && good.markers.size() < 3) good.markers.push_back(i);
    Labels labels;
    const auto is_invalid = [&](const char *what, auto change) {
        Case bad = good;
        change(bad);
        expect(run(bad, 1, labels) == NUCPRUNE_WATERSHED_INVALID, what);
    };
    expect(run(good, 1, labels) == 0, "the good case");
    is_invalid("no rows", [](Case &c) { c.height = 0; });
    is_invalid("too many pixels", [](Case &c) { c.height = c.width = int64_t{1} << 32; });
    is_invalid("a part too high", [](Case &c) { c.parts[0] = c.n_parts; });
    is_invalid("a part below 0", [](Case &c) { c.parts[0] = -1; });
    is_invalid("markers not ascending", [](Case &c) { std::swap(c.markers[0], c.markers[1]); });
    is_invalid("a marker twice", [](Case &c) { c.markers[1] = c.markers[0]; });
    is_invalid("a marker below 0", [](Case &c) { c.markers[0] = -1; });
    is_invalid("a marker beyond", [](Case &c) { c.markers[2] = c.height * c.width; });
    is_invalid("a marker outside the mask", [](Case &c) { c.parts[c.markers[0]] = 0; });
}

// Where a pixel beyond the edge comes from: d c b a | a b c d | d c b a.
int64_t reflect(int64_t i, int64_t n) {
    while (i < 0 || i >= n) i = i < 0 ? -1 - i : 2 * n - 1 - i;
    return i;
}

void smooths(const Case &c, unsigned seed) {
    const double sigma = 0.3 + seed % 9 * 0.8;
    const auto half = static_cast<int32_t>(4 * sigma + 0.5);
    std::vector<float> values;
    for (float value : c.landscape) values.push_back(std::fmod(value, 100.f));
    double total = 0, worst = 0;
    for (int i = -half; i <= half; ++i) total += std::exp(-i * i / (2 * sigma * sigma));
    const auto blur = [&](const std::vector<double> &in, int64_t step, int64_t n, int64_t at) {
        const int64_t place = at / step % n;
        double sum = 0;
        for (int i = -half; i <= half; ++i)
            sum += std::exp(-i * i / (2 * sigma * sigma)) / total *
                   in[at + (reflect(place + i, n) - place) * step];
        return sum;
    };
    const std::vector<double> in(values.begin(), values.end());
    std::vector<double> down(in.size());
    for (std::size_t i = 0; i < in.size(); ++i) down[i] = blur(in, c.width, c.height, i);
    for (int32_t threads : {1, 3}) {
        std::vector<float> out(in.size(), NAN);
        expect(nucprune_smooth(values.data(), c.height, c.width, sigma, half, threads,
                               out.data()) == 0,
               c.name + ", smooth");
        for (std::size_t i = 0; i < in.size(); ++i)
            worst = std::max(worst, std::fabs(out[i] - blur(down, 1, c.width, i)));
    }
    expect(worst < 1e-4, c.name + ", smoothed values");
}

void numbers_parts(const Case &c, unsigned seed) {
    const int64_t least = seed % 4;
    std::vector<uint8_t> inside;
    for (int32_t part : c.parts) inside.push_back(part > 0);
    std::vector<int32_t> number(c.n_parts, 0), expected, found(c.parts.size(), -7);
    int32_t n = 1;
    for (int32_t part = 1; part < c.n_parts; ++part)
        if (std::count(c.parts.begin(), c.parts.end(), part) >= least) number[part] = n++;
    for (int32_t part : c.parts) expected.push_back(number[part]);
    expect(nucprune_parts(inside.data(), c.height, c.width, least, found.data()) == n,
           c.name + ", number of parts");
    expect(found == expected, c.name + ", parts");
}

// The definition, pixel by pixel.
std::vector<int64_t> plain_markers(const Case &c, int64_t radius) {
    const auto size = static_cast<int64_t>(c.parts.size());
    const auto around = [&](int64_t at, int64_t r, const std::function<void(int64_t)> &visit) {
        const int64_t y = at / c.width, x = at % c.width;
        for (int64_t v = std::max<int64_t>(y - r, 0); v <= std::min(y + r, c.height - 1); ++v)
            for (int64_t u = std::max<int64_t>(x - r, 0); u <= std::min(x + r, c.width - 1); ++u)
                visit(v * c.width + u);
    };
    std::vector<bool> peak(size, true), done(size, false), served(c.n_parts, false);
    for (int64_t i = 0; i < size; ++i)
        around(i, radius, [&](int64_t j) {
            if (c.landscape[j] > c.landscape[i]) peak[i] = false;
        });
    std::vector<int64_t> markers;
    for (int64_t i = 0; i < size; ++i) {
        if (!peak[i] || !c.parts[i] || done[i]) continue;
        bool is_top = true;
        std::vector<int64_t> todo{i};
        done[i] = true;
        while (!todo.empty()) {
            const int64_t at = todo.back();
            todo.pop_back();
            around(at, 1, [&](int64_t j) {
                if (!peak[j] && c.landscape[j] == c.landscape[at]) is_top = false;
            });
            around(at, radius, [&](int64_t j) {
                if (!peak[j] || done[j]) return;
                done[j] = true;
                todo.push_back(j);
            });
        }
        if (!is_top) continue;
        markers.push_back(i);
        served[c.parts[i]] = true;
    }
    for (int32_t part = 1; part < c.n_parts; ++part) {
        int64_t best = -1;
        for (int64_t i = 0; i < size; ++i)
            if (c.parts[i] == part && (best < 0 || c.landscape[i] > c.landscape[best])) best = i;
        if (!served[part]) markers.push_back(best);
    }
    std::sort(markers.begin(), markers.end());
    return markers;
}

void finds_markers(const Case &c, unsigned seed) {
    const auto radius = static_cast<int32_t>(1 + seed % 5);
    std::vector<int64_t> found(c.parts.size() + 1);
    const int64_t n =
        nucprune_markers(c.landscape.data(), c.parts.data(), c.height, c.width, c.n_parts, radius,
                         found.data(), static_cast<int64_t>(found.size()));
    expect(n >= 0, c.name + ", number of markers");
    found.resize(std::max<int64_t>(n, 0));
    expect(found == plain_markers(c, radius), c.name + ", markers");
}

void drops_and_measures(const Case &c, const Labels &labels) {
    const auto n = static_cast<int32_t>(c.markers.size());
    Labels kept = labels, expected = labels;
    std::vector<int32_t> number(n + 1, 0);
    int32_t stay = 0;
    for (int32_t i = 1; i <= n; ++i)
        if (std::count(labels.begin(), labels.end(), i) >= 3) number[i] = ++stay;
    for (int32_t &label : expected) label = number[label];
    expect(nucprune_drop_small(kept.data(), static_cast<int64_t>(kept.size()), n, 3) == stay,
           c.name + ", objects that stay");
    expect(kept == expected, c.name + ", small objects");

    std::vector<double> columns(7 * static_cast<std::size_t>(n), -7);
    expect(nucprune_measure(labels.data(), c.landscape.data(), c.height, c.width, n,
                            columns.data()) == 0,
           c.name + ", measure");
    for (int32_t i = 0; i < n; ++i) {
        double sums[7] = {};
        for (int pass = 0; pass < 2; ++pass)
            for (std::size_t at = 0; at < labels.size(); ++at) {
                if (labels[at] != i + 1) continue;
                const double y = static_cast<double>(at / c.width) - sums[1] / sums[0];
                const double x = static_cast<double>(at % c.width) - sums[2] / sums[0];
                if (pass) {
                    sums[3] += y * y;
                    sums[4] += y * x;
                    sums[5] += x * x;
                    sums[6] += c.landscape[at];
                } else {
                    sums[0] += 1;
                    sums[1] += static_cast<double>(at / c.width);
                    sums[2] += static_cast<double>(at % c.width);
                }
            }
        for (int k = 0; k < 7; ++k) {
            const double value = k ? sums[k] / sums[0] : sums[0];
            expect(std::fabs(columns[k * n + i] - value) <= 1e-9 * (1 + std::fabs(value)),
                   c.name + ", column " + std::to_string(k));
        }
    }
}

}  // namespace

int main() {
    int compared = 0;
    for (unsigned seed = 0; seed < 600; ++seed) {
        const Case c = make(seed);
        const Labels expected = plain(c);
        for (int32_t threads : {-1, 1, 2, 5}) {
            Labels labels;
            expect(run(c, threads, labels) == 0, c.name);
            expect(labels == expected, c.name + ", threads " + std::to_string(threads));
            ++compared;
        }
        Labels in_place = c.parts;
        nucprune_flood(c.landscape.data(), in_place.data(), c.height, c.width, c.n_parts,
                       c.markers.data(), static_cast<int64_t>(c.markers.size()), 1,
                       in_place.data());
        expect(in_place == expected, c.name + ", in place");
        if (seed % 3) continue;
        smooths(c, seed);
        numbers_parts(c, seed);
        finds_markers(c, seed);
        drops_and_measures(c, expected);
    }
    refuses_what_it_cannot_take();
    expect(nucprune_abi_version() == NUCPRUNE_ABI, "version");
    std::printf("watershed: %d floods compared, %d failures\n", compared, failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
