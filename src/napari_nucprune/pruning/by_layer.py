"""What each layer keeps under a pruning, and its shares of weights and of compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES, Branch
from .strategy import Masks


@dataclass(frozen=True)
class LayerShare:
    """One convolution.

    Attributes
    ----------
    branch, name
        Which one.
    weights, nonzero
        All of its weights, and those that are left.
    positions
        How often each weight is used, a pixel of the image.
    """

    branch: Branch
    name: str
    weights: int
    nonzero: int
    positions: float

    @property
    def kept(self) -> float:
        """Part of the weights that is left, 0 to 1."""
        return self.nonzero / self.weights

    @property
    def macs(self) -> float:
        """Multiply-adds a pixel of the image with all weights."""
        return self.weights * self.positions


def by_layer(checkpoint: Checkpoint, masks: Masks | None) -> list[LayerShare]:
    """Count each layer of both branches, in forward order.

    Parameters
    ----------
    checkpoint
        The network.
    masks
        As from `Ranking.masks`; None counts the weights as stored.
    """
    found = []
    for branch in BRANCHES:
        for layer in checkpoint.layers(branch):
            stored = checkpoint.weights[branch][f"{layer.name}.weight"]
            mask = None if masks is None else masks[branch].get(layer.name)
            left = int(np.count_nonzero(stored if mask is None else mask & (stored != 0)))
            found.append(LayerShare(branch, layer.name, layer.size, left, layer.positions))
    return found


def finest(shares: Sequence[LayerShare]) -> tuple[list[str], float, float]:
    """Return the layers at the image's own resolution, and their parts of weights and compute."""
    own = [share for share in shares if share.positions == 1]
    weights = sum(share.weights for share in own) / sum(share.weights for share in shares)
    macs = sum(share.macs for share in own) / sum(share.macs for share in shares)
    return list(dict.fromkeys(share.name for share in own)), weights, macs
