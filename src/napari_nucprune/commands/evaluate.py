"""``nucprune evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from .common import about_run, open_annotated, open_asked, open_runtime, prepare, say, show_progress
from .recovering import described

#: The table's rows, in the order of the branches and then the nuclei.
NAMES = {
    "semantic_dice": "semantic Dice",
    "distance_mse": "distance MSE",
    "distance_r": "distance r",
    "distance_r2": "distance R2",
    "dice": "Dice of nuclei",
    "iou": "IoU of nuclei",
    "aji": "AJI",
    "aji_plus": "AJI+",
    "pq": "PQ",
    "dq": "DQ",
    "sq": "SQ",
    "f1": "detection F1",
    "truth": "nuclei, reference",
    "found": "nuclei, found",
}


def evaluate(options: argparse.Namespace) -> None:
    """``nucprune evaluate``."""
    from ..datasets.evaluate import assumption
    from ..datasets.evaluate import evaluate as score_folder
    from ..slides.outputs import staged, write_json

    folder = open_annotated(options)
    checkpoint = open_asked(options)
    runtime = open_runtime(options)
    network = prepare(options, checkpoint)
    runtime.load(network.checkpoint, network.masks)
    result = score_folder(folder, checkpoint, runtime, options.mpp, show_progress)
    assumed = result.pop("assumed_mpp")
    if assumed:
        say(assumption(assumed, checkpoint.mpp))
    result["run"] = {
        **about_run(network, runtime),
        "folder": str(options.folder),
        "layout": options.layout,
        "options": options.options,
        "patients": options.patients,
        "mpp_assumed": assumed,
    }
    if options.json:
        target = Path(options.json)
        with staged(target.parent) as scratch:
            write_json(scratch / target.name, result)
    how = f", recovered on {described(network.recovery)}" if network.recovery else ""
    print(f"{len(result['images'])} images of {options.layout}, {network.pruning.label}{how}")
    print(table(result["mean"], result["pooled"]))


def table(mean: Mapping[str, float | None], pooled: Mapping[str, float | None]) -> str:
    """Return the scores as lines of text.

    Parameters
    ----------
    mean, pooled
        By the keys of `Scores.as_dict`.
    """
    lines = [f"{'':18}{'mean of images':>16}{'all as one':>14}"]
    for key, name in NAMES.items():
        values = ("-" if x is None else f"{x:.4g}" for x in (mean[key], pooled[key]))
        lines.append("{:18}{:>16}{:>14}".format(name, *values))
    return "\n".join(lines)
