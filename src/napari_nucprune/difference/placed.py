"""Nuclei and maps somewhere on an image, and two of them brought onto one grid."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..job import Preview
from ..nuclei.distance import distance_target
from ..slides.field import to_image

#: So far (um) beyond the compared part a nucleus may reach that is cut by its edge.
MARGIN_UM = 25.0
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Placed:
    """Nuclei, and the maps they came from where these are known.

    Attributes
    ----------
    name
        For people.
    labels
        (H, W) integer array-like (sliced, then ``np.asarray``), 0 is background.
    transform
        3x3, homogeneous (y, x, 1): its pixels to level-0 pixels of the image.
    key
        Names the pixels: equal keys stand for equal labels and maps.
    semantic, distance
        (H, W) float32 of the same pixels; None for annotations.
    """

    name: str
    labels: Any
    transform: NDArray[np.float64]
    key: Hashable
    semantic: NDArray[np.float32] | None = None
    distance: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])


def placed(preview: Preview, name: str) -> Placed:
    """Return a preview as something to compare."""
    return Placed(
        name,
        preview.nuclei.labels,
        preview.transform,
        ("preview", id(preview.nuclei.labels)),
        preview.maps.semantic,
        preview.maps.distance,
    )


@dataclass(frozen=True, eq=False)
class Ground:
    """A reference on the grid that two results are compared on.

    Attributes
    ----------
    reference
        Where it is from.
    labels
        (H, W) integer, the reference's nuclei of the compared part.
    semantic, distance
        (H, W) float32: the reference's own maps, else those that its nuclei stand for.
    nucleus
        (H, W) bool, where the reference has nucleus: for the semantic map's Dice.
    to_grid
        3x3, the result's pixels to this grid's.
    transform
        3x3, this grid's pixels to level-0 pixels of the image.
    mpp
        um a pixel of this grid.
    """

    reference: Placed
    labels: NDArray[Any]
    semantic: NDArray[np.float32]
    distance: NDArray[np.float32]
    nucleus: NDArray[np.bool_]
    to_grid: NDArray[np.float64]
    transform: NDArray[np.float64]
    mpp: float

    def of(self, result: Placed) -> Placed:
        """Return a result on this grid; it must lie where that lay which the ground is for."""
        shape = self.labels.shape

        def bring(array: Any, labels: bool) -> Any:
            if array is None:
                return None
            return to_image(np.asarray(array), self.to_grid, shape, labels=labels)

        return Placed(
            result.name,
            bring(result.labels, True),
            self.transform,
            result.key,
            bring(result.semantic, False),
            bring(result.distance, False),
        )


def ground(
    result: Placed,
    reference: Placed,
    image: tuple[int, int],
    mpp: float,
    unit_um: float,
    threshold: float,
) -> Ground:
    """Cut a reference to the part that a result covers.

    Parameters
    ----------
    result, reference
        What is to be compared.
    image
        (H, W) of level 0.
    mpp
        um a pixel of the result.
    unit_um
        The checkpoint's distance unit.
    threshold
        Semantic probability from which a pixel is nucleus.

    Returns
    -------
    Ground
        On the reference's own pixels, so that a truth is never resampled; only where these are
        turned against the image the result's pixels are taken.

    Raises
    ------
    InputError
        Where the two do not overlap, or the reference is no plane of labels.
    """
    if len(reference.labels.shape) != 2:
        raise InputError(
            f"{reference.name} has shape {tuple(reference.labels.shape)}; a reference is one "
            "plane of labels: choose another layer."
        )
    to_reference = np.linalg.inv(reference.transform) @ result.transform
    turned = np.abs(to_reference[[0, 1], [1, 0]]).max() > 1e-6
    if turned or to_reference[0, 0] <= 0 or to_reference[1, 1] <= 0:
        reference = _upright(reference, result)
        to_reference = np.eye(3)
    box = _common(result, reference, to_reference, image)
    shift = np.eye(3)
    shift[:2, 2] = box[0].start, box[1].start
    own_mpp = mpp / to_reference[0, 0]
    labels = np.asarray(reference.labels[box])
    if reference.semantic is None or reference.distance is None:
        semantic = (labels > 0).astype(np.float32)
        distance = _target(reference, box, own_mpp, unit_um)
        nucleus = labels > 0
    else:
        semantic, distance = (np.asarray(m[box]) for m in (reference.semantic, reference.distance))
        nucleus = semantic >= threshold
    return Ground(
        reference,
        labels,
        semantic,
        distance,
        nucleus,
        np.linalg.inv(shift) @ to_reference,
        reference.transform @ shift,
        own_mpp,
    )


def _common(
    result: Placed, reference: Placed, to_reference: NDArray[np.float64], image: tuple[int, int]
) -> Box:
    """Return the reference's pixels whose centres the result covers."""
    spans = []
    to_image_px, from_image = result.transform, np.linalg.inv(reference.transform)
    for axis in range(2):
        size, offset = to_image_px[axis, axis], to_image_px[axis, 2]
        low, high = (place * size + offset for place in (-0.5, result.shape[axis] - 0.5))
        # The last network pixel of an image is not always whole.
        if low < size:
            low = min(low, -0.5)
        if high > image[axis] - 0.5 - size:
            high = max(high, image[axis] - 0.5)
        first, last = (p * from_image[axis, axis] + from_image[axis, 2] for p in (low, high))
        start = max(math.ceil(first - 1e-6), 0)
        stop = min(math.floor(last - 1e-6) + 1, reference.shape[axis])
        if start >= stop:
            raise InputError(
                f"{result.name} and {reference.name} do not overlap: run on the part of the image "
                "that both cover, or choose another reference."
            )
        spans.append(slice(start, stop))
    return spans[0], spans[1]


def _target(reference: Placed, box: Box, mpp: float, unit_um: float) -> NDArray[np.float32]:
    """Return the distance map that a part of the reference's nuclei stands for."""
    margin = math.ceil(MARGIN_UM / mpp)
    wide, inner = [], []
    for span, side in zip(box, reference.shape, strict=True):
        outer = slice(max(span.start - margin, 0), min(span.stop + margin, side))
        wide.append(outer)
        inner.append(slice(span.start - outer.start, span.stop - outer.start))
    labels = np.asarray(reference.labels[tuple(wide)])
    return distance_target(labels, mpp, unit_um)[tuple(inner)]


def _upright(reference: Placed, result: Placed) -> Placed:
    """Return a reference that is turned against the image on the result's pixels."""
    matrix = np.linalg.inv(reference.transform) @ result.transform
    y, x = np.indices(result.shape)
    places = np.rint(matrix[:2, :2] @ np.stack([y.ravel(), x.ravel()]) + matrix[:2, 2:])
    inside = np.all((places >= 0) & (places < np.array(reference.shape)[:, None]), axis=0)
    rows, columns = places[:, inside].astype(np.intp)

    def bring(array: Any) -> Any:
        if array is None:
            return None
        array = np.asarray(array)
        out = np.zeros(inside.shape, array.dtype)
        out[inside] = array[rows, columns]
        return out.reshape(result.shape)

    return Placed(
        reference.name,
        bring(reference.labels),
        result.transform,
        reference.key,
        bring(reference.semantic),
        bring(reference.distance),
    )
