// The flood against the plainest watershed there is: one ordered set over the whole image.

#include "nucprune_watershed.h"

#include <cstdio>
#include <cstdlib>
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
        expect(run(bad, 1, labels) == NUCPRUNE_FLOOD_INVALID, what);
    };
    expect(run(good, 1, labels) == NUCPRUNE_FLOOD_OK, "the good case");
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

}  // namespace

int main() {
    int compared = 0;
    for (unsigned seed = 0; seed < 600; ++seed) {
        const Case c = make(seed);
        const Labels expected = plain(c);
        for (int32_t threads : {-1, 1, 2, 5}) {
            Labels labels;
            expect(run(c, threads, labels) == NUCPRUNE_FLOOD_OK, c.name);
            expect(labels == expected, c.name + ", threads " + std::to_string(threads));
            ++compared;
        }
    }
    refuses_what_it_cannot_take();
    expect(nucprune_abi_version() == NUCPRUNE_ABI, "version");
    std::printf("watershed: %d floods compared, %d failures\n", compared, failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
