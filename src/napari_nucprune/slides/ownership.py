"""Every object of a slide has one owner: the core that holds its marker."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import native
from ..doors import Merge
from ..nuclei import kernels, plain
from ..nuclei.saddles import join
from .lattice import Core, Lattice


@dataclass(frozen=True)
class Claims:
    """A core's objects.

    Attributes
    ----------
    labels
        (core, core) int32: the core's own objects 1..n by their markers' (y, x), 0 elsewhere.
    spill_y, spill_x, spill
        (k,) int32: network pixels outside the core that its objects have, and whose they are.
    seam
        (n,) bool: objects of a mask component that does not fit the window of every core that
        owns one of its markers; one watershed over the whole slide may cut these otherwise.
    """

    labels: NDArray[np.int32]
    spill_y: NDArray[np.int32]
    spill_x: NDArray[np.int32]
    spill: NDArray[np.int32]
    seam: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seam)


def least_pixels(merge: Merge, mpp: float) -> int:
    """Return the pixels of the smallest object, as `nuclei.watershed.merge` counts them."""
    return max(1, math.ceil(merge.min_area_um2 / mpp**2 - 1e-6))


def marker_radius(merge: Merge, mpp: float) -> int:
    """Return the half side of the window of a maximum in pixels."""
    return max(1, round(merge.footprint_um / mpp))


def basins(
    inside: NDArray[np.bool_],
    landscape: NDArray[np.float32],
    merge: Merge,
    mpp: float,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Flood a mask from its markers; the steps are those of `nuclei.watershed.merge`.

    Parameters
    ----------
    inside
        (H, W) bool.
    landscape
        (H, W) float32, as of `fixed.landscape`.
    merge, mpp
        Parameters, and um a pixel.

    Returns
    -------
    parts
        (H, W) int32, the mask's 4-connected components of at least the minimum area.
    labels
        (H, W) int32, what each marker flooded, k + 1 for marker k; joined ones have the lowest.
    markers
        (n,) flat positions, ascending.

    Notes
    -----
    All of it is local to a component, which is why a window that holds the component gives what
    the whole slide does: markers are maxima of windows within it and its near surroundings (no
    greedy minimum distance), equal ones count as their lowest (y, x), the flood of a component
    sees no other one, and basins are joined within it alone.
    """
    steps = kernels if native.is_available() else plain
    parts, n_parts = steps.parts_of(inside, least_pixels(merge, mpp))
    if n_parts == 1:
        return parts, parts, np.zeros(0, np.int64)
    markers = steps.markers_of(landscape, parts, n_parts, marker_radius(merge, mpp))
    labels = steps.flood(landscape, parts.copy(), n_parts, markers, 1)
    labels = join(labels, landscape, landscape.ravel()[markers], merge.saddle)
    return parts, labels, markers


def claim(
    lattice: Lattice,
    core: Core,
    inside: NDArray[np.bool_],
    landscape: NDArray[np.float32],
    margin: int,
    merge: Merge,
    mpp: float,
) -> Claims:
    """Find the objects of a core.

    Parameters
    ----------
    lattice, core
        Where it is.
    inside, landscape
        (H, W), the mask and the smoothed distances of ``lattice.box(core, margin)``.
    margin
        The lattice's reach and what smoothing and markers look at beyond it.
    merge, mpp
        Parameters, and um a pixel.
    """
    oy, ox, _, _ = lattice.box(core, margin)
    wy0, wx0, wy1, wx1 = lattice.box(core, lattice.reach)
    window = np.zeros_like(inside)
    part = np.s_[wy0 - oy : wy1 - oy, wx0 - ox : wx1 - ox]
    window[part] = inside[part]
    parts, labels, markers = basins(window, landscape, merge, mpp)
    y, x = np.divmod(markers, inside.shape[1])
    owner_y, owner_x = (y + oy) // lattice.core, (x + ox) // lattice.core
    pixels = np.bincount(labels.ravel(), minlength=len(markers) + 1)[1:]
    own = (owner_y == core[0]) & (owner_x == core[1]) & (pixels >= least_pixels(merge, mpp))
    part_of = parts.ravel()[markers]
    owners = np.stack([owner_y, owner_x], 1)
    seam = _unsure(lattice, core, parts, (oy, ox), part_of, owners)[part_of[own]]
    number = np.zeros(len(markers) + 1, np.int32)
    number[1:][own] = np.arange(1, np.count_nonzero(own) + 1)
    return _claims(lattice, core, number[labels], (oy, ox), seam)


