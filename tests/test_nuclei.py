import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

from napari_nucprune.doors import Maps, Merge, Nuclei
from napari_nucprune.errors import EnvironmentStopped, InputError
from napari_nucprune.nuclei.table import CSV_COLUMNS, measure, write_csv
from napari_nucprune.nuclei.watershed import merge


def discs(shape, circles, mpp=0.25):
    """Maps of circles (y, x, radius in um): the union, and the largest of their own EDTs in um."""
    distance = np.zeros(shape, np.float32)
    for cy, cx, r in circles:
        # In a window of its own; circles cut by the image's edge end there.
        top, left = (max(0, int((c - r) / mpp) - 1) for c in (cy, cx))
        window = distance[top : int((cy + r) / mpp) + 3, left : int((cx + r) / mpp) + 3]
        y, x = np.mgrid[: window.shape[0], : window.shape[1]]
        y, x = (y + top) * mpp, (x + left) * mpp
        inside = np.pad((y - cy) ** 2 + (x - cx) ** 2 <= r * r, 1)
        own = ndimage.distance_transform_edt(inside, sampling=mpp)[1:-1, 1:-1]
        np.maximum(window, own, out=window, casting="same_kind")
    return Maps((distance > 0).astype(np.float32), distance, mpp)


def grid_of_discs(n, spacing, radius):
    """Return n x n circles, touching in both directions where spacing < 2 * radius."""
    at = (np.arange(n) + 0.7) * spacing
    return [(y, x, radius) for y in at for x in at]


def test_touching_discs_are_separated():
    maps = discs((200, 200), grid_of_discs(4, 10.0, 5.4))
    assert ndimage.label(maps.semantic)[1] == 1
    nuclei = merge(maps, Merge())
    assert len(nuclei) == 16
    assert nuclei.labels.dtype == np.int32
    assert np.array_equal(nuclei.labels > 0, maps.semantic > 0.5)
    centres = np.array([(y, x) for y, x, _ in grid_of_discs(4, 10.0, 5.4)]) / 0.25
    found = np.c_[nuclei.table["centroid_y"], nuclei.table["centroid_x"]]
    apart = np.linalg.norm(found[:, None] - centres[None], axis=-1)
    assert (apart.min(axis=1) < 1.5).all()


def test_pixel_size_does_not_change_the_count():
    circles = [(10, 10, 5), (10, 18, 4.5), (30, 12, 4), (28, 30, 6), (37, 36, 4), (10, 40, 3)]
    fine, coarse = discs((192, 192), circles, 0.25), discs((96, 96), circles, 0.5)
    a, b = merge(fine, Merge()), merge(coarse, Merge())
    assert len(a) == len(b) == 6
    assert a.mpp == 0.25
    order = [np.argsort(t["centroid_y"] * m) for t, m in ((a.table, 0.25), (b.table, 0.5))]
    assert a.table["area_um2"][order[0]] == pytest.approx(b.table["area_um2"][order[1]], rel=0.1)


def test_area_is_in_um2_and_near_the_circle():
    nuclei = merge(discs((80, 80), [(10, 10, 6)]), Merge())
    assert nuclei.table["area_um2"][0] == np.count_nonzero(nuclei.labels) * 0.0625
    assert nuclei.table["area_um2"][0] == pytest.approx(np.pi * 36, rel=0.02)


