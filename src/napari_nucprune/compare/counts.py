"""Sums from which scores follow, so that images can be pooled."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..doors import Scores
from .moments import Moments


@dataclass(frozen=True)
class Counts:
    """Sums from which scores follow; ``a + b`` pools two images, ``Counts()`` is the zero.

    Attributes
    ----------
    tp, fp, fn
        Matched pairs (IoU > 0.5), found nuclei and reference nuclei without a match.
    sum_iou
        Sum of the matched pairs' IoU.
    aji_intersection, aji_union, aji_plus_intersection, aji_plus_union
        AJI's and AJI+'s two sums, in pixels.
    detected
        Pairs of centroids within the radius.
    intersection, found_area, truth_area
        Pixels of ``labels > 0``: on both sides, on either.
    semantic_intersection, semantic_area, semantic_truth_area
        The same of the thresholded semantic map, over images that had one.
    distance
        Moments of the distance map against its reference, over images that had one.
    images, semantic_images, distance_images
        Images summed, and how many of them had a semantic and a distance map.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    sum_iou: float = 0.0
    aji_intersection: int = 0
    aji_union: int = 0
    aji_plus_intersection: int = 0
    aji_plus_union: int = 0
    detected: int = 0
    intersection: int = 0
    found_area: int = 0
    truth_area: int = 0
    semantic_intersection: int = 0
    semantic_area: int = 0
    semantic_truth_area: int = 0
    distance: Moments = field(default_factory=Moments)
    images: int = 0
    semantic_images: int = 0
    distance_images: int = 0

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
            ``semantic_dice`` is None unless every image had a semantic map, the distance's
            scores are None unless every image had a distance map. See
            `metrics.score`.
        """
        pairs = 2 * self.tp + self.fp + self.fn
        dq = _ratio(2 * self.tp, pairs)
        sq = _ratio(self.sum_iou, self.tp) if self.tp or not pairs else 0.0
        semantic_dice = None
        if self.semantic_images and self.semantic_images == self.images:
            semantic_dice = _ratio(
                2 * self.semantic_intersection, self.semantic_area + self.semantic_truth_area
            )
        has_distance = self.distance_images and self.distance_images == self.images
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
            aji_plus=_ratio(self.aji_plus_intersection, self.aji_plus_union),
            f1=_ratio(2 * self.detected, pairs),
            distance_mse=self.distance.mse if has_distance else None,
            distance_r=self.distance.r if has_distance else None,
            distance_r2=self.distance.r2 if has_distance else None,
        )


def _ratio(part: float, whole: float) -> float:
    """Return part / whole, and 1 where there is nothing on either side."""
    return part / whole if whole else 1.0
