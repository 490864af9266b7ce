"""Scores of found nuclei against a reference, from sums that images can share.

`counts` reduces two label maps to a few sums, `Counts.scores` turns sums into scores. So the
scores of one image are ``counts(...).scores()``, the mean per image (hover_net, CellViT, Mahbod)
is `mean_scores` of these, and the pooled ones (torchmetrics) are `pooled` of the counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import Scores
from ..errors import InputError


@dataclass(frozen=True)
class Counts:
    """Sums from which scores follow; ``a + b`` pools two images, ``Counts()`` is the zero.

    Attributes
    ----------
    tp, fp, fn
        Matched pairs (IoU > 0.5), found nuclei and reference nuclei without a match.
    sum_iou
        Sum of the matched pairs' IoU.
    aji_intersection, aji_union
        AJI's two sums, in pixels.
    intersection, found_area, truth_area
        Pixels of ``labels > 0``: on both sides, on either.
    semantic_intersection, semantic_area, semantic_truth_area
        The same of the thresholded semantic map, over images that had one.
    images, semantic_images
        Images summed, and how many of them had a semantic map.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    sum_iou: float = 0.0
    aji_intersection: int = 0
    aji_union: int = 0
    intersection: int = 0
    found_area: int = 0
    truth_area: int = 0
    semantic_intersection: int = 0
    semantic_area: int = 0
    semantic_truth_area: int = 0
    images: int = 0
    semantic_images: int = 0

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __radd__(self, other: int) -> Counts:
        # `sum` starts with 0.
        return self if other == 0 else NotImplemented

    def scores(self) -> Scores:
        """Return the scores of the summed images.

        Returns
        -------
        Scores
            All in [0, 1]; both sides empty gives 1, one side empty 0. ``semantic_dice`` is None
            unless every image had a semantic map. See `score` for the definitions.
        """
        pairs = 2 * self.tp + self.fp + self.fn
        dq = _ratio(2 * self.tp, pairs)
        sq = _ratio(self.sum_iou, self.tp) if self.tp or not pairs else 0.0
        semantic_dice = None
        if self.semantic_images and self.semantic_images == self.images:
            semantic_dice = _ratio(
                2 * self.semantic_intersection, self.semantic_area + self.semantic_truth_area
            )
        both = self.found_area + self.truth_area
        return Scores(
            dice=_ratio(2 * self.intersection, both),
            iou=_ratio(self.intersection, both - self.intersection),
            aji=_ratio(self.aji_intersection, self.aji_union),
            dq=dq,
            sq=sq,
            pq=dq * sq,
            truth=self.tp + self.fn,
            found=self.tp + self.fp,
            semantic_dice=semantic_dice,
        )


