"""Scores over compression ratios on one field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

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
from .metrics import RADIUS_UM, score
from .sweep_points import Pruned, SweepPoint

STOPS = (1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 16.0, 20.0, 32.0, 64.0)


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
