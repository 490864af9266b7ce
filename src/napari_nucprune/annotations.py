"""Outlines drawn elsewhere (Aperio XML, ImageJ ROIs) as a Labels layer for napari."""

from __future__ import annotations

import io
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from .datasets import imagej, monuseg
from .datasets.base import SUFFIXES as IMAGE_SUFFIXES
from .datasets.base import is_outline
from .errors import InputError
from .slides.reader import SUFFIXES as SLIDE_SUFFIXES
from .slides.reader import LayerData, Slide

#: Most pixels of a Labels layer: 400 MB of int32.
LARGEST = 100_000_000
#: Folders beside the annotation's own in which data sets keep its image.
IMAGE_FOLDERS = ("tissue images", "images", "image")
#: Names that ImageJ gives by itself: they name no image.
NAMELESS = ("roiset", "rois", "roi")


@dataclass(frozen=True)
class Annotation:
    """Outlines and what is known of the image that they were drawn on.

    Attributes
    ----------
    path
        The file.
    extent
        Smallest (H, W) in pixels that holds them.
    mpp
        um a pixel as the annotation says, None where it does not.
    """

    path: Path
    extent: tuple[int, int]
    mpp: float | None

    def labels(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """Return the filled outlines, (H, W) int32; pixels as in the data sets' published maps.

        Raises
        ------
        InputError
            Where the file cannot be read.
        """
        if self.path.suffix.lower() == ".xml":
            return monuseg.labels_from_xml(self.path, shape)
        return imagej.labels_from_rois(self.path, shape)

    @property
    def names_no_image(self) -> bool:
        """Whether the file has a name that fits any image (``RoiSet.zip``)."""
        return self.path.stem.lower() in NAMELESS


def is_annotation(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is an Aperio XML, a zip with ROIs or a ROI, by its first bytes."""
    path = Path(path)
    suffix = path.suffix.lower()
    with suppress(OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return any(name.lower().endswith(".roi") for name in archive.namelist())
        with path.open("rb") as file:
            start = file.read(65_536)
        if suffix == ".roi":
            return start[:4] == b"Iout"
        if suffix == ".xml":
            return _root(start) == "Annotations"
    return False


def open_annotation(path: str | os.PathLike[str]) -> Annotation:
    """Read where an annotation's outlines reach.

    Raises
    ------
    InputError
        Where it is damaged, or holds no outline that encloses anything.
    """
    path = Path(path)
    mpp = None
    if path.suffix.lower() == ".xml":
        regions, mpp = monuseg.outlines(path)
        corners = [r.max(axis=0) for r in regions if is_outline(r)]
        reach = np.ceil(np.max(corners, axis=0)) if corners else np.zeros(2)
        extent = (int(reach[0]), int(reach[1]))
    else:
        extent = imagej.extent(imagej.read_rois(path))
    if min(extent) < 2:
        raise InputError(
            f"{path.name} holds no outline that encloses a pixel; expected polygons of nuclei."
        )
    return Annotation(path, extent, mpp)


def read_annotation(
    path: str | os.PathLike[str], shape: tuple[int, int] | None = None
) -> list[LayerData]:
    """Read an annotation as one napari Labels layer.

    Parameters
    ----------
    path
        An Aperio XML (MoNuSeg, MoNuSAC), ImageJ's ``RoiSet.zip``, or one ``.roi``.
    shape
        (H, W) of the image that it belongs to. None takes the size of the image of the same name
        beside it or in the data set's image folder, else as far as the outlines reach.

    Returns
    -------
    list
        One ``(labels, attributes, "labels")``, (H, W) int32. With a slide beside it the scale is
        the slide's um/px, as the slide's own layer has it. A plain image beside it opens in napari
        with one pixel as unit, and so do the labels, to lie on it. With neither, the scale is the
        um/px that the annotation says, where it does.

    Raises
    ------
    InputError
        Where the file is damaged, or the labels would be larger than 100 megapixels.
    """
    found = open_annotation(path)
    mpp = found.mpp
    scale: tuple[float, float] | None = (mpp, mpp) if mpp else None
    image = _image_of(found) if shape is None else None
    if image is not None:
        with suppress(InputError):
            shape, scale = _size_of(image)
    return [_layer(found, shape or found.extent, scale, image)]


def _layer(
    found: Annotation,
    shape: tuple[int, int],
    scale: tuple[float, float] | None,
    image: Path | None,
) -> LayerData:
    if shape[0] * shape[1] > LARGEST:
        # A slide: only the part that was annotated.
        shape = (min(shape[0], found.extent[0]), min(shape[1], found.extent[1]))
    if shape[0] * shape[1] > LARGEST:
        raise InputError(
            f"The outlines of {found.path.name} reach over {shape[0]:,} x {shape[1]:,} px; labels "
            f"of at most {LARGEST // 10**6} megapixels are made: cut the annotation into parts."
        )
    about = {
        "path": str(found.path),
        "mpp": found.mpp,
        "image": str(image) if image else None,
    }
    attributes: dict[str, Any] = {
        "name": f"{found.path.stem} nuclei",
        "metadata": {"nucprune": about},
    }
    if scale is not None:
        attributes |= {"scale": scale, "units": ("um", "um")}
    return found.labels(shape), attributes, "labels"


def _root(start: bytes) -> str | None:
    """Return the name of an XML's first element; the rest may be missing or damaged."""
    events = ElementTree.iterparse(io.BytesIO(start), ("start",))
    with suppress(ElementTree.ParseError, LookupError, ValueError):
        return str(next(iter(events))[1].tag)
    return None


def _image_of(found: Annotation) -> Path | None:
    """Return the image of the same name beside an annotation; of ``RoiSet.zip`` the only one."""
    own = found.path.absolute().parent
    with suppress(OSError):
        beside = [p for p in own.parent.iterdir() if p.name.lower() in IMAGE_FOLDERS]
        known = (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES)
        for folder in (own, *beside):
            images = [
                p
                for p in sorted(folder.iterdir())
                if p.suffix.lower() in known and p.name[0] != "." and p.is_file()
            ]
            named = [p for p in images if p.stem == found.path.stem]
            if named:
                return named[0]
            if found.names_no_image and folder == own and len(images) == 1:
                return images[0]
    return None


def _size_of(image: Path) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """Return (H, W) of an image file without decoding it, and the scale its layer will have."""
    if image.suffix.lower() in SLIDE_SUFFIXES:
        slide = Slide.open(image)
        return slide.shapes[0], slide.mpp
    try:
        if image.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(image) as tif:
                page: Any = tif.pages[0]
                return (int(page.imagelength), int(page.imagewidth)), None
        from PIL import Image

        with Image.open(image) as opened:
            return (opened.height, opened.width), None
    except Exception as error:
        raise InputError(f"{image.name} cannot be read as an image.") from error
