"""The study's command, against the commands that a user has for the same figures."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import QUICK, make_checkpoint, smooth
from napari_nucprune.checkpoint.format import save
from napari_nucprune.cli import main

STUDY = Path(__file__).parents[1] / "benchmarks" / "study.py"
CONFIG = """
checkpoint = "dense.safetensors"
loss = 0.02
crs = [1, 2, 8]
strategies = ["layer-wise", "random"]
control = "runs/never.safetensors"
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
    return folder


def run(folder):
    command = [sys.executable, str(STUDY), str(folder / "study.toml")]
    command += ["-o", str(folder / "study.md"), "--kept", str(folder / "kept")]
    command += ["--ablation", str(folder / "none"), "--skip", "recovered"]
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
            assert found[key][name] == value, (key, name)


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
    assert "CR 16" in page  # the paper's claim, though it was not asked for here
    for name in ("one-shot", "ways"):
        for suffix in ("png", "svg"):
            assert (folder / "images" / f"study-made-up-{name}.{suffix}").is_file()
    again = run(folder)
    assert "Running" in output
    assert "Running" not in again
    assert (folder / "study.md").read_text(encoding="utf-8") == page


def test_the_second_half_is_of_the_later_patients(folder, output):
    found = {r["half"]: r["images"] for r in rows(folder / "kept" / "study.csv")}
    assert found == {"second half": "2", "both halves": "3"}
