"""The refit of one layer, against float64 least squares and torch's own convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_nucprune.errors import Cancelled
from napari_nucprune.pruning import responses
from napari_nucprune.pruning.layer_fit import fit
from napari_nucprune.pruning.recipe import Recipe
from napari_nucprune.pruning.refit import BLOCK, moments, refit, with_responses

RIDGE = 1e-2
few = settings(max_examples=25, deadline=None)


def problem(seed, samples=300, features=12, rows=5, density=0.5, constant=(), scale=1.0, noise=0.1):
    """Correlated features, as a layer's are; responses that the kept weights cannot reach."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((features, features)) * 0.5 + np.eye(features)
    x = rng.standard_normal((samples, features)) @ mixing + rng.standard_normal(features)
    x = np.maximum(x * scale, 0) if seed % 2 else x * scale
    for column, value in zip(constant, (0.0, 0.5, -2.0), strict=False):
        x[:, column] = value
    dense = rng.standard_normal((rows, features)) / np.sqrt(features)
    y = x @ dense.T + rng.standard_normal(rows)
    y += noise * scale * rng.standard_normal((samples, rows))
    support = rng.random((rows, features)) < density
    return tuple(
        torch.from_numpy(a) for a in (np.float32(x), np.float32(y), np.float32(dense), support)
    )


def centred(x, y):
    x, y = x.double().numpy(), y.double().numpy()
    return x - x.mean(0), y - y.mean(0)


def pull_of(x):
    """Ridge times the mean variance of the features that vary."""
    variance = x.var(0)
    alive = variance[variance > 1e-12 * (x**2).mean()]
    return RIDGE * alive.mean() if len(alive) else 0.0


def objective(x, y, rows, old):
    """A row's value, in float64."""
    x, y = centred(x, y)
    rows, old = rows.double().numpy(), old.double().numpy()
    return ((y - x @ rows.T) ** 2).mean(0) + pull_of(x) * ((rows - old) ** 2).sum(1)


def exact(x, y, old, support):
    """Row by row: least squares on the samples, with one more sample a kept weight as ridge."""
    x, y = centred(x, y)
    pull, n = pull_of(x), len(x)
    out = np.zeros(old.shape)
    for row, kept in enumerate(support.numpy()):
        w0 = old[row].double().numpy()[kept]
        left = np.vstack([x[:, kept] / np.sqrt(n), np.sqrt(pull) * np.eye(kept.sum())])
        right = np.concatenate([y[:, row] / np.sqrt(n), np.sqrt(pull) * w0])
        out[row, kept] = np.linalg.lstsq(left, right, rcond=None)[0]
    return torch.from_numpy(out)


def is_long(support):
    """Which rows the source solves by conjugate gradients (its rule, written again)."""
    return support.sum(1).double() ** 3 > 1.5 * support.shape[1] ** 2


# --- refit against least squares ----------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1, 255])
@pytest.mark.parametrize("seed", range(4))
def test_short_rows_are_solved_exactly(seed, scale):
    x, y, dense, support = problem(seed, 800, 120, 9, 0.12, scale=scale)
    support[2] = False
    support[3] = False
    support[3, 7] = True
    assert not is_long(support).any()
    old = dense * support
    found = refit(old, old, support, moments(x.clone(), y), RIDGE)
    torch.testing.assert_close(found.double(), exact(x, y, old, support), rtol=0, atol=2e-4)
    assert not found[~support].any()


@pytest.mark.parametrize(("features", "density"), [(60, 0.9), (150, 0.5), (BLOCK + 20, 0.2)])
def test_long_rows_come_close(features, density):
    x, y, dense, support = problem(1, features + 50, features, 4, density)
    support[2] = False
    assert is_long(support).sum() == 3
    old = dense * support
    found = refit(old, old, support, moments(x.clone(), y), RIDGE)
    best = exact(x, y, old, support)
    begin, end, least = (objective(x, y, rows, old) for rows in (old, found, best))
    assert (begin - end).sum() >= 0.99 * (begin - least).sum()
    assert (end >= least * (1 - 1e-4)).all()
    assert not found[~support].any()


