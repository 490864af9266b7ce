/* Packed checkpoints; src/napari_nucprune/checkpoint/coding.py says how they are coded. */
#ifndef NUCPRUNE_PACKED_H
#define NUCPRUNE_PACKED_H

#include "nucprune.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { NUCPRUNE_PACKED_WHOLE = 0, NUCPRUNE_PACKED_INVALID = -1 };

/* Put values to their places in `flat`, (total,), which the caller has filled with zeros.
 *
 * distances: (entries,), each from the last place to the next, the first from before the start; 0
 * goes on by 255 and puts nothing there. planes: the `bytes` (4 or 2) bytes of `kept` values, whose
 * bits are rotated to the left by one, each in an array of its own, the lowest first. Invalid where
 * distances run over the end, or lead to other than `kept` places. */
NUCPRUNE_API int32_t nucprune_place(const uint8_t *distances, int64_t entries,
                                    const uint8_t *const *planes, int64_t kept, int32_t bytes,
                                    float *flat, int64_t total);

/* The same from a bit a place, (total + 7) / 8 bytes, the lowest bit of the first byte first; all of
 * `flat` is written. Invalid where other than `kept` bits are set, or one beyond `total`. */
NUCPRUNE_API int32_t nucprune_place_bits(const uint8_t *bits, const uint8_t *const *planes,
                                         int64_t kept, int32_t bytes, float *flat, int64_t total);

#ifdef __cplusplus
}
#endif
#endif
