"""Whole slides through OpenSlide: regions of any level, lazy levels and the napari reader.

Nothing here imports napari: its reader contract is plain tuples.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: What the manifest claims; `Slide` itself opens whatever OpenSlide knows (tiled .tif too).
SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide")
#: Where a region cannot be read, this many pixels square are given up at a time.
BAD_TILE = 256
#: Pixels of one OpenSlide call, so that its RGBA buffer stays at 64 MB.
_STRIP = 1 << 24

LayerData = tuple[Any, dict[str, Any], str]
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_log = logging.getLogger(__name__)


class Slide:
    """An open slide. Reading is safe from several threads, and a slide can be pickled.

    Parameters
    ----------
    path
        Any file that OpenSlide opens.

    Attributes
    ----------
    path
        The file.
    shapes
        (height, width) of each level, the largest first.
    downsamples
        Level 0 pixels a pixel of each level.
    mpp
        um a pixel of level 0 as (y, x), None where the file does not say.
    objective
        Magnification of the objective, None where the file does not say.
    vendor
        OpenSlide's name of the format.
    background
        RGB of the places that were not scanned.

    Raises
    ------
    InputError
        Where the file is missing, empty, cut off or no slide.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._handle = _open(self.path)
        properties = dict(self._handle.properties)
        self.shapes = tuple((int(h), int(w)) for w, h in self._handle.level_dimensions)
        self.downsamples = tuple(float(d) for d in self._handle.level_downsamples)
        self.mpp = _mpp(properties)
        self.objective = _number(properties.get("openslide.objective-power"))
        self.vendor = str(properties.get("openslide.vendor", ""))
        self.background = _colour(properties.get("openslide.background-color", ""))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Slide:
        """Open a slide; see the class."""
        return cls(path)

    def __reduce__(self) -> tuple[type[Slide], tuple[str]]:
        # dask workers open the file themselves.
        return type(self), (str(self.path),)

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self.shapes)

    def levels(self) -> list[LazyLevel]:
        """All levels as lazy arrays, the largest first."""
        return [LazyLevel(self, level) for level in range(self.level_count)]

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a region.

        Parameters
        ----------
        level
            0 is the largest.
        y, x
            First pixel, in pixels of the level; may lie outside.
        height, width
            Size in pixels of the level.

        Returns
        -------
        NDArray
            (height, width, 3) uint8; the slide's background where nothing was scanned and
            beyond the edges.

        Raises
        ------
        InputError
            Where the file is damaged at this place.
        """
        if not 0 <= level < self.level_count:
            raise IndexError(f"level {level} of a slide with {self.level_count}")
        full_h, full_w = self.shapes[level]
        out = np.empty((height, width, 3), np.uint8)
        out[...] = self.background
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + height, full_h), min(x + width, full_w)
        if bottom <= top or right <= left:
            return out
        rows = max(1, _STRIP // (right - left))
        for start in range(top, bottom, rows):
            stop = min(start + rows, bottom)
            rgba = self._region(level, start, left, stop - start, right - left)
            out[start - y : stop - y, left - x : right - x] = _blend(rgba, self.background)
        return out

    def _region(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        import openslide

        # OpenSlide wants the corner in pixels of level 0, whatever the level.
        scale = self.downsamples[level]
        where, size = (round(x * scale), round(y * scale)), (width, height)
        handle = self._handle
        try:
            return np.asarray(handle.read_region(where, level, size))
        except openslide.OpenSlideError:
            # One failed read makes an OpenSlide object refuse everything after it, in all
            # threads: only a handle of our own tells whether it was this place that failed.
            pass
        fresh = _open(self.path)
        try:
            region = np.asarray(fresh.read_region(where, level, size))
        except openslide.OpenSlideError as error:
            raise InputError(
                f"{self.path.name} is damaged at level {level}, y {y}, x {x} ({_short(error)}); "
                "copy or download the slide again."
            ) from error
        with self._lock:
            if self._handle is handle:
                self._handle = fresh
        return region


class LazyLevel:
    """A level of a slide as an array that is read on indexing.

    Places that cannot be read become background and are counted, because napari dies of an
    exception raised while it slices a layer.

    Parameters
    ----------
    slide
        The slide.
    level
        0 is the largest.
    """

    ndim = 3
    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)

    def __init__(self, slide: Slide, level: int) -> None:
        self.slide = slide
        self.level = level
        self.shape: tuple[int, int, int] = (*slide.shapes[level], 3)
        self._bad: set[tuple[int, int]] = set()

    @property
    def size(self) -> int:
        """Number of values."""
        return self.shape[0] * self.shape[1] * 3

    @property
    def bad_tiles(self) -> int:
        """Number of squares of `BAD_TILE` pixels that were found to be unreadable."""
        return len(self._bad)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyLevel({self.slide.path.name!r}, level={self.level}, shape={self.shape})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a level of a slide has to be read: it cannot be had without a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        y_key, x_key, channel = _three(key)
        rows, cols = _indices(y_key, self.shape[0]), _indices(x_key, self.shape[1])
        out = np.empty((len(rows), len(cols), 3), np.uint8)
        # In strips, so that every 64th pixel of a level 0 does not take the memory of all.
        span = max(cols, default=0) - min(cols, default=0) + 1
        step = max(1, _STRIP // (span * abs(rows.step)))
        for start in range(0, len(rows) if len(cols) else 0, step):
            part = rows[start : start + step]
            out[start : start + step] = self._span(part, cols)
        return out[
            slice(None) if isinstance(y_key, slice) else 0,
            slice(None) if isinstance(x_key, slice) else 0,
            channel,
        ]

    def _span(self, rows: range, cols: range) -> NDArray[np.uint8]:
        y, x = min(rows), min(cols)
        height, width = max(rows) + 1 - y, max(cols) + 1 - x
        try:
            if self._bad:
                block = self._patched(y, x, height, width)
            else:
                block = self.slide.read(self.level, y, x, height, width)
        except Exception:
            block = self._patched(y, x, height, width)
        # A range of one row keeps its step, whatever its sign.
        return block[:: abs(rows.step), :: abs(cols.step)][
            :: 1 if rows.step > 0 else -1, :: 1 if cols.step > 0 else -1
        ]

    def _patched(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read square by square, on a fixed grid so that a bad one is counted once."""
        out = np.empty((height, width, 3), np.uint8)
        out[...] = self.slide.background
        for ty in range(y // BAD_TILE, (y + height - 1) // BAD_TILE + 1):
            for tx in range(x // BAD_TILE, (x + width - 1) // BAD_TILE + 1):
                if (ty, tx) in self._bad:
                    continue
                top, left = max(ty * BAD_TILE, y), max(tx * BAD_TILE, x)
                h = min((ty + 1) * BAD_TILE, y + height) - top
                w = min((tx + 1) * BAD_TILE, x + width) - left
                try:
                    tile = self.slide.read(self.level, top, left, h, w)
                except Exception as error:
                    self._bad.add((ty, tx))
                    _log.warning("shown as background: %s", error)
                else:
                    out[top - y : top - y + h, left - x : left - x + w] = tile
        return out


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Give napari the function that reads a path.

    Parameters
    ----------
    path
        A file, or a list of files.

    Returns
    -------
    callable or None
        `read_slide` for one file with a slide's suffix, None for anything else.
    """
    one = _single(path)
    if one is None or Path(one).suffix.lower() not in SUFFIXES:
        return None
    return read_slide


def read_slide(path: PathOrPaths) -> list[LayerData]:
    """Read a slide as one napari image layer.

    Parameters
    ----------
    path
        A file, or a list of one file.

    Returns
    -------
    list
        One ``(data, attributes, "image")``: data is a list of lazy levels, or the only level;
        the scale is in um where the slide says its pixel size, and 1 without a unit where it
        does not. ``metadata["nucprune"]`` holds ``mpp``, ``path`` and ``objective``.

    Raises
    ------
    InputError
        Where the slide cannot be opened.
    """
    one = _single(path)
    if one is None:
        raise InputError("A list of several files was given; open slides one at a time.")
    slide = Slide.open(one)
    levels = slide.levels()
    about = {"mpp": slide.mpp, "path": str(slide.path), "objective": slide.objective}
    attributes: dict[str, Any] = {
        "name": slide.path.stem,
        "rgb": True,
        "multiscale": len(levels) > 1,
        "scale": slide.mpp or (1.0, 1.0),
        "metadata": {"nucprune": about},
    }
    if slide.mpp:
        attributes["units"] = ("um", "um")
    return [(levels if len(levels) > 1 else levels[0], attributes, "image")]


def _single(path: PathOrPaths) -> str | None:
    if isinstance(path, str | os.PathLike):
        return os.fspath(path)
    return os.fspath(path[0]) if len(path) == 1 else None


def _open(path: Path) -> Any:
    import openslide

    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a slide.")
    try:
        size = path.stat().st_size
        if size and openslide.OpenSlide.detect_format(path) is not None:
            _check_length(path, size)
            return openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise InputError(
            f"{path.name} cannot be opened as a slide ({_short(error)}); "
            "it is cut off or damaged: copy or download it again."
        ) from error
    if not size:
        raise InputError(f"{path.name} is empty (0 bytes); copy or download the slide again.")
    raise InputError(
        f"{path.name} is no slide that OpenSlide knows; give one of {' '.join(SUFFIXES)} as the "
        "scanner wrote it, or open a plain image as an image."
    )


def _check_length(path: Path, size: int) -> None:
    """Refuse a TIFF whose tiles lie beyond its end: OpenSlide would open it and fail later."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            ends = [
                offset + count
                for page in tif.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
    except Exception:
        # No TIFF, or one that tifffile does not follow: OpenSlide is the judge.
        return
    if max(ends, default=0) > size:
        raise InputError(
            f"{path.name} is cut off: it has {size:,} bytes of at least {max(ends):,}; "
            "copy or download the slide again."
        )


def _blend(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return rgba[..., :3]
    weight = alpha.astype(np.uint16)
    under = np.array(background, np.uint16) * (255 - weight)
    return ((rgba[..., :3] * weight + under + 127) // 255).astype(np.uint8)


def _three(key: Any) -> tuple[Any, Any, Any]:
    """Fill an index up to (y, x, channel)."""
    parts = key if isinstance(key, tuple) else (key,)
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    given = len(parts) - len(dots)
    if given > 3 or len(dots) > 1:
        raise IndexError(f"{given} indices for (y, x, channel)")
    at = dots[0] if dots else len(parts)
    fill = (slice(None),) * (3 - given)
    y, x, channel = (*parts[:at], *fill, *parts[at + len(dots) :])
    return y, x, channel


def _indices(key: Any, length: int) -> range:
    if isinstance(key, slice):
        return range(*key.indices(length))
    try:
        index = int(key.__index__())
    except (AttributeError, TypeError) as error:
        raise IndexError(f"slides are indexed by slices and integers, not {key!r}") from error
    if not -length <= index < length:
        raise IndexError(f"index {index} of an axis of {length}")
    return range(index % length, index % length + 1)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _mpp(properties: dict[str, str]) -> tuple[float, float] | None:
    y, x = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "yx")
    # Outside of this it is a printing resolution, not a microscope's.
    return (y, x) if y and x and min(y, x) >= 0.02 and max(y, x) <= 20 else None


def _colour(text: str) -> tuple[int, int, int]:
    try:
        r, g, b = bytes.fromhex(text)
    except ValueError:
        return 255, 255, 255
    return r, g, b


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
