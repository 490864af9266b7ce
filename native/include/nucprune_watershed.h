/* The merge's steps, from maps to objects. Images are (height, width), C order, of at most 2^31 - 2
 * pixels; everything is written whole and nothing is kept. Results do not depend on `threads`, at
 * most so many of which are used. A negative result is one of the codes. */
#ifndef NUCPRUNE_WATERSHED_H
#define NUCPRUNE_WATERSHED_H

#include "nucprune.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    NUCPRUNE_WATERSHED_INVALID = -1,
    NUCPRUNE_WATERSHED_NO_MEMORY = -2,
    /* So many equal maxima that another way is quicker. */
    NUCPRUNE_WATERSHED_PLATEAUS = -3
};

/* Smooth by a Gaussian of `sigma` pixels, cut at `half` pixels, edges reflected (d c b a | a b c d).
 * `out` may not be `in`. Returns 0. */
NUCPRUNE_API int32_t nucprune_smooth(const float *in, int64_t height, int64_t width, double sigma,
                                     int32_t half, int32_t threads, float *out);

/* Number the 4-connected parts of a mask of bytes 0 and 1, in raster order of their first pixels;
 * those of fewer than `least` pixels get 0 as the ground does. Returns 1 + the number of parts. */
NUCPRUNE_API int32_t nucprune_parts(const uint8_t *inside, int64_t height, int64_t width,
                                    int64_t least, int32_t *parts);

/* Find one marker for each maximum of `smoothed` in the parts (numbers 1 .. n_parts - 1), and for
 * each part without any its first highest pixel. A maximum is a pixel that nothing in its window
 * of 2 * radius + 1 exceeds; equal ones within `radius` are one plateau, whose marker is its first
 * pixel in a part, and none where a plateau goes on at its height into the window of something
 * higher. Writes flat positions, ascending, and returns their number; more than `capacity` is
 * invalid. */
NUCPRUNE_API int64_t nucprune_markers(const float *smoothed, const int32_t *parts, int64_t height,
                                      int64_t width, int32_t n_parts, int32_t radius,
                                      int64_t *markers, int64_t capacity);

/* Give every pixel of the parts the label of the marker that reaches it first.
 *
 * landscape: finite; the flood goes from high to low values. parts: 0 outside the mask, else the
 * number (1 .. n_parts - 1) of the pixel's 4-connected part. markers: flat positions in the mask,
 * ascending, no two equal; marker k has label k + 1. labels: 0 outside the mask and in parts without
 * a marker; may be `parts`. Returns 0.
 *
 * Pixels are taken by their value, those of equal value in the order in which they were reached,
 * never before the value at which their neighbour was; neighbours are up, left, right, down. That
 * is skimage.segmentation.watershed's order, but for markers of equal value, which go here in the
 * order in which they are given. */
NUCPRUNE_API int32_t nucprune_flood(const float *landscape, const int32_t *parts, int64_t height,
                                    int64_t width, int32_t n_parts, const int64_t *markers,
                                    int64_t n_markers, int32_t threads, int32_t *labels);

/* Take objects of fewer than `least` pixels out of labels 0 .. n, in place, and close the gaps.
 * Returns the number of objects that stay. */
NUCPRUNE_API int32_t nucprune_drop_small(int32_t *labels, int64_t size, int32_t n, int64_t least);

/* Measure the objects 1 .. n: seven columns of n: pixels, the centroid's y and x, the mean of
 * (y - centroid_y)^2, of (y - centroid_y)(x - centroid_x) and of (x - centroid_x)^2, the mean of
 * `values`; all 0 for an id that is not there. Returns 0; ids outside 0 .. n are invalid. */
NUCPRUNE_API int32_t nucprune_measure(const int32_t *labels, const float *values, int64_t height,
                                      int64_t width, int32_t n, double *columns);

#ifdef __cplusplus
}
#endif
#endif
