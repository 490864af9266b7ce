"""Whole slides of any format, and the napari reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .slide import SUFFIXES, TIFF_STARTS, Slide, start_of

if TYPE_CHECKING:
    from .tiff import TiffSlide

#: What *Open slide…* offers beside `SUFFIXES`, which the manifest claims: were these claimed too,
#: napari would ask at every TIFF which reader to take.
TIFFS = (".tif", ".tiff", ".btf", ".tf8")
LayerData = tuple[Any, dict[str, Any], str]
PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

__all__ = ["SUFFIXES", "TIFFS", "get_reader", "is_slide", "open_slide", "read_slide"]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Give napari `read_slide` for one file with a slide's suffix, None for anything else."""
    one = _single(path)
    if not one or Path(one).suffix.lower() not in SUFFIXES:
        return None
    # Most DICOM is no slide.
    return read_slide if not one.lower().endswith(".dcm") or is_slide(one) else None


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
        ``metadata["nucprune"]`` holds ``mpp`` (y, x), ``path``, ``objective``, ``vendor`` and
        ``bounds``, ``metadata["slide"]`` all that the file tells of itself.

    Notes
    -----
    The origin is the glass's own, as OpenSlide counts, so that `instances.zarr` lies on the layer
    in readers that leave translations out, too (napari-ome-zarr 0.10).
    """
    one = _single(path)
    if one is None:
        raise InputError("Several files were given at once; open slides one at a time.")
    from .lazy import LazyLevel

    slide = open_slide(one)
    levels = [LazyLevel(slide, level) for level in range(slide.level_count)]
    about: dict[str, Any] = {"mpp": slide.mpp, "path": str(slide.path)}
    about |= {"objective": slide.objective, "vendor": slide.vendor, "bounds": slide.bounds}
    attributes: dict[str, Any] = {"name": slide.path.stem, "rgb": True}
    metadata = {"nucprune": about, "slide": slide.properties}
    attributes |= {"multiscale": len(levels) > 1, "metadata": metadata}
    attributes["scale"] = slide.mpp or (1.0, 1.0)
    if slide.mpp:
        attributes["units"] = ("um", "um")
    return [(levels if len(levels) > 1 else levels[0], attributes, "image")]


def open_slide(path: str | os.PathLike[str]) -> Slide | TiffSlide:
    """Open a slide by OpenSlide, or by tifffile where that sees more levels (OME-TIFF).

    Raises
    ------
    InputError
        Where the file is missing, empty, cut off or none.
    """
    import openslide

    from .tiff import TiffSlide, by_tifffile

    path = Path(path)
    if path.is_file() and path.stat().st_size and start_of(path) in TIFF_STARTS:
        with suppress(openslide.OpenSlideError, OSError):
            known = openslide.OpenSlide.detect_format(path)
            if known in (None, "generic-tiff"):
                count = _levels(path) if known else 0
                if by_tifffile(path, known, count):
                    return TiffSlide(path)
    return Slide(path)


def _levels(path: Path) -> int:
    import openslide

    with openslide.OpenSlide(path) as handle:
        return int(handle.level_count)


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a pyramid or tiled in a format that `open_slide` knows, by its content."""
    import openslide

    from .tiff import by_tifffile

    path = Path(path)
    try:
        if not path.is_file():
            return False
        known = openslide.OpenSlide.detect_format(path)
        return known is not None or (start_of(path) in TIFF_STARTS and by_tifffile(path, None, 0))
    except (openslide.OpenSlideError, OSError):
        return False


def _single(path: PathOrPaths) -> str | None:
    if not isinstance(path, str | os.PathLike):
        return os.fspath(path[0]) if len(path) == 1 else None
    return os.fspath(path)
