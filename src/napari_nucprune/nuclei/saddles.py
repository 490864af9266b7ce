"""Joins basins of the watershed that no valley parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def join(
    labels: NDArray[np.int32],
    landscape: NDArray[np.float32],
    peaks: NDArray[np.float32],
    ratio: float,
) -> NDArray[np.int32]:
    """Join neighbouring basins whose saddle is nearly as high as the lower of their peaks.

    Parameters
    ----------
    labels
        (H, W) int32, 0 or the basin's number 1..n.
    landscape
        (H, W) float32, what was flooded.
    peaks
        (n,) float32, the landscape at each basin's marker.
    ratio
        Basins are joined where saddle >= ratio * lower peak, or that peak is not above 0; 1 joins
        none.

    Returns
    -------
    NDArray[np.int32]
        (H, W): each joined basin has the lowest of its numbers.

    Notes
    -----
    The saddle of two basins is the highest of the lower ends of all 4-neighbour pairs across their
    border. Saddles are taken from high to low (equal ones by the basins' numbers), and a joined
    basin has the higher of the two peaks: the dynamics of a maximum (Grimaud 1992), but relative
    to its height. A distance map's peak is the nucleus' inner radius, so that the ratio says how
    deep the waist between two nuclei has to be whatever their size, which no Gaussian of fixed
    width does.
    """
    if ratio >= 1 or len(peaks) < 2:
        return labels
    first, second, saddle = _saddles(labels, landscape)
    top = np.concatenate([[0], peaks]).tolist()
    parent = list(range(len(top)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b, height in zip(first.tolist(), second.tolist(), saddle.tolist(), strict=True):
        a, b = sorted((root(a), root(b)))
        lower = min(top[a], top[b])
        if a != b and (height >= ratio * lower or lower <= 0):
            parent[b] = a
            top[a] = max(top[a], top[b])
    roots = np.array([root(i) for i in range(len(top))], np.int32)
    return roots[labels]


def _saddles(
    labels: NDArray[np.int32], landscape: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of touching basins, lower number first, and their saddles, highest first."""
    flat, height = labels.ravel(), landscape.ravel()
    pairs, lows = [], []
    for step, own in ((1, labels[:, :-1] != labels[:, 1:]), (labels.shape[1], None)):
        differ = labels[:-1] != labels[1:] if own is None else own
        y, x = np.nonzero(differ)
        at = y * labels.shape[1] + x
        a, b = flat[at], flat[at + step]
        both = (a > 0) & (b > 0)
        at, a, b = at[both], a[both].astype(np.int64), b[both].astype(np.int64)
        pairs.append(np.minimum(a, b) << 32 | np.maximum(a, b))
        lows.append(np.minimum(height[at], height[at + step]))
    pair, low = np.concatenate(pairs), np.concatenate(lows)
    # By pair, the highest first; then the pairs by their highest.
    order = np.lexsort((-low, pair))
    pair, low = pair[order], low[order]
    heads = np.flatnonzero(np.diff(pair, prepend=-1))
    pair, low = pair[heads], low[heads]
    order = np.lexsort((pair, -low))
    pair, low = pair[order], low[order]
    return pair >> 32, pair & 0xFFFFFFFF, low
