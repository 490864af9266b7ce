import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_nucprune.compare.metrics import Counts, counts, mean_scores, pooled, score
from napari_nucprune.errors import InputError

RATIOS = ("dice", "iou", "aji", "dq", "sq", "pq", "aji_plus", "f1")


def random_pair(seed, size=48, n=14):
    """Discs, and the same discs moved, lost, added, merged and resized."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth, found = np.zeros((2, size, size), np.int32)
    for i in range(1, n + 1):
        cy, cx, r = *rng.uniform(0, size, 2), rng.uniform(2, 7)
        truth[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = i
        if rng.random() < 0.85:
            dy, dx, s = *rng.normal(0, 1.5, 2), rng.uniform(0.7, 1.3)
            found[(y - cy - dy) ** 2 + (x - cx - dx) ** 2 <= (s * r) ** 2] = max(
                1, i - (i % 4 == 0)
            )
    return found, truth


def brute_force_aji(found, truth):
    """Kumar et al. 2017's algorithm 1 with hover_net's tie rule, on sets of pixels."""
    truths = [set(np.flatnonzero(truth == i)) for i in np.unique(truth) if i]
    founds = [set(np.flatnonzero(found == i)) for i in np.unique(found) if i]
    inter = union = 0
    used = set()
    for g in truths:
        best, best_iou = None, 0.0
        for k, p in enumerate(founds):
            iou = len(g & p) / (len(g | p) + 1e-6)
            if iou > best_iou:
                best, best_iou = k, iou
        if best is None:
            union += len(g)
        else:
            inter += len(g & founds[best])
            union += len(g | founds[best])
            used.add(best)
    union += sum(len(p) for k, p in enumerate(founds) if k not in used)
    return inter / union


@pytest.mark.parametrize("seed", range(12))
def test_aji_equals_its_definition(seed):
    found, truth = random_pair(seed)
    assert score(found, truth).aji == pytest.approx(brute_force_aji(found, truth), abs=1e-12)


def test_aji_equals_its_definition_on_noise_full_of_ties():
    rng = np.random.default_rng(0)
    for _ in range(50):
        found, truth = rng.integers(0, 6, (2, 5, 7))
        assert score(found, truth).aji == pytest.approx(brute_force_aji(found, truth), abs=1e-12)


def test_aji_counts_a_found_nucleus_as_often_as_it_is_paired():
    truth = np.array([[1, 1, 2, 2, 0, 3]])
    found = np.array([[5, 5, 5, 5, 9, 0]])
    # Pairs (1, 5) and (2, 5): 2 / 4 each; 3 overlaps nothing, 9 is never paired.
    assert score(found, truth).aji == pytest.approx((2 + 2) / (4 + 4 + 1 + 1))


def panoptic(found, truth):
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    metric = detection.PanopticQuality(
        things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True
    )
    for f, t in zip(found, truth, strict=True):
        pair = [torch.from_numpy(np.stack([m > 0, m], -1).astype(np.int64))[None] for m in (f, t)]
        metric.update(*pair)
    # Row 0 is the thing class; its columns are PQ, SQ, RQ (= DQ).
    return metric.compute()[0].tolist()


def test_pq_equals_torchmetrics_by_image_and_pooled():
    pairs = [random_pair(seed) for seed in range(8)]
    pairs += [tuple(np.random.default_rng(s).integers(0, 4, (2, 3, 4))) for s in range(12)]
    for found, truth in pairs:
        s = score(found, truth)
        assert [s.pq, s.sq, s.dq] == pytest.approx(panoptic([found], [truth]), abs=1e-6)
    s = pooled(counts(f, t) for f, t in pairs)
    assert [s.pq, s.sq, s.dq] == pytest.approx(panoptic(*zip(*pairs, strict=True)), abs=1e-6)


def test_an_iou_of_exactly_a_half_is_no_match():
    s = score(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]))
    assert (s.dq, s.sq, s.pq) == (0, 0, 0)
    assert (s.iou, s.aji) == (0.5, 0.5)
    assert s.dice == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (4, 5)])
def test_both_empty_is_one(shape):
    empty = np.zeros(shape, np.int32)
    s = score(empty, empty, semantic=np.zeros(shape, np.float32))
    assert [getattr(s, k) for k in (*RATIOS, "semantic_dice")] == [1] * 9
    assert (s.truth, s.found) == (0, 0)


def test_one_side_empty_is_zero():
    empty, one = np.zeros((3, 3), int), np.eye(3, dtype=int)
    for pair in ((empty, one), (one, empty)):
        assert [getattr(score(*pair), k) for k in RATIOS] == [0] * 8
    assert score(empty, one, semantic=np.zeros((3, 3))).semantic_dice == 0
    assert score(empty, empty, semantic=np.ones((3, 3))).semantic_dice == 0


maps = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 5)
)
pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda s: st.tuples(*[hnp.arrays(np.int32, s, elements=st.integers(0, 5))] * 2)
)
quick = settings(max_examples=100, deadline=None)


@quick
@given(maps)
def test_a_map_agrees_with_itself(x):
    s = score(x, x, semantic=(x > 0).astype(np.float32))
    assert [getattr(s, k) for k in (*RATIOS, "semantic_dice")] == [1] * 9
    assert s.truth == s.found == len(set(x.ravel().tolist()) - {0})


@quick
@given(pairs)
def test_symmetric_but_for_aji(pair):
    a, b = score(*pair), score(*pair[::-1])
    for key in ("dice", "iou", "dq", "sq", "pq"):
        assert getattr(a, key) == pytest.approx(getattr(b, key), abs=1e-12)
    assert (a.truth, a.found) == (b.found, b.truth)
    assert all(0 <= getattr(a, k) <= 1 for k in RATIOS)


@quick
@given(pairs, st.permutations(range(1, 6)), st.sampled_from([1, 7, 10**9, 10**17]))
def test_ids_do_not_matter(pair, order, stride):
    found, truth = pair
    plain = score(found, truth)
    # Kept order, any gaps: every score. Any order: all but AJI, whose ties go to the lowest id.
    spread = score(found.astype(np.int64) * stride, (truth * 3).astype(np.uint64))
    assert spread == plain
    shuffled = score(np.array([0, *order])[found] * stride, truth)
    for key in ("dice", "iou", "dq", "sq", "pq"):
        assert getattr(shuffled, key) == pytest.approx(getattr(plain, key), abs=1e-12)


def test_no_background_at_all():
    full = np.arange(1, 13).reshape(3, 4)
    assert score(full, full).pq == 1
    assert score(full * 10**12, full).aji == 1


def test_semantic_dice_is_of_the_thresholded_map():
    truth = np.array([[1, 2, 0, 0]])
    semantic = np.array([[0.9, 0.5, 0.5, 0.1]], np.float32)
    assert score(truth, truth).semantic_dice is None
    assert score(truth, truth, semantic=semantic).semantic_dice == pytest.approx(4 / 5)
    assert score(truth, truth, semantic=semantic, threshold=0.6).semantic_dice == pytest.approx(
        2 / 3
    )


def test_sums_pool():
    a, b = (random_pair(seed) for seed in (1, 2))
    side_by_side = [np.hstack([x, np.where(y > 0, y + 100, 0)]) for x, y in zip(a, b, strict=True)]
    together = sum([counts(*a), counts(*b)])
    assert together.images == 2
    one = score(*side_by_side).as_dict()
    assert together.scores().as_dict() == pytest.approx(one)
    assert pooled([counts(*a), counts(*b)]) == together.scores()
    assert Counts() + together == together


def test_a_pooled_semantic_dice_needs_every_image():
    x = np.ones((2, 2), int)
    with_map, without = counts(x, x, semantic=x.astype(float)), counts(x, x)
    assert pooled([with_map, with_map]).semantic_dice == 1
    assert pooled([with_map, without]).semantic_dice is None


def test_mean_of_scores():
    x, y = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]])
    first, second = score(x, x, semantic=(x > 0) * 1.0), score(y, x)
    means = mean_scores([first, second])
    assert list(means) == list(first.as_dict())
    assert means["iou"] == pytest.approx(0.75)
    assert means["semantic_dice"] == 1
    assert means["aji_plus"] == 0.75
    assert means["distance_r2"] is None
    assert means["truth"] == 1
    assert set(mean_scores([]).values()) == {None}


@pytest.mark.parametrize(
    ("found", "truth", "semantic", "says"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), None, "shape"),
        (np.zeros(3, int), np.zeros(3, int), None, "shape"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), None, "found labels go down to -1"),
        (np.zeros((2, 2), int), np.full((2, 2), -4), None, "reference labels go down to -4"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), None, "float64"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), np.zeros((2, 3)), "semantic map has shape"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), np.full((2, 2), np.nan), "NaN"),
    ],
)
def test_wrong_input_is_a_sentence(found, truth, semantic, says):
    with pytest.raises(InputError, match=says):
        score(found, truth, semantic=semantic)
