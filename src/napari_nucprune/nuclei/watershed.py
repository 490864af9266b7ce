"""The paper's merge: a marker-controlled watershed on the distance map."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..doors import Maps, Merge, Nuclei
from ..errors import InputError
from .flood import flood
from .table import measure


def merge(maps: Maps, parameters: Merge) -> Nuclei:
    """Turn the two branches' maps into nuclei.

    The mask is ``semantic >= threshold``. The distance map is smoothed by a Gaussian, its local
    maxima inside the mask are the markers, and a watershed on the negative smoothed map floods
    the mask from them. Objects under the minimum area go.

    Parameters
    ----------
    maps
        semantic (H, W) in [0, 1] and distance (H, W), floating, at ``maps.mpp`` um a pixel.
    parameters
        Smoothing, threshold, marker footprint and minimum area, in um.

    Returns
    -------
    Nuclei
        labels (H, W) int32, 1..n without gaps, in raster order of the markers; the table is
        that of `measure`.

    Raises
    ------
    InputError
        Where the maps are empty, differ in shape, hold NaN or infinity, or have no pixel size.

    Notes
    -----
    Every 4-connected part of the mask of at least the minimum area gets a marker, if need be its
    own highest pixel. A maximum is a pixel that nothing in its square window exceeds; equal ones
    within the window are one plateau with one marker, at its lowest (y, x) in the mask, and none
    if something in the window of any pixel of the plateau is higher. There is no threshold on
    the maxima, since the distances are scaled once per image and small nuclei have low peaks.

    Source: the merge of Mahbod's dual-decoder network (published code
    ``dual_decoder_nuclei_segmentation``), with its constants as parameters; the flood is
    ``skimage.segmentation.watershed``, with its default 4-neighbourhood.
    """
    import cv2

    _check(maps)
    inside = np.asarray(maps.semantic >= parameters.threshold)
    distance = np.ascontiguousarray(maps.distance, dtype=np.float32)
    smoothed = _smooth(distance, parameters.sigma_um / maps.mpp)
    # The tolerance keeps an area that is exactly the minimum, whatever mpp**2 rounds to.
    least = math.ceil(parameters.min_area_um2 / maps.mpp**2 - 1e-6)

    # 4-connected as the flood's neighbourhood is, so that a part is what one marker can reach.
    n_parts, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
    # Counted here: OpenCV's own statistics double the time.
    keep = np.bincount(parts.ravel(), minlength=n_parts) >= least
    keep[0] = False
    if not keep.all():
        # Specks cannot give an object that stays; gone now, they cost no markers.
        inside = keep[parts]
    labels = np.zeros(inside.shape, dtype=np.int32)
    if inside.any():
        radius = max(1, round(parameters.footprint_um / maps.mpp))
        markers = _markers(smoothed, inside, parts, radius)
        labels = flood(smoothed, parts, markers)
    labels = _without_small(labels, least)
    return Nuclei(labels, measure(labels, distance, maps.mpp), maps.mpp)


def _check(maps: Maps) -> None:
    """Raise `InputError` for maps that the merge cannot take."""
    semantic, distance = maps.semantic, maps.distance
    if semantic.ndim != 2 or semantic.shape != distance.shape or semantic.size == 0:
        raise InputError(
            f"The semantic map has shape {semantic.shape} and the distance map {distance.shape}; "
            "expected two maps of the same (height, width), not empty."
        )
    if not np.isfinite(maps.mpp) or maps.mpp <= 0:
        raise InputError(f"The pixel size is {maps.mpp} um; expected a number above 0.")
    for name, values in (("semantic", semantic), ("distance", distance)):
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise InputError(
                f"The {name} map has {bad} pixels that are NaN or infinite; expected finite "
                "numbers, so check the checkpoint's weights."
            )


def _smooth(distance: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth (H, W) by a Gaussian of `sigma` pixels, cut at 4 sigma, edges reflected (scipy's)."""
    import cv2

    half = int(4 * sigma + 0.5)
    if half == 0:
        return distance
    size = (2 * half + 1, 2 * half + 1)
    blurred = cv2.GaussianBlur(distance, size, sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def _markers(
    smoothed: NDArray[np.float32],
    inside: NDArray[np.bool_],
    parts: NDArray[np.int32],
    radius: int,
) -> NDArray[np.intp]:
    """Return the markers' flat positions (n,), ascending.

    `parts` numbers the mask's connected parts; those outside `inside` are ignored.
    """
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
    at = np.flatnonzero(peaks & inside)
    plateau_of = plateaus.ravel()[at]
    at, plateau_of = at[is_top[plateau_of]], plateau_of[is_top[plateau_of]]
    # The first index of each plateau in raster order is its lowest (y, x).
    _, first = np.unique(plateau_of, return_index=True)
    markers = at[first]

    flat = parts.ravel()
    lacking = np.ones(int(parts.max()) + 1, dtype=bool)
    lacking[0] = False
    lacking[flat[markers]] = False
    lone = np.flatnonzero(lacking[parts] & inside)
    if lone.size:
        # By part, then highest first, then raster order.
        order = np.lexsort((lone, -smoothed.ravel()[lone], flat[lone]))
        _, first = np.unique(flat[lone[order]], return_index=True)
        markers = np.concatenate([markers, lone[order][first]])
    return np.sort(markers)


def _without_small(labels: NDArray[np.int32], least: int) -> NDArray[np.int32]:
    """Return labels (H, W) 1..n without objects under `least` pixels, in the order they had."""
    stays = np.bincount(labels.ravel()) >= max(least, 1)
    if stays[1:].all():
        return labels
    stays[0] = False
    renumbered = np.where(stays, np.cumsum(stays), 0).astype(np.int32)
    return renumbered[labels]
