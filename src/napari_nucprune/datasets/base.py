"""What every reader of a data set yields, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..slides.image import read_image

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Annotated:
    """One image with its ground truth.

    Attributes
    ----------
    name, patient
        The file's stem, and the patient by whom splits are made.
    rgb
        (H, W, 3) uint8.
    labels
        (H, W) int32 instances, 0 is background.
    mpp
        um a pixel, None where the layout does not say.
    licence
        As its publisher states it.
    """

    name: str
    patient: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp: float | None
    licence: str

    def __post_init__(self) -> None:
        if self.rgb.shape[:2] != self.labels.shape:
            raise InputError(
                f"{self.name}: the image is {self.rgb.shape[:2]} pixels and its labels "
                f"{self.labels.shape}; expected the same size."
            )


@dataclass(frozen=True)
class Entry:
    """One image of a folder, not yet read."""

    name: str
    patient: str
    read: Callable[[], Annotated]


class Folder:
    """The images of one folder in one layout, read one at a time.

    Parameters
    ----------
    layout, path, entries
        What was found.
    """

    def __init__(self, layout: str, path: Path, entries: list[Entry]) -> None:
        self.layout = layout
        self.path = path
        self.entries = sorted(entries, key=lambda entry: entry.name)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Annotated]:
        for entry in self.entries:
            yield entry.read()


def images_in(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem; empty where the folder is missing."""
    if not folder.is_dir():
        return {}
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}


def read_array(path: Path) -> NDArray[Any]:
    """Read an image file as it is.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    from PIL import Image

    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            return np.asarray(tifffile.imread(path))
        with Image.open(path) as image:
            return np.asarray(image)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a label image; copy or download it again."
        ) from error


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read an instance map (H, W) of integers.

    Raises
    ------
    InputError
        Where the file is no single-channel integer image.
    """
    array = read_array(path)
    if array.ndim != 2 or array.dtype.kind not in "uib":
        raise InputError(
            f"{path} has shape {array.shape} and type {array.dtype}; "
            "expected one channel of integer labels."
        )
    return array.astype(np.int32)


def report_missing(layout: str, folder: Path, missing: list[str]) -> None:
    """Raise one sentence that names what is missing, by file.

    Raises
    ------
    InputError
        Where anything is missing.
    """
    if missing:
        shown = ", ".join(missing[:5]) + (
            f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        )
        raise InputError(
            f"{folder} is incomplete as {layout}: no annotation for {shown}; "
            "add the missing files or move these images away."
        )


def entry(
    name: str,
    patient: str,
    image: Path,
    labels: Callable[[tuple[int, int]], NDArray[np.int32]],
    mpp: float | None,
    licence: str,
) -> Entry:
    """Return an entry that reads ``image`` and calls ``labels(shape)``."""

    def read() -> Annotated:
        rgb, own_mpp = read_image(image)
        return Annotated(name, patient, rgb, labels(rgb.shape[:2]), mpp or own_mpp, licence)

    return Entry(name, patient, read)


def options_of(layout: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse options that a layout does not know.

    Raises
    ------
    InputError
        Where one is unknown.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"The layout {layout} has no option {unknown[0]!r}; it knows {', '.join(known) or '-'}."
        )
