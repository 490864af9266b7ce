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
from ..doors import BRANCHES, Merge, Progress, Scores, no_progress
from ..runtime.torch_runtime import TorchRuntime
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
    split = {layout: halves(items) for layout, items in validation.items() if items}
    everything = [(layout, item) for layout, items in validation.items() for item in items]
    maps = {}
    for done, (layout, item) in enumerate(everything):
        progress("Running on validation images", done, len(everything))
        maps[layout, item.name] = run_on(item, checkpoint, runtime)

    def scores(layout: str, items: list[Annotated], parameters: Merge) -> list[Scores]:
        return [count_image(i, *maps[layout, i.name], parameters).scores() for i in items]

    best = checkpoint.merge
    if config.prune is None:
        best = fitted(split, scores, progress)
    checkpoint = replace(checkpoint, merge=best)
    metrics: dict[str, Any] = {}
    patients: dict[str, Any] = {}
    for layout, (fit, report) in split.items():
        for part, items in (("second half", report), ("both halves", fit + report)):
            metrics[f"{layout}, {part}"] = dict(mean_scores(scores(layout, items, best)))
        for patient in dict.fromkeys(item.patient for item in fit + report):
            own = [item for item in fit + report if item.patient == patient]
            result: dict[str, Any] = dict(mean_scores(scores(layout, own, best)))
            result["half"] = "first" if own[0] in fit else "second"
            patients[f"{layout} {patient}"] = result
    provenance = {
        "software": f"napari-nucprune {__version__}",
        "commit": commit(),
        "seed": config.seed,
        "steps": config.steps,
        "batch": config.batch,
        "crop": config.crop,
        "branches": list(config.branches),
        "ema": config.ema,
        "precision": config.precision,
        "data": _data(config, mixture.sets),
        "started_from": _started_from(start),
        "metrics": metrics,
        "patients": patients,
    }
    checkpoint = replace(checkpoint, provenance=provenance)
    save(checkpoint, folder / f"{config.name}.safetensors")
    (folder / f"{config.name}.md").write_text(card(checkpoint), encoding="utf-8")
    return checkpoint


def fitted(
    split: Mapping[str, tuple[list[Annotated], list[Annotated]]],
    scores: Callable[[str, list[Annotated], Merge], list[Scores]],
    progress: Progress = no_progress,
) -> Merge:
    """Return the merge parameters with the best mean of PQ + AJI on the first halves.

    Parameters
    ----------
    split
        By layout, as of `halves`. Where the first half is empty, the second one fits.
    scores
        Gives the scores of a layout's images under merge parameters.
    """
    # One after the other: a grid of all would take an hour.
    best, best_value = Merge(sigma_um=0.5), -1.0
    for name, values in GRID.items():
        so_far = best
        for value in values:
            progress(f"Fitting {name} = {value:g}", 0, 1)
            candidate = replace(so_far, **{name: value})
            means = [
                np.mean([s.pq + s.aji for s in scores(layout, fit or report, candidate)])
                for layout, (fit, report) in split.items()
            ]
            if float(np.mean(means)) > best_value + 1e-6:
                best, best_value = candidate, float(np.mean(means))
    return best


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


def _commit(about: Mapping[str, Any]) -> str:
    found = about.get("commit")
    if not found:
        return "commit not noted"
    return f"commit `{found[:12]}`{' and changes' if found.endswith('+') else ''}"


def card(checkpoint: Checkpoint) -> str:
    """Return the model card (Markdown) of a checkpoint that `finish` made."""
    about = checkpoint.provenance
    merge = checkpoint.merge
    unit = checkpoint.distance_unit_um
    lines = [
        f"# {checkpoint.name}",
        "",
        "Two U-Nets (semantic segmentation and distance regression; Mahbod et al., AMAI 2022) for "
        "nuclei in H&E-stained tissue. For research; not a medical device.",
        "",
        f"- Pixel size: {checkpoint.mpp:g} um/px",
        f"- Distance target: {f'um over {unit:g}' if unit else 'over the maximum of the image'}",
        f"- Watershed: sigma {merge.sigma_um:g} um, threshold {merge.threshold:g}, "
        f"least area {merge.min_area_um2:g} um2, saddle {merge.saddle:g}",
        f"- Trained by `nucprune train`: {about['steps']} steps of {about['batch']} crops of "
        f"{about['crop']} px, {_branches(about)}, seed {about['seed']}",
        *(
            ["- For research only: some of its data forbid commercial use"]
            if checkpoint.for_research_only
            else []
        ),
        f"- Software: {about.get('software', 'not noted')}, {_commit(about)}",
        *_history(about.get("started_from")),
        *_pruned(checkpoint),
        f"- Weights' sha256: `{checkpoint.sha256}`",
        "",
        "## Data",
        "",
        "| layout | folder | drawn with weight | licence | held out for validation | sha256 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {d.get('name', d['layout'])} | {d['folder']} | {d['weight']:g} | {d['licence']} | "
        f"{', '.join(d['validation'])} | {d.get('sha256', 'not noted')[:12]} |"
        for d in about["data"]
    ]
    lines += ["", "## Validation (mean over images; the first half fitted the watershed)", ""]
    lines += _table(about["metrics"], "set")
    lines += ["", "## By patient", ""]
    lines += _table(about["patients"], "patient")
    return "\n".join(lines) + "\n"


def _pruned(checkpoint: Checkpoint) -> list[str]:
    """Return a line about what is pruned, for a pruned network."""
    if checkpoint.pruning is None:
        return []
    ratios = ", ".join(f"{branch} CR {cr:.3g}" for branch, cr in checkpoint.own_cr.items())
    lines = [
        f"- Pruned {checkpoint.pruning['strategy']}, {ratios}, and fine-tuned; the dense network's "
        f"sha256: `{checkpoint.parent_sha256}`"
    ]
    before = checkpoint.pruning.get("training", {}).get("before")
    while before:
        lines.append(f"- Fine-tuned before: {before.get('steps', '?')} steps, {_branches(before)}")
        before = before.get("before")
    return lines


def _branches(about: Mapping[str, Any]) -> str:
    """Return which branches a training moved, e.g. ``both branches``."""
    trained = about.get("branches", BRANCHES)
    return "both branches" if len(trained) == len(BRANCHES) else f"the {trained[0]} branch alone"


def _history(start: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each checkpoint that the training went on from."""
    lines = []
    while start:
        lines.append(
            f"- Started from weights `{start['sha256'][:12]}`: {start.get('steps', '?')} steps of "
            f"{start.get('batch', '?')} crops of {start.get('crop', '?')} px, "
            f"seed {start.get('seed', '?')}"
        )
        start = start.get("started_from")
    return lines


def _table(rows: Mapping[str, Mapping[str, Any]], title: str) -> list[str]:
    columns = ("semantic_dice", "dice", "aji", "dq", "sq", "pq")
    half = any("half" in row for row in rows.values())
    out = [
        f"| {title} | {'half | ' if half else ''}{' | '.join(columns)} |",
        "|" + "---|" * (len(columns) + 1 + half),
    ]
    for name, row in rows.items():
        cells = [f"{row[c]:.3f}" if row.get(c) is not None else "" for c in columns]
        out.append(f"| {name} | {row['half'] + ' | ' if half else ''}{' | '.join(cells)} |")
    return out
