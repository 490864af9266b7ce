"""The sparse runtime behind its door: tiles, masks, progress, threads, and what is refused."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from helpers import QUICK, is_one_line, make_checkpoint, noise
from napari_nucprune.doors import Field, Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.native import NativeMissing
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.sparse_library import isa
from napari_nucprune.runtime.sparse_runtime import SparseRuntime, sigmoid, unsupported
from napari_nucprune.samples import tissue
from sparse_helpers import _needs_the_library, _one_thread_of_torch, isas, net_of, ranking, trained

__all__ = ["_needs_the_library", "_one_thread_of_torch", "ranking", "trained"]

# --- the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_tiled_equals_untiled(threads):
    checkpoint = make_checkpoint(QUICK, seed=3)
    field = Field(noise(4, 131, 210), 0.25)
    whole = SparseRuntime(threads)
    whole.load(checkpoint)
    tiled = SparseRuntime(threads, tile=48)
    tiled.load(checkpoint)
    a, b = whole.run(field), tiled.run(field)
    assert np.abs(a.distance - b.distance).max() <= 1e-5
    assert np.abs(a.semantic - b.semantic).max() <= 1e-5
    assert a.semantic.dtype == a.distance.dtype == np.float32


def test_masks_come_and_go_without_a_trace(trained, ranking):
    field = Field(np.ascontiguousarray(tissue()[:96, :96]), 0.25)
    runtime = SparseRuntime(2)
    runtime.load(trained)
    dense = runtime.run(field)
    runtime.load(trained, ranking.masks(Pruning("network-wide", 20, 4)))
    assert np.abs(runtime.run(field).distance - dense.distance).max() > 1e-2
    other = make_checkpoint(QUICK, seed=12)
    runtime.load(other)
    fresh = SparseRuntime(2)
    fresh.load(other)
    np.testing.assert_array_equal(runtime.run(field).distance, fresh.run(field).distance)
    runtime.load(trained)
    np.testing.assert_array_equal(runtime.run(field).semantic, dense.semantic)


def test_progress_grows_to_its_total():
    calls = []
    runtime = SparseRuntime(2, tile=32)
    runtime.load(make_checkpoint(QUICK))
    runtime.run(Field(noise(0, 70, 40), 0.25), lambda *call: calls.append(call))
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert {call[2] for call in calls} == {100}
    # The 6 tiles' starts and the end.
    assert {0, 16, 33, 50, 66, 83, 100} <= set(done)


def test_progress_moves_within_a_tile(trained):
    calls = []
    runtime = SparseRuntime(1)
    runtime.load(trained)
    runtime.run(Field(noise(0, 512, 512), 0.25), lambda *call: calls.append(call[1]))
    assert calls == sorted(calls)
    assert len(set(calls)) > 5


def test_cancel_within_a_tile(trained):
    runtime = SparseRuntime(2)
    runtime.load(trained)
    field = Field(noise(0, 768, 768), 0.25)
    begun = time.monotonic()
    runtime.run(field)
    whole = time.monotonic() - begun
    stopped = []

    def stop():
        if time.monotonic() - begun > whole / 4:
            stopped.append(time.monotonic())
            return True
        return False

    begun = time.monotonic()
    with pytest.raises(Cancelled):
        runtime.run(field, should_stop=stop)
    # The promise is 50 ms on a machine of one's own; this one may be busy.
    assert time.monotonic() - stopped[0] < max(0.05, whole / 8)
    runtime.run(Field(noise(0, 16, 16), 0.25))


def test_an_error_in_a_callback_stops_the_run(trained):
    runtime = SparseRuntime(2)
    runtime.load(trained)

    def fails():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        runtime.run(Field(noise(0, 64, 64), 0.25), should_stop=fails)


def test_several_threads_at_once(trained, ranking):
    masks = ranking.masks(Pruning("layer-wise", 10, 10))
    net = net_of(trained, "semantic", masks)
    images = [noise(seed, 64 + 16 * seed, 96) for seed in range(4)]
    wanted = [net.run(image, 1) for image in images]
    wrong = []

    def work(i):
        wrong.extend(
            i for _ in range(6) if not np.array_equal(net.run(images[i], 1 + i), wanted[i])
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_too():
    net = net_of(make_checkpoint(QUICK), "semantic")
    rgb = noise(0, 160, 160)
    wanted = net.run(rgb, 3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if np.array_equal(net.run(rgb, 3), wanted) else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if found == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert found == (child, 0)


# --- instruction sets and what is refused -------------------------------------------------------


def test_an_instruction_set_can_be_forced(monkeypatch):
    for name in isas():
        monkeypatch.setenv("NUCPRUNE_ISA", name)
        assert isa() == SparseRuntime(1).isa == name
    for name in {"avx512", "neon", "sse9"} - set(isas()):
        monkeypatch.setenv("NUCPRUNE_ISA", name)
        with pytest.raises(NativeMissing, match=name) as caught:
            SparseRuntime(1)
        assert is_one_line(caught.value)
    monkeypatch.delenv("NUCPRUNE_ISA")
    assert isa() == isas()[0]


def test_what_it_does_not_run_is_said_in_one_sentence():
    good = make_checkpoint(QUICK)
    assert unsupported(good) is None

    def with_weights(**changes):
        weights = dict(good.weights["distance"])
        for name, value in changes.items():
            name = name.replace("__", ".")
            weights.pop(name, None)
            if value is not None:
                weights[name] = value
        return replace(good, weights={"semantic": good.weights["semantic"], "distance": weights})

    kernel = np.zeros((8, 4, 5, 5), np.float32)
    for bad in (
        with_weights(encoder__1__conv1__weight=kernel),
        with_weights(head__bias=None),
        with_weights(head__weight=np.zeros((2, 4, 1, 1), np.float32)),
        with_weights(norm__weight=np.zeros(3, np.float32)),
        with_weights(encoder__0__conv1__weight=None),
    ):
        reason = unsupported(bad)
        assert reason is not None
        assert "distance" in reason
        assert is_one_line(reason)
        with pytest.raises(InputError, match="distance"):
            SparseRuntime(1).load(bad)


def test_masks_of_another_shape():
    checkpoint = make_checkpoint(QUICK)
    masks = Ranking(checkpoint).masks(Pruning("layer-wise", 2, 2))
    masks["semantic"]["up.0"] = masks["semantic"]["up.0"][1:]
    with pytest.raises(ValueError, match=r"up\.0"):
        SparseRuntime(1).load(checkpoint, masks)


def test_fields_that_are_refused():
    runtime = SparseRuntime(1)
    with pytest.raises(RuntimeError, match="load"):
        runtime.run(Field(noise(0, 16, 16), 0.25))
    runtime.load(make_checkpoint(QUICK))
    with pytest.raises(InputError, match="um/px"):
        runtime.run(Field(noise(0, 16, 16), 0.5))
    with pytest.raises(InputError, match="8192"):
        runtime.run(Field(np.zeros((8192 + 2 * 112 + 1, 1, 3), np.uint8), 0.25))
    runtime.tile = 17
    with pytest.raises(InputError, match="multiple of 16"):
        runtime.run(Field(noise(0, 16, 16), 0.25))


def test_flipped_and_strided_images(trained):
    net = net_of(make_checkpoint(QUICK), "semantic")
    rgb = noise(0, 64, 64)
    wanted = net.run(rgb[::-1, ::-1].copy(), 1)
    np.testing.assert_array_equal(net.run(rgb[::-1, ::-1], 1), wanted)
    with pytest.raises(ValueError, match="shape"):
        net.run(noise(0, 17, 16), 1)
    with pytest.raises(ValueError, match="float64"):
        net.run(rgb.astype(np.float64), 1)


def test_sigmoid_is_quiet_and_right():
    x = np.array([-1000, -90, -1, 0, 1, 90, 1000], np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(x)
    wanted = [0, 0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1, 1]
    np.testing.assert_allclose(found, wanted, atol=1e-7)
