"""The study of recovery without labels: python benchmarks/recovery.py [-o docs/recovery.md].

Scores the bundled checkpoint on its MoNuSeg validation patients, pruned one-shot and recovered
without labels. Every run is kept in ``runs/recovery.json``: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markdown import table
from recovery_parts import parts

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.datasets.base import Annotated
from napari_nucprune.datasets.evaluate import count_image, run_on
from napari_nucprune.datasets.registry import open_folder
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.files import replacing
from napari_nucprune.pruning.recipe import RESELECT, Recipe
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.samples import calibration_crops
from napari_nucprune.slides.crops import tissue_crops
from napari_nucprune.slides.source import Source
from napari_nucprune.training.model_card import halves

CURVE = (2, 4, 5, 8, 10, 16, 20, 32, 64)
STRATEGIES = ("layer-wise", "network-wide")
AT = (("layer-wise", 8), ("network-wide", 16))
SOURCES_AT = (*AT[:1], ("network-wide", 8), *AT[1:])
COUNTS = (1, 4, 16, 64)
VARIANTS = {
    "the strategy's weights, plain least squares": Recipe(relu_steps=0, by_effect=False),
    "two steps to what ReLU lets through": Recipe(by_effect=False),
    "and places by their effect": Recipe(),
    "weights chosen anew, all places and channels alike": replace(RESELECT, by_effect=False),
    "weights chosen anew by effect (the default)": RESELECT,
    "in one stage": replace(RESELECT, select_stages=1),
    "in five": replace(RESELECT, select_stages=5),
    "a second step to what ReLU lets through": replace(RESELECT, relu_steps=2),
    "twice the samples": replace(RESELECT, samples=6000, samples_a_weight=10),
    "half the samples": replace(RESELECT, samples=1500, samples_a_weight=2.5),
}
KEYS = ("pq", "aji", "dice", "r2", "seconds")


def crops_of(item: Annotated, mpp: float, count: int = 16) -> np.ndarray:
    """Return crops of one image."""
    return tissue_crops(Source([item.rgb], (item.mpp, item.mpp), item.name), mpp, count, 128)


class Study:
    """Runs that are done once and kept."""

    def __init__(self, checkpoint: Checkpoint, items: list[Annotated], kept: Path) -> None:
        self.checkpoint = checkpoint
        self.items = items
        self.kept = kept
        self.runtime = AutoRuntime()
        self.ranking = Ranking(checkpoint)
        self.done: dict[str, dict[str, float]] = {}
        if kept.exists():
            self.done = json.loads(kept.read_text(encoding="utf-8"))
        self._dense: dict[str, Any] = {}
        self._calibrations: dict[tuple[str, str, Recipe], Calibration] = {}

    def dense_maps(self, item: Annotated) -> Any:
        """Return the dense network's maps and transform."""
        if item.name not in self._dense:
            self.runtime.load(self.checkpoint)
            self._dense[item.name] = run_on(item, self.checkpoint, self.runtime)
        return self._dense[item.name]

    def one(
        self,
        item: Annotated,
        strategy: str,
        cr: float,
        source: str = "",
        crops: Callable[[], np.ndarray] | None = None,
        recipe: Recipe = RESELECT,
    ) -> dict[str, float]:
        """Score one image at one CR; ``source`` names crops and recipe, '' is one-shot."""
        how = "" if crops is None else repr(recipe)
        key = "|".join((self.checkpoint.sha256[:12], item.name, strategy, f"{cr:g}", source, how))
        if key in self.done:
            return self.done[key]
        pruning = Pruning(strategy, cr, cr)
        masks = self.ranking.masks(pruning)
        seconds = 0.0
        if crops is not None:
            this = item.name, source, recipe
            if this not in self._calibrations:
                made = Calibration(self.checkpoint, crops(), source, recipe)
                self._calibrations = {this: made}
            started = time.perf_counter()
            pruned = self._calibrations[this].recover(pruning, masks)
            seconds = time.perf_counter() - started
        else:
            pruned = apply(self.checkpoint, pruning, masks)
        self.runtime.load(pruned)
        maps, transform = run_on(item, self.checkpoint, self.runtime)
        scores = count_image(item, maps, transform, self.checkpoint.merge).scores()
        dense = self.dense_maps(item)[0].distance
        result = {
            "pq": scores.pq,
            "aji": scores.aji,
            "dice": scores.dice,
            "r2": float(1 - np.mean((maps.distance - dense) ** 2) / dense.var()),
            "seconds": seconds,
        }
        self.done[key] = result
        with replacing(self.kept) as temporary:
            temporary.write_text(json.dumps(self.done, indent=0), encoding="utf-8")
        return result

    def mean(self, rows: Iterable[dict[str, float]]) -> dict[str, float]:
        """Return the mean over images of each figure (the median of R2: it has no lower end)."""
        rows = list(rows)
        out = {key: float(np.mean([row[key] for row in rows])) for key in KEYS}
        out["r2"] = float(np.median([row["r2"] for row in rows]))
        return out


