"""``nucprune sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doors import BRANCHES, Pruning
from ..errors import InputError
from .common import about_runtime, open_annotated, open_asked, open_runtime, say, show_progress

if TYPE_CHECKING:
    from ..checkpoint.format import Checkpoint
    from ..compare.sweep_points import SweepPoint
    from ..datasets.base import Annotated
    from ..datasets.sweep import Kept, Network
    from ..pruning.recovery import Calibration
    from ..pruning.strategy import Masks

DEFAULT = "layer-wise,network-wide"


def sweep(options: argparse.Namespace) -> None:
    """``nucprune sweep``."""
    from ..compare.bootstrap import loss_intervals
    from ..compare.sweep_points import CLAIMS, mean_points, write_csv
    from ..datasets.sweep import Kept, sweep_folder
    from ..pruning.strategies import strategy_named
    from ..slides.outputs import staged, write_json

    strategies = _list(options.strategy or DEFAULT)
    for name in strategies:
        strategy_named(name)
    stops = _ratios(options.cr)
    keep = None if options.keep is None else tuple(_list(options.keep.removeprefix("none")))
    if not 0 < options.loss < 1:
        raise InputError(f"--loss is {options.loss:g}; give a part between 0 and 1, like 0.02.")
    folder = open_annotated(options)
    checkpoint = open_asked(options)
    runtime = open_runtime(options)
    network = _recovering(options, checkpoint)
    about = {
        "folder": str(options.folder),
        "layout": options.layout,
        "options": options.options,
        "patients": options.patients,
        "strategies": strategies,
        "keep": keep,
        "recover": options.recover,
    }
    output = Path(options.output)
    asked = [stops, options.together, options.mpp, options.reselect, options.runtime]
    # Beside the folder: that is not there before all is done.
    part = output.parent / f".{output.name}.part.json"
    kept = Kept(part, {**about, "checkpoint": checkpoint.sha256, "asked": asked})
    if kept.points:
        say(f"going on: {len(kept.points)} images were finished before")
    said: list[str] = []

    def notice(text: str) -> None:
        if text not in said:  # bisecting comes here again
            said.append(text)
            say(text)

    def run(
        chosen: list[str], ratios: list[float], alone: bool, kept: Kept | None = None
    ) -> dict[str, list[SweepPoint]]:
        return sweep_folder(
            folder,
            checkpoint,
            runtime,
            chosen,
            ratios,
            keep=keep,
            alone=alone,
            mpp=options.mpp,
            network=network,
            kept=kept,
            notice=notice,
            progress=show_progress,
        )

    images = run(strategies, stops, not options.together, kept)
    points = mean_points(list(images.values()))

    def between(strategy: str, cr: float) -> SweepPoint:
        found = mean_points(list(run([strategy], [cr], False).values()))
        return found[-1]

    bounds = loss_intervals(list(images.values()))
    means = [{**p.row(), **bounds[p.strategy, p.cr, p.pruned]} for p in points]
    largest = _largest(points, strategies, options, between)
    result = {
        "run": {
            **about_runtime(checkpoint, runtime),
            **about,
            "images": list(images),
            "loss": options.loss,
            "bisected": options.bisect,
            "notices": said,
        },
        "largest_cr_within_loss": largest,
        "mean": means,
        "images": {name: [point.row() for point in own] for name, own in images.items()},
    }
    ticks = {
        (strategy, metric): own[claim]
        for strategy, own in largest.items()
        for claim, metrics in CLAIMS.items()
        for metric in metrics
    }
    with staged(options.output) as scratch:
        write_csv(scratch / "sweep.csv", means)
        rows = [{"image": n, **point.row()} for n, own in images.items() for point in own]
        write_csv(scratch / "images.csv", rows)
        write_json(scratch / "sweep.json", result)
        _figures(scratch, points, options.loss, ticks)
    kept.forget()
    print(f"{len(images)} images of {options.layout}; results in {options.output}")
    print(f"largest CR that loses at most {options.loss:.3g}, and all smaller ones too:")
    print(" " * 14 + "".join(f"{claim:>12}" for claim in CLAIMS))
    for strategy, own in largest.items():
        values = ("-" if cr is None else f"{cr:.4g}" for cr in own.values())
        print(f"{strategy:14}" + "".join(f"{value:>12}" for value in values))


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _ratios(text: str | None) -> list[float]:
    """Return the ratios of ``--cr 1,2,5``; the slider's stops without it."""
    from ..compare.sweep import STOPS

    if text is None:
        return list(STOPS)
    try:
        ratios = [float(part) for part in _list(text)]
    except ValueError as error:
        raise InputError(f"--cr is {text!r}; give numbers, like 1,2,5.") from error
    for cr in ratios:
        Pruning(cr_semantic=cr, cr_distance=cr)  # refuses what is below 1
    if not ratios:
        raise InputError("--cr names no compression ratio; give numbers, like 1,2,5.")
    return ratios


