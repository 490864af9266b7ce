"""Which runtime runs: chosen by multiply-adds and measured times, remembered, replaced where it fails."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from helpers import QUICK, TINY, is_one_line, make_checkpoint
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.native import NativeMissing
from napari_nucprune.pruning.cost import cost, macs
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime import auto, sparse_runtime, speed
from napari_nucprune.runtime.auto import AutoRuntime, open_runtime
from napari_nucprune.runtime.speed import Speed
from napari_nucprune.runtime.torch_runtime import TorchRuntime
from napari_nucprune.settings import VARIABLE

RGB = np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8)
FIELD = Field(RGB, 0.25)


@pytest.fixture
def checkpoint():
    return make_checkpoint(QUICK, seed=3)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "settings"))
    return tmp_path / "settings" / "speed.json"


def known(monkeypatch, found):
    monkeypatch.setattr(auto.speed, "remembered", lambda key: found)


def masks_at(checkpoint, cr):
    return Ranking(checkpoint).masks(Pruning("layer-wise", cr, cr))


def test_the_choice_depends_on_the_multiply_adds(checkpoint, monkeypatch):
    at = {cr: macs(checkpoint, masks_at(checkpoint, cr)) for cr in (2, 8)}
    # The kernels cost as much as torch between the two.
    between = (at[2] + at[8]) / 2
    known(monkeypatch, Speed(torch=between, fixed=0.0, per_mac=1.0))
    runtime = AutoRuntime("cpu")
    for cr, wanted in ((2, "torch"), (8, "sparse"), (2, "torch")):
        masks = masks_at(checkpoint, cr)
        runtime.load(checkpoint, masks)
        assert (runtime.name, runtime.note, runtime.device) == (wanted, "", "cpu")
        plain = TorchRuntime("cpu")
        plain.load(checkpoint, masks)
        found, expected = runtime.run(FIELD), plain.run(FIELD)
        for branch in BRANCHES:
            np.testing.assert_allclose(getattr(found, branch), getattr(expected, branch), atol=1e-4)


@pytest.mark.parametrize(("torch_time", "wanted"), [(2.0, "onnxruntime"), (1.0, "torch")])
def test_dense_is_the_quickest_dense_runtime(checkpoint, monkeypatch, torch_time, wanted):
    pytest.importorskip("onnxruntime")
    calls = []

    def measured(_, runtimes):
        calls.append([runtime.name for runtime in runtimes])
        return {"torch": torch_time, "onnxruntime": 1.5}

    monkeypatch.setattr(speed, "measure_dense", measured)
    for _ in range(2):  # the second one remembers
        runtime = AutoRuntime("cpu")
        runtime.load_dense(checkpoint)
        assert runtime.name == wanted
        runtime.load_dense(checkpoint)
    assert calls == [["torch", "onnxruntime"]]
    plain = TorchRuntime("cpu")
    plain.load(checkpoint)
    found, expected = runtime.run(FIELD), plain.run(FIELD)
    for branch in BRANCHES:
        np.testing.assert_allclose(getattr(found, branch), getattr(expected, branch), atol=1e-5)


def test_dense_times_are_those_of_this_computer(checkpoint, settings):
    pytest.importorskip("onnxruntime")
    runtime = AutoRuntime("cpu")
    runtime.load_dense(checkpoint)
    (stored,) = json.loads(settings.read_text()).values()
    assert min(stored, key=stored.get) == runtime.name
    assert min(stored.values()) > 0


def test_without_onnx_runtime_dense_is_torch(checkpoint, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    runtime = AutoRuntime("cpu")
    runtime.load_dense(checkpoint)
    assert runtime.name == "torch"
    assert not settings.exists()


def test_speeds_are_measured_once_and_kept(checkpoint, settings, monkeypatch):
    calls = []
    measure = speed.measure
    monkeypatch.setattr(speed, "measure", lambda *a: calls.append(a) or measure(*a))
    for _ in range(2):
        AutoRuntime("cpu").load(checkpoint)
    assert len(calls) == 1
    (stored,) = json.loads(settings.read_text()).values()
    assert set(stored) == {"torch", "fixed", "per_mac"}
    assert stored["torch"] > 0
    # So is another computer that shares the settings, and another architecture.
    with monkeypatch.context() as other:
        other.setattr(speed, "processor", lambda: "another")
        AutoRuntime("cpu").load(checkpoint)
    assert len(calls) == 2
    AutoRuntime("cpu").load(make_checkpoint(TINY))
    assert len(calls) == 3
    assert len(json.loads(settings.read_text())) == 3


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "\0\xff"])
def test_damaged_settings_are_measured_anew(checkpoint, settings, text):
    settings.parent.mkdir()
    settings.write_text(text)
    AutoRuntime("cpu").load(checkpoint)
    assert isinstance(json.loads(settings.read_text()), dict)


@pytest.mark.parametrize("value", [{"torch": -1, "fixed": 0, "per_mac": 0}, {"torch": 1}, 5])
def test_a_damaged_line_counts_as_none(settings, value):
    settings.parent.mkdir()
    settings.write_text(json.dumps({"key": value}))
    assert speed.remembered("key") is None
    speed.remember("key", Speed(1.0, 2.0, 3.0))
    assert speed.remembered("key") == Speed(1.0, 2.0, 3.0)


def test_settings_that_cannot_be_written_stop_nothing(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "below"))
    runtime = AutoRuntime("cpu")
    runtime.load(checkpoint)
    assert runtime.run(FIELD).semantic.shape == RGB.shape[:2]


def test_without_the_library_torch_runs_and_the_reason_is_told(checkpoint, monkeypatch):
    def missing():
        raise NativeMissing("The library is not there.")

    monkeypatch.setattr(sparse_runtime, "isa", missing)
    runtime = AutoRuntime("cpu")
    runtime.load(checkpoint)
    assert (runtime.name, runtime.note) == ("torch", "The library is not there.")
    with pytest.raises(InputError, match="not there") as caught:
        open_runtime("sparse")
    assert is_one_line(caught.value)


def test_what_the_kernels_cannot_run_torch_runs(checkpoint, monkeypatch):
    monkeypatch.setattr(sparse_runtime, "unsupported", lambda c: "It has another shape.")
    runtime = AutoRuntime("cpu")
    runtime.load(checkpoint)
    assert (runtime.name, runtime.note) == ("torch", "It has another shape.")


def test_by_name():
    assert open_runtime("torch", "cpu").name == "torch"
    assert open_runtime("sparse").name == "sparse"
    assert isinstance(open_runtime("auto", "cpu"), AutoRuntime)
    for wrong in (("fast", "cpu"), ("sparse", "cuda")):
        with pytest.raises(InputError) as caught:
            open_runtime(*wrong)
        assert is_one_line(caught.value)


def test_multiply_adds_are_those_of_the_cost(checkpoint):
    for pruning in (Pruning(), Pruning("network-wide", 4, 16)):
        masks = Ranking(checkpoint).masks(pruning)
        assert macs(checkpoint, masks) == cost(checkpoint, pruning, masks).macs
