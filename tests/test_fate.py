import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_nucprune.compare.fate import fates
from napari_nucprune.compare.metrics import score
from napari_nucprune.compare.outcome import FATES
from napari_nucprune.errors import InputError
from test_metrics import random_pair

quick = settings(max_examples=200, deadline=None)
pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda s: st.tuples(*[hnp.arrays(np.int32, s, elements=st.integers(0, 4))] * 2)
)


def names(codes):
    return [FATES[code - 1] for code in codes]


def field(*boxes, shape=(40, 60)):
    """Boxes (y0, y1, x0, x1), numbered from 1; later ones lie on top."""
    labels = np.zeros(shape, int)
    for i, (y0, y1, x0, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = i
    return labels


def both(reference, result, mpp=0.25):
    found = fates(field(*reference), field(*result), mpp)
    return names(found.reference_fate), names(found.result_fate), found


BOX = (10, 20, 10, 20)


# --- by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "fate", "of_result"),
    [
        (BOX, "matched", "matched"),
        ((10, 20, 10, 18), "matched", "matched"),  # IoU 0.8, moved 1 px = 0.25 um
        ((10, 20, 10, 17), "changed", "changed"),  # IoU 0.7
        ((10, 20, 10, 16), "changed", "changed"),  # 0.6
        ((10, 20, 10, 15), "lost", "added"),  # exactly 0.5
        ((10, 20, 16, 26), "lost", "added"),  # 0.25
        ((30, 35, 30, 35), "lost", "added"),
    ],
)
def test_one_against_one(result, fate, of_result):
    reference, results, found = both([BOX], [result])
    assert (reference, results) == ([fate], [of_result])
    if fate != "lost":
        assert found.partner.tolist() == [0]
        assert found.iou[0] == score(field(result), field(BOX)).iou
    else:
        assert found.partner.tolist() == [-1]
        assert np.isnan(found.iou[0])
        assert np.isnan(found.moved_um[0])


def test_an_iou_of_exactly_three_quarters_has_not_changed():
    reference, _, found = both([(10, 20, 10, 30)], [(10, 20, 10, 25)], mpp=0.1)
    assert (reference, found.iou[0]) == (["matched"], 0.75)


def test_a_centroid_that_moved_over_1_um():
    shifted = (10, 30, 12, 32)  # 2 of 20 px: IoU 18 / 22
    for mpp, fate in ((0.5, "matched"), (0.51, "changed")):
        reference, _, found = both([(10, 30, 10, 30)], [shifted], mpp)
        assert reference == [fate]
        assert found.moved_um[0] == pytest.approx(2 * mpp)


def test_split():
    halves = [(10, 20, 10, 15), (10, 20, 15, 20)]
    reference, results, found = both([BOX], halves)
    assert (reference, results) == (["split"], ["split", "split"])
    assert found.partner[0] in (0, 1)
    # One piece is the nucleus by itself: it is matched, and what was cut off is a piece.
    reference, results, found = both([BOX], [(10, 20, 10, 17), (10, 20, 17, 20)])
    assert (reference, results) == (["changed"], ["changed", "split"])
    assert (found.counts["split"], found.result_counts["split"]) == (0, 1)
    assert found.cut_off.tolist() == [1]
    np.testing.assert_allclose(found.places("split"), [[14.5, 18]])
    # One half only is no split, and pieces that lie outside as much as inside are none.
    assert both([BOX], halves[:1])[:2] == (["lost"], ["added"])
    outside = [(10, 20, 5, 15), (10, 20, 15, 25)]
    assert both([BOX], outside)[:2] == (["lost"], ["added", "added"])


def test_merged():
    two = [(10, 20, 10, 15), (10, 20, 15, 20)]
    reference, results, found = both(two, [BOX])
    assert (reference, results) == (["merged", "merged"], ["merged"])
    assert found.partner.tolist() == [0, 0]
    # A result that is the larger one's match swallows the smaller one.
    reference, results, _ = both([(10, 20, 10, 17), (10, 20, 17, 20)], [BOX])
    assert (reference, results) == (["changed", "merged"], ["changed"])
    # Alone in a large result: nothing it was merged with.
    assert both([(12, 15, 12, 15)], [BOX])[:2] == (["lost"], ["added"])


