"""The merge with the native library: the plain steps' results, and scikit-image's on real nuclei."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

from napari_nucprune import native
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.doors import Field, Maps, Merge
from napari_nucprune.nuclei import kernels, plain
from napari_nucprune.nuclei.table import measure
from napari_nucprune.nuclei.watershed import merge

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _need_the_library():
    if not native.is_available():
        pytest.skip("no native library (test_native.py says why)")


@pytest.fixture
def without_library(monkeypatch):
    """Call a function as an installation without the library would."""

    def call(function, *arguments):
        def missing():
            raise native.NativeMissing("switched off")

        with monkeypatch.context() as patch:
            patch.setattr(native, "library", missing)
            return function(*arguments)

    return call


@pytest.fixture(scope="session")
def postprocessing() -> ModuleType:
    """The benchmark, whose scikit-image version is the rival."""
    path = ROOT / "benchmarks" / "postprocessing.py"
    if not path.exists():
        pytest.skip("no benchmarks here (sdist)")
    spec = importlib.util.spec_from_file_location("postprocessing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blobs(seed, shape=(150, 170)):
    """Maps that look like nuclei: smooth noise, its mask, no two pixels equal."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    distance = ndimage.distance_transform_edt(noise > 0) + rng.uniform(0, 0.5, shape)
    return Maps((noise > 0).astype(np.float32), distance.astype(np.float32), 0.25)


map_pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=24).flatmap(
    lambda s: st.tuples(
        hnp.arrays(bool, s, elements=st.integers(0, 9).map(bool)),
        hnp.arrays(np.float32, s, elements=st.integers(-2, 4).map(float)),
    )
)


@settings(max_examples=80, deadline=None)
@given(map_pairs, st.integers(0, 5), st.integers(1, 30))
def test_steps_are_the_plain_ones(pair, least, radius):
    inside, landscape = pair
    parts, n_parts = kernels.parts_of(inside, least)
    expected, expected_n = plain.parts_of(inside, least)
    assert n_parts == expected_n
    assert np.array_equal(parts > 0, expected > 0)
    # OpenCV does not number in raster order.
    pairs = set(zip(parts.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(parts))
    markers = kernels.markers_of(landscape, parts, n_parts, radius)
    assert np.array_equal(markers, plain.markers_of(landscape, parts, n_parts, radius))
    labels = np.zeros(inside.shape, np.int32)
    labels.ravel()[markers] = np.arange(1, len(markers) + 1)
    assert np.array_equal(
        kernels.drop_small(parts.copy(), n_parts - 1, least + 2),
        plain.drop_small(parts, n_parts - 1, least + 2),
    )


@settings(max_examples=80, deadline=None)
@given(map_pairs, st.randoms(use_true_random=False), st.sampled_from([1, 2, 4]))
def test_flood_is_skimages_where_no_markers_tie(pair, random, threads):
    inside, landscape = pair
    parts, n_parts = kernels.parts_of(inside, 0)
    at = np.flatnonzero(inside)
    markers = np.sort(random.sample(at.tolist(), min(len(at), 9))).astype(np.int64)
    # scikit-image leaves equal markers in no order: everything else may tie.
    landscape.ravel()[markers] += np.linspace(0, 0.5, len(markers), dtype=np.float32)
    seeds = np.zeros(inside.shape, np.int32)
    seeds.ravel()[markers] = np.arange(1, len(markers) + 1)
    expected = watershed(-landscape, seeds, mask=inside)
    assert np.array_equal(
        kernels.flood(landscape, parts, n_parts, markers, threads), expected * (seeds.max() > 0)
    )


@pytest.mark.parametrize("seed", range(4))
def test_merge_is_the_same_without_the_library(without_library, seed):
    maps = blobs(seed)
    ours = merge(maps, Merge(sigma_um=0))
    plain_one = without_library(merge, maps, Merge(sigma_um=0))
    assert len(ours) > 20
    assert np.array_equal(ours.labels, plain_one.labels)
    for name, column in plain_one.table.items():
        np.testing.assert_allclose(ours.table[name], column, rtol=1e-9, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("sigma", [0.2, 0.75, 3.1, 40])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (67, 31), (130, 129)])
