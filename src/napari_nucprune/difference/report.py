"""A comparison as a report: Markdown and HTML with the same words, and pictures beside."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..compare.outcome import FATES
from ..compare.sweep_points import SweepPoint
from ..slides.image import to_rgb
from ..slides.outputs import overlay, staged, write_png
from ..slides.source import Source
from .colours import FATE_COLOURS, FATE_WORDS, rgb
from .compare import METRICS, Comparison

#: Longest side of a picture in pixels; larger fields are thinned out.
LONGEST = 2000
STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:3px 9px}"
    "img{max-width:100%}.s{display:inline-block;width:1em;height:1em;border:1px solid #888}"
)


def write_report(
    folder: Path,
    found: Comparison,
    source: Source,
    about: Mapping[str, str],
    points: Sequence[SweepPoint] = (),
    loss: float = 0.02,
) -> list[str]:
    """Write ``report.md``, ``report.html`` and their pictures into a folder.

    Parameters
    ----------
    folder
        Is made where it is not there.
    found
        What is reported.
    source
        The image, for the pictures.
    about
        Lines on how the result was made, by name.
    points, loss
        Of a sweep, drawn where there are any.

    Returns
    -------
    list
        The files' names.

    Raises
    ------
    InputError, EnvironmentStopped
        As `slides.outputs.staged`; nothing half-written stays.
    """
    step = max(1, -(-max(found.fate.differences.shape) // LONGEST))
    tissue = _tissue(source, found.transform, found.fate.differences.shape, step)
    labels, codes = found.labels[::step, ::step], found.fate.differences[::step, ::step]
    pictures = {
        "overlay.png": ("Nuclei of the result", overlay(tissue, labels.astype(np.int32))),
        "differences.png": ("What became of every nucleus", _coloured(tissue, codes)),
    }
    with staged(folder) as scratch:
        for name, (_, picture) in pictures.items():
            write_png(scratch / name, picture)
        shown = {name: title for name, (title, _) in pictures.items()}
        if points:
            from matplotlib.figure import Figure

            from ..compare.figure import draw

            figure = Figure(figsize=(9, 7), layout="constrained")
            draw(figure, points, loss)
            figure.savefig(scratch / "sweep.png", dpi=120)
            shown["sweep.png"] = "Scores over compression ratios"
        (scratch / "report.md").write_text(_markdown(found, about, shown), encoding="utf-8")
        (scratch / "report.html").write_text(_html(found, about, shown), encoding="utf-8")
        return sorted(path.name for path in scratch.iterdir())


def _tissue(
    source: Source, transform: NDArray[np.float64], shape: tuple[int, ...], step: int
) -> NDArray[np.uint8]:
    """Return the image under every ``step``-th pixel of a grid, nearest neighbours."""
    # The coarsest level that is fine enough: level 0 of a slide may not fit into memory.
    level = next(
        own
        for own in reversed(source.levels)
        if source.shape[0] / own.shape[0] <= max(1.001 * step * transform[0, 0], 1)
    )
    places = []
    for axis in range(2):
        down = source.shape[axis] / level.shape[axis]
        own = np.arange(0, shape[axis], step) * transform[axis, axis] + transform[axis, 2]
        own = np.rint((own + 0.5) / down - 0.5).astype(np.intp)
        places.append(np.clip(own, 0, level.shape[axis] - 1))
    rows, columns = places
    part = level[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = to_rgb(np.asarray(part), source.name)
    return pixels[rows - rows[0]][:, columns - columns[0]]


def _coloured(tissue: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = tissue.copy()
    for code, name in enumerate(FATES, start=1):
        colour, inside = rgb(FATE_COLOURS[name]), codes == code
        out[inside] = (0.7 * out[inside] + 0.3 * np.array(colour)).astype(np.uint8)
        out = overlay(out, inside.astype(np.int32), colour)
    return out


def _title(found: Comparison) -> str:
    return f"{found.result} against {found.reference}"


def _score_rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for metric, name in METRICS.items():
        now, start, loss = found.row(metric)
        texts = ["–" if v is None else f"{v:.3f}" for v in (now, start)]
        rows.append((name, *texts, "–" if loss is None else f"{100 * loss + 0.0:.1f} %"))
    return rows  # type: ignore[return-value]


def _fate_rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, count in found.fate.counts.items():
        beside = len(found.fate.places(name)) - count
        words = FATE_WORDS[name]
        if beside:
            words += f" Besides, {beside:,} cut off from nuclei that are found again without them."
        rows.append((name, FATE_COLOURS[name], str(count), words))
    return rows


def _markdown(found: Comparison, about: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [f"# {_title(found)}", ""]
    lines += [f"- {cell(name)}: {cell(text)}" for name, text in about.items()]
    lines += ["", "| score | now | CR 1 | loss |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in _score_rows(found)]
    lines += ["", "| nuclei | colour | count | |", "|---|---|--:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _fate_rows(found)]
    for name, title in pictures.items():
        lines += ["", f"## {title}", "", f"![{title}]({name})"]
    return "\n".join(lines) + "\n"


def _html(found: Comparison, about: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    def row(cells: Sequence[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    title = html.escape(_title(found))
    items = "".join(
        f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, text in about.items()
    )
    scores = "".join(row(list(map(html.escape, cells))) for cells in _score_rows(found))
    fates = "".join(
        row(
            [
                f'<span class="s" style="background:{colour}"></span> {name}',
                count,
                html.escape(words),
            ]
        )
        for name, colour, count, words in _fate_rows(found)
    )
    images = "".join(
        f'<h2>{html.escape(words)}</h2><img src="{name}" alt="{html.escape(words)}">'
        for name, words in pictures.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><ul>{items}</ul>"
        f"<table>{row(['score', 'now', 'CR 1', 'loss'], 'th')}{scores}</table>"
        f"<table>{row(['nuclei', 'count', ''], 'th')}{fates}</table>{images}</body></html>\n"
    )
