import math
import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import QUICK, is_one_line, make_checkpoint, noise, smooth
from napari_nucprune.doors import Field, Maps
from napari_nucprune.errors import EnvironmentStopped, InputError
from napari_nucprune.runtime.torch_runtime import LARGEST, TorchRuntime
from napari_nucprune.slides import outputs
from napari_nucprune.slides.field import take, to_image
from napari_nucprune.slides.image import to_rgb
from napari_nucprune.slides.source import Source

MPP = 0.25


pytestmark = pytest.mark.usefixtures("one_thread")


def source_of(rgb, mpp=MPP, **options):
    pair = mpp if mpp is None or isinstance(mpp, tuple) else (mpp, mpp)
    return Source([rgb], pair, **options)


def inner_rgb(taken):
    return taken.field.rgb[taken.inner]


def refused(source, *arguments, **options):
    with pytest.raises(InputError) as caught:
        take(source, *arguments, **options)
    assert is_one_line(caught.value)
    return str(caught.value)


# --- at the network's own pixel size ------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.25, 0.2436, 0.2566, None])
def test_all_of_an_image_is_the_image(mpp):
    rgb = noise(0, 53, 70)
    taken = take(source_of(rgb, mpp), MPP)
    np.testing.assert_array_equal(taken.field.rgb, rgb)
    np.testing.assert_array_equal(inner_rgb(taken), rgb)
    np.testing.assert_array_equal(taken.transform, np.eye(3))
    assert taken.field.origin == (0, 0)
    assert taken.field.mpp_assumed is (mpp is None)
    assert taken.field.mpp == pytest.approx(mpp or MPP)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), height=st.integers(1, 400), width=st.integers(1, 400))
def test_a_part_snaps_to_the_grid_and_has_real_neighbours(data, height, width):
    rgb = noise(1, height, width)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    taken = take(source_of(rgb), MPP, (y0, x0, y1, x1))
    top, left = y0 // 16 * 16, x0 // 16 * 16
    oy, ox = taken.field.origin
    assert oy % 16 == ox % 16 == 0
    # Nothing but real pixels, at their own places.
    field = taken.field.rgb
    np.testing.assert_array_equal(field, rgb[oy : oy + field.shape[0], ox : ox + field.shape[1]])
    rows, columns = taken.inner
    assert (oy + rows.start, ox + columns.start) == (top, left)
    assert oy + rows.stop >= y1
    assert ox + columns.stop >= x1
    np.testing.assert_array_equal(inner_rgb(taken)[: y1 - top, : x1 - left], rgb[top:y1, left:x1])
    # A halo of 96 on every side that the image has.
    for origin, inner, size, full in (
        (oy, rows, field.shape[0], height),
        (ox, columns, field.shape[1], width),
    ):
        assert origin == 0 or inner.start >= 96
        assert origin + size == full or size - inner.stop >= 96
    maps = Maps(field[..., 0].astype(np.float32), field[..., 1].astype(np.float32), MPP)
    crop = taken.crop(maps)
    np.testing.assert_array_equal(crop.semantic, inner_rgb(taken)[..., 0])
    np.testing.assert_array_equal(crop.distance, inner_rgb(taken)[..., 1])
    np.testing.assert_array_equal(taken.transform @ [0, 0, 1], [top, left, 1])


def test_panning_by_a_few_pixels_keeps_the_origin():
    source = source_of(noise(2, 500, 500))
    wanted = take(source, MPP, (160, 208, 230, 290)).field.origin
    for shift in range(16):
        box = (160 + shift, 208 + shift, 230 + shift, 290 + shift)
        assert take(source, MPP, box).field.origin == wanted
    assert take(source, MPP, (159, 208, 230, 290)).field.origin == (wanted[0] - 16, wanted[1])
    assert take(source, MPP, (176, 224, 230, 290)).field.origin == tuple(o + 16 for o in wanted)


def test_boxes_may_have_fractions_and_stick_out():
    rgb = noise(3, 300, 310)
    taken = take(source_of(rgb), MPP, (-20.5, 33.7, 100.2, 1e6))
    assert taken.field.origin == (0, 0)
    rows, columns = taken.inner
    assert (rows.start, columns.start) == (0, 32)
    assert rows.stop >= 101
    assert columns.stop == 310


