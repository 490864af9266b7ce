"""Time of scores and fates on 1000x1000 with 700 nuclei, beside cellseg-metrics' if installed.

python benchmarks/metrics.py [--size 1000] [--nuclei 700] [--repeats 11]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from napari_nucprune.compare.fate import fates
from napari_nucprune.compare.metrics import counts
from napari_nucprune.nuclei.distance import distance_target


def field(size: int, nuclei: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return touching round nuclei (H, W) int32, and what a network might find of them."""
    rng = np.random.default_rng(seed)
    truth, found = np.zeros((2, size, size), np.int32)
    y, x = np.mgrid[-14:15, -14:15]
    for i in range(1, nuclei + 1):
        cy, cx = rng.integers(14, size - 15, 2)
        radius = rng.uniform(6, 12)
        box = truth[cy - 14 : cy + 15, cx - 14 : cx + 15]
        box[(y * y + x * x <= radius**2) & (box == 0)] = i
        if rng.random() < 0.9:
            cy, cx = np.clip(np.array([cy, cx]) + rng.integers(-2, 3, 2), 14, size - 15)
            box = found[cy - 14 : cy + 15, cx - 14 : cx + 15]
            box[y * y + x * x <= (radius * rng.uniform(0.8, 1.2)) ** 2] = i
    return found, truth


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return round(1e3 * float(np.median(times)), 2)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--nuclei", type=int, default=700)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    found, truth = field(options.size, options.nuclei)
    maps = [distance_target(labels, 0.25, 4.0) for labels in (found, truth)]
    semantic = (found > 0).astype(np.float32)
    repeats = options.repeats
    result: dict[str, object] = {
        "field": list(truth.shape),
        "nuclei": [len(np.unique(labels)) - 1 for labels in (truth, found)],
        "Dice, AJI, AJI+, PQ, F1, ms": milliseconds(lambda: counts(found, truth), repeats),
        "and semantic Dice, distance MSE, r, R2, ms": milliseconds(
            lambda: counts(found, truth, semantic=semantic, distance=(maps[0], maps[1])), repeats
        ),
        "the fate of every nucleus, ms": milliseconds(lambda: fates(truth, found, 0.25), repeats),
        "the reference's distance map, ms": milliseconds(
            lambda: distance_target(truth, 0.25, 4.0), repeats
        ),
    }
    try:
        from cellseg_metrics import functional as rival
    except ImportError:
        rival = None
    if rival is not None:
        both = [
            milliseconds(lambda call=call: call(truth, found), 1)
            for call in (rival.panoptic_quality, rival.aggregated_jaccard_index)
        ]
        result["cellseg-metrics, PQ and AJI, ms"] = sum(both)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
