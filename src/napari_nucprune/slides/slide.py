"""A whole slide through OpenSlide: regions of any level, from any thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import no_file
from .image import first_line, plausible_mpp

#: Where a region cannot be read, this many pixels square are given up at a time.
BAD_TILE = 512
#: Side of the largest region asked of OpenSlide at once.
BLOCK = 2048
#: Bytes of decoded tiles that OpenSlide keeps, over all slides and threads of a process.
CACHE_BYTES = 128 << 20
#: Ends of the names of the formats, .tif left out: most TIFFs are plain images.
SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide", ".dcm")
#: TIFF and BigTIFF, both byte orders.
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Slide:
    """An open slide. Several threads may read from it, and it can be pickled.

    Attributes
    ----------
    path
        The file.
    shapes, downsamples
        Of each level, the largest first: (height, width), and level 0 pixels a pixel.
    mpp, objective
        um a pixel of level 0 as (y, x), and magnification; None where the file does not say.
    vendor, background
        OpenSlide's name of the format, and the RGB of places that were not scanned.
    properties
        All that OpenSlide tells of the slide, the scanner's own words too.
    bounds
        (y, x, height, width) of what was scanned, in level-0 pixels; None where that is all. An
        .mrxs shows the whole glass, and QuPath counts from this corner.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._handle = _open(self.path)
        self.properties = properties = dict(self._handle.properties)
        self.shapes = tuple((int(h), int(w)) for w, h in self._handle.level_dimensions)
        self.level_count = len(self.shapes)
        self.downsamples = tuple(float(d) for d in self._handle.level_downsamples)
        self.mpp = _mpp(properties)
        self.objective = _number(properties.get("openslide.objective-power"))
        self.vendor = str(properties.get("openslide.vendor", ""))
        self.background = _colour(properties.get("openslide.background-color", ""))
        self.bounds = _bounds(properties)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Slide:
        """Open a slide; raise an InputError where the file is missing, empty, cut off or none."""
        return cls(path)

    def __reduce__(self) -> tuple[type[Slide], tuple[str]]:
        return type(self), (str(self.path),)  # a process that gets a slide opens the file

    def shown_at(self, level: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where on either axis `read` shows given places of a level.

        OpenSlide reads from whole pixels of level 0: where the level's pixels do not begin on
        these, a square is up to half a level-0 pixel off.
        """
        scale = self.downsamples[level]
        if scale.is_integer():
            return places
        starts = np.floor(places / BAD_TILE) * BAD_TILE
        return places - (np.rint(starts * scale) / scale - starts)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a region; an InputError says where the file is damaged.

        Parameters
        ----------
        level
            0 is the largest.
        y, x, height, width
            In pixels of the level; beyond its edges is background.

        Returns
        -------
        NDArray
            (height, width, 3) uint8.
        """
        if not 0 <= level < self.level_count:
            raise IndexError(f"level {level} of a slide with {self.level_count}")
        out = np.empty((height, width, 3), np.uint8)
        out[...] = self.background
        top, left = max(y, 0), max(x, 0)
        bottom = min(y + height, self.shapes[level][0])
        right = min(x + width, self.shapes[level][1])
        # OpenSlide takes corners in whole pixels of level 0 and interpolates where those are no
        # whole pixels of the level. Starting on a grid then makes a pixel the same in any region.
        snap = not self.downsamples[level].is_integer()
        for y0, x0, y1, x1 in grid(top, left, bottom, right, BAD_TILE if snap else BLOCK):
            dy, dx = (y0 % BAD_TILE, x0 % BAD_TILE) if snap else (0, 0)
            rgba = self._region(level, y0 - dy, x0 - dx, y1 - y0 + dy, x1 - x0 + dx)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = _blend(rgba[dy:, dx:], self.background)
        return out

    def _region(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        import openslide

        scale = self.downsamples[level]
        where, size = (round(x * scale), round(y * scale)), (width, height)
        try:
            return np.asarray(self._handle.read_region(where, level, size))
        except openslide.OpenSlideError:
            # One failed read makes an OpenSlide object refuse everything after it, in all
            # threads: only a handle of our own tells whether it was this place that failed.
            fresh = _open(self.path)
        try:
            region = np.asarray(fresh.read_region(where, level, size))
        except openslide.OpenSlideError as error:
            place = f"level {level}, y {y}, x {x}"
            raise InputError(
                f"{self.path.name} is damaged at {place} ({first_line(error)}); "
                "copy or download the slide again."
            ) from error
        self._handle = fresh
        return region


def grid(y: int, x: int, y_end: int, x_end: int, side: int) -> Iterator[tuple[int, ...]]:
    """Cut a region into (y, x, y_end, x_end) along the multiples of ``side``."""
    if y >= y_end or x >= x_end:
        return
    for ty in range(y // side * side, y_end, side):
        for tx in range(x // side * side, x_end, side):
            yield max(ty, y), max(tx, x), min(ty + side, y_end), min(tx + side, x_end)


def _open(path: Path) -> Any:
    import openslide

    if not path.is_file():
        raise no_file(path, "a slide")
    again = "copy or download the slide again."
    try:
        size = path.stat().st_size
        if not size:
            raise InputError(f"{path.name} is empty (0 bytes); {again}")
        if openslide.OpenSlide.detect_format(path) is None:
            if start_of(path) in TIFF_STARTS:
                raise InputError(
                    f"{path.name} is a TIFF that is cut off, or of no scanner that OpenSlide "
                    f"knows; {again}"
                )
            raise InputError(
                f"{path.name} is no slide that OpenSlide knows; give a slide as the scanner wrote "
                f"it ({' '.join(SUFFIXES)}), or a plain image as an image file."
            )
        if _needed_bytes(path) > size:
            raise InputError(f"{path.name} is cut off after {size:,} bytes; {again}")
        handle = openslide.OpenSlide(path)
        handle.set_cache(_cache())
        return handle
    except (openslide.OpenSlideError, OSError) as error:
        found = f"{path.name} cannot be opened as a slide ({first_line(error)})"
        raise InputError(f"{found}; {again}") from error


@cache
def _cache() -> Any:
    import openslide

    return openslide.OpenSlideCache(CACHE_BYTES)


def start_of(path: Path) -> bytes:
    """Return a file's first four bytes."""
    with path.open("rb") as file:
        return file.read(4)


def _needed_bytes(path: Path) -> int:
    """End of a TIFF's last tile: OpenSlide opens a file that stops before, and fails later."""
    import tifffile

    # Where tifffile does not follow, OpenSlide is the judge.
    with suppress(Exception), tifffile.TiffFile(path) as tif:
        spans = [zip(p.dataoffsets, p.databytecounts, strict=False) for p in tif.pages]
        return max(offset + count for span in spans for offset, count in span)
    return 0


def _blend(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return rgba[..., :3]
    under = np.array(background, np.uint16) * (255 - alpha)
    return ((rgba[..., :3] * alpha + under + 127) // 255).astype(np.uint8)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "") or None
    except ValueError:
        return None


def _mpp(properties: dict[str, str]) -> tuple[float, float] | None:
    y, x = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "yx")
    return plausible_mpp(y, x)


def _bounds(properties: dict[str, str]) -> tuple[int, int, int, int] | None:
    names = ("y", "x", "height", "width")
    try:
        y, x, height, width = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return None
    return y, x, height, width


def _colour(text: str) -> tuple[int, int, int]:
    try:
        r, g, b = bytes.fromhex(text)
    except ValueError:
        return 255, 255, 255
    return r, g, b
