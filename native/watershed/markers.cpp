// Maxima in a square window. Nearly every pixel fails at one of its neighbours, so the windows of
// few are looked at.

#include "common.hpp"

#include <cstdlib>
#include <cstring>

namespace {

// Windows of plateaus, in pixels, after which dilations of the whole image are quicker.
constexpr int64_t kPatience = 1 << 21;

class Maxima {
public:
    Maxima(const float *values, const int32_t *parts, int32_t height, int32_t width, int32_t radius)
        : values_(values), parts_(parts), height_(height), width_(width), radius_(radius) {}

    // False where it would take too long.
    bool find(std::vector<int64_t> &found) {
        std::vector<uint8_t> candidates(static_cast<std::size_t>(width_));
        for (int32_t y = 0; y < height_; ++y) {
            mark(y, candidates.data());
            for (int32_t x = 0; x < width_; ++x) {
                const void *at = std::memchr(&candidates[x], 1, width_ - x);
                if (!at) break;
                x = static_cast<int32_t>(static_cast<const uint8_t *>(at) - candidates.data());
                bool tie = false;
                if (!is_highest(y, x, radius_, tie)) continue;
                if (!tie)
                    found.push_back(index(y, x));
                else if (!plateau(y, x, found))
                    return false;
            }
        }
        return true;
    }

private:
    struct Place {
        int32_t y, x;
    };

    int64_t index(int32_t y, int32_t x) const { return static_cast<int64_t>(y) * width_ + x; }

    // 1 where a pixel of a part is below none of its neighbours: loops that compilers vectorise.
    void mark(int32_t y, uint8_t *candidates) const {
        const float *row = values_ + index(y, 0);
        const float *above = y > 0 ? row - width_ : row;
        const float *below = y + 1 < height_ ? row + width_ : row;
        const int32_t *parts = parts_ + index(y, 0);
        const int32_t last = width_ - 1;
        for (int32_t x = 0; x <= last; ++x)
            candidates[x] = (parts[x] != 0) & (row[x] >= above[x]) & (row[x] >= below[x]);
        for (int32_t x = 0; x < last; ++x) candidates[x] &= row[x] >= row[x + 1];
        for (int32_t x = 1; x <= last; ++x) candidates[x] &= row[x] >= row[x - 1];
    }

    bool is_highest(int32_t y, int32_t x, int32_t radius, bool &tie) const {
        const float value = values_[index(y, x)];
        const int32_t top = std::max(y - radius, 0), bottom = std::min(y + radius, height_ - 1);
        const int32_t left = std::max(x - radius, 0), right = std::min(x + radius, width_ - 1);
        int64_t equal = 0;
        for (int32_t v = top; v <= bottom; ++v) {
            const float *row = values_ + index(v, 0);
            for (int32_t u = left; u <= right; ++u) {
                if (row[u] > value) return false;
                equal += row[u] == value;
            }
        }
        tie = equal > 1;  // the pixel itself is one
        return true;
    }

    // Take a plateau from its first pixel in a part; it may lead through pixels of no part.
    bool plateau(int32_t y, int32_t x, std::vector<int64_t> &found) {
        if (seen_.empty()) seen_.assign(static_cast<std::size_t>(index(height_, 0)), 0);
        if (seen_[index(y, x)]) return true;
        seen_[index(y, x)] = 1;
        const float value = values_[index(y, x)];
        const int64_t window = (2 * static_cast<int64_t>(radius_) + 1) * (2 * radius_ + 1);
        bool is_top = true, tie;
        std::vector<Place> todo{{y, x}};
        while (!todo.empty()) {
            const Place at = todo.back();
            todo.pop_back();
            for (int32_t v = std::max(at.y - radius_, 0);
                 v <= std::min(at.y + radius_, height_ - 1); ++v)
                for (int32_t u = std::max(at.x - radius_, 0);
                     u <= std::min(at.x + radius_, width_ - 1); ++u) {
                    if (values_[index(v, u)] != value || seen_[index(v, u)]) continue;
                    if ((spent_ += window) > kPatience) return false;
                    if (is_highest(v, u, radius_, tie)) {
                        seen_[index(v, u)] = 1;
                        todo.push_back({v, u});
                    } else if (std::abs(v - at.y) <= 1 && std::abs(u - at.x) <= 1) {
                        is_top = false;
                    }
                }
        }
        if (is_top) found.push_back(index(y, x));
        return true;
    }

    const float *values_;
    const int32_t *parts_;
    int32_t height_, width_, radius_;
    int64_t spent_ = 0;
    std::vector<uint8_t> seen_;
};

void add_lone(const float *values, const int32_t *parts, int64_t size, int32_t n_parts,
              std::vector<int64_t> &found) {
    std::vector<int64_t> highest(static_cast<std::size_t>(n_parts), -1);
    int32_t lacking = n_parts - 1;
    for (int64_t at : found)
        if (highest[parts[at]] == -1) {
            highest[parts[at]] = -2;
            --lacking;
        }
    if (!lacking) return;
    for (int64_t at = 0; at < size; ++at) {
        if (!parts[at] || highest[parts[at]] == -2) continue;
        int64_t &best = highest[parts[at]];
        if (best == -1 || values[at] > values[best]) best = at;
    }
    for (int64_t at : highest)
        if (at >= 0) found.push_back(at);
    std::sort(found.begin(), found.end());
}

}  // namespace

int64_t nucprune_markers(const float *smoothed, const int32_t *parts, int64_t height, int64_t width,
                         int32_t n_parts, int32_t radius, int64_t *markers, int64_t capacity) {
    if (!nucprune::is_image(height, width) || n_parts < 1 || radius < 1)
        return NUCPRUNE_WATERSHED_INVALID;
    for (int64_t i = 0; i < height * width; ++i)
        if (parts[i] < 0 || parts[i] >= n_parts) return NUCPRUNE_WATERSHED_INVALID;
    // Beyond the image a wider window changes nothing.
    radius = static_cast<int32_t>(std::min<int64_t>(radius, std::max(height, width)));
    return nucprune::guarded([&]() -> int64_t {
        std::vector<int64_t> found;
        Maxima maxima(smoothed, parts, static_cast<int32_t>(height), static_cast<int32_t>(width),
                      radius);
        if (!maxima.find(found)) return NUCPRUNE_WATERSHED_PLATEAUS;
        add_lone(smoothed, parts, height * width, n_parts, found);
        if (static_cast<int64_t>(found.size()) > capacity) return NUCPRUNE_WATERSHED_INVALID;
        std::copy(found.begin(), found.end(), markers);
        return static_cast<int64_t>(found.size());
    });
}
