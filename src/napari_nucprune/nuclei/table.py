"""Measurements of nuclei: all objects at once, from sums over pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import Nuclei
from ..errors import InputError
from ..files import replacing
from .kernels import moments

#: Header of `write_csv`, centroids in pixels of the labels and in um from their origin.
CSV_COLUMNS = (
    "id",
    "centroid_y_px",
    "centroid_x_px",
    "centroid_y_um",
    "centroid_x_um",
    "area_um2",
    "eccentricity",
    "mean_distance",
)
_CSV_ROW = "%d,%.3f,%.3f,%.4f,%.4f,%.4f,%.6f,%.6g\n"


def measure(
    labels: NDArray[np.integer], distance: NDArray[np.floating], mpp: float
) -> dict[str, NDArray[Any]]:
    """Measure every object of a label map.

    Parameters
    ----------
    labels
        (H, W) integer, 0 is background; ids may have gaps.
    distance
        (H, W) floating, the distance map in the checkpoint's unit.
    mpp
        um a pixel.

    Returns
    -------
    dict
        Columns of length n, in the order of the ids: ``label`` int32, and as float64
        ``centroid_y`` and ``centroid_x`` (pixels; the centre of the first pixel is 0),
        ``area_um2``, ``eccentricity`` (0 is a circle; of the ellipse with the same second
        moments) and ``mean_distance`` (the distance map's mean over the object, in its unit).

    Raises
    ------
    InputError
        Where the shapes differ, an id is negative or the pixel size is not above 0.

    Notes
    -----
    Definitions are those of ``skimage.measure.regionprops``.
    """
    if labels.ndim != 2 or labels.shape != distance.shape:
        raise InputError(
            f"The labels have shape {labels.shape} and the distance map {distance.shape}; "
            "expected two maps of the same (height, width)."
        )
    if not np.isfinite(mpp) or mpp <= 0:
        raise InputError(f"The pixel size is {mpp} um; expected a number above 0.")
    quick = moments(labels, distance)
    ids, columns = _moments(labels, distance) if quick is None else quick
    pixels, centroid_y, centroid_x, yy, xy, xx, mean = columns
    # Eigenvalues of [[yy, xy], [xy, xx]] are middle +- spread.
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    longest = middle + spread
    # A straight line of pixels has middle == spread; rounding must not carry it above 1.
    ratio = np.divide(2 * spread, longest, out=np.zeros_like(longest), where=longest > 0)
    return {
        "label": ids,
        "centroid_y": centroid_y,
        "centroid_x": centroid_x,
        "area_um2": pixels * mpp**2,
        "eccentricity": np.sqrt(np.clip(ratio, 0, 1)),
        "mean_distance": mean,
    }


def _moments(
    labels: NDArray[np.integer], distance: NDArray[np.floating]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return what `kernels.moments` does, of any types."""
    # Sums go over horizontal runs of equal labels, some 40 times fewer than pixels.
    starts = np.flatnonzero(_run_starts(labels))
    label_of = labels.ravel()[starts]
    length = np.diff(starts, append=labels.size).astype(np.float64)
    distance_of = np.zeros(len(starts))
    if len(starts):
        distance_of = np.add.reduceat(distance.ravel(), starts, dtype=np.float64)
    if label_of.min(initial=0) < 0:
        raise InputError(f"The labels go down to {label_of.min()}; expected ids of at least 0.")
    inside = label_of > 0
    starts, length, distance_of = starts[inside], length[inside], distance_of[inside]
    ids, row_of = np.unique(label_of[inside], return_inverse=True)

    def total(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(row_of, weights, len(ids)).astype(np.float64, copy=False)

    pixels = total(length)
    y, first = np.divmod(starts, max(labels.shape[1], 1))
    x = first + (length - 1) / 2
    centroid_y, centroid_x = total(y * length) / pixels, total(x * length) / pixels
    # The scatter is taken about the centroids, in a second pass: sums of squares of slide
    # coordinates would lose what makes a round nucleus' eccentricity.
    dy, dx = y - centroid_y[row_of], x - centroid_x[row_of]
    yy, xy = total(dy * dy * length) / pixels, total(dy * dx * length) / pixels
    # A run's own scatter about its middle is n (n**2 - 1) / 12.
    xx = total((dx * dx + (length * length - 1) / 12) * length) / pixels
    columns = (pixels, centroid_y, centroid_x, yy, xy, xx, total(distance_of) / pixels)
    return ids.astype(np.int32), np.array(columns)


def _run_starts(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return (H, W), True where a horizontal run of equal labels begins."""
    starts = np.ones(labels.shape, dtype=bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=starts[:, 1:])
    return starts


def write_csv(nuclei: Nuclei, path: str | Path) -> None:
    """Write the table of `nuclei` as CSV: whole, or not at all.

    Parameters
    ----------
    nuclei
        Its table gives one row a nucleus, its ``mpp`` the centroids in um.
    path
        File to write; an old one stays until the new one is complete.

    Raises
    ------
    InputError
        Where the folder does not exist or `path` is a folder.
    EnvironmentStopped
        Where the file cannot be written (disk full, folder read-only).

    Notes
    -----
    Columns are `CSV_COLUMNS`; lines end in a line feed, numbers use a point, on any system.
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise InputError(f"The table's file {path} {found}; give a file in an existing folder.")
    table = nuclei.table
    columns = (
        table["label"],
        table["centroid_y"],
        table["centroid_x"],
        table["centroid_y"] * nuclei.mpp,
        table["centroid_x"] * nuclei.mpp,
        table["area_um2"],
        table["eccentricity"],
        table["mean_distance"],
    )
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(",".join(CSV_COLUMNS) + "\n")
        file.writelines(_CSV_ROW % row for row in zip(*(c.tolist() for c in columns), strict=True))
