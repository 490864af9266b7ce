"""What strategies beyond the paper rank or count: LAMP scores, ERK densities, N of every M."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import Layer

Scores = NDArray[np.float64]


def lamp(magnitudes: Sequence[NDArray[np.float32]]) -> list[Scores]:
    """Return LAMP scores, layer by layer.

    Parameters
    ----------
    magnitudes
        Of each layer (n,) float32.

    Returns
    -------
    list of NDArray
        (n,) float64 in [0, 1] each: w_u^2 / sum of w_v^2 over the weights v of the layer that are
        no smaller than u; 0 where w_u is 0. A layer's largest weight has 1.

    Notes
    -----
    Lee, Park, Mo, Ahn & Shin 2021, "Layer-adaptive sparsity for the magnitude-based pruning",
    ICLR, eq. 4. Equal weights are ordered as everywhere here: the lower index counts as larger.
    """
    found = []
    for layer in magnitudes:
        order = ascending(layer)
        squares = np.square(layer[order], dtype=np.float64)
        rest = np.cumsum(squares[::-1])[::-1]
        scores = np.zeros(len(layer))
        scores[order] = np.divide(squares, rest, out=np.zeros_like(rest), where=squares > 0)
        found.append(scores)
    return found


def erk(layers: Sequence[Layer], budget: float) -> list[float]:
    """Return the densities of the Erdos-Renyi kernel.

    Parameters
    ----------
    layers
        Those that are pruned.
    budget
        Weights that they keep together.

    Returns
    -------
    list of float
        In (0, 1] each: e (inputs + outputs + height + width) / (inputs outputs height width), with
        the e that spends the budget; layers that would exceed 1 stay dense.

    Notes
    -----
    Evci, Gale, Menick, Castro & Elsen 2020, "Rigging the lottery", ICML, section 3 (1), after
    Mocanu et al. 2018. There it sets the layers of a random sparse start; here the smallest
    magnitudes of each layer go.
    """
    raw = np.array([sum(layer.shape) / layer.size for layer in layers])
    sizes = np.array([layer.size for layer in layers], float)
    dense = np.zeros(len(layers), bool)
    densities = np.ones(len(layers))
    while not dense.all():
        scale = (budget - sizes[dense].sum()) / (raw * sizes)[~dense].sum()
        densities[~dense] = scale * raw[~dense]
        over = ~dense & (densities > 1)
        densities[over] = 1.0
        if not over.any():
            break
        # What they cannot take goes to the others, of which more may exceed 1 then.
        dense |= over
    return [float(density) for density in densities]


def n_of_m(magnitudes: NDArray[np.float32], layer: Layer, n: int, m: int) -> NDArray[np.bool_]:
    """Return a mask (flat) that keeps the n largest of every m weights along the inputs.

    Parameters
    ----------
    magnitudes
        Of the layer, flat, in the weight's order.
    layer
        Its inputs must be a multiple of m; see `grouped`.
    n, m
        Of a group of m neighbouring input channels, at one output and one place of the kernel, n
        stay. Among equal ones the lower channel stays.

    Notes
    -----
    Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378 (2:4), and
    Zhou et al. 2021, "Learning N:M fine-grained structured sparse neural networks", ICLR.
    """
    axis = inputs_axis(layer)
    last = np.moveaxis(magnitudes.reshape(layer.shape), axis, -1)
    groups = np.ascontiguousarray(last).reshape(-1, m)
    # A weight's rank in its group, counted: m (m - 1) / 2 comparisons of whole columns are some
    # ten times faster than sorting a million groups of four.
    rank = np.zeros(groups.shape, np.int8)
    for i in range(m):
        for j in range(i + 1, m):
            smaller = groups[:, i] < groups[:, j]
            rank[:, i] += smaller
            rank[:, j] += ~smaller
    keep = (rank < n).reshape(last.shape)
    return np.ascontiguousarray(np.moveaxis(keep, -1, axis)).ravel()


def grouped(layer: Layer, m: int) -> bool:
    """Whether a layer's inputs fall into groups of m; others (the RGB input's) stay dense."""
    return layer.shape[inputs_axis(layer)] % m == 0


def inputs_axis(layer: Layer) -> int:
    """Return the axis of the input channels: 0 in a transposed convolution, else 1."""
    return 0 if layer.name.startswith("up.") else 1


def ascending(magnitudes: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the order from the lowest magnitude on; among equal ones higher indices come first.

    Bits of floats that are not negative sort like the floats. With the index behind them one
    sort of whole numbers is enough, five times faster than a stable argsort.
    """
    n = len(magnitudes)
    bits = np.ascontiguousarray(magnitudes, np.float32).view(np.uint32).astype(np.uint64)
    keys = np.sort(bits << np.uint64(32) | np.arange(n - 1, -1, -1, dtype=np.uint64))
    return n - 1 - (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)
