"""The sparse runtime's numbers are the network's, and dead channels are skipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import make_checkpoint, noise
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.pruning.strategy import apply
from napari_nucprune.runtime.sparse_runtime import SparseRuntime, unsupported
from napari_nucprune.runtime.tiling import pad_to_grid
from napari_nucprune.samples import tissue
from sparse_helpers import _needs_the_library, _one_thread_of_torch, isas, net_of, ranking, trained

__all__ = ["_needs_the_library", "_one_thread_of_torch", "ranking", "trained"]

STOPS = (1, 2, 5, 10, 16, 20, 32, 64)


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


def masked(checkpoint, branch, masks):
    return {
        n: a * masks[branch][n[:-7]] if n.endswith(".weight") and n[:-7] in masks[branch] else a
        for n, a in checkpoint.weights[branch].items()
    }


def error(found, wanted):
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(1, np.abs(wanted).max())


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
