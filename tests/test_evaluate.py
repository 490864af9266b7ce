"""Scoring a folder: each image's own recovery, damaged images, and one image in memory."""

import json
import weakref

import numpy as np
import pytest
from PIL import Image

from helpers import TINY, is_one_line, make_checkpoint, noise, write_two_nuclei
from napari_nucprune.cli import main
from napari_nucprune.datasets import evaluate as scoring
from napari_nucprune.datasets.base import Annotated, Entry, Folder
from napari_nucprune.datasets.pairs import read
from napari_nucprune.datasets.sweep import calibration_of
from napari_nucprune.doors import Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.pruning.recipe import Recipe
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.torch_runtime import TorchRuntime

NAMES = "abc"


@pytest.fixture
def pairs(tmp_path):
    return write_two_nuclei(tmp_path / "data", NAMES)


def command(pairs, *more):
    return ["evaluate", str(pairs), "--layout", "pairs", "--mpp", "0.25", *more]


def glass(pairs, name):
    Image.fromarray(np.full((64, 64, 3), 245, np.uint8)).save(pairs / "images" / f"{name}.png")


def refusal(capsys):
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert is_one_line(line)
    return line


# Recovery on each image ------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_every_image_is_recovered_on_itself(pairs, tmp_path, capsys):
    """As `sweep` does it, and as on the image by its name."""
    target = tmp_path / "r.json"
    each = command(pairs, "--cr", "3", "--json", str(target))
    assert main([*each, "--recover", "each"]) == 0
    assert "3 images of pairs, layer-wise CR 3, recovered on" in capsys.readouterr().out
    found = json.loads(target.read_text())
    assert found["run"]["recover"] == "each"
    assert found["run"]["recovery"]["origin"] == "each image itself"
    assert found["run"]["recovery"]["select_stages"] > 0
    swept = ["sweep", *command(pairs)[1:], "--cr", "3", "--strategy", "layer-wise", "--together"]
    assert main([*swept, "-o", str(tmp_path / "swept"), "--recover", "each"]) == 0
    theirs = json.loads((tmp_path / "swept" / "sweep.json").read_text())
    for row in found["images"]:
        (point,) = (p for p in theirs["images"][row["name"]] if p["cr"] == 3)
        for key in ("aji", "pq", "semantic_dice", "distance_mse"):
            assert row[key] == pytest.approx(point[key], abs=1e-9), key
    own = str(pairs / "images" / "b.png")
    assert main([*each, "--recover", own, "--patients", "b"]) == 0
    (row,) = json.loads(target.read_text())["images"]
    assert row == pytest.approx(found["images"][1], abs=1e-9)


@pytest.mark.usefixtures("quick")
def test_an_image_without_tissue_is_left_out_and_said(pairs, tmp_path, capsys):
    target = tmp_path / "r.json"
    each = command(pairs, "--cr", "3", "--recover", "each", "--json", str(target))
    glass(pairs, "b")
    assert main(each) == 0
    printed, said = capsys.readouterr()
    assert "2 images of pairs" in printed
    assert "b is left out: " in said
    found = json.loads(target.read_text())
    assert found["complete"]
    assert [row["name"] for row in found["images"]] == ["a", "c"]
    assert list(found["left_out"]) == ["b"]
    assert "no tissue" in found["left_out"]["b"]
    target.unlink()
    for name in "ac":
        glass(pairs, name)
    assert main(each) == 2
    assert "None of 3 images" in refusal(capsys)
    assert not target.exists()


@pytest.mark.usefixtures("quick")
def test_each_without_a_cr_is_refused(pairs, capsys):
    assert main(command(pairs, "--recover", "each")) == 2
    assert "--cr X" in refusal(capsys)


@pytest.mark.parametrize("mpp", ["0", "-1", "nan"])
@pytest.mark.parametrize("layout", ["pairs", "monuseg"])
def test_a_pixel_size_that_is_none(layout, mpp, pairs, capsys):
    (pairs / "images").rename(pairs / "Tissue Images" if layout == "monuseg" else pairs / "images")
    assert main(["evaluate", str(pairs), "--layout", layout, "--mpp", mpp]) == 2
    assert f"The option mpp of {layout} is" in refusal(capsys)


