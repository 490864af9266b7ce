"""After training: fit the watershed on validation, score by patient, write checkpoint and card."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..checkpoint.format import Checkpoint, save
from ..compare.metrics import mean_scores
from ..datasets.base import Annotated
from ..datasets.evaluate import count_image, run_on
from ..doors import Merge, Progress, Scores, no_progress
from ..runtime.torch_runtime import TorchRuntime
from .card import card
from .config import Config
from .mixture import Mixture

#: What is tried, in this order, each at the best of those before.
GRID: dict[str, tuple[float, ...]] = {
    "saddle": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
    "sigma_um": (0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.5),
    "footprint_um": (0.75, 1.0, 1.5, 2.0, 2.5),
    "threshold": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65),
    "min_area_um2": (1.9, 4.0, 6.0),
}


def halves(items: list[Annotated]) -> tuple[list[Annotated], list[Annotated]]:
    """Split by patient, in the order of the list: the first half fits, the second is reported."""
    patients = list(dict.fromkeys(item.patient for item in items))
    first = set(patients[: len(patients) // 2])
    return (
        [item for item in items if item.patient in first],
        [item for item in items if item.patient not in first],
    )


def finish(
    config: Config,
    checkpoint: Checkpoint,
    mixture: Mixture,
    folder: Path,
    device: str = "auto",
    progress: Progress = no_progress,
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Fit the merge parameters, score, and write ``NAME.safetensors`` and ``NAME.md``.

    What a ``[prune]`` table made keeps the dense network's merge parameters, so that they compare.

    Parameters
    ----------
    config
        Of the training.
    checkpoint
        As trained.
    mixture
        What it was trained on, and the validation images.
    folder
        Where the files go.
    start
        The checkpoint that the training started from, for the card.

    Returns
    -------
    Checkpoint
        As written, its provenance holding data, licences, seed and metrics by patient.
    """
    validation = mixture.validation
    runtime = TorchRuntime(device)
    runtime.load(checkpoint)
    split = {name: halves(items) for name, items in validation.items() if items}
    everything = [item for items in validation.values() for item in items]
    # By image: two sets may have files of one name.
    maps = {}
    for done, item in enumerate(everything):
        progress("Running on validation images", done, len(everything))
        maps[id(item)] = run_on(item, checkpoint, runtime)

    def scores(items: list[Annotated], parameters: Merge) -> list[Scores]:
        return [count_image(i, *maps[id(i)], parameters).scores() for i in items]

    best, fitted_on = checkpoint.merge, dict[str, str]()
    if config.prune is None:
        best = fitted(split, scores, progress)
        fitted_on = {n: "first half" if fit else "itself" for n, (fit, _) in split.items()}
    checkpoint = replace(checkpoint, merge=best)
    metrics: dict[str, Any] = {}
    patients: dict[str, Any] = {}
    for name, (fit, report) in split.items():
        for part, items in (("second half", report), ("both halves", fit + report)):
            metrics[f"{name}, {part}"] = dict(mean_scores(scores(items, best)))
        for patient in dict.fromkeys(item.patient for item in fit + report):
            own = [item for item in fit + report if item.patient == patient]
            result: dict[str, Any] = dict(mean_scores(scores(own, best)))
            firsts = {item.patient for item in fit}
            result["half"] = "only" if not fit else "first" if patient in firsts else "second"
            patients[f"{name} {patient}"] = result
    provenance = {
        "software": f"napari-nucprune {__version__}",
        "commit": commit(),
        "seed": config.seed,
        "steps": config.steps,
        "batch": config.batch,
        "crop": config.crop,
        "branches": list(config.branches),
        "lr": config.lr,
        "halve_every": config.halve_every,
        "border": config.border,
        "ema": config.ema,
        **({"ema_warmup": True} if config.ema_warmup else {}),
        "precision": config.precision,
        "scale": list(config.scale),
        "colour": config.colour,
        "stain": config.stain,
        **_taught(config),
        "data": _data(config, mixture.sets),
        "started_from": _started_from(start),
        "fitted_on": fitted_on,
        "metrics": metrics,
        "patients": patients,
    }
    checkpoint = replace(checkpoint, provenance=provenance)
    save(checkpoint, folder / f"{config.name}.safetensors")
    (folder / f"{config.name}.md").write_text(card(checkpoint), encoding="utf-8")
    return checkpoint


def fitted(
    split: Mapping[str, tuple[list[Annotated], list[Annotated]]],
    scores: Callable[[list[Annotated], Merge], list[Scores]],
    progress: Progress = no_progress,
) -> Merge:
    """Return the merge parameters with the best mean of PQ + AJI on the first halves.

    Parameters
    ----------
    split
        By set, as of `halves`. Where the first half is empty, the second one fits.
    scores
        Gives the scores of images under merge parameters.
    """
    # One after the other: a grid of all would take an hour.
    best, best_value = Merge(sigma_um=0.5), -1.0
    if not split:
        return best
    for name, values in GRID.items():
        so_far = best
        for value in values:
            progress(f"Fitting {name} = {value:g}", 0, 1)
            candidate = replace(so_far, **{name: value})
            means = [
                np.mean([s.pq + s.aji for s in scores(fit or report, candidate)])
                for fit, report in split.values()
            ]
            if float(np.mean(means)) > best_value + 1e-6:
                best, best_value = candidate, float(np.mean(means))
    return best


def _taught(config: Config) -> dict[str, Any]:
    """Return how the dense network taught, for what a ``[prune]`` table made."""
    prune = config.prune
    return {} if prune is None else {"distil": prune.distil, "levels": prune.levels}


def _started_from(start: Checkpoint | None) -> dict[str, Any] | None:
    if start is None:
        return None
    keys = ("steps", "batch", "crop", "seed", "started_from")
    about = {key: start.provenance[key] for key in keys if key in start.provenance}
    return {"sha256": start.sha256, **about}


def _data(config: Config, sets: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "layout": data.layout,
            **({"name": data.name} if data.name else {}),
            "folder": data.path.name,
            "weight": data.weight,
            "licence": licence,
            "validation": list(data.validation),
            "sha256": sha256,
        }
        for data, (licence, sha256) in zip(config.data, sets, strict=True)
    ]


def commit() -> str | None:
    """Return the commit of the sources that run, with ``+`` where they were changed since.

    None for an installed package, and where there is no git.
    """
    package = Path(__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (package.parents[1] / "pyproject.toml").is_file():
        return None

    def asked(*arguments: str) -> str:
        command = [git, "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(asked("rev-parse", "--show-toplevel")).resolve() != package.parents[1]:
            return None
        changed = asked("status", "--porcelain", "--untracked-files=no", "--", str(package))
        return asked("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
