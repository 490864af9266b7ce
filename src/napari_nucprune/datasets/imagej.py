"""ImageJ ROIs (``RoiSet.zip``, ``.roi``) as instance labels."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import is_outline

log = logging.getLogger(__name__)
#: One outline takes some kilobytes: what is larger is no outline (or a zip bomb).
LARGEST = 16_000_000
#: Of all outlines of a file together.
LARGEST_SUM = 256_000_000
#: Added to (y, x): where a vertex lies on a pixel's centre, that pixel goes where MATLAB's
#: poly2mask, which made the published maps, puts it.
TIES = np.array([1e-3, 2e-3])


def labels_from_rois(path: Path, shape: tuple[int, int], offset: float = -1.0) -> NDArray[np.int32]:
    """Fill the outlines of an ImageJ ROI file.

    Parameters
    ----------
    path
        A zip of ``.roi`` files, as ImageJ's ROI Manager saves them, or one ``.roi``.
    shape
        (H, W) of the image.
    offset
        Added to both coordinates of every vertex before the pixels whose centres (whole numbers)
        lie inside are filled. -1 is what the label maps of NuInsSeg and CryoNuSeg follow: their
        code gives ImageJ's vertices to MATLAB's ``poly2mask``, whose first pixel is 1. ImageJ
        itself draws a vertex on a pixel's upper left corner: -0.5.

    Returns
    -------
    NDArray
        (H, W) int32, numbered in the order of the ROIs' names; where they overlap the later one
        wins, as in the published maps (``label masks modify``).

    Raises
    ------
    InputError
        Where the file is damaged or holds no ROIs.
    """
    labels = np.zeros(shape, np.int32)
    flat = []
    found = read_rois(path)
    for index, (name, roi) in enumerate(found, start=1):
        inside = _inside(roi, shape, offset)
        if inside is None:
            flat.append(name)
        else:
            labels[inside] = index
    hidden = len(found) - len(flat) - len(np.unique(labels[labels > 0]))
    if flat:
        log.warning(
            "%s: %d of %d ROIs enclose no pixel of the image and were left out (%s first)",
            path.name, len(flat), len(found), flat[0],
        )  # fmt: skip
    if hidden:
        log.warning("%s: %d ROIs lie wholly under later ones", path.name, hidden)
    return labels


def read_rois(path: Path) -> list[tuple[str, Any]]:
    """Read an ImageJ ROI file.

    Parameters
    ----------
    path
        As for `labels_from_rois`.

    Returns
    -------
    list
        Names and ``roifile.ImagejRoi``, sorted by name.

    Raises
    ------
    InputError
        Where the file is damaged or holds no ROIs.
    """
    from roifile import ImagejRoi

    try:
        if path.suffix.lower() != ".zip":
            return [(path.name, ImagejRoi.frombytes(path.read_bytes()[:LARGEST]))]
        found, total = [], 0
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda e: e.filename):
                name = entry.filename
                # macOS adds files of its own.
                if not name.lower().endswith(".roi") or name.split("/")[-1].startswith("."):
                    continue
                total += entry.file_size
                if entry.file_size > LARGEST or total > LARGEST_SUM:
                    raise ValueError(f"{name} has {entry.file_size} bytes, up to it {total}")
                found.append((name, ImagejRoi.frombytes(archive.read(entry))))
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise InputError(
            f"{path} cannot be read as ImageJ ROIs ({why}); copy or download it again."
        ) from error
    if not found:
        raise InputError(f"{path} holds no .roi file; expected what ImageJ's ROI Manager saves.")
    return found


def extent(rois: list[tuple[str, Any]]) -> tuple[int, int]:
    """Return the smallest (H, W) that holds what the ROIs enclose; at least (1, 1)."""
    reach = np.zeros(2)
    for _, roi in rois:
        for outline in _outlines(roi):
            reach = np.maximum(reach, outline.max(axis=0))
    height, width = np.ceil(reach).astype(int)
    return max(int(height), 1), max(int(width), 1)


def _outlines(roi: Any) -> list[NDArray[np.float64]]:
    """Return the vertices (y, x) of a ROI's closed outlines; none of lines and points."""
    from roifile import ROI_TYPE

    if roi.roitype in (ROI_TYPE.LINE, ROI_TYPE.POINT, ROI_TYPE.POLYLINE, ROI_TYPE.FREELINE,
                       ROI_TYPE.ANGLE, ROI_TYPE.NOROI):  # fmt: skip
        return []
    found = [np.asarray(o, np.float64)[:, ::-1] for o in roi.coordinates(multi=True)]
    return [o for o in found if is_outline(o)]


def _inside(roi: Any, shape: tuple[int, int], offset: float) -> tuple[Any, ...] | None:
    """Return the rows and columns that a ROI encloses; None for lines, points and slivers."""
    from skimage.draw import polygon

    parts = []
    for outline in _outlines(roi):
        vertices = outline + offset + TIES
        parts.append(polygon(vertices[:, 0], vertices[:, 1], shape))
    if len(parts) > 1:  # a shape with holes: what lies in an odd number of outlines
        pixels = np.concatenate([np.ravel_multi_index(part, shape) for part in parts])
        unique, times = np.unique(pixels, return_counts=True)
        parts = [np.unravel_index(unique[times % 2 == 1], shape)]
    return parts[0] if parts and len(parts[0][0]) else None
