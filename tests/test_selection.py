"""Which weights stay, chosen by a layer's responses: against brute force and as properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import QUICK, make_checkpoint
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import Cancelled
from napari_nucprune.pruning.layer_fit import fit
from napari_nucprune.pruning.recipe import Recipe
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.refit import moments
from napari_nucprune.pruning.selection import select
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.synthetic import synthetic

RIDGE = 1e-2
few = settings(max_examples=25, deadline=None)


def problem(seed, samples=200, features=8, rows=3):
    """Correlated features and the responses of a dense layer on them."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((features, features)) * 0.6 + np.eye(features)
    x = np.maximum(rng.standard_normal((samples, features)) @ mixing, 0)
    dense = rng.standard_normal((rows, features))
    y = x @ dense.T
    return tuple(torch.from_numpy(np.float32(a)) for a in (x, y, dense))


def all_of(rows):
    return torch.ones(rows.shape, dtype=torch.bool)


def best_errors(x, y, kept):
    """Squared error of each row's own least squares on a support, in float64."""
    x = (x - x.mean(0)).double().numpy()
    y = (y - y.mean(0)).double().numpy()
    total = 0.0
    for row, columns in enumerate(kept):
        a = x[:, columns]
        w = np.linalg.lstsq(a, y[:, row], rcond=None)[0] if len(columns) else np.zeros(0)
        total += ((y[:, row] - a @ w) ** 2).mean()
    return total


def columns_of(support):
    return [np.flatnonzero(row) for row in support.numpy()]


@pytest.mark.parametrize("importance", [None, (9.0, 1.0, 0.05)])
@pytest.mark.parametrize("seed", range(6))
def test_the_first_weight_to_go_is_the_one_that_costs_least(seed, importance):
    """Brute force over all single weights: Hassibi & Stork's saliency is exact for one."""
    x, y, dense = problem(seed)
    counts = None if importance is None else torch.tensor(importance)
    support, _ = select(
        dense, moments(x.clone(), y), dense.numel() - 1, all_of(dense), 1e-6, 1, importance=counts
    )
    row, column = (int(i) for i in torch.nonzero(~support)[0])
    costs = {}
    for r, c in itertools.product(range(len(dense)), range(dense.shape[1])):
        kept = [np.array([k for k in range(dense.shape[1]) if (i, k) != (r, c)]) for i in range(3)]
        costs[r, c] = best_errors(x, y, kept) * (1.0 if importance is None else importance[r])
    assert costs[row, column] <= min(costs.values()) * 1.001 + 1e-9


def test_closer_to_the_best_support_than_magnitudes_are():
    """Mean over problems; the best of a row is found among all its supports."""
    ours, largest, best = [], [], []
    for seed in range(12):
        x, y, dense = problem(seed, rows=1)
        support, _ = select(dense, moments(x.clone(), y), 3, all_of(dense), 1e-4, 3)
        ours.append(best_errors(x, y, columns_of(support)))
        top = np.argsort(-dense.abs().numpy()[0])[:3]
        largest.append(best_errors(x, y, [top]))
        best.append(
            min(best_errors(x, y, [np.array(c)]) for c in itertools.combinations(range(8), 3))
        )
    regret = (np.sum(ours) - np.sum(best)) / (np.sum(largest) - np.sum(best))
    assert regret < 0.5, regret


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 24),
    stages=st.integers(1, 5),
    there=st.floats(0.1, 1),
    dead=st.integers(0, 8),
)
@few
def test_as_many_as_asked_among_those_there(seed, count, stages, there, dead):
    x, y, dense = problem(seed)
    x[:, :dead] = 0.5
    available = torch.from_numpy(np.random.default_rng(seed).random(dense.shape) < there)
    about = moments(x.clone(), y)
    support, begin = select(dense * available, about, count, available, RIDGE, stages)
    assert int(support.sum()) == min(count, int(available.sum()))
    assert not (support & ~available).any()
    assert not begin[~support].any()
    assert torch.isfinite(begin).all()
    again = select(dense * available, about, count, available, RIDGE, stages)[0]
    assert torch.equal(support, again)


def test_cancel():
    x, y, dense = problem(0)
    with pytest.raises(Cancelled):
        select(dense, moments(x, y), 5, all_of(dense), RIDGE, 3, lambda: True)


@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 1), lost=st.floats(0, 2))
@few
def test_a_layer_is_never_worse_than_its_largest_weights(seed, density, lost):
    x, _, dense = problem(seed, features=10, rows=4)
    module = nn.Conv2d(10, 4, 1).requires_grad_(False)
    module.weight.copy_(dense[:, :, None, None])
    module.bias.fill_(-0.5)
    wanted = x @ dense.T - 0.5
    x = x + lost * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    flat = dense.abs().flatten()
    count = max(1, round(density * flat.numel()))
    support = (dense.abs() >= flat.sort(descending=True).values[count - 1]).reshape(dense.shape)

    def error(rows, bias):
        said = (x @ rows.T + bias).double()
        off = torch.where(wanted > 0, said - wanted, said.clamp_min(0))
        return float(off.square().mean(0).sum())

    before = error(dense * support, module.bias)
    rows, bias = fit(
        module, x.clone(), wanted, support, Recipe(select_stages=3), True, lambda: False,
        all_of(dense),
    )  # fmt: skip
    assert int((rows != 0).sum()) <= int(support.sum())
    assert error(rows, bias) <= before * 1.001 + 1e-7


@pytest.mark.parametrize("strategy", ["layer-wise", "network-wide"])
def test_a_network_keeps_each_layers_number_and_comes_closer(strategy):
    dense = make_checkpoint(QUICK, seed=7)
    rgb, _ = synthetic(0, 128, density=8e3)
    crops = np.ascontiguousarray(rgb.reshape(2, 64, 2, 64, 3).swapaxes(1, 2).reshape(4, 64, 64, 3))
    pruning = Pruning(strategy, 4, 4)
    masks = Ranking(dense).masks(pruning)
    recipes = {stages: Recipe(select_stages=stages) for stages in (0, 3)}
    found = {
        stages: Calibration(dense, crops, "", recipe).recover(pruning, masks)
        for stages, recipe in recipes.items()
    }
    assert found[3].pruning["recovery"]["select_stages"] == 3
    moved = 0
    for branch in BRANCHES:
        for layer, mask in masks[branch].items():
            now = found[3].weights[branch][f"{layer}.weight"] != 0
            assert now.sum() == mask.sum()
            moved += int((now != mask).sum())
    assert moved
    from test_recovery import error

    pruned = apply(dense, pruning, masks)
    for branch in BRANCHES:
        left = {k: error(dense, found[k], branch, crops) for k in found}
        assert left[3] < left[0] < error(dense, pruned, branch, crops)
