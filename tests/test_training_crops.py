import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import telling
from napari_nucprune.training.augment import random_crop, stained
from napari_nucprune.training.targets import crowding, distance_target

# --- targets ------------------------------------------------------------------------------------


def brute_force(labels):
    """Distance of every nucleus pixel to the nearest pixel that is not of its nucleus."""
    padded = np.pad(labels, 1)
    everywhere = np.argwhere(np.ones_like(padded, bool))
    values = padded.ravel()
    out = np.zeros(padded.shape)
    for y, x in np.argwhere(padded > 0):
        others = everywhere[values != padded[y, x]]
        out[y, x] = np.sqrt(((others - (y, x)) ** 2).sum(axis=1).min())
    return out[1:-1, 1:-1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 13), width=st.integers(1, 13))
def test_distance_against_brute_force(seed, height, width):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 7], (height, width), p=[0.3, 0.4, 0.2, 0.1])
    labels = labels.repeat(2, 0).repeat(2, 1).astype(np.int32)
    wanted = brute_force(labels)
    found = distance_target(labels, 0.25, 4.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted * 0.25 / 4.0, rtol=1e-6)
    relative = distance_target(labels, 0.25, None)
    np.testing.assert_allclose(relative, wanted / max(wanted.max(), 1e-6), rtol=1e-6)


def test_touching_nuclei_have_their_own_peaks():
    labels = np.zeros((31, 60), np.int32)
    labels[5:26, 8:29] = 4
    labels[5:26, 29:50] = 9
    found = distance_target(labels, 1.0, 1.0)
    assert found[15, 18] == found[15, 39] == 11
    # Down to 1 on both sides of the border that they share.
    assert found[15, 28] == found[15, 29] == 1
    assert (found[labels == 0] == 0).all()
    # Once per image: a small nucleus keeps a low peak.
    labels[0:3, 0:3] = 1
    relative = distance_target(labels, 1.0, None)
    assert relative.max() == 1
    assert relative[1, 1] == pytest.approx(2 / 11)


def test_distance_of_nothing():
    for unit in (None, 4.0):
        assert not distance_target(np.zeros((5, 6), np.int32), 0.25, unit).any()


def brute_crowding(labels, mpp):
    """U-Net's formula pixel by pixel, from all pixels of all nuclei."""
    places = {i: np.argwhere(labels == i) for i in np.unique(labels) if i}
    out = np.zeros(labels.shape)
    for y, x in np.ndindex(*labels.shape):
        near = sorted(np.sqrt(((p - (y, x)) ** 2).sum(1).min()) for p in places.values())
        if len(near) > 1:
            out[y, x] = np.exp(-(((near[0] + near[1]) * mpp) ** 2) / 2)
    return out


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_crowding_against_brute_force(mpp):
    labels = np.zeros((34, 40), np.int32)
    labels[2:12, 3:14] = 3
    labels[2:12, 14:20] = 1  # touches 3
    labels[16:26, 8:20] = 7
    labels[16:30, 23:30] = 2
    found = crowding(labels, mpp)
    assert found.dtype == np.float32
    # Beyond three sigma, exp(-4.5), nothing is looked for.
    np.testing.assert_allclose(found, brute_crowding(labels, mpp), atol=0.012)
    assert found[5, 13] == found[5, 14] == pytest.approx(np.exp(-(mpp**2) / 2))
    assert not crowding(np.where(labels == 3, 3, 0), mpp).any()
    assert not crowding(np.zeros_like(labels), mpp).any()


# --- crops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 1.7)])
def test_image_and_targets_stay_together(scale):
    image = telling()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rgb, targets = random_crop(rng, image, 48, scale, 0.0, False)
        assert rgb.dtype == targets.dtype == np.float32
        assert rgb.shape == (3, 48, 48)
        assert targets.shape == (2, 48, 48)
        assert np.abs(rgb[0] - targets[1]).max() < 3
        clear = np.abs(rgb[0] - 127.5) > 25
        assert clear.mean() > 0.2
        np.testing.assert_array_equal((rgb[0] > 127.5)[clear], targets[0][clear] > 0.5)
        assert set(np.unique(targets[0])) <= {0, 1}


