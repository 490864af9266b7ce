"""``nucprune train`` from a configuration to a checkpoint, through a kill."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import napari_nucprune
from napari_nucprune.checkpoint.format import load
from napari_nucprune.cli import main
from napari_nucprune.synthetic import synthetic
from napari_nucprune.training import model_card
from napari_nucprune.training.config import load_config
from napari_nucprune.training.mixture import prepare

CONFIG = """
name = "tiny"
widths = [4, 8]
steps = {steps}
batch = 2
crop = 64
save_every = 2
threads = 1
precision = "float32"

[[data]]
layout = "pairs"
path = "data"
mpp = 0.25
licence = "CC0"
validation = ["c", "d"]
"""


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("abcd"):
        rgb, labels = synthetic(seed=seed, size=96)
        for kind, array in (("images", rgb), ("labels", labels.astype(np.uint16))):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / kind / f"{name}.png")
    (tmp_path / "config.toml").write_text(CONFIG.format(steps=6))
    return tmp_path


def train(folder, out):
    return main(["train", str(folder / "config.toml"), "-o", str(folder / out), "--device", "cpu"])


def test_training_writes_a_checkpoint_with_its_card(folder, capsys):
    assert train(folder, "run") == 0
    checkpoint = load(folder / "run" / "tiny.safetensors")
    assert checkpoint.provenance["data"][0]["licence"] == "CC0"
    assert set(checkpoint.provenance["patients"]) == {"pairs c", "pairs d"}
    assert checkpoint.provenance["patients"]["pairs d"]["half"] == "second"
    assert set(checkpoint.provenance["metrics"]) == {"pairs, second half", "pairs, both halves"}
    card = (folder / "run" / "tiny.md").read_text()
    data = checkpoint.provenance["data"][0]["sha256"]
    for word in ("CC0", "0.25 um/px", "6 steps", "pairs c", checkpoint.sha256, data[:12]):
        assert word in card
    assert checkpoint.provenance["precision"] == "float32"
    assert (folder / "run" / "log.csv").read_text().startswith("step,lr,")
    # The checkpoint is one that the other commands take.
    assert main(["info", str(folder / "run" / "tiny.safetensors")]) == 0
    assert "CC0" in capsys.readouterr().out


def test_the_metrics_of_the_card_are_those_of_evaluate(folder):
    assert train(folder, "run") == 0
    checkpoint = load(folder / "run" / "tiny.safetensors")
    result = folder / "scores.json"
    command = ["evaluate", str(folder / "data"), "--layout", "pairs", "--mpp", "0.25"]
    command += ["--checkpoint", str(folder / "run" / "tiny.safetensors"), "--json", str(result)]
    assert main(command) == 0
    rows = {row["name"]: row for row in json.loads(result.read_text())["images"]}
    for name in "cd":
        card = checkpoint.provenance["patients"][f"pairs {name}"]
        for key in ("aji", "pq", "semantic_dice"):
            assert card[key] == pytest.approx(rows[name][key], abs=1e-6)


def test_a_killed_run_goes_on_to_the_same_weights(folder):
    assert train(folder, "whole") == 0
    command = [sys.executable, "-m", "napari_nucprune.cli", "train", "config.toml"]
    command += ["-o", "killed", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    state = folder / "killed" / "state.pt"
    end = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert train(folder, "killed") == 0
    whole, killed = (load(folder / d / "tiny.safetensors") for d in ("whole", "killed"))
    assert whole.sha256 == killed.sha256


def test_folds_hold_out_every_patient_once(folder, capsys):
    held = []
    for fold in "12":
        command = ["train", str(folder / "config.toml"), "-o", str(folder / fold), "--fold"]
        assert main([*command, f"{fold}/2", "--device", "cpu"]) == 0
        about = load(folder / fold / "tiny.safetensors").provenance
        held.append({name.split()[1] for name in about["patients"]})
        assert set(about["data"][0]["validation"]) == held[-1]
    assert held[0] | held[1] == set("abcd")
    assert not held[0] & held[1]
    capsys.readouterr()
    for wrong in ("3/2", "0/2", "1/1", "1", "a/b", "9/9"):
        command = ["train", str(folder / "config.toml"), "-o", str(folder / "x"), "--fold", wrong]
        assert main(command) == 2, wrong
        said = capsys.readouterr().err
        assert said.count("\n") == 1, wrong
        assert "fold" in said.lower(), wrong


def test_a_set_is_known_by_its_pixels_and_licence(folder):
    config = load_config(folder / "config.toml")
    before = prepare(config).sets[0]
    assert before[0] == "CC0"
    assert prepare(config).sets[0] == before
    path = folder / "data" / "labels" / "b.png"
    labels = np.asarray(Image.open(path)).copy()
    Image.fromarray(labels).save(path, compress_level=1)
    assert prepare(config).sets[0] == before
    labels[3, 4] += 1
    Image.fromarray(labels).save(path)
    assert prepare(config).sets[0] != before


def test_the_commit_is_that_of_the_sources(monkeypatch):
    root = Path(napari_nucprune.__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not run from a git repository")
    said = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert model_card.commit().rstrip("+") == said.stdout.strip()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert model_card.commit() is None


def test_a_patient_that_is_not_there(folder, capsys):
    text = (folder / "config.toml").read_text().replace('"d"', '"x"')
    (folder / "config.toml").write_text(text)
    assert train(folder, "run") == 2
    assert "'x'" in capsys.readouterr().err


def test_one_branch_needs_a_checkpoint_for_the_other(folder, capsys):
    config = folder / "config.toml"
    config.write_text('branches = ["semantic"]\n' + config.read_text())
    assert train(folder, "one") == 2
    assert "--from" in capsys.readouterr().err
    assert not (folder / "one" / "state.pt").exists()
