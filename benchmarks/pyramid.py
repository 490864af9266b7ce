"""A synthetic slide: real tissue repeated over a tiled pyramid that OpenSlide reads.

    python benchmarks/pyramid.py slide.tif --size 60000
    python benchmarks/pyramid.py slide.tif --size 15000 --tissue 0.3 --no-mpp

The tissue is that of the images under --images (MoNuSeg's by default), mirrored into a block that
repeats without edges; each level halves the one before. ``--tissue`` covers that part of the rows
and columns around the middle, the rest is glass.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[2] / "shared/data/MoNuSeg/MoNuSegTrainingData/Tissue Images"
TILE, GLASS = 256, 243
#: Side of the block of tissue that repeats, a multiple of the tile at every level down to 1/8.
BLOCK = 2048


def tissue_block(folder: Path = DATA, side: int = BLOCK) -> NDArray[np.uint8]:
    """Return (side, side, 3) uint8 of tissue whose copies join without an edge."""
    from napari_nucprune.slides.image import read_image
    from napari_nucprune.synthetic import synthetic

    half = side // 2
    files = sorted(folder.glob("*.tif"))
    if files:
        rgb = read_image(files[0])[0]
        rgb = np.pad(
            rgb, [(0, max(0, half - n)) for n in rgb.shape[:2]] + [(0, 0)], mode="symmetric"
        )[:half, :half]  # fmt: skip
    else:
        rgb = synthetic(seed=0, size=half)[0]
    rgb = np.concatenate([rgb, rgb[::-1]], 0)
    return np.ascontiguousarray(np.concatenate([rgb, rgb[:, ::-1]], 1))


def write_slide(
    path: Path, size: int, block: NDArray[np.uint8], tissue: float = 1.0, mpp: float | None = 0.25
) -> None:
    """Write a pyramid of ``size`` x ``size`` px.

    Parameters
    ----------
    path
        A .tif; BigTIFF.
    size
        Side of level 0 in pixels.
    block
        (b, b, 3) uint8, repeated from the origin.
    tissue
        Part of each axis that holds it, around the middle.
    mpp
        um a pixel; None writes none.
    """
    import tifffile

    margin = (1 - tissue) / 2 * size
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2}
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        level, side = 0, size
        while True:
            small = _joined(block, 2**level) if level < 4 else block.mean((0, 1))
            where = (margin / 2**level, (size - margin) / 2**level)
            tif.write(
                _tiles(side, np.asarray(small), where),
                shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
                compression="deflate", predictor=True, subfiletype=int(level > 0),
                resolutionunit="CENTIMETER" if mpp else "NONE", metadata=None, **resolution,
            )  # fmt: skip
            if side <= 1024:
                return
            level, side = level + 1, side // 2


def _joined(block: NDArray[np.uint8], down: int) -> NDArray[np.uint8]:
    """Return the means of squares of pixels, as scanners make levels: nothing moves."""
    side = len(block) // down
    squares = block.reshape(side, down, side, down, 3)
    return np.rint(squares.mean((1, 3))).astype(np.uint8)


def _tiles(
    side: int, block: NDArray[np.generic], where: tuple[float, float]
) -> Iterator[NDArray[np.uint8]]:
    count = math.ceil(side / TILE)
    places = np.arange(count * TILE)
    inside = (places >= where[0]) & (places < where[1])
    glass = np.full((TILE, TILE, 3), GLASS, np.uint8)
    for row in range(count):
        ys = np.s_[row * TILE : (row + 1) * TILE]
        for column in range(count):
            xs = np.s_[column * TILE : (column + 1) * TILE]
            if not (inside[ys].any() and inside[xs].any()):
                yield glass
                continue
            if block.ndim == 1:
                tile = np.broadcast_to(block, (TILE, TILE, 3)).astype(np.uint8)
            else:
                n = len(block)
                tile = block[places[ys] % n][:, places[xs] % n].astype(np.uint8)
            yield np.where((inside[ys, None] & inside[None, xs])[..., None], tile, glass)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, default=15_000)
    parser.add_argument("--tissue", type=float, default=1.0, help="part of each axis")
    parser.add_argument("--no-mpp", action="store_true")
    parser.add_argument("--images", type=Path, default=DATA)
    given = parser.parse_args()
    mpp = None if given.no_mpp else 0.25
    write_slide(given.path, given.size, tissue_block(given.images), given.tissue, mpp)
    print(f"{given.path}: {given.size} x {given.size} px, {given.path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
