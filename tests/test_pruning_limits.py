"""Pruning's limits: nested masks, ratios out of reach, and what is pruned already."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import PUBLISHED, QUICK, TINY, is_one_line, make_checkpoint
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.strategy import STRATEGIES, Ranking, apply, as_stored
from pruning_helpers import (
    NAMES,
    assert_nested,
    kept_layers,
    published,
    quick,
    sizes,
    small,
    with_ties,
)

__all__ = ["published", "small"]


def refused(text, call, *arguments):
    with pytest.raises(InputError, match=text) as caught:
        call(*arguments)
    assert is_one_line(caught.value)
    return str(caught.value)


# --- nesting, branches, limits ------------------------------------------------------------------


@quick
@given(
    seed=st.integers(0, 5),
    strategy=st.sampled_from(NAMES),
    crs=st.lists(st.floats(1, 400), min_size=2, max_size=5),
    coarse=st.booleans(),
)
def test_masks_are_nested_as_cr_grows(seed, strategy, crs, coarse):
    checkpoint = make_checkpoint(QUICK, seed)
    assert_nested(with_ties(checkpoint) if coarse else checkpoint, strategy, crs)


@pytest.mark.parametrize("strategy", NAMES)
def test_branches_have_their_own_cr(small, strategy):
    ranking = Ranking(small)
    both = {cr: ranking.masks(Pruning(strategy, cr, cr)) for cr in (2, 16)}
    mixed = ranking.masks(Pruning(strategy, 2, 16))
    for branch, cr in (("semantic", 2), ("distance", 16)):
        for name, mask in mixed[branch].items():
            np.testing.assert_array_equal(mask, both[cr][branch][name])
    # The other strategy or the order of calls leaves no trace.
    ranking.masks(Pruning(NAMES[strategy == NAMES[0]], 5, 5))
    again = ranking.masks(Pruning(strategy, 2, 16))
    for branch in BRANCHES:
        for name, mask in mixed[branch].items():
            np.testing.assert_array_equal(mask, again[branch][name])


def test_ranking_leaves_the_weights_alone(small):
    sha = make_checkpoint(QUICK).sha256
    checkpoint = make_checkpoint(QUICK)
    pruning = Pruning("network-wide", 16, 16)
    ranking = Ranking(checkpoint)
    masks = ranking.masks(pruning)
    apply(checkpoint, pruning, masks)
    del checkpoint.__dict__["sha256"]  # what was hashed before the masks were applied
    assert checkpoint.sha256 == sha


KEEPS = [
    None,
    ("head", "encoder.4.conv2"),
    ("encoder.4.conv1", "decoder.0.conv1"),
    ("up.1", "up.2", "up.3"),
    ("encoder.3.conv2",),
    ("encoder.4.conv2", "decoder.0.conv1", "encoder.4.conv1", "decoder.0.conv2", "up.0"),
]


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_out_of_reach_names_the_largest(small, published, strategy, keep):
    for checkpoint, widths in ((small, QUICK), (published, PUBLISHED)):
        n = sizes(widths)
        largest = sum(n.values()) / sum(n[name] for name in kept_layers(keep, "semantic"))
        ranking = Ranking(checkpoint, keep)
        asked = largest * 1.001 + 1
        text = refused("largest", ranking.masks, Pruning(strategy, asked, 1, keep))
        said = float(text.split("largest is ")[1].rstrip("."))
        assert said == pytest.approx(largest, rel=1e-3)
        # What is named can be asked for, and leaves little more than the kept layers.
        masks = ranking.masks(Pruning(strategy, said, said, keep))
        left = sum(int(mask.sum()) for mask in masks["semantic"].values())
        assert left <= 1 + 1e-3 * sum(n.values())
        # So can the exact number.
        ranking.masks(Pruning(strategy, largest, largest, keep))


@pytest.mark.parametrize("strategy", NAMES)
def test_no_kept_layer_reaches_one_weight_and_no_further(small, strategy):
    total = sum(sizes(QUICK).values())
    ranking = Ranking(small, ())
    ranking.masks(Pruning(strategy, total, total, ()))
    text = refused("largest", ranking.masks, Pruning(strategy, total + 1, 1, ()))
    assert "  " not in text, text


@pytest.mark.parametrize("strategy", NAMES)
def test_all_layers_kept(small, strategy):
    keep = tuple(sizes(QUICK))
    ranking = Ranking(small, keep)
    assert ranking.masks(Pruning(strategy, 1, 1, keep)) == {"semantic": {}, "distance": {}}
    refused("largest is 1", ranking.masks, Pruning(strategy, 1.5, 1, keep))


@pytest.mark.parametrize(
    "name", ["head.weight", "semantic", "semantic.", "sematic.head", "", "Head"]
)
def test_a_layer_that_does_not_exist(small, name):
    refused("no layer", Ranking, small, (name,))


@pytest.mark.parametrize("cr", [0.5, 0, -2, float("nan"), float("inf"), 0.999])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_bad_cr(cr, branch):
    refused(branch, lambda: Pruning(**{f"cr_{branch}": cr}))


def test_an_unknown_strategy(small):
    text = refused("not known", Ranking(small).masks, Pruning("magic"))
    assert all(name in text for name in STRATEGIES)
    assert set(NAMES) <= set(STRATEGIES)


def test_another_keep_than_the_rankings_is_a_fault_of_ours(small):
    with pytest.raises(ValueError, match="kept layers"):
        Ranking(small).masks(Pruning(keep=()))


# --- what is pruned already ---------------------------------------------------------------------


def pruned_at(checkpoint, strategy, *crs, keep=None):
    pruning = Pruning(strategy, *crs, keep)
    return apply(checkpoint, pruning, Ranking(checkpoint, keep).masks(pruning))


def test_own_cr_is_the_floor(small):
    stored = pruned_at(small, "network-wide", 4, 8)
    ranking = Ranking(stored)
    text = refused("stored pruned", ranking.masks, Pruning("network-wide", 3.9, 8))
    assert "semantic" in text
    text = refused("stored pruned", ranking.masks, Pruning("network-wide", 4.1, 1))
    assert "distance" in text
    ranking.masks(Pruning("layer-wise", 16, 16))
    total = sum(sizes(QUICK).values())
    assert stored.own_cr["semantic"] == total / round(total / 4)
    assert small.own_cr == {"semantic": 1, "distance": 1}


def test_zeros_of_a_dense_checkpoint_are_no_pruning():
    checkpoint = make_checkpoint(TINY)
    checkpoint.weights["semantic"]["encoder.0.conv1.weight"][...] = 0
    assert checkpoint.own_cr == {"semantic": 1, "distance": 1}
    Ranking(checkpoint).masks(Pruning())


@pytest.mark.parametrize("cr", [2, 5, 16, 20])
@pytest.mark.parametrize("strategy", NAMES)
def test_a_stored_one_can_be_asked_for_its_own_cr(published, strategy, cr):
    """Its CR is the slider's floor: the number that it was pruned with must not be refused."""
    stored = pruned_at(published, strategy, cr, cr)
    masks = Ranking(stored).masks(Pruning(strategy, cr, cr))
    again = apply(stored, Pruning(strategy, cr, cr), masks)
    assert again.sha256 == stored.sha256


