"""``--recover`` as a user calls it: what is run, what is written down, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers import equal_weights
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.pruning.recipe import RESELECT, Recipe
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.samples import calibration_crops
from napari_nucprune.slides.crops import tissue_crops
from napari_nucprune.slides.source import Source
from napari_nucprune.synthetic import synthetic

pytestmark = pytest.mark.usefixtures("quick")

CR = ["--cr", "5"]
PRUNING = Pruning(cr_semantic=5, cr_distance=5)


@pytest.fixture(scope="module")
def rgb():
    return synthetic(2, 256, density=6e3)[0]


@pytest.fixture
def image(tmp_path, rgb):
    path = tmp_path / "tissue.png"
    Image.fromarray(rgb).save(path)
    return path


@pytest.fixture
def pairs(tmp_path, rgb):
    """A data set of two images; the folder of its images calibrates too."""
    folder = tmp_path / "set"
    labels = np.zeros((128, 128), np.uint16)
    labels[10:20, 10:20], labels[30:45, 20:40] = 1, 7
    for name, part in (("a", rgb[:128, :128]), ("b", rgb[128:, 128:])):
        for kind, array in (("images", part), ("labels", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
    return folder


def by_hand(checkpoint, rgb, recipe=RESELECT):
    crops = tissue_crops(Source([rgb]), checkpoint.mpp)
    masks = Ranking(checkpoint).masks(PRUNING)
    return Calibration(checkpoint, crops, "tissue.png", recipe).recover(PRUNING, masks)


def refusal(capsys):
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("nucprune: ")
    return err[0]


def semantic_of(folder):
    return tifffile.imread(folder / "semantic.tif")


def test_prune_saves_what_was_recovered_and_it_runs_as_stored(quick, image, rgb, tmp_path, capsys):
    file = tmp_path / "recovered.safetensors"
    command = ["prune", shipped.DEFAULT, "-o", str(file), *CR, "--recover", str(image)]
    assert main(command) == 0
    printed, said = capsys.readouterr()
    assert "recovered on 4 crops of tissue.png" in printed
    assert said.count("\n") == 1
    assert "tissue.png" in said
    assert "0.25 um is assumed" in said
    found, expected = load(file), by_hand(quick, rgb)
    for branch in BRANCHES:
        for name, array in found.weights[branch].items():
            wanted = expected.weights[branch][name]
            np.testing.assert_allclose(array, wanted, rtol=1e-3, atol=1e-4)
            assert ((array == 0) == (wanted == 0)).all()
    assert found.parent_sha256 == quick.sha256
    assert found.pruning == json.loads(json.dumps(expected.pruning))
    nonzero = sum(
        np.count_nonzero(a) for w in found.weights.values() for n, a in w.items() if "weight" in n
    )
    assert f"kept {nonzero:,} of" in printed
    assert f"({file.stat().st_size / 1e6:.2f} MB)" in printed

    assert main(["info", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "4 crops of tissue.png" in line] == [
        "recovered   on 4 crops of tissue.png, weights reselected, without labels"
    ]
    assert next(json.loads(x[12:]) for x in lines if x.startswith("pruning")) == PRUNING.as_dict()

    common = ["segment", str(image), "--mpp", "0.25", "-o"]
    assert main([*common, str(tmp_path / "a"), *CR, "--recover", str(image)]) == 0
    assert main([*common, str(tmp_path / "b"), "--checkpoint", str(file)]) == 0
    np.testing.assert_allclose(semantic_of(tmp_path / "a"), semantic_of(tmp_path / "b"), atol=1e-3)
    runs = [json.loads((tmp_path / x / "run.json").read_text()) for x in "ab"]
    assert runs[0]["kept"] == runs[1]["kept"] == nonzero
    # What is stored says how it came about; what was not done now took no time.
    assert runs[1]["recovery"] == {k: v for k, v in runs[0]["recovery"].items() if k != "seconds"}


def test_without_reselection_the_mask_is_the_strategys(quick, image, rgb, tmp_path, capsys):
    file = tmp_path / "recovered.safetensors"
    command = ["prune", shipped.DEFAULT, "-o", str(file), *CR, "--recover", str(image)]
    assert main([*command, "--no-reselect"]) == 0
    assert "reselected" not in capsys.readouterr().out
    found, expected = load(file), by_hand(quick, rgb, Recipe())
    assert found.pruning["recovery"]["select_stages"] == 0
    for branch in BRANCHES:
        for layer, mask in Ranking(quick).masks(PRUNING)[branch].items():
            name = f"{layer}.weight"
            np.testing.assert_array_equal(found.weights[branch][name] != 0, mask)
            wanted = expected.weights[branch][name]
            np.testing.assert_allclose(found.weights[branch][name], wanted, rtol=1e-3, atol=1e-4)


def test_segment_runs_the_recovered_network(quick, image, rgb, tmp_path, capsys):
    from napari_nucprune.runtime.torch_runtime import TorchRuntime
    from napari_nucprune.slides.field import take

    out = tmp_path / "out"
    command = ["segment", str(image), "-o", str(out), "--mpp", "0.25", *CR]
    assert main([*command, "--recover", str(image)]) == 0
    printed, said = capsys.readouterr()
    assert "layer-wise CR 5, recovered on 4 crops of tissue.png" in printed
    # --mpp holds for the image wherever it is named.
    assert not said
    run = json.loads((out / "run.json").read_text())
    assert run["recovery"].pop("seconds") > 0
    expected = by_hand(quick, rgb)
    assert run["recovery"] == expected.pruning["recovery"]
    assert run["pruning"] == PRUNING.as_dict()
    assert run["checkpoint"]["sha256"] == quick.sha256
    assert run["cr"] == pytest.approx(5, rel=1e-2)
    runtime = TorchRuntime("cpu")
    runtime.load(expected, None)
    field = take(Source([rgb]), 0.25).field
    semantic = semantic_of(out)
    np.testing.assert_allclose(semantic, runtime.run(field).semantic, atol=1e-3)

    assert main(command) == 0
    plain = json.loads((out / "run.json").read_text())
    assert plain["recovery"] is None
    assert plain["kept"] == run["kept"]
    runtime.load(apply(quick, PRUNING, Ranking(quick).masks(PRUNING)))
    np.testing.assert_allclose(semantic_of(out), runtime.run(field).semantic, atol=1e-5)
    assert np.abs(semantic_of(out) - semantic).max() > 0.01
    assert main([*command, "--recover", "none"]) == 0
    assert json.loads((out / "run.json").read_text())["recovery"] is None


def test_mpp_resamples_the_crops_of_the_same_image(image, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(image.read_bytes())
    for path, crops in ((image, 16), (other, 4)):
        out = tmp_path / path.stem
        command = ["segment", str(image), "-o", str(out), "--mpp", "0.5", *CR]
        assert main([*command, "--recover", str(path)]) == 0
        assert json.loads((out / "run.json").read_text())["recovery"]["crops"] == crops


def test_evaluate_on_the_folder_of_images(pairs, tmp_path, capsys):
    result = tmp_path / "r.json"
    command = ["evaluate", str(pairs), "--layout", "pairs", "--json", str(result)]
    recover = ["--recover", str(pairs / "images")]
    assert main([*command, "--cr", "8", *recover]) == 0
    printed, said = capsys.readouterr()
    assert "2 images of pairs, layer-wise CR 8, recovered on 2 crops of images" in printed
    assert "pixel size is not set in 2 images (a.png first)" in said
    scores = json.loads(result.read_text())
    about = scores["run"]["recovery"]
    assert (about["crops"], about["side"], about["origin"]) == (2, 128, "images")
    assert main([*command, "--cr", "8"]) == 0
    plain = json.loads(result.read_text())
    assert plain["run"]["recovery"] is None
    assert plain["mean"] != scores["mean"]
    capsys.readouterr()
    assert main([*command, "--cr", "8", "--mpp", "0.25", *recover]) == 0
    assert not capsys.readouterr().err


def test_the_bundled_tissue_needs_no_image(quick, tmp_path, capsys):
    file = tmp_path / "small.safetensors"
    command = ["prune", shipped.DEFAULT, "-o", str(file), *CR, "--recover", "bundled"]
    assert main(command) == 0
    assert "recovered on 16 crops of the bundled tissue" in capsys.readouterr().out
    found = load(file)
    assert found.pruning["recovery"]["origin"] == "the bundled tissue"
    masks = Ranking(quick).masks(PRUNING)
    expected = Calibration(quick, calibration_crops(), recipe=RESELECT).recover(PRUNING, masks)
    for branch in BRANCHES:
        for name, array in expected.weights[branch].items():
            np.testing.assert_allclose(found.weights[branch][name], array, rtol=1e-3, atol=1e-4)


def test_what_was_recovered_can_be_pruned_further(image, tmp_path):
    first, second = (tmp_path / f"{x}.safetensors" for x in "ab")
    recover = ["--recover", str(image)]
    assert main(["prune", shipped.DEFAULT, "-o", str(first), "--cr", "4", *recover]) == 0
    assert main(["prune", str(first), "-o", str(second), "--cr", "8", *recover]) == 0
    a, b = load(first), load(second)
    assert b.parent_sha256 == a.parent_sha256
    assert b.own_cr["semantic"] == pytest.approx(8, rel=0.02)
    for branch in BRANCHES:
        for name, array in b.weights[branch].items():
            assert name.endswith("bias") or not (array[a.weights[branch][name] == 0]).any()
    assert not equal_weights(a, b)


@pytest.mark.parametrize("command", ["segment", "evaluate", "prune"])
@pytest.mark.parametrize("recover", ["bundled", "tissue"])
def test_recovery_without_a_cr_is_refused(command, recover, image, pairs, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    arguments = {
        "segment": [str(image), "-o", str(out)],
        "evaluate": [str(pairs), "--layout", "pairs"],
        "prune": [shipped.DEFAULT, "-o", str(out)],
    }[command]
    given = recover if recover == "bundled" else str(image)
    assert main([command, *arguments, "--recover", given]) == 2
    assert "--cr X" in refusal(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nowhere", ["'nowhere'", "bundled"]),
        ("", ["''", "bundled"]),
        ("glass.png", ["glass.png", "no tissue"]),
        ("tiny.png", ["tiny.png", "20 x 300"]),
        ("text.txt", ["text.txt", "cannot be read"]),
        ("empty", ["empty", "no images"]),
        ("few.png", ["samples", "larger"]),
    ],
)
def test_wrong_calibrations(what, words, image, tmp_path, capsys, monkeypatch, rgb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.full((300, 300, 3), 244, np.uint8)).save("glass.png")
    Image.fromarray(rgb[:20, :].repeat(2, 1)[:, :300]).save("tiny.png")
    tifffile.imwrite("few.png", rgb[:32, :32])
    Image.fromarray(rgb[:32, :32]).save("few.png")
    cr = "1.1" if what == "few.png" else "5"
    out = tmp_path / "out"
    command = ["segment", str(image), "-o", str(out), "--mpp", "0.25", "--cr", cr]
    assert main([*command, "--recover", what]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in said for word in words), said
    assert not out.exists()


def test_wrong_options_are_told_before_the_crops_are_read(image, tmp_path, monkeypatch, capsys):
    from napari_nucprune.commands import recovering

    def read(*_):
        raise AssertionError("work began")

    monkeypatch.setattr(recovering, "_crops", read)
    command = ["segment", str(image), "-o", str(tmp_path / "out"), "--recover", str(image)]
    large = [*CR, "--no-slide", "--mpp", "100"]  # um a pixel: far too large for one run
    for wrong in (["--cr", "0.5"], [*CR, "--device", "tpu"], [*CR, "--threads", "0"], large):
        assert main([*command, *wrong]) == 2
        refusal(capsys)


def test_info_of_a_recovery_that_says_little(quick, tmp_path, capsys):
    masks = Ranking(quick).masks(PRUNING)
    pruned = apply(quick, PRUNING, masks)
    file = tmp_path / "x.safetensors"
    save(replace(pruned, pruning={**pruned.pruning, "recovery": {"method": "refit"}}), file)
    assert main(["info", str(file)]) == 0
    assert "recovered   on crops of tissue that is not named" in capsys.readouterr().out
