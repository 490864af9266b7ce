"""Where tissue is: glass is not run, and holds no nuclei."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pruning.stained import TISSUE
from .image import to_rgb
from .lattice import Core, Lattice
from .slide import BAD_TILE
from .source import Source

#: Side of a block in network pixels; it is tissue, or within `NEAR` blocks of some.
BLOCK, NEAR = 32, 3
#: Most pixels of the level that is looked at, and its least downsample: finer ones cost too much.
_LOOK, _LEAST = 48_000_000, 4.0
#: Rows of the look read at once.
_STRIP = 1024


def stained(rgb: NDArray[np.uint8], density: float = 0.1) -> NDArray[np.bool_]:
    """Return which pixels (H, W) of RGB (H, W, 3) have a mean optical density above `density`."""
    total = rgb[..., 0].astype(np.uint16)
    total += rgb[..., 1]
    total += rgb[..., 2]
    return total < 3 * (256 * 10**-density - 1)


def tissue_of_window(rgb: NDArray[np.uint8], margin: int) -> NDArray[np.bool_]:
    """Find the tissue of a window's middle.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8 at the network's um/px; both sides multiples of 32 px.
    margin
        What the window adds on each side: a multiple of 32 px, of which the nearest 96 count.

    Returns
    -------
    NDArray
        (H - 2 * margin, W - 2 * margin) bool. A block of 32 px is tissue where 2 % of its pixels
        are stained, and so are those within three blocks of it.
    """
    import cv2

    height, width = rgb.shape[:2]
    blocks = stained(rgb).reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    found = (blocks.mean(axis=(1, 3)) >= TISSUE).astype(np.uint8)
    found = cv2.dilate(found, np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8))
    cut = margin // BLOCK
    found = found[cut : height // BLOCK - cut, cut : width // BLOCK - cut]
    return np.repeat(np.repeat(found, BLOCK, 0), BLOCK, 1).view(bool)


def candidates(source: Source, lattice: Lattice) -> list[Core]:
    """Return the cores whose windows may hold tissue, from a small level.

    Parameters
    ----------
    source, lattice
        The slide.

    Returns
    -------
    list
        In order; all cores where no level is small enough to be looked at, and those where it is
        damaged.
    """
    level = _small(source)
    if level is None:
        return list(lattice.cores())
    height, width = int(level.shape[0]), int(level.shape[1])
    counts = np.zeros((height + 1, width + 1), np.int32)  # of 48 million pixels at most
    for top in range(0, height, _STRIP):
        strip = to_rgb(np.asarray(level[top : top + _STRIP]), source.name)
        # More is let through than at full size: a pixel here is the mean of many.
        counts[top + 1 : top + 1 + len(strip), 1:] = stained(strip, 0.05)
    # What cannot be seen here may be tissue, and readable at the level that is run.
    for row, column in tuple(getattr(level, "bad", ())):
        top, left = row * BAD_TILE + 1, column * BAD_TILE + 1
        counts[top : top + BAD_TILE, left : left + BAD_TILE] = 1
    np.cumsum(counts, 0, out=counts)
    np.cumsum(counts, 1, out=counts)
    scale = height / lattice.shape[0], width / lattice.shape[1]
    found = []
    for core in lattice.cores():
        y0, x0, y1, x1 = lattice.box(core, lattice.halo)
        top, left = math.floor(y0 * scale[0]), math.floor(x0 * scale[1])
        low = min(math.ceil(y1 * scale[0]), height)
        right = min(math.ceil(x1 * scale[1]), width)
        if counts[low, right] - counts[top, right] - counts[low, left] + counts[top, left]:
            found.append(core)
    return found


def _small(source: Source) -> Any | None:
    for level in source.levels[1:]:
        small_enough = level.shape[0] * level.shape[1] <= _LOOK
        if small_enough and source.shape[0] / level.shape[0] >= _LEAST:
            return level
    return None