def _recovering(
    options: argparse.Namespace, checkpoint: Checkpoint
) -> Callable[[Annotated], Network] | None:
    """Return what gives an image's way to recover a pruning; None without recovery."""
    from ..datasets.sweep import calibration_of
    from .recovering import EACH, calibration, recipe_of

    if options.recover == "none":
        return None
    if options.recover == EACH:
        recipe = recipe_of(options)

        def own(item: Annotated) -> Network:
            try:
                fitted = calibration_of(item, checkpoint, recipe, options.mpp, show_progress)
                return _packed(fitted, checkpoint)
            except InputError as error:
                return _refusing(error)

        return own
    # One for all images: each pruning is recovered once.
    shared = _packed(calibration(options, checkpoint), checkpoint)
    return lambda item: shared


def _refusing(error: InputError) -> Network:
    """Return what says of every pruning that it cannot be recovered."""

    def network(pruning: Pruning, masks: Masks) -> Checkpoint:
        raise error

    return network


def _packed(fitted: Calibration, checkpoint: Checkpoint) -> Network:
    """Return what recovers a pruning once and keeps its weights packed."""
    from ..pruning.compact import Packed, pack, unpack

    kept: dict[Pruning, dict[Any, Packed] | InputError] = {}

    def network(pruning: Pruning, masks: Masks) -> Checkpoint:
        if pruning not in kept:
            try:
                found = fitted.recover(pruning, masks, show_progress)
            except InputError as error:
                kept[pruning] = error
            else:
                kept[pruning] = {branch: pack(found, branch, masks) for branch in BRANCHES}
        own = kept[pruning]
        if isinstance(own, InputError):
            raise own
        weights = {branch: unpack(own[branch]) for branch in BRANCHES}
        return replace(checkpoint, weights=weights, pruning=pruning.as_dict())

    return network


def _largest(
    points: list[SweepPoint],
    strategies: Iterable[str],
    options: argparse.Namespace,
    between: Callable[[str, float], SweepPoint],
) -> dict[str, dict[str, float | None]]:
    """Return the largest ratio within the loss, by strategy and by what is claimed."""
    from ..compare.sweep_points import CLAIMS, largest_cr_within
    from ..pruning.strategies import STRATEGIES

    found: dict[str, dict[str, float | None]] = {}
    for strategy in strategies:
        tried: dict[float, SweepPoint] = {}

        def at(cr: float, strategy: str = strategy, tried: Any = tried) -> SweepPoint:
            if cr not in tried:
                tried[cr] = between(strategy, cr)
            return tried[cr]

        own = [p for p in points if p.strategy == strategy and p.pruned == "both"]
        any_cr = STRATEGIES[strategy].fixed_cr is None
        found[strategy] = {
            claim: largest_cr_within(
                own, metrics, options.loss, at if options.bisect and any_cr else None
            )
            for claim, metrics in CLAIMS.items()
        }
    return found


def _figures(
    folder: Path,
    points: list[SweepPoint],
    loss: float,
    largest: Mapping[tuple[str, str], float | None],
) -> None:
    from matplotlib.figure import Figure

    from ..compare.figure import draw, save

    figure = Figure(figsize=(9, 7), layout="constrained")
    draw(figure, points, loss, largest)
    save(figure, folder / "sweep")
