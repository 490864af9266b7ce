"""Crops for calibration: on tissue, spread, apart, the same again, and few pixels read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from helpers import is_one_line
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.stained import tissue_part
from napari_nucprune.slides import crops as module
from napari_nucprune.slides.crops import crops_of_folder, tissue_crops
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source

GLASS = 245
MPP = 0.25


def slide(height, width, *tissue):
    """Glass, and noise of stain in boxes (y0, x0, y1, x1)."""
    rgb = np.full((height, width, 3), GLASS, np.uint8)
    rng = np.random.default_rng(height + width)
    for y0, x0, y1, x1 in tissue:
        rgb[y0:y1, x0:x1] = rng.integers(60, 180, (y1 - y0, x1 - x0, 3))
    return rgb


class Lazy:
    """A level that draws a region on demand, and refuses large ones."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, height, width, down=1, boxes=(), most=None):
        self.shape = (height // down, width // down, 3)
        self.down, self.boxes, self.most = down, boxes, most
        self.reads = []

    def __getitem__(self, key):
        spans = [s.indices(n) for s, n in zip(key, self.shape, strict=False)]
        assert all(step == 1 for *_, step in spans)
        ys, xs = (np.arange(*span)[:, None] for span in spans)
        self.reads.append((len(ys), len(xs)))
        assert self.most is None or max(self.reads[-1]) <= self.most, "too large a read"
        y, x = ys * self.down, xs.T * self.down
        # The green of a tissue pixel says where it is: the crops' places can be read off them.
        out = np.full((len(ys), len(xs), 3), GLASS, np.uint8)
        for y0, x0, y1, x1 in self.boxes:
            inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
            out[inside] = 90
        return out

    def __array__(self, *_, **__):
        raise AssertionError("all of a level was asked for")


def places(rgb, crops):
    """Where crops of an image lie in it; each must be there exactly once."""
    side = crops.shape[1]
    found = []
    for crop in crops:
        at = [
            (y, x)
            for y in range(0, rgb.shape[0] - side + 1, 16)
            for x in range(0, rgb.shape[1] - side + 1, 16)
            if np.array_equal(rgb[y : y + side, x : x + side], crop)
        ]
        assert len(at) == 1, at
        found += at
    return found


def assert_apart(places, side):
    for (y, x), (v, u) in itertools.combinations(places, 2):
        assert abs(y - v) >= side or abs(x - u) >= side, ((y, x), (v, u))


def test_tissue_in_one_corner():
    rgb = slide(700, 900, (400, 500, 700, 900))
    crops = tissue_crops(Source([rgb], (MPP, MPP)), MPP, 16, 64)
    assert crops.dtype == np.uint8
    assert crops.flags.c_contiguous
    assert crops.shape == (16, 64, 64, 3)
    at = places(rgb, crops)
    assert at == sorted(at)
    assert_apart(at, 64)
    assert all(tissue_part(crop) >= 0.25 for crop in crops)
    again = tissue_crops(Source([rgb.copy()], (MPP, MPP)), MPP, 16, 64)
    np.testing.assert_array_equal(crops, again)


def test_spread_over_all_of_the_tissue():
    # Two pieces, one four times the other: each gets its part.
    rgb = slide(1100, 1100, (0, 0, 512, 1024), (800, 100, 1056, 356))
    at = places(rgb, tissue_crops(Source([rgb]), MPP, 10, 32))
    small = [place for place in at if place[0] >= 700]
    assert 1 <= len(small) <= 3
    large = [place for place in at if place[0] < 700]
    for axis, length in ((0, 512), (1, 1024)):
        values = [place[axis] for place in large]
        assert min(values) < length / 3
        assert max(values) > length / 2


def test_an_image_of_sixteen_crops_gives_all_of_them():
    rgb = slide(512, 512, (0, 0, 512, 512))
    at = places(rgb, tissue_crops(Source([rgb]), MPP))
    assert at == [(y, x) for y in range(0, 512, 128) for x in range(0, 512, 128)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((300, 300), (4, 128)),
        ((128, 128), (1, 128)),
        ((127, 500), (4, 112)),
        ((40, 33), (1, 32)),
        ((32, 32), (1, 32)),
    ],
)
def test_small_images(shape, expected):
    rgb = slide(*shape, (0, 0, *shape))
    crops = tissue_crops(Source([rgb]), MPP)
    n, side = expected
    assert crops.shape == (n, side, side, 3)
    assert_apart(places(rgb, crops), side)


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        (slide(31, 400, (0, 0, 31, 400)), ["31 x 400", "32"]),
        (slide(400, 500), ["glass"]),
        (np.zeros((0, 50, 3), np.uint8), ["0 x 50"]),
        (np.zeros((50, 50), np.uint8), ["(50, 50)"]),
    ],
)
def test_nothing_to_be_had(rgb, words):
    with pytest.raises(InputError) as caught:
        tissue_crops(Source([rgb], name="x.png"), MPP)
    assert is_one_line(caught.value)
    assert all(word in str(caught.value) for word in ["x.png", *words])


