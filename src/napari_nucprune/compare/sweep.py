"""Scores over compression ratios on one field, and the largest ratio within a loss."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..doors import (
    BRANCHES,
    Branch,
    Field,
    Maps,
    Merge,
    Progress,
    Pruning,
    Scores,
    ShouldStop,
    never,
    no_progress,
)
from ..errors import Cancelled, InputError
from ..nuclei.watershed import merge
from ..pruning.strategy import Masks, Ranking, as_stored
from ..runtime.base import Runtime
from .metrics import RADIUS_UM, mean_rows, score

Pruned = Literal["both", "semantic", "distance"]
#: What a figure and the largest ratio look at, by what was asked about.
CLAIMS: dict[str, tuple[str, ...]] = {
    "semantic": ("semantic_dice",),
    "distance": ("distance_r2",),
    "instances": ("aji", "pq"),
}
STOPS = (1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 16.0, 20.0, 32.0, 64.0)


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


def sweep(
    runtime: Runtime,
    checkpoint: Checkpoint,
    field: Field,
    scored: Callable[[Maps], Scores],
    strategies: Sequence[str] = ("layer-wise", "network-wide"),
    stops: Sequence[float] = STOPS,
    *,
    keep: tuple[str, ...] | None = None,
    alone: bool = True,
    ranking: Ranking | None = None,
    network: Callable[[Pruning, Masks], Checkpoint] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> Iterator[SweepPoint]:
    """Run a field at every stop, and yield each point as soon as it is scored.

    Parameters
    ----------
    runtime
        Used by this generator alone until it is exhausted or closed; left with the last network.
    checkpoint, field
        The network, and what to run it on.
    scored
        Merges the field's maps and scores them against the reference, e.g. `against`.
    strategies, stops
        Names and ratios. A strategy with a ratio of its own (2:4) has that one only.
    keep
        Layers left dense; see `Pruning`.
    alone
        Also each branch pruned by itself: composed from maps that are there, never run again.
    ranking
        Of the checkpoint and ``keep``, where there is one already.
    network
        Returns the recovered network of a pruning; without it the weights are only masked.
    notice
        Told why a stop is left out: out of reach, or its recovery was refused.

    Yields
    ------
    SweepPoint
        By strategy, first with nothing pruned (as stored) and then with growing ratios; at each
        first both branches.

    Raises
    ------
    InputError
        Where a strategy is unknown or a ratio is below 1.
    Cancelled
        Within one tile after ``should_stop`` says so.
    """
    ranking = ranking or Ranking(checkpoint, keep)
    prunings = {s: _prunings(ranking, s, stops, keep) for s in strategies}
    total, done = 1 + sum(map(len, prunings.values())), 0

    def ran(text: str) -> Maps:
        nonlocal done
        if should_stop():
            raise Cancelled("Cancelled.")
        progress(text, done, total)
        done += 1
        return runtime.run(field, should_stop=should_stop)

    runtime.load(checkpoint)
    plain = ran("Running with nothing pruned")
    start = scored(plain).as_dict()
    for strategy, asked in prunings.items():
        own = max(checkpoint.own_cr.values())
        yield SweepPoint(strategy, own, "both", start, start)
        for pruning in asked:
            cr = max(pruning.cr(branch) for branch in BRANCHES)
            try:
                masks = ranking.masks(pruning)
                recovered = network(pruning, masks) if network else None
            except InputError as error:
                total -= 1
                if notice is not None:
                    notice(f"{pruning.label} is left out: {error}")
                continue
            runtime.load(recovered or checkpoint, None if recovered else masks)
            maps = ran(f"Running {pruning.label}")
            sides: tuple[Pruned, ...] = ("both", *BRANCHES) if alone else ("both",)
            for side in sides:
                if should_stop():
                    raise Cancelled("Cancelled.")
                scores = scored(_composed(maps, plain, side)).as_dict()
                yield SweepPoint(strategy, cr, side, scores, start)
    progress("Swept", total, total)


def against(
    reference: NDArray[np.integer],
    parameters: Merge,
    distance: NDArray[np.floating] | None = None,
    crop: Callable[[Maps], Maps] | None = None,
) -> Callable[[Maps], Scores]:
    """Return what scores maps at the network's um/px against a reference.

    Parameters
    ----------
    reference
        (H, W) integer labels at the network's um/px.
    parameters
        Of the watershed.
    distance
        (H, W) floating, the reference's distance map in the checkpoint's unit; see
        `nuclei.distance.distance_target`, or the dense network's own map.
    crop
        Cuts the field's halo off, as `Taken.crop` does.
    """

    def scored(maps: Maps) -> Scores:
        maps = maps if crop is None else crop(maps)
        return score(
            merge(maps, parameters).labels,
            reference,
            semantic=maps.semantic,
            threshold=parameters.threshold,
            distance=None if distance is None else (maps.distance, distance),
            radius=RADIUS_UM / maps.mpp,
        )

    return scored


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


def _prunings(
    ranking: Ranking, strategy: str, stops: Iterable[float], keep: tuple[str, ...] | None
) -> list[Pruning]:
    """Return the prunings of a strategy that take more than what is stored."""
    stored = as_stored(ranking.checkpoint, None)
    fixed: dict[Branch, float] | None = ranking.fixed_crs(strategy)
    ratios = [(cr, cr) for cr in sorted(set(stops))]
    if fixed is not None:
        ratios = [(fixed["semantic"], fixed["distance"])]
    found = [Pruning(strategy, semantic, distance, keep) for semantic, distance in ratios]
    return [p for p in found if any(p.cr(branch) > stored.cr(branch) for branch in BRANCHES)]


def _composed(maps: Maps, plain: Maps, side: Pruned) -> Maps:
    """Return the pruned branch's map beside the other one's as it is stored."""
    if side == "semantic":
        return Maps(maps.semantic, plain.distance, maps.mpp)
    if side == "distance":
        return Maps(plain.semantic, maps.distance, maps.mpp)
    return maps


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
