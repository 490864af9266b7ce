"""A slide, its run, and the bytes of a run, for the tests of whole slides."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from helpers import QUICK, make_checkpoint
from napari_nucprune.slides.plan import Ask, Network
from napari_nucprune.slides.whole import segment_slide

CORE = 160
SHAPE = (700, 560)


def network():
    """A small network whose maps are in range, with objects of all sizes."""
    found = make_checkpoint(QUICK, seed=3)
    found.weights["distance"]["head.weight"][:] *= 0.2
    return found


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Two levels; tissue in an L, glass elsewhere."""
    rgb = np.full((*SHAPE, 3), 244, np.uint8)
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (*SHAPE, 3)).astype(np.uint8)
    rgb[:420, :300] = noise[:420, :300]
    rgb[250:420, :] = noise[250:420]
    path = tmp_path_factory.mktemp("whole") / "tissue.tif"
    write(path, [rgb, rgb[::4, ::4]])
    return path


def write(path, levels, per=4e4):
    with tifffile.TiffWriter(path) as tif:
        for i, level in enumerate(levels):
            tif.write(
                level, tile=(128, 128), photometric="rgb", subfiletype=int(i > 0),
                compression="deflate", resolution=(per, per), resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip


def ask(slide, output, runtime="sparse", **options):
    checkpoint = network()
    return Ask(
        Path(slide),
        Path(output),
        checkpoint,
        options.pop("network", {"checkpoint": checkpoint.sha256}),
        lambda *_: Network(checkpoint, runtime, "cpu", {"name": "quick"}),
        **{"core": CORE, "runtime": runtime, **options},
    )


def bytes_of(output, table="nuclei.csv"):
    """Everything that has to be the same, decoded."""
    group = zarr.open_group(str(Path(output) / "instances.zarr"), mode="r")
    arrays = {name: group[name][:] for name in sorted(group.array_keys())}
    files = [(Path(output) / name).read_bytes() for name in (table, "nuclei.geojson")]
    run = json.loads((Path(output) / "run.json").read_text())
    run = {key: run[key] for key in ("nuclei", "seam_objects", "tissue_mm2", "settings")}
    return arrays, files, run


def same(a, b):
    assert a[1:] == b[1:]
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])


@pytest.fixture(scope="module")
def reference(slide, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "reference"
    segment_slide(ask(slide, output))
    return output
