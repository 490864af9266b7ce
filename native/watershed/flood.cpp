// The flood: a bucket queue whose open bucket is a heap. As exact as one heap over everything, but
// nearly every pixel is pushed and popped in constant time.

#include "common.hpp"

namespace {

struct Image {
    const float *landscape;
    int32_t *labels;
    int32_t size, width;
};

// A part with several markers; its pixels hold -number in the labels until they are reached.
struct Part {
    int32_t number = 0;
    int32_t pixels = 0;
    float low = std::numeric_limits<float>::infinity();
    float high = -std::numeric_limits<float>::infinity();
    std::vector<int32_t> markers;
};

class Flood {
public:
    explicit Flood(const Image &image) : image_(image) {}

    void run(const Part &part) {
        begin(part);
        for (int32_t marker : part.markers) push(marker, image_.landscape[marker]);
        const int32_t width = image_.width, last_row = image_.size - width;
        for (std::size_t popped = 0; popped < items_.size(); ++popped) {
            const Item item = pop();
            const int32_t at = item.pixel, column = at % width;
            label_ = image_.labels[at];
            if (at >= width) reach(at - width, item.value);
            if (column > 0) reach(at - 1, item.value);
            if (column + 1 < width) reach(at + 1, item.value);
            if (at < last_row) reach(at + width, item.value);
        }
    }

private:
    // An item's place in items_ is its age.
    struct Item {
        float value;
        int32_t pixel, next;
    };
    struct Open {
        float value;
        int32_t age;
        bool operator<(const Open &other) const {  // std's heaps have the largest on top
            return value != other.value ? value < other.value : age > other.age;
        }
    };

    void begin(const Part &part) {
        const int32_t buckets = std::min(part.pixels, 1 << 16);
        heads_.assign(static_cast<std::size_t>(buckets), -1);
        items_.clear();
        heap_.clear();
        open_ = -1;
        unreached_ = -part.number;
        high_ = part.high;
        const double range = high_ - part.low;  // in double: it may exceed a float
        scale_ = range > 0 ? (buckets - 1) / range : 0;
    }

    void reach(int32_t pixel, float from) {
        if (image_.labels[pixel] != unreached_) return;
        image_.labels[pixel] = label_;
        push(pixel, std::min(image_.landscape[pixel], from));
    }

    void push(int32_t pixel, float value) {
        const int32_t age = static_cast<int32_t>(items_.size());
        const int32_t bucket = std::min(static_cast<int32_t>((high_ - value) * scale_),
                                        static_cast<int32_t>(heads_.size()) - 1);
        if (bucket > open_) {
            items_.push_back({value, pixel, heads_[bucket]});
            heads_[bucket] = age;
        } else {
            items_.push_back({value, pixel, -1});
            heap_.push_back({value, age});
            std::push_heap(heap_.begin(), heap_.end());
        }
    }

    Item pop() {
        if (heap_.empty()) {
            do ++open_;
            while (heads_[open_] < 0);
            const Item &only = items_[heads_[open_]];
            if (only.next < 0) return only;
            for (int32_t age = heads_[open_]; age >= 0; age = items_[age].next)
                heap_.push_back({items_[age].value, age});
            std::make_heap(heap_.begin(), heap_.end());
        }
        std::pop_heap(heap_.begin(), heap_.end());
        const Item &first = items_[heap_.back().age];
        heap_.pop_back();
        return first;
    }

    const Image &image_;
    std::vector<Item> items_;
    std::vector<int32_t> heads_;
    std::vector<Open> heap_;
    int32_t open_ = -1, unreached_ = 0, label_ = 0;
    double high_ = 0, scale_ = 0;
};

// Label what needs no flood, and collect the parts that do.
std::vector<Part> prepare(const Image &image, const int32_t *parts, int32_t n_parts,
                          const int64_t *markers, int32_t n_markers) {
    std::vector<int32_t> label_of(static_cast<std::size_t>(n_parts), 0);
    std::vector<int32_t> place_of(static_cast<std::size_t>(n_parts), -1);
    std::vector<Part> crowded;
    for (int32_t k = 0; k < n_markers; ++k) {
        const int32_t number = parts[markers[k]];
        if (label_of[number] > 0) {
            place_of[number] = static_cast<int32_t>(crowded.size());
            crowded.emplace_back();
            crowded.back().number = number;
            // Its first marker is the one whose label the part was given.
            crowded.back().markers.push_back(
                static_cast<int32_t>(markers[label_of[number] - 1]));
            label_of[number] = -number;
        }
        if (label_of[number] == 0)
            label_of[number] = k + 1;
        else
            crowded[place_of[number]].markers.push_back(static_cast<int32_t>(markers[k]));
    }
    for (int32_t i = 0; i < image.size; ++i) {
        const int32_t number = parts[i];  // read first: the labels may be in its place
        image.labels[i] = label_of[number];
        if (label_of[number] >= 0) continue;
        Part &part = crowded[place_of[number]];
        ++part.pixels;
        part.low = std::min(part.low, image.landscape[i]);
        part.high = std::max(part.high, image.landscape[i]);
    }
    for (int32_t k = 0; k < n_markers; ++k) image.labels[markers[k]] = k + 1;
    return crowded;
}

void flood(const Image &image, std::vector<Part> &parts, int32_t threads) {
    // The largest first, so that no thread is left with one at the end.
    std::sort(parts.begin(), parts.end(),
              [](const Part &a, const Part &b) { return a.pixels > b.pixels; });
    nucprune::parallel(static_cast<int64_t>(parts.size()), threads, [&](auto next) {
        Flood queue(image);
        for (int64_t i; (i = next()) >= 0;) queue.run(parts[i]);
    });
}

}  // namespace

int32_t nucprune_flood(const float *landscape, const int32_t *parts, int64_t height, int64_t width,
                       int32_t n_parts, const int64_t *markers, int64_t n_markers, int32_t threads,
                       int32_t *labels) {
    if (!nucprune::is_image(height, width) || n_parts < 1 || n_markers < 0)
        return NUCPRUNE_WATERSHED_INVALID;
    const int64_t size = height * width;
    for (int64_t i = 0; i < size; ++i)
        if (parts[i] < 0 || parts[i] >= n_parts) return NUCPRUNE_WATERSHED_INVALID;
    for (int64_t k = 0; k < n_markers; ++k)
        if (markers[k] < 0 || markers[k] >= size || parts[markers[k]] == 0 ||
            (k > 0 && markers[k] <= markers[k - 1]))
            return NUCPRUNE_WATERSHED_INVALID;
    const Image image{landscape, labels, static_cast<int32_t>(size), static_cast<int32_t>(width)};
    return nucprune::guarded([&]() -> int32_t {
        std::vector<Part> crowded =
            prepare(image, parts, n_parts, markers, static_cast<int32_t>(n_markers));
        flood(image, crowded, threads);
        return 0;
    });
}
