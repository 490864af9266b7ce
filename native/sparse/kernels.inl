// The kernels over vectors of LANES floats; included by one translation unit an instruction set,
// which defines LANES, VECTOR_LIMIT, ROWS_LOG, GROUP, ISA_NAME and VREG. No standard library here:
// see kernels.hpp.

namespace {

using nucprune::Ahead;
using nucprune::ConvTask;
using nucprune::Entry;
using nucprune::Group;
using nucprune::Head;
using nucprune::WrapTask;

constexpr int kBytes = 4 * LANES;
typedef float V __attribute__((vector_size(kBytes), may_alias));
typedef float Unaligned __attribute__((vector_size(kBytes), may_alias, aligned(4)));
typedef int32_t M __attribute__((vector_size(kBytes), may_alias));

inline V load(const char *p) { return *reinterpret_cast<const V *>(p); }
inline V load_unaligned(const char *p) { return *reinterpret_cast<const Unaligned *>(p); }
inline void store(char *p, V v) { *reinterpret_cast<V *>(p) = v; }
inline V vmax(V a, V b) { return a > b ? a : b; }
// x - 0 is x, whatever its sign: unlike x + 0 it costs no instruction.
inline V splat(float x) { return x - V{}; }
inline V both(V a, V mask) { return (V)((M)a & (M)mask); }

// What the next strip reads, fetched a few lines with every output: as many at once as a part of a
// row needs would stop the multiply-adds.
struct Fetch {
    const Ahead *range, *last;
    int64_t at;
    int lines;  // at a time

    void some() {
        for (int i = 0; i < lines; ++i, at += 64) {
            while (at >= range->bytes) {
                if (range == last) {
                    lines = 0;
                    return;
                }
                ++range;
                at = 0;
            }
            __builtin_prefetch(range->from + at, 0, 2);
        }
    }
};

// R rows of C vectors of every output channel, over one group of input channels. One output
// channel at a time: its R x C accumulators stay in registers, and each nonzero is one broadcast
// and R x C multiply-adds with operands in L1.
template <int R, int C, bool first, bool last>
void block(const ConvTask &t, const Group &group, int row, int at, char *out, const char *mask,
           Fetch &fetch) {
    const int64_t in_row = t.in[group.source].row, out_row = t.out_row, out_vector = t.out_vector;
    const char *in = t.in[group.source].from + row * in_row + at * kBytes;
    char *pooled = t.pooled ? t.pooled + row / 2 * t.pooled_row + at / 2 * kBytes : nullptr;
    const V low = splat(t.low);
    const Entry *entry = group.entries;
    for (const Head *head = group.heads; head != group.heads_end; ++head) {
        fetch.some();
        char *to = out + head->out;
        V sum[R][C];
        for (int r = 0; r < R; ++r)
            for (int c = 0; c < C; ++c)
                sum[r][c] = first ? splat(head->bias) : load(to + r * out_row + c * out_vector);
        for (const Entry *end = entry + head->count; entry != end; ++entry) {
            const V weight = splat(entry->value);
            const char *from = in + entry->offset;
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < C; ++c)
                    sum[r][c] += weight * load(from + r * in_row + c * kBytes);
        }
        if (last)
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < C; ++c) sum[r][c] = vmax(sum[r][c], low);
        if (last && mask)
            for (int r = 0; r < R; ++r)
                for (int c = 0; c < C; ++c)
                    sum[r][c] = both(sum[r][c], load(mask + c * out_vector));
        for (int r = 0; r < R; ++r)
            for (int c = 0; c < C; ++c) store(to + r * out_row + c * out_vector, sum[r][c]);
        if constexpr (last && R % 2 == 0 && C % 2 == 0)
            if (pooled)
                for (int r = 0; r < R; r += 2)
                    for (int c = 0; c < C; c += 2)
                        store(pooled + head->pooled + r / 2 * t.pooled_row + c / 2 * kBytes,
                              vmax(vmax(sum[r][c], sum[r][c + 1]),
                                   vmax(sum[r + 1][c], sum[r + 1][c + 1])));
    }
}

template <int R, int C>
void all_groups(const ConvTask &t, int row, int at, char *out, const char *mask, Fetch &fetch) {
    const int n = t.group_count;
    if (n == 1) {
        block<R, C, true, true>(t, t.groups[0], row, at, out, mask, fetch);
        return;
    }
    block<R, C, true, false>(t, t.groups[0], row, at, out, mask, fetch);
    for (int g = 1; g < n - 1; ++g)
        block<R, C, false, false>(t, t.groups[g], row, at, out, mask, fetch);
    block<R, C, false, true>(t, t.groups[n - 1], row, at, out, mask, fetch);
}

