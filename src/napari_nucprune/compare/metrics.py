"""Scores of found nuclei against a reference, from sums that images can share.

`counts` reduces two label maps to a few sums, `Counts.scores` turns sums into scores. So the
scores of one image are ``counts(...).scores()``, the mean per image (hover_net, CellViT, Mahbod)
is `mean_scores` of these, and the pooled ones (torchmetrics) are `pooled` of the counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import Scores
from ..errors import InputError
from .counts import Counts
from .moments import Moments, moments
from .overlap import Overlap, overlap
from .pairing import best_pairing, detected

#: Radius within which a centroid is a detection: 3 um, hover_net's 12 px at 40x (0.25 um/px).
RADIUS_UM = 3.0
RADIUS_PX = 12.0


def score(
    found: NDArray[Any],
    truth: NDArray[Any],
    *,
    semantic: NDArray[np.floating] | None = None,
    threshold: float = 0.5,
    distance: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    radius: float = RADIUS_PX,
) -> Scores:
    """Score the nuclei found in one image against the reference.

    Parameters
    ----------
    found, truth
        (H, W) integer, 0 is background, any other ids of at least 0 (gaps do not matter).
    semantic
        (H, W) floating in [0, 1], the semantic map; without it ``semantic_dice`` is None.
    threshold
        Semantic probability from which a pixel is nucleus.
    distance
        The distance map and its reference, (H, W) floating in the same unit; without them
        ``distance_mse``, ``distance_r`` and ``distance_r2`` are None.
    radius
        In pixels, for ``f1``: ``RADIUS_UM`` / (um a pixel); the default is that at 0.25.

    Returns
    -------
    Scores
        All in [0, 1], but for ``distance_mse`` (>= 0), ``distance_r`` (-1..1) and
        ``distance_r2`` (at most 1, and below 0 where the reference's mean would be nearer).

    Raises
    ------
    InputError
        Where the shapes differ, a map is not integer, an id is negative, a map holds NaN, or the
        radius is negative.

    Notes
    -----
    Dice, IoU: of the pixels with ``labels > 0``.

    AJI (Kumar et al. 2017, IEEE TMI 36(7); as ``get_fast_aji`` of vqdang/hover_net): each
    reference nucleus is paired with the found nucleus of the largest IoU with it, and the pair's
    intersection and union are added to two sums. A found nucleus may be paired several times and
    then counts each time. The area of each reference nucleus that overlaps nothing, and of each
    found nucleus never paired, is added to the union's sum. AJI is the ratio. As there, IoU is
    intersection / (union + 1e-6) and equal ones go to the lowest found id: only such ties depend
    on the numbering.

    AJI+ (Graham et al. 2019, Medical Image Analysis 58; ``get_fast_aji_plus`` of
    vqdang/hover_net): the same with the one-to-one pairing of the largest sum of IoUs. Where
    several pairings have that sum, which one is taken is not defined, there and here.

    PQ (Kirillov et al. 2019, CVPR): a pair matches where IoU > 0.5, strictly, which makes matches
    unique. DQ = TP / (TP + FP / 2 + FN / 2), SQ = mean IoU of the matches, PQ = DQ * SQ. SQ is 0
    without matches. (hover_net adds 1e-6 to SQ's divisor; this and torchmetrics do not.) DQ is
    also what stardist calls f1 at an IoU of 0.5 (there >= 0.5).

    F1 of detection (``f1``; Fd of Graham et al. 2019): centroids are paired one-to-one where they
    lie within 3 um (hover_net: 12 px at 40x), F1 = 2 pairs / (reference + found nuclei). hover_net
    takes the least sum of distances over all nuclei and then drops the far pairs; here only near
    ones can pair, as many as possible, so that a nucleus far away changes nothing.

    Distance: MSE, Pearson's r, and R2 = 1 - MSE / Var(reference) over all pixels. Where one map is
    constant (an image without nuclei) r is 1 if both are equal and else 0; so is R2 where the
    reference is (scikit-learn's ``r2_score``).

    Both sides empty is 1 in every other score, one side empty is 0.
    """
    return counts(
        found,
        truth,
        semantic=semantic,
        threshold=threshold,
        distance=distance,
        radius=radius,
    ).scores()


def counts(
    found: NDArray[Any],
    truth: NDArray[Any],
    *,
    semantic: NDArray[np.floating] | None = None,
    threshold: float = 0.5,
    distance: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    radius: float = RADIUS_PX,
) -> Counts:
    """Return one image's sums; parameters, errors and definitions are those of `score`."""
    if not np.isfinite(radius) or radius < 0:
        raise InputError(f"The radius of a detection is {radius} px; expected at least 0.")
    table = overlap(found, truth)
    areas = table.truth.area, table.found.area
    matched = matches(table)
    tp = int(np.count_nonzero(matched))
    aji = _aji(table, _largest_iou(table))
    aji_plus = _aji(table, best_pairing(table.t, table.f, _iou(table)))
    near, _ = detected(table.truth.centroid, table.found.centroid, radius)
    semantic_sums = (0, 0, 0)
    if semantic is not None:
        semantic_sums = _semantic_sums(np.asarray(semantic), np.asarray(truth) > 0, threshold)
    return Counts(
        tp=tp,
        fp=len(table.found) - tp,
        fn=len(table.truth) - tp,
        sum_iou=float((table.shared[matched] / table.union[matched]).sum()),
        aji_intersection=aji[0],
        aji_union=aji[1],
        aji_plus_intersection=aji_plus[0],
        aji_plus_union=aji_plus[1],
        detected=len(near),
        intersection=int(table.shared.sum()),
        found_area=int(areas[1].sum()),
        truth_area=int(areas[0].sum()),
        semantic_intersection=semantic_sums[0],
        semantic_area=semantic_sums[1],
        semantic_truth_area=semantic_sums[2],
        distance=Moments() if distance is None else moments(*distance),
        images=1,
        semantic_images=int(semantic is not None),
        distance_images=int(distance is not None),
    )


def matches(table: Overlap) -> NDArray[np.bool_]:
    """Return which pairs (k,) of an overlap match: IoU > 0.5, strictly; such pairs are unique."""
    # Integers, so that an IoU of exactly a half is no match.
    return 2 * table.shared > table.union


def pooled(images: Iterable[Counts]) -> Scores:
    """Return the scores of many images as if they were one (torchmetrics' way).

    Parameters
    ----------
    images
        `counts` of each image. None at all scores as empty on both sides.
    """
    return sum(images, Counts()).scores()


def mean_scores(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Return the mean over images of each score (hover_net's, CellViT's and Mahbod's way).

    Parameters
    ----------
    scores
        One for each image.

    Returns
    -------
    dict
        The keys of `Scores.as_dict`; each the mean of the values that are not None, or None
        where there are none. ``truth`` and ``found`` are means too.
    """
    return mean_rows([s.as_dict() for s in scores])


def mean_rows(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return what `mean_scores` does, of scores by the keys of `Scores.as_dict`."""
    means: dict[str, float | None] = {}
    for key in Counts().scores().as_dict():
        known = [value for row in rows if (value := row[key]) is not None]
        means[key] = float(np.mean(known)) if known else None
    return means


def _iou(table: Overlap) -> NDArray[np.float64]:
    """Return hover_net's IoU of each pair (k,)."""
    return table.shared / (table.union + 1e-6)


def _largest_iou(table: Overlap) -> NDArray[np.intp]:
    """Return the index of each overlapped reference nucleus' best pair."""
    order = np.lexsort((table.f, -_iou(table), table.t))
    _, first = np.unique(table.t[order], return_index=True)
    return order[first]


def _aji(table: Overlap, pairs: NDArray[np.intp]) -> tuple[int, int]:
    """Return the sums of intersections and of unions, the unpaired nuclei's areas among these."""
    alone = 0
    for side, paired in ((table.truth, table.t[pairs]), (table.found, table.f[pairs])):
        left = np.ones(len(side), bool)
        left[paired] = False
        alone += int(side.area[left].sum())
    return int(table.shared[pairs].sum()), int(table.union[pairs].sum()) + alone


def _semantic_sums(
    semantic: NDArray[Any], truth: NDArray[np.bool_], threshold: float
) -> tuple[int, int, int]:
    """Return pixels of both, of the thresholded semantic map and of the reference."""
    if semantic.shape != truth.shape:
        raise InputError(
            f"The semantic map has shape {semantic.shape} and the reference {truth.shape}; "
            "expected two maps of the same (height, width)."
        )
    if np.isnan(semantic).any():
        raise InputError("The semantic map holds NaN; expected probabilities in [0, 1].")
    nucleus = semantic >= threshold
    return (
        int(np.count_nonzero(nucleus & truth)),
        int(np.count_nonzero(nucleus)),
        int(np.count_nonzero(truth)),
    )
