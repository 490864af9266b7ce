"""The slide's labels as an OME-Zarr pyramid (version 0.4, zarr's format 2).

A chunk belongs to one core, and so to one task: two writers to a chunk would corrupt it. zarr
writes a chunk to a temporary name and renames it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import cannot_write
from .lattice import Core, Lattice
from .seams import compose

if TYPE_CHECKING:
    from .bench import Bench

#: Levels are added until the longer side is at most this.
_SMALLEST = 1024


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (H, W) of each level: each has every second pixel of the one before."""
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def create(
    path: Path, lattice: Lattice, mpp: tuple[float, float], own: tuple[float, float], name: str
) -> None:
    """Make the empty pyramid.

    Parameters
    ----------
    path
        Of the zarr group.
    lattice
        Its core is the side of a chunk.
    mpp
        um a pixel of the labels, (y, x).
    own
        um a pixel of the slide's level 0, (y, x): the centre of a label's pixel is not that of a
        level-0 pixel, hence the translation. Every second pixel is kept, so that all levels have
        the same one.
    name
        Of the image.
    """
    import zarr
    from numcodecs import Blosc

    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    shift = [(a - b) / 2 for a, b in zip(mpp, own, strict=True)]
    datasets = []
    for level, shape in enumerate(level_shapes(lattice.shape)):
        group.create_array(
            str(level),
            shape=shape,
            chunks=(lattice.core, lattice.core),
            dtype="int32",
            fill_value=0,
            compressors=Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": False},
        )
        scale = [um * 2**level for um in mpp]
        transforms = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    group.attrs["multiscales"] = [
        {"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
    ]
    group.attrs["image-label"] = {"version": "0.4"}


def write_core(bench: Bench, core: Core) -> None:
    """Write a core's chunk of level 0."""
    scratch, lattice = bench.scratch, bench.lattice
    starts: NDArray[np.int64] = np.load(scratch.offsets, allow_pickle=False)
    settled, offsets = [], {}
    for other in lattice.around(core):
        claims = scratch.claims("settled", other, spill_only=other != core)
        if claims is not None:
            settled.append((other, claims))
            offsets[other] = int(starts[other])
    if not settled:
        return
    y0, x0, y1, x1 = lattice.box(core)
    _array(scratch.zarr, 0)[y0:y1, x0:x1] = compose(lattice, core, offsets, settled)


def write_level(path: Path, level: int, chunks: Iterable[Core], side: int) -> None:
    """Write chunks of a level above 0 from the one before.

    Raises
    ------
    EnvironmentStopped
        Where they cannot be written.
    """
    finer, coarser = _array(path, level - 1), _array(path, level)
    for row, column in chunks:
        y, x = row * side, column * side
        found = finer[2 * y : 2 * (y + side), 2 * x : 2 * (x + side)][::2, ::2]
        if found.any():
            try:
                coarser[y : y + side, x : x + side] = found
            except OSError as error:
                raise cannot_write(path, error) from error


def _array(path: Path, level: int) -> Any:
    import zarr

    array = zarr.open_array(str(path), path=str(level), mode="r+", zarr_format=2)
    return array.with_config({"write_empty_chunks": False})
