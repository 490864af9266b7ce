"""The merge's steps in the native library; `plain` has the same functions without it."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import native
from . import plain

#: Starting a thread takes as long as some 30,000 pixels.
_PIXELS_A_THREAD = 1 << 18
_INVALID, _NO_MEMORY, _PLATEAUS = -1, -2, -3


@functools.cache
def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Set the functions' types (native/include/nucprune_watershed.h)."""
    array, size, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_double
    image = (size, size)
    for name, result, *arguments in (
        ("smooth", whole, array, *image, real, whole, whole, array),
        ("parts", whole, array, *image, size, array),
        ("markers", size, array, array, *image, whole, whole, array, size),
        ("flood", whole, array, array, *image, whole, array, size, whole, array),
        ("drop_small", whole, array, size, whole, size),
        ("measure", whole, array, array, *image, whole, array),
    ):
        function = getattr(library, f"nucprune_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _call(name: str, *arguments: Any) -> int:
    """Call a function of the library; arrays must be contiguous."""
    function = getattr(_typed(native.library()), f"nucprune_{name}")
    code = int(function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments)))
    if code == _NO_MEMORY:
        raise MemoryError
    if code == _INVALID:
        raise ValueError(f"nucprune_{name} was called with what it cannot take")
    return code


def _threads(threads: int | None, size: int) -> int:
    """Return how many threads to use; None is one a CPU, fewer where they would not pay."""
    return threads or min(os.cpu_count() or 1, max(1, size // _PIXELS_A_THREAD))


def smooth(
    distance: NDArray[np.float32], sigma: float, threads: int | None = None
) -> NDArray[np.float32]:
    """Smooth (H, W) by a Gaussian of `sigma` pixels, cut at 4 sigma, edges reflected (scipy's)."""
    half = int(4 * sigma + 0.5)
    if half == 0:
        return distance
    distance = np.ascontiguousarray(distance, dtype=np.float32)
    smoothed = np.empty_like(distance)
    _call(
        "smooth", distance, *distance.shape, sigma, half, _threads(threads, distance.size), smoothed
    )
    return smoothed


def parts_of(inside: NDArray[np.bool_], least: int) -> tuple[NDArray[np.int32], int]:
    """Give each 4-connected part of at least `least` pixels a number: (H, W), and 1 + how many."""
    parts = np.empty(inside.shape, dtype=np.int32)
    inside = np.ascontiguousarray(inside)
    return parts, _call("parts", inside.view(np.uint8), *inside.shape, least, parts)


def markers_of(
    smoothed: NDArray[np.float32], parts: NDArray[np.int32], n_parts: int, radius: int
) -> NDArray[np.int64]:
    """Return the markers' flat positions (n,), ascending."""
    height, width = parts.shape
    # Two maxima are never neighbours, and a part without any has one more.
    capacity = -(-height // 2) * -(-width // 2) + n_parts
    places = np.empty(capacity, dtype=np.int64)
    radius = min(radius, max(parts.shape))
    n = _call("markers", smoothed, parts, height, width, n_parts, radius, places, capacity)
    if n == _PLATEAUS:
        return plain.markers_of(smoothed, parts, n_parts, radius)
    return places[:n].copy()


def flood(
    smoothed: NDArray[np.float32],
    parts: NDArray[np.int32],
    n_parts: int,
    markers: NDArray[np.int64],
    threads: int | None = None,
) -> NDArray[np.int32]:
    """Turn `parts` INTO labels, in place: what marker k floods has k + 1.

    Notes
    -----
    ``skimage.segmentation.watershed`` on ``-smoothed`` with 4 neighbours, to the pixel, but for
    markers of exactly equal height: those scikit-image's heap leaves in no order, here they go in
    raster order.
    """
    places = np.ascontiguousarray(markers, dtype=np.int64)
    at, n, threads = parts.shape, places.size, _threads(threads, parts.size)
    _call("flood", smoothed, parts, *at, n_parts, places, n, threads, parts)
    return parts


def drop_small(labels: NDArray[np.int32], n: int, least: int) -> NDArray[np.int32]:
    """Take objects under `least` pixels out of labels 0..n, in place; the order stays."""
    _call("drop_small", labels, labels.size, n, least)
    return labels


def moments(
    labels: NDArray[np.integer], values: NDArray[np.floating]
) -> tuple[NDArray[np.int32], NDArray[np.float64]] | None:
    """Return ids (n,) and, for each, area, centroid, second moments and mean value (7, n).

    None for what the library does not take: no library, other types, ids far beyond the pixels.
    """
    if labels.dtype != np.int32 or values.dtype != np.float32 or not native.is_available():
        return None
    most, least = int(labels.max(initial=0)), int(labels.min(initial=0))
    if least < 0 or most > max(labels.size, 1024) or labels.size == 0:
        return None
    columns = np.empty((7, most), dtype=np.float64)
    labels, values = np.ascontiguousarray(labels), np.ascontiguousarray(values)
    _call("measure", labels, values, *labels.shape, most, columns)
    there = np.flatnonzero(columns[0])
    return (there + 1).astype(np.int32), columns[:, there]