# --- the promise: a part gives what the whole gives ----------------------------------------------


@pytest.fixture(scope="module")
def runtime():
    found = TorchRuntime("cpu")
    found.load(make_checkpoint(QUICK, seed=11))
    return found


def run_both(runtime, source, mpp, box):
    taken = take(source, mpp, box)
    part = taken.crop(runtime.run(taken.field))
    whole = runtime.run(take(source, mpp).field)
    y, x = (o + i.start for o, i in zip(taken.field.origin, taken.inner, strict=True))
    height, width = part.semantic.shape
    return [
        (getattr(part, name), getattr(whole, name)[y : y + height, x : x + width])
        for name in ("semantic", "distance")
    ]


def difference(pairs):
    return max(np.abs(part - whole).max() for part, whole in pairs)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_part_runs_as_in_the_whole(runtime, data):
    height, width = data.draw(st.integers(1, 330)), data.draw(st.integers(1, 120))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    box = (y0, x0, y1, x1)
    assert difference(run_both(runtime, source_of(noise(4, height, width)), MPP, box)) <= 1e-5


@pytest.mark.parametrize("stop", [113, 114, 120, 127, 128, 129])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_part_that_ends_anywhere_in_a_cell(runtime, stop, axis):
    """The last pixels of a part need 94 px beyond the END of their 16-px cell."""
    rgb = noise(5, 320, 32)
    box = [16, 0, stop, 32]
    if axis:
        rgb, box = np.ascontiguousarray(rgb.transpose(1, 0, 2)), [0, 16, 32, stop]
    pairs = run_both(runtime, source_of(rgb), MPP, tuple(box))
    assert pairs[1][1].std() > 0.1, "the network must tell something"
    assert difference(pairs) <= 1e-5


def test_a_part_off_the_grid_would_be_seen(runtime):
    """Otherwise the tests above could not fail."""
    rgb = noise(5, 320, 32)
    whole = runtime.run(Field(rgb, MPP)).distance
    for start, halo in ((120 - 96, 96), (128 - 64, 64)):
        part = runtime.run(Field(np.ascontiguousarray(rgb[start:272]), MPP)).distance
        found = np.abs(part[halo : halo + 16] - whole[start + halo : start + halo + 16]).max()
        assert found > 1e-3


@pytest.mark.parametrize("mpp", [0.125, 0.5, 0.2, 0.137, (0.19, 0.31)])
def test_resampled_parts_show_the_same_pixels(mpp):
    """Where two parts overlap, their pixels are equal: else panning changes the nuclei."""
    source = source_of(smooth(6, 600, 560), mpp)
    whole = take(source, MPP).field.rgb
    for box in ((333, 310, 420, 400), (200, 17, 260, 300), (400, 300, 600, 560)):
        field = take(source, MPP, box).field
        y, x = field.origin
        wanted = whole[y : y + field.rgb.shape[0], x : x + field.rgb.shape[1]]
        worst = np.abs(field.rgb.astype(int) - wanted).max()
        assert worst == 0, f"{worst} grey levels at {box}"


# --- resampling: things stay where they are ------------------------------------------------------


def discs(shape, mpp, centres, radius_um=4.0, down=(1.0, 1.0)):
    """Dark discs on white at level-0 places, on a level that is ``down`` times smaller."""
    y = (np.arange(shape[0]) + 0.5) * down[0] - 0.5
    x = (np.arange(shape[1]) + 0.5) * down[1] - 0.5
    image = np.full((*shape, 3), 255, np.uint8)
    for cy, cx in centres:
        far = ((y[:, None] - cy) * mpp[0]) ** 2 + ((x[None] - cx) * mpp[1]) ** 2
        # A soft border of a pixel, so that the centre is where it is to a fraction of a pixel.
        inside = np.clip((radius_um - np.sqrt(far)) / (max(mpp) * max(down)) + 0.5, 0, 1)
        image = np.minimum(image, np.rint(255 * (1 - inside))[..., None]).astype(np.uint8)
    return image


