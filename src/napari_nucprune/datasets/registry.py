"""Layouts by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import consep, cryonuseg, dsb2018, monuseg, nuinsseg, pairs, tnbc
from .base import Folder, options_of

#: Reader, and the options that it takes with their kinds; ``mpp`` goes with all.
LAYOUTS: dict[str, tuple[Callable[..., Folder], dict[str, type]]] = {
    "monuseg": (monuseg.read, {"offset": float, "source": str}),
    "tnbc": (tnbc.read, {}),
    "nuinsseg": (nuinsseg.read, {"offset": float}),
    "cryonuseg": (cryonuseg.read, {"annotator": str, "offset": float}),
    "consep": (consep.read, {}),
    "dsb2018": (dsb2018.read, {}),
    "pairs": (pairs.read, {"images": str, "labels": str, "licence": str}),
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
        What the layout's reader takes. Every layout takes ``mpp``, um a pixel of all images, which
        replaces what the layout and its files state.

    Returns
    -------
    Folder
        Iterates over `Annotated`, reading one image at a time.

    Raises
    ------
    InputError
        Where the layout or an option is unknown, an option is of the wrong kind, ``mpp`` is not
        above 0, or the folder is missing or incomplete.
    """
    if layout not in LAYOUTS:
        raise InputError(f"The layout {layout!r} is not known; choose {', '.join(LAYOUTS)}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the data set's own folder.")
    reader, known = LAYOUTS[layout]
    options_of(layout, options, {**known, "mpp": float})
    mpp = options.pop("mpp", None)
    if mpp is not None and mpp <= 0:
        raise InputError(
            f"The option mpp of {layout} is {mpp!r}; expected um a pixel, a number above 0."
        )
    found = reader(folder, **options)
    return found if mpp is None else found.with_mpp(float(mpp))
