"""Intervals of losses: against scipy's bootstrap, and what they must be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from napari_nucprune.compare.bootstrap import METRICS, loss_interval, loss_intervals
from napari_nucprune.compare.sweep_points import SweepPoint

scores = st.lists(st.floats(0.1, 1), min_size=2, max_size=12)


@pytest.mark.parametrize("n", [3, 11, 40])
def test_it_is_scipys_paired_percentile_bootstrap(n):
    rng = np.random.default_rng(n)
    start = rng.uniform(0.3, 0.8, n)
    now = start * rng.normal(0.95, 0.03, n)

    def loss(a, b, axis):
        return 1 - b.mean(axis) / a.mean(axis)

    oracle = bootstrap(
        (start, now), loss, paired=True, vectorized=True, method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    low, high = loss_interval(start, now)
    width = oracle.high - oracle.low
    assert low == pytest.approx(oracle.low, abs=0.06 * width)
    assert high == pytest.approx(oracle.high, abs=0.06 * width)


@settings(max_examples=30, deadline=None)
@given(scores, st.floats(0, 1))
def test_equal_relative_losses_leave_no_doubt(start, loss):
    start = np.array(start)
    low, high = loss_interval(start, start * (1 - loss), draws=200)
    assert low == pytest.approx(loss, abs=1e-9)
    assert high == pytest.approx(loss, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(scores, st.integers(0, 99))
def test_it_holds_the_images_extremes_within(start, seed):
    start = np.array(start)
    now = start * np.random.default_rng(seed).uniform(0.5, 1.1, len(start))
    low, high = loss_interval(start, now, draws=300)
    own = 1 - now / start
    assert own.min() - 1e-9 <= low <= high <= own.max() + 1e-9
    assert (low, high) == loss_interval(start, now, draws=300)


def test_too_few_images_say_nothing():
    assert loss_interval(np.array([0.5]), np.array([0.4])) is None
    assert loss_interval(np.array([0.0, 0.5]), np.array([0.0, 0.4])) is None


def point(cr, pq, start, r2=0.9):
    own = dict.fromkeys(METRICS, pq)
    return SweepPoint(
        "layer-wise", cr, "both", {**own, "distance_r2": r2}, {**dict.fromkeys(METRICS, start)}
    )


def test_rows_by_point_leave_out_what_an_image_has_not():
    images = [
        [point(2, 0.5, 0.5), point(4, 0.4, 0.5)],
        [point(2, 0.6, 0.6), point(4, 0.3, 0.6, r2=None)],
    ]
    rows = loss_intervals(images)
    assert rows["layer-wise", 2, "both"]["loss_pq_low"] == pytest.approx(0)
    four = rows["layer-wise", 4, "both"]
    assert four["loss_pq_low"] == pytest.approx(0.2)
    assert four["loss_pq_high"] == pytest.approx(0.5)
    assert four["loss_distance_r2_low"] is None
