"""What the dock's buttons do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from ..slides.reader import SUFFIXES, TIFFS
from . import layers, saving, session_dialogs
from .pins import pin

if TYPE_CHECKING:
    from .dock import NucpruneDock


def connect(dock: NucpruneDock) -> None:
    """Wire the buttons that open, pin and save."""
    button, save, files = dock.button, dock.save, dock.files
    button(dock.image.open_slide, lambda: ask_slide(dock))
    button(dock.checkpoint.open, lambda: ask_checkpoint(dock))
    button(dock.compare.pin, lambda: pin_result(dock))
    button(save.checkpoint, lambda: save_checkpoint(dock))
    button(save.labels, lambda: saving.labels(dock, dock.preview))
    button(save.table, lambda: saving.table(dock, dock.preview))
    button(files.save, lambda: session_dialogs.save(dock))
    button(files.open, lambda: session_dialogs.restore(dock))
    button(files.report, lambda: session_dialogs.report(dock))


def ask_checkpoint(dock: NucpruneDock) -> None:
    """Ask for a checkpoint and load it."""
    origin = dock.opening.ask(dock)
    if origin:
        dock.open_checkpoint(origin)


def ask_slide(dock: NucpruneDock) -> None:
    """Ask for a slide and open it with our reader."""
    pattern = " ".join(f"*{suffix}" for suffix in (*SUFFIXES, *TIFFS))
    name, _ = QFileDialog.getOpenFileName(dock, "Open a slide", "", f"Slides ({pattern})")
    if name:
        layers.open_slide(dock.viewer, name)


def pin_result(dock: NucpruneDock) -> str:
    """Keep a copy of the result's layers; returns what to say."""
    pruning = dock.preview.pruning if dock.preview else dock.asked()
    pinned = pin(dock.viewer, pruning.label)
    return f"Pinned {len(pinned.layers)} layers as “· {pruning.label}”."


def save_checkpoint(dock: NucpruneDock) -> str | None:
    """Save the network as it is pruned now; returns what to say."""
    if dock.session is None:
        return "There is no checkpoint to save; choose one with Open…."
    packing = dock.save.packing.currentData()
    return saving.checkpoint(dock, dock.session, dock.asked(), dock.to_save(), packing)
