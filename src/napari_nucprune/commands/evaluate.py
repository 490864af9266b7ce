"""``nucprune evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    Network,
    about_run,
    open_annotated,
    open_asked,
    open_runtime,
    prepare,
    resolve,
    say,
    show_progress,
)
from .recovering import EACH, described, recipe_of

if TYPE_CHECKING:
    from ..checkpoint.format import Checkpoint
    from ..datasets.base import Annotated

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

    folder = open_annotated(options)
    checkpoint = open_asked(options)
    runtime = open_runtime(options)
    network = _prepared(options, checkpoint)
    # Of --recover each: how, once an image is recovered on.
    own: dict[str, Any] = {}
    recover = _for_each(options, network, own) if options.recover == EACH else None
    if recover is None:
        runtime.load(network.checkpoint, network.masks)

    def report(result: dict[str, Any]) -> None:
        assumed = result.pop("assumed_mpp")
        if assumed:
            say(assumption(assumed, checkpoint.mpp))
        for name, why in result["left_out"].items():
            say(f"{name} is left out: {why}")
        run = {
            **about_run(network, runtime),
            "folder": str(options.folder),
            "layout": options.layout,
            "options": options.options,
            "patients": options.patients,
            "recover": options.recover,
            "mpp_assumed": assumed,
        }
        recovery = run["recovery"] = network.recovery or own or None
        count = f"{len(result['images'])} images"
        if not result["complete"]:
            count = f"Only {len(result['images'])} of {len(folder)} images"
        how = f", recovered on {described(recovery)}" if recovery else ""
        print(f"{count} of {options.layout}, {network.pruning.label}{how}")
        print(table(result["mean"], result["pooled"]))
        if options.json:
            _write(Path(options.json), {**result, "run": run})

    result = score_folder(
        folder,
        checkpoint,
        runtime,
        options.mpp,
        show_progress,
        recover=recover,
        cut_off=report,
    )
    report(result)


def _prepared(options: argparse.Namespace, checkpoint: Checkpoint) -> Network:
    """Return the network as `prepare` does; for ``--recover each`` it is not yet recovered."""
    if options.recover == EACH:
        pruning, masks = resolve(options, checkpoint)
        if masks is not None:
            return Network(checkpoint, pruning, checkpoint, masks, None)
    return prepare(options, checkpoint)  # refuses to recover where nothing is pruned


def _for_each(
    options: argparse.Namespace, network: Network, about: dict[str, Any]
) -> Callable[[Annotated], Checkpoint]:
    """Return what recovers the network on an image's own tissue, and notes in ``about`` how."""
    from ..datasets.sweep import calibration_of

    recipe, masks = recipe_of(options), network.masks
    assert masks is not None

    def recovered(item: Annotated) -> Checkpoint:
        fitted = calibration_of(item, network.opened, recipe, options.mpp, show_progress)
        found = fitted.recover(network.pruning, masks, show_progress)
        about.update((found.pruning or {})["recovery"], crops=None, origin="each image itself")
        return found

    return recovered


def _write(target: Path, result: Mapping[str, Any]) -> None:
    from ..slides.outputs import staged, write_json

    with staged(target.parent) as scratch:
        write_json(scratch / target.name, result)


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
