"""Basins joined over their saddles: exact geometry, properties, and one by one by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from napari_nucprune.doors import Maps, Merge
from napari_nucprune.errors import InputError
from napari_nucprune.nuclei.saddles import join
from napari_nucprune.nuclei.watershed import merge

#: No smoothing, and every maximum a marker.
BARE = Merge(sigma_um=0, footprint_um=0.1, min_area_um2=0)


def cones(circles, mpp=0.1, side=40.0):
    """Maps of circles (y, x, radius) in um: each pixel's largest radius minus distance."""
    n = round(side / mpp)
    y, x = (np.mgrid[:n, :n] + 0.5) * mpp
    heights = [r - np.hypot(y - cy, x - cx) for cy, cx, r in circles]
    distance = np.maximum(np.max(heights, axis=0), 0).astype(np.float32)
    return Maps((distance > 0).astype(np.float32), distance, mpp)


@pytest.mark.parametrize("radius", [3.0, 6.0])
@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.8, 0.9])
def test_two_circles_are_one_where_the_waist_is_shallow(radius, ratio):
    """Their saddle, in the middle, is r - d / 2 high: joined where d <= 2 r (1 - ratio)."""
    limit = 2 * radius * (1 - ratio)
    for gap, wanted in ((limit - 0.3, 1), (limit + 0.3, 2)):
        maps = cones([(20, 20 - gap / 2, radius), (20, 20 + gap / 2, radius)])
        assert len(merge(maps, BARE)) == 2
        assert len(merge(maps, replace(BARE, saddle=ratio))) == wanted


def test_the_lower_peak_decides():
    """A small one on the slope of a large one: 1 um high, over a saddle of 0.5 um."""
    maps = cones([(20, 14, 6), (20, 19.5 + 1, 1.0)])
    between = maps.distance[200, 140:205]
    saddle = between[: between.argmin() + 1].min()
    assert 0.2 < saddle < 0.8
    assert len(merge(maps, replace(BARE, saddle=saddle / 1.0 - 0.1))) == 1
    assert len(merge(maps, replace(BARE, saddle=saddle / 1.0 + 0.1))) == 2


def basins(seed, side=24):
    rng = np.random.default_rng(seed)
    landscape = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.5).astype(np.float32)
    landscape += 0.05
    peaks = landscape == ndimage.maximum_filter(landscape, 3)
    markers = np.zeros(landscape.shape, np.int32)
    markers[peaks] = np.arange(1, peaks.sum() + 1)
    mask = landscape > -0.1
    markers *= mask
    number = np.unique(markers[markers > 0], return_inverse=True)[1] + 1
    markers[markers > 0] = number
    return watershed(-landscape, markers, mask=mask).astype(np.int32), landscape, markers


def peaks_of(landscape, markers):
    return np.array([landscape[markers == i][0] for i in range(1, markers.max() + 1)], np.float32)


def by_hand(labels, landscape, peaks, ratio):
    """Join the highest saddle that may be joined, look at all again, until none may."""
    labels, top = labels.copy(), dict(enumerate(peaks.tolist(), 1))
    settled = set()
    while True:
        saddles = {}
        for dy, dx in ((0, 1), (1, 0)):
            a = labels[: labels.shape[0] - dy, : labels.shape[1] - dx]
            b = labels[dy:, dx:]
            low = np.minimum(landscape[: a.shape[0], : a.shape[1]], landscape[dy:, dx:])
            for y, x in zip(*np.nonzero((a != b) & (a > 0) & (b > 0)), strict=True):
                pair = tuple(sorted((int(a[y, x]), int(b[y, x]))))
                saddles[pair] = max(saddles.get(pair, -np.inf), float(low[y, x]))
        left = [(h, p) for p, h in saddles.items() if (p, h) not in settled]
        if not left:
            return labels
        height, (one, two) = max(left, key=lambda item: (item[0], -item[1][0], -item[1][1]))
        lower = min(top[one], top[two])
        if height >= ratio * lower or lower <= 0:
            labels[labels == two] = one
            top[one] = max(top[one], top[two])
        else:
            settled.add(((one, two), height))


@given(seed=st.integers(0, 10_000), ratio=st.floats(0, 0.99))
@settings(max_examples=25, deadline=None)
def test_as_by_hand(seed, ratio):
    labels, landscape, markers = basins(seed)
    peaks = peaks_of(landscape, markers)
    found = join(labels, landscape, peaks, ratio)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, by_hand(labels, landscape, peaks, ratio))


@given(seed=st.integers(0, 10_000), ratio=st.floats(0, 1), factor=st.sampled_from([0.5, 2.0, 8.0]))
@settings(max_examples=25, deadline=None)
def test_neither_units_nor_orientation_matter(seed, ratio, factor):
    labels, landscape, markers = basins(seed)
    peaks = peaks_of(landscape, markers)
    found = join(labels, landscape, peaks, ratio)
    np.testing.assert_array_equal(found, join(labels, factor * landscape, factor * peaks, ratio))
    turned = join(np.ascontiguousarray(labels.T), np.ascontiguousarray(landscape.T), peaks, ratio)
    np.testing.assert_array_equal(found, turned.T)
    # What was one basin stays one, and the mask stays.
    assert ((found > 0) == (labels > 0)).all()
    assert all(len(np.unique(found[labels == i])) == 1 for i in range(1, labels.max() + 1))


def test_one_joins_nothing_and_numbers_have_no_gaps():
    maps = cones([(10, 10, 4), (10, 14, 4), (30, 30, 3)])
    assert len(merge(maps, BARE)) == 3
    nuclei = merge(maps, replace(BARE, saddle=0.3))
    assert np.unique(nuclei.labels).tolist() == [0, 1, 2]
    assert len(nuclei) == 2
    for bad in (1.1, -0.1, float("nan")):
        with pytest.raises(InputError, match="saddle"):
            Merge(saddle=bad)
