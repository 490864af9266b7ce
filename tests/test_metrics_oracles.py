"""AJI+, detection F1 and the distance scores against other people's definitions."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from napari_nucprune.compare.counts import Counts
from napari_nucprune.compare.metrics import RADIUS_PX, RADIUS_UM, counts, score
from napari_nucprune.compare.moments import Moments, moments
from napari_nucprune.compare.pairing import best_pairing, detected
from napari_nucprune.errors import InputError
from napari_nucprune.nuclei.distance import distance_target
from test_metrics import random_pair

quick = settings(max_examples=100, deadline=None)


# --- hover_net's AJI+ and detection, on dense matrices -------------------------------------------


def masks(labels):
    return [labels == i for i in np.unique(labels) if i]


def hover_net_aji_plus(found, truth):
    """get_fast_aji_plus of vqdang/hover_net, metrics/stats_utils.py, re-derived."""
    truths, founds = masks(truth), masks(found)
    inter = np.array([[(g & p).sum() for p in founds] for g in truths], float)
    union = np.array([[(g | p).sum() for p in founds] for g in truths], float)
    iou = inter / (union + 1e-6)
    rows, columns = linear_sum_assignment(-iou)
    good = iou[rows, columns] > 0
    rows, columns = rows[good], columns[good]
    overall = union[rows, columns].sum()
    overall += sum(g.sum() for i, g in enumerate(truths) if i not in rows)
    overall += sum(p.sum() for i, p in enumerate(founds) if i not in columns)
    return inter[rows, columns].sum() / overall


@pytest.mark.parametrize("seed", range(25))
def test_aji_plus_is_hover_nets(seed):
    found, truth = random_pair(seed, size=64, n=24)
    assert score(found, truth).aji_plus == pytest.approx(hover_net_aji_plus(found, truth), 1e-12)


def test_aji_plus_pairs_each_nucleus_once():
    truth = np.array([[1, 1, 2, 2, 0, 3]])
    found = np.array([[5, 5, 5, 5, 9, 0]])
    # 5 goes to 1 or to 2: 2 shared of 4; the other, 3 and 9 stay alone.
    assert score(found, truth).aji_plus == pytest.approx(2 / (4 + 2 + 1 + 1))


def centroids(labels):
    return np.array([np.argwhere(m).mean(axis=0) for m in masks(labels)]).reshape(-1, 2)


def hover_net_f1(found, truth, radius):
    """Fd of hover_net's compute_stats.py: least sum of distances, then far pairs are dropped."""
    a, b = centroids(truth), centroids(found)
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    pairs = linear_sum_assignment(distance)
    return 2 * np.count_nonzero(distance[pairs] <= radius) / (len(a) + len(b))


@pytest.mark.parametrize("seed", range(25))
def test_f1_is_hover_nets_or_more(seed):
    found, truth = random_pair(seed, size=96, n=16)
    for radius in (1.0, 2.0, 4.0, 12.0):
        ours, theirs = score(found, truth, radius=radius).f1, hover_net_f1(found, truth, radius)
        assert ours >= theirs - 1e-12  # far nuclei can only spoil their pairs
    # Nuclei that moved by a little: there is one way to pair them.
    moved = np.roll(truth, 1, axis=0)
    moved[:1] = 0
    assert score(moved, truth, radius=2).f1 == hover_net_f1(moved, truth, 2) > 0.8


def test_f1_of_what_is_far_away():
    truth, found = np.zeros((2, 40, 200), int)
    truth[10, 10], truth[10, 190] = 1, 2
    found[10, 14], found[30, 100] = 1, 2
    assert score(found, truth, radius=4).f1 == pytest.approx(2 / 4)
    assert score(found, truth, radius=3.9).f1 == 0


def test_the_radius_is_hover_nets_12_px_at_40x():
    assert RADIUS_UM / 0.25 == RADIUS_PX == 12


points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5)


