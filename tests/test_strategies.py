"""Strategies beyond the paper, against their own papers' formulas written down again."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import PUBLISHED, QUICK, TINY, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.architecture import HEAD, Layer, layers
from napari_nucprune.checkpoint.format import load
from napari_nucprune.cli import main, parser
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning import beyond
from napari_nucprune.pruning.cost import cost
from napari_nucprune.pruning.magnitude import BranchRanking
from napari_nucprune.pruning.strategy import STRATEGIES, Ranking, apply, as_stored
from pruning_helpers import assert_nested, published, quick, sizes, small, with_ties

__all__ = ["published", "small"]

ANY_CR = ("LAMP", "ERK", "random")
FIXED = ("2:4", "4:8")
few = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])


def toy(*parts):
    """A branch of layers of 1x1 convolutions that hold the values."""
    found = [Layer(f"l{i}", (len(v), 1, 1, 1), len(v), 1.0) for i, v in enumerate(parts)]
    weights = {
        f"l{i}.weight": np.array(v, np.float32).reshape(-1, 1, 1, 1) for i, v in enumerate(parts)
    }
    return BranchRanking("semantic", found, weights, ())


def test_all_are_there():
    assert list(STRATEGIES) == ["layer-wise", "network-wide", *ANY_CR, *FIXED]
    for strategy in STRATEGIES.values():
        assert 20 < len(strategy.explanation) < 90
        assert (strategy.fixed_cr is not None) == (strategy.name in FIXED)
    help_of_prune = parser()._subparsers._group_actions[0].choices["prune"].format_help()
    assert all(name in help_of_prune for name in STRATEGIES)


# --- LAMP ---------------------------------------------------------------------------------------


def lamp_scores(values):
    """Eq. 4 of Lee et al. 2021, weight by weight; the lower of two equal indices is the larger."""
    square = [Fraction(v) ** 2 for v in values]
    larger = lambda v, u: square[v] > square[u] or (square[v] == square[u] and v <= u)  # noqa: E731
    rest = [sum(square[v] for v in range(len(values)) if larger(v, u)) for u in range(len(values))]
    return [s / r if s else Fraction(0) for s, r in zip(square, rest, strict=True)]


@quick
@given(st.lists(few, min_size=1, max_size=20), st.lists(few, min_size=1, max_size=20), st.data())
def test_lamp_against_its_formula(a, b, data):
    found = beyond.lamp([np.abs(np.array(part, np.float32)) for part in (a, b)])
    wanted = [*lamp_scores(a), *lamp_scores(b)]
    np.testing.assert_allclose(np.concatenate(found), np.array(wanted, float), rtol=1e-12)
    n = len(wanted)
    kept = data.draw(st.integers(1, n))
    order = sorted(range(n), key=lambda i: (wanted[i], -i))
    mask = np.ones(n, bool)
    mask[order[: n - kept]] = False
    ours = STRATEGIES["LAMP"].choose(toy(a, b), n / kept)
    assert ours.sum() == kept
    # Scores that floats cannot tell apart may change places.
    assert sorted(wanted[i] for i in np.flatnonzero(ours)) == pytest.approx(
        sorted(wanted[i] for i in np.flatnonzero(mask)), rel=1e-12
    )


def test_lamp_never_empties_a_layer_before_all_are_down_to_one(small):
    n = sum(sizes(QUICK).values())
    masks = Ranking(small, ()).masks(Pruning("LAMP", n / 30, n / 30, ()))["semantic"]
    assert sum(int(m.sum()) for m in masks.values()) == 30
    assert all(m.any() for m in masks.values())
    empty = Ranking(small, ()).masks(Pruning("network-wide", n / 30, n / 30, ()))["semantic"]
    assert not all(m.any() for m in empty.values())


def test_lamp_does_not_depend_on_a_layers_scale(small):
    """Its point: multiply a layer by a number, and the mask stays."""
    before = Ranking(small).masks(Pruning("LAMP", 8, 8))["distance"]
    louder = make_checkpoint(QUICK)
    for branch in BRANCHES:
        for name, array in small.weights[branch].items():
            factor = 16.0 if name.startswith("encoder.1") else 1.0
            louder.weights[branch][name] = array * np.float32(factor)
    after = Ranking(louder).masks(Pruning("LAMP", 8, 8))["distance"]
    for name, mask in before.items():
        np.testing.assert_array_equal(mask, after[name])


# --- ERK ----------------------------------------------------------------------------------------


def rigl_densities(shapes, kept):
    """get_mask_random's loop of google-research/rigl (sparse_utils.get_sparsities_erdos_renyi)."""
    dense = set()
    while True:
        divisor, rhs, raw = 0.0, kept, {}
        for name, shape in shapes.items():
            size = np.prod(shape)
            if name in dense:
                rhs -= size
            else:
                raw[name] = np.sum(shape) / size
                divisor += raw[name] * size
        epsilon = rhs / divisor
        most = max(raw.values())
        if most * epsilon <= 1:
            break
        dense |= {name for name, value in raw.items() if value == most}
    return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}


