"""``--recover``: kept weights refitted on tissue that the user names."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doors import Pruning
from ..errors import InputError
from .common import say, show_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..checkpoint.format import Checkpoint
    from ..pruning.recipe import Recipe
    from ..pruning.recovery import Calibration
    from ..pruning.strategy import Masks

#: ``--recover`` where every image is recovered for itself.
EACH = "each"


def recovered(
    options: argparse.Namespace, checkpoint: Checkpoint, pruning: Pruning, masks: Masks
) -> Checkpoint:
    """Return the pruned and refitted checkpoint; ``pruning["recovery"]`` says how it was made.

    Parameters
    ----------
    options
        ``recover`` is ``bundled`` or a path; ``mpp`` also holds for images that the command works
        on itself.
    checkpoint, pruning, masks
        As from `common.resolve`.

    Raises
    ------
    InputError
        Where the path is missing, cannot be read or holds no tissue.
    """
    found = calibration(options, checkpoint).recover(pruning, masks, show_progress)
    show_progress("Recovered", 1, 1)
    return found


def calibration(options: argparse.Namespace, checkpoint: Checkpoint) -> Calibration:
    """Return the responses that ``--recover`` refits to; errors are those of `recovered`."""
    from ..pruning.recovery import Calibration

    # On the CPU whatever the runtime's device: the same crops give the same weights.
    crops, name = _crops(options, checkpoint.mpp)
    return Calibration(checkpoint, crops, name, recipe_of(options), progress=show_progress)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return how ``--reselect`` says to refit."""
    from ..pruning.recipe import RESELECT, Recipe

    return RESELECT if options.reselect else Recipe()


def described(recovery: dict[str, Any]) -> str:
    """Return a recovery's metadata in words, e.g. ``16 crops of slide.svs``."""
    crops = f"{recovery['crops']} crops" if recovery.get("crops") else "crops"
    chosen = ", weights reselected" if recovery.get("select_stages") else ""
    return f"{crops} of {recovery.get('origin') or 'tissue that is not named'}{chosen}"


def _crops(options: argparse.Namespace, mpp: float) -> tuple[NDArray[np.uint8], str]:
    """Return the crops of an image, a folder or the bundled tissue, and its name."""
    from ..samples import BUNDLED_TISSUE, calibration_crops
    from ..slides.crops import crops_of_folder, tissue_crops
    from ..slides.source import open_source

    if options.recover == "bundled":
        return calibration_crops(), BUNDLED_TISSUE
    # The empty path would be the folder one is in.
    path = Path(options.recover).resolve() if options.recover else None
    if path is None or not path.exists():
        raise InputError(
            f"--recover is {options.recover!r}, which is no file or folder here; give none, "
            "bundled, an image or a folder of images."
        )
    own = _own_mpp(options, path)
    if path.is_dir():
        return crops_of_folder(path, mpp, own_mpp=own, notice=say), path.name
    source = open_source(path, own)
    crops = tissue_crops(source, mpp)
    if source.mpp is None:
        say(
            f"pixel size is not set in {path.name}: the network's own {mpp:g} um is assumed "
            "for recovery."
        )
    return crops, path.name


def _own_mpp(options: argparse.Namespace, path: Path) -> float | None:
    """Return ``--mpp`` where ``path`` is, or lies in, what the command itself works on."""
    own = getattr(options, "image", None) or getattr(options, "folder", None)
    if own is None or Path(own).resolve() not in (path, *path.parents):
        return None
    mpp: float | None = options.mpp
    return mpp
