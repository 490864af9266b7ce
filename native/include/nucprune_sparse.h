/* The sparse runtime of napari-nucprune: U-Nets whose pruned weights cost nothing on the CPU.
 *
 * A network is one branch: levels of two convolutions (3x3 or 1x1) with ReLU, 2x2 max-pooling
 * between levels, 2x2 stride-2 transposed convolutions without activation, skips by concatenation
 * (up-sampled first), a 1x1 head with one output. Layers are numbered in forward order: the two
 * convolutions of each level from the full resolution down, then for each level upwards the
 * transposed convolution and the two convolutions, then the head.
 */
#ifndef NUCPRUNE_SPARSE_H
#define NUCPRUNE_SPARSE_H

#include <stdint.h>

#if defined(_WIN32)
#define NUCPRUNE_API __declspec(dllexport)
#else
#define NUCPRUNE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nucprune_sparse_net nucprune_sparse_net;

enum {
    NUCPRUNE_OK = 0,
    NUCPRUNE_CANCELLED = 1,
    NUCPRUNE_NO_MEMORY = 2,
    NUCPRUNE_INVALID = 3
};

/* Version of this interface. */
#define NUCPRUNE_SPARSE_ABI 1
NUCPRUNE_API int32_t nucprune_sparse_abi(void);

/* Name of the instruction set that a new network would use: "avx512", "avx2", "neon", "baseline".
 * The environment variable NUCPRUNE_ISA forces one; where this CPU lacks it or the name is unknown,
 * NULL is returned and one sentence written to `error`. */
NUCPRUNE_API const char *nucprune_sparse_isa(char *error, int64_t error_size);

/* 1 where this CPU and this build have the instruction set of that name. */
NUCPRUNE_API int32_t nucprune_sparse_has_isa(const char *name);

/* Make a network without weights, or NULL with one sentence in `error`.
 * widths: channels of each of the `depth` levels (1..8). kernels: 3 or 1 for each layer in forward
 * order, ignored for transposed convolutions and the head; NULL means 3x3 throughout.
 * isa: a name, or NULL to choose as nucprune_sparse_isa does. */
NUCPRUNE_API nucprune_sparse_net *nucprune_sparse_create(const int32_t *widths, int32_t depth,
                                                         const int32_t *kernels, const char *isa,
                                                         char *error, int64_t error_size);

NUCPRUNE_API void nucprune_sparse_free(nucprune_sparse_net *net);

/* Take weights. Not while the same network runs.
 * weights[l]: (out, in, k, k), for transposed convolutions (in, out, 2, 2). biases[l]: (out).
 * masks: NULL, or for each layer NULL or one byte a weight, 0 where the weight is pruned. Zero
 * weights are skipped in any case. Nothing is kept of the arrays. Returns a code of the enum. */
NUCPRUNE_API int32_t nucprune_sparse_load(nucprune_sparse_net *net, const float *const *weights,
                                          const float *const *biases, const uint8_t *const *masks,
                                          int32_t threads);

/* Nonzero weights as loaded, and those left once dead channels are gone. */
NUCPRUNE_API void nucprune_sparse_count(const nucprune_sparse_net *net, int64_t *nonzero,
                                        int64_t *live);

/* Run on one tile. Any number of threads may run one network at once.
 * rgb: (height, width, 3), uint8 or (where is_float is not 0) float32, in 0..255, with `rgb_stride`
 * elements from row to row. height and width: positive multiples of 2^(depth-1).
 * out: (height, width) float32 with `out_stride` elements from row to row, before any activation.
 * cancel: NULL, or polled; any value but 0 stops the run within milliseconds.
 * progress: NULL, or set from 0 to 1000 while running.
 * layer_ns: NULL, or one number a layer, to which the nanoseconds spent in it are added (summed
 * over threads). Returns a code of the enum; `out` is unspecified where it is not NUCPRUNE_OK. */
NUCPRUNE_API int32_t nucprune_sparse_run(nucprune_sparse_net *net, const void *rgb,
                                         int32_t is_float, int64_t rgb_stride, int64_t height,
                                         int64_t width, float *out, int64_t out_stride,
                                         int32_t threads, const int32_t *cancel, int32_t *progress,
                                         int64_t *layer_ns);

/* FMA roof of one core with the network's instruction set, in multiply-adds a second, for
 * operands in registers (bench only; takes about 50 ms). */
NUCPRUNE_API double nucprune_sparse_roof(const nucprune_sparse_net *net);

#ifdef __cplusplus
}
#endif

#endif
