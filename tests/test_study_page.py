"""The words, tables and ticks of the study's page, from rows that were made up."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

STUDY = Path(__file__).parents[1] / "benchmarks" / "study.py"
if not STUDY.exists():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.insert(0, str(STUDY.parent))
import ablation
import study_rows
import study_tables
import study_text
import study_training
from study_curves import Curve, Set, against_better, ahead, ends
from study_networks import training_of

from helpers import TINY, make_checkpoint
from napari_nucprune.compare.sweep_points import SweepPoint


def row(**losses):
    found = {}
    for metric, (value, low, high) in losses.items():
        found |= {f"loss_{metric}": value, f"loss_{metric}_low": low, f"loss_{metric}_high": high}
    return found


@pytest.mark.parametrize(
    ("aji", "pq", "said"),
    [
        ((0.01, 0.0, 0.015), (0.0, -0.01, 0.02), "holds"),
        ((0.01, 0.0, 0.015), (0.3, 0.25, 0.4), "does not hold"),
        ((0.01, 0.0, 0.015), (0.015, 0.0, 0.03), "not decided by so few images (under"),
        ((0.03, 0.01, 0.05), (0.015, 0.0, 0.03), "not decided by so few images (over"),
        ((0.03, None, None), (0.01, None, None), "not decided by so few images (over"),
    ],
)
def test_verdicts(aji, pq, said):
    assert study_rows.verdict(row(aji=aji, pq=pq), ("aji", "pq"), 0.02).startswith(said)


def test_losses_in_words():
    assert study_rows.loss(row(pq=(0.0123, -0.004, 0.05)), "pq") == "+1.2 (-0.4 to +5.0)"
    assert study_rows.loss(row(pq=(334.3, 20.0, 500.0)), "pq") == "> +999 (> +999 to > +999)"
    assert study_rows.loss(row(pq=(-0.02, None, None)), "pq") == "-2.0"


@pytest.mark.parametrize(
    ("losses", "largest"),
    [
        ({1: 0.0, 2: 0.01, 4: 0.02, 8: 0.03, 16: 0.01}, "4"),
        ({1: 0.0, 2: 0.01, 8: 0.01}, "2"),  # 4 is not there: what comes after does not count
        ({1: 0.0, 2: None, 4: 0.0}, "1"),
        ({2: 0.0}, "-"),
    ],
)
def test_the_largest_ratio_within_a_loss(losses, largest):
    rows = [
        {"cr": cr, "pruned": "both", **row(pq=(value, None, None))} for cr, value in losses.items()
    ]
    assert study_tables._within(rows, "both", ["pq"], 0.02, [1, 2, 4, 8, 16]) == largest


def points(name, values):
    return {image: [SweepPoint(name, 4.0, "both", own, own)] for image, own in values.items()}


def test_losses_are_against_the_better_dense_network_metric_by_metric():
    dense = {"a": {"pq": 0.5, "aji": 0.8}, "b": {"pq": 0.7, "aji": 0.6}}
    more = {"a": {"pq": 0.6, "aji": 0.1}, "b": {"pq": 0.7, "aji": 0.9}}
    tuned = {"a": {"pq": 0.3, "aji": 0.4}, "b": {"pq": 0.6, "aji": 0.3}}
    references = [Curve("x", "dense", name, (points(name, own),)) for name, own in
                  (("full", dense), ("more steps", more))]  # fmt: skip
    found = against_better(Curve("x", "fine-tuned", "LAMP", (points("LAMP", tuned),)), references)
    assert found.images[0]["a"][0].start == {"pq": 0.6, "aji": 0.8}
    assert found.images[0]["b"][0].start == {"pq": 0.7, "aji": 0.6}
    assert found.images[0]["b"][0].scores == tuned["b"]


def test_who_is_ahead():
    rng = np.random.default_rng(0)
    names = [f"i{k}" for k in range(12)]
    network = {n: {"pq": 0.5 + 0.2 * rng.random()} for n in names}
    for gain in (0.05, 0.0, -0.05):
        layer = {n: {"pq": v["pq"] + gain + rng.normal(0, 0.005)} for n, v in network.items()}
        curves = [
            Curve("x", "one-shot", "layer-wise", (points("layer-wise", layer),)),
            Curve("x", "one-shot", "network-wide", (points("network-wide", network),)),
        ]
        (found,) = ahead(curves, [Set("x", None, {}, frozenset())])
        assert found["cr"] == 4
        assert (found["least"] > 0, found["most"] < 0) == (gain > 0, gain < 0)
        mean = np.mean([v["pq"] for v in network.values()])
        assert found["least"] - 0.005 < gain / mean < found["most"] + 0.005


@pytest.mark.parametrize(
    ("layer", "network", "said"),
    [
        ([2, 5], [16, 64], "holds"),
        ([2, 5], [8], "holds at small ratios only"),
        ([8], [32], "holds at large ratios only"),
        ([2, 16], [4, 64], "does not hold"),
        ([], [], "does not hold"),
    ],
)
def test_the_order_of_the_strategies_in_words(layer, network, said):
    sides = {"a": [{"cr": cr} for cr in layer], "b": [{"cr": cr} for cr in network], "c": []}
    assert study_text._order(sides) == said


def test_what_goes_beyond_the_paper_is_said_of_every_network():
    about = {"how": "fine-tuned", "pruned": "both", "data": "set", "half": "both halves"}
    own = [
        {**about, "cr": 16, "strategy": "layer-wise", "trained": "long", "seed": seed,
         **row(aji=(0.01, 0.0, high), pq=(0.01, 0.0, high))}
        for seed, high in ((3, 0.015), (4, 0.03))
    ]  # fmt: skip
    text = "\n".join(study_text._ours(own, 0.02))
    assert "layer-wise, long, seed 3, set, both halves: AJI +1.0 (+0.0 to +1.5) %" in text
    assert text.count("**holds**") == 1
    assert "not decided" in text
    assert "(CR 32)" in text
    assert "None was trained" in text


def test_a_tick_is_at_the_largest_ratio_within_the_loss():
    one = {"pq": 1.0, "aji": 1.0, "semantic_dice": 1.0, "distance_r2": 1.0}
    own = [
        SweepPoint("LAMP", cr, "both", {**one, "pq": pq}, one)
        for cr, pq in ((1.0, 1.0), (2.0, 0.99), (4.0, 0.9), (8.0, 1.0))
    ]
    own.append(SweepPoint("LAMP", 2.0, "semantic", {**one, "pq": 0.1}, one))
    found = ends(own, 0.02)
    assert found["LAMP", "pq"] == 2
    assert found["LAMP", "aji"] == 8


def test_every_network_of_the_study_has_a_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["study_training.py", "--dry"])
    study_training.main()
    said = capsys.readouterr().out
    config = tomllib.loads((STUDY.parent / "study.toml").read_text(encoding="utf-8"))
    files = [f for table in config["tuned"] for f in table["files"]] + [config["control"]]
    files += [table["file"] for table in config["dense"]]
    folders = {study_training.folder(run) for run in config["run"]}
    assert {Path(f).parent.name for f in files if f.startswith("../runs/")} <= folders
    assert said.count("\n") == len(config["run"])


def test_what_a_run_goes_on_from_is_trained_before_it():
    base = STUDY.parent
    config = tomllib.loads((base / "study.toml").read_text(encoding="utf-8"))
    written = set()
    for run in config["run"]:
        recipe = tomllib.loads((base.parent / f"recipes/{run['recipe']}.toml").read_text("utf-8"))
        starts = [run.get("from", ""), recipe.get("prune", {}).get("start", "")]
        for start in (s for s in starts if s.endswith(".safetensors")):
            assert "/".join(Path(start).parts[-2:]) in written
        written.add(f"{study_training.folder(run)}/{recipe['name']}.safetensors")


def test_seeds_of_one_training_are_summed_up():
    about = {"data": "set", "pruned": "both", "strategy": "layer-wise", "images": 2, "patients": 1}
    own = [
        {**about, "half": half, "cr": cr, "trained": trained, "pq": pq, "aji": 2 * pq,
         "loss_pq": 0.5 - pq, "loss_aji": 0.0}
        for half in ("second half", "both halves")
        for cr, trained, pq in ((16, "long", 0.2), (16, "long", 0.4), (16, "short", 0.1),
                                (5, "long", 0.3))
    ]  # fmt: skip
    lines = [line for line in study_tables._over_seeds(own) if "| set |" in line]
    said = "| layer-wise | 16 | long | 2 | 0.300 (0.200, 0.400) | 0.600 (0.400, 0.800) |"
    said += " +20.0 (+10.0, +30.0) | +0.0 (+0.0, +0.0) |"
    assert len(lines) == 2
    assert all(line.endswith(said) for line in lines)
    assert study_tables._over_seeds([row for row in own if row["trained"] == "short"]) == []


def test_what_ships_is_no_further_seed():
    """Its weights are those of one of the runs, rounded."""
    network = make_checkpoint(TINY)
    steps = {training_of(network, ships=ships).steps for ships in (False, True)}
    assert steps == {"not noted", "not noted, as it ships"}


def test_what_came_from_another_dense_network_says_so():
    dense, other = make_checkpoint(TINY, seed=1), make_checkpoint(TINY, seed=2)
    tuned = replace(dense, parent_sha256=dense.sha256)
    assert training_of(tuned, dense).steps == "not noted"
    assert training_of(tuned, other).steps == "not noted, from an earlier dense network"


@pytest.mark.parametrize(
    ("value", "base", "said"),
    [
        (0.5, [0.3, 0.4], "chance"),
        (0.51, [0.3, 0.4], "better"),
        (0.19, [0.3, 0.4], "worse"),
        (0.9, [0.3], "not known"),
    ],
)
def test_a_row_of_the_ablation_against_chance(value, base, said):
    assert ablation.against(value, base) == said


def test_a_row_of_the_ablation_is_known_again_from_anywhere(tmp_path, monkeypatch):
    config = STUDY.parent / "ablation.toml"
    row = tomllib.loads(config.read_text(encoding="utf-8"))["row"][0]
    known = ablation.row_of(ablation.config_of(row, config))
    del known["stain"]  # a row from before there was such a key
    (tmp_path / "scores.json").write_text(json.dumps({"row": known}), encoding="utf-8")
    monkeypatch.chdir(config.parent)
    again = ablation.config_of(row, Path("ablation.toml"))
    assert ablation.is_of(tmp_path / "scores.json", again)
    other = ablation.config_of({**row, "seed": 5}, Path("ablation.toml"))
    assert not ablation.is_of(tmp_path / "scores.json", other)
