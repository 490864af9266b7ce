"""The paper's merge: a marker-controlled watershed on the distance map."""

from __future__ import annotations

import math

import numpy as np

from .. import native
from ..doors import Maps, Merge, Nuclei
from ..errors import InputError
from . import kernels, plain
from .saddles import join
from .table import measure


def merge(maps: Maps, parameters: Merge, threads: int | None = None) -> Nuclei:
    """Turn the two branches' maps into nuclei.

    The mask is ``semantic >= threshold``. The distance map is smoothed by a Gaussian, its local
    maxima inside the mask are the markers, and a watershed on the negative smoothed map floods
    the mask from them. Basins without a valley between them are joined (`saddles.join`). Objects
    under the minimum area go.

    Parameters
    ----------
    maps
        semantic (H, W) in [0, 1] and distance (H, W), floating, at ``maps.mpp`` um a pixel.
    parameters
        Smoothing, marker footprint and minimum area in um, threshold and saddle.
    threads
        How many the native library may use; None for one a CPU. Nothing depends on it.

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
    ``dual_decoder_nuclei_segmentation``), with its constants as parameters; the flood is that of
    ``skimage.segmentation.watershed``, with its default 4-neighbourhood. With and without the
    native library the steps are the same; the smoothing differs in the last bits.
    """
    _check(maps)
    steps = kernels if native.is_available() else plain
    distance = np.ascontiguousarray(maps.distance, dtype=np.float32)
    # The tolerance keeps an area that is exactly the minimum, whatever mpp**2 rounds to.
    least = math.ceil(parameters.min_area_um2 / maps.mpp**2 - 1e-6)

    # 4-connected as the flood's neighbourhood is, so that a part is what one marker can reach.
    # Specks cannot give an object that stays; gone at once, they cost no markers.
    labels, n_parts = steps.parts_of(np.asarray(maps.semantic >= parameters.threshold), least)
    if n_parts > 1:
        smoothed = steps.smooth(distance, parameters.sigma_um / maps.mpp, threads)
        radius = max(1, round(parameters.footprint_um / maps.mpp))
        markers = steps.markers_of(smoothed, labels, n_parts, radius)
        labels = steps.flood(smoothed, labels, n_parts, markers, threads)
        labels = join(labels, smoothed, smoothed.ravel()[markers], parameters.saddle)
        labels = steps.drop_small(labels, len(markers), least)
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
        # NaN goes through both: two quick passes instead of a map of what is finite.
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            continue
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        raise InputError(
            f"The {name} map has {bad} pixels that are NaN or infinite; expected finite "
            "numbers, so check the checkpoint's weights."
        )