def cells(found: dict[str, float], dense: dict[str, float]) -> list[str]:
    """Return the figures of a row, PQ also as loss against dense."""
    loss = 1 - found["pq"] / dense["pq"]
    return [
        f"{found['pq']:.3f} ({loss:+.1%})",
        *(f"{found[key]:.3f}" for key in ("aji", "dice")),
        f"{max(found['r2'], -9.99):.3f}",
    ]


def main() -> None:
    """Run what is not done yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/recovery.md"))
    parser.add_argument("--kept", type=Path, default=Path("runs/recovery.json"))
    parser.add_argument("--half", choices=["second", "both"], default="second")
    parser.add_argument(
        "--only", choices=["curve", "variants", "parts", "sources", "all"], default="all"
    )
    options = parser.parse_args()
    options.kept.parent.mkdir(parents=True, exist_ok=True)

    checkpoint = open_checkpoint()
    held = {d["layout"]: d["validation"] for d in checkpoint.provenance["data"]}
    everything = list(open_folder(options.data / "MoNuSeg/MoNuSegTrainingData", "monuseg"))
    by_patient = {item.patient: item for item in everything}
    validation = [by_patient[patient] for patient in held["monuseg"]]
    items = validation if options.half == "both" else halves(validation)[1]
    study = Study(checkpoint, items, options.kept)
    mpp = checkpoint.mpp

    dense = study.mean(
        {
            **count_image(i, *study.dense_maps(i), checkpoint.merge).scores().as_dict(),
            "r2": 1.0,
            "seconds": 0.0,
        }
        for i in items
    )
    lines = [
        "# Recovery without labels",
        "",
        "Written by `python benchmarks/recovery.py`; every figure is measured by it.",
        "",
        f"`{checkpoint.name}` (weights `{checkpoint.sha256[:12]}`) on {len(items)} MoNuSeg images "
        f"of held-out patients ({options.half} {'half' if options.half == 'second' else 'halves'} "
        f"of the fixed list). Dense: PQ {dense['pq']:.3f}, AJI {dense['aji']:.3f}, Dice "
        f"{dense['dice']:.3f}. PQ, AJI and Dice are against the ground truth (mean over images; "
        "in brackets the relative change of PQ, plus is loss), R2 is that of the distance map "
        "against the dense network's own (median over images). Recovered: on 16 crops of 128 px "
        "of the image itself, the weights chosen anew, both branches at the same CR. What else was "
        "tried at large CR is in [another table](recovery-tries.md).",
        "",
    ]
    if options.only in ("curve", "all"):
        for strategy in STRATEGIES:
            rows = []
            for cr in CURVE:
                plain = study.mean(study.one(i, strategy, cr) for i in items)
                own = study.mean(
                    study.one(i, strategy, cr, "own", lambda i=i: crops_of(i, mpp)) for i in items
                )
                print(strategy, cr, "one-shot", cells(plain, dense), "recovered", cells(own, dense))
                rows.append([str(cr), *cells(plain, dense), *cells(own, dense)])
            head = ["CR", *(f"{kind} {k}" for kind in ("one-shot", "recovered")
                            for k in ("PQ", "AJI", "Dice", "R2"))]  # fmt: skip
            lines += [f"## {strategy.capitalize()}", "", *table(head, rows)]
            options.output.write_text("\n".join(lines), encoding="utf-8")
    if options.only in ("variants", "all"):
        lines += variants(study, items, mpp, dense)
        options.output.write_text("\n".join(lines), encoding="utf-8")
    if options.only in ("parts", "all"):
        about, head, rows = parts(checkpoint, crops_of(items[0], mpp), AT)
        lines += ["## What each part costs", "", about, "", *table(head, rows)]
        print(*lines[-12:], sep="\n")
    if options.only in ("sources", "all"):
        lines += sources(study, items, options.data, mpp, dense)
    options.output.write_text("\n".join(lines), encoding="utf-8")
    print(f"wrote {options.output}")


def variants(
    study: Study, items: list[Annotated], mpp: float, dense: dict[str, float]
) -> list[str]:
    """Return the section on ways to refit."""
    head = ["refit", *(f"{s} CR {cr}: {k}" for s, cr in AT for k in ("PQ", "R2", "s"))]
    rows = []
    for name, recipe in VARIANTS.items():
        row = [name]
        for strategy, cr in AT:
            found = study.mean(
                study.one(i, strategy, cr, "own", lambda i=i: crops_of(i, mpp), recipe)
                for i in items
            )
            figures = cells(found, dense)
            row += [figures[0], figures[3], f"{found['seconds']:.2f}"]
        print(row)
        rows.append(row)
    about = (
        "Seconds are for both branches on this machine, the dense responses being there; mean of "
        "the images, nothing else running."
    )
    return ["## How to refit", "", about, "", *table(head, rows)]


def gram_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of the layers' Gram matrices, single precision, one triangle of each."""
    inputs = [
        x.shape[0] if x.name.startswith("up.") else int(np.prod(x.shape[1:]))
        for b in BRANCHES
        for x in checkpoint.layers(b)
    ]
    return sum(2 * n * (n + 1) for n in inputs)


