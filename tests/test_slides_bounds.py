"""The offset of what was scanned, and the bounds of what is kept."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucprune.slides import slide as slides
from napari_nucprune.slides.reader import open_slide, read_slide
from napari_nucprune.slides.slide import Slide
from napari_nucprune.slides.tiff import TileCache
from oracle import CASES, HALF, gaps, make, segmented, table_of
from slides_helpers import levels, write

__all__ = ["levels"]

# ---------------------------------------------------------------- what was scanned


@pytest.fixture
def scanned(monkeypatch):
    """OpenSlide on any slide as on an .mrxs: part of the glass was scanned, the rest is nothing."""
    box = (96, 64, 500, 700)  # y, x, height, width
    names = [f"openslide.bounds-{name}" for name in ("y", "x", "height", "width")]
    real = openslide.OpenSlide

    class Mirax(real):
        @property
        def properties(self):
            own = dict(super().properties) | dict(zip(names, map(str, box), strict=True))
            return own | {"openslide.background-color": "F0E8DC"}

        def read_region(self, location, level, size):
            rgba = np.array(super().read_region(location, level, size))
            scale = self.level_downsamples[level]
            y, x = (
                location[i] + np.arange(size[i]) * scale for i in (1, 0)
            )  # level-0 pixel of each
            inside = (y >= box[0])[:, None] & (x >= box[1])[None]
            rgba[~inside] = 0
            return rgba

    monkeypatch.setattr(openslide, "OpenSlide", Mirax)
    return box


def test_what_was_not_scanned_is_background(scanned, tmp_path):
    path, *_ = make(tmp_path / "a.svs", *CASES["20x"])
    slide = open_slide(path)
    assert slide.bounds == scanned
    assert slide.read(0, 10, 10, 2, 2).tolist() == [[[0xF0, 0xE8, 0xDC]] * 2] * 2
    ((data, attributes, _),) = read_slide(str(path))
    assert attributes["metadata"]["nucprune"]["bounds"] == scanned
    # The pixels stay where the file has them.
    assert data[0].shape[:2] == slide.shapes[0]
    assert "translate" not in attributes


def test_the_outlines_of_a_whole_slide_count_from_where_it_was_scanned(scanned, tmp_path):
    case = make(tmp_path / "a.svs", *CASES["20x"])
    centres, mpp = case[2], np.array(case[3])
    run = segmented(case, tmp_path / "out")
    wanted = centres[(centres > np.array(scanned[:2]) + 14).all(1)]
    assert run["input"]["corner"] == list(scanned[:2])
    assert len(wanted) <= run["nuclei"] < len(centres)
    # As OpenSlide counts, and so our layer and the labels: over the whole glass.
    assert gaps(table_of(tmp_path / "out"), wanted).max() < HALF
    # As QuPath counts: from the corner.
    shapes = json.loads((tmp_path / "out/nuclei.geojson").read_text())["features"]
    rings = [np.array(shape["geometry"]["coordinates"][0])[:-1, ::-1] for shape in shapes]
    middles = np.array([(ring.min(0) + ring.max(0)) / 2 for ring in rings]) - 0.5
    assert gaps(middles, wanted - scanned[:2]).max() < 1  # of boxes: coarser than centroids
    group = zarr.open_group(str(tmp_path / "out/instances.zarr"), mode="r")
    steps = group.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    labels = group["0"][:]
    found = np.array([np.argwhere(labels == i).mean(0) for i in range(1, run["nuclei"] + 1)])
    world = found * steps[0]["scale"] + np.array(steps[1]["translation"])
    assert (gaps(world, wanted * mpp) < HALF * mpp).all()


# ---------------------------------------------------------------- what is kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60)), max_size=60))
def test_kept_tiles_never_exceed_the_limit_and_are_the_last_used(uses):
    kept, sizes, order = TileCache(100), {}, []
    for key, size in uses:
        found = kept.get(key)
        # By hand: the last used that fit into 100 bytes together.
        if key in order:
            assert found is not None
            assert found.nbytes == sizes[key]
            order.remove(key)
        else:
            assert found is None
            sizes[key] = size
            kept.put(key, np.zeros(size, np.uint8))
        order.append(key)
        while sum(sizes[k] for k in order) > 100:
            order.pop(0)
        assert kept.bytes == sum(sizes[k] for k in order) <= 100
    kept.put("large", np.zeros(101, np.uint8))
    assert kept.get("large") is None


def test_tiles_are_decoded_once_and_kept_within_bounds(levels, tmp_path, monkeypatch):
    write(tmp_path / "a.tif", levels)
    slide = open_slide(tmp_path / "a.tif")
    decoded = []
    own = slide._decoded
    monkeypatch.setattr(slide, "_decoded", lambda *at: decoded.append(at) or own(*at))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: slide.read(1, 0, 0, 128, 256), range(20)))
    # Threads that begin together may each decode it.
    assert len(decoded) <= 4
    slide.read(1, 5, 9, 30, 40)
    assert len(decoded) <= 4


def test_all_slides_share_one_cache_of_openslide(tmp_path, monkeypatch):
    """Of a known size; a handle opened anew after a damaged tile, too."""
    path = make(tmp_path / "a.svs", *CASES["20x"])[0]
    seen = []
    own = openslide.OpenSlide.set_cache
    monkeypatch.setattr(
        openslide.OpenSlide, "set_cache", lambda self, kept: seen.append(kept) or own(self, kept)
    )
    first, second = Slide(path), Slide(path)

    class Broken:
        def read_region(self, *_):
            raise openslide.OpenSlideError("Decoder failed")

    first._handle = Broken()
    np.testing.assert_array_equal(first.read(0, 0, 0, 50, 50), second.read(0, 0, 0, 50, 50))
    assert len(seen) == 3
    assert len({id(kept) for kept in seen}) == 1
    assert isinstance(seen[0], openslide.OpenSlideCache)
    assert seen[0]._capacity == slides.CACHE_BYTES
