"""Recovery of whole checkpoints: the mask stays, the responses come back, refusals are sentences."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import QUICK, TINY, branch_weights, equal_weights, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import format as files
from napari_nucprune.checkpoint.architecture import widths_of
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.pruning.recipe import RESELECT, Recipe
from napari_nucprune.pruning.recovery import Calibration, recover
from napari_nucprune.pruning.sensitivity import BATCH
from napari_nucprune.pruning.strategies import STRATEGIES
from napari_nucprune.pruning.strategy import Ranking, apply, as_stored
from napari_nucprune.synthetic import synthetic

NAMES = ("layer-wise", "network-wide")
#: All places that are drawn are used: what the refit saw is what the tests measure.
ALL = Recipe(samples=500, samples_a_weight=1e9)
SMALL = (3, 4, 4)


def tissue(seed=0, n=4, side=32):
    rgb, _ = synthetic(seed, 2 * side, density=8e3)
    cut = rgb.reshape(2, side, 2, side, 3).swapaxes(1, 2).reshape(4, side, side, 3)
    return np.ascontiguousarray(cut[:n])


def mixed(seed=0, semantic=QUICK, distance=TINY):
    """Branches of different depth and width."""
    rng = np.random.default_rng(seed)
    weights = {"semantic": branch_weights(semantic, rng), "distance": branch_weights(distance, rng)}
    return Checkpoint("mixed", weights, 0.25)


def one_shot(checkpoint, pruning):
    masks = Ranking(checkpoint, pruning.keep).masks(pruning)
    return masks, apply(checkpoint, pruning, masks)


@pytest.fixture(scope="module")
def crops():
    return tissue(n=4, side=64)


@pytest.fixture(scope="module")
def dense():
    return make_checkpoint(QUICK, seed=7)


@pytest.fixture(scope="module")
def calibration(dense, crops):
    return Calibration(dense, crops, "four crops", ALL)


def outputs(weights, crops):
    with torch.inference_mode():
        return build(weights)(torch.from_numpy(crops).permute(0, 3, 1, 2).float()).numpy()


def error(dense, other, branch, crops):
    a, b = (outputs(c.weights[branch], crops) for c in (dense, other))
    return float(((a - b) ** 2).mean())


# --- the mask, and what is written down ---------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "crs", "keep"),
    [("layer-wise", (4, 8), None), ("network-wide", (8, 2), ("encoder.0.conv1", "semantic.up.1"))],
)
def test_the_mask_stays(dense, calibration, strategy, crs, keep):
    pruning = Pruning(strategy, *crs, keep)
    masks, pruned = one_shot(dense, pruning)
    sha = dense.sha256
    found = calibration.recover(pruning, masks)
    for branch in BRANCHES:
        assert list(found.weights[branch]) == list(pruned.weights[branch])
        for name, array in found.weights[branch].items():
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
            layer = name.removesuffix(".weight")
            if layer != name:
                mask = masks[branch].get(layer, np.ones(array.shape, bool))
                np.testing.assert_array_equal(array != 0, mask, name)
    assert not equal_weights(found, pruned)
    del dense.__dict__["sha256"]  # what was hashed before
    assert dense.sha256 == sha
    assert equal_weights(found, calibration.recover(pruning, masks)), "twice the same"


@pytest.mark.parametrize("strategy", ["2:4", "4:8", "random"])
def test_a_strategys_pattern_stays_where_it_is_what_the_strategy_is_for(crops, strategy):
    """Weights chosen anew would be no 2:4 any more; what is told to choose them keeps them here."""
    checkpoint = make_checkpoint((8, 16), seed=3)
    cr = 2
    if (fixed := STRATEGIES[strategy].fixed_cr) is not None:
        cr = fixed(Ranking(checkpoint).branches["semantic"])
    pruning = Pruning(strategy, cr, cr)
    masks, pruned = one_shot(checkpoint, pruning)
    found = Calibration(checkpoint, crops, recipe=RESELECT).recover(pruning, masks)
    assert not equal_weights(found, pruned)
    assert found.pruning["recovery"]["select_stages"] == 0
    for branch in BRANCHES:
        for name, mask in masks[branch].items():
            there = found.weights[branch][f"{name}.weight"] != 0
            assert not (there & ~mask).any(), name


def test_metadata_and_file(dense, calibration, tmp_path):
    pruning = Pruning("network-wide", 4, 8)
    found = calibration.recover(pruning, one_shot(dense, pruning)[0])
    assert found.parent_sha256 == dense.sha256
    assert (found.mpp, found.merge, found.provenance) == (dense.mpp, dense.merge, dense.provenance)
    about = found.pruning["recovery"]
    assert (about["crops"], about["side"], about["origin"]) == (4, 64, "four crops")
    assert about["samples"] == ALL.samples
    assert {k: v for k, v in found.pruning.items() if k != "recovery"} == pruning.as_dict()
    path = tmp_path / "x.safetensors"
    files.save(found, path)
    loaded = files.load(path)
    assert equal_weights(loaded, found)
    assert loaded.pruning == json.loads(json.dumps(found.pruning))
    assert loaded.parent_sha256 == dense.sha256
    # Run as it is stored, it runs with the refitted weights.
    stored = as_stored(loaded, None)
    again = apply(loaded, stored, Ranking(loaded, stored.keep).masks(stored))
    assert equal_weights(again, found)


def test_a_stored_pruned_network_keeps_its_zeros(crops):
    """Also in layers that this time are kept as they are."""
    stored = one_shot(make_checkpoint(SMALL), Pruning("layer-wise", 4, 4))[1]
    pruning = Pruning("layer-wise", 8, 8, ("encoder.2.conv1", "head"))
    masks, again = one_shot(stored, pruning)
    found = Calibration(stored, crops, recipe=ALL).recover(pruning, masks)
    for branch in BRANCHES:
        for name, array in again.weights[branch].items():
            if name.endswith(".weight"):
                assert not found.weights[branch][name][array == 0].any(), name
    assert found.parent_sha256 == stored.parent_sha256


def test_nothing_pruned_stays_as_it_is(dense, calibration, crops):
    assert equal_weights(calibration.recover(Pruning(), one_shot(dense, Pruning())[0]), dense)


def test_a_branch_that_loses_nothing_is_left_and_refuses_nothing(dense):
    """Its many weights would want more crops than the other branch's few."""
    few = Calibration(dense, tissue(n=1), recipe=ALL)
    pruning = Pruning("layer-wise", 1, 16)
    masks, pruned = one_shot(dense, pruning)
    found = few.recover(pruning, masks)
    for name, array in dense.weights["semantic"].items():
        np.testing.assert_array_equal(found.weights["semantic"][name], array)
    assert any(
        not np.array_equal(found.weights["distance"][name], array)
        for name, array in pruned.weights["distance"].items()
    )