def test_smoothing_is_scipys(sigma, shape):
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    expected = ndimage.gaussian_filter(image.astype(float), sigma, mode="reflect")
    for smooth in (kernels.smooth, plain.smooth):
        np.testing.assert_allclose(smooth(image, sigma), expected, atol=3e-6)
    assert np.array_equal(kernels.smooth(image, sigma, 1), kernels.smooth(image, sigma, 3))


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "_PIXELS_A_THREAD", 100)
    maps = blobs(7, (400, 300))
    first = merge(maps, Merge(), threads=1)
    for threads in (None, 2, 3, 8):
        again = merge(maps, Merge(), threads)
        assert np.array_equal(first.labels, again.labels)
        assert all(np.array_equal(first.table[k], again.table[k]) for k in first.table)


def test_a_constant_map_takes_no_longer(monkeypatch):
    asked = []
    monkeypatch.setattr(plain, "markers_of", lambda *a: asked.append(a) or np.array([0]))
    parts = np.ones((300, 300), np.int32)
    kernels.markers_of(np.zeros((300, 300), np.float32), parts, 2, 12)
    assert len(asked) == 1


def test_what_the_library_does_not_take_is_measured_all_the_same():
    labels = np.zeros((20, 30), np.int64)
    labels[2:5, 3:9] = 10**9
    distance = np.random.default_rng(0).random(labels.shape)
    for ids in (labels, labels.astype(np.int32)):
        table = measure(ids, distance.astype(np.float32), 1)
        assert table["label"].tolist() == [10**9]
        assert table["area_um2"].tolist() == [18]
    # float64 keeps its digits, other orders of memory their places.
    one = (labels > 0).astype(np.int32)
    assert measure(one, distance, 1)["mean_distance"] == pytest.approx(distance[2:5, 3:9].mean())
    turned = measure(np.asfortranarray(one), np.asfortranarray(distance.astype(np.float32)), 1)
    assert turned["centroid_x"].tolist() == [5.5]


def test_wrong_arguments_are_refused():
    parts = np.ones((3, 3), np.int32)
    with pytest.raises(ValueError, match="nucprune_flood"):
        kernels.flood(np.zeros((3, 3), np.float32), parts, 2, np.array([5, 4]))
    with pytest.raises(ValueError, match="nucprune_markers"):
        kernels.markers_of(np.zeros((3, 3), np.float32), parts * 7, 2, 1)


def test_real_nuclei_are_skimages(shared_data, postprocessing):
    """12 images of MoNuSeg: same foreground, and the same objects but for 1 pixel in 1000."""
    paths = sorted((shared_data / "MoNuSeg").rglob("*.tif"))[:12]
    if len(paths) < 12:
        pytest.skip("no 12 MoNuSeg images in ../shared/data")
    from PIL import Image

    from napari_nucprune.runtime.torch_runtime import TorchRuntime

    checkpoint = open_checkpoint()
    runtime = TorchRuntime()
    runtime.load(checkpoint)
    for path in paths:
        # A part of each, since the network takes the time; benchmarks/postprocessing.py takes all.
        rgb = np.asarray(Image.open(path).convert("RGB"))[:256, :256]
        maps = runtime.run(Field(rgb, checkpoint.mpp))
        parameters = replace(checkpoint.merge, saddle=1.0)  # scikit-image has none
        found = merge(maps, parameters)
        labels = postprocessing.labels_by_skimage(maps, parameters)
        same_foreground, share = postprocessing.agreement(found.labels, labels)
        assert same_foreground, path.name
        assert share >= 0.999, path.name
        assert len(found) == labels.max() > 8, path.name
        table = regionprops_table(found.labels, maps.distance, properties=("area", "eccentricity"))
        mpp2 = checkpoint.mpp**2
        np.testing.assert_allclose(found.table["area_um2"], table["area"] * mpp2)
        np.testing.assert_allclose(found.table["eccentricity"], table["eccentricity"], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 2), st.floats(0.3, 2))
def test_synthetic_nuclei_are_skimages(postprocessing, seed, sigma, footprint):
    maps = blobs(seed)
    parameters = Merge(sigma_um=sigma, footprint_um=footprint)
    found = merge(maps, parameters).labels
    labels = postprocessing.labels_by_skimage(maps, parameters)
    same_foreground, share = postprocessing.agreement(found, labels)
    assert same_foreground
    assert share >= 0.999