def test_a_weak_long_row_comes_close_beside_a_strong_one():
    x, y, dense, support = problem(1, 400, 200, 2, 0.5)
    y[:, 0] *= 30
    dense[0] *= 30
    old = dense * support
    found = refit(old, old, support, moments(x.clone(), y), RIDGE)
    values = (objective(x, y, rows, old) for rows in (old, found, exact(x, y, old, support)))
    begin, end, least = values
    np.testing.assert_array_less(0.95 * (begin - least), begin - end)


@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(2, 80),
    features=st.integers(1, 40),
    density=st.floats(0, 1),
    scale=st.sampled_from([1e-4, 1.0, 300.0]),
    drift=st.floats(0, 2),
)
@few
def test_never_above_where_it_began(seed, samples, features, density, scale, drift):
    constant = range(min(features - 1, 3))
    x, y, dense, support = problem(seed, samples, features, 4, density, constant, scale)
    old = dense * support
    begin = (old + drift * torch.roll(dense, 1, 0)) * support
    found = refit(old, begin, support, moments(x.clone(), y), RIDGE)
    before, after = (objective(x, y, rows, old) for rows in (begin, found))
    # What float32 cannot tell apart: a part of what the responses vary by.
    slack = 1e-5 * (before + centred(x, y)[1].var(0))
    assert (after <= before + slack).all()
    assert not found[~support].any()
    assert found.isfinite().all()


def test_features_that_never_vary_keep_their_weights():
    x, y, dense, support = problem(2, 300, 12, 4, 0.8, constant=(1, 5, 6))
    old = dense * support
    found = refit(old, old, support, moments(x.clone(), y), RIDGE)
    dead = [1, 5, 6]
    torch.testing.assert_close(found[:, dead], old[:, dead], rtol=0, atol=0)
    torch.testing.assert_close(found.double(), exact(x, y, old, support), rtol=0, atol=2e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.1])
def test_nothing_varies(value):
    """0.1 is no float32: its mean over many samples is off by a rounding, and seems to vary."""
    x = torch.full((3000, 5), value)
    y = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    old = torch.ones(2, 5)
    found = refit(old, old, torch.ones(2, 5, dtype=torch.bool), moments(x, y), RIDGE)
    torch.testing.assert_close(found, old, rtol=0, atol=0.1)