def test_one_branch_alone_gives_what_both_give(dense, calibration):
    pruning = Pruning("layer-wise", 4, 8)
    masks, pruned = one_shot(dense, pruning)
    both = calibration.recover(pruning, masks)
    alone = calibration.recover(pruning, masks, branches=["distance"])
    for name, array in both.weights["distance"].items():
        found = alone.weights["distance"][name]
        assert np.array_equal(found != 0, array != 0)
        np.testing.assert_allclose(found, array, rtol=1e-3, atol=1e-5)
    for name, array in pruned.weights["semantic"].items():
        np.testing.assert_array_equal(alone.weights["semantic"][name], array)


@pytest.mark.parametrize("cr", [4, 8])
@pytest.mark.parametrize("strategy", NAMES)
def test_outputs_come_nearer(dense, calibration, crops, strategy, cr):
    pruning = Pruning(strategy, cr, cr)
    masks, pruned = one_shot(dense, pruning)
    found = calibration.recover(pruning, masks)
    for branch in BRANCHES:
        before, after = (error(dense, c, branch, crops) for c in (pruned, found))
        assert after < before
        # No worse than the nearest constant, which the head's bias alone can reach.
        assert after < 1.05 * outputs(dense.weights[branch], crops).var()


def layer_errors(dense, pruned, found, crops):
    """By layer: the error of its old and of its new weights, on what it sees in ``found``."""
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    wanted, errors = {}, {}

    def remember(name):
        return lambda module, inputs, y: wanted.update({name: y.double().clone()})

    def compare(name, old):
        def hook(module, inputs, y):
            said = {"new": y.clone()}
            twin = copy.deepcopy(module)
            twin._forward_hooks.clear()
            twin.weight.copy_(torch.from_numpy(old[f"{name}.weight"]))
            twin.bias.copy_(torch.from_numpy(old[f"{name}.bias"]))
            said["old"] = twin(inputs[0])
            goal = wanted[name]
            for key, value in said.items():
                off = value.double() - goal
                if not name.startswith(("up", "head")):
                    off = torch.where(goal > 0, off, value.double().clamp_min(0))
                errors[name, key] = float(off.square().mean())

        return hook

    for weights, make in ((dense, remember), (found, lambda name: compare(name, pruned))):
        net = build(weights)
        for name, module in net.named_modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.register_forward_hook(make(name))
        with torch.inference_mode():
            net(x)
    return errors


@given(
    seed=st.integers(0, 1000),
    cr=st.sampled_from([1.0, 1.1, 1.5, 2.0, 4.0, 8.0]),
    strategy=st.sampled_from(NAMES),
    gain=st.sampled_from([0.5, 1.0, 1.3]),
)
@settings(max_examples=8, deadline=None)
def test_no_layer_is_worse_than_unrecovered(seed, cr, strategy, gain):
    """On its own inputs and every pixel of the crops, all of which the refit saw."""
    check_layers(seed, cr, strategy, gain, Recipe())


@given(
    seed=st.integers(0, 1000),
    cr=st.sampled_from([1.5, 2.0, 4.0, 8.0]),
    strategy=st.sampled_from(NAMES),
)
@settings(max_examples=8, deadline=None)
def test_no_layer_is_worse_with_weights_chosen_anew(seed, cr, strategy):
    """As the dock and the commands recover, every place and channel counted alike."""
    check_layers(seed, cr, strategy, 1.0, replace(RESELECT, by_effect=False))