@quick
@given(points, points, st.floats(0, 9))
def test_as_many_near_pairs_as_can_be(truth, found, radius):
    a, b = np.array(truth, float), np.array(found, float)
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    distance = np.linalg.norm(small[:, None] - large[None], axis=2)
    best = (0, 0.0)
    for order in permutations(range(len(large)), len(small)):
        near = [d for i, j in enumerate(order) if (d := distance[i, j]) <= radius]
        best = max(best, (len(near), -sum(near)))
    rows, columns = detected(a, b, radius)
    assert len(set(rows)) == len(set(columns)) == len(rows) == best[0]
    total = np.linalg.norm(a[rows] - b[columns], axis=1)
    assert (total <= radius).all()
    assert total.sum() == pytest.approx(-best[1], abs=1e-6)


@quick
@given(st.data(), st.integers(1, 6), st.integers(1, 6))
def test_pairings_against_a_dense_assignment(data, n, m):
    cells = [(i, j) for i in range(n) for j in range(m)]
    chosen = sorted(data.draw(st.sets(st.sampled_from(cells))))
    weights = np.array([data.draw(st.floats(0, 1)) for _ in chosen])
    rows, columns = (np.array([c[k] for c in chosen], np.int64) for k in (0, 1))
    dense = np.zeros((n, m))
    dense[rows, columns] = weights
    best = dense[linear_sum_assignment(-dense)].sum()
    found = best_pairing(rows * 7, columns * 5, weights)
    assert len(set(rows[found])) == len(set(columns[found])) == len(found)
    assert weights[found].sum() == pytest.approx(best, abs=1e-9)
    count = np.zeros((n, m))
    count[rows, columns] = 1
    most = best_pairing(rows, columns, weights, most=True)
    assert len(most) == count[linear_sum_assignment(-count)].sum()


def test_ten_thousand_nuclei_in_one_clump_take_no_dense_matrix():
    rng = np.random.default_rng(0)
    truth = np.kron(np.arange(1, 10_001).reshape(100, 100), np.ones((6, 6), int))
    found = np.roll(np.kron(rng.permutation(10_000).reshape(100, 100), np.ones((6, 6), int)), 3, 0)
    s = score(found, truth)
    assert 0 < s.aji_plus <= 1
    assert s.f1 > 0.9


