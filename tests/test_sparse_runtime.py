import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import QUICK, is_one_line, make_checkpoint, noise
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.native import NativeMissing
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime.sparse_library import SparseNet, isa, sparse_library
from napari_nucprune.runtime.sparse_runtime import SparseRuntime, sigmoid, unsupported
from napari_nucprune.runtime.tiling import pad_to_grid
from napari_nucprune.samples import tissue

STOPS = (1, 2, 5, 10, 16, 20, 32, 64)


@pytest.fixture(autouse=True, scope="module")
def _needs_the_library():
    try:
        sparse_library()
    except NativeMissing as error:
        if os.environ.get("NUCPRUNE_REQUIRE_NATIVE"):
            raise
        pytest.skip(f"no native library: {error}")


@pytest.fixture(autouse=True, scope="module")
def _one_thread_of_torch():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained():
    return open_checkpoint()


@pytest.fixture(scope="module")
def ranking(trained):
    return Ranking(trained)


def reference(weights, rgb):
    """The network in float64, written down from FACTS: 3x3 or 1x1 by the weight's own shape."""
    w = {n: torch.from_numpy(np.array(a)).double() for n, a in weights.items()}
    depth = sum(n.startswith("encoder") for n in w) // 4

    def conv(x, name):
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    with torch.inference_mode():
        x = torch.from_numpy(np.array(rgb)).double().permute(2, 0, 1)[None] / 255
        skips = []
        for level in range(depth):
            for which in (1, 2):
                x = conv(x, f"encoder.{level}.conv{which}").relu()
            if level < depth - 1:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for i in range(depth - 1):
            up = F.conv_transpose2d(x, w[f"up.{i}.weight"], w[f"up.{i}.bias"], stride=2)
            x = torch.cat([up, skips.pop()], 1)
            for which in (1, 2):
                x = conv(x, f"decoder.{i}.conv{which}").relu()
        return conv(x, "head")[0, 0].numpy()


def net_of(checkpoint, branch, masks=None, name=None, threads=1):
    layers = checkpoint.layers(branch)
    weights = checkpoint.weights[branch]
    shapes = [weights[f"{layer.name}.weight"].shape for layer in layers]
    layers = [replace(a, shape=s) for a, s in zip(layers, shapes, strict=True)]
    net = SparseNet(layers, [s[-1] for s in shapes], name)
    net.load(weights, masks[branch] if masks else {}, threads)
    return net


def masked(checkpoint, branch, masks):
    return {
        n: a * masks[branch][n[:-7]] if n.endswith(".weight") and n[:-7] in masks[branch] else a
        for n, a in checkpoint.weights[branch].items()
    }


def error(found, wanted):
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(1, np.abs(wanted).max())


def isas():
    names = ("avx512", "avx2", "neon", "baseline")
    return [n for n in names if sparse_library().nucprune_sparse_has_isa(n.encode())]


# --- the numbers are the network's --------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["layer-wise", "network-wide"])
@pytest.mark.parametrize("cr", STOPS)
def test_trained_weights_at_every_stop(trained, ranking, strategy, cr):
    masks = ranking.masks(Pruning(strategy, cr, cr))
    rgb = np.ascontiguousarray(tissue()[:80, :112])
    for branch in BRANCHES:
        wanted = reference(masked(trained, branch, masks), rgb)
        for name in isas():
            assert error(net_of(trained, branch, masks, name).run(rgb, 2), wanted) <= 1e-4


@settings(max_examples=4, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    cr=st.sampled_from(STOPS),
    strategy=st.sampled_from(["layer-wise", "network-wide"]),
    branch=st.sampled_from(BRANCHES),
    threads=st.integers(1, 5),
)
@example(height=1, width=1, cr=16, strategy="layer-wise", branch="semantic", threads=2)
@example(height=17, width=700, cr=5, strategy="network-wide", branch="distance", threads=3)
@example(height=700, width=15, cr=64, strategy="layer-wise", branch="distance", threads=1)
def test_any_size(trained, ranking, height, width, cr, strategy, branch, threads):
    masks = ranking.masks(Pruning(strategy, cr, cr))
    rgb = np.tile(tissue(), (2, 2, 1))[:height, :width]
    padded = pad_to_grid(rgb, 16)
    wanted = reference(masked(trained, branch, masks), padded)
    assert error(net_of(trained, branch, masks).run(padded, threads), wanted) <= 1e-4
    runtime = SparseRuntime(threads)
    runtime.load(trained, masks)
    maps = runtime.run(Field(rgb, 0.25))
    wanted = wanted[:height, :width]
    if branch == "semantic":
        assert np.abs(maps.semantic - 1 / (1 + np.exp(-wanted))).max() <= 1e-4
    else:
        assert error(maps.distance, wanted) <= 1e-4


