"""Windows that make tiled equal untiled.

The receptive radius of the published U-Net is 94 px and its pooling grid 16: a window that starts
on the grid and carries 96 px of real neighbours gives the same values in its core as the whole
image. Windows end where the image ends, so its edges see the network's own zero padding in
either case; reflection only fills the image up to the pooling grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError


@dataclass(frozen=True)
class Window:
    """A part of the padded image.

    Attributes
    ----------
    outer
        (rows, columns) to run.
    core
        (rows, columns) of the image whose result is taken.
    inner
        Where the core lies in the outer part.
    """

    outer: tuple[slice, slice]
    core: tuple[slice, slice]
    inner: tuple[slice, slice]


def halo_of(depth: int) -> tuple[int, int]:
    """Return the halo (a multiple of the grid) and the pooling grid of a U-Net.

    The interval of inputs that a core's first pooling cell sees is followed through the levels:
    at depth 5 it reaches 94 px beyond the core, so the halo is 96.
    """
    grid = 2 ** (depth - 1)
    radius = 0
    for pixel in range(grid):
        low = high = pixel
        for _ in range(depth - 1):
            low, high = (low - 2) // 2, (high + 2) // 2
        low, high = low - 2, high + 2
        for _ in range(depth - 1):
            low, high = 2 * low - 2, 2 * high + 1 + 2
        radius = max(radius, -low, high - (grid - 1))
    return -(-radius // grid) * grid, grid


def pad_to_grid(rgb: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """Reflect the bottom and right edges up to a multiple of ``grid``."""
    height, width = rgb.shape[:2]
    extra = (-height % grid, -width % grid)
    if extra == (0, 0):
        return rgb
    return np.pad(rgb, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="reflect")


def windows(shape: tuple[int, int], tile: int, halo: int, grid: int) -> Iterator[Window]:
    """Cut an image into windows.

    Parameters
    ----------
    shape
        (H, W) of the image before padding.
    tile
        Side of a core, a multiple of ``grid``.
    halo, grid
        As from `halo_of`.

    Yields
    ------
    Window
        Row by row; the cores tile the image exactly.

    Raises
    ------
    InputError
        Where ``tile`` is no positive multiple of ``grid``.
    """
    if tile < grid or tile % grid:
        raise InputError(f"The tile is {tile} px; expected a positive multiple of {grid}.")
    padded = tuple(-(-side // grid) * grid for side in shape)
    for top in range(0, shape[0], tile):
        rows = _spans(top, tile, shape[0], padded[0], halo)
        for left in range(0, shape[1], tile):
            columns = _spans(left, tile, shape[1], padded[1], halo)
            yield Window(*zip(rows, columns, strict=True))


def _spans(start: int, tile: int, side: int, padded: int, halo: int) -> tuple[slice, slice, slice]:
    stop = min(start + tile, side)
    outer = slice(max(start - halo, 0), min(start + tile + halo, padded))
    inner = slice(start - outer.start, stop - outer.start)
    return outer, slice(start, stop), inner
