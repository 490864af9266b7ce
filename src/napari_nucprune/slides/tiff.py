"""Pyramidal TIFFs that OpenSlide does not read as a pyramid, OME-TIFF before all: by tifffile."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .image import first_line, tiff_mpp, to_rgb

#: Bytes of decoded tiles that a process keeps, over all files.
CACHE_BYTES = 128 << 20


class TileCache:
    """The last used tiles, by bytes; threads share it.

    Parameters
    ----------
    limit
        Most bytes of arrays.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._tiles: OrderedDict[Any, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> NDArray[np.uint8] | None:
        """Return a tile, None where it is not kept."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Any, tile: NDArray[np.uint8]) -> None:
        """Keep a tile in the place of those that were not used for longest."""
        with self._lock:
            if key in self._tiles or tile.nbytes > self.limit:
                return
            self._tiles[key] = tile
            self.bytes += tile.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._tiles.popitem(last=False)[1].nbytes


_cache = TileCache(CACHE_BYTES)


class TiffSlide:
    """An open pyramid; what `reader.Slide` is for OpenSlide's formats.

    Parameters
    ----------
    path
        A TIFF whose first image is tiled RGB of 8 bits, interleaved or a channel a plane. Levels
        may be SubIFDs (OME-TIFF) or pages.

    Attributes
    ----------
    path, shapes, downsamples, mpp, objective, vendor, background, bounds, properties
        As of `reader.Slide`.

    Raises
    ------
    InputError
        Where the file is something else, or ends before its last tile.
    """

    vendor = "tiff"
    background = (255, 255, 255)
    bounds = None
    objective = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import tifffile

        self.path = Path(path)
        again = "copy or download the slide again."
        try:
            self._file = tifffile.TiffFile(self.path)
            series = self._file.series[0]
            self._pages = [list(level.pages) for level in series.levels]
            self._check(series)
            self.mpp = tiff_mpp(self._file)
            about = self._file.ome_metadata or self._file.pages[0].description
            self.properties = {"tiff.ImageDescription": str(about)}
            spans = [
                (offset, count)
                for pages in self._pages
                for page in pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
        except InputError:
            raise
        except Exception as error:
            found = f"{self.path.name} cannot be opened as a slide ({first_line(error)})"
            raise InputError(f"{found}; {again}") from error
        size = self.path.stat().st_size
        if max(offset + count for offset, count in spans) > size:
            raise InputError(f"{self.path.name} is cut off after {size:,} bytes; {again}")
        self.shapes = tuple(
            (int(pages[0].imagelength), int(pages[0].imagewidth)) for pages in self._pages
        )
        self.level_count = len(self.shapes)
        height, width = self.shapes[0]
        self.downsamples = tuple((height / h + width / w) / 2 for h, w in self.shapes)
        # Two openings of a file may differ: it can have been replaced.
        self._key = object()
        self._lock = threading.Lock()

    def _check(self, series: Any) -> None:
        sizes = dict(zip(series.axes, series.shape, strict=True))
        colours = {"YXS": (3, 4), "SYX": (3, 4), "CYX": (3,)}.get(series.axes, ())
        if sizes.get("S", sizes.get("C")) not in colours or series.dtype != np.uint8:
            raise InputError(
                f"{self.path.name} holds an image of shape {series.shape} ({series.axes}) and type "
                f"{series.dtype}; a slide has RGB of 8 bits: convert it."
            )
        if not self._pages[0][0].is_tiled:
            raise InputError(
                f"{self.path.name} is a TIFF that is not tiled; give it as a plain image, or save "
                "it as a tiled pyramid."
            )
        for level, (first, *_) in enumerate(self._pages):
            sides = first.tilelength, first.tilewidth, first.imagelength, first.imagewidth
            if min(sides) < 1:
                raise InputError(
                    f"{self.path.name} is damaged: level {level} has tiles of {sides[0]} x "
                    f"{sides[1]} px on {sides[2]} x {sides[3]} px; copy or download the slide "
                    "again."
                )

    def __reduce__(self) -> tuple[type[TiffSlide], tuple[str]]:
        return type(self), (str(self.path),)

    def shown_at(self, level: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """As of `reader.Slide`; every level is read as it is."""
        return places

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a region, as `reader.Slide.read` does."""
        if not 0 <= level < self.level_count:
            raise IndexError(f"level {level} of a slide with {self.level_count}")
        out = np.full((height, width, 3), self.background, np.uint8)
        page = self._pages[level][0]
        rows, columns = int(page.tilelength), int(page.tilewidth)
        bottom, right = (
            min(start + size, side)
            for start, size, side in zip((y, x), (height, width), self.shapes[level], strict=True)
        )
        for row in range(max(y, 0) // rows, -(-bottom // rows)):
            for column in range(max(x, 0) // columns, -(-right // columns)):
                tile = self._tile(level, row, column)
                top, left = row * rows, column * columns
                y0, x0 = max(top, y, 0), max(left, x, 0)
                y1, x1 = min(top + rows, bottom), min(left + columns, right)
                if y0 < y1 and x0 < x1:
                    out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                        y0 - top : y1 - top, x0 - left : x1 - left
                    ]
        return out

    def _tile(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        key = self._key, level, row, column
        tile = _cache.get(key)
        if tile is None:
            try:
                tile = self._decoded(level, row, column)
            except Exception as error:
                raise InputError(
                    f"{self.path.name} is damaged at level {level}, tile row {row}, column "
                    f"{column} ({first_line(error)}); copy or download the slide again."
                ) from error
            _cache.put(key, tile)
        return tile

    def _decoded(self, level: int, row: int, column: int) -> NDArray[np.uint8]:
        """Return a tile (rows, columns, 3); alpha is blended on the background."""
        pages = self._pages[level]
        first = pages[0]
        across = math.ceil(first.imagewidth / first.tilewidth)
        down = math.ceil(first.imagelength / first.tilelength)
        index = row * across + column
        if len(pages) > 1:
            parts = [self._segment(page, index) for page in pages]
        elif first.planarconfig == 2:
            count = int(first.samplesperpixel)
            parts = [self._segment(first, index + c * across * down) for c in range(count)]
        else:
            parts = [self._segment(first, index)]
        return to_rgb(np.concatenate(parts, axis=2), self.path.name)

    def _segment(self, page: Any, index: int) -> NDArray[np.uint8]:
        """Return (rows, columns, samples) of a page's tile; what is not in the file is 255."""
        about = page.keyframe  # pages alike are read as frames of the first
        shape = int(about.tilelength), int(about.tilewidth)
        count = int(page.databytecounts[index])
        if not count:
            samples = 1 if about.planarconfig == 2 else int(about.samplesperpixel)
            return np.full((*shape, samples), 255, np.uint8)
        handle = self._file.filehandle
        with self._lock:
            handle.seek(int(page.dataoffsets[index]))
            data = handle.read(count)
        # Decoding needs no lock. The last tiles of a row or column may come cut.
        found = about.decode(data, index, jpegtables=page.jpegtables)[0][0]
        out = np.full((*shape, found.shape[2]), 255, np.uint8)
        out[: found.shape[0], : found.shape[1]] = found
        return out


def by_tifffile(path: Path, known: str | None, levels: int) -> bool:
    """Say whether tifffile sees more in a file than OpenSlide does.

    Parameters
    ----------
    path
        The file.
    known
        OpenSlide's name of its format, None for a file that it does not know.
    levels
        How many OpenSlide finds.
    """
    import tifffile

    if known not in (None, "generic-tiff"):
        return False
    try:
        with tifffile.TiffFile(path) as tif:
            # OpenSlide shows the first channel of an OME-TIFF with a channel a plane. What it does
            # not know at all and is no OME-TIFF may be the rest of some scanner's file.
            more = known is not None and len(tif.series[0].levels) > levels
            return bool(tif.pages[0].is_tiled and (tif.is_ome or more))
    except Exception:
        return False
