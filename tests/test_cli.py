"""The command line as a user calls it: files, exit codes, one sentence on stderr."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load
from napari_nucprune.cli import main
from napari_nucprune.synthetic import synthetic

FILES = {
    "semantic.tif",
    "distance.tif",
    "instances.tif",
    "overlay.png",
    "nuclei.csv",
    "run.json",
}


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def image(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
    path = tmp_path / "tissue.png"
    Image.fromarray(rgb).save(path)
    return path


def one_sentence(capsys):
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith("nucprune: ")
    assert "Traceback" not in err[0]
    return err[0]


def test_segment_writes_all_files_that_agree(image, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(image), "-o", str(out), "--cr", "5", "--json"]) == 0
    printed, said = capsys.readouterr()
    assert {p.name for p in out.iterdir()} == FILES
    run = json.loads((out / "run.json").read_text())
    assert json.loads(printed) == run
    labels = tifffile.imread(out / "instances.tif")
    assert labels.shape == (90, 130)
    assert labels.dtype == np.int32
    assert run["nuclei"] == labels.max() == len(np.unique(labels[labels > 0]))
    with (out / "nuclei.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + run["nuclei"]
    semantic = tifffile.imread(out / "semantic.tif")
    assert semantic.dtype == np.float32
    assert 0 <= semantic.min() <= semantic.max() <= 1
    assert not (semantic[labels > 0] < 0.43).any()  # the checkpoint's threshold is 0.4375
    assert run["cr"] == pytest.approx(5, rel=1e-3)
    # The pixel size is nowhere: it is assumed, aloud.
    assert run["mpp_assumed"] is True
    assert "assumed" in said


def test_segment_at_another_pixel_size_keeps_the_images_shape(image, tmp_path):
    out = tmp_path / "out"
    assert main(["segment", str(image), "-o", str(out), "--mpp", "0.5"]) == 0
    for name in ("semantic", "distance", "instances"):
        assert tifffile.imread(out / f"{name}.tif").shape == (90, 130)
    run = json.loads((out / "run.json").read_text())
    assert run["mpp_assumed"] is False
    assert run["mpp"] == [0.5, 0.5]


@pytest.mark.parametrize("tile", ["16", "32", "1024"])
def test_tiles_change_nothing(image, tmp_path, tile):
    assert main(["segment", str(image), "-o", str(tmp_path / "a")]) == 0
    assert (
        main(["segment", str(image), "-o", str(tmp_path / "b"), "--tile", tile, "--no-slide"]) == 0
    )
    a, b = (tifffile.imread(tmp_path / x / "semantic.tif") for x in "ab")
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cr", "0.5"], ["0.5", "at least 1"]),
        (["--cr", "nan"], ["nan"]),
        (["--cr", "1e9"], ["cannot reach", "largest"]),
        (["--cr", "5", "--cr-semantic", "2"], ["--cr"]),
        (["--strategy", "clever"], ["clever", "layer-wise", "network-wide"]),
        (["--cr", "2", "--keep", "nothing"], ["nothing"]),
        (["--checkpoint", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["--device", "tpu"], ["tpu", "cpu"]),
        (["--tile", "100"], ["100", "16"]),
        (["--threads", "0"], ["--threads"]),
        (["--mpp", "-1"], ["-1"]),
    ],
)
def test_wrong_options_give_one_sentence_and_no_files(image, tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    given = arguments if "--mpp" in arguments else [*arguments, "--mpp", "0.25"]
    assert main(["segment", str(image), "-o", str(out), *given]) == 2
    said = one_sentence(capsys)
    assert all(word in said for word in words), said
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("kind", ["missing", "text", "grey", "empty", "32 bits"])
def test_wrong_images(tmp_path, capsys, kind):
    path = tmp_path / "x.tif"
    if kind == "text":
        path.write_text("no image")
    elif kind == "grey":
        tifffile.imwrite(path, np.zeros((20, 20), np.uint8))
    elif kind == "empty":
        path.touch()
    elif kind == "32 bits":
        tifffile.imwrite(path, np.zeros((20, 20, 3), np.uint32), photometric="rgb")
    assert main(["segment", str(path), "-o", str(tmp_path / "out")]) == 2
    assert "x.tif" in one_sentence(capsys)


def test_output_that_is_a_file_or_below_one(image, tmp_path, capsys):
    (tmp_path / "file").touch()
    common = ["segment", str(image), "--mpp", "0.25", "-o"]
    assert main([*common, str(tmp_path / "file")]) == 2
    one_sentence(capsys)
    assert main([*common, str(tmp_path / "file" / "sub")]) == 3
    one_sentence(capsys)


def test_old_results_are_replaced_only_by_complete_new_ones(image, tmp_path, monkeypatch):
    from napari_nucprune.slides import outputs

    out = tmp_path / "out"
    assert main(["segment", str(image), "-o", str(out), "--mpp", "0.25"]) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(path, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_json", full)
    assert main(["segment", str(image), "-o", str(out), "--cr", "5", "--mpp", "0.25"]) == 3
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_prune_then_run_as_stored(image, tmp_path, capsys, quick):
    file = tmp_path / "pruned.safetensors"
    assert main(["prune", shipped.DEFAULT, "-o", str(file), "--cr", "8"]) == 0
    assert load(file).parent_sha256 == quick.sha256
    common = ["segment", str(image), "--mpp", "0.25", "-o"]
    assert main([*common, str(tmp_path / "a"), "--cr", "8"]) == 0
    assert main([*common, str(tmp_path / "b"), "--checkpoint", str(file)]) == 0
    a, b = (tifffile.imread(tmp_path / x / "semantic.tif") for x in "ab")
    np.testing.assert_array_equal(a, b)
    capsys.readouterr()
    assert main([*common, str(tmp_path / "c"), "--checkpoint", str(file), "--cr", "2"]) == 2
    assert "stored pruned at CR" in one_sentence(capsys)
    assert main(["info", str(file)]) == 0
    assert quick.sha256 in capsys.readouterr().out
    assert main(["prune", shipped.DEFAULT, "-o", str(file)]) == 2


def test_evaluate_pairs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "ab":
        rgb = rng.integers(0, 256, (64, 64, 3), np.uint8)
        labels = np.zeros((64, 64), np.uint16)
        labels[10:20, 10:20], labels[30:45, 20:40] = 1, 7
        for folder, array in (("images", rgb), ("labels", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{name}.png")
    result = tmp_path / "scores" / "r.json"
    command = ["evaluate", str(tmp_path), "--layout", "pairs", "--json", str(result)]
    assert main([*command, "--cr", "2"]) == 0
    printed, said = capsys.readouterr()
    assert "assumed" in said
    scores = json.loads(result.read_text())
    keys = "dice semantic_dice iou aji aji_plus dq sq pq f1 truth found"
    keys += " distance_mse distance_r distance_r2"
    for row in (scores["mean"], scores["pooled"], *scores["images"]):
        assert set(keys.split()) == set(row) - {"name", "patient"}
        assert not [key for key, value in row.items() if value is None]
    lines = {line[:18].strip(): line[18:].split() for line in printed.splitlines()[2:]}
    assert lines["AJI+"] == [f"{scores[k]['aji_plus']:.4g}" for k in ("mean", "pooled")]
    assert len(lines) == len(keys.split())
    assert max(map(len, printed.splitlines())) < 80
    assert [row["name"] for row in scores["images"]] == ["a", "b"]
    assert all(row["truth"] == 2 for row in scores["images"])
    assert scores["run"]["cr"] == pytest.approx(2, rel=1e-3)
    assert main(["evaluate", str(tmp_path / "scores"), "--layout", "pairs"]) == 2
    assert main(["evaluate", str(tmp_path), "--layout", "coco"]) == 2


def test_demo(image, tmp_path):
    out = tmp_path / "demo"
    assert main(["demo", str(image), "-o", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == {
        "table.csv",
        *(f"overlay-cr{cr}.png" for cr in (1, 5, 16)),
        *(f"instances-cr{cr}.tif" for cr in (1, 5, 16)),
    }


def test_demo_recovers_on_the_image_unless_told_not_to(tmp_path, capsys):
    """On tissue, the bundled network one-shot finds next to nothing at these ratios."""
    rgb = synthetic(seed=3, size=192)[0]
    tifffile.imwrite(tmp_path / "field.tif", rgb, photometric="rgb")
    counts = {}
    for how in ([], ["--one-shot"]):
        out = tmp_path / "demo"
        assert main(["demo", str(tmp_path / "field.tif"), "-o", str(out), *how]) == 0
        rows = [row.split(",") for row in (out / "table.csv").read_text().splitlines()]
        found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        counts[bool(how)] = [int(row["nuclei"]) for row in found]
        took = [float(row["recovery_seconds"]) > 0 for row in found]
        assert took == ([False] * 3 if how else [False, True, True])
        assert ("recovered on the image" in capsys.readouterr().out) == (not how)
        for file in out.iterdir():
            file.unlink()
        out.rmdir()
    assert counts[False][0] == counts[True][0] > 0
    assert counts[False][1] >= 0.8 * counts[False][0]
    assert counts[True][1] < 0.5 * counts[True][0]


def test_the_command_is_installed_and_says_one_line_for_a_missing_file():
    done = subprocess.run(
        [sys.executable, "-m", "napari_nucprune.cli", "segment", "no.tif", "-o", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no.tif" in done.stderr


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from napari_nucprune.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'napari', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
