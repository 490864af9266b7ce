"""Pruning by magnitude: the counts of the formula, torch's own masks, ties, and the cost."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune

from helpers import PUBLISHED, QUICK, TINY, make_checkpoint
from napari_nucprune.checkpoint import format as files
from napari_nucprune.checkpoint.architecture import HEAD, Layer, layers
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.pruning.cost import cost
from napari_nucprune.pruning.magnitude import BranchRanking
from napari_nucprune.pruning.strategy import Ranking, apply, as_stored
from pruning_helpers import NAMES, kept_layers, published, quick, sizes, small

__all__ = ["published", "small"]

CRS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64)


# --- the counts of DESIGN -----------------------------------------------------------------------


@pytest.mark.parametrize("keep", [None, (), ("head", "encoder.0.conv1", "semantic.up.3")])
@pytest.mark.parametrize("strategy", NAMES)
def test_counts_follow_the_formula(published, strategy, keep):
    ranking = Ranking(published, keep)
    n = sizes(PUBLISHED)
    total = sum(n.values())
    assert total == 1_939_392
    for cr in CRS:
        masks = ranking.masks(Pruning(strategy, cr, cr, keep))
        for branch in BRANCHES:
            kept = kept_layers(keep, branch)
            k = sum(n[name] for name in kept)
            assert masks[branch].keys() == n.keys() - kept
            gone = {name: int((~mask).sum()) for name, mask in masks[branch].items()}
            if strategy == "layer-wise":
                density = (Fraction(total, cr) - k) / (total - k)
                assert gone == {name: round((1 - density) * n[name]) for name in gone}, cr
            else:
                assert sum(gone.values()) == total - round(Fraction(total, cr)), cr


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("cr", [1, 1.01, 2.5, 16, 64])
def test_reported_cr_is_the_one_asked_for(published, strategy, cr):
    pruning = Pruning(strategy, cr, cr)
    spent = cost(published, pruning, Ranking(published).masks(pruning))
    # Half a weight a layer of rounding.
    assert abs(spent.kept - spent.total / cr) <= (0.5 * 2 * len(layers(PUBLISHED)))


def test_masks_have_the_shapes_of_the_weights(small):
    masks = Ranking(small).masks(Pruning("layer-wise", 4, 4))
    for branch in BRANCHES:
        for name, mask in masks[branch].items():
            assert mask.dtype == bool
            assert mask.shape == small.weights[branch][f"{name}.weight"].shape


# --- torch.nn.utils.prune is the oracle ---------------------------------------------------------


@pytest.mark.parametrize("cr", [2, 5, 16, 64])
@pytest.mark.parametrize("keep", [None, ()])
def test_layer_wise_is_torchs_l1_unstructured(published, keep, cr):
    masks = Ranking(published, keep).masks(Pruning("layer-wise", cr, cr, keep))["semantic"]
    net = build(published.weights["semantic"])
    total = 1_939_392
    k = 16 if keep is None else 0
    density = (Fraction(total, cr) - k) / (total - k)
    checked = 0
    for name, module in net.named_modules():
        if not hasattr(module, "weight") or (keep is None and name == HEAD):
            continue
        prune.l1_unstructured(module, "weight", amount=round((1 - density) * module.weight.numel()))
        np.testing.assert_array_equal(module.weight_mask.numpy() > 0, masks[name])
        checked += 1
    assert checked == len(masks)


@pytest.mark.parametrize("cr", [5, 20])
def test_network_wide_is_torchs_global_unstructured(published, cr):
    masks = Ranking(published).masks(Pruning("network-wide", cr, cr))["distance"]
    net = build(published.weights["distance"])
    modules = {n: m for n, m in net.named_modules() if hasattr(m, "weight") and n != HEAD}
    prune.global_unstructured(
        [(module, "weight") for module in modules.values()],
        pruning_method=prune.L1Unstructured,
        amount=1_939_392 - round(1_939_392 / cr),
    )
    assert modules.keys() == masks.keys()
    for name, module in modules.items():
        np.testing.assert_array_equal(module.weight_mask.numpy() > 0, masks[name])


# --- ties: the lower flat index is kept ---------------------------------------------------------


def stable_cut(values, count):
    """Remove the ``count`` smallest magnitudes; of equal ones the higher index goes first."""
    order = sorted(range(len(values)), key=lambda i: (abs(values[i]), -i))
    mask = np.ones(len(values), bool)
    mask[order[:count]] = False
    return mask


def toy(values, split):
    """A branch of two layers of 1x1 convolutions that hold the values."""
    parts = {"a": values[:split], "b": values[split:]}
    found = [Layer(n, (len(v), 1, 1, 1), len(v), 1.0) for n, v in parts.items()]
    weights = {
        f"{n}.weight": np.array(v, np.float32).reshape(-1, 1, 1, 1) for n, v in parts.items()
    }
    return BranchRanking("semantic", found, weights, ())


few = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])


@quick
@given(st.lists(few, min_size=2, max_size=60), st.data())
def test_ties_against_a_stable_sort(values, data):
    split = data.draw(st.integers(1, len(values) - 1))
    ranking = toy(values, split)
    for count in range(len(values) + 1):
        np.testing.assert_array_equal(ranking.lowest_of_all(count), stable_cut(values, count))
    counts = [data.draw(st.integers(0, split)), data.draw(st.integers(0, len(values) - split))]
    wanted = np.concatenate(
        [stable_cut(values[:split], counts[0]), stable_cut(values[split:], counts[1])]
    )
    np.testing.assert_array_equal(ranking.lowest_of_layers(counts), wanted)


@pytest.mark.parametrize("strategy", NAMES)
def test_constant_weights_keep_the_lower_index(strategy):
    checkpoint = make_checkpoint(TINY)
    for branch in BRANCHES:
        for array in checkpoint.weights[branch].values():
            array[...] = -0.25
    masks = Ranking(checkpoint, ()).masks(Pruning(strategy, 3, 3, ()))["semantic"]
    flat = np.concatenate([mask.ravel() for mask in masks.values()])
    if strategy == "network-wide":
        kept = round(flat.size / 3)
        assert flat[:kept].all()
        assert not flat[kept:].any()
    for mask in masks.values():
        assert (np.diff(mask.ravel().astype(int)) <= 0).all(), "kept ones come first"


# --- what it costs ------------------------------------------------------------------------------


def macs_brute_force(checkpoint, side=32):
    """Multiply-adds with nonzero weights, counted where they happen in a forward pass."""
    total = 0
    for branch in BRANCHES:
        net = build(checkpoint.weights[branch])

        def count(module, inputs, output):
            nonlocal total
            here = inputs[0] if isinstance(module, torch.nn.ConvTranspose2d) else output
            nonzero = int(np.count_nonzero(module.weight.numpy()))
            total += here.shape[-1] * here.shape[-2] * nonzero

        for module in net.modules():
            if hasattr(module, "weight"):
                module.register_forward_hook(count)
        with torch.inference_mode():
            net(torch.zeros(1, 3, side, side))
    return total / side**2


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("crs", [(1, 1), (5, 5), (16, 20)])
def test_cost_counts_nonzero_weights(strategy, crs, tmp_path):
    checkpoint = make_checkpoint(QUICK, seed=6)
    # Zeros that were there before count as zeros, whatever the mask says.
    checkpoint.weights["semantic"]["encoder.1.conv1.weight"][:3] = 0
    checkpoint.weights["distance"]["head.weight"][0, 0] = -0.0
    pruning = Pruning(strategy, *crs)
    masks = Ranking(checkpoint).masks(pruning)
    pruned = apply(checkpoint, pruning, masks)
    spent = cost(checkpoint, pruning, masks)
    arrays = [a for b in BRANCHES for n, a in pruned.weights[b].items() if n.endswith(".weight")]
    assert spent.total == sum(a.size for a in arrays)
    assert spent.kept == sum(int(np.count_nonzero(a)) for a in arrays)
    assert spent.cr == spent.total / spent.kept
    assert spent.sparsity == pytest.approx(1 - 1 / spent.cr)
    assert spent.macs == pytest.approx(macs_brute_force(pruned), rel=1e-12)
    full = make_checkpoint(QUICK, seed=6)
    assert spent.dense_macs == pytest.approx(macs_brute_force(full), rel=1e-12)
    assert spent.compute_ratio == spent.dense_macs / spent.macs
    path = tmp_path / "x.safetensors"
    files.save(pruned, path)
    assert spent.file_bytes == path.stat().st_size
    stored = cost(pruned, as_stored(pruned, None), None)
    assert (stored.kept, stored.macs, stored.file_bytes) == (
        spent.kept,
        spent.macs,
        spent.file_bytes,
    )


def test_cost_of_nothing_left():
    checkpoint = make_checkpoint(TINY)
    for branch in BRANCHES:
        for array in checkpoint.weights[branch].values():
            array[...] = 0
    spent = cost(checkpoint, Pruning(), None)
    assert (spent.kept, spent.cr, spent.compute_ratio) == (0, float("inf"), float("inf"))
