"""A core's objects as they are exported: measurements and GeoJSON geometries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..nuclei.table import CSV_COLUMNS, measure
from .fixed import distances
from .lattice import Core, Lattice
from .outlines import Ring, outlines
from .ownership import Claims, whole
from .scratch import Found

#: Of a slide's table: those of a field, the centroid in level-0 pixels, and whether the object is
#: one of ``seam_objects``. Pixels are those of the labels, centres of pixels are whole numbers.
COLUMNS = (*CSV_COLUMNS, "centroid_y_level0", "centroid_x_level0", "seam")


def describe(
    lattice: Lattice,
    core: Core,
    claims: Claims,
    distance: NDArray[np.uint16],
    origin: Core,
    ratios: Sequence[float],
    mpp: float,
    corner: Sequence[int] = (0, 0),
) -> Found:
    """Measure and outline a core's objects.

    Parameters
    ----------
    lattice, core, claims
        Whose they are, and where.
    distance
        (H, W) uint16 codes of a window that holds all of them.
    origin
        (y, x) of that window in network pixels.
    ratios
        Level-0 pixels a network pixel, (y, x).
    mpp
        um a network pixel.
    corner
        As for `shapes`.
    """
    labels, (y, x) = whole(lattice, core, claims)
    top, left = y - origin[0], x - origin[1]
    own = distances(distance[top : top + labels.shape[0], left : left + labels.shape[1]])
    table = measure(labels, own, mpp)
    centre_y, centre_x = table["centroid_y"] + y, table["centroid_x"] + x
    columns = (
        table["label"],
        centre_y,
        centre_x,
        centre_y * mpp,
        centre_x * mpp,
        table["area_um2"],
        table["eccentricity"],
        table["mean_distance"],
        (centre_y + 0.5) * ratios[0] - 0.5,
        (centre_x + 0.5) * ratios[1] - 0.5,
        claims.seam,
    )
    outlined = shapes(labels, (y, x), ratios, corner)
    return Found(claims, np.stack(columns, 1).astype(np.float64), outlined)


def shapes(
    labels: NDArray[np.int32],
    origin: Core,
    ratios: Sequence[float],
    corner: Sequence[int] = (0, 0),
) -> list[str]:
    """Return a GeoJSON geometry for each label 1..n.

    Parameters
    ----------
    labels
        (H, W) int32, each number 1..n there.
    origin
        (y, x) of the first pixel in network pixels.
    ratios
        Level-0 pixels a network pixel, (y, x).
    corner
        (y, x) in level-0 pixels from which the outlines are counted, as of `Source`.

    Returns
    -------
    list of str
        A Polygon with its holes, in level-0 pixels whose corners are whole numbers (QuPath's); a
        MultiPolygon where an object has several parts.
    """
    ys, xs = (
        [
            _number((origin[axis] + edge) * ratios[axis] - corner[axis])
            for edge in range(labels.shape[axis] + 1)
        ]
        for axis in range(2)
    )
    rings: dict[int, list[Ring]] = {}
    for ring in outlines(labels):
        rings.setdefault(ring.label, []).append(ring)

    def text(ring: Ring) -> str:
        points = [f"[{xs[x]},{ys[y]}]" for y, x in ring.corners]
        return f"[{','.join(points)},{points[0]}]"

    found = []
    for label in sorted(rings):
        own = rings[label]
        if len(own) == 1:
            found.append(f'{{"type":"Polygon","coordinates":[{text(own[0])}]}}')
            continue
        parts = [",".join(map(text, part)) for part in _parts(own)]
        if len(parts) == 1:
            found.append(f'{{"type":"Polygon","coordinates":[{parts[0]}]}}')
        else:
            several = ",".join(f"[{part}]" for part in parts)
            found.append(f'{{"type":"MultiPolygon","coordinates":[{several}]}}')
    return found


def _parts(rings: list[Ring]) -> list[list[Ring]]:
    """Put each hole to the outer ring around it."""
    parts = [[ring] for ring in rings if not ring.hole]
    for hole in rings:
        if hole.hole:
            inside = [part for part in parts if len(parts) == 1 or _holds(part[0], hole)]
            inside[0].append(hole)
    return parts


def _holds(outer: Ring, hole: Ring) -> bool:
    """Whether a hole lies within an outer ring: a ray from just inside of it crosses an odd number.

    A hole's first vertex is its topmost leftmost: half a pixel down and right is within it.
    """
    y, x = min(hole.corners)
    crossed = 0
    corners = outer.corners
    for (y0, x0), (y1, _) in zip(corners, [*corners[1:], corners[0]], strict=True):
        crossed += x0 <= x and min(y0, y1) <= y < max(y0, y1)
    return crossed % 2 == 1


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".")
