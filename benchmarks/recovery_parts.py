"""What each part of a recovery costs: a section of ``benchmarks/recovery.py``."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.pruning import recovery
from napari_nucprune.pruning.recipe import RESELECT
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Ranking

#: What is done once for an image, and for every CR: functions (file, name).
ONCE = {
    "what an error at a place does to the output": [("sensitivity", "sensitivities")],
    "the dense network's responses": [("responses", "watch")],
}
EACH = {
    "the pruned network's own inputs": [("~", "conv2d"), ("~", "conv_transpose2d")],
    "taking the patches at the places": [("responses", "features")],
    "Gram matrices and products with the responses": [("refit", "moments")],
    "which weights stay": [("selection", "select")],
    "solving the rows, ReLU step included": [("layer_fit", "on")],
    "the check that no error grew": [("layer_fit", "error")],
}


def parts(
    checkpoint: Checkpoint, crops: np.ndarray, at: Sequence[tuple[str, float]], again: int = 5
) -> tuple[str, list[str], list[list[str]]]:
    """Return what is said of the table, its head, and its rows: prunings are columns."""
    ranking = Ranking(checkpoint)
    times: dict[str, list[list[float]]] = {}

    def add(column: int, name: str, seconds: float) -> None:
        times.setdefault(name, [[] for _ in at])[column].append(seconds)

    def once() -> Calibration:
        return Calibration(checkpoint, crops, "", RESELECT)

    for column, (strategy, cr) in enumerate(at):
        pruning = Pruning(strategy, cr, cr)
        masks = ranking.masks(pruning)
        at_once, recovery._each = (
            recovery._each,
            lambda work, branches=BRANCHES: {b: work(b) for b in branches},
        )
        try:
            for _ in range(again):
                calibration, total = profiled(once, ONCE, partial(add, column))
                add(column, "**the crops, branch after branch**", total)
                work = partial(calibration.recover, pruning, masks)
                total = profiled(work, EACH, partial(add, column))[1]
                add(column, "**a refit, branch after branch**", total)
        finally:
            recovery._each = at_once
        for _ in range(again):
            begun = time.perf_counter()
            calibration = once()
            made = time.perf_counter()
            calibration.recover(pruning, masks)
            add(column, "**the crops, both branches at once**", made - begun)
            add(column, "**a refit, both branches at once**", time.perf_counter() - made)
    rows = [
        [name, *(f"{np.median(v):.2f} ({min(v):.2f}-{max(v):.2f})" for v in values)]
        for name, values in times.items()
    ]
    about = (
        f"Seconds on {torch.get_num_threads()} threads, 16 crops of 128 px, median of {again} "
        "(least-most). The crops' part is done once for an image, a refit for each CR. The parts "
        "are profiled branch after branch, so that they add up. Asked for were 4 s for the first "
        "ratio of an image and 1.5 s for a further one."
    )
    head = ["part", *(f"{s} CR {cr}" for s, cr in at)]
    return about, head, rows


def profiled(
    work: Callable[[], Any],
    which: dict[str, list[tuple[str, str]]],
    report: Callable[[str, float], None],
) -> tuple[Any, float]:
    """Do a work and report the seconds of its parts; what it gave, and its seconds."""
    profile = cProfile.Profile()
    begun = time.perf_counter()
    result = profile.runcall(work)
    total = time.perf_counter() - begun
    rest = total
    entries = pstats.Stats(profile).stats.items()
    for part, functions in which.items():
        seconds = sum(
            spent
            for (path, _, name), (_, _, _, spent, _) in entries
            for file, function in functions
            if Path(path).stem == file and re.search(rf"\b{function}\b", name)
        )
        rest -= seconds
        report(part, seconds)
    report("the rest" if which is EACH else "the rest of it", rest)
    return result, total
