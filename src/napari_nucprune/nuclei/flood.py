"""The watershed's flood: native where there is a library, else scikit-image's."""

from __future__ import annotations

import ctypes
import functools
import os

import numpy as np
from numpy.typing import NDArray

from .. import native


def flood(
    landscape: NDArray[np.float32],
    parts: NDArray[np.int32],
    markers: NDArray[np.intp],
    threads: int | None = None,
) -> NDArray[np.int32]:
    """Give every pixel of a mask the label of the marker that reaches it first.

    Parameters
    ----------
    landscape
        (H, W) float32, finite; flooded from high to low.
    parts
        (H, W) int32: 0 outside the mask, else the number of the pixel's 4-connected part.
    markers
        Flat positions in the mask (n,), ascending, no two equal.
    threads
        How many to use at most; None for one a CPU. The labels do not depend on it.

    Returns
    -------
    NDArray[np.int32]
        (H, W): k + 1 where marker k floods; 0 outside the mask and in parts without a marker.

    Notes
    -----
    Both ways are ``skimage.segmentation.watershed`` on ``-landscape`` with 4 neighbours. They may
    differ where several markers have exactly the same height: scikit-image's heap leaves those in
    no order, natively they go in raster order.
    """
    try:
        library = _library()
    except native.NativeMissing:
        return _with_skimage(landscape, parts, markers)
    landscape = np.ascontiguousarray(landscape, dtype=np.float32)
    parts = np.ascontiguousarray(parts, dtype=np.int32)
    places = np.ascontiguousarray(markers, dtype=np.int64)
    labels = np.empty(parts.shape, dtype=np.int32)
    if not labels.size:
        return labels
    code = library.nucprune_flood(
        landscape.ctypes.data,
        parts.ctypes.data,
        *parts.shape,
        int(parts.max()) + 1,
        places.ctypes.data,
        places.size,
        threads or os.cpu_count() or 1,
        labels.ctypes.data,
    )
    if code == 2:
        raise MemoryError
    if code:
        raise ValueError("markers outside the mask or not ascending, or more than 2**31 pixels")
    return labels


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the library with this function's types set."""
    library = native.library()
    pointer, whole, long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.nucprune_flood.argtypes = [
        *(pointer, pointer, long, long, whole),
        *(pointer, long, whole, pointer),
    ]
    library.nucprune_flood.restype = whole
    return library


def _with_skimage(
    landscape: NDArray[np.float32], parts: NDArray[np.int32], markers: NDArray[np.intp]
) -> NDArray[np.int32]:
    """Flood with scikit-image what a single marker does not take anyway."""
    from skimage.segmentation import watershed

    n_parts = int(parts.max(initial=0)) + 1
    part_of = parts.ravel()[markers]
    ids = np.arange(1, len(markers) + 1, dtype=np.int32)
    crowded = np.bincount(part_of, minlength=n_parts) > 1
    # A part with one marker is that marker's whatever the landscape: no flood.
    single = ~crowded[part_of]
    label_of_part = np.zeros(n_parts, dtype=np.int32)
    label_of_part[part_of[single]] = ids[single]
    labels = label_of_part[parts]
    if not single.all():
        seeds = np.zeros(parts.shape, dtype=np.int32)
        seeds.ravel()[markers[~single]] = ids[~single]
        labels += watershed(-landscape, seeds, mask=crowded[parts]).astype(np.int32, copy=False)
    return labels
