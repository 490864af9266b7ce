"""The fate of every nucleus: matched, changed, split, merged, lost or added."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .metrics import matches
from .outcome import FATES, Fate
from .overlap import Integers, Overlap, overlap

#: A matched nucleus has changed from so little IoU or so many um of its centroid's way on.
CHANGED_IOU = 0.75
CHANGED_UM = 1.0
MATCHED, CHANGED, SPLIT, MERGED, ADDED, LOST = range(1, len(FATES) + 1)


def fates(reference: NDArray[Any], result: NDArray[Any], mpp: float) -> Fate:
    """Say what became of every nucleus of a reference.

    Parameters
    ----------
    reference, result
        (H, W) integer, 0 is background, any other ids of at least 0.
    mpp
        um a pixel.

    Returns
    -------
    Fate
        Of all nuclei on both sides.

    Raises
    ------
    InputError
        Where the shapes differ, a map is not integer, an id is negative, or the pixel size is not
        above 0.

    Notes
    -----
    The first rule that fits. *Matched*: IoU > 0.5, as PQ matches; *changed* where also IoU < 0.75
    or the centroid moved over 1 um. An unmatched reference nucleus is *split* where at least 2
    results lie over 50 % inside it, *merged* where over 50 % of it lies inside a result that
    holds over 50 % of at least one other, else *lost*. An unmatched result is *merged* or *split*
    by the mirror of these (it holds over 50 % of at least 2 reference nuclei, or is a piece of
    one that holds over 50 % of at least one other result), else *added*. So swapping reference
    and result swaps lost with added and split with merged.
    """
    if not np.isfinite(mpp) or mpp <= 0:
        raise InputError(f"The pixel size is {mpp} um; expected a number above 0.")
    table = overlap(result, reference)
    t, f, shared = table.t, table.f, table.shared
    n, m = len(table.truth), len(table.found)
    paired = matches(table)
    moved = mpp * np.linalg.norm(table.truth.centroid[t] - table.found.centroid[f], axis=1)
    # Integers, so that an IoU of exactly three quarters has not changed.
    changed = paired & ((4 * shared < 3 * table.union) | (moved > CHANGED_UM))
    # Whether a pair's result lies over 50 % in the reference nucleus, and the other way round.
    piece, held = 2 * shared > table.found.area[f], 2 * shared > table.truth.area[t]
    pieces, holds = np.bincount(t[piece], minlength=n), np.bincount(f[held], minlength=m)

    of_t, of_f = np.full(n, LOST, np.uint8), np.full(m, ADDED, np.uint8)
    # From the last rule to the first: the first that fits is written last.
    of_t[t[held & (holds[f] > 1)]] = MERGED
    of_t[pieces > 1] = SPLIT
    of_f[f[piece & (pieces[t] > 1)]] = SPLIT
    of_f[holds > 1] = MERGED
    for chosen, code in ((paired, MATCHED), (changed, CHANGED)):
        of_t[t[chosen]] = code
        of_f[f[chosen]] = code

    cut_off = np.unique(f[piece & (of_f[f] == SPLIT) & (of_t[t] != SPLIT)])

    cell = _partner(table, of_t, paired, piece, held)
    has = cell >= 0
    iou, way = np.full(n, np.nan), np.full(n, np.nan)
    iou[has] = (shared / table.union)[cell[has]]
    way[has] = moved[cell[has]]
    return Fate(
        reference_ids=table.truth.ids,
        result_ids=table.found.ids,
        reference_fate=of_t,
        result_fate=of_f,
        reference_centroid=table.truth.centroid,
        result_centroid=table.found.centroid,
        partner=np.where(has, f[cell], -1) if len(f) else cell,
        iou=iou,
        moved_um=way,
        differences=table.draw(
            np.maximum(_runs(of_t, table.truth_run), _runs(of_f, table.found_run))
        ),
        cut_off=cut_off.astype(np.int64),
    )


def _runs(codes: NDArray[np.uint8], run: Integers) -> NDArray[np.uint8]:
    """Return a run's code, 0 on background."""
    # Position -1 is the last of the padded codes.
    return np.append(codes, np.uint8(0))[run]


def _partner(
    table: Overlap,
    of_t: NDArray[np.uint8],
    paired: NDArray[np.bool_],
    piece: NDArray[np.bool_],
    held: NDArray[np.bool_],
) -> Integers:
    """Return for each reference nucleus the index of the pair with its partner, or -1."""
    code = of_t[table.t]
    fits = paired | ((code == MERGED) & held) | ((code == SPLIT) & piece)
    # The largest overlap last, so that it is the one that stays.
    order = np.flatnonzero(fits)
    order = order[np.argsort(table.shared[order], kind="stable")]
    found = np.full(len(table.truth), -1, np.int64)
    found[table.t[order]] = order
    return found
