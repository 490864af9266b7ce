"""Fields of another pixel size: things stay where they are, there and back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from field_helpers import MPP, inner_rgb, source_of
from helpers import noise, smooth
from napari_nucprune.runtime.torch_runtime import LARGEST
from napari_nucprune.slides.field import take, to_image
from napari_nucprune.slides.source import Source

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
