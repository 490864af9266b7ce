"""How sure a loss is: a paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from .sweep_points import CLAIMS, Pruned, SweepPoint

#: What a loss is told of.
METRICS = tuple(chain.from_iterable(CLAIMS.values()))
Interval = tuple[float, float]


def loss_interval(
    start: NDArray[np.float64],
    now: NDArray[np.float64],
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Return the interval of ``1 - mean(now) / mean(start)`` over images.

    Parameters
    ----------
    start, now
        (n,) an image's score with nothing pruned, and pruned: the same images in the same order.
    level
        Part of the bootstrap's distribution that lies within, as much left out at either end.
    draws, seed
        Number of resamples of n images with replacement, and the random numbers' seed.

    Returns
    -------
    tuple or None
        None for fewer than two images, or where a resample's mean with nothing pruned is not
        above 0.

    Notes
    -----
    Percentile bootstrap (Efron & Tibshirani 1993, ch. 13); an image is drawn with both scores, so
    that how hard the images are cancels.
    """
    n = len(start)
    if n < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    before, after = drawn @ start, drawn @ now
    if before.min() <= 0:
        return None
    rest = (1 - level) / 2
    low, high = np.quantile(1 - after / before, [rest, 1 - rest])
    return float(low), float(high)


def loss_intervals(
    images: Sequence[Sequence[SweepPoint]],
) -> dict[tuple[str, float, Pruned], dict[str, float | None]]:
    """Return the bounds of every point's losses, for the rows of a table.

    Parameters
    ----------
    images
        The points of each image; for a metric those images count that have it twice.

    Returns
    -------
    dict
        By strategy, ratio and what is pruned: ``loss_<metric>_low`` and ``loss_<metric>_high``.
    """
    by_key: dict[tuple[str, float, Pruned], list[SweepPoint]] = {}
    for point in chain.from_iterable(images):
        by_key.setdefault((point.strategy, point.cr, point.pruned), []).append(point)
    found = {}
    for key, own in by_key.items():
        row: dict[str, float | None] = {}
        for metric in METRICS:
            pairs = [(p.start[metric], p.scores[metric]) for p in own]
            both = np.array([p for p in pairs if None not in p], np.float64).reshape(-1, 2)
            interval = loss_interval(both[:, 0], both[:, 1])
            row[f"loss_{metric}_low"], row[f"loss_{metric}_high"] = interval or (None, None)
        found[key] = row
    return found