def test_crops_are_turned_mirrored_and_everywhere():
    image = telling()
    turns, places = set(), []
    for seed in range(120):
        rgb, _ = random_crop(np.random.default_rng(seed), image, 32, (1.0, 1.0), 0.0, False)
        y, x = rgb[1] / 2, rgb[2] / 2
        steps = [round(float(np.diff(v, axis=a).mean())) for v in (y, x) for a in (0, 1)]
        turns.add(tuple(steps))
        places.append((y.mean(), x.mean()))
        # Pixels keep their size: 31 steps from edge to edge.
        assert np.ptp(y) == pytest.approx(31, abs=1)
    assert len(turns) == 8
    assert all(sorted(map(abs, t)) == [0, 0, 1, 1] for t in turns)
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    assert (low < (18, 20)).all()
    assert (low >= 15).all()
    assert (high > (90 - 19, 120 - 21)).all()
    assert (high <= (90 - 16, 120 - 16)).all()


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom_magnifies_and_scales_the_distance(zoom):
    image = telling()
    for scaled in (False, True):
        rng = np.random.default_rng(1)
        rgb, targets = random_crop(rng, image, 32, (zoom, zoom), 0.0, scaled)
        spread = max(np.ptp(rgb[1]), np.ptp(rgb[2])) / 2
        assert spread == pytest.approx(31 / zoom, abs=1.5)
        factor = zoom if scaled else 1
        assert np.abs(targets[1] - factor * rgb[0]).max() < 4 * factor


@pytest.mark.parametrize("shape", [(20, 120), (90, 9), (1, 1)])
def test_small_images_are_reflected(shape):
    image = telling(*shape)
    rgb, targets = random_crop(np.random.default_rng(0), image, 32, (1.0, 1.0), 0.0, False)
    assert rgb.shape == (3, 32, 32)
    assert np.isfinite(targets).all()
    assert np.abs(rgb[0] - targets[1]).max() < 3


def test_colour_jitter_changes_colour_alone():
    image = telling()
    plain = random_crop(np.random.default_rng(5), image, 32, (0.8, 1.2), 0.0, True)
    seen = set()
    for strength in (0.5, 1.0):
        rgb, targets = random_crop(np.random.default_rng(5), image, 32, (0.8, 1.2), strength, True)
        assert rgb.dtype == np.float32
        assert rgb.min() >= 0
        assert rgb.max() <= 255
        assert not np.allclose(rgb, plain[0], atol=1)
        seen.add(tuple(targets.shape))
    assert seen == {(2, 32, 32)}


def test_the_stains_are_scaled_and_shifted_apart():
    """As scikit-image parts them again: each stain's new amount is a line over its old one."""
    from skimage.color import hed_from_rgb

    rng = np.random.default_rng(3)
    density = rng.uniform(0.05, 1.5, (40, 50, 3)).astype(np.float32)
    found = stained(np.random.default_rng(8), density, 1.0)
    before, after = (d.reshape(-1, 3) @ hed_from_rgb for d in (density, found))
    slopes = []
    for old, new in zip(before.T, after.T, strict=True):
        slope, shift = np.polyfit(old, new, 1)
        np.testing.assert_allclose(slope * old + shift, new, atol=1e-5)
        assert 0.8 <= slope <= 1.2
        assert abs(shift) <= 0.05
        slopes.append(slope)
    assert np.ptp(slopes) > 0.01
    np.testing.assert_allclose(stained(rng, density, 0.0), density, atol=1e-5)


@pytest.mark.parametrize("colour", [0.0, 0.6])
def test_stains_change_the_picture_and_not_the_targets(colour):
    image = telling()
    crops = [
        random_crop(np.random.default_rng(5), image, 32, (1.0, 1.0), colour, True, stain)
        for stain in (0.0, 1.0)
    ]
    (plain, targets), (rgb, same) = crops
    assert rgb.dtype == np.float32
    assert 0 <= rgb.min() <= rgb.max() <= 255
    assert np.abs(rgb - plain).max() > 2
    if not colour:  # the place is drawn before, so that it is the same
        np.testing.assert_array_equal(same, targets)