def sources(
    study: Study, items: list[Annotated], data: Path, mpp: float, dense: dict[str, float]
) -> list[str]:
    """Return the sections on the number and the origin of crops."""
    head = ["crops", *(f"{s} CR {cr}: {k}" for s, cr in SOURCES_AT for k in ("PQ", "R2"))]

    def row(name: str, source: str, crops: Callable[[Annotated], np.ndarray]) -> list[str]:
        out = [name]
        for strategy, cr in SOURCES_AT:
            try:
                found = study.mean(
                    study.one(i, strategy, cr, source, lambda i=i: crops(i)) for i in items
                )
            except InputError:  # too few samples for so many kept weights
                out += ["refused", ""]
                continue
            figures = cells(found, dense)
            out += [figures[0], figures[3]]
        print(out)
        return out

    counts = [
        row(
            f"{n} of the image itself",
            "own" if n == 16 else f"own{n}",
            lambda i, n=n: crops_of(i, mpp, n),
        )
        for n in COUNTS
    ]
    tnbc = next(iter(open_folder(data / "TNBC", "tnbc")))
    other = {item.name: items[index - 1] for index, item in enumerate(items)}
    rows = [
        row("16 of ONE other slide", "other", lambda i: crops_of(other[i.name], mpp)),
        row("16 of one TNBC image", "tnbc", lambda i: crops_of(tnbc, mpp)),
        row("16 of the bundled tissue", "bundled", lambda i: calibration_crops()),
    ]
    return [
        "## How many crops",
        "",
        *table(head, counts),
        "## Whose crops",
        "",
        "What *bundled* takes is a picture, not the dense network's statistics: those would hold "
        "for one network only, the picture serves whichever checkpoint is loaded; and the Gram "
        f"matrices of this one's layers are {gram_bytes(study.checkpoint) / 1e6:.0f} MB.",
        "",
        *table(head, rows),
        "Weights that are chosen anew fit the tissue that they were chosen on: of another slide "
        "they lose several times as much, the more the higher the ratio. The dock takes crops of "
        "the slide itself, and so does `--recover` with the slide's own name.",
        "",
    ]


if __name__ == "__main__":
    main()
