"""The merge's steps without the native library: OpenCV's and scikit-image's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smooth(
    distance: NDArray[np.float32], sigma: float, threads: int | None = None
) -> NDArray[np.float32]:
    """Smooth (H, W) by a Gaussian of `sigma` pixels, cut at 4 sigma, edges reflected (scipy's)."""
    import cv2

    half = int(4 * sigma + 0.5)
    if half == 0:
        return distance
    size = (2 * half + 1, 2 * half + 1)
    blurred = cv2.GaussianBlur(distance, size, sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def parts_of(inside: NDArray[np.bool_], least: int) -> tuple[NDArray[np.int32], int]:
    """Give each 4-connected part of at least `least` pixels a number: (H, W), and 1 + how many."""
    import cv2

    inside = np.ascontiguousarray(inside)
    n_parts, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
    # Counted here: OpenCV's own statistics double the time.
    keep = np.bincount(parts.ravel(), minlength=n_parts) >= least
    keep[0] = False
    if not keep[1:].all():
        parts = np.where(keep, np.cumsum(keep), 0).astype(np.int32)[parts]
    return parts, int(np.count_nonzero(keep)) + 1


def markers_of(
    smoothed: NDArray[np.float32], parts: NDArray[np.int32], n_parts: int, radius: int
) -> NDArray[np.int64]:
    """Return the markers' flat positions (n,), ascending."""
    import cv2

    # Beyond the image a wider window changes nothing but its cost.
    radius = min(radius, max(smoothed.shape))
    window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    peaks = smoothed == cv2.dilate(smoothed, window)
    # Equal maxima within `radius` are one plateau. Squares of side `radius` put on two pixels
    # touch just where these are within `radius`, so the plateaus are connected components.
    squares = cv2.dilate(peaks.view(np.uint8), np.ones((radius, radius), np.uint8))
    n_plateaus, plateaus = cv2.connectedComponents(squares, connectivity=8)
    # A plateau that goes on at its own height into the window of something higher is a ledge or
    # the ground, not a maximum.
    lower = cv2.dilate(np.where(peaks, np.float32(-np.inf), smoothed), np.ones((3, 3), np.uint8))
    is_top = np.ones(n_plateaus, dtype=bool)
    is_top[plateaus[peaks & (lower == smoothed)]] = False
    at = np.flatnonzero(peaks & (parts > 0))
    plateau_of = plateaus.ravel()[at]
    at, plateau_of = at[is_top[plateau_of]], plateau_of[is_top[plateau_of]]
    # The first index of each plateau in raster order is its lowest (y, x).
    _, first = np.unique(plateau_of, return_index=True)
    markers = at[first]

    flat = parts.ravel()
    lacking = np.ones(n_parts, dtype=bool)
    lacking[0] = False
    lacking[flat[markers]] = False
    lone = np.flatnonzero(lacking[parts])
    if lone.size:
        # By part, then highest first, then raster order.
        order = np.lexsort((lone, -smoothed.ravel()[lone], flat[lone]))
        _, first = np.unique(flat[lone[order]], return_index=True)
        markers = np.concatenate([markers, lone[order][first]])
    return np.sort(markers).astype(np.int64, copy=False)


def flood(
    smoothed: NDArray[np.float32],
    parts: NDArray[np.int32],
    n_parts: int,
    markers: NDArray[np.int64],
    threads: int | None = None,
) -> NDArray[np.int32]:
    """Return labels (H, W): what marker k floods has k + 1."""
    from skimage.segmentation import watershed

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
        labels += watershed(-smoothed, seeds, mask=crowded[parts]).astype(np.int32, copy=False)
    return labels


def drop_small(labels: NDArray[np.int32], n: int, least: int) -> NDArray[np.int32]:
    """Return labels (H, W) 0..n without objects under `least` pixels, in the order they had."""
    stays = np.bincount(labels.ravel(), minlength=n + 1) >= max(least, 1)
    if stays[1:].all():
        return labels
    stays[0] = False
    renumbered = np.where(stays, np.cumsum(stays), 0).astype(np.int32)
    return renumbered[labels]