@pytest.mark.parametrize("strategy", NAMES)
def test_as_stored_runs_what_is_stored(published, strategy):
    stored = pruned_at(published, strategy, 5, 16, keep=("head", "encoder.0.conv1"))
    pruning = as_stored(stored, None)
    assert pruning.strategy == strategy
    assert pruning.keep == ("head", "encoder.0.conv1")
    masks = Ranking(stored, pruning.keep).masks(pruning)
    assert apply(stored, pruning, masks).sha256 == stored.sha256
    asked = Pruning("layer-wise", 32, 32)
    assert as_stored(stored, asked) is asked
    assert as_stored(published, None) == Pruning()


def test_pruning_in_two_steps_is_pruning_once(small):
    """The dense parent is remembered and the weights are those of one step."""
    half = pruned_at(small, "network-wide", 4, 4)
    twice = pruned_at(half, "network-wide", 16, 16)
    once = pruned_at(small, "network-wide", 16, 16)
    assert twice.sha256 == once.sha256
    assert twice.parent_sha256 == once.parent_sha256 == small.sha256


@pytest.mark.parametrize("strategy", NAMES)
def test_apply_zeroes_exactly(strategy):
    checkpoint = make_checkpoint(QUICK, seed=2)
    pruning = Pruning(strategy, 5, 20)
    masks = Ranking(checkpoint).masks(pruning)
    pruned = apply(checkpoint, pruning, masks)
    for branch in BRANCHES:
        assert list(pruned.weights[branch]) == list(checkpoint.weights[branch])
        for name, array in checkpoint.weights[branch].items():
            found = pruned.weights[branch][name]
            assert found.dtype == np.float32
            mask = masks[branch].get(name.removesuffix(".weight")) if "weight" in name else None
            wanted = array if mask is None else np.where(mask, array, 0)
            np.testing.assert_array_equal(found, wanted)
    assert pruned.parent_sha256 == checkpoint.sha256
    assert pruned.sha256 != checkpoint.sha256
    assert pruned.pruning == pruning.as_dict()
    assert (pruned.mpp, pruned.merge, pruned.provenance) == (
        checkpoint.mpp,
        checkpoint.merge,
        checkpoint.provenance,
    )
    assert checkpoint.pruning is None
