"""A part of an image as a field: it gives what the whole gives, or is refused."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from field_helpers import MPP, inner_rgb, source_of
from helpers import QUICK, is_one_line, make_checkpoint, noise, smooth
from napari_nucprune.doors import Field, Maps
from napari_nucprune.errors import InputError
from napari_nucprune.runtime.torch_runtime import LARGEST, TorchRuntime
from napari_nucprune.slides.field import take
from napari_nucprune.slides.image import to_rgb

pytestmark = pytest.mark.usefixtures("one_thread")


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
