"""The words and tables of ``benchmarks/study.py``'s page: all of them from its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markdown import table

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.compare.sweep_points import CLAIMS

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
#: Columns of the table of the largest ratios: what keeps its score, and what is pruned for it.
WITHIN = (
    ("semantic", "semantic"),
    ("distance", "distance"),
    ("instances", "semantic"),
    ("instances", "distance"),
    ("instances", "both"),
)
IMAGES = "half (images of patients)"
#: What a branch that is not pruned cannot lose.
UNTOUCHED = {"semantic": ("distance_r2",), "distance": ("semantic_dice",), "both": ()}
HALVES = ("second half", "both halves")


def number(value: float | None) -> str:
    """Return a score; one far below 0 (a lost map's R2) as such."""
    if value is None:
        return ""
    return "< -9.99" if value < -9.99 else f"{value:.3f}"


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


def page(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    before: Sequence[Row],
    config: Mapping[str, Any],
    figures: Mapping[str, str],
    missing: Mapping[str, Sequence[str]],
    helped: Sequence[str] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    checkpoint
        The dense network that is pruned.
    rows
        As of ``study.csv``.
    before
        As of `study_curves.ahead`.
    config
        As of ``study.toml``.
    figures
        What they show, by their names without the suffix.
    missing
        Why something is left out, and what.
    helped
        The section of `ablation`.
    """
    text = [
        "# The study",
        "",
        "Written by `python benchmarks/study.py` from `benchmarks/study.toml`; every number is "
        "measured by it.",
        "",
        f"The dense network is `{checkpoint.name}` (`{checkpoint.sha256[:12]}`). Scores are means "
        "over images at their own size, against the annotations of patients who were not trained "
        "on. The first half of the patients fitted the watershed, the second half did not; on "
        "MoNuSeg's second half, though, the way to recover was chosen (docs/recovery.md). R2 is "
        "that of the distance map against the annotations' one. Losses are relative, in per cent, "
        "plus is loss, with the 95 % interval of a paired bootstrap over the images: images of one "
        "patient are alike, so that with few patients it is too narrow.",
        "",
        "- **one-shot**: the smallest weights go, the rest stays as it was;",
        "- **recovered**: the kept weights are refitted, without labels, to the dense network's "
        "responses on crops of the scored image itself, and chosen anew: as many of each layer as "
        "the strategy keeps there (random keeps its places);",
        "- **fine-tuned**: trained on after that, with labels and the dense network as teacher;",
        "- **LAMP** (Lee et al., ICLR 2021) scores magnitudes within layers and pools them; "
        "**random** is a single draw.",
        "",
    ]
    for why, left in missing.items():
        if left:
            text += [f"{why}, and so left out: {', '.join(left)}.", ""]
    text += _dense(rows)
    text += _claims(rows, config["loss"])
    text += _which(before)
    text += _largest(rows, config)
    text += _tuned(rows)
    text += helped
    text += _curves(rows, config)
    if figures:
        text += [
            "## Figures",
            "",
            "All validation patients. Solid: both branches pruned; dashed and dotted: one branch "
            f"alone. The line is {100 * config['loss']:g} % under the dense network that is "
            "pruned; of fine-tuned networks the first seed is drawn. Each is there as SVG too.",
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
            own = chosen(rows, data=data, half=half)[0]
            name = f"{half} ({own['images']} of {own['patients']})"
            found += [(data, name, *cells) for cells in make(data, half)]
    return found


def _dense(rows: Sequence[Row]) -> list[str]:
    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(rows, how="dense", data=data, half=half):
            yield row["strategy"], *(number(row[key]) for key in SCORES), row["trained"]

    text = "Steps are of the last training, after those that it went on from. "
    if chosen(rows, how="dense", strategy="more steps"):
        text += (
            "*more steps* is the dense network after further steps with itself as teacher, as the "
            "fine-tuned ones had them. "
        )
    text += (
        "Networks of fewer channels are what pruning competes with. What needs no training is "
        "scikit-image's colour deconvolution, Otsu's threshold and a watershed."
    )
    head = ("data", IMAGES, "network", *SCORES.values(), "weights; training")
    return ["## Dense networks", "", text, "", *table(head, _each(rows, make))]


def _claims(rows: Sequence[Row], least: float) -> list[str]:
    text = ["## The paper's claims", ""]
    for claim, cr, pruned in PAPER:
        side = "both branches" if pruned == "both" else f"the {pruned} branch"
        said = []
        for how in ("one-shot", "recovered", "fine-tuned"):
            found = chosen(rows, how=how, strategy="layer-wise", cr=cr, pruned=pruned, seed=1)
            for row in found:
                losses = " and ".join(f"{SCORES[m]} {loss(row, m)} %" for m in CLAIMS[claim])
                where = f"{row['data']}, {row['half']}"
                said.append(
                    f"- {how}, {where}: {losses}: **{verdict(row, CLAIMS[claim], least)}**."
                )
            if not found:
                none = "none was trained" if how == "fine-tuned" else "not run"
                said.append(f"- {how}: {none} at CR {cr}.")
        text += [
            f"**{100 * (1 - 1 / cr):.4g} % of the weights of {side} go (CR {cr}) with under "
            f"{100 * least:g} % loss in {WORDS[claim]}, layer-wise.**",
            "",
            *said,
            "",
        ]
    return text


def _which(before: Sequence[Row]) -> list[str]:
    """Return the paragraph on layer-wise against network-wide."""
    said = []
    for data, how in dict.fromkeys((row["data"], row["how"]) for row in before):
        own = [r for r in chosen(before, data=data, how=how) if r["least"] is not None]
        sides = {
            "layer-wise is ahead": [r for r in own if r["least"] > 0],
            "network-wide is ahead": [r for r in own if r["most"] < 0],
            "neither for sure": [r for r in own if r["least"] <= 0 <= r["most"]],
        }
        text = "; ".join(
            f"{side} at CR {', '.join(format(r['cr'], 'g') for r in found)}"
            for side, found in sides.items()
            if found
        )
        said.append(f"- {how}, {data}: {text}.")
    return [
        "**Layer-wise is slightly ahead at small ratios, network-wide at large ones.**",
        "",
        "PQ with both branches pruned, all images; ahead where the interval of the difference says "
        "so.",
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
                if own:
                    yield (
                        how,
                        strategy,
                        *(
                            _within(own, pruned, CLAIMS[claim], config["loss"], config["crs"])
                            for claim, pruned in WITHIN
                        ),
                    )

    return [
        f"## The largest compression ratio within {100 * config['loss']:g} %",
        "",
        f"Of {', '.join(f'{cr:g}' for cr in config['crs'])}, all smaller ones being within it too. "
        "Instances are within where AJI and PQ both are.",
        "",
        *table(
            (
                "data", IMAGES, "weights", "strategy", "semantic: Dice", "distance: R2",
                "instances, semantic branch pruned", "distance branch pruned", "both pruned",
            ),
            _each(rows, make),
        ),
    ]  # fmt: skip


def _within(
    rows: Sequence[Row], pruned: str, metrics: Sequence[str], least: float, crs: Sequence[float]
) -> str:
    """Return the largest ratio that loses at most the least, as all smaller ones do."""
    by = {r["cr"]: r for r in rows if r["pruned"] == pruned or r["cr"] == 1}
    best = None
    for cr in sorted(crs):
        lost = [by[cr][f"loss_{m}"] if cr in by else None for m in metrics]
        if any(value is None or value > least + 1e-12 for value in lost):
            break
        best = cr
    return "-" if best is None else f"{best:g}"


def _tuned(rows: Sequence[Row]) -> list[str]:
    own = chosen(rows, how="fine-tuned")
    if not own:
        return []

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(own, data=data, half=half):
            what = "both" if row["pruned"] == "both" else f"{row['pruned']} alone"
            yield (
                row["strategy"], f"{row['cr']:g}", str(row["seed"]), row["trained"], what,
                number(row["pq"]), number(row["aji"]),
                *("" if m in UNTOUCHED[row["pruned"]] else loss(row, m) for m in SCORES),
            )  # fmt: skip

    against = "the dense network"
    if chosen(rows, how="dense", strategy="more steps"):
        against = f"the better of {against} and *more steps*, metric by metric"
    head = (
        "data", IMAGES, "strategy", "CR", "seed", "training", "pruned", "PQ", "AJI",
        *(f"loss of {name}, %" for name in SCORES.values()),
    )  # fmt: skip
    return [
        "## Fine-tuned",
        "",
        f"Losses are against {against}. A branch alone is composed from maps that were there. "
        "Trainings differ in length, so that strategies and ratios do not compare with each other.",
        "",
        *table(head, _each(own, make)),
    ]


def slug(name: str) -> str:
    """Return a name for files: letters and digits, the rest as dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _curves(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    text = ["## Over compression ratios", "", "Both branches pruned, all validation patients.", ""]
    for how in ("one-shot", "recovered"):
        for data in _sets(rows):
            own = chosen(rows, how=how, data=data, half="both halves", pruned="both", seed=1)
            if not own:
                continue
            ran = [s for s in config["strategies"] if chosen(own, strategy=s)]
            lines = []
            for cr in config["crs"]:
                line = [f"{cr:g}"]
                for strategy in ran:
                    found = chosen(own, strategy=strategy, cr=cr)
                    line += [number(found[0][key]) for key in SCORES] if found else [""] * 4
                lines.append(line)
            head = [f"{s} {name}" for s in ran for name in SCORES.values()]
            text += [f"### {data}, {how}", "", *table(("CR", *head), lines)]
    return text