def test_small_objects_go_and_the_rest_has_no_gaps():
    semantic = np.zeros((40, 40), np.float32)
    semantic[2:7, 2:8] = 1  # 30 px
    semantic[10:20, 10:20] = 1
    semantic[30:36, 4:9] = 1  # 30 px
    semantic[30:31, 30:37] = 1  # 7 px
    maps = Maps(semantic, ndimage.distance_transform_edt(semantic).astype(np.float32), 0.25)
    assert len(merge(maps, Merge(min_area_um2=30 * 0.0625))) == 3
    assert len(merge(maps, Merge(min_area_um2=31 * 0.0625))) == 1
    nuclei = merge(maps, Merge(min_area_um2=7 * 0.0625))
    assert nuclei.table["label"].tolist() == np.unique(nuclei.labels)[1:].tolist() == [1, 2, 3, 4]
    # A minimum that is met exactly, where mpp**2 is not a binary fraction.
    at_tenth = Maps(maps.semantic, maps.distance, 0.1)
    assert len(merge(at_tenth, Merge(min_area_um2=30 * 0.1**2))) == 3


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("sigma", [0.0, 0.75])
def test_a_plateau_is_one_nucleus(value, sigma):
    semantic = np.zeros((30, 50), np.float32)
    semantic[3:12, 3:40] = semantic[18:27, 5:45] = 1
    maps = Maps(semantic, np.full((30, 50), value, np.float32), 0.25)
    nuclei = merge(maps, Merge(sigma_um=sigma))
    assert np.array_equal(nuclei.labels, ndimage.label(semantic)[0])


def test_equal_peaks_within_the_footprint_are_one_marker():
    distance = np.zeros((9, 30), np.float32)
    distance[4, 5] = distance[4, 9] = distance[4, 14] = 1
    maps = Maps(np.ones_like(distance), distance, 1.0)
    # Gaps of 4 and 5 pixels; both parities of the footprint, since its square is even or odd.
    for footprint, n in ((3, 3), (4, 2), (5, 1)):
        parameters = Merge(sigma_um=0, footprint_um=footprint, min_area_um2=0)
        nuclei = merge(maps, parameters)
        # The ground at 0 is no maximum, so these are all.
        assert len(nuclei) == n
        assert len(set(nuclei.labels[4, [5, 9, 14]].tolist())) == n


def test_a_ledge_is_no_marker():
    distance = np.zeros((20, 60), np.float32)
    distance[8:12, 5:55] = 1  # wide, but it leads to the peak
    distance[8:12, 50:52] = 2
    maps = Maps(np.ones_like(distance), distance, 0.5)
    assert len(merge(maps, Merge(sigma_um=0, footprint_um=2))) == 1


def test_no_semantic_object_vanishes():
    # Neither part holds a maximum of the distance map: it rises to the right, outside the mask.
    semantic = np.zeros((20, 60), np.float32)
    semantic[2:10, 2:12] = semantic[2:10, 30:40] = 1
    distance = np.tile(np.arange(60, dtype=np.float32), (20, 1))
    nuclei = merge(Maps(semantic, distance, 0.25), Merge(sigma_um=0))
    assert np.array_equal(nuclei.labels, ndimage.label(semantic)[0])


def test_labels_are_a_plain_watershed_from_the_same_markers():
    rng = np.random.default_rng(3)
    semantic = (ndimage.gaussian_filter(rng.normal(size=(120, 120)), 4) > 0).astype(np.float32)
    distance = ndimage.gaussian_filter(rng.normal(size=(120, 120)), 1).astype(np.float32)
    nuclei = merge(Maps(semantic, distance, 0.25), Merge(min_area_um2=0, footprint_um=0.75))

    smoothed = ndimage.gaussian_filter(distance, 3.0, mode="reflect")
    peaks = (smoothed == ndimage.maximum_filter(smoothed, 7, mode="nearest")) & (semantic > 0)
    parts, n = ndimage.label(semantic)
    for part in range(1, n + 1):
        if not peaks[parts == part].any():
            inside = np.where(parts == part, smoothed, -np.inf)
            peaks.flat[np.argmax(inside)] = True
    markers = np.zeros(semantic.shape, int)
    markers[peaks] = np.arange(1, peaks.sum() + 1)
    expected = watershed(-smoothed, markers, mask=semantic > 0)
    # OpenCV's blur and scipy's differ in the last bits, so a pixel or two at a border may flip.
    assert len(nuclei) == expected.max() > n
    assert np.mean(nuclei.labels == expected) > 0.999


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2)])
@pytest.mark.parametrize("sigma", [0, 0.75, 20])
def test_tiny_images(shape, sigma):
    ones = np.ones(shape, np.float32)
    parameters = Merge(sigma_um=sigma, min_area_um2=0, footprint_um=50)
    nuclei = merge(Maps(ones, ones, 0.25), parameters)
    assert np.array_equal(nuclei.labels, np.ones(shape))
    assert nuclei.table["mean_distance"] == pytest.approx([1])
    assert len(merge(Maps(ones * 0, ones, 0.25), parameters)) == 0


