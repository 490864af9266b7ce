"""Synthetic slides of known nuclei, and a network that finds just these; nothing here is a test."""

from __future__ import annotations

import csv
import json

import numpy as np
import tifffile

from helpers import QUICK, shapes_by_hand
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.doors import BRANCHES, Merge
from napari_nucprune.slides.plan import Ask, Network
from napari_nucprune.slides.whole import segment_slide

RADIUS_UM = 6.0
#: Level-0 pixels; what labels may add, in parts of a network pixel (their own steps).
HALF, STEP = 0.5, 0.15


def oracle(mpp):
    """A U-Net that says how dark each pixel is: distance 0 to 1, and nucleus from 1/2 on."""
    weights = {}
    for branch in BRANCHES:
        own = {name: np.zeros(s, np.float32) for name, s in shapes_by_hand(QUICK).items()}
        own["encoder.0.conv1.weight"][0, :, 1, 1] = -1 / 3
        own["encoder.0.conv1.bias"][0] = 1
        own["encoder.0.conv2.weight"][0, 0, 1, 1] = 1
        last = f"decoder.{len(QUICK) - 2}"
        own[f"{last}.conv1.weight"][0, QUICK[0], 1, 1] = 1  # the skip comes second
        own[f"{last}.conv2.weight"][0, 0, 1, 1] = 1
        steep = 100 if branch == "semantic" else 1
        own["head.weight"][0, 0] = steep
        own["head.bias"][0] = -steep / 2 if branch == "semantic" else 0
        weights[branch] = own
    merge = Merge(sigma_um=2.0, footprint_um=4.0, min_area_um2=10.0)
    return Checkpoint("oracle", weights, mpp, merge)


def drawn(mpp, down, shape, centres):
    """Dark discs on white: each pixel of a level is what its square of level-0 pixels holds."""
    size = tuple(n // down for n in shape)
    image = np.ones(size)
    soft = max(mpp) * down
    for centre in centres:
        # Of the level's pixels those around the disc, and how far each is from its centre.
        parts, steps = [], []
        for axis in range(2):
            middle, reach = (centre[axis] + 0.5) / down, (RADIUS_UM + soft) / mpp[axis] / down
            part = slice(max(int(middle - reach), 0), int(middle + reach) + 2)
            place = (np.arange(size[axis])[part] + 0.5) * down - 0.5
            parts.append(part)
            steps.append((place - centre[axis]) * mpp[axis])
        far = np.hypot(steps[0][:, None], steps[1][None])
        image[tuple(parts)] -= np.clip((RADIUS_UM - far) / soft + 0.5, 0, 1)
    return np.repeat(np.rint(255 * image)[..., None].astype(np.uint8), 3, 2)


def write(path, mpp, downs, shape, centres):
    with tifffile.TiffWriter(path) as tif:
        for i, down in enumerate(downs):
            tif.write(
                drawn(mpp, down, shape, centres),
                tile=(128, 128), photometric="rgb", subfiletype=int(i > 0), compression="deflate",
                resolution=(1e4 / mpp[1], 1e4 / mpp[0]), resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip


#: um/px of level 0 (y, x), downsamples of the levels, the network's um/px, and the level it reads.
CASES = {
    "40x": ((0.25, 0.25), (1, 4, 16), 0.25, 1),
    "40x, network at 20x": ((0.25, 0.25), (1, 2, 4), 0.5, 2),
    "40x, network at 10x": ((0.25, 0.25), (1, 4, 16), 1.0, 4),
    "40x, network between levels": ((0.25, 0.25), (1, 2, 8), 0.7, 2),
    "20x": ((0.5, 0.5), (1, 4), 0.25, 1),
    "80x": ((0.125, 0.125), (1, 2, 4), 0.25, 2),
    "wide pixels": ((0.25, 0.5), (1, 2), 0.25, 1),
    "tall pixels": ((0.31, 0.22), (1, 4), 0.25, 1),
}


def make(path, mpp, downs, network_mpp, used):
    # No level's shape divides evenly, as on real slides: what is left over at the end is cut off.
    shape = tuple(round(240 / m) // 16 * 16 + 13 for m in mpp)
    rng = np.random.default_rng(5)
    places = np.stack(np.meshgrid(*[np.arange(24, 230, 42)] * 2, indexing="ij"), -1)
    centres = (places.reshape(-1, 2) + rng.uniform(-9, 9, (places.size // 2, 2))) / mpp
    write(path, mpp, downs, shape, centres)
    return path, shape, centres, mpp, network_mpp, used


def gaps(found, centres):
    """Distance along each axis of what was found nearest to each nucleus that was drawn."""
    nearest = np.abs(found[:, None] - centres[None]).max(-1).argmin(0)
    assert len(set(nearest.tolist())) == len(centres), "two nuclei were found as one"
    return np.abs(found[nearest] - centres)


def segmented(case, output):
    path, _, _, _, network_mpp, _ = case
    checkpoint = oracle(network_mpp)
    network = Network(checkpoint, "torch", "cpu", {"name": "oracle"})
    segment_slide(
        Ask(path, output, checkpoint, {"oracle": 1}, lambda *_: network, runtime="torch", core=320)
    )
    return json.loads((output / "run.json").read_text())


def table_of(output):
    """Centroids of a whole slide's table, (n, 2), y and x in level-0 pixels."""
    with (output / "nuclei.csv").open() as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[f"centroid_{a}_level0"]) for a in "yx"] for row in rows])
