"""Dense rivals say what the network says, and the benchmark counts and writes what it should."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from helpers import QUICK, is_one_line, make_checkpoint, noise
from napari_nucprune.cli import RIVALS as NAMED
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.pruning.cost import cost
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.rivals import RIVALS, RivalMissing, open_rival
from napari_nucprune.runtime.torch_runtime import TorchRuntime
from napari_nucprune.runtime.versus import Matrix, rows

KEYS = (
    "runtime strategy cr branch size threads isa weights_kept compute_ratio median_ms min_ms runs "
    "max_abs_error"
)


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint(QUICK, seed=3)


@pytest.fixture
def onnx():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from napari_nucprune.runtime.onnx_runtime import OnnxRuntime

    return OnnxRuntime


def test_the_command_line_names_the_rivals():
    assert tuple(NAMED.split(", ")) == RIVALS


@pytest.mark.parametrize("name", ["torch", "torch-channels-last", "onnxruntime", "openvino"])
def test_rivals_say_what_the_network_says(name, checkpoint):
    import torch

    from napari_nucprune.checkpoint.unet import build

    rgb, weights = noise(2, 48, 64), checkpoint.weights["distance"]
    try:
        run = open_rival(name, weights, rgb, 1)
    except RivalMissing as error:
        pytest.skip(str(error))
    with torch.inference_mode():
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()
        wanted = build(weights).double()(x)[0, 0].numpy()
    np.testing.assert_allclose(run(), wanted, atol=1e-4)


def test_a_rival_that_is_not_installed_is_named(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepsparse", None)
    with pytest.raises(RivalMissing, match="deepsparse is missing") as caught:
        open_rival("deepsparse", checkpoint.weights["semantic"], noise(0, 16, 16), 1)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (150, 97)])
@pytest.mark.parametrize("tile", [32, 1024])
def test_onnx_runtime_is_torch(shape, tile, onnx, checkpoint):
    masks = Ranking(checkpoint).masks(Pruning("layer-wise", 2, 3))
    field = Field(noise(1, *shape), 0.25)
    plain, found = TorchRuntime("cpu"), onnx(1, tile)
    for own in (None, masks, None):
        plain.load(checkpoint, own)
        found.load(checkpoint, own)
        wanted, maps = plain.run(field), found.run(field)
        for branch in BRANCHES:
            np.testing.assert_allclose(getattr(maps, branch), getattr(wanted, branch), atol=1e-5)


def test_onnx_runtime_stops_between_tiles(onnx, checkpoint):
    runtime = onnx(1, 32)
    runtime.load(checkpoint)
    seen = []
    with pytest.raises(Cancelled):
        runtime.run(
            Field(noise(1, 64, 64), 0.25), lambda *a: seen.append(a), lambda: len(seen) == 2
        )
    assert seen == [("Processing tiles", 0, 4), ("Processing tiles", 1, 4)]
    with pytest.raises(InputError, match="um/px"):
        runtime.run(Field(noise(1, 64, 64), 0.5))


def test_rows_count_what_runs(checkpoint):
    ranking, groups, said = Ranking(checkpoint), [], []
    matrix = Matrix((32,), (1, 4), ("network-wide",), (1,), ("semantic", "both"), ("torch",), 3)
    found = rows(ranking, matrix, lambda s: noise(0, s, s), groups.append, said.append)
    assert [len(group) for group in groups] == [3, 3]
    assert not said
    assert [row for group in groups for row in group] == found
    pruning = Pruning("network-wide", 4, 4)
    spent = cost(checkpoint, pruning, ranking.masks(pruning))
    last = found[-1]
    assert (last["weights_kept"], last["branch"]) == (spent.kept, "both")
    assert last["compute_ratio"] == pytest.approx(spent.compute_ratio, abs=1e-3)
    for row in found:
        assert 0 < row["min_ms"] <= row["median_ms"]
        assert row["runs"] == 3
        assert row["max_abs_error"] < 1e-4
    assert [row["strategy"] for row in found] == 2 * [None, "network-wide", "network-wide"]


@pytest.mark.parametrize(
    "wrong",
    ["--size 100", "--size x", "--cr 0.5", "--cr 1e9", "--rivals fast", "--runs 0", "--branch left",
     "--threads 0", "--strategy none", "--json no/such/folder.json"],
)  # fmt: skip
def test_what_cannot_be_timed(wrong, quick, capsys):
    assert main(["bench", "--size", "32", "--rivals", "torch", "--runs", "1", *wrong.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nucprune: ")
    assert error.count("\n") == 1


def test_on_the_command_line(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepsparse", None)
    target = tmp_path / "rows.json"
    arguments = ["--size", "32", "--cr", "2,4", "--runs", "2", "--threads", "1"]
    arguments += ["--rivals", "torch,deepsparse", "--strategy", "layer-wise"]
    assert main(["bench", *arguments, "--json", str(target)]) == 0
    printed, said = capsys.readouterr()
    assert "deepsparse is missing" in said
    found = json.loads(target.read_text())["rows"]
    assert [row["runtime"] for row in found] == ["torch", "sparse", "sparse"]
    for row in found:
        assert list(row) == KEYS.split()
        assert f"{row['median_ms']:.1f}" in printed
