"""What a pruned network costs: weights, multiply-adds, bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..checkpoint.format import Checkpoint, contents, saved_bytes
from ..checkpoint.packed import Packing, coded_bytes
from ..doors import BRANCHES, Branch, Pruning
from .strategy import Masks


@dataclass(frozen=True)
class Cost:
    """Counts over nonzero weights; biases never count.

    Attributes
    ----------
    total, kept
        Convolution weights, and the nonzero ones among them.
    dense_macs, macs
        Multiply-adds a pixel of the image, of all and of the nonzero weights.
    file_bytes
        Size of the plain checkpoint file that Save would write now.
    """

    total: int
    kept: int
    dense_macs: float
    macs: float
    file_bytes: int

    @property
    def cr(self) -> float:
        """All weights / nonzero weights."""
        return self.total / self.kept if self.kept else float("inf")

    @property
    def sparsity(self) -> float:
        """Part of the weights that is zero, 0 to 1."""
        return 1 - self.kept / self.total

    @property
    def compute_ratio(self) -> float:
        """Dense multiply-adds / multiply-adds of nonzero weights."""
        return self.dense_macs / self.macs if self.macs else float("inf")


@dataclass(frozen=True)
class PackedSize:
    """Bytes of a checkpoint, packed and dense.

    Attributes
    ----------
    weights
        Of all convolution weights as dense float32; biases never count.
    coded
        Of their packed values and positions.
    file, dense_file
        Of the whole files, packed and plain.
    """

    weights: int
    coded: int
    file: int
    dense_file: int

    @property
    def ratio(self) -> float:
        """Dense weights / values and positions."""
        return self.weights / self.coded

    @property
    def file_ratio(self) -> float:
        """Plain file / packed file."""
        return self.dense_file / self.file


def packed_size(checkpoint: Checkpoint, packing: Packing = "lossless") -> PackedSize:
    """Pack a checkpoint as Save would and count its bytes (some 50 ms for the bundled one).

    Raises
    ------
    InputError
        Where its weights cannot be packed so.
    """
    from safetensors.numpy import save

    tensors, metadata = contents(checkpoint, packing)
    weights = sum(layer.size for branch in BRANCHES for layer in checkpoint.layers(branch))
    file = len(save(tensors, metadata))
    return PackedSize(4 * weights, coded_bytes(tensors), file, saved_bytes(checkpoint))


def cost(checkpoint: Checkpoint, pruning: Pruning, masks: Masks | None) -> Cost:
    """Count a pruned checkpoint, both branches together.

    Parameters
    ----------
    checkpoint
        The network that was pruned.
    pruning, masks
        As from `Ranking.masks`; None counts the weights as stored.

    Returns
    -------
    Cost
        Of both branches, as sum / sum.
    """
    total = kept = 0
    dense_macs = 0.0
    for branch in BRANCHES:
        for layer in checkpoint.layers(branch):
            nonzero = _nonzero(checkpoint, branch, layer.name, masks)
            total += layer.size
            kept += nonzero
            dense_macs += layer.size * layer.positions
    stated = checkpoint
    if masks is not None:
        parent = checkpoint.parent_sha256 or checkpoint.sha256
        stated = replace(checkpoint, pruning=pruning.as_dict(), parent_sha256=parent)
    return Cost(total, kept, dense_macs, macs(checkpoint, masks), saved_bytes(stated))


def macs(checkpoint: Checkpoint, masks: Masks | None) -> float:
    """Return the multiply-adds a pixel of the image of all nonzero weights of both branches."""
    return sum(
        _nonzero(checkpoint, branch, layer.name, masks) * layer.positions
        for branch in BRANCHES
        for layer in checkpoint.layers(branch)
    )


def _nonzero(checkpoint: Checkpoint, branch: Branch, layer: str, masks: Masks | None) -> int:
    stored = checkpoint.weights[branch][f"{layer}.weight"]
    mask = None if masks is None else masks[branch].get(layer)
    return int(np.count_nonzero(stored if mask is None else mask & (stored != 0)))
