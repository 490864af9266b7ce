"""The command `sweep`: it agrees with `evaluate`, goes on where it was cut off, and refuses."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from helpers import write_two_nuclei
from napari_nucprune.cli import main
from napari_nucprune.compare.sweep_points import SweepPoint
from napari_nucprune.datasets import sweep as folders


@pytest.fixture
def pairs(tmp_path):
    return write_two_nuclei(tmp_path / "data", "ab")


@pytest.mark.usefixtures("quick")
def test_the_command_agrees_with_evaluate(pairs, tmp_path, capsys):
    out = tmp_path / "out"
    common = [str(pairs), "--layout", "pairs", "--mpp", "0.25"]
    command = ["sweep", *common, "-o", str(out), "--strategy", "layer-wise, 2:4"]
    assert main([*command, "--cr", "1,3"]) == 0
    printed = capsys.readouterr().out
    assert "2 images of pairs" in printed
    assert {p.name for p in out.iterdir()} == {
        "sweep.csv", "images.csv", "sweep.json", "sweep.png", "sweep.svg",
    }  # fmt: skip
    assert Image.open(out / "sweep.png").size[0] > 1000
    assert "<svg" in (out / "sweep.svg").read_text()
    result = json.loads((out / "sweep.json").read_text())
    assert set(result["largest_cr_within_loss"]) == {"layer-wise", "2:4"}
    with (out / "sweep.csv").open() as file:
        rows = {(r["strategy"], r["cr"], r["pruned"]): r for r in csv.DictReader(file)}
    assert len(rows) == len(result["mean"]) == 2 * 4
    with (out / "images.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * len(rows)
    for side, crs in (
        ("both", ["--cr", "3"]),
        ("semantic", ["--cr-semantic", "3"]),
        ("distance", ["--cr-distance", "3"]),
    ):
        scores = tmp_path / "scores.json"
        assert main(["evaluate", *common, *crs, "--json", str(scores)]) == 0
        wanted = json.loads(scores.read_text())["mean"]
        row = rows["layer-wise", "3.0", side]
        assert {key: float(row[key]) for key in wanted} == pytest.approx(wanted, abs=1e-12), side


@pytest.mark.usefixtures("quick")
def test_the_command_recovers_and_bisects(pairs, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["sweep", str(pairs), "--layout", "pairs", "--mpp", "0.25", "-o", str(out)]
    command += ["--cr", "1,8", "--strategy", "layer-wise", "--together"]
    assert main(command) == 0
    plain = json.loads((out / "sweep.json").read_text())
    options = ["--recover", str(pairs / "images"), "--bisect", "--loss", "0.5"]
    assert main([*command, *options]) == 0
    recovered = json.loads((out / "sweep.json").read_text())
    assert recovered["run"]["recover"] == str(pairs / "images")
    assert recovered["mean"][0] == plain["mean"][0]
    assert recovered["mean"][1] != plain["mean"][1]
    assert [row["pruned"] for row in recovered["mean"]] == ["both"] * 2
    capsys.readouterr()
    without = [part for part in command if part not in ("--mpp", "0.25")]
    assert main([*without, "--bisect"]) == 0
    said = capsys.readouterr().err
    assert said.count("pixel size is not set in 2 images (a first)") == 1


@pytest.mark.usefixtures("quick")
def test_a_sweep_that_was_cut_off_goes_on(pairs, tmp_path, capsys, monkeypatch):
    command = ["sweep", str(pairs), "--layout", "pairs", "--mpp", "0.25", "--cr", "1,3"]
    assert main([*command, "-o", str(tmp_path / "through")]) == 0
    images = []
    plain = folders.sweep

    def cut_off(runtime, checkpoint, field, *args, **options):
        images.append(field.rgb.tobytes())
        if len(images) == 2:
            raise KeyboardInterrupt
        return plain(runtime, checkpoint, field, *args, **options)

    monkeypatch.setattr(folders, "sweep", cut_off)
    out = tmp_path / "new" / "out"
    capsys.readouterr()
    assert main([*command, "-o", str(out)]) == 130
    assert [path.name for path in out.parent.iterdir()] == [".out.part.json"]
    assert main([*command, "-o", str(out)]) == 0
    assert "1 images were finished before" in capsys.readouterr().err
    assert len(images) == 3
    assert images[1] == images[2] != images[0]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    for name in ("sweep.csv", "images.csv"):
        assert (out / name).read_bytes() == (tmp_path / "through" / name).read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": 1, "points": {"a": [{}]}}', None])
def test_points_of_another_sweep_are_not_taken(text, tmp_path):
    path = tmp_path / "part.json"
    point = SweepPoint("layer-wise", 2.0, "both", {"pq": 0.5}, {"pq": None})
    first = folders.Kept(path, {"cr": (1, 2)})
    first.add("a", [point])
    assert folders.Kept(path, {"cr": (1, 2)}).points == {"a": [point]}
    assert folders.Kept(path, {"cr": (1, 4)}).points == {}
    if text is not None:
        path.write_text(text, encoding="utf-8")
        assert folders.Kept(path, {"cr": (1, 2)}).points == {}
        assert folders.Kept(path, 1).points == {}
    first.forget()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_every_image_recovered_on_its_own_tissue(pairs, tmp_path, capsys):
    """The same as on each image by its name; an image of glass is said, and left out."""
    command = ["sweep", str(pairs), "--layout", "pairs", "--mpp", "0.25", "--cr", "3"]
    command += ["--strategy", "layer-wise", "--together"]
    assert main([*command, "-o", str(tmp_path / "each"), "--recover", "each"]) == 0
    each = json.loads((tmp_path / "each" / "sweep.json").read_text())
    for name in "ab":
        own = str(pairs / "images" / f"{name}.png")
        assert main([*command, "-o", str(tmp_path / name), "--recover", own]) == 0
        one = json.loads((tmp_path / name / "sweep.json").read_text())
        assert one["images"][name] == each["images"][name]
    Image.fromarray(np.full((64, 64, 3), 245, np.uint8)).save(pairs / "images" / "a.png")
    capsys.readouterr()
    assert main([*command, "-o", str(tmp_path / "glass"), "--recover", "each"]) == 0
    assert "layer-wise CR 3 is left out" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--cr", "two"], "'two'"),
        (["--cr", "0.5"], "at least 1"),
        (["--cr", ","], "no compression ratio"),
        (["--strategy", "magic"], "magic"),
        (["--keep", "nothing"], "nothing"),
        (["--loss", "2"], "--loss"),
        (["--recover", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_one_sentence(pairs, tmp_path, capsys, wrong, says):
    out = tmp_path / "out"
    command = ["sweep", str(pairs), "--layout", "pairs", "--mpp", "0.25", "-o", str(out)]
    assert main([*command, *wrong]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not out.exists()
