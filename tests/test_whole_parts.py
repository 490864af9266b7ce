"""A whole slide's parts, each against something independent of it."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as connected
from skimage.segmentation import watershed

from napari_nucprune.compare.metrics import score
from napari_nucprune.doors import Maps, Merge
from napari_nucprune.nuclei.watershed import merge
from napari_nucprune.slides import fixed
from napari_nucprune.slides.describe import shapes
from napari_nucprune.slides.lattice import Lattice
from napari_nucprune.slides.outlines import outlines
from napari_nucprune.slides.ownership import basins, claim, least_pixels, marker_radius
from napari_nucprune.slides.seams import compose, settle
from napari_nucprune.slides.tissue import stained, tissue_of_window

MERGE = Merge(sigma_um=0.5, threshold=0.5, footprint_um=1.0, min_area_um2=1.9, saddle=0.8)
MPP = 0.25

# ---------------------------------------------------------------- the lattice


@pytest.mark.parametrize("shape", [(1, 1), (1024, 1024), (1025, 3000), (5000, 700)])
@pytest.mark.parametrize("tile", [1, 1024, 1500, 4096, 10**6])
def test_groups_hold_every_core_once(shape, tile):
    lattice = Lattice(shape)
    cores = list(lattice.cores())
    assert sorted(core for own in lattice.groups(tile).values() for core in own) == cores
    covered = np.zeros(shape, int)
    for core in cores:
        y0, x0, y1, x1 = lattice.box(core)
        assert y0 % 1024 == x0 % 1024 == 0
        covered[y0:y1, x0:x1] += 1
    assert (covered == 1).all()


# ---------------------------------------------------------------- whole numbers


@pytest.mark.parametrize("sigma", [0.05, 0.7, 1.5, 3.0, 6.3])
def test_smoothing_is_exact_and_local(sigma):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 65536, (90, 110)).astype(np.uint16)
    codes[20:40, 30:60] = 65535
    taps = [int(k) for k in fixed.kernel(sigma)]
    half = len(taps) // 2
    assert sum(taps) == 4096
    assert taps == taps[::-1]
    padded = np.pad(codes.astype(object), half, mode="symmetric")
    rows = sum(k * padded[i : i + 90] for i, k in enumerate(taps))
    both = sum(k * rows[:, i : i + 110] for i, k in enumerate(taps))
    # Rounded half up at 1/256 code, in exact rational numbers.
    wanted = np.vectorize(lambda v: (Fraction(v, 65536) + Fraction(1, 2)).__floor__())(both)
    found = fixed.landscape(codes, sigma)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.astype(np.int64), wanted.astype(np.int64) - 8192 * 256)
    # A part shows what the whole does.
    part = fixed.landscape(np.ascontiguousarray(codes[10:80, 5:100]), sigma)
    inner = np.s_[half : 70 - half, half : 95 - half]
    np.testing.assert_array_equal(part[inner], found[10:80, 5:100][inner])


def test_codes_and_back():
    distance = np.array([[-3, -1, 0, 0.5, 6.9, 7.2, np.float32(1e9)]], np.float32)
    codes, beyond = fixed.distance_codes(distance)
    assert beyond == 2
    np.testing.assert_allclose(fixed.distances(codes)[0, 1:5], distance[0, 1:5], atol=0.51 / 8192)
    semantic = np.array([[0, 0.25, 0.5, 1]], np.float32)
    codes = fixed.semantic_codes(semantic)
    assert codes.tolist() == [[0, 16384, 32768, 65535]]
    assert (codes >= fixed.threshold_code(0.5)).tolist() == [[False, False, True, True]]
    assert fixed.threshold_code(0) == 1, "glass is never nucleus"


# ---------------------------------------------------------------- outlines


def drawn(rings, shape):
    """Fill rings by the even-odd rule along pixel centres: not how they were traced."""
    out = np.zeros(shape, int)
    for ring in rings:
        corners = ring.corners
        inside = np.zeros(shape, int)
        for (y0, x0), (y1, x1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            assert (y0 == y1) != (x0 == x1), "along an axis, and of some length"
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] ^= 1
        out[inside == 1] = 0 if ring.hole else ring.label
    return out


def area(ring):
    corners = np.array(ring.corners)
    y, x = corners[:, 0], corners[:, 1]
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))
)
def test_outlines_draw_the_labels_again(labels):
    rings = outlines(labels)
    for value in range(1, 4):
        own = [ring for ring in rings if ring.label == value]
        assert sum(area(ring) for ring in own) == np.count_nonzero(labels == value)
        assert all((area(ring) < 0) == ring.hole for ring in own)
        # One outer ring a 4-connected part; holes are 8-connected, which is not checked here.
        assert sum(not ring.hole for ring in own) == connected(labels == value)[1]
    outer = [r for r in rings if not r.hole]
    if not any(r.hole for r in rings):
        np.testing.assert_array_equal(sum(drawn([r], labels.shape) for r in outer), labels)


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))
)
def test_geometries_are_valid_and_of_the_objects_own_pixels(labels):
    """By GEOS, which judges as QuPath's JTS does: no ring crosses or comes back to itself."""
    shapely = pytest.importorskip("shapely")
    values = np.unique(labels[labels > 0])
    # Each number 1..n has to be there.
    labels = np.where(labels > 0, np.searchsorted(values, labels) + 1, 0).astype(np.int32)
    found = [shapely.from_geojson(text) for text in shapes(labels, (0, 0), (1, 1))]
    assert len(found) == len(np.unique(labels[labels > 0]))
    y, x = (axis.ravel() + 0.5 for axis in np.indices(labels.shape))
    for value, geometry in enumerate(found, 1):
        assert shapely.is_valid(geometry), shapely.is_valid_reason(geometry)
        inside = shapely.contains_xy(geometry, x, y).reshape(labels.shape)
        np.testing.assert_array_equal(inside, labels == value)