def test_a_split_comes_before_a_merge():
    """Reference 1 holds two results; half of it lies in neither."""
    reference = [(10, 20, 10, 40)]
    results = [(10, 20, 10, 20), (10, 20, 30, 40)]
    assert both(reference, results)[:2] == (["split"], ["split", "split"])
    # Result 1 holds both nuclei, which are pieces of nothing.
    assert both(results, reference)[:2] == (["merged", "merged"], ["merged"])


def test_the_picture_shows_both_sides():
    reference = field((2, 8, 2, 8), (2, 8, 20, 26), BOX)
    result = field((2, 8, 2, 8), (30, 36, 30, 36), (10, 20, 10, 16))
    found = fates(reference, result, 0.25)
    picture = found.differences
    assert (picture.dtype, picture.shape) == (np.uint8, reference.shape)
    code = {name: i for i, name in enumerate(FATES, start=1)}
    for place, fate in (
        ((3, 3), "matched"),
        ((3, 22), "lost"),
        ((32, 32), "added"),
        ((12, 12), "changed"),
        ((12, 18), "changed"),  # of the reference alone
    ):
        assert picture[place] == code[fate], fate
    np.testing.assert_array_equal(picture > 0, (reference > 0) | (result > 0))
    assert found.counts == {
        "matched": 1, "changed": 1, "split": 0, "merged": 0, "added": 1, "lost": 1,
    }  # fmt: skip
    where, centroid = found.of("added")
    np.testing.assert_allclose(centroid, [[32.5, 32.5]])
    assert found.result_ids[where].tolist() == [2]
    assert found.reference_ids[found.of("lost")[0]].tolist() == [2]


def test_a_lost_nucleus_shows_within_an_added_one():
    found = fates(field((12, 15, 12, 15)), field(BOX), 0.25)
    assert names([found.differences[13, 13], found.differences[11, 11]]) == ["lost", "added"]


# --- by the rules, nucleus by nucleus ----------------------------------------------------------


def by_the_rules(reference, result, mpp):
    """The issue's sentences on sets of pixels."""
    sides = []
    for labels in (reference, result):
        sides.append([set(np.flatnonzero(labels == i)) for i in np.unique(labels) if i])
    width = reference.shape[1]

    def centroid(pixels):
        return np.array([np.divmod(p, width) for p in pixels]).mean(axis=0)

    def iou(a, b):
        return len(a & b) / len(a | b)

    def inside(a, b):
        return len(a & b) > len(a) / 2

    def one_side(own, other, alone, cut, swallowed):
        found = []
        for a in own:
            match = [b for b in other if iou(a, b) > 0.5]
            if match:
                far = mpp * np.linalg.norm(centroid(a) - centroid(match[0])) > 1
                found.append("changed" if iou(a, match[0]) < 0.75 or far else "matched")
            elif sum(inside(b, a) for b in other) >= 2:
                found.append(cut)
            elif any(inside(a, b) and any(inside(c, b) for c in own if c is not a) for b in other):
                found.append(swallowed)
            else:
                found.append(alone)
        return found

    return (
        one_side(*sides, "lost", "split", "merged"),
        one_side(*sides[::-1], "added", "merged", "split"),
    )


@quick
@given(pairs, st.sampled_from([0.25, 0.8, 3.0]))
def test_against_the_rules(pair, mpp):
    found = fates(*pair, mpp)
    wanted = by_the_rules(*pair, mpp)
    assert (names(found.reference_fate), names(found.result_fate)) == wanted


@pytest.mark.parametrize("seed", range(12))
def test_against_the_rules_on_discs(seed):
    result, reference = random_pair(seed, size=64, n=24)
    found = fates(reference, result, 0.4)
    wanted = by_the_rules(reference, result, 0.4)
    assert (names(found.reference_fate), names(found.result_fate)) == wanted


