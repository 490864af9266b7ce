"""A sweep's curves in the paper's manner, on any matplotlib figure (a file's or the dock's)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .sweep import STOPS
from .sweep_points import SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe & Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKERS = "osD^vPX"
PANELS = {
    "semantic_dice": "semantic: Dice",
    "distance_r2": "distance: $R^2$",
    "aji": "instances: AJI",
    "pq": "instances: PQ",
}
STYLES = {"both": "-", "semantic": "--", "distance": ":"}


def draw(
    figure: Figure,
    points: Sequence[SweepPoint],
    loss: float = 0.02,
    largest: Mapping[tuple[str, str], float | None] | None = None,
    columns: int = 2,
) -> None:
    """Draw scores over compression ratios, one panel a metric.

    Parameters
    ----------
    figure
        Is cleared first; its own colours are kept.
    points
        Of any strategies. Solid: both branches pruned; dashed and dotted: the semantic and the
        distance branch alone.
    loss
        Of the horizontal line.
    largest
        By strategy and metric, the largest ratio within the loss: a vertical tick.
    columns
        Of panels; a line's ``gid`` is its strategy's name.
    """
    from matplotlib.lines import Line2D

    figure.clear()
    strategies = list(dict.fromkeys(point.strategy for point in points))
    axes = figure.subplots(-(-len(PANELS) // columns), columns, sharex=True).ravel()
    for axis, (metric, title) in zip(axes, PANELS.items(), strict=True):
        _panel(axis, points, strategies, metric, loss, largest or {})
        axis.set_title(title, fontsize="medium")
    for axis in axes[-columns:]:
        axis.set_xlabel("compression ratio")
    handles = [
        Line2D([], [], color=_colour(i), marker=_marker(i), markersize=4, label=strategy)
        for i, strategy in enumerate(strategies)
    ]
    handles += [
        Line2D([], [], color="grey", linestyle=style, label=f"{side} branch alone")
        for side, style in STYLES.items()
        if side != "both" and any(point.pruned == side for point in points)
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(len(handles), 2 * columns),
            frameon=False,
            fontsize="small",
        )


def save(figure: Figure, stem: Path, dpi: int = 150) -> None:
    """Write ``stem.png`` and ``stem.svg``; the same numbers give the same files."""
    from matplotlib import rc_context

    figure.savefig(f"{stem}.png", dpi=dpi)
    # Without the date, and with names that are not drawn by chance.
    with rc_context({"svg.hashsalt": "nucprune"}):
        figure.savefig(f"{stem}.svg", metadata={"Date": None})


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def _panel(
    axis: Axes,
    points: Sequence[SweepPoint],
    strategies: Sequence[str],
    metric: str,
    loss: float,
    largest: Mapping[tuple[str, str], float | None],
) -> None:
    for index, strategy in enumerate(strategies):
        colour, marker = _colour(index), _marker(index)
        own = [p for p in points if p.strategy == strategy and p.scores[metric] is not None]
        start = [p for p in own if p.pruned == "both"][:1]
        for side, style in STYLES.items():
            # A branch alone changes its own map's score just as both together do.
            if side != "both" and metric in ("semantic_dice", "distance_r2"):
                continue
            line = sorted((p for p in own if p.pruned == side), key=lambda p: p.cr)
            if side != "both":
                line = start + line if line else []
            if not line:
                continue
            axis.plot(
                [p.cr for p in line],
                [float(p.scores[metric] or 0.0) for p in line],
                linestyle=style,
                color=colour,
                gid=strategy,
                marker=marker if side == "both" else None,
                markersize=4,
                linewidth=1.6 if side == "both" else 1.0,
            )
        ratio = largest.get((strategy, metric))
        if ratio is not None:
            axis.axvline(ratio, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
    from matplotlib import rcParams

    begin = next((p.start[metric] for p in points if p.start[metric] is not None), None)
    if begin is not None and begin > 0:  # a loss of nothing cannot be drawn
        # In the colours of the text, and beside the curves: readable in every theme.
        axis.axhline((1 - loss) * begin, color=rcParams["text.color"], lw=1.0, ls="--")
        axis.annotate(
            f"−{100 * loss:.3g} %",
            (1, (1 - loss) * begin),
            (3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    # A lost distance map's R2 runs to minus hundreds, and all curves would be one line.
    values = [float(p.scores[metric] or 0.0) for p in points] or [0.0]
    if max(values) > -0.25:
        axis.set_ylim(bottom=max(min(values) - 0.03, -0.25))
    axis.set_xscale("log", base=2)
    found = {round(p.cr, 2) for p in points}
    ticks = sorted(found.intersection(STOPS) or found)
    axis.set_xticks(ticks, [f"{cr:g}" for cr in ticks], fontsize="x-small")
    axis.minorticks_off()
    axis.tick_params(axis="y", labelsize="x-small")
    axis.grid(alpha=0.3)
