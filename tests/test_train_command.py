"""``nucprune train`` from a configuration to a checkpoint, through a kill."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import napari_nucprune
from napari_nucprune.checkpoint.format import load
from napari_nucprune.cli import main
from napari_nucprune.commands.train import interrupts
from napari_nucprune.synthetic import synthetic
from napari_nucprune.training import model_card
from napari_nucprune.training.config import Data, load_config
from napari_nucprune.training.fit import Fit
from napari_nucprune.training.mixture import prepare, titles

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


OTHER = """
[[data]]
layout = "pairs"
path = "other"
mpp = 0.25
validation = ["c", "d"]
"""


@pytest.mark.parametrize("name", ["", "CoNSeP"])
def test_two_sets_of_one_layout_are_scored_apart(name, folder):
    """Their files have the same names: each image must meet its own maps."""
    for seed, stem in enumerate("abcd"):
        rgb, labels = synthetic(seed=seed + 10, size=96)
        for kind, array in (("images", rgb), ("labels", labels.astype(np.uint16))):
            (folder / "other" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / "other" / kind / f"{stem}.png")
    with (folder / "config.toml").open("a") as file:
        file.write(OTHER + (f'name = "{name}"\n' if name else ""))
    assert train(folder, "run") == 0
    about = load(folder / "run" / "tiny.safetensors").provenance
    places = {"data": "pairs", "other": name} if name else {
        "data": "pairs (data)", "other": "pairs (other)"
    }  # fmt: skip
    assert set(about["metrics"]) == {
        f"{title}, {half}" for title in places.values() for half in ("second half", "both halves")
    }
    card = (folder / "run" / "tiny.md").read_text()
    for place, title in places.items():
        result = folder / f"{place}.json"
        command = ["evaluate", str(folder / place), "--layout", "pairs", "--mpp", "0.25"]
        command += ["--checkpoint", str(folder / "run" / "tiny.safetensors")]
        assert main([*command, "--json", str(result)]) == 0
        rows = {row["name"]: row for row in json.loads(result.read_text())["images"]}
        for stem in "cd":
            row = about["patients"][f"{title} {stem}"]
            assert row["semantic_dice"] == pytest.approx(rows[stem]["semantic_dice"], abs=1e-6)
            assert f"| {title} {stem} |" in card


def test_tables_are_told_apart():
    def of(*tables):
        return titles([Data(layout, Path(path), name=name) for layout, path, name in tables])

    assert of(("monuseg", "a", ""), ("pairs", "b", "CoNSeP")) == ["monuseg", "CoNSeP"]
    assert of(("pairs", "x/a", ""), ("pairs", "x/b", "")) == ["pairs (a)", "pairs (b)"]
    twice = of(("pairs", "x/a", ""), ("pairs", "y/a", ""), ("tnbc", "t", ""))
    assert twice == ["pairs (a) 1", "pairs (a) 2", "tnbc"]
    assert of(("tnbc", "a", ""), ("pairs", "b", "tnbc")) == ["tnbc (a)", "tnbc (b)"]


@pytest.mark.parametrize(("held", "alone"), [('["d"]', True), ('["c", "d"]', False)])
def test_a_set_with_one_patient_is_said_to_be_fitted_on_itself(held, alone, folder, capsys):
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('["c", "d"]', held))
    assert train(folder, "run") == 0
    said = capsys.readouterr().out
    card = (folder / "run" / "tiny.md").read_text()
    assert ("fitted on itself: it has one patient" in said) == alone
    assert ("pairs is fitted on itself" in card) == alone
    assert ("the first half fitted the watershed" in card) == (not alone)
    half = load(folder / "run" / "tiny.safetensors").provenance["patients"]["pairs d"]["half"]
    assert half == ("only" if alone else "second")


def test_a_training_without_validation_says_so(folder):
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('["c", "d"]', "[]"))
    assert train(folder, "run") == 0
    assert "nothing is scored" in (folder / "run" / "tiny.md").read_text()


def test_the_card_says_what_the_training_was_set_to(folder):
    config = folder / "config.toml"
    config.write_text(
        "lr = 0.002\nema = 0.5\nema_warmup = true\nborder = 3\nhalve_every = 4\n"
        + config.read_text()
    )
    assert train(folder, "run") == 0
    checkpoint = load(folder / "run" / "tiny.safetensors")
    (line,) = [x for x in model_card.card(checkpoint).splitlines() if x.startswith("- Settings")]
    assert line == (
        "- Settings: precision float32, lr 0.002, halve_every 4, border 3, ema 0.5, ema_warmup, "
        "scale 0.8 to 1.25, colour 1, stain 0"
    )
    # Checkpoints from before they were noted have a card, too.
    about = dict(checkpoint.provenance)
    for key in (
        "lr",
        "halve_every",
        "border",
        "ema",
        "ema_warmup",
        "precision",
        "scale",
        "colour",
        "stain",
        "fitted_on",
    ):
        del about[key]
    old = model_card.card(replace(checkpoint, provenance=about))
    assert "Settings" not in old
    assert "the first half fitted the watershed" in old


@pytest.mark.parametrize(("step", "says"), [(2, "at step 3"), (5, "before scoring")])
def test_ctrl_c_stops_after_the_step_and_the_same_command_goes_on(
    step, says, folder, capsys, monkeypatch
):
    assert train(folder, "whole") == 0
    before = signal.getsignal(signal.SIGINT)
    plain = Fit.train_step

    def interrupted(self, training):
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        plain(self, training)

    monkeypatch.setattr(Fit, "train_step", interrupted)
    capsys.readouterr()
    assert train(folder, "cut") == 130
    said = capsys.readouterr().err
    assert "stopping after this step" in said
    assert f"Stopped {says}; the same command goes on from here." in said
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert train(folder, "cut") == 0
    whole, cut = (load(folder / d / "tiny.safetensors") for d in ("whole", "cut"))
    assert whole.sha256 == cut.sha256


def test_a_second_ctrl_c_stops_at_once():
    with interrupts() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts() as should_stop:
            signal.raise_signal(signal.SIGINT)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGINT, before)


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