def centroids(rgb, transform):
    from scipy import ndimage

    dark = 255.0 - rgb[..., 0]
    labels, count = ndimage.label(dark > 20)
    found = ndimage.center_of_mass(dark, labels, range(1, count + 1))
    return np.array([(transform @ [y, x, 1])[:2] for y, x in found])


def assert_same_places(found, wanted, tolerance):
    assert len(found) == len(wanted)
    for place in wanted:
        gaps = np.abs(found - place).max(axis=1)
        assert gaps.min() <= tolerance, f"{place}: {gaps.min():.3f} px away"


CASES = [(0.5, 0.5), (0.125, 0.125), (0.25, 0.25), (0.2, 0.5), (0.5, 0.125), (0.31, 0.31)]


@pytest.mark.parametrize("mpp", CASES, ids=str)
@pytest.mark.parametrize("part", [False, True])
def test_discs_stay_within_half_a_pixel(mpp, part):
    shape = tuple(round(150 / m) for m in mpp)
    rng = np.random.default_rng(0)
    grid = [(y, x) for y in (25, 65, 105) for x in (25, 65, 105)]
    centres = [
        tuple((u + rng.uniform(-5, 5)) / m for u, m in zip(um, mpp, strict=True)) for um in grid
    ]
    box = None
    if part:
        box = tuple(b / m for b, m in zip((50, 50, 140, 140), mpp * 2, strict=True))
        centres = [c for c, um in zip(centres, grid, strict=True) if min(um) > 50]
    rgb = discs(shape, mpp, centres)
    taken = take(source_of(rgb, mpp), MPP, box)
    assert taken.field.mpp == pytest.approx(MPP)
    # Half of a level-0 pixel along both axes; in fact a tenth.
    assert_same_places(centroids(inner_rgb(taken), taken.transform), centres, 0.1)
    assert_same_places(centroids(taken.field.rgb, taken.field.transform), centres, 0.1)
    sizes = [n * m / MPP for n, m in zip(shape, mpp, strict=True)]
    if not part:
        assert taken.field.rgb.shape[:2] == tuple(round(n) for n in sizes)


def test_fine_texture_does_not_alias():
    """Stripes finer than a network pixel become grey, not coarse stripes."""
    x = np.arange(1024)
    stripes = np.where(x % 5 < 2, 0, 255).astype(np.uint8)
    rgb = np.repeat(np.repeat(stripes[None, :, None], 64, 0), 3, 2)
    taken = take(source_of(rgb, 0.0625), MPP)
    assert np.ptp(taken.field.rgb[:, 8:-8].astype(int)) < 90