@pytest.mark.parametrize("cr", [1.5, 2, 5, 16, 64])
@pytest.mark.parametrize("keep", [None, (), ("head", "encoder.0.conv2")])
def test_erk_is_rigls(published, keep, cr):
    kept = {HEAD} if keep is None else set(keep)
    shapes = {x.name: x.shape for x in layers(PUBLISHED) if x.name not in kept}
    n = sizes(PUBLISHED)
    budget = sum(n.values()) / cr - sum(n[name] for name in kept)
    wanted = rigl_densities(shapes, budget)
    assert sum(d * n[name] for name, d in wanted.items()) == pytest.approx(budget)
    assert any(d == 1 for d in wanted.values()) or cr > 5
    masks = Ranking(published, keep).masks(Pruning("ERK", cr, cr, keep))["semantic"]
    for name, density in wanted.items():
        assert abs(int(masks[name].sum()) - density * n[name]) <= 0.5 + 1e-6, name
        weights = np.abs(published.weights["semantic"][f"{name}.weight"])
        if not masks[name].all():
            assert weights[masks[name]].min() > weights[~masks[name]].max()


# --- random -------------------------------------------------------------------------------------


def test_random_is_uniform_and_the_same_again(published):
    masks = Ranking(published).masks(Pruning("random", 5, 16))
    again = Ranking(make_checkpoint(PUBLISHED)).masks(Pruning("random", 5, 16))
    for branch, cr in (("semantic", 5), ("distance", 16)):
        for name, mask in masks[branch].items():
            np.testing.assert_array_equal(mask, again[branch][name])
            deviation = np.sqrt(mask.size * (1 / cr) * (1 - 1 / cr))
            assert abs(mask.sum() - mask.size / cr) < 5 * deviation, name
    both = Ranking(published).masks(Pruning("random", 5, 5))
    same = [(both["semantic"][n] == both["distance"][n]).mean() for n in both["semantic"]]
    assert np.mean(same) == pytest.approx(0.8**2 + 0.2**2, abs=0.02)


# --- N:M ----------------------------------------------------------------------------------------


def n_of_m_by_hand(weights, transposed, n, m):
    """Group by group, in plain Python."""
    mask = np.zeros(weights.shape, bool)
    inputs, outputs = (0, 1) if transposed else (1, 0)
    for out in range(weights.shape[outputs]):
        for y, x in itertools.product(*map(range, weights.shape[2:])):
            for start in range(0, weights.shape[inputs], m):
                index = [(i, out, y, x) if transposed else (out, i, y, x)
                         for i in range(start, start + m)]  # fmt: skip
                best = sorted(index, key=lambda i: -abs(weights[i]))[:n]
                for i in best:
                    mask[i] = True
    return mask


@pytest.mark.parametrize("strategy", FIXED)
@pytest.mark.parametrize("coarse", [False, True])
def test_n_of_m_group_by_group(strategy, coarse):
    n, m = map(int, strategy.split(":"))
    checkpoint = make_checkpoint(QUICK, seed=3)
    if coarse:  # many ties
        for array in checkpoint.weights["semantic"].values():
            array[...] = np.round(array * 4) / 4
    ranking = Ranking(checkpoint)
    own = ranking.fixed_crs(strategy)
    masks = ranking.masks(Pruning(strategy, own["semantic"], own["distance"]))["semantic"]
    pruned = 0
    for name, mask in masks.items():
        weights = checkpoint.weights["semantic"][f"{name}.weight"]
        transposed = name.startswith("up.")
        if weights.shape[0 if transposed else 1] % m:
            assert mask.all(), name
            continue
        pruned += 1
        np.testing.assert_array_equal(mask, n_of_m_by_hand(weights, transposed, n, m))
        assert mask.sum() * m == mask.size * n
    assert pruned > 5


@pytest.mark.parametrize("strategy", FIXED)
def test_n_of_m_is_cr_2_and_says_so(published, strategy):
    ranking = Ranking(published)
    asked = Pruning(strategy, 2, 2)
    masks = ranking.masks(asked)
    spent = cost(published, asked, masks)
    own = ranking.fixed_crs(strategy)["semantic"]
    assert spent.cr == pytest.approx(own, rel=1e-12)
    # Only the RGB input's 432 weights and the head's 16 stay whole.
    n = sum(sizes(PUBLISHED).values())
    assert own == pytest.approx(n / ((n - 448) / 2 + 448), rel=1e-12)
    for cr in (1.5, 5, 64):
        with pytest.raises(InputError, match="ask for 2,") as caught:
            ranking.masks(Pruning(strategy, cr, 2))
        assert is_one_line(caught.value)
        assert "semantic" in str(caught.value)
    half = ranking.masks(Pruning(strategy, 2, 1))
    assert all(mask.all() for mask in half["distance"].values())
    assert not all(mask.all() for mask in half["semantic"].values())