def test_little_tissue_is_taken_where_there_is_no_more():
    rgb = slide(256, 256, (130, 130, 150, 160))  # 14 % of one 64 px crop
    crops = tissue_crops(Source([rgb]), MPP, 4, 64)
    assert places(rgb, crops) == [(128, 128)]
    rgb = slide(256, 256, (130, 130, 150, 160), (0, 0, 64, 64))
    assert places(rgb, tissue_crops(Source([rgb]), MPP, 4, 64)) == [(0, 0), (128, 128)]
    assert places(rgb, tissue_crops(Source([rgb]), MPP, 1, 64)) == [(0, 0)]


def test_other_pixel_sizes_are_resampled():
    rgb = slide(600, 600, (0, 0, 600, 600))
    source = Source([rgb], (0.125, 0.2))  # 300 x 480 network pixels
    crops = tissue_crops(source, MPP, 16, 64)
    assert crops.shape == (16, 64, 64, 3)
    assert_apart(places(take(source, MPP).field.rgb, crops), 64)
    # Without a pixel size, and with one that is close enough, pixels stay as they are.
    for mpp in (None, (0.2525, 0.2525)):
        places(rgb, tissue_crops(Source([rgb], mpp), MPP, 4, 64))


def test_alpha_is_glass():
    rgb = slide(256, 256, (0, 0, 256, 256))
    rgba = np.dstack([rgb, np.zeros((256, 256), np.uint8)])
    rgba[:64, :64, 3] = 255
    crops = tissue_crops(Source([rgba]), MPP, 4, 64)
    np.testing.assert_array_equal(crops, rgb[None, :64, :64])


def test_a_huge_slide_is_looked_at_in_a_small_level():
    box = (70_000, 20_000, 76_000, 29_000)
    size = 100_000
    levels = [Lazy(size, size, down, [box], most=700) for down in (1, 4, 16)]
    levels.append(Lazy(size, size, 64, [box]))
    crops = tissue_crops(Source(levels, (MPP / 2, MPP / 2)), MPP)
    assert crops.shape == (16, 128, 128, 3)
    assert all(tissue_part(crop) == 1 for crop in crops)
    assert levels[3].reads == [(1562, 1562)]
    assert len(levels[0].reads) == 16
    assert not levels[1].reads
    assert not levels[2].reads