def test_empty_mask_gives_empty_columns():
    nuclei = merge(Maps(*np.zeros((2, 32, 40), np.float32), 0.25), Merge())
    assert len(nuclei) == 0
    assert not nuclei.labels.any()
    assert nuclei.labels.shape == (32, 40)
    assert {len(column) for column in nuclei.table.values()} == {0}


map_pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14).flatmap(
    lambda s: st.tuples(
        hnp.arrays(np.float32, s, elements=st.sampled_from([0, 0.25, 0.5, 1])),
        hnp.arrays(np.float32, s, elements=st.integers(-2, 4).map(float)),
    )
)


@settings(max_examples=80, deadline=None)
@given(map_pairs, st.sampled_from([0, 0.3, 1]), st.sampled_from([0, 0.5, 1.5]))
def test_what_always_holds(pair, sigma, footprint):
    maps = Maps(*pair, 0.5)
    nuclei = merge(maps, Merge(sigma_um=sigma, footprint_um=footprint, min_area_um2=0))
    again = merge(maps, Merge(sigma_um=sigma, footprint_um=footprint, min_area_um2=0))
    assert np.array_equal(nuclei.labels, again.labels)
    assert np.array_equal(nuclei.labels > 0, maps.semantic >= 0.5)
    assert nuclei.table["label"].tolist() == list(range(1, len(nuclei) + 1))
    for i in nuclei.table["label"]:
        assert ndimage.label(nuclei.labels == i)[1] == 1


@pytest.mark.parametrize("name", ["semantic", "distance"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_a_sentence(name, value):
    arrays = {"semantic": np.ones((5, 5), np.float32), "distance": np.ones((5, 5), np.float32)}
    arrays[name][2, 2] = value
    with pytest.raises(InputError, match=f"The {name} map has 1 pixels"):
        merge(Maps(**arrays, mpp=0.25), Merge())


def test_wrong_maps_are_a_sentence():
    a, b = np.ones((5, 5), np.float32), np.ones((5, 6), np.float32)
    for maps in (Maps(a, b, 0.25), Maps(a[:0], a[:0], 0.25), Maps(a[0], a[0], 0.25)):
        with pytest.raises(InputError, match="shape"):
            merge(maps, Merge())
    for mpp in (0, np.nan):
        with pytest.raises(InputError, match="pixel size"):
            merge(Maps(a, a, mpp), Merge())


@pytest.mark.parametrize("seed", range(6))
def test_table_equals_regionprops(seed):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(90, 110)), 1 + seed)
    labels = ndimage.label(noise > 0)[0].astype(np.int32)
    labels[0, 0:3], labels[5, 5] = labels.max() + 1, labels.max() + 5  # a line, a pixel, gaps
    distance = rng.normal(size=labels.shape).astype(np.float32)
    table = measure(labels, distance, 0.5)
    names = ("label", "centroid", "area", "eccentricity", "intensity_mean")
    expected = regionprops_table(labels, distance, properties=names)
    for ours, theirs in (
        ("label", expected["label"]),
        ("centroid_y", expected["centroid-0"]),
        ("centroid_x", expected["centroid-1"]),
        ("area_um2", expected["area"] * 0.25),
        ("eccentricity", expected["eccentricity"]),
        ("mean_distance", expected["intensity_mean"]),
    ):
        np.testing.assert_allclose(table[ours], theirs, atol=1e-6, rtol=1e-6, err_msg=ours)