class Counting:
    """An array that says what was read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, 3
        self.pixels = 0

    def __getitem__(self, key):
        part = self.array[key]
        self.pixels += part.shape[0] * part.shape[1]
        return part


def pyramid(mpp, downs, centres, shape=(1024, 1024)):
    levels = []
    for down in downs:
        small = tuple(n // down for n in shape)
        levels.append(Counting(discs(small, (mpp, mpp), centres, down=(down, down))))
    return Source(levels, (mpp, mpp), "The pyramid"), levels


@pytest.mark.parametrize(
    ("mpp", "used"), [(0.25, 0), (0.5, 0), (0.125, 1), (0.06255, 2), (0.08, 1), (0.03125, 3)]
)
def test_the_coarsest_level_that_is_fine_enough_is_read(mpp, used):
    shape = tuple(round(64 / mpp) for _ in range(2))
    shape = tuple(n - n % 8 for n in shape)
    centres = [(n * 0.31, n * 0.62) for n in shape[:1]]
    source, levels = pyramid(mpp, (1, 2, 4, 8), centres, shape)
    taken = take(source, MPP)
    assert [bool(level.pixels) for level in levels] == [i == used for i in range(4)]
    assert_same_places(centroids(inner_rgb(taken), taken.transform), centres, 0.5)


def test_a_part_reads_only_itself():
    source, levels = pyramid(0.125, (1, 2), [(500, 500)])
    taken = take(source, MPP, (480, 480, 520, 520))
    field = taken.field.rgb.shape
    assert 0 < levels[1].pixels <= (field[0] + 20) * (field[1] + 20)
    assert levels[0].pixels == 0


@pytest.mark.parametrize(
    ("size", "down"),
    [
        ((501, 500), (2, 2)),  # what is left over is cut off
        ((502, 501), (2, 2)),  # or filled up
        ((335, 334), (3, 3)),
        ((669, 667), (1003 / 669, 1001 / 667)),  # made by resizing
        ((501, 1001), (2, 1)),
    ],
)
def test_levels_that_do_not_divide_evenly(size, down):
    shape, centres = (1003, 1001), [(333.0, 701.0), (900.0, 120.0), (940.0, 930.0)]
    levels = [discs(shape, (0.083, 0.083), centres), discs(size, (0.083, 0.083), centres, 4, down)]
    source = Source([Counting(level) for level in levels], (0.083, 0.083))
    assert source.downsamples == [(1, 1), pytest.approx(down)]
    taken = take(source, MPP)
    assert source.levels[0].pixels == 0
    # Half of a level-0 pixel; in fact a tenth.
    assert_same_places(centroids(inner_rgb(taken), taken.transform), centres, 0.1)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(64, 200_000),
    st.sampled_from([2, 3, 4, 8, 16, 32, 64]),
    st.sampled_from([math.floor, math.ceil, round]),
)
def test_downsamples_of_levels_that_joined_whole_squares(side, down, rounded):
    """However the end is rounded, the number is the one that the level was made with."""
    small = rounded(side / down)
    if small < 4 * down:
        return
    levels = [np.empty((n, n, 0), np.uint8) for n in (side, small)]
    assert Source(levels).downsamples[1] == (down, down)


# --- and back ------------------------------------------------------------------------------------


def ramp(shape, transform):
    """An image that says at every pixel where in the image layer it lies."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    places = np.tensordot(transform[:2], np.stack([y, x, np.ones(shape)]), 1)
    return (places[0] * 3 + places[1] * 7).astype(np.float32)


@pytest.mark.parametrize("mpp", CASES, ids=str)
def test_maps_return_to_their_places(mpp):
    shape = (130, 170)
    taken = take(source_of(noise(7, *shape), mpp), MPP)
    there = ramp(taken.field.rgb.shape[:2], taken.transform)
    back = to_image(there, taken.transform, shape, labels=False)
    assert back.dtype == np.float32
    assert back.shape == shape
    wanted = ramp(shape, np.eye(3))
    # At the rim there is nothing to interpolate with.
    rim = [int(np.ceil(taken.transform[i, i])) for i in range(2)]
    inside = tuple(slice(r, -r) for r in rim)
    # cv2 places samples to 1/32 of a pixel.
    coarse = 3 * taken.transform[0, 0] + 7 * taken.transform[1, 1]
    np.testing.assert_allclose(back[inside], wanted[inside], atol=coarse / 32)


@pytest.mark.parametrize("mpp", CASES, ids=str)
def test_labels_return_to_the_nearest_pixel(mpp):
    shape = (61, 83)
    taken = take(source_of(noise(7, *shape), mpp), MPP)
    small = taken.field.rgb.shape[:2]
    labels = np.arange(small[0] * small[1], dtype=np.int32).reshape(small)
    back = to_image(labels, taken.transform, shape, labels=True)
    assert back.dtype == np.int32
    assert back.shape == shape
    found = np.stack(np.unravel_index(back, small)).astype(float)
    for axis in range(2):
        places = found[axis] * taken.transform[axis, axis] + taken.transform[axis, 2]
        own = np.arange(shape[axis]).reshape([-1, 1] if axis == 0 else [1, -1])
        # The labels end up to half a network pixel before the image.
        own = np.minimum(own, places.max() + 0.5 * taken.transform[axis, axis])
        assert np.abs(places - own).max() <= 0.5 * taken.transform[axis, axis] + 1e-6