def test_what_a_small_level_shows_is_checked():
    """A thumbnail that is all tissue, over a slide whose right half is glass."""
    size = 8192
    levels = [
        Lazy(size, size, 1, [(0, 0, size, size // 2)], most=400),
        Lazy(size, size, 64, [(0, 0, size, size)]),
    ]
    crops = tissue_crops(Source(levels), MPP)
    assert 4 <= len(crops) <= 16
    assert all(tissue_part(crop) >= 0.02 for crop in crops)
    assert len(levels[0].reads) <= 16 * module.TRIES


def test_without_a_small_level_only_candidates_are_read():
    level = Lazy(20_000, 30_000, 1, [(12_000, 18_000, 20_000, 30_000)], most=400)
    crops = tissue_crops(Source([level]), MPP)
    assert len(crops) == 16
    assert all(tissue_part(crop) >= 0.25 for crop in crops)
    assert len(level.reads) == module.PROBES


def test_a_large_array_in_memory_is_thinned_out(monkeypatch):
    monkeypatch.setattr(module, "LOOK", 10_000)
    rgb = slide(700, 900, (400, 500, 700, 900))
    crops = tissue_crops(Source([rgb]), MPP, 8, 64)
    assert crops.shape == (8, 64, 64, 3)
    assert all(tissue_part(crop) >= 0.2 for crop in crops)


def test_the_look_measures_as_recovery_does():
    rng = np.random.default_rng(0)
    rgb = rng.integers(180, 225, (64, 96, 3), np.uint8)
    starts = np.array([0, 32]), np.array([0, 32, 64])
    looked = module._looked(Source([rgb]), (64, 96), *starts, 32)
    own = [tissue_part(rgb[y : y + 32, x : x + 32]) for y in (0, 32) for x in (0, 32, 64)]
    np.testing.assert_allclose(looked, own, atol=1e-6)
    assert 0.2 < min(own) < max(own) < 0.8


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "images"
    where.mkdir()
    return where


def put(folder, name, rgb):
    Image.fromarray(rgb).save(folder / name)


def whose(crops):
    """Each image of a folder is of one shade: the shades of the crops."""
    return [int(crop.min()) for crop in crops]


def shade(value, height=256, width=256):
    return np.full((height, width, 3), value, np.uint8)


def test_a_folder_gives_as_many_of_each(folder):
    for i, name in enumerate(("b.png", "a.JPG", "c.tif")):
        put(folder, name, shade(100 + 10 * i))
    (folder / "notes.txt").write_text("no image")
    (folder / "._a.png").write_text("no image")
    (folder / "d.png").mkdir()
    said = []
    crops = crops_of_folder(folder, MPP, 8, 64, notice=said.append)
    assert whose(crops) == [110] * 3 + [100] * 3 + [120] * 2
    assert len(said) == 1
    assert "3 images (a.JPG first)" in said[0]
    said.clear()
    again = crops_of_folder(folder, MPP, 8, 64, own_mpp=0.5, notice=said.append)
    assert again.shape == (8, 64, 64, 3)
    assert not said


def test_many_images_give_one_crop_each_and_not_all_are_read(folder, monkeypatch):
    for i in range(20):
        put(folder, f"{i:02}.png", shade(100 + i, 64, 64))
    opened = []
    real = module.open_source
    monkeypatch.setattr(
        module, "open_source", lambda path, mpp: opened.append(path.stem) or real(path, mpp)
    )
    assert whose(crops_of_folder(folder, MPP, 4, 64)) == [102, 107, 112, 117]
    assert opened == ["02", "07", "12", "17"]
    # What one cannot give, others do.
    put(folder, "07.png", shade(250, 64, 64))
    (folder / "12.png").write_bytes(b"damaged")
    said = []
    found = whose(crops_of_folder(folder, MPP, 4, 64, notice=said.append))
    assert len(found) == 4
    assert {102, 117} < set(found)
    assert [("07.png" in s, "12.png" in s) for s in said[:2]] == [(True, False), (False, True)]


def test_sizes_of_a_folder(folder):
    put(folder, "a.png", shade(100, 70, 90))
    put(folder, "b.png", shade(110, 50, 80))
    assert crops_of_folder(folder, MPP).shape == (2, 48, 48, 3)
    put(folder, "c.png", shade(120, 100, 49))
    put(folder, "d.png", shade(130, 49, 100))
    crops = crops_of_folder(folder, MPP)
    assert crops.shape[1:] == (48, 48, 3)
    assert sorted(set(whose(crops))) == [100, 110, 120, 130]
    put(folder, "e.png", shade(140, 512, 512))
    crops = crops_of_folder(folder, MPP)
    assert crops.shape[1:] == (128, 128, 3)
    assert set(whose(crops)) == {140}


def test_folders_without_crops(folder):
    for path, word in ((folder / "no", "not a folder"), (folder, "no images")):
        with pytest.raises(InputError, match=word) as caught:
            crops_of_folder(path, MPP)
        assert is_one_line(caught.value)
    put(folder, "a.png", shade(250))
    said = []
    with pytest.raises(InputError, match=r"None of the 1 images .*a\.png shows no tissue"):
        crops_of_folder(folder, MPP, notice=said.append)
    assert not said
