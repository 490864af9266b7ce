/* The flood of the marker-controlled watershed, exact: no levels are merged. */
#ifndef NUCPRUNE_WATERSHED_H
#define NUCPRUNE_WATERSHED_H

#include "nucprune.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { NUCPRUNE_FLOOD_OK = 0, NUCPRUNE_FLOOD_INVALID = 1, NUCPRUNE_FLOOD_NO_MEMORY = 2 };

/* Give every pixel of the mask the label of the marker that reaches it first.
 *
 * landscape: (height, width) finite; the flood goes from high to low values. parts: (height, width),
 * 0 outside the mask, else the number (1 .. n_parts - 1) of the 4-connected part that the pixel is
 * in. markers: n_markers flat positions in the mask, ascending, no two equal; marker k has label
 * k + 1. threads: at most so many are used; the result does not depend on it.
 * labels: (height, width), written whole; 0 outside the mask and in parts without a marker.
 *
 * Pixels are taken by their value, those of equal value in the order in which they were reached,
 * never before the value at which their neighbour was; neighbours are up, left, right, down. That
 * is skimage.segmentation.watershed's order, but for markers of equal value, which go here in the
 * order in which they are given. Both are asked for at most 2^31 - 2 pixels. */
NUCPRUNE_API int32_t nucprune_flood(const float *landscape, const int32_t *parts, int64_t height,
                                    int64_t width, int32_t n_parts, const int64_t *markers,
                                    int64_t n_markers, int32_t threads, int32_t *labels);

#ifdef __cplusplus
}
#endif
#endif