def test_an_object_that_closes_around_a_hole_by_a_corner():
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.int32)
    rings = outlines(labels)
    assert [(ring.hole, len(ring.corners)) for ring in rings] == [(False, 6), (True, 4)]
    for ring in rings:
        assert len(set(ring.corners)) == len(ring.corners)


def test_a_ring_with_a_hole_and_what_lies_in_it():
    labels = np.zeros((7, 8), np.int32)
    labels[1:6, 1:6] = 1
    labels[2:5, 2:5] = 0
    labels[3, 3] = 2
    labels[0, 7] = 3
    found = [json.loads(text) for text in shapes(labels, (10, 20), (2.0, 0.5))]
    assert [shape["type"] for shape in found] == ["Polygon"] * 3
    outer, hole = found[0]["coordinates"]
    assert outer[0] == outer[-1]
    assert sorted(map(tuple, outer[:-1])) == [(10.5, 22), (10.5, 32), (13, 22), (13, 32)]
    assert sorted(map(tuple, hole[:-1])) == [(11, 24), (11, 30), (12.5, 24), (12.5, 30)]
    assert found[2]["coordinates"] == [[[13.5, 20], [14, 20], [14, 22], [13.5, 22], [13.5, 20]]]


def test_an_object_in_two_parts_with_a_hole_each():
    labels = np.zeros((5, 11), np.int32)
    for left in (0, 6):
        labels[0:5, left : left + 5] = 1
        labels[2, left + 2] = 0
    (shape,) = [json.loads(text) for text in shapes(labels, (0, 0), (1, 1))]
    assert shape["type"] == "MultiPolygon"
    for part, left in zip(shape["coordinates"], (0, 6), strict=True):
        outer, hole = part
        assert sorted({x for x, _ in outer}) == [left, left + 5]
        assert sorted({x for x, _ in hole}) == [left + 2, left + 3]


# ---------------------------------------------------------------- tissue


def test_tissue_and_what_lies_near_it():
    rgb = np.full((640, 640, 3), 243, np.uint8)
    rgb[300:330, 310:330] = (120, 60, 140)
    assert stained(rgb).sum() == 600
    found = tissue_of_window(rgb, 96)
    assert found.shape == (448, 448)
    # The block of 320, 320 has it (and 300 lies in the block above); three blocks around.
    y, _ = np.nonzero(found)
    assert (y.min() + 96, y.max() + 97) == (192, 448)
    assert not tissue_of_window(np.full_like(rgb, 243), 96).any()
    noisy = np.random.default_rng(0).integers(215, 256, (640, 640, 3)).astype(np.uint8)
    assert not tissue_of_window(noisy, 96).any()


