"""Images that fields are taken from, plain or pyramidal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .image import pixel_size, read_image
from .slide import BAD_TILE
from .values import to_uint8


@dataclass(frozen=True)
class Source:
    """An image that fields are taken from.

    Attributes
    ----------
    levels
        Array-likes (H, W, 3 or 4) uint8, from full resolution down; sliced, then ``np.asarray``.
    mpp
        um a pixel of level 0, (y, x); None where the image does not say.
    name
        For messages.
    corner
        Of what was scanned, (y, x) in level-0 pixels, from which QuPath counts.
    """

    levels: Sequence[Any]
    mpp: tuple[float, float] | None = None
    name: str = "The image"
    corner: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of level 0."""
        return int(self.levels[0].shape[0]), int(self.levels[0].shape[1])

    @property
    def downsamples(self) -> list[tuple[float, float]]:
        """Level-0 pixels a pixel of each level, (y, x).

        A whole number where the level's shape is that but for one pixel: scanners join whole
        squares of pixels and cut off or fill up what is left at the end, so that the ratio of the
        shapes would be off by up to a pixel of the level there.
        """
        (height, width), shapes = self.shape, [level.shape[:2] for level in self.levels]
        return [(_downsample(height, int(h)), _downsample(width, int(w))) for h, w in shapes]


def bad_of(source: Source) -> set[tuple[int, int, int]]:
    """Return (level, row, column) of the squares that could not be read so far."""
    return {
        (index, *square)
        for index, level in enumerate(source.levels)
        for square in tuple(getattr(level, "bad", ()))
    }


def _downsample(whole: int, side: int) -> float:
    ratio = whole / max(side, 1)
    # Of a few pixels several numbers could be the one: powers of 2 are by far the most usual.
    for number in (2 ** round(math.log2(max(ratio, 1))), round(ratio)):
        if number and abs(whole / number - side) <= 1:
            return float(number)
    return ratio


def bad_within(source: Source, level: int, rows: slice, columns: slice) -> int:
    """Return how many squares of a part of a level could not be read so far."""
    return sum(
        rows.start < (row + 1) * BAD_TILE
        and row * BAD_TILE < rows.stop
        and columns.start < (column + 1) * BAD_TILE
        and column * BAD_TILE < columns.stop
        for row, column in tuple(getattr(source.levels[level], "bad", ()))
    )


def open_source(
    path: str | Path, mpp: float | tuple[float, float] | None = None, slide: bool = False
) -> Source:
    """Open an image file or a slide.

    Parameters
    ----------
    path
        What `slides.reader` lists as slides is opened as one, all else is an image file.
    mpp
        um a pixel, instead of what the file says; one number or (y, x).
    slide
        Open whatever is a slide by its content, a tiled TIFF too; else as an image file.

    Raises
    ------
    InputError
        Where the file cannot be read or ``mpp`` is no number above 0.
    """
    from .lazy import LazyLevel
    from .reader import SUFFIXES, is_slide, open_slide

    given = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    for size in given or ():
        if not (math.isfinite(size) and size > 0):
            raise InputError(f"The pixel size is {size:g} um; give a number above 0.")
    path = Path(path)
    levels: Sequence[Any]
    corner = (0, 0)
    if path.suffix.lower() in SUFFIXES or (slide and is_slide(path)):
        opened = open_slide(path)
        levels = [LazyLevel(opened, level) for level in range(len(opened.shapes))]
        own = opened.mpp
        if opened.bounds:
            corner = opened.bounds[0], opened.bounds[1]
    else:
        levels, own = [read_image(path)[0]], pixel_size(path)
    return Source(levels, given or own, path.name, corner)


class Plane:
    """One RGB plane of an array-like of any number of dimensions, as uint8, read on indexing.

    Parameters
    ----------
    data
        (..., H, W, 3 or 4); numpy, dask, zarr, or whatever else can be sliced.
    index
        Position on the axes before the plane's.
    name
        For messages.
    """

    ndim = 3
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)

    def __init__(self, data: Any, index: tuple[int, ...] = (), name: str = "The image") -> None:
        self.data, self.index, self.name = data, index, name
        height, width, channels = (int(n) for n in data.shape[-3:])
        self.shape = (height, width, channels)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rest = key if isinstance(key, tuple) else (key,)
        return to_uint8(np.asarray(self.data[(*self.index, *rest)]), self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def plane_source(
    levels: Sequence[Any],
    index: Sequence[int],
    mpp: tuple[float, float] | None,
    name: str,
) -> Source:
    """Return one plane of an image that somebody else opened.

    Parameters
    ----------
    levels
        (..., H, W, 3 or 4) each, from full resolution down.
    index
        Position on the axes before the plane's, in level 0.
    mpp, name
        As of `Source`.

    Raises
    ------
    InputError
        Where the index lies outside, or the values are of a type that is no colour.
    """
    first = tuple(int(n) for n in levels[0].shape)
    for axis, (position, length) in enumerate(zip(index, first, strict=False)):
        if not 0 <= position < length:
            raise InputError(
                f"{name} has {length} planes on axis {axis}, and the slider is at {position}: move "
                "it to a plane."
            )
    kind = np.dtype(levels[0].dtype)
    to_uint8(np.zeros((1, 1, 3), kind), name)  # refuses types
    planes: list[Any] = []
    for level in levels:
        # Some pyramids are smaller on the stack's axes too.
        own = tuple(
            min(p * int(level.shape[a]) // first[a], int(level.shape[a]) - 1)
            for a, p in enumerate(index)
        )
        if kind == np.uint8 and (isinstance(level, np.ndarray) or not own):
            planes.append(level[own] if own else level)
        else:
            planes.append(Plane(level, own, name))
    return Source(planes, mpp, name)
