"""The model card of a checkpoint that a training made, from its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES

#: What the card says of a training, by the configuration's own names.
SETTINGS = (
    "precision", "lr", "halve_every", "border", "ema", "ema_warmup", "scale", "colour", "stain",
    "ramp", "distil", "levels",
)  # fmt: skip


def fitted_on_itself(about: Mapping[str, Any]) -> list[str]:
    """Return the sets whose one held-out patient both fitted the watershed and is scored."""
    return [name for name, what in about.get("fitted_on", {}).items() if what == "itself"]


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
        *_settings(checkpoint),
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
    lines += ["", f"## Validation ({_judged(checkpoint)})", ""]
    for name in fitted_on_itself(about):
        lines += [f"{name} is fitted on itself: it has one patient, who is both halves.", ""]
    lines += _table(about["metrics"], "set")
    lines += ["", "## By patient", ""]
    lines += _table(about["patients"], "patient")
    return "\n".join(lines) + "\n"


def _settings(checkpoint: Checkpoint) -> list[str]:
    """Return a line of what the training was set to, as far as it was noted."""
    own = (checkpoint.pruning or {}).get("training", {})
    known = {**own, **checkpoint.provenance}
    parts = []
    for key in SETTINGS:
        value = known.get(key)
        if value is True:
            parts.append(key)
        elif isinstance(value, list | tuple):
            parts.append(f"{key} {' to '.join(f'{v:g}' for v in value)}")
        elif value is not None:
            parts.append(f"{key} {value if isinstance(value, str) else f'{value:g}'}")
    return [f"- Settings: {', '.join(parts)}"] if parts else []


def _judged(checkpoint: Checkpoint) -> str:
    """Return what the scores are, and where the watershed is from."""
    about = checkpoint.provenance
    if not about["metrics"]:
        return "no patient was held out: nothing is scored, and no watershed fitted"
    # Checkpoints from before it was noted: only what is pruned kept the dense network's.
    fitted = about.get("fitted_on", {} if checkpoint.pruning else {"": "first half"})
    if not fitted:
        return "mean over images; the watershed is the dense network's"
    if "first half" in fitted.values():
        return "mean over images; the first half fitted the watershed"
    return "mean over images"


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
