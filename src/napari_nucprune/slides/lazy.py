"""A level of a slide as an array that is read on indexing."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .slide import BAD_TILE, BLOCK, Slide, grid
from .tiff import TiffSlide

#: Parts that are remembered as unreadable, at most, and for how many seconds.
MOST_FAILED, AGAIN = 10_000, 10.0

_log = logging.getLogger(__name__)


class LazyLevel:
    """A level of a slide as an array (H, W, 3) uint8 that is read on indexing.

    Squares that cannot be read become background and are counted in `bad`, because napari dies
    of an exception raised while it slices a layer. What a request gives depends on it alone, and
    not on what was read before: a damaged square's good part is read where only that is asked for.
    """

    ndim = 3
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)

    def __init__(self, slide: Slide | TiffSlide, level: int) -> None:
        self.slide, self.level = slide, level
        self.shape: tuple[int, int, int] = (*slide.shapes[level], 3)
        self.size = self.shape[0] * self.shape[1] * 3
        self.bad: set[tuple[int, int]] = set()
        # Parts of squares that failed: napari asks for the same ones again and again.
        self._failed: dict[tuple[int, ...], float] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a level of a slide has to be read: it cannot be had without a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        keys: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
        at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
        keys = keys[:at] + (slice(None),) * (3 - len(keys[:at] + keys[at + 1 :])) + keys[at + 1 :]
        y_key, x_key, channel = keys
        rows, cols = _indices(y_key, self.shape[0]), _indices(x_key, self.shape[1])
        out = np.empty((len(rows), len(cols), 3), np.uint8)
        if out.size:
            # In strips, so that every 64th pixel of level 0 does not take the memory of all.
            step = max(1, BLOCK // abs(rows.step))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                (y, y_end), (x, x_end) = sorted((part[0], part[-1])), sorted((cols[0], cols[-1]))
                block = self._block(y, x, y_end + 1 - y, x_end + 1 - x)
                # Both ends are in the block, so a negative step starts at its last pixel.
                out[start : start + step] = block[:: rows.step, :: cols.step]
        out = out if isinstance(x_key, slice) else out[:, 0]
        return (out if isinstance(y_key, slice) else out[0])[..., channel]

    def shown_at(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where on either axis this array shows given places of the level."""
        return self.slide.shown_at(self.level, places)

    def _block(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        with suppress(Exception):
            return self.slide.read(self.level, y, x, height, width)
        out = np.empty((height, width, 3), np.uint8)
        out[...] = self.slide.background
        # On a fixed grid, so that a bad square is counted once.
        for y0, x0, y1, x1 in grid(y, x, y + height, x + width, BAD_TILE):
            # Tried again after a while: a disk or a network may have come back.
            if time.monotonic() < self._failed.get((y0, x0, y1, x1), 0) + AGAIN:
                continue
            try:
                tile = self.slide.read(self.level, y0, x0, y1 - y0, x1 - x0)
            except MemoryError:
                raise
            except Exception as error:
                self.bad.add((y0 // BAD_TILE, x0 // BAD_TILE))
                if len(self._failed) < MOST_FAILED:
                    self._failed[y0, x0, y1, x1] = time.monotonic()
                _log.warning("shown as background: %s", error)
            else:
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile
        return out


def _indices(key: Any, length: int) -> range:
    # A range does numpy's index arithmetic, IndexError and TypeError included.
    chosen = range(length)[key]
    return chosen if isinstance(chosen, range) else range(chosen, chosen + 1)
