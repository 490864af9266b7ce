"""Points of a sweep: their losses, their means over images, the largest ratio within a loss."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from .metrics import mean_rows

Pruned = Literal["both", "semantic", "distance"]
#: What a figure and the largest ratio look at, by what was asked about.
CLAIMS: dict[str, tuple[str, ...]] = {
    "semantic": ("semantic_dice",),
    "distance": ("distance_r2",),
    "instances": ("aji", "pq"),
}


@dataclass(frozen=True)
class SweepPoint:
    """The scores of one pruning.

    Attributes
    ----------
    strategy
        Its name.
    cr
        As asked for, of the branches that are pruned.
    pruned
        Which branches are; the others run as they are stored.
    scores, start
        By the keys of `Scores.as_dict`: at this ratio, and with nothing pruned.
    """

    strategy: str
    cr: float
    pruned: Pruned
    scores: Mapping[str, float | None]
    start: Mapping[str, float | None]

    def loss(self, metric: str) -> float | None:
        """Return 1 - m(CR) / m(1); None where m(1) is missing or not above 0."""
        now, start = self.scores[metric], self.start[metric]
        return None if now is None or start is None or start <= 0 else 1 - now / start

    def row(self) -> dict[str, str | float | None]:
        """Return plain values for a table: what was pruned, the scores and the losses."""
        metrics = [metric for own in CLAIMS.values() for metric in own]
        return {
            "strategy": self.strategy,
            "cr": self.cr,
            "pruned": self.pruned,
            **self.scores,
            **{f"loss_{metric}": self.loss(metric) for metric in metrics},
        }

    def within(self, metrics: Iterable[str], loss: float) -> bool:
        """Whether no metric lost more than ``loss``; False where a loss cannot be said."""
        losses = [self.loss(metric) for metric in metrics]
        # Rounding must not fail the point that nothing was pruned for.
        return all(own is not None and own <= loss + 1e-12 for own in losses)


def largest_cr_within(
    points: Iterable[SweepPoint],
    metrics: Iterable[str],
    loss: float = 0.02,
    at: Callable[[float], SweepPoint] | None = None,
    steps: int = 5,
) -> float | None:
    """Return the largest compression ratio within a loss.

    Parameters
    ----------
    points
        Of one strategy and one ``pruned``, in any order; ratios that come twice count once.
    metrics
        All of them must be within, e.g. ``CLAIMS["instances"]``.
    loss
        Largest relative loss.
    at
        Runs one more ratio; without it only the stops are looked at.
    steps
        Bisections between the last stop that passes and the first that fails, in the logarithm
        of the ratio: 5 find it to 2 % where the next stop is twice as large.

    Returns
    -------
    float or None
        The largest stop whose lower stops all pass (curves are not monotone, and a ratio that
        passes behind one that fails was luck), or the largest ratio that passed between it and
        the next stop. None where not even the first point passes.
    """
    metrics = tuple(metrics)
    ordered = sorted({point.cr: point for point in points}.values(), key=lambda p: p.cr)
    low: float | None = None
    for point in ordered:
        if not point.within(metrics, loss):
            break
        low = point.cr
    else:
        return low
    if low is None or at is None:
        return low
    high = point.cr
    for _ in range(steps):
        middle = math.sqrt(low * high)
        if at(middle).within(metrics, loss):
            low = middle
        else:
            high = middle
    return low


def mean_points(images: Sequence[Sequence[SweepPoint]]) -> list[SweepPoint]:
    """Return the points of several images as one: scores are means over images.

    Parameters
    ----------
    images
        The points of each image; those that not all images have are left out.
    """
    found: dict[tuple[str, float, Pruned], list[SweepPoint]] = {}
    for point in chain.from_iterable(images):
        found.setdefault((point.strategy, point.cr, point.pruned), []).append(point)

    return [
        SweepPoint(*key, mean_rows([p.scores for p in own]), mean_rows([p.start for p in own]))
        for key, own in found.items()
        if len(own) == len(images)
    ]


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys, as from `SweepPoint.row`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
