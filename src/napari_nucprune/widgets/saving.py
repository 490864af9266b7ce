"""The Save buttons: ask for a file, write it, say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QWidget

from ..checkpoint import format as checkpoint_format
from ..errors import InputError
from ..nuclei.table import write_csv
from ..slides.outputs import save_labels
from . import texts

if TYPE_CHECKING:
    from ..checkpoint.packed import Packing
    from ..doors import Pruning
    from ..job import Job, Preview
    from ..preview import Session


def ask_file(parent: QWidget, title: str, suggestion: str, suffix: str) -> Path | None:
    """Ask where to save; the suffix is added where it was left out."""
    name, _ = QFileDialog.getSaveFileName(parent, title, suggestion + suffix, f"*{suffix}")
    if not name:
        return None
    path = Path(name)
    return path if path.suffix else path.with_suffix(suffix)


def checkpoint(
    parent: QWidget, session: Session, pruning: Pruning, job: Job | None, packing: Packing
) -> str | None:
    """Save the pruned checkpoint, the recovered one where ``job`` says so and it is ready.

    Returns
    -------
    str or None
        What to say; None where the user thought better.
    """
    suggestion = f"{session.checkpoint.name} {pruning.label}"
    for sign in (" / ", " ", ":"):  # Windows takes no colon in a file's name
        suggestion = suggestion.replace(sign, "-")
    path = ask_file(parent, "Save the pruned checkpoint", suggestion, ".safetensors")
    if path is None:
        return None
    network, recovered = session.pruned(pruning, job)
    checkpoint_format.save(network, path, packing)
    repaired = "fine-tuned" if job is not None and job.recovery == "fine-tuned" else "recovered"
    how = f", {repaired}" if recovered else ""
    if job is not None and job.recovery != "off" and network.pruning and not recovered:
        how = f", not {repaired}: that was refused or has not run yet"
    return f"Saved {path.name} ({texts.megabytes(path.stat().st_size)}{how})."


def labels(parent: QWidget, preview: Preview | None) -> str | None:
    """Save the shown instances as an int32 TIFF with their pixel size."""
    if preview is None:
        raise InputError("There are no nuclei to save yet; run first.")
    path = ask_file(parent, "Save the labels", "instances", ".tif")
    if path is None:
        return None
    save_labels(preview.nuclei.labels, path, None if preview.mpp_assumed else preview.nuclei.mpp)
    return f"Saved {len(preview.nuclei)} nuclei as {path.name}."


def table(parent: QWidget, preview: Preview | None) -> str | None:
    """Save the measurements as CSV."""
    if preview is None:
        raise InputError("There are no nuclei to save yet; run first.")
    path = ask_file(parent, "Save the table", "nuclei", ".csv")
    if path is None:
        return None
    write_csv(preview.nuclei, path)
    return f"Saved {len(preview.nuclei)} rows as {path.name}."