def score(
    found: NDArray[Any],
    truth: NDArray[Any],
    *,
    semantic: NDArray[np.floating] | None = None,
    threshold: float = 0.5,
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

    Returns
    -------
    Scores
        ``aji_plus``, ``f1``, ``distance_mse`` and ``distance_r`` are None.

    Raises
    ------
    InputError
        Where the shapes differ, a map is not integer, an id is negative, or `semantic` holds NaN.

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

    PQ (Kirillov et al. 2019, CVPR): a pair matches where IoU > 0.5, strictly, which makes matches
    unique. DQ = TP / (TP + FP / 2 + FN / 2), SQ = mean IoU of the matches, PQ = DQ * SQ. SQ is 0
    without matches. (hover_net adds 1e-6 to SQ's divisor; this and torchmetrics do not.)

    Both sides empty is 1 in every score, one side empty is 0.
    """
    return counts(found, truth, semantic=semantic, threshold=threshold).scores()


def counts(
    found: NDArray[Any],
    truth: NDArray[Any],
    *,
    semantic: NDArray[np.floating] | None = None,
    threshold: float = 0.5,
) -> Counts:
    """Return one image's sums; parameters, errors and definitions are those of `score`."""
    found, truth = np.asarray(found), np.asarray(truth)
    if found.ndim != 2 or found.shape != truth.shape:
        raise InputError(
            f"The found labels have shape {found.shape} and the reference {truth.shape}; "
            "expected two label maps of the same (height, width)."
        )
    _check(found, "found labels")
    _check(truth, "reference labels")
    # Horizontal runs that are constant on both sides, some 20 times fewer than pixels.
    begins = np.ones(found.shape, dtype=bool)
    begins[:, 1:] = (found[:, 1:] != found[:, :-1]) | (truth[:, 1:] != truth[:, :-1])
    starts = np.flatnonzero(begins)
    length = np.diff(starts, append=found.size)
    f_of, f_area = _compact(found.ravel()[starts], length)
    t_of, t_area = _compact(truth.ravel()[starts], length)

    t, f, shared = _overlaps(t_of, f_of, length, len(f_area))
    union = t_area[t] + f_area[f] - shared
    # Integers, so that an IoU of exactly a half is no match.
    matched = 2 * shared > union
    tp = int(np.count_nonzero(matched))

    order = np.lexsort((f, -(shared / (union + 1e-6)), t))
    paired, first = np.unique(t[order], return_index=True)
    best = order[first]
    # Position 0 is background and counts as paired: its area is never added.
    t_alone, f_alone = np.ones(len(t_area), bool), np.ones(len(f_area), bool)
    t_alone[0] = f_alone[0] = False
    t_alone[paired] = False
    f_alone[f[best]] = False

    semantic_sums = (0, 0, 0)
    if semantic is not None:
        semantic_sums = _semantic_sums(np.asarray(semantic), truth > 0, threshold)
    return Counts(
        tp=tp,
        fp=len(f_area) - 1 - tp,
        fn=len(t_area) - 1 - tp,
        sum_iou=float((shared[matched] / union[matched]).sum()),
        aji_intersection=int(shared[best].sum()),
        aji_union=int(union[best].sum() + t_area[t_alone].sum() + f_area[f_alone].sum()),
        intersection=int(shared.sum()),
        found_area=int(f_area[1:].sum()),
        truth_area=int(t_area[1:].sum()),
        semantic_intersection=semantic_sums[0],
        semantic_area=semantic_sums[1],
        semantic_truth_area=semantic_sums[2],
        images=1,
        semantic_images=int(semantic is not None),
    )


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
    rows = [s.as_dict() for s in scores]
    means: dict[str, float | None] = {}
    for key in Counts().scores().as_dict():
        known = [value for row in rows if (value := row[key]) is not None]
        means[key] = float(np.mean(known)) if known else None
    return means


def _ratio(part: float, whole: float) -> float:
    """Return part / whole, and 1 where there is nothing on either side."""
    return part / whole if whole else 1.0


def _check(labels: NDArray[Any], name: str) -> None:
    """Raise `InputError` where `labels` are no label map."""
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"The {name} have type {labels.dtype}; expected integers.")
    least = int(labels.min(initial=0))
    if least < 0:
        raise InputError(f"The {name} go down to {least}; expected ids of at least 0.")


def _compact(
    ids: NDArray[Any], length: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each run's position and the positions' areas (n + 1,) in pixels, both int64.

    Position 0 is background, and there even if the image has none; 1..n follow the ids.
    """
    unique, inverse = np.unique(ids, return_inverse=True)
    # Sums of pixels as float64 are exact up to 2**53.
    positions = inverse.astype(np.int64) + (0 if unique.size and unique[0] == 0 else 1)
    return positions, np.bincount(positions, length, minlength=1).astype(np.int64)


def _overlaps(
    t_of: NDArray[np.int64], f_of: NDArray[np.int64], length: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the contingency table's nonzero cells off the background: truth, found, pixels."""
    both = (t_of > 0) & (f_of > 0)
    cells, inverse = np.unique(t_of[both] * width + f_of[both], return_inverse=True)
    t, f = np.divmod(cells, width)
    return t, f, np.bincount(inverse, length[both], len(cells)).astype(np.int64)


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
