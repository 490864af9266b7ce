"""``nucprune evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import about_run, open_asked, open_runtime, prepare, say, show_progress
from .recovering import described


def evaluate(options: argparse.Namespace) -> None:
    """``nucprune evaluate``."""
    from ..datasets.evaluate import evaluate as score_folder
    from ..datasets.registry import open_folder
    from ..slides.outputs import staged, write_json

    given = {"mpp": options.mpp} if options.layout == "pairs" and options.mpp else {}
    folder = open_folder(options.folder, options.layout, **given)
    checkpoint = open_asked(options)
    runtime = open_runtime(options)
    network = prepare(options, checkpoint)
    runtime.load(network.checkpoint, network.masks)
    result = score_folder(folder, checkpoint, runtime, options.mpp, show_progress)
    assumed = result.pop("assumed_mpp")
    if assumed:
        say(
            f"pixel size is not set in {len(assumed)} images ({assumed[0]} first): the network's "
            f"own {checkpoint.mpp:g} um is assumed; results may be inaccurate (set --mpp)."
        )
    result["run"] = {
        **about_run(network, runtime),
        "folder": str(options.folder),
        "layout": options.layout,
        "mpp_assumed": assumed,
    }
    if options.json:
        target = Path(options.json)
        with staged(target.parent) as scratch:
            write_json(scratch / target.name, result)
    how = f", recovered on {described(network.recovery)}" if network.recovery else ""
    keys = ("semantic_dice", "dice", "aji", "dq", "sq", "pq", "truth", "found")
    print(f"{len(result['images'])} images of {options.layout}, {network.pruning.label}{how}")
    print(" " * 8 + "".join(f"{key:>14}" for key in keys))
    for name in ("mean", "pooled"):
        row = "".join(
            f"{'':>14}" if result[name][key] is None else f"{result[name][key]:>14.4g}"
            for key in keys
        )
        print(f"{name:8}{row}")