def test_moments():
    x, y, _, _ = problem(3, 200, 2 * BLOCK // 3 + BLOCK, 3)
    fx, fy = centred(x, y)
    mean = x.double().mean(0)
    inside = x.clone()
    about = moments(inside, y)
    np.testing.assert_allclose(inside, fx, atol=1e-4)
    np.testing.assert_allclose(about.gram, fx.T @ fx / len(fx), atol=2e-3, rtol=1e-4)
    np.testing.assert_array_equal(about.gram, about.gram.T)
    np.testing.assert_allclose(about.cross, fx.T @ fy / len(fx), atol=2e-3, rtol=1e-4)
    np.testing.assert_allclose(about.feature_mean, mean, atol=1e-4)
    other = with_responses(about, 2 * y + 1)
    torch.testing.assert_close(other.cross, 2 * about.cross, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(other.response_mean, 2 * about.response_mean + 1)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_refit_stops(density):
    x, y, dense, support = problem(0, 100, 60, 4, density)
    with pytest.raises(Cancelled):
        refit(dense * support, dense * support, support, moments(x, y), RIDGE, lambda: True)


# --- one layer, with the ReLU after it ----------------------------------------------------------


def one_sided(y, wanted):
    """Squared error, where the dense layer is below zero only of what is above it."""
    return torch.where(wanted > 0, y - wanted, y.clamp_min(0)).square().mean(0)


@given(
    seed=st.integers(0, 10_000),
    density=st.floats(0.05, 1),
    shift=st.floats(-4, 2),
    lost=st.floats(0, 1),
    steps=st.integers(0, 4),
)
@few
def test_no_rectified_channel_is_worse(seed, density, shift, lost, steps):
    """``lost``: how far earlier layers' losses bend what the layer sees."""
    x, _, dense, support = problem(seed, 200, 10, 4, density)
    module = nn.Conv2d(10, 4, 1).requires_grad_(False)
    module.bias.fill_(shift)
    wanted = x @ dense.T + module.bias
    x = x + lost * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    old = dense * support
    module.weight.copy_(old[:, :, None, None])
    before = one_sided((x @ old.T + shift).double(), wanted)
    recipe = Recipe(relu_steps=steps)
    rows, bias = fit(module, x.clone(), wanted, support, recipe, True, lambda: False)
    after = one_sided((x @ rows.T + bias).double(), wanted)
    slack = 1e-3 * before + 1e-8
    assert (after <= before + slack).all(), (after, before)


@given(seed=st.integers(0, 10_000), density=st.floats(0, 1), off=st.floats(-2, 2))
@few
def test_a_transposed_layer_is_never_worse_by_channel(seed, density, off):
    x, y, dense, support = problem(seed, 120, 6, 12, density, noise=1.0)
    module = nn.ConvTranspose2d(6, 3, 2, stride=2).requires_grad_(False)
    module.bias.copy_(y.mean(0).reshape(3, 4).mean(1) + off)
    module.weight.copy_(responses.weight_of(dense * support, module))
    wide = module.bias.repeat_interleave(4)
    before = (x @ (dense * support).T + wide - y).square().mean(0).reshape(3, 4).sum(1)
    rows, bias = fit(module, x.clone(), y, support, Recipe(), False, lambda: False)
    assert bias.shape == (3,)
    assert not rows[~support].any()
    after = (x @ rows.T + bias.repeat_interleave(4) - y).square().mean(0).reshape(3, 4).sum(1)
    assert (after <= before * (1 + 1e-3) + 1e-6).all()


# --- what a layer sees and says -----------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (8, 3)])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(4, 3, 1),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.ConvTranspose2d(2, 2, 2, stride=2),
    ],
    ids=["3x3", "1x1", "2x2 up", "square up"],
)
def test_features_times_rows_are_the_outputs(module, height, width, channels_last):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, module.in_channels, height, width, generator=draw)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = module(x)
        rows = responses.rows_of(module.weight, module)
        where = torch.tensor([0, height * width, 3 * height * width - 1])
        for some in (where, torch.arange(3 * height * width)):
            seen = responses.features(x, module, some)
            bias = module.bias.repeat_interleave(len(rows) // len(module.bias))
            said = responses.outputs(y, module, some)
            torch.testing.assert_close(seen @ rows.T + bias, said, rtol=1e-4, atol=1e-5)
        # The layer's own input must survive the centring.
        seen += 1
        torch.testing.assert_close(module(x), y)
        assert responses.weight_of(rows, module).equal(module.weight)
        assert said.shape[0] == 3 * height * width


@given(
    n=st.integers(1, 4),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    count=st.integers(1, 900),
    seed=st.integers(0, 3),
)
@few
def test_places(n, height, width, count, seed):
    shape, total = torch.Size((n, 3, height, width)), n * height * width
    found = responses.places(shape, count, seed)
    assert found.equal(responses.places(shape, count, seed))
    assert len(found) == min(count, total)
    assert found.min() >= 0
    assert found.max() < total
    assert (found.diff() > 0).all(), "sorted, none twice"


def test_places_differ_by_seed():
    a, b = (responses.places(torch.Size((1, 3, 100, 100)), 50, seed) for seed in (0, 1))
    assert not a.equal(b)
