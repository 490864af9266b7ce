"""Plain image files: any format to RGB uint8, with the pixel size where the file says it."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import no_file
from .values import to_uint8

TIFF_SUFFIXES = (".tif", ".tiff")


def read_image(path: str | Path) -> tuple[NDArray[np.uint8], float | None]:
    """Read an image file as RGB.

    Parameters
    ----------
    path
        TIFF (any compression of imagecodecs) or anything Pillow opens.

    Returns
    -------
    rgb
        (H, W, 3) uint8; alpha is blended on white.
    mpp
        um a pixel, None where the file does not say.

    Raises
    ------
    InputError
        Where the file is missing, unreadable or no colour image.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "an image")
    try:
        array, mpp = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else _read_pil(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read as an image ({first_line(error)}); "
            "give a TIFF, PNG or JPEG of stained tissue."
        ) from error
    return to_rgb(array, path.name), mpp


def image_shape(path: str | Path) -> tuple[tuple[int, int], float | None]:
    """Return (H, W) of an image file and its um a pixel, from its header.

    (0, 0) where it cannot be read: what is wrong with a file shows where it is opened.
    """
    path = Path(path)
    with contextlib.suppress(Exception):
        if path.suffix.lower() in TIFF_SUFFIXES:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                height, width = tif.pages[0].shape[:2]
                return (int(height), int(width)), _tiff_mpp(tif)
        from PIL import Image

        with Image.open(path) as image:
            return (image.height, image.width), None
    return (0, 0), None


def pixel_size(path: str | Path) -> tuple[float, float] | None:
    """Return um a pixel of an image file, (y, x), from its header; None where it does not say."""
    if Path(path).suffix.lower() not in TIFF_SUFFIXES:
        return None
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return tiff_mpp(tif)


def plausible_mpp(y: float | None, x: float | None) -> tuple[float, float] | None:
    """Return um a pixel, (y, x); None outside of 0.02 to 20: a printer has that, no microscope."""
    return (y, x) if y and x and 0.02 <= y <= 20 and 0.02 <= x <= 20 else None


def to_rgb(array: NDArray[Any], name: str = "The image") -> NDArray[np.uint8]:
    """Turn an array into RGB uint8.

    Parameters
    ----------
    array
        (H, W, 3) or (H, W, 4); uint8, or what `values.to_uint8` takes.
    name
        What the message calls it.

    Returns
    -------
    NDArray
        (H, W, 3) uint8; alpha is blended on white.

    Raises
    ------
    InputError
        Where the array is anything else.
    """
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InputError(
            f"{name} has shape {array.shape} and type {array.dtype}; the model wants RGB or RGBA: "
            "convert the image to 8-bit RGB."
        )
    array = to_uint8(array, name)
    if array.shape[2] == 3:
        return np.ascontiguousarray(array)
    alpha = array[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(array[..., :3])
    blended = (array[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


def _read_pil(path: Path) -> tuple[NDArray[Any], float | None]:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode != "P":
            return np.asarray(image), None
        return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")), None


def _read_tiff(path: Path) -> tuple[NDArray[Any], float | None]:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        believable(page, path)
        # Only of files that say their axes: else this reads all pages, and in a damaged file they
        # can go round in a circle.
        if tif.is_ome or tif.is_imagej or tif.is_shaped:
            series = tif.series[0]
            if series.axes == "CYX" and series.shape[0] == 3:  # OME-TIFF with a channel a page
                return np.moveaxis(series.asarray(), 0, -1), _tiff_mpp(tif)
        array = page.asarray()
        if page.planarconfig == 2 and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        return array, _tiff_mpp(tif)


def believable(page: Any, path: Path) -> None:
    """Refuse a header that claims far more pixels than a file of this size can hold.

    A few damaged bytes would ask for all memory otherwise, or for hours.

    Parameters
    ----------
    page
        A tifffile.TiffPage.
    path
        Its file.

    Raises
    ------
    InputError
        Where it does.
    """
    largest = max(math.prod(page.shape), math.prod(page.chunks))
    claimed = largest * (page.dtype.itemsize if page.dtype else 1)
    # Deflate packs 1032 : 1 at most; blank tissue as JPEG or zstd a few times more.
    if claimed > 64_000_000 + 4000 * path.stat().st_size:
        raise InputError(
            f"{path.name} claims {claimed:,} bytes of pixels in a file of "
            f"{path.stat().st_size:,}: its header is damaged; copy or save it again."
        )


def _tiff_mpp(tif: Any) -> float | None:
    mpp = tiff_mpp(tif)
    return mpp[1] if mpp else None


def tiff_mpp(tif: Any) -> tuple[float, float] | None:
    """Return um a pixel, (y, x), from OME-XML, ImageJ metadata or a resolution in centimetres.

    A resolution in inches is left alone: it is nearly always a printing default (72 dpi).

    Parameters
    ----------
    tif
        An open tifffile.TiffFile.
    """
    page = tif.pages[0]
    x: float | None = None
    y: float | None = None
    if tif.ome_metadata:
        y, x = (_ome_size(tif.ome_metadata, axis) for axis in "YX")
    else:
        unit_tag = page.tags.get("ResolutionUnit")
        ij_unit = str((tif.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "u")
        if ij_unit in ("um", "µm", "micron"):
            um = 1.0
        elif unit_tag is not None and int(unit_tag.value) == 3:
            um = 1e4
        else:
            return None
        y, x = (_resolution(page, axis, um) for axis in "YX")
    x = x or y
    y = y or x
    return plausible_mpp(y, x)


def _ome_size(xml: str, axis: str) -> float | None:
    size = re.search(rf'PhysicalSize{axis}="([0-9.eE+-]+)"', xml)
    unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', xml)
    # Micro sign, Greek mu, and the sign as XML may write it.
    factor = {"\u00b5m": 1.0, "\u03bcm": 1.0, "&#181;m": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3}
    scale = factor.get(unit[1] if unit else "um")
    try:
        return float(size[1]) * scale if size and scale else None
    except ValueError:  # as good as none
        return None


def _resolution(page: Any, axis: str, um: float) -> float | None:
    tag = page.tags.get(f"{axis}Resolution")
    return um * tag.value[1] / tag.value[0] if tag and tag.value[0] > 0 else None


def first_line(error: Exception) -> str:
    """Return what an error says, cut to a part of one sentence."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
