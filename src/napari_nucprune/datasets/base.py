"""What every reader of a data set yields, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..slides.image import believable, read_image
from .missing import lines

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
#: Side in pixels of the largest outline that can be a nucleus; others mark tissue (or are damaged),
#: and filling them would take gigabytes.
LARGEST_OUTLINE = 4096


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
    annotator
        Whose annotation it is, None where the set has one only.
    """

    name: str
    patient: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mpp: float | None
    licence: str
    annotator: str | None = None

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
        for at in range(len(self)):
            yield self.read(at)

    def read(self, at: int) -> Annotated:
        """Read the image at a place of ``entries``.

        Raises
        ------
        InputError
            Where it cannot be read; those after it are tried too, and all that cannot are named.
        """
        try:
            return self.entries[at].read()
        except InputError as error:
            said = [str(error), *filter(None, (_fault(own) for own in self.entries[at + 1 :]))]
            if len(said) == 1:
                raise
            what = f"{self.path}: {len(said)} images cannot be read; mend them or move them away"
            raise InputError(f"{what}:{lines(said)}") from error

    def of_patients(self, patients: Sequence[str]) -> Folder:
        """Return the images of some patients alone.

        Raises
        ------
        InputError
            Where it has no image of one of them.
        """
        known = sorted({entry.patient for entry in self.entries})
        if unknown := [patient for patient in patients if patient not in known]:
            raise InputError(
                f"{self.path} holds no image of the patient {unknown[0]!r}; "
                f"its patients are {', '.join(known)}."
            )
        return Folder(self.layout, self.path, [e for e in self.entries if e.patient in patients])

    def with_mpp(self, mpp: float) -> Folder:
        """Return the same images, each said to have ``mpp`` um a pixel."""

        def said(own: Entry) -> Entry:
            return replace(own, read=lambda: replace(own.read(), mpp=mpp))

        return Folder(self.layout, self.path, [said(own) for own in self.entries])


def is_outline(vertices: NDArray[np.float64]) -> bool:
    """Say whether vertices (n, 2) can enclose a nucleus: three or more, finite, and not too far."""
    if len(vertices) < 3 or not (np.abs(vertices) < 1e8).all():
        return False
    return float(np.ptp(vertices, axis=0).max()) <= LARGEST_OUTLINE


def images_in(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem; empty where the folder is missing.

    Hidden ones (macOS writes ``._name.png`` beside ``name.png``) are no images.

    Raises
    ------
    InputError
        Where two have one stem: one of them would be left out.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in SUFFIXES or path.name[0] == ".":
            continue
        if other := found.get(path.stem):
            raise InputError(
                f"{folder} holds {other.name} and {path.name}; expected one file for each image: "
                "move one away."
            )
        found[path.stem] = path
    return found


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

            with tifffile.TiffFile(path) as tif:
                believable(tif.pages[0], path)
                with suppress(IndexError):
                    second = tif.pages[1].shape
                    raise InputError(
                        f"{path} holds several pages, the second of {second}; expected one image."
                    )
                return np.asarray(tif.pages[0].asarray())
        with Image.open(path) as image:
            return np.asarray(image)
    except InputError:
        raise
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


def from_map(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Read an instance map whose size `Annotated` checks."""
    return read_labels(path)


def _fault(entry: Entry) -> str | None:
    """Return why an image cannot be read, None where it can."""
    try:
        entry.read()
    except InputError as error:
        return str(error)
    return None


def entry(
    name: str,
    patient: str,
    image: Path,
    labels: Callable[[tuple[int, int]], NDArray[np.int32]],
    mpp: float | None,
    licence: str,
    *,
    default_mpp: float | None = None,
    annotator: str | None = None,
) -> Entry:
    """Return an entry that reads ``image`` and calls ``labels(shape)``.

    ``mpp`` goes before what the file says, ``default_mpp`` is for files that say nothing.
    """

    def read() -> Annotated:
        rgb, own = read_image(image)
        size = mpp or own or default_mpp
        return Annotated(name, patient, rgb, labels(rgb.shape[:2]), size, licence, annotator)

    return Entry(name, patient, read)


def options_of(layout: str, options: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Refuse options that a layout does not know or cannot use.

    Parameters
    ----------
    layout, options
        What was asked for.
    known
        Kinds by name: ``str``, or ``float`` for any finite number.

    Raises
    ------
    InputError
        Where one is unknown or of another kind.
    """
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"The layout {layout} has no option {name!r}; it knows {', '.join(known) or '-'}."
            )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if known[name] is float and not (number and np.isfinite(value)):
            raise InputError(f"The option {name} of {layout} is {value!r}; expected a number.")
        if known[name] is str and not isinstance(value, str):
            raise InputError(f"The option {name} of {layout} is {value!r}; expected a text.")