# --- stardist and cellseg-metrics ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_pq_is_stardists(seed):
    matching = pytest.importorskip("stardist.matching").matching
    found, truth = random_pair(seed, size=64, n=20)
    ours = score(found, truth)
    theirs = matching(truth, found, thresh=0.5 + 1e-6)  # half an IoU is none here
    tp, fp, fn = int(theirs.tp), int(theirs.fp), int(theirs.fn)
    assert ours.dq == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    assert ours.dq == pytest.approx(float(theirs.f1), abs=1e-12)
    assert ours.sq == pytest.approx(float(theirs.mean_matched_score), abs=1e-6)
    assert ours.pq == pytest.approx(float(theirs.panoptic_quality), abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_pq_is_that_of_cellseg_metrics(seed):
    cellseg = pytest.importorskip("cellseg_metrics")
    found, truth = random_pair(seed, size=64, n=20)
    ours = score(found, truth)
    for key, value in cellseg.panoptic_quality(truth, found).items():
        assert getattr(ours, key) == pytest.approx(value, abs=1e-6), key


def test_aji_is_that_of_cellseg_metrics_where_the_largest_overlap_is_the_best():
    """It pairs by intersection, Kumar et al. by IoU: discs that were only moved know no difference."""
    cellseg = pytest.importorskip("cellseg_metrics")
    y, x = np.mgrid[:64, :64]
    truth, found = np.zeros((2, 64, 64), int)
    for i in range(16):
        cy, cx = 8 + 16 * (i // 4), 8 + 16 * (i % 4)
        truth[(y - cy) ** 2 + (x - cx) ** 2 <= 25] = i + 1
        if i % 5:
            found[(y - cy - i % 3) ** 2 + (x - cx - i % 2) ** 2 <= 20] = i + 1
    s = score(found, truth)
    theirs = cellseg.aggregated_jaccard_index(truth, found)
    assert s.aji == pytest.approx(theirs, abs=1e-6)
    assert s.aji_plus == pytest.approx(theirs, abs=1e-6)


# --- the distance map ---------------------------------------------------------------------------


def maps(seed, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    reference = rng.random(shape).astype(np.float32) * 3
    return (reference + rng.normal(0, 0.5, shape)).astype(np.float32), reference


def test_distance_scores_are_torchmetrics():
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("torchmetrics.functional.regression")
    for seed in range(5):
        a, b = maps(seed)
        ours = moments(a, b)
        pair = [torch.from_numpy(x.astype(np.float64)).ravel() for x in (a, b)]
        assert ours.mse == pytest.approx(float(regression.mean_squared_error(*pair)), rel=1e-12)
        assert ours.r == pytest.approx(float(regression.pearson_corrcoef(*pair)), rel=1e-9)
        assert ours.r2 == pytest.approx(float(regression.r2_score(*pair)), rel=1e-9)


def test_distance_scores_come_out_of_score():
    found, truth = random_pair(3)
    pair = [distance_target(x, 0.25, 4.0) for x in (found, truth)]
    s = score(found, truth, distance=pair)
    error = pair[0].astype(float) - pair[1]
    assert s.distance_mse == pytest.approx(np.mean(error**2))
    assert s.distance_r2 == pytest.approx(1 - np.mean(error**2) / np.var(pair[1].astype(float)))
    assert s.distance_r == pytest.approx(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])
    plain = score(found, truth)
    assert (plain.distance_mse, plain.distance_r, plain.distance_r2) == (None, None, None)
    same = score(truth, truth, distance=(pair[1], pair[1]))
    assert (same.distance_mse, same.distance_r, same.distance_r2) == (0, pytest.approx(1), 1)


@quick
@given(
    st.lists(
        st.lists(
            st.tuples(*[st.floats(-100, 100, width=32)] * 2).map(list), min_size=1, max_size=9
        ),
        min_size=1,
        max_size=4,
    )
)
def test_moments_pool(parts):
    arrays = [np.array(part) for part in parts]
    together = np.concatenate(arrays)
    pooled = sum((moments(a[:, :1], a[:, 1:]) for a in arrays), Moments())
    whole = moments(together[:, :1], together[:, 1:])
    for key in ("n", "mean", "reference_mean", "spread", "reference_spread", "product", "mse"):
        assert getattr(pooled, key) == pytest.approx(getattr(whole, key), rel=1e-9, abs=1e-7), key
    assert whole.mse == pytest.approx(np.mean((together[:, 0] - together[:, 1]) ** 2))
    assert -1 <= whole.r <= 1
    assert whole.r2 <= 1


def test_maps_without_variance():
    flat, hill = np.full((7, 9), 0.1), np.arange(63.0).reshape(7, 9)
    assert (moments(flat, flat).r, moments(flat, flat).r2) == (1, 1)
    assert (moments(hill, flat).r, moments(hill, flat).r2) == (0, 0)
    assert (moments(flat, hill).r, moments(flat, hill).r2 <= 0) == (0, True)
    # Two images of the same constant have no variance together either.
    twice = moments(hill, flat) + moments(hill[:3], flat[:3])
    assert twice.r2 == 0
    empty = np.zeros((0, 4))
    assert (moments(empty, empty).mse, moments(empty, empty).r2) == (0, 1)


def test_a_pooled_distance_score_needs_every_image():
    x = np.eye(4, dtype=int)
    distance = (x * 0.5, x * 1.0)
    has, lacks = counts(x, x, distance=distance), counts(x, x)
    assert (has + has).scores().distance_mse == pytest.approx(0.25 * 4 / 16)
    assert (has + lacks).scores().distance_mse is None
    assert (Counts() + has).scores().distance_r == pytest.approx(1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"distance": (np.zeros((2, 2)), np.zeros((2, 3)))}, "same"),
        ({"distance": (np.full((2, 2), np.nan), np.zeros((2, 2)))}, "NaN"),
        ({"distance": (np.zeros((2, 2)), np.full((2, 2), np.inf))}, "inf"),
        ({"radius": -1.0}, "radius"),
        ({"radius": float("nan")}, "radius"),
    ],
)
def test_wrong_input_is_a_sentence(wrong, says):
    labels = np.zeros((2, 2), int)
    with pytest.raises(InputError, match=says):
        score(labels, labels, **wrong)


def test_distance_maps_of_ids_with_gaps():
    labels = np.array([[0, 5, 5], [0, 5, 5], [9, 0, 0]], np.int32)
    far = np.where(labels == 9, 2**31 - 1, labels).astype(np.int32)
    np.testing.assert_array_equal(distance_target(far, 1, 1), distance_target(labels, 1, 1))