@st.composite
def architectures(draw):
    """Weights of any U-Net it runs: widths, depth, 1x1 among the 3x3, zeros, dead channels."""
    widths = draw(st.lists(st.integers(1, 37), min_size=1, max_size=5))
    checkpoint = make_checkpoint(tuple(widths), seed=draw(st.integers(0, 999)))
    weights = dict(checkpoint.weights["semantic"])
    density = draw(st.sampled_from([1.0, 0.5, 0.1, 0.02, 0.0]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    for name, array in weights.items():
        if name.endswith(".weight"):
            array = array * (rng.random(array.shape) < density)
            conv = name.split(".")[0] in ("encoder", "decoder")
            weights[name] = array[:, :, :1, :1].copy() if conv and rng.random() < 0.2 else array
        else:
            weights[name] = array * (rng.random(array.shape) < 0.5)
    return replace(checkpoint, weights={"semantic": weights, "distance": weights})


@settings(max_examples=40, deadline=None)
@given(
    checkpoint=architectures(),
    cells=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    threads=st.integers(1, 4),
    floats=st.booleans(),
)
def test_any_network(checkpoint: Checkpoint, cells, threads, floats):
    weights = checkpoint.weights["semantic"]
    net_layers = checkpoint.layers("semantic")
    grid = 2 ** ((len(net_layers) + 2) // 5 - 1)
    rgb = noise(1, cells[0] * grid, cells[1] * grid)
    wanted = reference(weights, rgb)
    assert unsupported(checkpoint) is None
    for name in isas():
        net = net_of(checkpoint, "semantic", None, name, threads)
        found = net.run(rgb.astype(np.float32) if floats else rgb, threads)
        assert error(found, wanted) <= 1e-5
        dense, live = net.nonzero
        assert dense == sum(int(np.count_nonzero(weights[f"{x.name}.weight"])) for x in net_layers)
        assert live <= dense


def test_wide_images_are_cut_in_x(trained, ranking):
    masks = ranking.masks(Pruning("layer-wise", 20, 20))
    rgb = np.ascontiguousarray(np.tile(tissue()[:32], (1, 4, 1))[:, :1296])
    for name in isas():
        found = net_of(trained, "distance", masks, name).run(rgb, 2)
        assert error(found, reference(masked(trained, "distance", masks), rgb)) <= 1e-4


# --- dead channels ------------------------------------------------------------------------------


def test_dead_channels_go_to_a_fixpoint():
    """A chain: each channel dies because of the one before, or because of the one after."""
    checkpoint = make_checkpoint((4, 6), seed=2)
    weights = {n: a.copy() for n, a in checkpoint.weights["semantic"].items()}
    weights["encoder.0.conv1.weight"][1] = 0  # constant
    weights["encoder.0.conv1.bias"][1] = -0.5  # of zero
    weights["encoder.0.conv2.weight"][2] = 0
    weights["encoder.0.conv2.weight"][2, 1] = 1  # reads nothing but that zero
    weights["encoder.0.conv2.bias"][2] = -0.1
    weights["encoder.0.conv1.weight"][3] = 0  # constant above zero: seen at the border
    weights["encoder.0.conv1.bias"][3] = 0.7
    weights["encoder.1.conv2.weight"][4] = 0  # constant above zero into an up-convolution
    weights["encoder.1.conv2.bias"][4] = 0.3
    weights["decoder.0.conv1.weight"][:, 3] = 0  # nobody reads channel 3 of the up-convolution
    made = replace(checkpoint, weights={"semantic": weights, "distance": weights})
    net = net_of(made, "semantic")
    rgb = noise(5, 22, 36)
    assert error(net.run(rgb, 1), reference(weights, rgb)) <= 1e-6

    def size(name, *index):
        return int(np.count_nonzero(weights[f"{name}.weight"][index]))

    every = slice(None)
    gone = size("encoder.0.conv2", every, 1)
    gone += size("encoder.1.conv1", every, 2) + size("decoder.0.conv1", every, 4 + 2)
    gone += size("up.0", 4) + size("up.0", every, 3) - size("up.0", 4, 3)
    dense, live = net.nonzero
    assert dense - live == gone


def test_nothing_left(trained):
    zeros = {
        n: np.zeros_like(a) if n.endswith("weight") else a
        for n, a in trained.weights["semantic"].items()
    }
    dead = replace(trained, weights={"semantic": zeros, "distance": zeros})
    net = net_of(dead, "semantic")
    assert net.nonzero == (0, 0)
    assert (net.run(noise(0, 32, 48), 2) == zeros["head.bias"][0]).all()


def test_stored_zeros_are_skipped(trained, ranking):
    pruning = Pruning("layer-wise", 16, 16)
    masks = ranking.masks(pruning)
    rgb = noise(0, 64, 64)
    stored = net_of(apply(trained, pruning, masks), "semantic")
    loaded = net_of(trained, "semantic", masks)
    assert stored.nonzero == loaded.nonzero
    np.testing.assert_array_equal(stored.run(rgb, 1), loaded.run(rgb, 1))


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
