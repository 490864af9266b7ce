// The kernels over vectors of LANES floats; included by one translation unit an instruction set,
// which defines LANES, VECTOR_LIMIT, ISA_NAME and VREG. No standard library here: see kernels.hpp.

namespace {

using nucprune::ConvTask;
using nucprune::Entry;
using nucprune::Group;
using nucprune::Head;
using nucprune::PoolTask;

constexpr int kBytes = 4 * LANES;
typedef float V __attribute__((vector_size(kBytes), may_alias));
typedef int32_t M __attribute__((vector_size(kBytes), may_alias));

inline V load(const char *p) { return *reinterpret_cast<const V *>(p); }
inline void store(char *p, V v) { *reinterpret_cast<V *>(p) = v; }
inline V vmax(V a, V b) { return a > b ? a : b; }
// x - 0 is x, whatever its sign: unlike x + 0 it costs no instruction.
inline V splat(float x) { return x - V{}; }
inline V both(V a, V mask) { return (V)((M)a & (M)mask); }

// R rows of C vectors of every output channel, over one group of input channels. One output
// channel at a time: its R x C accumulators stay in registers, and each nonzero is one broadcast
// and R x C multiply-adds with operands in L1.
template <int R, int C, bool first, bool last>
void block(const ConvTask &t, const Group &group, const char *in, char *out, const char *mask) {
    const int64_t in_row = t.in_row, out_row = t.out_row, out_vector = t.out_vector;
    const V low = splat(t.low);
    const Entry *entry = group.entries;
    for (const Head *head = group.heads; head != group.heads_end; ++head) {
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
    }
}

template <int R, int C>
void all_groups(const ConvTask &t, const char *in, char *out, const char *mask) {
    const int n = t.group_count;
    if (n == 1) {
        block<R, C, true, true>(t, t.groups[0], in, out, mask);
        return;
    }
    block<R, C, true, false>(t, t.groups[0], in, out, mask);
    for (int g = 1; g < n - 1; ++g) block<R, C, false, false>(t, t.groups[g], in, out, mask);
    block<R, C, false, true>(t, t.groups[n - 1], in, out, mask);
}

using Block = void (*)(const ConvTask &, const char *, char *, const char *);

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

// A row of n vectors is cut into equal parts; short rows are taken several at a time, because
// fewer than about eight sums in flight would wait for the multiply-add's latency.
void conv(const ConvTask &t) {
    int log = 0;
    while (log < 3 && (2 << log) * t.vectors <= VECTOR_LIMIT) ++log;
    const char *ahead = t.ahead.from, *const ahead_end = ahead + t.ahead.bytes;
    for (int row = 0; row < t.rows;) {
        while ((1 << log) > t.rows - row) --log;
        int most = VECTOR_LIMIT >> log;
        if (most > kMostVectors) most = kMostVectors;
        const int parts = (t.vectors + most - 1) / most;
        const int64_t share = (t.ahead.bytes << log) / (t.rows * parts) + 64;
        for (int part = 0, at = 0; part < parts; ++part) {
            if (t.stop && __atomic_load_n(t.stop, __ATOMIC_RELAXED)) return;
            for (int64_t i = 0; i < share && ahead < ahead_end; i += 64, ahead += 64)
                __builtin_prefetch(ahead, 0, 2);
            const int width = (t.vectors - at + parts - part - 1) / (parts - part);
            kBlocks[log][width - 1](t, t.in + row * t.in_row + at * kBytes,
                                    t.out + row * t.out_row + at * t.out_vector,
                                    t.mask ? t.mask + at * t.out_vector : nullptr);
            at += width;
        }
        row += 1 << log;
    }
}

void pool(const PoolTask &t) {
    for (int channel = 0; channel < t.channels; ++channel) {
        const char *a = t.in + channel * t.in_channel, *b = a + t.in_row;
        char *out = t.out + channel * t.out_channel;
        for (int j = 0; j < t.vectors; ++j) {
            const int64_t at = 2 * j * kBytes;
            store(out + j * kBytes, vmax(vmax(load(a + at), load(a + at + kBytes)),
                                         vmax(load(b + at), load(b + at + kBytes))));
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

const nucprune::Kernels kTable = {ISA_NAME, LANES, VECTOR_LIMIT, conv, pool, fma_chain};

}  // namespace
