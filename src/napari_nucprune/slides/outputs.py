"""Files of one segmented image: maps, labels, table, overlay, run.json."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import cannot_write, replacing


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Give a scratch folder whose files move into ``folder`` only when all are written.

    Raises
    ------
    InputError
        Where ``folder`` is a file.
    EnvironmentStopped
        Where it cannot be written, or the disk is full; nothing half-written stays.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the results.")
    scratch: Path | None = None
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".nucprune-", dir=folder))
        yield scratch
        for path in sorted(scratch.iterdir()):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # it is not empty where all went well
                folder.rmdir()


def save_labels(labels: NDArray[np.int32], path: str | Path, mpp: float | None = None) -> None:
    """Write labels (H, W) int32 as a zlib TIFF with its pixel size, the old file until done.

    Raises
    ------
    EnvironmentStopped
        Where the file cannot be written.
    """
    with replacing(Path(path)) as temporary:
        write_tiff(temporary, labels, mpp)


def write_tiff(path: Path, array: NDArray[Any], mpp: float | None) -> None:
    """Write a single-channel TIFF; the resolution is in pixels a centimetre."""
    import tifffile

    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    if mpp:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, array, **options)


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB PNG."""
    from PIL import Image

    Image.fromarray(rgb).save(path, format="PNG")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write indented JSON; NaN is not JSON and is refused."""
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def overlay(
    rgb: NDArray[np.uint8], labels: NDArray[np.int32], colour: tuple[int, int, int] = (255, 255, 0)
) -> NDArray[np.uint8]:
    """Draw the nuclei's outlines on the image.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8.
    labels
        (H, W) int32.
    colour
        RGB of the outlines, drawn on the nuclei's own border pixels.

    Returns
    -------
    NDArray
        (H, W, 3) uint8.
    """
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    out = rgb.copy()
    out[edge & (labels > 0)] = colour
    return out