MIRROR = dict(zip(FATES, ("matched", "changed", "merged", "split", "lost", "added"), strict=True))


@quick
@given(pairs)
def test_swapping_swaps_lost_with_added_and_split_with_merged(pair):
    a, b = fates(*pair, 0.5), fates(*pair[::-1], 0.5)
    assert [MIRROR[n] for n in names(a.reference_fate)] == names(b.result_fate)
    assert [MIRROR[n] for n in names(a.result_fate)] == names(b.reference_fate)


@quick
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 5)))
def test_the_same_twice_is_all_matched(labels):
    found = fates(labels, labels, 0.25)
    n = len(set(labels.ravel().tolist()) - {0})
    assert found.counts == {"matched": n} | dict.fromkeys(FATES[1:], 0)
    np.testing.assert_array_equal(found.differences, (labels > 0).astype(np.uint8))
    np.testing.assert_array_equal(found.partner, np.arange(n))
    assert (found.iou == 1).all()
    assert (found.moved_um == 0).all()


@quick
@given(pairs)
def test_counts_add_up(pair):
    found = fates(*pair, 0.25)
    counts = found.counts
    n, m = len(found.reference_ids), len(found.result_ids)
    assert sum(counts.values()) - counts["added"] == n
    of_result = names(found.result_fate)
    for fate in ("matched", "changed"):
        assert counts[fate] == of_result.count(fate)
    assert counts["matched"] + counts["changed"] == round(score(*pair[::-1]).dq * (n + m) / 2)
    assert len(of_result) == m == sum(found.result_counts.values())
    assert found.result_counts["added"] == counts["added"]
    assert "lost" not in of_result
    assert "added" not in names(found.reference_fate)
    has = np.isin(names(found.reference_fate), ["lost"], invert=True) if n else np.zeros(0, bool)
    np.testing.assert_array_equal(found.partner >= 0, has)
    for fate in FATES:
        assert len(found.of(fate)[0]) == counts[fate]
    # Nothing is drawn that the legend does not lead to.
    drawn = np.unique(found.differences)
    for code, fate in enumerate(FATES, start=1):
        if code in drawn and fate != "merged":
            assert len(found.places(fate))


@quick
@given(pairs, st.sampled_from([1, 7, 10**15]))
def test_ids_do_not_matter(pair, stride):
    plain = fates(*pair, 0.25)
    spread = fates(pair[0].astype(np.int64) * stride, pair[1].astype(np.uint16), 0.25)
    np.testing.assert_array_equal(plain.differences, spread.differences)
    assert [i * stride for i in plain.reference_ids.tolist()] == spread.reference_ids.tolist()
    assert plain.counts == spread.counts


@pytest.mark.parametrize("shape", [(0, 0), (3, 4)])
def test_nothing_on_either_side(shape):
    empty = np.zeros(shape, int)
    found = fates(empty, empty, 0.25)
    assert sum(found.counts.values()) == 0
    assert found.differences.shape == shape
    if all(shape):
        one = np.ones(shape, int)
        assert fates(one, empty, 0.25).counts["lost"] == 1
        assert fates(empty, one, 0.25).counts["added"] == 1


@pytest.mark.parametrize(
    ("reference", "result", "mpp", "says"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), 1, "shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), 1, "integers"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 1, "at least 0"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), 0, "pixel size"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), float("nan"), "pixel size"),
    ],
)
def test_wrong_input_is_a_sentence(reference, result, mpp, says):
    with pytest.raises(InputError, match=says):
        fates(reference, result, mpp)


def test_it_needs_neither_torch_nor_napari():
    code = (
        "import sys, numpy as np; from napari_nucprune.compare.fate import fates\n"
        "fates(np.eye(3, dtype=int), np.ones((3, 3), int), 0.25)\n"
        "assert not {'torch', 'napari', 'qtpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
