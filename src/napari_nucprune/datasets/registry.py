"""Layouts by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import monuseg, pairs, tnbc
from .base import Folder, options_of

LAYOUTS: dict[str, tuple[Callable[..., Folder], tuple[str, ...]]] = {
    "monuseg": (monuseg.read, ()),
    "tnbc": (tnbc.read, ()),
    "pairs": (pairs.read, ("images", "labels", "mpp", "licence")),
}


def open_folder(folder: str | Path, layout: str, **options: Any) -> Folder:
    """Find the annotated images of a folder.

    Parameters
    ----------
    folder
        Path.
    layout
        A name of `LAYOUTS`.
    **options
        What the layout's reader takes.

    Returns
    -------
    Folder
        Iterates over `Annotated`, reading one image at a time.

    Raises
    ------
    InputError
        Where the layout or an option is unknown, the folder missing or incomplete.
    """
    if layout not in LAYOUTS:
        raise InputError(f"The layout {layout!r} is not known; choose {', '.join(LAYOUTS)}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the data set's own folder.")
    reader, known = LAYOUTS[layout]
    options_of(layout, options, known)
    return reader(folder, **options)