def _unsure(
    lattice: Lattice,
    core: Core,
    parts: NDArray[np.int32],
    origin: tuple[int, int],
    part_of: NDArray[np.int32],
    owners: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Say which components (by number) do not fit the window of every core with a marker of it."""
    from scipy.ndimage import find_objects

    n_parts = int(part_of.max(initial=0)) + 1
    found = np.zeros(max(n_parts, int(parts.max(initial=0)) + 1), bool)
    foreign: dict[int, set[Core]] = {}
    for number, owner in zip(part_of.tolist(), owners.tolist(), strict=True):
        if tuple(owner) != core:
            foreign.setdefault(number, set()).add((owner[0], owner[1]))
    window = lattice.box(core, lattice.reach)
    for number, box in enumerate(find_objects(parts), start=1):
        if box is None:
            continue
        y0, y1 = box[0].start + origin[0], box[0].stop + origin[0]
        x0, x1 = box[1].start + origin[1], box[1].stop + origin[1]
        # At the window's edge it may go on beyond, unless the slide ends there.
        found[number] = (
            (y0 == window[0] > 0)
            or (x0 == window[1] > 0)
            or (y1 == window[2] < lattice.shape[0])
            or (x1 == window[3] < lattice.shape[1])
        )
        for other in foreign.get(number, ()):
            oy0, ox0, oy1, ox1 = lattice.box(other, lattice.reach)
            found[number] |= y0 < oy0 or x0 < ox0 or y1 > oy1 or x1 > ox1
            # Touching the other window's edge, the other core cannot know that it ends there.
            found[number] |= (y0 == oy0 > 0) or (x0 == ox0 > 0)
            found[number] |= (y1 == oy1 < lattice.shape[0]) or (x1 == ox1 < lattice.shape[1])
    return found


def _claims(
    lattice: Lattice,
    core: Core,
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    seam: NDArray[np.bool_],
) -> Claims:
    """Split a window's labels (H, W) into the core's and what sticks out."""
    y0, x0, y1, x1 = lattice.box(core)
    inner = np.s_[y0 - origin[0] : y1 - origin[0], x0 - origin[1] : x1 - origin[1]]
    own = np.zeros((lattice.core, lattice.core), np.int32)
    own[: y1 - y0, : x1 - x0] = labels[inner]
    outside = labels.copy()
    outside[inner] = 0
    y, x = np.nonzero(outside)
    spill = outside[y, x]
    return Claims(
        own, (y + origin[0]).astype(np.int32), (x + origin[1]).astype(np.int32), spill, seam
    )


def whole(lattice: Lattice, core: Core, claims: Claims) -> tuple[NDArray[np.int32], Core]:
    """Return a core's objects as one label map (h, w) int32, and its origin (y, x)."""
    y0, x0, y1, x1 = lattice.box(core)
    top, left = min(y0, claims.spill_y.min(initial=y0)), min(x0, claims.spill_x.min(initial=x0))
    low = max(y1, int(claims.spill_y.max(initial=0)) + 1)
    right = max(x1, int(claims.spill_x.max(initial=0)) + 1)
    labels = np.zeros((low - top, right - left), np.int32)
    labels[y0 - top : y1 - top, x0 - left : x1 - left] = claims.labels[: y1 - y0, : x1 - x0]
    labels[claims.spill_y - top, claims.spill_x - left] = claims.spill
    return labels, (int(top), int(left))