# What stays where it is cut off ----------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_one_damaged_image_loses_nothing_of_the_others(pairs, tmp_path, capsys):
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    assert main(command(pairs, "--json", str(whole))) == 0
    wanted = json.loads(whole.read_text())
    assert wanted["complete"]
    assert [(row["name"], row["patient"]) for row in wanted["images"]] == [(n, n) for n in NAMES]
    damaged = pairs / "labels" / "c.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    capsys.readouterr()
    assert main(command(pairs, "--json", str(part))) == 2
    printed, said = capsys.readouterr()
    assert "Only 2 of 3 images of pairs" in printed
    assert said.count("\n") == 1
    assert "c.png" in said
    found = json.loads(part.read_text())
    assert not found["complete"]
    assert found["images"] == wanted["images"][:2]
    assert found["mean"]["pq"] == pytest.approx(np.mean([r["pq"] for r in found["images"]]))
    assert {path.name for path in tmp_path.iterdir()} >= {"whole.json", "part.json"}
    # Several: all are named at once.
    (pairs / "images" / "b.png").write_bytes(b"no image")
    assert main(command(pairs, "--json", str(part))) == 2
    said = capsys.readouterr().err
    assert "2 images cannot be read" in said
    first, second = said.splitlines()[-2:]
    assert "b.png" in first
    assert "c.png" in second
    assert len(json.loads(part.read_text())["images"]) == 1
    # The first one: there is nothing to write.
    part.unlink()
    (pairs / "images" / "a.png").write_bytes(b"no image")
    assert main(command(pairs, "--json", str(part))) == 2
    assert "3 images cannot be read" in capsys.readouterr().err
    assert not part.exists()


@pytest.mark.usefixtures("quick")
def test_what_the_user_stops_is_written_too(pairs, tmp_path, monkeypatch):
    target = tmp_path / "r.json"
    plain, runs = scoring.run_on, []

    def stopped(*args):
        runs.append(args)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(scoring, "run_on", stopped)
    assert main(command(pairs, "--json", str(target))) == 130
    found = json.loads(target.read_text())
    assert not found["complete"]
    assert [row["name"] for row in found["images"]] == ["a", "b"]


def test_cancelled_between_images(pairs, tiny):
    runtime = TorchRuntime("cpu")
    runtime.load(tiny)
    asked, kept = [], []

    def should_stop():
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Cancelled):
        scoring.evaluate(
            read(pairs), tiny, runtime, 0.25, should_stop=should_stop, cut_off=kept.append
        )
    (result,) = kept
    assert [row["name"] for row in result["images"]] == ["a"]


# Memory ----------------------------------------------------------------------------------------


class Watch:
    """Which of the objects that it was shown are still in memory."""

    def __init__(self):
        self.seen = []

    def __call__(self, *objects):
        self.seen += [weakref.ref(x) for x in objects]

    def alive(self):
        return sum(ref() is not None for ref in self.seen)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recover", [False, True])
def test_nothing_of_an_image_is_kept(recover, monkeypatch):
    """When an image is read, no pixels, labels, maps or weights of those before are there."""
    watch, networks, found = Watch(), Watch(), []
    dense = make_checkpoint(TINY, seed=1)
    pruning = Pruning("layer-wise", 2, 2)
    masks = Ranking(dense).masks(pruning)

    def entry(index):
        def annotated():
            found.append(watch.alive())
            assert networks.alive() <= 1  # the runtime holds what it loaded last
            labels = np.zeros((64, 64), np.int32)
            labels[8 : 20 + index, 8:20] = 1
            item = Annotated(f"{index:02}", "p", noise(index, 64, 64), labels, 0.25, "CC0")
            watch(item, item.rgb, item.labels)
            return item

        return Entry(f"{index:02}", "p", annotated)

    class Watched(TorchRuntime):
        def run(self, *args, **options):
            maps = super().run(*args, **options)
            watch(maps, maps.semantic, maps.distance)
            return maps

    def recovered(item):
        fitted = calibration_of(item, dense, Recipe(samples=64, samples_a_weight=1))
        network = fitted.recover(pruning, masks)
        watch(fitted)
        networks(network)
        return network

    runtime = Watched("cpu")
    runtime.load(dense, masks)
    folder = Folder("pairs", None, [entry(i) for i in range(12)])
    result = scoring.evaluate(folder, dense, runtime, recover=recovered if recover else None)
    assert len(result["images"]) == len(found) == 12
    assert found == [0] * 12
    assert len(watch.seen) == 12 * (7 if recover else 6)


def test_all_left_out_is_one_sentence(pairs, tiny):
    def refuses(item):
        raise InputError(f"{item.name} shows no tissue; give another image.")

    kept = []
    with pytest.raises(InputError, match="None of 3 images") as caught:
        scoring.evaluate(
            read(pairs), tiny, TorchRuntime("cpu"), recover=refuses, cut_off=kept.append
        )
    assert is_one_line(caught.value)
    assert not kept
