"""What a layer's errors do to the output: against finite differences and the exact Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_nucprune.checkpoint.unet import UNet, initialise
from napari_nucprune.errors import Cancelled
from napari_nucprune.pruning.responses import EVEN, convolutions, places
from napari_nucprune.pruning.sensitivity import sensitivities

SIDE = 8


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    net = UNet((3, 5))
    initialise(net)
    return net.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def crops():
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 3, SIDE, SIDE)))


def jacobian(net, crops, name, branch):
    """d out / d response, by central differences: (outputs, N, channels, H, W)."""
    module, shift = convolutions(net)[name], {}
    handle = module.register_forward_hook(lambda _, __, y: y + shift["by"])
    shape = {}
    probe = module.register_forward_hook(lambda _, __, y: shape.update(of=y.shape))
    shift["by"] = 0.0
    dense = net(crops)
    probe.remove()
    out = []
    for index in np.ndindex(*shape["of"]):
        step = torch.zeros(shape["of"], dtype=torch.float64)
        step[index] = 1e-6
        shift["by"] = step
        up = net(crops)
        shift["by"] = -step
        out.append(((up - net(crops)) / 2e-6).flatten())
    handle.remove()
    found = torch.stack(out, 1)
    if branch == "semantic":
        p = torch.sigmoid(dense).flatten()
        found = found * (p * (1 - p)).sqrt()[:, None]
    return found.reshape(-1, *shape["of"])


def by_place(squares, module):
    """(N, channels, H, W) to (places, rows), written with loops."""
    taps = 2 if isinstance(module, nn.ConvTranspose2d) else 1
    n, channels, height, width = squares.shape
    rows = []
    for i, y, x in np.ndindex(n, height // taps, width // taps):
        block = squares[i, :, taps * y : taps * (y + 1), taps * x : taps * (x + 1)]
        rows.append(block.reshape(channels * taps * taps))
    return torch.stack(rows)


@pytest.mark.parametrize("branch", ["semantic", "distance"])
@pytest.mark.parametrize("name", ["encoder.0.conv2", "encoder.1.conv1", "up.0", "head"])
def test_the_mean_over_projections_is_the_exact_gauss_newton_diagonal(net, crops, branch, name):
    exact = jacobian(net, crops, name, branch).square().sum(0)
    exact = by_place(exact, convolutions(net)[name])
    draws = [sensitivities(net, crops, branch, seed)[name] for seed in range(100)]
    rows = torch.stack([d.rows.square() for d in draws]).mean(0)
    spots = torch.stack([d.places for d in draws]).mean(0)
    assert torch.allclose(rows, exact.sum(0) / len(crops), rtol=0.25)
    # A place alone is noisier than a channel: all of them together.
    if name != "head":  # there all are alike
        assert np.corrcoef(spots, exact.mean(1))[0, 1] > 0.9
    assert float(spots.sum()) == pytest.approx(float(exact.mean(1).sum()), rel=0.15)


def test_one_projection_is_exact_where_outputs_do_not_mix(net, crops):
    """At the head every response is one output: signs square to one."""
    found = sensitivities(net, crops, "distance")["head"]
    assert torch.equal(found.places, torch.ones_like(found.places))
    assert found.rows.tolist() == [SIDE]


def test_nothing_is_left_behind_and_it_can_be_cancelled(net, crops):
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())
    with pytest.raises(Cancelled):
        sensitivities(net, crops, "distance", should_stop=lambda: True)
    sensitivities(net, crops, "distance")
    assert not any(module._forward_hooks for module in net.modules())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(1, 300), zeros=st.floats(0, 1))
def test_places_are_sorted_and_none_comes_twice(seed, count, zeros):
    weights = torch.from_numpy(np.random.default_rng(seed).exponential(size=256))
    weights[: int(zeros * 256)] = 0
    found = places(torch.Size((1, 1, 16, 16)), count, seed, weights)
    assert bool((found.diff() > 0).all())
    assert 0 <= int(found[0]) <= int(found[-1]) < 256
    assert len(found) <= max(count, 256 * (count >= 256))


def test_places_are_drawn_as_often_as_they_matter():
    weights = torch.ones(4096)
    weights[:2048] = 9.0
    drawn = torch.cat([places(torch.Size((1, 1, 64, 64)), 40, s, weights) for s in range(200)])
    share = float((drawn < 2048).double().mean())
    assert share == pytest.approx((1 - EVEN) * 0.9 + EVEN * 0.5, abs=0.02)
