"""Which part of an image, at which um/px: from an image's levels to a field for the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import Field, Maps
from ..errors import InputError
from .image import to_rgb
from .lazy import LazyLevel
from .source import Source, bad_within

HALO = 96
GRID = 16
#: Closer than this to the network's um/px an image is run as it is: resampling would only blur.
SAME_MPP = 0.03


@dataclass(frozen=True)
class Taken:
    """A field with its halo.

    Attributes
    ----------
    field
        What to run: the asked part and up to 96 px of real neighbours around it.
    inner
        (rows, columns) of the asked part within the field.
    damaged
        Squares of the slide that could not be read there; they are glass in the field.
    """

    field: Field
    inner: tuple[slice, slice]
    damaged: int = 0

    def crop(self, maps: Maps) -> Maps:
        """Return the maps of the asked part alone."""
        rows, columns = self.inner
        crop = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        return Maps(maps.semantic[crop].copy(), maps.distance[crop].copy(), maps.mpp)

    @property
    def transform(self) -> NDArray[np.float64]:
        """3x3, homogeneous (y, x, 1): pixels of the asked part to level-0 pixels."""
        shift = np.eye(3)
        shift[:2, 2] = self.inner[0].start, self.inner[1].start
        return self.field.transform @ shift


def take(
    source: Source,
    mpp: float,
    box: tuple[float, float, float, float] | None = None,
    largest: int | None = None,
) -> Taken:
    """Take a part of an image at the network's um/px.

    Parameters
    ----------
    source
        The image.
    mpp
        The network's um a pixel. An image without a pixel size is taken to have it
        (``mpp_assumed``).
    box
        (y0, x0, y1, x1) in level-0 pixels, None for all. The start snaps down to the pooling
        grid of 16 network pixels from the image's own origin: panning by one pixel must not
        change the nuclei.
    largest
        Most network pixels a side.

    Returns
    -------
    Taken
        The field with its halo.

    Raises
    ------
    InputError
        Where the box lies outside the image, or is larger than ``largest``.
    """
    if min(source.shape) == 0:
        raise InputError(f"{source.name} is empty: its shape is {source.shape}.")
    own = source.mpp or (mpp, mpp)
    ratios, sides = network_grid(source, mpp)
    if box is None:
        box = (0, 0, *source.shape)
    spans = []
    for axis in range(2):
        if max(box[axis], 0) >= min(box[axis + 2], source.shape[axis]):
            raise InputError(f"The chosen part lies outside {source.name}; move it back.")
        last = sides[axis] - 1
        low = min(max(math.floor(box[axis] / ratios[axis]), 0), last) // GRID * GRID
        high = max(min(math.ceil(box[axis + 2] / ratios[axis]), sides[axis]), low + 1)
        if largest and high - low > largest:
            raise InputError(
                f"The chosen part is {high - low} px long at {mpp:g} um/px; at most {largest} "
                "can be run at once: zoom in or choose a smaller part."
            )
        # The end of the last pooling cell counts, not the last pixel.
        end = -(-high // GRID) * GRID + HALO
        outer = slice(max(low - HALO, 0), min(end, sides[axis]))
        spans.append((outer, slice(low - outer.start, high - outer.start)))
    (rows, inner_rows), (columns, inner_columns) = spans
    rgb = resample(source, ratios, rows, columns)
    transform = np.eye(3)
    for axis, outer in enumerate((rows, columns)):
        transform[axis, axis] = ratios[axis]
        transform[axis, 2] = (outer.start + 0.5) * ratios[axis] - 0.5
    resampled = ratios != (1.0, 1.0)
    field = Field(
        rgb,
        mpp if resampled else float(np.mean(own)),
        (rows.start, columns.start),
        transform,
        mpp_assumed=source.mpp is None,
    )
    return Taken(field, (inner_rows, inner_columns), _damaged(source, ratios, rows, columns))


def _damaged(source: Source, ratios: tuple[float, ...], rows: slice, columns: slice) -> int:
    level, downs = _best_level(source, ratios)
    y, x = (r / d for r, d in zip(ratios, downs, strict=True))
    part = slice(rows.start * y, rows.stop * y), slice(columns.start * x, columns.stop * x)
    return bad_within(source, level, *part)


def network_grid(source: Source, mpp: float) -> tuple[tuple[float, float], tuple[int, int]]:
    """Return level-0 pixels a network pixel, (y, x), and the image's (H, W) in network pixels.

    Parameters
    ----------
    source, mpp
        As for `take`.
    """
    own = source.mpp or (mpp, mpp)
    y, x = (1.0 if abs(mpp / m - 1) <= SAME_MPP else mpp / m for m in own)
    height, width = source.shape
    # An image of a single pixel has one at any um/px, an empty one has none.
    return (y, x), (max(round(height / y), min(height, 1)), max(round(width / x), min(width, 1)))


def middle(
    source: Source, mpp: float, box: tuple[float, float, float, float], largest: int
) -> tuple[float, float, float, float]:
    """Return the middle of a box, at most ``largest`` network pixels a side.

    Parameters
    ----------
    source, mpp, box, largest
        As for `take`.

    Returns
    -------
    tuple
        (y0, x0, y1, x1) in level-0 pixels; the box itself where it is small enough.
    """
    own = source.mpp or (mpp, mpp)
    spans = []
    for axis in range(2):
        low, high = box[axis], box[axis + 2]
        # A pooling cell less: the start snaps down.
        most = (largest - GRID) * mpp / own[axis]
        if high - low > most:
            low, high = (low + high - most) / 2, (low + high + most) / 2
        spans.append((low, high))
    (y0, y1), (x0, x1) = spans
    return y0, x0, y1, x1


def resample(
    source: Source, ratios: tuple[float, ...], rows: slice, columns: slice
) -> NDArray[np.uint8]:
    """Read network pixels from the coarsest level that is fine enough.

    Parameters
    ----------
    source
        The image.
    ratios
        Level-0 pixels a network pixel, (y, x), as of `network_grid`.
    rows, columns
        Within the image.

    Returns
    -------
    NDArray
        (rows, columns, 3) uint8; a part shows the same values as the whole.
    """
    level, downs = _best_level(source, ratios)
    data = source.levels[level]
    if ratios == (1.0, 1.0) and level == 0:
        return to_rgb(np.asarray(data[rows, columns]), source.name)
    import cv2

    step = [r / d for r, d in zip(ratios, downs, strict=True)]
    places, read = [], []
    for axis, outer in enumerate((rows, columns)):
        # Level pixel of a network pixel's centre, on OpenCV's own grid of 1/32 px counted from
        # the image's origin: a part then shows the same values as the whole.
        place = (np.arange(outer.start, outer.stop) + 0.5) * step[axis] - 0.5
        if isinstance(data, LazyLevel):
            place = data.shown_at(place)
        place = np.rint(place * 32) / 32
        margin = 4 * step[axis] + 2
        low = max(math.floor(place[0] - margin), 0)
        high = min(math.ceil(place[-1] + margin) + 1, int(data.shape[axis]))
        read.append(slice(low, high))
        places.append(place - low)
    rgb = to_rgb(np.asarray(data[read[0], read[1]]), source.name)
    # Low-pass before thinning out, so that fine texture does not alias.
    sigma = [0.5 * math.sqrt(max(s * s - 1, 0)) for s in step]
    if max(sigma) > 0.1:
        rgb = cv2.GaussianBlur(
            rgb, (0, 0), sigmaX=max(sigma[1], 1e-3), sigmaY=max(sigma[0], 1e-3)
        )  # fmt: skip
    return _sampled(rgb, places[0], places[1])


def _sampled(array: NDArray[Any], ys: NDArray[np.float64], xs: NDArray[np.float64]) -> NDArray[Any]:
    """Return ``array`` at rows ``ys`` and columns ``xs``, linearly; edges are repeated."""
    import cv2

    out = np.empty((len(ys), len(xs), *array.shape[2:]), array.dtype)
    # In pieces: OpenCV takes no side of 32,768 px or more.
    rows, columns = (_piece(places) for places in (ys, xs))
    for top in range(0, len(ys), rows):
        y = ys[top : top + rows]
        y0, y1 = _reach(y, array.shape[0])
        for left in range(0, len(xs), columns):
            x = xs[left : left + columns]
            x0, x1 = _reach(x, array.shape[1])
            maps = np.meshgrid((x - x0).astype(np.float32), (y - y0).astype(np.float32))
            out[top : top + rows, left : left + columns] = cv2.remap(
                np.ascontiguousarray(array[y0:y1, x0:x1]),
                maps[0],
                maps[1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
    return out


def _piece(places: NDArray[np.float64]) -> int:
    step = abs(places[-1] - places[0]) / max(len(places) - 1, 1)
    return max(1, min(2048, int(16_000 / max(step, 1))))


def _reach(places: NDArray[np.float64], side: int) -> tuple[int, int]:
    low = min(max(math.floor(places[0]) - 1, 0), side - 1)
    return low, max(min(math.ceil(places[-1]) + 2, side), low + 1)


def _best_level(source: Source, ratios: tuple[float, ...]) -> tuple[int, tuple[float, float]]:
    best = (0, (1.0, 1.0))
    for index, downs in enumerate(source.downsamples):
        if all(d <= r * 1.001 for d, r in zip(downs, ratios, strict=True)):
            best = (index, downs)
    return best


def to_image(
    array: NDArray[Any], transform: NDArray[np.float64], shape: tuple[int, int], labels: bool
) -> NDArray[Any]:
    """Bring a map or labels of a whole image back to the image's own pixels.

    Parameters
    ----------
    array
        (h, w) float32 or int32 at the network's um/px.
    transform
        Its pixels to image pixels, as of `Taken`.
    shape
        (H, W) of the image.
    labels
        Nearest neighbour instead of linear.

    Returns
    -------
    NDArray
        (H, W) of the same dtype.
    """
    if array.shape == tuple(shape) and np.allclose(transform, np.eye(3)):
        return array
    axes = []
    for axis in range(2):
        # Image pixel to array pixel: the inverse of the diagonal transform.
        where = (np.arange(shape[axis]) - transform[axis, 2]) / transform[axis, axis]
        axes.append(np.clip(where, 0, array.shape[axis] - 1))
    if labels:
        rows, columns = (np.rint(a).astype(np.intp) for a in axes)
        return array[rows[:, None], columns[None, :]]
    return _sampled(array, axes[0], axes[1])
