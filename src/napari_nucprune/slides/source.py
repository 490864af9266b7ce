"""Images that fields are taken from, plain or pyramidal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .image import read_image


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
    """

    levels: Sequence[Any]
    mpp: tuple[float, float] | None = None
    name: str = "The image"

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of level 0."""
        return int(self.levels[0].shape[0]), int(self.levels[0].shape[1])


def open_source(path: str | Path, mpp: float | None = None) -> Source:
    """Open an image file or a slide.

    Parameters
    ----------
    path
        What `slides.reader` lists as slides goes through OpenSlide, all else is an image file.
    mpp
        um a pixel, instead of what the file says.

    Raises
    ------
    InputError
        Where the file cannot be read or ``mpp`` is no number above 0.
    """
    from .reader import SUFFIXES, LazyLevel, Slide

    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"The pixel size is {mpp:g} um; give a number above 0.")
    path = Path(path)
    levels: Sequence[Any]
    if path.suffix.lower() in SUFFIXES:
        slide = Slide.open(path)
        levels = [LazyLevel(slide, level) for level in range(len(slide.shapes))]
        own = slide.mpp
    else:
        rgb, single = read_image(path)
        levels, own = [rgb], (single, single) if single else None
    return Source(levels, (mpp, mpp) if mpp else own, path.name)