def check_layers(seed, cr, strategy, gain, recipe):
    checkpoint = make_checkpoint(SMALL, seed=seed, gain=gain)
    pruning = Pruning(strategy, cr, cr)
    masks, pruned = one_shot(checkpoint, pruning)
    crops = tissue(seed, n=4, side=24)
    every = replace(recipe, samples=10**6, samples_a_weight=1e9)
    found = Calibration(checkpoint, crops, recipe=every).recover(pruning, masks)
    for branch in BRANCHES:
        trio = (c.weights[branch] for c in (checkpoint, pruned, found))
        errors = layer_errors(*trio, crops)
        assert len(errors) == 2 * len(checkpoint.layers(branch))
        for name in {name for name, _ in errors}:
            old, new = errors[name, "old"], errors[name, "new"]
            assert new <= old * (1 + 1e-3) + 1e-8, (branch, name, new, old)


@pytest.mark.parametrize("distance", [TINY, (2,) * 6])
def test_branches_of_different_depth(distance):
    checkpoint = mixed(distance=distance)
    side = 2 ** (max(len(widths_of(checkpoint.weights[b])) for b in BRANCHES) - 1)
    crops = tissue(side=2 * side)
    pruning = Pruning("layer-wise", 4, 3)
    masks, pruned = one_shot(checkpoint, pruning)
    found = Calibration(checkpoint, crops, recipe=ALL).recover(pruning, masks)
    for branch in BRANCHES:
        assert error(checkpoint, found, branch, crops) < error(checkpoint, pruned, branch, crops)


@pytest.mark.parametrize("calls", [0, 1, 7, 40, 90])
def test_cancel(crops, calls):
    checkpoint, pruning = make_checkpoint(SMALL, seed=2), Pruning("layer-wise", 4, 4)
    masks, _ = one_shot(checkpoint, pruning)
    sha, asked = checkpoint.sha256, []

    def stop():
        asked.append(1)
        return len(asked) > calls

    with pytest.raises(Cancelled):
        recover(checkpoint, pruning, crops, ALL, should_stop=stop)
    assert len(asked) <= calls + 2, "both branches stop at their next question"
    del checkpoint.__dict__["sha256"]
    assert checkpoint.sha256 == sha
    kept = Calibration(checkpoint, crops, "", ALL)
    with pytest.raises(Cancelled):
        kept.recover(pruning, masks, should_stop=lambda: True)
    # A calibration outlives a cancelled refit.
    assert equal_weights(kept.recover(pruning, masks), recover(checkpoint, pruning, crops, ALL))


def test_progress(dense, crops):
    seen = []
    pruning = Pruning("layer-wise", 4, 4)
    recover(dense, pruning, crops, ALL, lambda *about: seen.append(about))
    layers = len(dense.layers("semantic"))
    for text in {text for text, _, _ in seen}:
        steps = [(done, total) for said, done, total in seen if said == text]
        total = -(-len(crops) // BATCH) if text.startswith("Sensitivity") else layers
        assert steps == [(i, total) for i in range(total)], text
    texts = {text for text, _, _ in seen}
    assert len(texts) == 6, "sensitivity, dense responses and the refit, of both branches"


def test_thread_counts_stay(crops):
    """torch hands a new thread the number that was set last, in whatever thread."""

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        recover(make_checkpoint(TINY), Pruning("layer-wise", 2, 2), crops, ALL)
        assert torch.get_num_threads() == 4
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 4
    finally:
        torch.set_num_threads(before)


# --- refusals -----------------------------------------------------------------------------------


def refused(text, call, *arguments, **named):
    with pytest.raises(InputError, match=text) as caught:
        call(*arguments, **named)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("width", [0, 10])
def test_glass(dense, width):
    glass = np.full((3, 32, 32, 3), 240, np.uint8)
    glass[0, :4, :width] = (150, 60, 140)  # 1.3 %
    refused("slide.svs holds .* glass", Calibration, dense, glass, "slide.svs")


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 16, 16, 4), np.uint8),
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((0, 16, 16, 3), np.uint8),
        np.zeros((2, 0, 0, 3), np.uint8),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_other_arrays(dense, crops):
    refused("shape", Calibration, dense, crops)


@pytest.mark.parametrize("depth", range(2, 9))
def test_the_grid_is_the_networks_own(depth):
    checkpoint = mixed(semantic=TINY, distance=(1,) * depth)
    grid = build(checkpoint.weights["distance"]).factor
    dark = np.full((2, grid, grid, 3), 100, np.uint8)
    Calibration(checkpoint, dark, recipe=ALL)
    bad = np.full((2, grid, grid + max(grid // 2, 1), 3), 100, np.uint8)
    refused(f"multiples of {grid}", Calibration, checkpoint, bad)
    refused(f"multiples of {grid}", Calibration, checkpoint, bad.swapaxes(1, 2))


def test_too_few_samples(dense):
    pruning = Pruning("layer-wise", 1.1, 1.1)
    masks, _ = one_shot(dense, pruning)
    refused("more or larger crops", Calibration(dense, tissue(n=1)).recover, pruning, masks)
