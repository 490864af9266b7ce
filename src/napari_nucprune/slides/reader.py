"""Whole slides through OpenSlide: regions of any level, and the napari reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .image import first_line

#: What the manifest claims; `Slide` itself opens whatever OpenSlide knows (tiled .tif too).
SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide")
#: Where a region cannot be read, this many pixels square are given up at a time.
BAD_TILE = 512
#: Side of the largest region asked of OpenSlide at once.
BLOCK = 2048

#: TIFF and BigTIFF, both byte orders.
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LayerData = tuple[Any, dict[str, Any], str]
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


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
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._handle = _open(self.path)
        properties = dict(self._handle.properties)
        self.shapes = tuple((int(h), int(w)) for w, h in self._handle.level_dimensions)
        self.level_count = len(self.shapes)
        self.downsamples = tuple(float(d) for d in self._handle.level_downsamples)
        self.mpp = _mpp(properties)
        self.objective = _number(properties.get("openslide.objective-power"))
        self.vendor = str(properties.get("openslide.vendor", ""))
        self.background = _colour(properties.get("openslide.background-color", ""))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Slide:
        """Open a slide; raise an InputError where the file is missing, empty, cut off or none."""
        return cls(path)

    def __reduce__(self) -> tuple[type[Slide], tuple[str]]:
        return type(self), (str(self.path),)  # a process that gets a slide opens the file

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


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Give napari `read_slide` for one file with a slide's suffix, None for anything else."""
    one = _single(path)
    return read_slide if one and Path(one).suffix.lower() in SUFFIXES else None


def read_slide(path: PathOrPaths) -> list[LayerData]:
    """Read a slide as one napari image layer.

    Parameters
    ----------
    path
        A file, or a list of one file; an InputError says what is wrong with it.

    Returns
    -------
    list
        One ``(data, attributes, "image")``: data is a list of `LazyLevel`, or the only one; the
        scale is in um where the slide says its pixel size, else 1 without a unit.
        ``metadata["nucprune"]`` holds ``mpp`` (y, x), ``path`` and ``objective``.
    """
    one = _single(path)
    if one is None:
        raise InputError("Several files were given at once; open slides one at a time.")
    from .lazy import LazyLevel

    slide = Slide.open(one)
    levels = [LazyLevel(slide, level) for level in range(slide.level_count)]
    about = {"mpp": slide.mpp, "path": str(slide.path), "objective": slide.objective}
    attributes: dict[str, Any] = {"name": slide.path.stem, "rgb": True}
    attributes |= {"multiscale": len(levels) > 1, "metadata": {"nucprune": about}}
    attributes["scale"] = slide.mpp or (1.0, 1.0)
    if slide.mpp:
        attributes["units"] = ("um", "um")
    return [(levels if len(levels) > 1 else levels[0], attributes, "image")]


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Whether OpenSlide knows a file's format, whatever its name."""
    import openslide

    try:
        return Path(path).is_file() and openslide.OpenSlide.detect_format(path) is not None
    except (openslide.OpenSlideError, OSError):
        return False


def grid(y: int, x: int, y_end: int, x_end: int, side: int) -> Iterator[tuple[int, ...]]:
    """Cut a region into (y, x, y_end, x_end) along the multiples of ``side``."""
    if y >= y_end or x >= x_end:
        return
    for ty in range(y // side * side, y_end, side):
        for tx in range(x // side * side, x_end, side):
            yield max(ty, y), max(tx, x), min(ty + side, y_end), min(tx + side, x_end)


def _single(path: PathOrPaths) -> str | None:
    if not isinstance(path, str | os.PathLike):
        return os.fspath(path[0]) if len(path) == 1 else None
    return os.fspath(path)


def _open(path: Path) -> Any:
    import openslide

    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a slide.")
    again = "copy or download the slide again."
    try:
        size = path.stat().st_size
        if not size:
            raise InputError(f"{path.name} is empty (0 bytes); {again}")
        if openslide.OpenSlide.detect_format(path) is None:
            if _start(path) in TIFF_STARTS:
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
        return openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        found = f"{path.name} cannot be opened as a slide ({first_line(error)})"
        raise InputError(f"{found}; {again}") from error


def _start(path: Path) -> bytes:
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
    # Outside of this it is a printing resolution, not a microscope's.
    return (y, x) if y and x and 0.02 <= y <= 20 and 0.02 <= x <= 20 else None


def _colour(text: str) -> tuple[int, int, int]:
    try:
        r, g, b = bytes.fromhex(text)
    except ValueError:
        return 255, 255, 255
    return r, g, b
