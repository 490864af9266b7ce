"""``nucprune train``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ..doors import BRANCHES, ShouldStop
from ..errors import Cancelled, InputError
from .common import say, show_progress


def train(options: argparse.Namespace) -> None:
    """``nucprune train``; Ctrl-C stops after the step, and the same command goes on from there."""
    from ..checkpoint.shipped import open_checkpoint
    from ..files import cannot_write
    from ..runtime.torch_runtime import pick_device
    from ..training.card import fitted_on_itself
    from ..training.config import load_config
    from ..training.fit import Fit
    from ..training.mixture import folded, prepare
    from ..training.model_card import finish
    from ..training.prune_finetune import FineTune

    config = load_config(options.config, options.seed)
    if options.fold is not None:
        config = folded(config, *_fold(options.fold))
    device = pick_device(options.device)
    folder = Path(options.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    start = open_checkpoint(options.start) if options.start else None
    if start is None and (config.prune or len(config.branches) < len(BRANCHES)):
        what = "prunes" if config.prune else f"trains the {config.branches[0]} branch alone"
        which = "to prune" if config.prune else "that gives the other one"
        raise InputError(f"{options.config} {what}; name the checkpoint {which} with --from.")
    tuning = FineTune(config, folder, start, device) if config.prune and start else None
    fit = tuning or Fit(config, folder, device)
    if start is not None and not fit.state_file.exists():
        fit.start_from(start)
    fit.resume()
    say(f"reading data; training on {device} from step {fit.step} to {config.steps}")
    mixture = prepare(config)

    def report(text: str, done: int, total: int) -> None:
        print(f"step {done}/{total}: {text}", file=sys.stderr, flush=True)

    if tuning is not None and fit.step == 0:
        tuning.begin(mixture.training, show_progress)
    with interrupts() as should_stop:
        fit.run(mixture.training, report, should_stop)
        if should_stop():  # in the last step
            raise Cancelled("Stopped before scoring; the same command goes on from here.")
    config = replace(config, precision=fit.precision or config.precision)
    try:
        checkpoint = finish(config, fit.finished(), mixture, folder, device, show_progress, start)
    except KeyboardInterrupt:
        raise Cancelled("Stopped while scoring; the same command goes on from here.") from None
    alone = fitted_on_itself(checkpoint.provenance)
    for name, row in checkpoint.provenance["metrics"].items():
        scores = ", ".join(f"{k} {row[k]:.3f}" for k in ("semantic_dice", "aji", "pq"))
        itself = name.rpartition(", ")[0] in alone
        print(f"{name}: {scores}{' (fitted on itself: it has one patient)' if itself else ''}")
    print(f"wrote {folder / config.name}.safetensors and its model card {config.name}.md")


@contextmanager
def interrupts() -> Iterator[ShouldStop]:
    """Say of a first Ctrl-C when asked; a second one interrupts at once."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        say("stopping after this step; Ctrl-C again stops at once")

    before = signal.getsignal(signal.SIGINT)
    # A job in the background is started with Ctrl-C ignored, and stays so.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _fold(text: str) -> tuple[int, int]:
    fold, _, folds = text.partition("/")
    try:
        return int(fold), int(folds)
    except ValueError:
        raise InputError(f"--fold is {text!r}; expected I/K, 1/5 for the first of five.") from None