def test_at_the_same_pixel_size_nothing_changes():
    array = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    np.testing.assert_array_equal(to_image(array, np.eye(3), (20, 30), labels=False), array)


def test_images_wider_than_opencv_takes_in_one_piece():
    """cv2 counts in 16 bits: a single level of 40,000 px must still go there and back."""
    rgb = smooth(8, 10, 50).repeat(800, axis=1)
    taken = take(source_of(rgb, 0.05), MPP, largest=LARGEST)
    assert taken.field.rgb.shape == (2, 8_000, 3)
    there = taken.field.rgb[..., 0].astype(np.float32)
    back = to_image(there, taken.transform, (10, 40_000), labels=False)
    assert np.abs(back - rgb[..., 0]).mean() < 20


# --- what is refused -----------------------------------------------------------------------------

OUTSIDE = [
    (-50, 0, 0, 90),
    (-50, 0, -10, 90),
    (0, 400, 90, 500),
    (300, 0, 400, 90),
    (1000, 1000, 1100, 1100),
    (0, 333, 90, 340),
    (-1e9, -1e9, -1, -1),
]


@pytest.mark.parametrize("box", OUTSIDE, ids=str)
@pytest.mark.parametrize("mpp", [0.25, 0.2])
def test_a_box_outside_of_the_image(box, mpp):
    assert "outside" in refused(source_of(noise(0, 300, 333), mpp), MPP, box)


@pytest.mark.parametrize("box", [(90, 10, 50, 90), (0, 90, 50, 10)], ids=str)
def test_a_box_upside_down(box):
    refused(source_of(noise(0, 300, 333)), MPP, box)


def test_a_box_that_is_too_large():
    source = source_of(noise(0, 300, 333))
    assert "at most 100" in refused(source, MPP, (0, 0, 90, 120), largest=100)
    take(source, MPP, (0, 0, 90, 96), largest=100)
    refused(source, MPP, largest=300)
    assert take(source, MPP, largest=333).field.rgb.shape == (300, 333, 3)
    # The number is of network pixels.
    take(source_of(noise(0, 300, 333), 0.125), MPP, largest=167)


def test_what_take_lets_through_the_runtime_runs(runtime):
    """The largest part has a halo too."""
    source = source_of(noise(9, LARGEST + 300, 1))
    taken = take(source, MPP, (96, 0, 96 + LARGEST, 1), largest=LARGEST)
    assert taken.crop(runtime.run(taken.field)).semantic.shape == (LARGEST, 1)


def test_an_empty_image():
    assert "empty" in refused(source_of(np.zeros((0, 5, 3), np.uint8), name="x.tif"), MPP)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 1), np.uint8),
        np.zeros((9, 9, 5), np.uint8),
        np.full((99, 99, 3), 4095, np.uint16),
        np.full((9, 9, 3), 1.5, np.float32),
        np.full((9, 9, 3), -0.5, np.float32),
        np.full((9, 9, 3), np.nan, np.float64),
        np.zeros((9, 9, 3), np.int16),
        np.zeros((9, 9, 3), bool),
        np.zeros((2, 9, 9, 3), np.uint8),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}{a.flat[0]}",
)
def test_what_is_no_rgb(array):
    assert "x.tif" in refused(source_of(array, name="x.tif"), MPP)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255))
@example(0, 0)
@example(255, 255)
@example(0, 255)
def test_alpha_is_blended_on_white(value, alpha):
    rgba = np.full((3, 4, 4), value, np.uint8)
    rgba[..., 3] = alpha
    rgba[0, 0, 3] = 255
    wanted = value * alpha / 255 + 255 * (1 - alpha / 255)
    found = to_rgb(rgba)
    assert found.shape == (3, 4, 3)
    assert found.dtype == np.uint8
    assert np.abs(found[1:].astype(float) - wanted).max() <= 0.5
    assert (found[0, 0] == value).all()
    field = take(source_of(rgba), MPP).field
    np.testing.assert_array_equal(field.rgb, found)


