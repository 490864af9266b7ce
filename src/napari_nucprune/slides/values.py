"""Pixel values of any usual type to the 8 bits a channel that the networks were trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: 12-bit values in 16 bits look black. A part of at least `ENOUGH` pixels that reaches no further
#: is taken to be that: stained tissue of full range is brighter somewhere.
TWELVE_BITS = 4095
ENOUGH = 4096


def to_uint8(array: NDArray[Any], name: str = "The image") -> NDArray[np.uint8]:
    """Bring colour values to 0..255, as napari shows them.

    Parameters
    ----------
    array
        (..., channels): uint8 as it is; uint16 of the whole range 0..65535; floats in 0..1.
    name
        What the message calls it.

    Returns
    -------
    NDArray
        The same shape, uint8, rounded to the nearest.

    Raises
    ------
    InputError
        Where the type is another, floats leave 0..1, or 16 bits hold no more than 12.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        brightest = int(array.max(initial=0))
        if array.size >= 3 * ENOUGH and 0 < brightest <= TWELVE_BITS:
            raise InputError(
                f"{name} has 16 bits a channel but no value above {brightest}, which is nearly "
                "black: stretch it to 0..65535, or save it with 8 bits."
            )
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = (float(f(array, initial=0)) for f in (np.min, np.max))
        # A NaN fails the comparison too.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(
                f"{name} holds {array.dtype} values from {low:.4g} to {high:.4g}; the model wants "
                "colours from 0 to 1, or 8 bits a channel: scale them."
            )
        return np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    raise InputError(
        f"{name} holds {array.dtype} values; the model wants 8 or 16 bits a channel, or floats "
        "from 0 to 1: convert the image to uint8."
    )
