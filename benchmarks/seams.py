"""Core by core against one watershed, on real tissue: python benchmarks/seams.py [--size 4096].

A mosaic of MoNuSeg images is segmented as a whole slide by the bundled network; the maps that the
run stored are assembled and cut by one watershed. Printed: PQ between the two, objects listed as
``seam_objects``, and pixels that differ although the listed ones' components are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import zarr
from pyramid import DATA
from scipy.ndimage import label as connected

from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.compare.metrics import score
from napari_nucprune.slides import fixed
from napari_nucprune.slides.cluster import Crew
from napari_nucprune.slides.image import read_image
from napari_nucprune.slides.ownership import basins, least_pixels
from napari_nucprune.slides.plan import Ask, Network
from napari_nucprune.slides.scratch import Scratch
from napari_nucprune.slides.stages import Hooks
from napari_nucprune.slides.whole import segment_slide

TILE = 1024


def mosaic(size: int, folder: Path = DATA) -> np.ndarray:
    """Return (size, size, 3) uint8: an image in each square of 1024, mirrored to fill it."""
    out = np.empty((size, size, 3), np.uint8)
    files = sorted(folder.glob("*.tif"))
    places = [(y, x) for y in range(0, size, TILE) for x in range(0, size, TILE)]
    for (y, x), file in zip(places, files * len(places), strict=False):
        rgb = read_image(file)[0]
        rgb = np.pad(rgb, [(0, TILE - n) for n in rgb.shape[:2]] + [(0, 0)], mode="symmetric")
        part = out[y : y + TILE, x : x + TILE]
        part[...] = rgb[: part.shape[0], : part.shape[1]]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=4096)
    size = parser.parse_args().size
    checkpoint = open_checkpoint()
    merge, mpp = checkpoint.merge, checkpoint.mpp
    codes = np.zeros((2, size, size), np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        slide, output = Path(folder) / "mosaic.tif", Path(folder) / "out"
        tifffile.imwrite(
            slide, mosaic(size), tile=(256, 256), photometric="rgb", compression="deflate",
            resolution=(1e4 / mpp,) * 2, resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip
        scratch, hooks = Scratch(output), Hooks()

        def keep(stage: str, core: tuple[int, int], about: dict[str, object]) -> None:
            if stage == "maps" and (maps := scratch.maps(core, TILE)) is not None:
                y, x = core[0] * TILE, core[1] * TILE
                part = codes[:, y : y + TILE, x : x + TILE]
                part[...] = maps[:, : part.shape[1], : part.shape[2]]

        hooks.done = keep
        network = Network(checkpoint, "sparse", "cpu")
        named = {"checkpoint": checkpoint.sha256}
        segment_slide(
            Ask(slide, output, checkpoint, named, lambda *_: network, crew=Crew(2)), hooks=hooks
        )
        labels = np.asarray(zarr.open_group(str(output / "instances.zarr"), mode="r")["0"])
        run = json.loads((output / "run.json").read_text())

    landscape = fixed.landscape(codes[1], merge.sigma_um / mpp)
    inside = codes[0] >= fixed.threshold_code(merge.threshold)
    _, whole, _ = basins(inside, landscape, merge, mpp)
    small = np.bincount(whole.ravel()) < least_pixels(merge, mpp)
    whole = np.where(small[whole], 0, whole)

    parts, _ = connected(inside)
    seams = np.isin(labels, run["seam_objects"])
    unsure = np.isin(parts, np.unique(parts[seams])) & (parts > 0)
    pairs = np.unique(np.stack([labels[~unsure], whole[~unsure]], 1), axis=0)
    twice = len(pairs) - min(len(np.unique(pairs[:, 0])), len(np.unique(pairs[:, 1])))
    print(
        f"{size} x {size} px, {run['cores']} cores: {run['nuclei']:,} nuclei core by core, "
        f"{len(np.unique(whole)) - 1:,} by one watershed; PQ {score(whole, labels).pq:.5f}; "
        f"{len(run['seam_objects'])} seam objects in {np.mean(unsure):.2%} of the pixels; "
        f"objects cut otherwise elsewhere: {twice}"
    )


if __name__ == "__main__":
    main()
