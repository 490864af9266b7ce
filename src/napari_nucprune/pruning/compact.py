"""A pruned branch's weights as they are kept in memory: without the zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..doors import Branch
from .magnitude import Mask
from .strategy import Masks


@dataclass(frozen=True)
class Packed:
    """A branch's recovered weights.

    Attributes
    ----------
    values
        By tensor name, float32: of a masked layer the weights that are not zero, flat and in
        their order; of all else the whole array.
    places
        By tensor name, of masked layers: the shape, and a bit a weight that says which are there
        (`numpy.packbits`).
    about
        How they were recovered.
    """

    values: Mapping[str, NDArray[np.float32]]
    places: Mapping[str, tuple[tuple[int, ...], NDArray[np.uint8]]]
    about: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all values and places."""
        places = sum(bits.nbytes for _, bits in self.places.values())
        return places + sum(array.nbytes for array in self.values.values())


def pack(checkpoint: Checkpoint, branch: Branch, masks: Masks) -> Packed:
    """Return a recovered branch; of the layers that ``masks`` name, what is not zero."""
    values, places = {}, {}
    for name, array in checkpoint.weights[branch].items():
        if mask_of(name, masks[branch]) is None:
            values[name] = np.array(array, np.float32)
        else:
            there = array != 0
            values[name] = np.array(array[there], np.float32)
            places[name] = (array.shape, np.packbits(there))
    return Packed(values, places, dict((checkpoint.pruning or {}).get("recovery", {})))


def unpack(packed: Packed) -> dict[str, NDArray[np.float32]]:
    """Return a branch's weights by tensor name."""
    weights = {}
    for name, values in packed.values.items():
        if name not in packed.places:
            weights[name] = values
            continue
        shape, bits = packed.places[name]
        flat = np.zeros(int(np.prod(shape)), np.float32)
        flat[np.unpackbits(bits, count=len(flat)).view(bool)] = values
        weights[name] = flat.reshape(shape)
    return weights


def mask_of(name: str, masks: Mapping[str, Mask]) -> Mask | None:
    """Return the mask of a tensor; None of a bias, or of a layer without one."""
    layer = name.removesuffix(".weight")
    return masks.get(layer) if layer != name else None
