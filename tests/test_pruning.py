from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from helpers import PUBLISHED, QUICK, TINY, distinct_checkpoint, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import format as files
from napari_nucprune.checkpoint.architecture import HEAD, Layer, layers
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.cost import cost
from napari_nucprune.pruning.magnitude import BranchRanking
from napari_nucprune.pruning.strategy import STRATEGIES, Ranking, apply, as_stored

CRS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64)
NAMES = ("layer-wise", "network-wide")
quick = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def published():
    return distinct_checkpoint(PUBLISHED, seed=4)


@pytest.fixture(scope="module")
def small():
    return distinct_checkpoint(QUICK, seed=1)


def sizes(widths):
    return {layer.name: layer.size for layer in layers(widths)}


def kept_layers(keep, branch):
    """Which layers DESIGN leaves dense, written down again."""
    if keep is None:
        return {HEAD}
    other = "distance" if branch == "semantic" else "semantic"
    return {n.removeprefix(f"{branch}.") for n in keep if not n.startswith(f"{other}.")}


def refused(text, call, *arguments):
    with pytest.raises(InputError, match=text) as caught:
        call(*arguments)
    assert is_one_line(caught.value)
    return str(caught.value)


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
    if coarse:  # many ties
        for branch in BRANCHES:
            for name, array in checkpoint.weights[branch].items():
                checkpoint.weights[branch][name] = np.round(array * 4) / 4
    ranking = Ranking(checkpoint)
    before = None
    for cr in sorted(crs):
        masks = ranking.masks(Pruning(strategy, cr, cr))
        if before is not None:
            for branch in BRANCHES:
                for name, mask in masks[branch].items():
                    assert not (mask & ~before[branch][name]).any()
        before = masks


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