def test_n_of_m_where_nothing_falls_into_groups():
    """Widths of 2 and 3: CR 1 is all there is."""
    keep = ("head", "decoder.0.conv1")  # its 2 + 2 inputs are a group
    ranking = Ranking(make_checkpoint(TINY), keep)
    assert ranking.fixed_crs("2:4") == {"semantic": 1, "distance": 1}
    with pytest.raises(InputError, match="ask for 1,"):
        ranking.masks(Pruning("2:4", 2, 2, keep))


# --- what all of them owe ----------------------------------------------------------------------


@pytest.mark.parametrize("keep", [None, (), ("head", "encoder.0.conv1", "semantic.up.3")])
@pytest.mark.parametrize("strategy", ANY_CR)
def test_counts_and_kept_layers(published, strategy, keep):
    ranking = Ranking(published, keep)
    n = sizes(PUBLISHED)
    total = sum(n.values())
    for cr in (1, 2, 5, 16, 64):
        masks = ranking.masks(Pruning(strategy, cr, cr, keep))
        for branch in BRANCHES:
            own = {HEAD} if keep is None else {k.removeprefix("semantic.") for k in keep}
            if branch == "distance" and keep:
                own.discard("up.3")
            assert masks[branch].keys() == n.keys() - own
            gone = sum(int((~mask).sum()) for mask in masks[branch].values())
            slack = 0 if strategy != "ERK" else len(masks[branch]) / 2
            assert abs(gone - (total - round(Fraction(total, cr)))) <= slack


@quick
@given(
    strategy=st.sampled_from(ANY_CR),
    crs=st.lists(st.floats(1, 400), min_size=2, max_size=5),
    coarse=st.booleans(),
)
def test_masks_are_nested_as_cr_grows(strategy, crs, coarse):
    checkpoint = make_checkpoint(QUICK, 2)
    assert_nested(with_ties(checkpoint) if coarse else checkpoint, strategy, crs)


@pytest.mark.parametrize("strategy", ANY_CR)
def test_out_of_reach_names_the_largest(small, strategy):
    keep = ("head", "encoder.4.conv2")
    n = sizes(QUICK)
    largest = sum(n.values()) / sum(n[name] for name in keep)
    ranking = Ranking(small, keep)
    with pytest.raises(InputError, match="largest") as caught:
        ranking.masks(Pruning(strategy, largest + 1, 1, keep))
    said = float(str(caught.value).split("largest is ")[1].rstrip("."))
    assert said == pytest.approx(largest, rel=1e-3)
    ranking.masks(Pruning(strategy, said, said, keep))


@pytest.mark.parametrize("strategy", [*ANY_CR, *FIXED])
def test_all_layers_kept(small, strategy):
    keep = tuple(sizes(QUICK))
    ranking = Ranking(small, keep)
    assert ranking.masks(Pruning(strategy, 1, 1, keep)) == {"semantic": {}, "distance": {}}
    with pytest.raises(InputError):
        ranking.masks(Pruning(strategy, 2, 2, keep))


@pytest.mark.parametrize("strategy", [*ANY_CR, *FIXED])
def test_what_is_stored_runs_as_it_is_stored(published, strategy):
    pruning = Pruning(strategy, 2, 2)
    stored = apply(published, pruning, Ranking(published).masks(pruning))
    again = as_stored(stored, None)
    assert again.strategy == strategy
    masks = Ranking(stored).masks(again)
    assert apply(stored, again, masks).sha256 == stored.sha256


def test_the_order_behind_ties(published):
    rng = np.random.default_rng(0)
    values = np.abs(np.round(rng.standard_normal(5000) * 4) / 4).astype(np.float32)
    wanted = sorted(range(len(values)), key=lambda i: (values[i], -i))
    np.testing.assert_array_equal(beyond.ascending(values), wanted)


@pytest.mark.usefixtures("quick")
def test_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "x.safetensors"
    command = ["prune", shipped.DEFAULT, "-o", str(out)]
    for strategy in ANY_CR:
        assert main([*command, "--strategy", strategy, "--cr", "5"]) == 0
        assert load(out).own_cr["semantic"] == pytest.approx(5, rel=0.02)
    # Its name says how much goes.
    assert main([*command, "--strategy", "2:4"]) == 0
    stored = load(out)
    assert stored.pruning["strategy"] == "2:4"
    assert 1.8 < stored.own_cr["semantic"] < 2
    capsys.readouterr()
    assert main([*command, "--strategy", "2:4", "--cr", "16"]) == 2
    said = capsys.readouterr().err
    assert "2 of every 4" in said
    assert said.count("\n") == 1