# --- outputs -------------------------------------------------------------------------------------


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_staged_files_arrive_together(tmp_path):
    folder = tmp_path / "a" / "b"
    with outputs.staged(folder) as scratch:
        (scratch / "one.txt").write_text("1")
        (scratch / "two.txt").write_text("2")
        assert not (folder / "one.txt").exists()
    assert contents(tmp_path) == {"a/b/one.txt": b"1", "a/b/two.txt": b"2"}
    assert sorted(os.listdir(folder)) == ["one.txt", "two.txt"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("bug"), ValueError),
        (InputError("yours"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), EnvironmentStopped),
        (PermissionError(13, "Permission denied"), EnvironmentStopped),
    ],
)
def test_staged_leaves_nothing_on_failure(error, raised, tmp_path):
    (tmp_path / "one.txt").write_text("old")

    def write():
        with outputs.staged(tmp_path) as scratch:
            (scratch / "one.txt").write_text("new")
            (scratch / "sub").mkdir()
            (scratch / "sub" / "deep.txt").write_text("new")
            raise error

    with pytest.raises(raised) as caught:
        write()
    assert sorted(os.listdir(tmp_path)) == ["one.txt"]
    assert (tmp_path / "one.txt").read_text() == "old"
    if raised is EnvironmentStopped:
        assert is_one_line(caught.value)
        assert ("full" in str(caught.value)) == (error.errno == 28)


def test_staged_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder, kind in (
        (tmp_path / "file", InputError),
        (tmp_path / "file/x", EnvironmentStopped),
    ):
        with pytest.raises(kind) as caught, outputs.staged(folder):
            raise AssertionError("must not be entered")
        assert is_one_line(caught.value)
    assert contents(tmp_path) == {"file": b"mine"}


def test_labels_keep_their_values_and_pixel_size(tmp_path):
    import tifffile

    from napari_nucprune.slides.image import _tiff_mpp

    labels = np.random.default_rng(0).integers(0, 70_000, (40, 50)).astype(np.int32)
    path = tmp_path / "labels.tif"
    outputs.save_labels(labels, path, 0.2738)
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[0].asarray()
        assert _tiff_mpp(tif) == pytest.approx(0.2738, rel=1e-5)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)
    outputs.save_labels(labels, path)
    with tifffile.TiffFile(path) as tif:
        assert _tiff_mpp(tif) is None
    assert os.listdir(tmp_path) == ["labels.tif"]


def test_labels_that_cannot_be_written(tmp_path, monkeypatch):
    labels = np.zeros((4, 4), np.int32)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "missing/x.tif", tmp_path / "file/x.tif"):
        with pytest.raises(EnvironmentStopped) as caught:
            outputs.save_labels(labels, path)
        assert is_one_line(caught.value)
    path = tmp_path / "labels.tif"
    outputs.save_labels(labels, path)
    before = contents(tmp_path)

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_tiff", full)
    with pytest.raises(EnvironmentStopped, match="full"):
        outputs.save_labels(labels + 1, path)
    assert contents(tmp_path) == before


def test_json_without_nan(tmp_path):
    outputs.write_json(tmp_path / "a.json", {"µ": 1.5, "none": None})
    import json

    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"µ": 1.5, "none": None}
    with pytest.raises(ValueError, match="JSON"):
        outputs.write_json(tmp_path / "b.json", {"x": float("nan")})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14), st.integers(1, 14))
def test_overlay_draws_the_nuclei_s_own_border(seed, height, width):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width)).repeat(2, 0).repeat(2, 1).astype(np.int32)
    rgb = rng.integers(0, 200, (*labels.shape, 3)).astype(np.uint8)
    before = rgb.copy()
    drawn = outputs.overlay(rgb, labels, (255, 254, 3))
    np.testing.assert_array_equal(rgb, before)
    wanted = rgb.copy()
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            around = labels[max(y - 1, 0) : y + 2, x].tolist()
            around += labels[y, max(x - 1, 0) : x + 2].tolist()
            if labels[y, x] and any(n != labels[y, x] for n in around):
                wanted[y, x] = (255, 254, 3)
    np.testing.assert_array_equal(drawn, wanted)
    np.testing.assert_array_equal(drawn[labels == 0], rgb[labels == 0])
