"""``nucprune train``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..doors import BRANCHES
from ..errors import InputError
from .common import say, show_progress


def train(options: argparse.Namespace) -> None:
    """``nucprune train``."""
    from ..checkpoint.bundled import open_checkpoint
    from ..files import cannot_write
    from ..runtime.torch_runtime import pick_device
    from ..training.config import load_config
    from ..training.fit import Fit, prepare
    from ..training.model_card import finish

    config = load_config(options.config, options.seed)
    device = pick_device(options.device)
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    fit = Fit(config, folder, device)
    start = open_checkpoint(options.start) if options.start else None
    if start is None and len(config.branches) < len(BRANCHES):
        raise InputError(
            f"{options.config} trains the {config.branches[0]} branch alone; name the checkpoint "
            "that gives the other one with --from."
        )
    if start is not None and not fit.state_file.exists():
        fit.start_from(start)
    fit.resume()
    say(f"reading data; training on {device} from step {fit.step} to {config.steps}")
    training, validation = prepare(config)

    def report(text: str, done: int, total: int) -> None:
        print(f"step {done}/{total}: {text}", file=sys.stderr, flush=True)

    fit.run(training, report)
    checkpoint = finish(config, fit.weights(), validation, folder, device, show_progress, start)
    for name, row in checkpoint.provenance["metrics"].items():
        print(f"{name}: " + ", ".join(f"{k} {row[k]:.3f}" for k in ("semantic_dice", "aji", "pq")))
    print(f"wrote {folder / config.name}.safetensors and its model card {config.name}.md")