using Block = void (*)(const ConvTask &, int, int, char *, const char *, Fetch &);

template <int R, int C>
constexpr Block shape() {
    if constexpr (R * C <= VECTOR_LIMIT)
        return all_groups<R, C>;
    else
        return nullptr;
}

#define ROW(R)                                                                                   \
    {                                                                                            \
        shape<R, 1>(), shape<R, 2>(), shape<R, 3>(), shape<R, 4>(), shape<R, 5>(), shape<R, 6>(), \
            shape<R, 7>(), shape<R, 8>(), shape<R, 9>(), shape<R, 10>(), shape<R, 11>(),         \
            shape<R, 12>()                                                                       \
    }
constexpr int kMostVectors = VECTOR_LIMIT < 12 ? VECTOR_LIMIT : 12;
const Block kBlocks[4][12] = {ROW(1), ROW(2), ROW(4), ROW(8)};
#undef ROW

// A row of n vectors is cut into equal parts, of pairs where they are pooled. Rows are taken
// 2^ROWS_LOG at a time, and more where they are short, because fewer than about eight sums in
// flight would wait for the multiply-add's latency.
void conv(const ConvTask &t) {
    int log = t.pooled ? 1 : ROWS_LOG;
    while (log < 3 && (2 << log) * t.vectors <= VECTOR_LIMIT) ++log;
    const int unit = t.pooled ? 2 : 1, units = t.vectors / unit;
    auto cuts = [&] {
        int most = VECTOR_LIMIT >> log;
        if (most > kMostVectors) most = kMostVectors;
        return (t.vectors + most - 1) / most;
    };
    int64_t turns = 0;
    for (int g = 0; g < t.group_count; ++g) turns += t.groups[g].heads_end - t.groups[g].heads;
    turns *= int64_t{(t.rows + (1 << log) - 1) >> log} * cuts();
    const int64_t lines = (t.ahead[0].bytes + t.ahead[1].bytes) / 64;
    Fetch fetch{t.ahead, t.ahead + 1, 0, static_cast<int>(turns ? (lines + turns - 1) / turns : 0)};
    for (int row = 0; row < t.rows;) {
        while ((1 << log) > t.rows - row) --log;
        const int parts = cuts();
        for (int part = 0, at = 0; part < parts; ++part) {
            if (t.stop && __atomic_load_n(t.stop, __ATOMIC_RELAXED)) return;
            const int width = unit * ((units - at / unit + parts - part - 1) / (parts - part));
            kBlocks[log][width - 1](t, row, at, t.out + row * t.out_row + at * t.out_vector,
                                    t.mask ? t.mask + at * t.out_vector : nullptr, fetch);
            at += width;
        }
        row += 1 << log;
    }
}

void wrap(const WrapTask &t) {
    M lanes;
    for (int i = 0; i < LANES; ++i) lanes[i] = i;
    const V but_first = (V)(lanes > 0), but_last = (V)(lanes < LANES - 1);
    auto ours = [&](int j) { return (j >= t.begin && j < t.end) || j < 0 || j >= t.vectors; };
    for (int y = 0; y < t.count; ++y)
        for (int channel = 0; channel < t.channels; ++channel) {
            char *row = t.rows + y * t.row + channel * t.channel, *end = row + t.vectors * kBytes;
            for (int h = 1; h <= t.reach; ++h) {
                if (ours(t.vectors - h))
                    store(row - h * kBytes, both(load_unaligned(end - h * kBytes - 4), but_first));
                if (ours(h - 1))
                    store(end + (h - 1) * kBytes,
                          both(load_unaligned(row + (h - 1) * kBytes + 4), but_last));
            }
        }
}

double fma_chain(int64_t rounds) {
    V sum[12];
    for (int i = 0; i < 12; ++i) sum[i] = splat(static_cast<float>(i));
    V weight = splat(0.5f), x = splat(0.25f);
    for (int64_t n = 0; n < rounds; ++n) {
        // The compiler must take neither factor for constant.
        asm volatile("" : VREG(weight), VREG(x));
        for (int i = 0; i < 12; ++i) sum[i] += weight * x;
    }
    double total = 0;
    for (int i = 0; i < 12; ++i) total += static_cast<double>(sum[i][0]);
    return total;
}

const nucprune::Kernels kTable = {ISA_NAME, LANES, VECTOR_LIMIT, GROUP, conv, wrap, fma_chain};

}  // namespace