def test_eccentricity_far_from_the_origin_and_of_round_things():
    labels = np.zeros((40, 60000), np.int32)
    y, x = np.mgrid[:40, :40]
    labels[:, -40:] = (y - 20) ** 2 / 100 + (x - 20) ** 2 / 300 < 1
    labels[:, :40] = 2 * ((y - 20) ** 2 + (x - 20) ** 2 <= 225)
    ellipse, disc = measure(labels, np.zeros(labels.shape), 0.25)["eccentricity"]
    assert disc == pytest.approx(0, abs=1e-6)
    near = measure(labels[:, -40:], np.zeros((40, 40)), 0.25)["eccentricity"]
    assert ellipse == pytest.approx(near[0], abs=1e-9)


def test_measure_refuses():
    labels = np.zeros((3, 3), np.int32)
    with pytest.raises(InputError, match="shape"):
        measure(labels, np.zeros((3, 4)), 0.25)
    with pytest.raises(InputError, match="-1"):
        measure(labels - 1, np.zeros((3, 3)), 0.25)
    with pytest.raises(InputError, match="pixel size"):
        measure(labels, np.zeros((3, 3)), 0)


def test_csv(tmp_path):
    nuclei = merge(discs((80, 80), [(10, 10, 5), (10, 14, 4)]), Merge())
    path = tmp_path / "nuclei.csv"
    path.write_text("old")
    write_csv(nuclei, path)
    assert [p.name for p in tmp_path.iterdir()] == ["nuclei.csv"]
    assert path.read_bytes().startswith(",".join(CSV_COLUMNS).encode() + b"\n1,")
    rows = np.genfromtxt(path, delimiter=",", names=True)
    assert len(rows) == len(nuclei) == 2
    assert rows["centroid_y_um"] == pytest.approx(rows["centroid_y_px"] * 0.25, abs=1e-3)
    for name in ("area_um2", "eccentricity", "mean_distance"):
        assert rows[name] == pytest.approx(nuclei.table[name], abs=1e-4)


def test_csv_without_nuclei_is_a_header(tmp_path):
    write_csv(merge(Maps(*np.zeros((2, 4, 4), np.float32), 0.25), Merge()), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == ",".join(CSV_COLUMNS) + "\n"


def test_csv_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    nuclei = merge(discs((80, 80), [(10, 10, 5)]), Merge())
    path = tmp_path / "nuclei.csv"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_nucprune.files.os.replace", full)
    with pytest.raises(EnvironmentStopped, match="disk"):
        write_csv(nuclei, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["nuclei.csv"]
    for wrong in (tmp_path, tmp_path / "none" / "a.csv"):
        with pytest.raises(InputError, match="folder"):
            write_csv(nuclei, wrong)


def test_neither_nuclei_nor_metrics_load_torch():
    code = (
        "import sys, numpy as np\n"
        "from napari_nucprune.nuclei.watershed import merge\n"
        "from napari_nucprune.compare.metrics import score\n"
        "assert not {'skimage', 'cv2'} & set(sys.modules), 'not lazy'\n"
        "from napari_nucprune.doors import Maps, Merge\n"
        "s = np.ones((32, 32), np.float32); d = np.zeros_like(s); d[8, 8] = d[24, 24] = 1\n"
        "n = merge(Maps(s, d, 0.25), Merge(sigma_um=0.5)); assert len(n) == 2, len(n)\n"
        "assert score(n.labels, n.labels).pq == 1\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_field_is_merged_quickly():
    rng = np.random.default_rng(0)
    circles = [
        (y + rng.uniform(-1, 1), x + rng.uniform(-1, 1), rng.uniform(3.5, 6.5))
        for y, x, _ in grid_of_discs(11, 11.6, 5)
    ]
    maps = discs((512, 512), circles)
    nuclei = merge(maps, Merge())
    assert isinstance(nuclei, Nuclei)
    assert 100 <= len(nuclei) <= 125
    times = []
    for _ in range(5):
        start = time.thread_time()
        merge(maps, Merge())
        times.append(time.thread_time() - start)
    # Typically 30 ms; loose, since it catches a loop per object, not a slow machine.
    assert min(times) < 0.2
