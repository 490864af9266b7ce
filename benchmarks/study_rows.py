"""Rows of ``benchmarks/study.py``: how they are picked and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
SCORES = {"semantic_dice": "semantic Dice", "distance_r2": "R2", "aji": "AJI", "pq": "PQ"}
#: Of the distance map besides.
REGRESSION = {"distance_mse": "MSE", "distance_r": "r"}
IMAGES = "half (images of patients)"
HALVES = ("second half", "both halves")


def number(value: float | None) -> str:
    """Return a score; one far below 0 (a lost map's R2) as such."""
    if value is None:
        return ""
    return "< -9.99" if value < -9.99 else f"{value:.3f}"


def cell(row: Row, metric: str) -> str:
    """Return a row's score of `SCORES` or `REGRESSION`; errors of a squared map are small."""
    value = row[metric]
    return f"{value:.4f}" if metric == "distance_mse" and value is not None else number(value)


def percent(part: float) -> str:
    """Return a loss in per cent; a lost map's R2 loses hundreds of times what there was."""
    return "> +999" if part > 9.99 else f"{100 * part:+.1f}"


def loss(row: Row, metric: str) -> str:
    """Return a loss in per cent with its interval."""
    value, low, high = (row[f"loss_{metric}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ""
    text = percent(value)
    return text if low is None else f"{text} ({percent(low)} to {percent(high)})"


def verdict(row: Row, metrics: Iterable[str], least: float) -> str:
    """Return whether losses are under the least one for sure: all, none, or one cannot say."""
    bounds = [(row[f"loss_{m}_low"], row[f"loss_{m}_high"]) for m in metrics]
    if any(low is not None and low > least for low, _ in bounds):
        return "does not hold"
    if all(high is not None and high <= least for _, high in bounds):
        return "holds"
    values = [row[f"loss_{m}"] for m in metrics]
    under = all(value is not None and value <= least for value in values)
    return f"not decided by so few images ({'under' if under else 'over'} it in the mean)"


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have the wanted values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def sets(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in rows))


def each(rows: Sequence[Row], make: Callable[[str, str], Iterable[Sequence[str]]]) -> list[Any]:
    """Return table rows of every set and half."""
    found: list[Any] = []
    for data in sets(rows):
        for half in HALVES:
            own = chosen(rows, data=data, half=half)[0]
            name = f"{half} ({own['images']} of {own['patients']})"
            found += [(data, name, *cells) for cells in make(data, half)]
    return found


def slug(name: str) -> str:
    """Return a name for files: letters and digits, the rest as dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
