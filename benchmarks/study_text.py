"""The words and tables of ``benchmarks/study.py``'s page: all of them from its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.compare.sweep_points import CLAIMS, SweepPoint, largest_cr_within

Row = Mapping[str, Any]
SCORES = {"semantic_dice": "semantic Dice", "distance_r2": "R2", "aji": "AJI", "pq": "PQ"}
#: Claims in words.
WORDS = {
    "semantic": "semantic segmentation",
    "distance": "distance regression",
    "instances": "the final instances",
}
#: The paper's: what keeps its score, at which ratio, and whose branches are pruned for it.
PAPER = (("semantic", 16, "semantic"), ("distance", 20, "distance"), ("instances", 5, "both"))
HALVES = ("second half", "both halves")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def number(value: float | None) -> str:
    """Return a score; one far below 0 (a lost map's R2) as such."""
    if value is None:
        return ""
    return "< -9.99" if value < -9.99 else f"{value:.3f}"


def loss(row: Row, metric: str) -> str:
    """Return a loss in per cent with its interval."""
    value, low, high = (row[f"loss_{metric}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ""
    text = f"{100 * value:+.1f}" if value > -10 else "< -999"
    return text if low is None else f"{text} ({100 * low:+.1f} to {100 * high:+.1f})"


def page(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    config: Mapping[str, Any],
    figures: Mapping[str, str],
    missing: Sequence[str],
    helped: Sequence[str] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    checkpoint
        The dense network that is pruned.
    rows
        As of ``study.csv``.
    config
        As of ``study.toml``.
    figures
        What they show, by their names without the suffix.
    missing
        Networks that were not there.
    helped
        The section of `ablation`.
    """
    text = [
        "# The study",
        "",
        "Written by `python benchmarks/study.py` from `benchmarks/study.toml`; every figure is "
        "measured by it, and nothing here is typed by hand.",
        "",
        f"The dense network is `{checkpoint.name}` (`{checkpoint.sha256[:12]}`). Scores are means "
        "over images at their own size, against the annotations of patients who were not trained "
        "on; the second half of the patients picked nothing either. R2 is that of the distance "
        "map against the annotations' one. Losses are relative to the dense network, in per cent "
        "(plus is loss), with the 95 % interval of a paired bootstrap over the images.",
        "",
    ]
    if missing:
        text += [f"Not trained, and so left out: {', '.join(missing)}.", ""]
    text += _dense(rows)
    text += _claims(rows, config["loss"])
    text += _largest(rows, config)
    text += _tuned(rows)
    text += helped
    text += _curves(rows, config)
    if figures:
        text += [
            "## Figures",
            "",
            "All validation patients. Solid: both branches pruned; dashed and dotted: one branch "
            f"alone. The line is {100 * config['loss']:g} % under the dense network. Each is there "
            "as SVG too.",
            "",
        ]
        for name, shown in figures.items():
            text += [f"![Scores over compression ratios: {shown}](images/{name}.png)", ""]
    return "\n".join(text).rstrip() + "\n"


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have the wanted values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _sets(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in rows))


def _each(rows: Sequence[Row], make: Callable[[str, str], Iterable[Sequence[str]]]) -> list[Any]:
    """Return table rows of every set and half."""
    found: list[Any] = []
    for data in _sets(rows):
        for half in HALVES:
            count = next(r["images"] for r in chosen(rows, data=data, half=half))
            found += [(data, f"{half} ({count})", *cells) for cells in make(data, half)]
    return found


def _dense(rows: Sequence[Row]) -> list[str]:
    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(rows, how="dense", data=data, half=half):
            yield row["strategy"], *(number(row[key]) for key in SCORES)

    return [
        "## Dense networks",
        "",
        "*more steps*: the dense network after the steps, the schedule and the teacher that the "
        "fine-tuned ones had. Networks with fewer channels are what pruning competes with: "
        "a half has about a quarter of the weights, a quarter a sixteenth. The last row needs no "
        "training: scikit-image's colour deconvolution, Otsu's threshold and a watershed.",
        "",
        *table(("data", "half (images)", "network", *SCORES.values()), _each(rows, make)),
    ]


def _best_seed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["seed"] == 0]


def _claims(rows: Sequence[Row], least: float) -> list[str]:
    text = ["## The paper's claims", ""]
    for claim, cr, pruned in PAPER:
        side = "both branches" if pruned == "both" else f"the {pruned} branch"
        metrics = CLAIMS[claim]
        said = []
        for how in ("one-shot", "recovered", "fine-tuned"):
            for data in _sets(rows):
                found = _best_seed(
                    chosen(
                        rows, how=how, data=data, half="both halves",
                        strategy="layer-wise", cr=cr, pruned=pruned,
                    )
                )  # fmt: skip
                if not found:
                    continue
                values = [found[0][f"loss_{m}"] for m in metrics]
                holds = all(v is not None and v <= least for v in values)
                losses = " and ".join(f"{SCORES[m]} {loss(found[0], m)} %" for m in metrics)
                said.append(f"- {how}, {data}: {losses}: **{'holds' if holds else 'does not'}**.")
        text += [
            f"**{100 * (1 - 1 / cr):.4g} % of the weights of {side} go (CR {cr}) with under "
            f"{100 * least:g} % loss in {WORDS[claim]}, layer-wise.**",
            "",
            *(said or ["- Not run."]),
            "",
        ]
    return [*text, *_which(rows)]


def _which(rows: Sequence[Row]) -> list[str]:
    """Return the paragraph on layer-wise against network-wide."""
    said = []
    for how in ("one-shot", "recovered", "fine-tuned"):
        for data in _sets(rows):
            own = chosen(rows, how=how, data=data, half="both halves", pruned="both", seed=0)
            by = {(r["strategy"], r["cr"]): r["pq"] for r in own if r["cr"] > 1}
            crs = sorted({cr for name, cr in by if name == "layer-wise"})
            crs = [cr for cr in crs if ("network-wide", cr) in by]
            if not crs:
                continue
            ahead = [cr for cr in crs if by["layer-wise", cr] > by["network-wide", cr]]
            where = ", ".join(f"{cr:g}" for cr in ahead) or "none"
            said.append(
                f"- {how}, {data}: layer-wise has the higher PQ at CR {where} of {len(crs)}."
            )
    return [
        "**Layer-wise is slightly ahead at small ratios, network-wide at large ones.**",
        "",
        *(said or ["- Not run."]),
        "",
    ]


def _largest(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """Return the table of the largest ratios within the loss."""

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for how in ("one-shot", "recovered"):
            for strategy in config["strategies"]:
                own = chosen(rows, how=how, data=data, half=half, strategy=strategy)
                cells = []
                for claim, metrics in CLAIMS.items():
                    for pruned in (claim,) if claim != "instances" else ("semantic", "distance"):
                        cells.append(_within(own, pruned, metrics, config["loss"]))
                if own:
                    both = _within(own, "both", CLAIMS["instances"], config["loss"])
                    yield how, strategy, *cells, both

    return [
        f"## The largest compression ratio within {100 * config['loss']:g} %",
        "",
        f"Of {', '.join(f'{cr:g}' for cr in config['crs'])}, all smaller ones being within it too. "
        "Instances are within where AJI and PQ both are.",
        "",
        *table(
            (
                "data", "half (images)", "weights", "strategy", "semantic: Dice", "distance: R2",
                "instances, semantic branch pruned", "distance branch pruned", "both pruned",
            ),
            _each(rows, make),
        ),
    ]  # fmt: skip


def _within(rows: Sequence[Row], pruned: str, metrics: Sequence[str], least: float) -> str:
    points = [
        # A branch's own score is the same whether the other is pruned or not.
        SweepPoint(r["strategy"], r["cr"], r["pruned"], _scores(r), _start(r, metrics))
        for r in rows
        if r["pruned"] == pruned or r["cr"] == 1
    ]
    found = largest_cr_within(points, metrics, least)
    return "-" if found is None else f"{found:g}"


def _scores(row: Row) -> dict[str, float | None]:
    return {key: row[key] for key in SCORES}


def _start(row: Row, metrics: Iterable[str]) -> dict[str, float | None]:
    """Return what a row's losses are against."""
    found: dict[str, float | None] = {}
    for metric in metrics:
        value, lost = row[metric], row[f"loss_{metric}"]
        # loss = 1 - now / start; where all is lost, any start says so.
        found[metric] = 1.0 if lost is None or lost >= 1 or not value else value / (1 - lost)
    return found


def _tuned(rows: Sequence[Row]) -> list[str]:
    own = chosen(rows, how="fine-tuned")
    if not own:
        return []

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(own, data=data, half=half):
            what = "both" if row["pruned"] == "both" else f"{row['pruned']} alone"
            head = row["strategy"], f"{row['cr']:g}", str(row["seed"] + 1), what
            yield *head, number(row["pq"]), number(row["aji"]), *(loss(row, m) for m in SCORES)

    return [
        "## Fine-tuned",
        "",
        "Losses are against the better of the dense network and the one with *more steps*, metric "
        "by metric. A branch alone is composed from maps that were there.",
        "",
        *table(
            (
                "data", "half (images)", "strategy", "CR", "seed", "pruned", "PQ", "AJI",
                *(f"loss of {name}, %" for name in SCORES.values()),
            ),
            _each(rows, make),
        ),
    ]  # fmt: skip


def slug(name: str) -> str:
    """Return a folder's name for a row of the ablation."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _curves(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    text = ["## Over compression ratios", "", "Both branches pruned, all validation patients.", ""]
    for how in ("one-shot", "recovered"):
        for data in _sets(rows):
            own = chosen(rows, how=how, data=data, half="both halves", pruned="both", seed=0)
            if not own:
                continue
            lines = []
            for cr in config["crs"]:
                line = [f"{cr:g}"]
                for strategy in config["strategies"]:
                    found = chosen(own, strategy=strategy, cr=cr)
                    line += [number(found[0][key]) for key in SCORES] if found else ["", "", "", ""]
                lines.append(line)
            head = [f"{s} {name}" for s in config["strategies"] for name in SCORES.values()]
            text += [f"### {data}, {how}", "", *table(("CR", *head), lines)]
    return text
