"""The tables of ``benchmarks/study.py``'s page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from markdown import table
from study_rows import (
    IMAGES,
    REGRESSION,
    SCORES,
    Row,
    cell,
    chosen,
    each,
    loss,
    number,
    percent,
    sets,
)

from napari_nucprune.compare.sweep_points import CLAIMS

#: Columns of the table of the largest ratios: what keeps its score, and what is pruned for it.
WITHIN = (
    ("semantic", "semantic"),
    ("distance", "distance"),
    ("instances", "semantic"),
    ("instances", "distance"),
    ("instances", "both"),
)
#: What a branch that is not pruned cannot lose.
UNTOUCHED = {"semantic": ("distance_r2",), "distance": ("semantic_dice",), "both": ()}


def dense(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """Return the section on networks that are not pruned."""

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(rows, how="dense", data=data, half=half):
            scores = (cell(row, key) for key in (*SCORES, *REGRESSION))
            yield row["strategy"], *scores, row["trained"]

    text = "Steps are of the last training, after those that it went on from. "
    if chosen(rows, how="dense", strategy="more steps"):
        text += f"*more steps* is {config['control_is']} "
    text += (
        "Networks of fewer channels are what pruning competes with. What needs no training is "
        "scikit-image's colour deconvolution, Otsu's threshold and a watershed."
    )
    head = ("data", IMAGES, "network", *(SCORES | REGRESSION).values(), "weights; training")
    return ["## Dense networks", "", text, "", *table(head, each(rows, make))]


def largest(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """Return the table of the largest ratios within the loss."""

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for how in ("one-shot", "recovered", "fine-tuned"):
            for strategy in config["strategies"]:
                own = chosen(rows, how=how, data=data, half=half, strategy=strategy, place=1)
                crs = config["crs"]
                if how == "fine-tuned":  # few were trained
                    crs = sorted({row["cr"] for row in own})
                if own:
                    yield (
                        how,
                        strategy,
                        *(
                            _within(own, pruned, CLAIMS[claim], config["loss"], crs)
                            for claim, pruned in WITHIN
                        ),
                    )

    return [
        f"## The largest compression ratio within {100 * config['loss']:g} %",
        "",
        f"Of {', '.join(f'{cr:g}' for cr in config['crs'])}, all smaller ones being within it too. "
        "Instances are within where AJI and PQ both are. Fine-tuned: of the ratios that were "
        "trained, the first network of each.",
        "",
        *table(
            (
                "data", IMAGES, "weights", "strategy", "semantic: Dice", "distance: R2",
                "instances, semantic branch pruned", "distance branch pruned", "both pruned",
            ),
            each(rows, make),
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


def tuned(rows: Sequence[Row]) -> list[str]:
    """Return the section on fine-tuned networks; nothing where there are none."""
    own = chosen(rows, how="fine-tuned")
    if not own:
        return []

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for row in chosen(own, data=data, half=half):
            what = "both" if row["pruned"] == "both" else f"{row['pruned']} alone"
            yield (
                row["strategy"], f"{row['cr']:g}", _seed(row), row["trained"], what,
                *(cell(row, key) for key in ("pq", "aji", *REGRESSION)),
                *("" if m in UNTOUCHED[row["pruned"]] else loss(row, m) for m in SCORES),
            )  # fmt: skip

    against = "the dense network"
    if chosen(rows, how="dense", strategy="more steps"):
        against = f"the better of {against} and *more steps*, metric by metric"
    head = (
        "data", IMAGES, "strategy", "CR", "seed", "training", "pruned",
        "PQ", "AJI", *REGRESSION.values(),
        *(f"loss of {name}, %" for name in SCORES.values()),
    )  # fmt: skip
    return [
        "## Fine-tuned",
        "",
        f"Losses are against {against}. A branch alone is composed from maps that were there. "
        "Trainings differ in length, so that strategies and ratios do not compare with each other.",
        "",
        *table(head, each(own, make)),
        *_over_seeds(own),
    ]


def _seed(row: Row) -> str:
    return "" if row["seed"] is None else str(row["seed"])


def _over_seeds(own: Sequence[Row]) -> list[str]:
    """Return the table of the trainings that several seeds share, both branches pruned."""
    seeds = Counter(
        (row["strategy"], row["cr"], row["trained"])
        for row in chosen(own, data=own[0]["data"], half=own[0]["half"], pruned="both")
    )
    shared = [training for training, count in seeds.items() if count > 1]
    if not shared:
        return []

    def make(data: str, half: str) -> Iterable[Sequence[str]]:
        for strategy, cr, trained in shared:
            found = chosen(
                own, data=data, half=half, pruned="both", strategy=strategy, cr=cr, trained=trained
            )
            spans = (_span([row[key] for row in found], number) for key in ("pq", "aji"))
            losses = (
                _span([row[f"loss_{key}"] for row in found], percent) for key in ("pq", "aji")
            )
            yield strategy, f"{cr:g}", trained, str(len(found)), *spans, *losses

    head = ("data", IMAGES, "strategy", "CR", "training", "seeds", "PQ", "AJI",
            "loss of PQ, %", "loss of AJI, %")  # fmt: skip
    return ["Over seeds of one training, both branches pruned: the mean (from, to).", "",
            *table(head, each(own, make))]  # fmt: skip


def _span(values: Sequence[float | None], written: Callable[[float], str]) -> str:
    """Return the mean and the ends; nothing where a loss is of a score of 0."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    return f"{written(fmean(known))} ({written(min(known))}, {written(max(known))})"


def curves(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """Return the scores over the ratios, a table a data set and way."""
    text = ["## Over compression ratios", "", "Both branches pruned, all validation patients.", ""]
    for how in ("one-shot", "recovered"):
        for data in sets(rows):
            own = chosen(rows, how=how, data=data, half="both halves", pruned="both", place=1)
            if not own:
                continue
            ran = [s for s in config["strategies"] if chosen(own, strategy=s)]
            text += [f"### {data}, {how}", ""]
            for metrics in (SCORES, REGRESSION):
                lines = [[f"{cr:g}", *_at(own, ran, cr, metrics)] for cr in config["crs"]]
                head = [f"{s} {name}" for s in ran for name in metrics.values()]
                text += table(("CR", *head), lines)
    return text


def _at(rows: Sequence[Row], strategies: Sequence[str], cr: float, metrics: Any) -> Iterable[str]:
    """Return the scores of every strategy at a ratio; empty where it was not to be had."""
    for strategy in strategies:
        found = chosen(rows, strategy=strategy, cr=cr)
        yield from ((cell(found[0], key) if found else "") for key in metrics)
