"""Data Science Bowl 2018 (BBBC038): a folder an image, with one PNG a nucleus."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Entry, Folder, entry, from_map, images_in, read_array
from .missing import report_missing

#: From many microscopes and undocumented.
MPP = None
LICENCE = "CC0"
log = logging.getLogger(__name__)


def read(folder: Path) -> Folder:
    """Find the images of the bowl, or of one of its stages.

    ``ID/images/ID.png`` lies in the folder or in its stages (``stage1_train/ID``), the nuclei in
    ``ID/masks/*.png``; images without these take instance maps ``labels/ID.png`` or
    ``labels/STAGE/ID.png``. Nothing is published of patients: each image is one of its own.

    Parameters
    ----------
    folder
        Of the bowl, or of a stage.

    Raises
    ------
    InputError
        Where no image is found, one has no annotation, or masks have no image.
    """
    entries: list[Entry] = []
    missing, gone = [], []
    kinds = ("*/images", "*/masks", "*/*/images", "*/*/masks")
    for own in sorted({place.parent for kind in kinds for place in folder.glob(kind)}):
        stage = own.parent
        maps = images_in(folder / "labels" / stage.name) | images_in(folder / "labels")
        images, masks = images_in(own / "images"), images_in(own / "masks")
        if not images:
            gone.append(f"{stage.name}/{own.name}/images/{own.name}.png")
        for name, path in images.items():
            if masks:
                labels = partial(labels_from_masks, own / "masks")
            elif name in maps:
                labels = partial(from_map, maps[name])
            else:
                missing.append(f"{stage.name}/{own.name}/images/{path.name}")
                continue
            entries.append(entry(name, name, path, labels, MPP, LICENCE))
    report_missing("dsb2018", folder, missing, gone)
    if not entries:
        raise InputError(
            f"{folder} holds no images as dsb2018: expected 'ID/images/ID.png' with "
            "'ID/masks/*.png', in it or in its stages."
        )
    return Folder("dsb2018", folder, entries)


def labels_from_masks(folder: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Merge a folder of masks into labels.

    Parameters
    ----------
    folder
        One image a nucleus.
    shape
        (H, W) of the image.

    Returns
    -------
    NDArray
        (H, W) int32, 1..n in the order of the files' names; where masks overlap the earlier one
        wins.

    Raises
    ------
    InputError
        Where a mask cannot be read or has another size.
    """
    labels = np.zeros(shape, np.int32)
    empty = 0
    for index, path in enumerate(sorted(images_in(folder).values()), start=1):
        mask = read_array(path)
        if mask.ndim == 3:  # some are stored as RGB or RGBA
            mask = mask[..., :3].max(axis=2)
        if mask.shape != shape:
            raise InputError(
                f"{path} has {mask.shape} pixels and its image {shape}; expected the same size."
            )
        free = (mask > 0) & (labels == 0)
        labels[free] = index
        empty += not free.any()
    if empty:
        log.warning("%s: %d masks are empty or lie under others", folder.parent.name, empty)
    return labels
