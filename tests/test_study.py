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

from helpers import QUICK, make_checkpoint, smooth
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.cli import main

CONFIG = """
checkpoint = "dense.safetensors"
loss = 0.02
crs = [1, 2, 8]
strategies = ["layer-wise", "random"]
control = "control/control.safetensors"
control_is = "the dense one, a step longer."
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
[[tuned]]
strategy = "layer-wise"
cr = 4
files = ["other/tuned.safetensors"]
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
    again = ["train", str(folder / "tuned.toml"), "-o", str(folder / "other"), "--from", dense]
    assert main([*again, "--seed", "7"]) == 0
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
    found, other = [
        r
        for r in rows(folder / "kept" / "study.csv")
        if r["how"] == "fine-tuned" and r["half"] == "both halves" and r["pruned"] == "both"
    ]
    assert (found["seed"], other["seed"]) == ("0", "7")
    for name in ("aji", "pq", "semantic_dice", "distance_r2"):
        assert float(found[name]) == pytest.approx(wanted[name], abs=1e-6)


def test_the_page_says_what_is_not_there_and_the_second_run_keeps_it(folder, output):
    page = (folder / "study.md").read_text(encoding="utf-8")
    assert "Not trained, and so left out: runs/never, second/never." in page
    assert "*more steps*, metric by metric" in page
    assert "*more steps* is the dense one, a step longer." in page
    assert "| fine-tuned | layer-wise |" in page
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
    assert "tuned.safetensors was not fine-tuned after pruning" in done.stderr
    assert "Traceback" not in done.stderr
