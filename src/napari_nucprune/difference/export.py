"""A sweep as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..compare.sweep_points import SweepPoint, write_csv
from ..errors import InputError
from ..files import replacing


def export(path: Path, points: list[SweepPoint], loss: float) -> None:
    """Write a sweep: CSV by ``.csv``, else a figure by ``.png`` or ``.svg``.

    Raises
    ------
    InputError
        Where there are no points, or the suffix is another.
    EnvironmentStopped
        Where the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".png", ".svg"):
        raise InputError(f"{path.name} is neither .csv nor .png nor .svg; give one of these.")
    if not points:
        raise InputError("There is no sweep to export yet.")
    with replacing(path) as temporary:
        if suffix == ".csv":
            write_csv(temporary, [point.row() for point in points])
            return
        from matplotlib.figure import Figure

        from ..compare.figure import draw

        figure = Figure(figsize=(9, 7), layout="constrained")
        draw(figure, points, loss)
        about: dict[str, Any] = {"metadata": {"Date": None}} if suffix == ".svg" else {"dpi": 150}
        figure.savefig(temporary, format=suffix[1:], **about)
