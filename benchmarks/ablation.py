"""What helps a training: python benchmarks/ablation.py [CONFIG] [-o runs/ablation].

Trains the configuration's base and its rows, each with one thing changed, from random weights, and
prints a table; ``benchmarks/study.py`` puts it into its page. Every run resumes, and a finished one
is not run again.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from markdown import table
from study_rows import number, slug

from napari_nucprune.training.config import Config, load_config
from napari_nucprune.training.fit import Fit
from napari_nucprune.training.mixture import prepare
from napari_nucprune.training.model_card import finish

HERE = Path(__file__).parent


def config_of(row: dict[str, Any], path: Path) -> Config:
    """Return the training of a row, checked as a recipe is."""
    about = tomllib.loads(path.read_text(encoding="utf-8"))
    changes = {k: v for k, v in row.items() if k not in ("name", "only")}
    config = load_config(path.parent / about["recipe"], changes=about["base"] | changes)
    data = tuple(d for d in config.data if d.layout in row.get("only", [d.layout]))
    return replace(config, name=slug(row["name"]), data=data)


def train(config: Config, everything: Config, folder: Path) -> dict[str, Any]:
    """Train a row to its end; return its scores on the validation patients of all sets."""
    fit = Fit(config, folder)
    fit.resume()
    own = prepare(config)
    fit.run(own.training, lambda text, done, total: print(f"{folder.name} {done}/{total} {text}"))
    config = replace(config, precision=fit.precision or config.precision)
    # A row may train on fewer sets; all are scored on the same patients.
    mixture = own._replace(validation=prepare(everything).validation)
    provenance = finish(config, fit.finished(), mixture, folder).provenance
    return {**provenance["metrics"], "row": row_of(config)}


def row_of(config: Config) -> Any:
    """Return all that a row's scores depend on, as it comes back from a file."""
    return _anywhere(json.loads(json.dumps(asdict(config), default=str)))


def _anywhere(row: Any) -> Any:
    """Return the same with the data folders' names alone: they may be reached in other ways."""
    data = [{**own, "path": Path(own["path"]).name} for own in row["data"]]
    return {**row, "data": data}


def is_of(result: Path, config: Config) -> bool:
    """Whether a file has the scores of this very training."""
    if not result.is_file():
        return False
    row = json.loads(result.read_text(encoding="utf-8")).get("row")
    if row is None:
        return False
    # A row from before a key was there has that key's default.
    before = json.loads(json.dumps(asdict(Config("", ()))))
    return bool(_anywhere(before | row) == row_of(config))


def ablation(config: Path, folder: Path) -> list[str]:
    """Return the table of ``benchmarks/ablation.py``'s rows that are trained.

    Parameters
    ----------
    config
        ``ablation.toml``.
    folder
        Where their scores lie.
    """
    about = tomllib.loads(config.read_text(encoding="utf-8"))
    base, left = about["base"], []
    found: dict[str, list[float]] = {}
    for row in about["row"]:
        path = folder / slug(row["name"]) / "scores.json"
        if not is_of(path, config_of(row, config)):
            left.append(row["name"])
            continue
        scores = json.loads(path.read_text(encoding="utf-8"))
        cells = [scores[f"{layout}, second half"] for layout in ("monuseg", "tnbc")]
        found[row["name"]] = [cell[k] for cell in cells for k in ("pq", "aji")]
    if not found:
        return [
            "## What helps the training",
            "",
            "`python benchmarks/ablation.py` has not run.",
            "",
        ]
    # What changes the seed alone is the base again.
    same = [row["name"] for row in about["row"] if not row.keys() - {"name", "seed"}]
    lines = []
    for name, scores in found.items():
        said = "the base" if name in same else ""
        if not said:
            said = ", ".join(
                against(scores[at], [found[own][at] for own in same if own in found])
                for at in (0, 2)
            )
        lines.append([name, *map(number, scores), said])
    return [
        "## What helps the training",
        "",
        "`python benchmarks/ablation.py`: both branches from random weights, "
        f"{base['steps']} steps of {base['batch']} crops of {base['crop']} px, seed "
        f"{base['seed']}; each row changes one thing of the first. Second halves of the "
        "validation patients, watershed fitted on the first. One run each. What the base's seeds "
        "differ by is chance: a row is better or worse where its PQ, on MoNuSeg and on TNBC, is "
        "further than that outside of theirs.",
        "",
        *table(("training", "MoNuSeg PQ", "AJI", "TNBC PQ", "AJI", "against the base"), lines),
        *([f"Not trained: {', '.join(left)}.", ""] if left else []),
    ]


def against(value: float, base: Sequence[float]) -> str:
    """Return whether a score is better or worse than the base's by more than chance."""
    if len(base) < 2:
        return "not known"
    chance = max(base) - min(base)
    if value > max(base) + chance:
        return "better"
    return "worse" if value < min(base) - chance else "chance"


def main() -> None:
    """Train what is not trained yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "ablation.toml")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--rows", nargs="+", type=int, help="numbers of those to train; all")
    options = parser.parse_args()
    about = tomllib.loads(options.config.read_text(encoding="utf-8"))
    everything = config_of({"name": "all"}, options.config)
    there = range(1, len(about["row"]) + 1)
    if unknown := [at for at in options.rows or () if at not in there]:
        parser.error(f"there is no row {unknown[0]}; {options.config.name} has 1 to {there[-1]}.")
    for row in (about["row"][at - 1] for at in options.rows or there):
        folder = options.output / slug(row["name"])
        folder.mkdir(parents=True, exist_ok=True)
        config = config_of(row, options.config)
        result = folder / "scores.json"
        if not is_of(result, config):
            scores = train(config, everything, folder)
            result.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    print("\n".join(ablation(options.config, options.output)))


if __name__ == "__main__":
    main()
