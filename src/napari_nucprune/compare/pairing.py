"""One-to-one pairings of found nuclei with a reference, from sparse candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def best_pairing(
    rows: Integers, columns: Integers, weights: NDArray[np.float64], most: bool = False
) -> NDArray[np.intp]:
    """Return the pairing in which no row and no column comes twice.

    Parameters
    ----------
    rows, columns
        (k,) int64, the candidate pairs; no pair may come twice.
    weights
        (k,) float64 in [0, 1], what a pair is worth.
    most
        The greatest number of pairs, and of these pairings the greatest sum of weights; else the
        greatest sum of weights alone.

    Returns
    -------
    NDArray
        Indices of the chosen candidates.

    Notes
    -----
    The linear sum assignment problem on a sparse graph (Jonker & Volgenant 1987, Computing 38;
    `scipy.sparse.csgraph.min_weight_full_bipartite_matching`). Every row gets a column of its own
    that means "unpaired", so that a full matching always exists; a dense matrix of 50,000 nuclei
    would take 20 GB.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if not len(rows):
        return np.zeros(0, np.intp)
    _, row = np.unique(rows, return_inverse=True)
    names, column = np.unique(columns, return_inverse=True)
    n, width = int(row.max()) + 1, len(names)
    # Costs must not be 0 in a sparse graph. A pair costs 1..2; being unpaired costs 2, which no
    # pair exceeds, or more than all pairs together.
    unpaired = 2.0 * n + 2 if most else 2.0
    alone = np.arange(n)
    costs = np.concatenate([2 - weights, np.full(n, unpaired)])
    places = (np.concatenate([row, alone]), np.concatenate([column, width + alone]))
    graph = csr_array((costs, places), shape=(n, width + n))
    chosen_row, chosen_column = min_weight_full_bipartite_matching(graph)
    real = chosen_column < width
    keys = row.astype(np.int64) * width + column
    order = np.argsort(keys)
    wanted = chosen_row[real].astype(np.int64) * width + chosen_column[real]
    return np.sort(order[np.searchsorted(keys[order], wanted)])


def detected(
    truth: NDArray[np.float64], found: NDArray[np.float64], radius: float
) -> tuple[Integers, Integers]:
    """Pair centroids that lie within a radius of each other.

    Parameters
    ----------
    truth, found
        (n, 2) and (m, 2) float64, in pixels.
    radius
        In pixels; a distance of exactly this much still counts.

    Returns
    -------
    truth, found : NDArray
        Positions of the pairs: as many as can be, and of these pairings the one with the least
        sum of distances.
    """
    from scipy.spatial import KDTree

    none = np.zeros(0, np.int64)
    if not len(truth) or not len(found):
        return none, none
    near: Any = KDTree(truth).sparse_distance_matrix(KDTree(found), radius, output_type="ndarray")
    rows, columns = near["i"].astype(np.int64), near["j"].astype(np.int64)
    worth = 1 - near["v"] / radius if radius > 0 else np.ones(len(rows))
    chosen = best_pairing(rows, columns, worth, most=True)
    return rows[chosen], columns[chosen]
