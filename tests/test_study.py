"""The study's command, against the commands that a user has for the same figures."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STUDY = Path(__file__).parents[1] / "benchmarks" / "study.py"
if not STUDY.exists():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.insert(0, str(STUDY.parent))
import study_rows
import study_tables
from study_curves import Curve, Set, against_better, ahead

from helpers import QUICK, make_checkpoint, smooth
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.cli import main
from napari_nucprune.compare.sweep_points import SweepPoint

CONFIG = """
checkpoint = "dense.safetensors"
loss = 0.02
crs = [1, 2, 8]
strategies = ["layer-wise", "random"]
control = "control/control.safetensors"
[[data]]
name = "Made up"
layout = "pairs"
path = "set"
mpp = 0.25
patients = ["a", "b", "c"]
[[tuned]]
strategy = "layer-wise"
cr = 4
files = ["tuned.safetensors", "second/never.safetensors"]
[[dense]]
name = "small"
file = "runs/never.safetensors"
"""
RECIPE = """
name = "tuned"
widths = [4, 8, 8, 8, 8]
steps = 1
batch = 1
crop = 32
precision = "float32"
[prune]
cr = 4
start = "one-shot"
[[data]]
layout = "pairs"
path = "set"
mpp = 0.25
validation = ["a"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for kind in ("images", "labels"):
        (folder / "set" / kind).mkdir(parents=True)
    for seed, name in enumerate("abc"):
        rgb = smooth(seed, 96, 112)
        labels = np.zeros((96, 112), np.uint8)
        labels[8:40, 8:40], labels[50:80, 60:100] = 1, 2
        Image.fromarray(rgb).save(folder / "set" / "images" / f"{name}.png")
        Image.fromarray(labels).save(folder / "set" / "labels" / f"{name}.png")
    save(make_checkpoint(QUICK, seed=2), folder / "dense.safetensors")
    (folder / "study.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "tuned.toml").write_text(RECIPE, encoding="utf-8")
    dense = str(folder / "dense.safetensors")
    assert main(["train", str(folder / "tuned.toml"), "-o", str(folder), "--from", dense]) == 0
    control = RECIPE.replace('"tuned"', '"control"').replace("cr = 4", "cr = 1")
    (folder / "control.toml").write_text(control, encoding="utf-8")
    command = ["train", str(folder / "control.toml"), "-o", str(folder / "control")]
    assert main([*command, "--from", dense]) == 0
    return folder


def run(folder, *more, page="study.md"):
    command = [sys.executable, str(STUDY), str(folder / "study.toml")]
    command += ["-o", str(folder / page), "--kept", str(folder / "kept")]
    command += ["--ablation", str(folder / "none"), *(more or ("--skip", "recovered"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def output(folder):
    return run(folder)


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_points_are_those_of_the_sweep_command(folder, output, tmp_path):
    out = tmp_path / "out"
    arguments = ["sweep", str(folder / "set"), "--layout", "pairs", "--mpp", "0.25"]
    arguments += ["--checkpoint", str(folder / "dense.safetensors"), "--cr", "1,2,8"]
    assert main([*arguments, "--strategy", "layer-wise,random", "-o", str(out)]) == 0
    wanted = {(r["strategy"], float(r["cr"]), r["pruned"]): r for r in rows(out / "sweep.csv")}
    found = {
        (r["strategy"], float(r["cr"]), r["pruned"]): r
        for r in rows(folder / "kept" / "study.csv")
        if r["how"] == "one-shot" and r["half"] == "both halves"
    }
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        for name, value in row.items():
            if name in ("strategy", "pruned") or not value:
                assert found[key][name] == value, (key, name)
            else:  # which runtime is taken is measured, and each rounds in its own way
                own = float(found[key][name])
                assert own == pytest.approx(float(value), rel=1e-4, abs=1e-6), (key, name)


def test_a_fine_tuned_network_is_scored_as_evaluate_scores_it(folder, output, capsys):
    import json

    target = folder / "evaluated.json"
    arguments = ["evaluate", str(folder / "set"), "--layout", "pairs", "--mpp", "0.25"]
    arguments += ["--checkpoint", str(folder / "tuned.safetensors"), "--json", str(target)]
    assert main(arguments) == 0
    wanted = json.loads(target.read_text(encoding="utf-8"))["mean"]
    (found,) = [
        r
        for r in rows(folder / "kept" / "study.csv")
        if r["how"] == "fine-tuned" and r["half"] == "both halves" and r["pruned"] == "both"
    ]
    for name in ("aji", "pq", "semantic_dice", "distance_r2"):
        assert float(found[name]) == pytest.approx(wanted[name], abs=1e-6)


def test_the_page_says_what_is_not_there_and_the_second_run_keeps_it(folder, output):
    page = (folder / "study.md").read_text(encoding="utf-8")
    assert "Not trained, and so left out: runs/never, second/never." in page
    assert "*more steps*, metric by metric" in page
    assert "- fine-tuned: none was trained at CR 16." in page
    for name in ("one-shot", "ways"):
        for suffix in ("png", "svg"):
            assert (folder / "images" / f"study-made-up-{name}.{suffix}").is_file()
    drawn = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    again = run(folder)
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == drawn
    assert "Running" in output
    assert "Running" not in again
    assert (folder / "study.md").read_text(encoding="utf-8") == page


def test_what_is_not_finished_is_said(folder, output):
    run(folder, "--finished", page="part.md")
    page = (folder / "part.md").read_text(encoding="utf-8")
    assert "Not finished, and so left out: Made up, recovered, layer-wise (0 of 3 images)" in page
    assert "### Made up, one-shot" in page


def test_the_second_half_is_of_the_later_patients(folder, output):
    found = {r["half"]: r["images"] for r in rows(folder / "kept" / "study.csv")}
    assert found == {"second half": "2", "both halves": "3"}


def test_the_control_keeps_the_watershed(folder):
    dense, control = (
        load(folder / "dense.safetensors"),
        load(folder / "control/control.safetensors"),
    )
    assert control.pruning is None
    assert control.merge == dense.merge
    assert control.sha256 != dense.sha256


def test_a_network_that_is_not_what_the_configuration_says(folder, output):
    wrong = folder / "wrong.toml"
    wrong.write_text(CONFIG.replace("cr = 4", "cr = 5"), encoding="utf-8")
    command = [sys.executable, str(STUDY), str(wrong), "-o", str(folder / "wrong.md")]
    command += ["--kept", str(folder / "kept"), "--skip", "recovered,one-shot"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "tuned.safetensors was not fine-tuned from" in done.stderr
    assert "Traceback" not in done.stderr


# --- words and numbers --------------------------------------------------------------------------


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
