"""A folder with ``images/`` and ``labels/`` of equal stems: anybody's own data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import InputError
from .base import Folder, entry, from_map, images_in
from .missing import report_missing, report_orphans


def read(
    folder: Path,
    images: str = "images",
    labels: str = "labels",
    licence: str = "not stated",
) -> Folder:
    """Find the pairs of a folder.

    Parameters
    ----------
    folder
        Holds the two folders.
    images, labels
        Their names.
    licence
        Noted in the model card.

    Raises
    ------
    InputError
        Where there are no images or one has no labels.
    """
    found = images_in(folder / images)
    truths = images_in(folder / labels)
    if not found:
        raise InputError(
            f"{folder} holds no images as pairs: expected '{images}/' and '{labels}/' "
            "with files of equal stems."
        )
    report_missing("pairs", folder, [p.name for n, p in found.items() if n not in truths])
    report_orphans(folder, [p.name for n, p in truths.items() if n not in found])
    entries = [
        entry(name, name, path, partial(from_map, truths[name]), None, licence)
        for name, path in found.items()
    ]
    return Folder("pairs", folder, entries)