# ---------------------------------------------------------------- one owner per object


def tissue_maps(seed, shape, count, radius, ridge=False):
    """Overlapping discs as maps: codes (2, H, W) uint16."""
    rng = np.random.default_rng(seed)
    distance = np.full(shape, -0.5)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    for _ in range(count):
        y, x, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(*radius)
        y0, y1, x0, x1 = (int(max(0, v)) for v in (y - r - 2, y + r + 3, x - r - 2, x + r + 3))
        part = np.s_[y0:y1, x0:x1]
        own = (r - np.hypot(yy[part] - y, xx[part] - x)) / 16
        distance[part] = np.maximum(distance[part], own)
    if ridge:  # a band of tissue that no window holds
        distance[shape[0] // 2 - 4 : shape[0] // 2 + 4] = np.maximum(
            distance[shape[0] // 2 - 4 : shape[0] // 2 + 4], 0.2
        )
    distance += rng.normal(0, 0.004, shape)
    codes = np.zeros((2, *shape), np.uint16)
    codes[0] = fixed.semantic_codes((distance > 0).astype(np.float32))
    codes[1], beyond = fixed.distance_codes(distance.astype(np.float32))
    assert not beyond
    return codes


def one_by_one(codes, lattice, parameters=MERGE):
    """Labels of the slide made core by core, and which ids are at seams."""
    sigma = parameters.sigma_um / MPP
    margin = lattice.reach + fixed.half_width(sigma) + marker_radius(parameters, MPP) + 1
    inside = codes[0] >= fixed.threshold_code(parameters.threshold)
    claims = {}
    for core in reversed(list(lattice.cores())):
        y0, x0, y1, x1 = lattice.box(core, margin)
        part = np.ascontiguousarray(codes[1, y0:y1, x0:x1])
        own = np.ascontiguousarray(inside[y0:y1, x0:x1])
        claims[core] = claim(
            lattice, core, own, fixed.landscape(part, sigma), margin, parameters, MPP
        )
    least = least_pixels(parameters, MPP)
    settled, offsets, seams, total = {}, {}, [], 0
    for core in lattice.cores():
        lower = [(other, claims[other]) for other in lattice.around(core) if other < core]
        settled[core] = settle(lattice, core, claims[core], lower, least)
        offsets[core] = total
        seams += (total + 1 + np.flatnonzero(settled[core].seam)).tolist()
        total += len(settled[core])
    labels = np.zeros(lattice.shape, np.int32)
    for core in lattice.cores():
        y0, x0, y1, x1 = lattice.box(core)
        near = [(other, settled[other]) for other in lattice.around(core)]
        labels[y0:y1, x0:x1] = compose(lattice, core, offsets, near)
    changed = sum(settled[core] is not claims[core] for core in claims)
    return labels, seams, total, changed


def at_once(codes, parameters=MERGE):
    """One watershed over the assembled maps, by scikit-image on our landscape and markers."""
    landscape = fixed.landscape(codes[1], parameters.sigma_um / MPP)
    inside = codes[0] >= fixed.threshold_code(parameters.threshold)
    parts, labels, markers = basins(inside, landscape, parameters, MPP)
    if parameters.saddle >= 1:
        seeds = np.zeros(parts.shape, np.int32)
        seeds.ravel()[markers] = np.arange(1, len(markers) + 1)
        other = watershed(-landscape, seeds, mask=parts > 0)
        # Equal heights leave scikit-image's heap in no order.
        assert np.mean(other != labels) < 1e-3
    small = np.bincount(labels.ravel()) < least_pixels(parameters, MPP)
    labels = labels.copy()
    labels[small[labels]] = 0
    return labels


def same_objects(a, b):
    """Whether two label maps cut the same pixels the same way, whatever the numbers."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()], 1), axis=0)
    return len(np.unique(pairs[:, 0])) == len(pairs) == len(np.unique(pairs[:, 1]))


@pytest.mark.parametrize(("seed", "saddle"), [(0, 0.8), (1, 1.0), (2, 0.6)])
def test_cores_give_what_one_watershed_gives(seed, saddle):
    parameters = Merge(0.5, 0.5, 1.0, 1.9, saddle)
    codes = tissue_maps(seed, (700, 610), 260, (6, 17))
    lattice = Lattice((700, 610), core=128, halo=96, reach=96)
    labels, seams, total, _ = one_by_one(codes, lattice, parameters)
    whole = at_once(codes, parameters)
    assert total == labels.max() == len(np.unique(labels)) - 1
    assert len(seams) < total / 10
    # Where a component fits, every pixel; the mask's other components are those of `seams`.
    inside, _ = connected(codes[0] > 0)
    unsure = np.isin(inside, np.unique(inside[np.isin(labels, seams)]))
    assert same_objects(np.where(unsure, 0, labels), np.where(unsure, 0, whole))
    assert score(whole, labels).pq >= 0.995
    # Ids go by core, then by the marker's place: by the first core that an object has, at least.
    assert (np.unique(labels, return_index=True)[0] == np.arange(total + 1)).all()
    if seed:
        return
    # Cores of another size own other objects at seams, the rest is the same.
    other, their_seams, *_ = one_by_one(codes, Lattice((700, 610), 256, 96, 96), parameters)
    unsure |= np.isin(inside, np.unique(inside[np.isin(other, their_seams)]))
    assert same_objects(np.where(unsure, 0, labels), np.where(unsure, 0, other))


def test_a_component_that_no_window_holds_is_listed_and_cut_by_one_owner_each():
    codes = tissue_maps(5, (500, 900), 160, (6, 15), ridge=True)
    lattice = Lattice((500, 900), core=128, halo=96, reach=64)
    labels, seams, total, _ = one_by_one(codes, lattice)
    inside, _ = connected(codes[0] > 0)
    ridge = inside[250, 450]
    there = np.unique(labels[inside == ridge])
    assert set(there[there > 0]) <= set(seams)
    assert len(np.unique(labels)) - 1 == total
    assert score(at_once(codes), labels).pq >= 0.97  # far denser than tissue


def test_contested_pixels_go_to_the_lower_core():
    from napari_nucprune.slides.ownership import Claims

    lattice = Lattice((8, 8), core=4, halo=96, reach=2)
    none = np.zeros(0, np.int32)
    a_labels, b_labels = np.zeros((4, 4), np.int32), np.zeros((4, 4), np.int32)
    a_labels[1, 2:] = 1
    b_labels[1, :3] = 1
    b_labels[3, 3] = 2
    a = Claims(a_labels, np.array([1, 1], np.int32), np.array([4, 5], np.int32),
               np.array([1, 1], np.int32), np.array([True]))  # fmt: skip
    b = Claims(b_labels, none, none, none, np.array([True, False]))
    left = settle(lattice, (0, 1), b, [((0, 0), a)], 1)
    assert left.labels[1].tolist() == [0, 0, 1, 0]
    assert len(left) == 2
    # With a least size the trimmed object goes and the numbers close up.
    left = settle(lattice, (0, 1), b, [((0, 0), a)], 2)
    assert len(left) == 0
    assert settle(lattice, (0, 0), a, [], 1) is a
    labels = compose(lattice, (0, 1), {(0, 0): 10, (0, 1): 20},
                     [((0, 0), a), ((0, 1), settle(lattice, (0, 1), b, [((0, 0), a)], 1))])  # fmt: skip
    assert labels[1].tolist() == [11, 11, 21, 0]
    assert labels[3].tolist() == [0, 0, 0, 22]


def test_as_the_fields_merge():
    """The field's own merge on floating-point maps, apart from the rounding to codes."""
    codes = tissue_maps(7, (640, 512), 200, (6, 16))
    maps = Maps(codes[0] / np.float32(65535), fixed.distances(codes[1]), MPP)
    field = merge(maps, MERGE)
    labels, *_ = one_by_one(codes, Lattice((640, 512), 256, 96, 128))
    found = score(field.labels, labels)
    assert found.pq >= 0.995
    assert found.truth > 50
