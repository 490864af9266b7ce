"""The buttons of sessions and reports: ask for a file or a folder, then do it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from ..difference.report import write_report
from . import session_files
from .saving import ask_file

if TYPE_CHECKING:
    from .dock import NucpruneDock


def save(dock: NucpruneDock) -> str | None:
    """Save the dock's state, pins and sweep."""
    path = ask_file(dock, "Save the session", "session", ".json")
    return None if path is None else session_files.save(dock, path)


def restore(dock: NucpruneDock) -> str | None:
    """Open a saved session."""
    name, _ = QFileDialog.getOpenFileName(dock, "Open a session", "", "Sessions (*.json)")
    return session_files.restore(dock, Path(name)) if name else None


def report(dock: NucpruneDock) -> str | None:
    """Write a report of the comparison, in the runner's thread."""
    about = session_files.about(dock)
    found, shown = dock.comparing.comparison, dock.comparing.shown
    assert found is not None
    assert shown is not None
    name = QFileDialog.getExistingDirectory(dock, "A folder for the report")
    if not name:
        return None
    points, loss = dock.sweeping.shown_points(), dock.sweep.loss.value() / 100
    source = shown.job.source

    def work(progress: object, should_stop: object) -> list[str]:
        return write_report(Path(name), found, source, about, points, loss)

    def done(files: list[str]) -> None:
        dock.say(f"Wrote {', '.join(files)} into {Path(name).name}.")

    dock.runner.request(work, done)
    return None
