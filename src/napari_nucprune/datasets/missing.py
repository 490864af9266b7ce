"""What is said of a folder that lacks files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError

#: How many missing files a sentence names, and how many lines a report has.
FEW, MANY = 5, 50
log = logging.getLogger(__name__)


def report_missing(
    layout: str, folder: Path, annotations: Sequence[str], images: Sequence[str] = ()
) -> None:
    """Raise one sentence that names what is missing, by file: a few in it, more in lines below it.

    Parameters
    ----------
    layout, folder
        What was opened.
    annotations
        The images without an annotation.
    images
        The images, or folders of images, that an annotation is there for and that are not.

    Raises
    ------
    InputError
        Where anything is missing.
    """
    said = [
        *(f"no annotation for {name}" for name in annotations),
        *(f"no image {name}" for name in images),
    ]
    if not said:
        return
    what = f"{folder} is incomplete as {layout}"
    advice = "add the missing files, or move away what lacks them"
    if len(said) <= FEW:
        raise InputError(f"{what}: {', '.join(said)}; {advice}.")
    raise InputError(f"{what} in {len(said)} places; {advice}:{lines(said)}")


def lines(said: Sequence[str]) -> str:
    """Return sentences as lines below one, `MANY` at most."""
    more = [f"and {len(said) - MANY} more"] if len(said) > MANY else []
    return "".join(f"\n  {line}" for line in (*said[:MANY], *more))


def report_orphans(folder: Path, names: list[str]) -> None:
    """Warn of annotations without an image: whoever removed the images may have meant to."""
    if names:
        more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
        log.warning("%s: no image for the labels of %s%s", folder, ", ".join(names[:FEW]), more)
