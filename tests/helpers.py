"""Builders that several test files share; nothing here is a test."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from PIL import Image

from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import Checkpoint, save
from napari_nucprune.doors import BRANCHES, Merge

PUBLISHED = (16, 32, 64, 128, 256)
QUICK = (4, 8, 8, 8, 8)
TINY = (2, 3)


def shapes_by_hand(widths):
    """Shape of every tensor of a branch, written down from FACTS (not from the source)."""
    shapes = {}

    def conv(name, *shape):
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = (shape[1] if name.startswith("up") else shape[0],)

    inputs = 3
    for level, width in enumerate(widths):
        conv(f"encoder.{level}.conv1", width, inputs, 3, 3)
        conv(f"encoder.{level}.conv2", width, width, 3, 3)
        inputs = width
    for i, width in enumerate(widths[-2::-1]):
        conv(f"up.{i}", inputs, width, 2, 2)
        conv(f"decoder.{i}.conv1", width, 2 * width, 3, 3)
        conv(f"decoder.{i}.conv2", width, width, 3, 3)
        inputs = width
    conv("head", 1, widths[0], 1, 1)
    return shapes


def branch_weights(widths, rng, gain=1.0):
    """He-initialised weights and small biases, so that activations keep their size."""
    weights = {}
    for name, shape in shapes_by_hand(widths).items():
        values = rng.standard_normal(shape)
        if name.endswith(".weight"):
            fan = shape[0] if name.startswith("up") else np.prod(shape[1:])
            values *= gain * np.sqrt(2 / fan)
        else:
            values *= 0.1
        weights[name] = values.astype(np.float32)
    return weights


def make_checkpoint(widths=QUICK, seed=0, gain=1.0, **about):
    """Two branches of random weights; every number of the metadata differs from its default."""
    rng = np.random.default_rng(seed)
    weights = {branch: branch_weights(widths, rng, gain) for branch in BRANCHES}
    about = {
        "name": f"random-{seed}",
        "mpp": 0.25,
        "merge": Merge(0.8125, 0.4375, 1.125, 2.3),
        "distance_unit_um": 4.0,
        "provenance": {"data": [{"layout": "pairs", "licence": "CC0"}], "größe": "µm"},
        **about,
    }
    return Checkpoint(weights=weights, **about)


def distinct_checkpoint(widths=QUICK, seed=0):
    """A checkpoint in whose branches no two weights have the same magnitude, and none is 0."""
    rng = np.random.default_rng(seed)
    weights = {}
    for branch in BRANCHES:
        shapes = shapes_by_hand(widths)
        total = sum(int(np.prod(s)) for s in shapes.values())
        assert total < 2**24, "float32 cannot tell them apart"
        values = rng.permutation(np.arange(1, total + 1)).astype(np.float32)
        values *= rng.choice(np.array([-1, 1], np.float32), total)
        values *= np.float32(2**-20)
        parts = np.split(values, np.cumsum([int(np.prod(s)) for s in shapes.values()])[:-1])
        weights[branch] = {n: p.reshape(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
    return Checkpoint("distinct", weights, 0.25)


def equal_weights(a, b):
    """Whether two checkpoints hold the same tensors, bit for bit."""
    return all(
        list(a.weights[branch]) == list(b.weights[branch])
        and all(
            a.weights[branch][name].dtype == b.weights[branch][name].dtype == np.float32
            and a.weights[branch][name].shape == b.weights[branch][name].shape
            and a.weights[branch][name].tobytes() == b.weights[branch][name].tobytes()
            for name in a.weights[branch]
        )
        for branch in BRANCHES
    )


def is_one_line(error):
    """Whether an error's text can be shown to a user as it stands."""
    text = str(error)
    return 20 < len(text) < 600 and "\n" not in text and "\r" not in text


def noise(seed, height, width):
    """(H, W, 3) uint8 noise: every pixel matters."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(seed, height, width):
    """(H, W, 3) uint8 of low frequency, so that resampling loses nothing."""
    import cv2

    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.standard_normal((height, width, 3)), (0, 0), 4)
    image = (image - image.min()) / np.ptp(image)
    return np.rint(image * 255).astype(np.uint8)


def telling(height=90, width=120, seed=0):
    """An image whose red channel holds the distance target, green and blue the place."""
    from napari_nucprune.training.augment import Prepared

    rgb = smooth(seed, height, width)
    y, x = np.mgrid[:height, :width]
    rgb[..., 1], rgb[..., 2] = 2 * y, 2 * x
    red = rgb[..., 0].astype(np.float32)
    targets = np.stack([(red > 127).astype(np.float32), red], axis=2)
    return Prepared("x", "p", rgb, targets, 1.0)


def flat(checkpoint):
    """Copies of both branches' arrays, named as a file of ours names them."""
    return {
        f"{branch}.{name}": array.copy()
        for branch in BRANCHES
        for name, array in checkpoint.weights[branch].items()
    }


def refused(path, **options):
    """What is said of a checkpoint file that cannot be loaded: one sentence, exit code 2."""
    import pytest

    from napari_nucprune.checkpoint.format import load
    from napari_nucprune.errors import InputError

    with pytest.raises(InputError) as caught:
        load(path, **options)
    assert is_one_line(caught.value), str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


#: For what is read from or written to files: few examples, in one temporary folder.
few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write_pairs(folder, height, width):
    """Three images a, b, c as `pairs` has them, with one nucleus of 10 x 20 px each."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i, name in enumerate("abc"):
        labels = np.zeros((height, width), np.uint8)
        labels[10:20, 10:30] = i + 1
        Image.fromarray(smooth(i, height, width)).save(folder / "images" / f"{name}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")


def put_checkpoint(tmp_path, monkeypatch, widths):
    """Put a network of random weights in the place of the bundled one."""
    folder = tmp_path / "weights"
    folder.mkdir()
    checkpoint = make_checkpoint(widths, seed=3, name=shipped.DEFAULT)
    save(checkpoint, folder / f"{shipped.DEFAULT}.safetensors")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return checkpoint


def write_two_nuclei(folder, names):
    """Write small images with two nuclei each, in the layout ``pairs``."""
    for i, name in enumerate(names):
        labels = np.zeros((64, 64), np.uint8)
        labels[10:20, 10:20], labels[30:45, 20 + i : 40] = 1, 7
        for part, array in (("images", noise(i, 64, 64)), ("labels", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / f"{name}.png")
    return folder
