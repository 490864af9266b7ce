"""What calibration crops have to be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES
from ..errors import InputError

#: Less than this part of the crops' pixels holding tissue is glass.
TISSUE = 0.02


def check_crops(crops: NDArray[Any], checkpoint: Checkpoint, origin: str) -> None:
    """Refuse crops that nothing can be calibrated on.

    Parameters
    ----------
    crops
        As for `Calibration`.
    checkpoint
        The network that is to be imitated.
    origin
        Where they are from.

    Raises
    ------
    InputError
        Where they have another shape or type, fit no pooling grid, or hold glass alone.
    """
    grid = 2 ** (max(len(checkpoint.layers(b)) for b in BRANCHES) // 5)
    name = origin or "The calibration"
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8 or 0 in crops.shape:
        raise InputError(
            f"{name} has shape {crops.shape} and type {crops.dtype}; expected crops of shape "
            "(n, side, side, 3) and type uint8."
        )
    if crops.shape[1] % grid or crops.shape[2] % grid:
        raise InputError(
            f"{name} has crops of {crops.shape[1]} x {crops.shape[2]} px; this network wants "
            f"multiples of {grid}: choose a larger image."
        )
    if tissue_part(crops) < TISSUE:
        raise InputError(
            f"{name} holds {tissue_part(crops):.1%} tissue, the rest is glass; choose a part with "
            "tissue, or another calibration."
        )


def tissue_part(rgb: NDArray[np.uint8]) -> float:
    """Return the part of pixels, 0 to 1, that is stained: mean optical density over 0.1."""
    density = -np.log10((rgb.astype(np.float32).mean(-1) + 1) / 256)
    return float((density > 0.1).mean())
